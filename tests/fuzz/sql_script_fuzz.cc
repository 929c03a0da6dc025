// Migrations as any text: what is cut out of them, put together again, lacks nothing but separators, blanks and comments, and a
// statement by itself is one statement.
#include <algorithm>

#include "supervisor/base/log.h"
#include "supervisor/store/sql_script.h"
#include "tests/fuzz/fuzz.h"

namespace {

// Whether there is nothing in `gap` but what may stand between statements.
bool IsBetween(std::string_view gap) {
  while (!gap.empty()) {
    if (gap.starts_with("--")) {
      gap.remove_prefix(std::min(gap.find('\n'), gap.size()));
    } else if (gap.starts_with("/*")) {
      int level = 0;
      do {
        const bool opens = gap.starts_with("/*"), closes = gap.starts_with("*/");
        level += opens ? 1 : closes ? -1 : 0;
        gap.remove_prefix(opens || closes ? 2 : 1);
      } while (level > 0 && !gap.empty());
      if (level > 0) return false;
    } else if (std::string_view(" \t\n\r\f\v;").find(gap[0]) != std::string_view::npos) {
      gap.remove_prefix(1);
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      "CREATE TABLE a (b text DEFAULT 'x;''y');\n-- a comment; with one\nINSERT INTO a VALUES (E'\\';', $$;$$, $t$ ; $u$ ; "
      "$t$);\n",
      "/* outer /* inner ; */ still ; */ SELECT 1; ; ;; DO $body$ BEGIN PERFORM 1; END $body$;",
      "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; "
      "END;\nCOMMIT;",
      "CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2); COPY a FROM stdin; \"quoted;\"\"name\"; U&'\\0041;' ; $1 $ $a",
      "begin; Savepoint x; ROLLBACK TO x; prepare transaction 'a'; end",
      "SELECT 'never ends",
      "SELECT $x$ never ends",
      "/* never ends"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  const std::string_view script(reinterpret_cast<const char*>(data), size);
  const auto statements = SplitSql(script);
  if (!statements.ok()) return 0;
  size_t at = 0;
  for (const SqlStatement& statement : *statements) {
    BULKHEAD_CHECK(!statement.text.empty());
    const auto begin = static_cast<size_t>(statement.text.data() - script.data());
    BULKHEAD_CHECK(begin >= at && begin + statement.text.size() <= script.size());
    BULKHEAD_CHECK(IsBetween(script.substr(at, begin - at)));
    BULKHEAD_CHECK(statement.line == 1 + std::count(script.begin(), script.begin() + static_cast<std::ptrdiff_t>(begin), '\n'));
    BULKHEAD_CHECK(statement.words.size() <= SqlStatement::kMaxWords);
    const auto alone = SplitSql(statement.text);
    BULKHEAD_CHECK(alone.ok() && alone->size() == 1 && alone->front().text == statement.text &&
                   alone->front().words == statement.words);
    BULKHEAD_CHECK(IsTransactionControl(alone->front()) == IsTransactionControl(statement));
    at = begin + statement.text.size();
  }
  BULKHEAD_CHECK(IsBetween(script.substr(at)));
  return 0;
}
