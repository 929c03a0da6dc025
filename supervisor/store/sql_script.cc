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

constexpr size_t kLongestCommand = 32;  // of psql, as an error shows it

// Characters, not bytes: what continues one in UTF-8 is not counted.
bool StartsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

int ColumnOf(std::string_view script, size_t byte) {
  const size_t newline = byte == 0 ? std::string_view::npos : script.rfind('\n', byte - 1);
  const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
  return 1 + static_cast<int>(std::count_if(script.begin() + begin, script.begin() + byte, StartsCharacter));
}

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
        if (talks_) break;  // what follows a COPY … FROM STDIN is data
      } else if (c == '\\') {
        return MetaCommand();
      } else {
        StartStatement();
        closed = Token(c);
      }
      if (!closed) return Unterminated(opened);
    }
    EndStatement();
    if (talks_) return NobodyToTalkTo();
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

  // SQL has no backslash outside of quotes; whoever writes one means psql.
  absl::Status MetaCommand() const {
    size_t end = std::min(at_ + 2, script_.size());  // also one that is no word, "\\."
    while (end < script_.size() && end - at_ < kLongestCommand && InWord(script_[end])) ++end;
    const std::string sentence = std::string(script_.substr(at_, end - at_)) +
                                 " is a command of psql and not SQL: the file goes to the server as it stands, without psql";
    const TextPlace place = PlaceOfByte(script_, at_);
    return Error("MIGRATION_FAILED", sentence, {{.message = sentence, .line = place.line, .column = place.column}});
  }

  absl::Status NobodyToTalkTo() const {
    const char* sentence =
        "COPY from STDIN or to STDOUT has nobody to talk to here: write the rows as INSERT … VALUES. COPY with a file or a program "
        "of the server is no way either, a module has no right to it";
    const SqlStatement& copy = statements_.back();
    return Error("MIGRATION_FAILED", sentence, {{.message = sentence, .line = copy.line, .column = copy.column}});
  }

  void EndStatement() {
    if (open_) {
      line_ += static_cast<int>(std::count(script_.begin() + counted_, script_.begin() + begin_, '\n'));
      counted_ = begin_;
      statements_.push_back({.text = script_.substr(begin_, at_ - begin_), .line = line_, .column = ColumnOf(script_, begin_),
                             .words = std::move(words_)});
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
    const bool copies = !words_.empty() && words_[0] == "COPY" && depth_ == 0;
    if (copies && ((previous_ == "FROM" && word == "STDIN") || (previous_ == "TO" && word == "STDOUT"))) talks_ = true;
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
    const TextPlace place = PlaceOfByte(script_, opened);
    const char* sentence = "a quoted string, name or comment that opens here never ends";
    return Error("DATABASE_ERROR", sentence, {{.code = "42601", .message = sentence, .line = place.line, .column = place.column}});
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
  bool talks_ = false;   // it is a COPY with the client
  std::string previous_;
  std::vector<std::string> words_;
  // Lines counted so far, up to `counted_`.
  size_t counted_ = 0;
  int line_ = 1;
  std::vector<SqlStatement> statements_;
};

}  // namespace

TextPlace PlaceOfByte(std::string_view script, size_t byte) {
  return {1 + static_cast<int>(std::count(script.begin(), script.begin() + byte, '\n')), ColumnOf(script, byte)};
}

TextPlace PlaceOfCharacter(std::string_view script, int64_t position) {
  if (position <= 0) return {};
  for (size_t byte = 0; byte < script.size(); ++byte) {
    if (StartsCharacter(script[byte]) && --position == 0) return PlaceOfByte(script, byte);
  }
  return PlaceOfByte(script, script.size());  // "at end of input"
}

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

std::string ConcurrentIndex(const SqlStatement& statement) {
  const auto& words = statement.words;
  size_t at = 0;
  const auto next = [&](std::string_view word) { return at < words.size() && words[at] == word ? (++at, true) : false; };
  if (!next("CREATE")) return "";
  next("UNIQUE");
  if (!next("INDEX") || !next("CONCURRENTLY")) return "";
  if (next("IF")) at += 2;  // NOT EXISTS
  if (at < words.size()) {
    if (words[at] == "ON") return "";
    std::string name = words[at];  // without quotes the server folds it to small letters
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
    }
    return name;
  }
  // The leading words end where a quoted name begins.
  const size_t open = statement.text.find('"');
  if (open == std::string_view::npos) return "";
  size_t close = open + 1;
  while (close < statement.text.size() && (statement.text[close] != '"' || statement.text.substr(close, 2) == "\"\"")) {
    close += statement.text[close] == '"' ? 2 : 1;
  }
  return std::string(statement.text.substr(open, close + 1 - open));
}

}  // namespace bulkhead
