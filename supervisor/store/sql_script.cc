// Follows the rules of PostgreSQL's scan.l and, for where a statement ends, of psql's psqlscan.l.
#include "supervisor/store/sql_script.h"

#include <algorithm>

#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool StartsWord(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool InTag(char c) { return StartsWord(c) || IsDigit(c); }
bool InWord(char c) { return InTag(c) || c == '$'; }

class Scanner {
 public:
  explicit Scanner(std::string_view script) : script_(script) {}

  absl::StatusOr<std::vector<SqlStatement>> Run() {
    while (at_ < script_.size()) {
      const char c = script_[at_];
      bool closed = true;
      const size_t opened = at_;
      if (IsSpace(c)) {
        ++at_;
      } else if (Looking("--")) {
        at_ = std::min(script_.find('\n', at_), script_.size());
      } else if (Looking("/*")) {
        closed = BlockComment();
      } else if (c == ';' && depth_ == 0 && bodies_ == 0) {
        EndStatement();
        ++at_;
      } else {
        StartStatement();
        closed = Token(c);
      }
      if (!closed) return Unterminated(opened);
    }
    EndStatement();
    return std::move(statements_);
  }

 private:
  bool Looking(std::string_view what) const { return script_.substr(at_, what.size()) == what; }

  void StartStatement() {
    if (open_) return;
    open_ = true;
    begin_ = at_;
    words_.clear();
    leading_ = true;
    creates_routine_ = false;
    previous_.clear();
  }

  void EndStatement() {
    if (open_) {
      line_ += static_cast<int>(std::count(script_.begin() + counted_, script_.begin() + begin_, '\n'));
      counted_ = begin_;
      size_t end = at_;
      statements_.push_back({.text = script_.substr(begin_, end - begin_), .line = line_, .words = std::move(words_)});
    }
    open_ = false;
    depth_ = bodies_ = 0;
  }

  // One token of a statement; false when a quote never ends.
  bool Token(char c) {
    if (StartsWord(c)) return Word();
    leading_ = false;
    if (c == '\'') return Quoted('\'', /*backslashes=*/false);
    if (c == '"') return Quoted('"', false);
    if (c == '$') return Dollar();
    if (IsDigit(c)) {
      while (at_ < script_.size() && (IsDigit(script_[at_]) || script_[at_] == '.')) ++at_;
      return true;
    }
    if (c == '(') ++depth_;
    if (c == ')' && depth_ > 0) --depth_;
    ++at_;
    return true;
  }

  bool Word() {
    const size_t start = at_;
    while (at_ < script_.size() && InWord(script_[at_])) ++at_;
    std::string word(script_.substr(start, at_ - start));
    for (char& c : word) {
      if (c >= 'a' && c <= 'z') c -= 'a' - 'A';
    }
    // A one-letter prefix belongs to the string behind it; only E'…' changes how that is read (U&'…' lexes like a plain one).
    if (word == "E" && at_ < script_.size() && script_[at_] == '\'') {
      leading_ = false;
      return Quoted('\'', true);
    }
    if (leading_ && words_.size() < SqlStatement::kMaxWords) words_.push_back(word);
    CountBody(word);
    previous_ = std::move(word);
    return true;
  }

  // CREATE FUNCTION … BEGIN ATOMIC a; b; END: the statements inside belong to it, and CASE … END nests there.
  void CountBody(const std::string& word) {
    if ((word == "FUNCTION" || word == "PROCEDURE") && words_.size() > 1 && words_[0] == "CREATE" &&
        (words_[1] == word || (words_.size() > 3 && words_[1] == "OR" && words_[2] == "REPLACE" && words_[3] == word))) {
      creates_routine_ = true;
    }
    if (!creates_routine_ || depth_ > 0) {
      if (bodies_ == 0) return;
    }
    if (bodies_ == 0) {
      if (word == "ATOMIC" && previous_ == "BEGIN") bodies_ = 1;
    } else if (word == "CASE") {
      ++bodies_;
    } else if (word == "END") {
      --bodies_;
    }
  }

  bool Quoted(char quote, bool backslashes) {
    for (++at_; at_ < script_.size(); ++at_) {
      if (backslashes && script_[at_] == '\\') {
        ++at_;
      } else if (script_[at_] == quote) {
        if (at_ + 1 < script_.size() && script_[at_ + 1] == quote) {
          ++at_;
        } else {
          ++at_;
          return true;
        }
      }
    }
    at_ = script_.size();
    return false;
  }

  // $1 is a parameter, a lone $ an error of the server's; $$…$$ and $tag$…$tag$ are strings.
  bool Dollar() {
    size_t end = at_ + 1;
    if (end < script_.size() && StartsWord(script_[end])) {
      while (end < script_.size() && InTag(script_[end])) ++end;
    }
    if (end >= script_.size() || script_[end] != '$') {
      ++at_;
      return true;
    }
    const std::string_view tag = script_.substr(at_, end + 1 - at_);
    const size_t close = script_.find(tag, end + 1);
    if (close == std::string_view::npos) return false;
    at_ = close + tag.size();
    return true;
  }

  bool BlockComment() {
    int level = 0;
    while (at_ < script_.size()) {
      if (Looking("/*")) {
        ++level;
        at_ += 2;
      } else if (Looking("*/")) {
        at_ += 2;
        if (--level == 0) return true;
      } else {
        ++at_;
      }
    }
    return false;
  }

  absl::Status Unterminated(size_t opened) const {
    const int line = 1 + static_cast<int>(std::count(script_.begin(), script_.begin() + opened, '\n'));
    const char* sentence = "a quoted string, name or comment that opens here never ends";
    return Error("DATABASE_ERROR", sentence, {{.code = "42601", .message = sentence, .line = line}});
  }

  const std::string_view script_;
  size_t at_ = 0;
  int depth_ = 0;    // of parentheses: CREATE RULE … DO (a; b)
  int bodies_ = 0;   // BEGIN ATOMIC and CASE that wait for their END
  // The statement under way.
  bool open_ = false;
  size_t begin_ = 0;
  bool leading_ = true;  // only bare words so far
  bool creates_routine_ = false;
  std::string previous_;
  std::vector<std::string> words_;
  // Lines counted so far, up to `counted_`.
  size_t counted_ = 0;
  int line_ = 1;
  std::vector<SqlStatement> statements_;
};

}  // namespace

absl::StatusOr<std::vector<SqlStatement>> SplitSql(std::string_view script) { return Scanner(script).Run(); }

bool IsTransactionControl(const SqlStatement& statement) {
  const auto& words = statement.words;
  const auto word = [&](size_t i) { return i < words.size() ? std::string_view(words[i]) : std::string_view(); };
  const std::string_view first = word(0);
  if (first == "BEGIN" || first == "COMMIT" || first == "END" || first == "ABORT") return true;
  if (first == "START" || first == "PREPARE") return word(1) == "TRANSACTION";
  if (first == "ROLLBACK") {
    const bool noise = word(1) == "WORK" || word(1) == "TRANSACTION";
    return word(noise ? 2 : 1) != "TO";
  }
  return false;
}

}  // namespace bulkhead
