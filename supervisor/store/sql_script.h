// A migration file cut into statements the way PostgreSQL's own lexer sees it, so that a `;` or COMMIT inside a string, a
// function or a comment is not one. Assumes standard_conforming_strings. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bulkhead {

struct SqlStatement {
  std::string_view text;           // from its first token, without the closing ';' and what follows it
  int line = 1;                    // of its first token
  std::vector<std::string> words;  // its leading bare words in capitals, at most kMaxWords
  static constexpr size_t kMaxWords = 4;
};

// Views into `script`. A quote or comment that never ends is DATABASE_ERROR 42601 with the line where it opens.
absl::StatusOr<std::vector<SqlStatement>> SplitSql(std::string_view script);

// BEGIN, START TRANSACTION, COMMIT, END, ROLLBACK (not to a savepoint), ABORT, PREPARE TRANSACTION, and their PREPARED forms.
bool IsTransactionControl(const SqlStatement& statement);

}  // namespace bulkhead
