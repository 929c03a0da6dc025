#include "supervisor/manifest/document.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/yaml.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxText = 1 << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 100'000;
constexpr size_t kMaxKey = 1024;
constexpr size_t kMaxExpanded = 10 << 20;  // bytes of YAML scalars, those of aliases each time

absl::Status Broken(std::string path, int line, std::string code, std::string message) {
  const std::string sentence = line > 0 ? absl::StrCat("Line ", line, ": ", message) : message;
  return Error("INVALID_ARGUMENT", sentence, {{std::move(path), std::move(code), std::move(message), line}});
}

// Counts lines under the JSON lexer. A newline counts once something after it is read, because the lexer looks one
// character ahead of a number.
struct LineCounter {
  int line = 1;
  bool at_newline = false;
};
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, LineCounter* counter) : at_(at), counter_(counter) {}
  const char& operator*() const { return *at_; }
  CountingIterator& operator++() {
    if (counter_->at_newline) ++counter_->line;
    counter_->at_newline = *at_ == '\n';
    ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  LineCounter* counter_;
};

// Builds the document from the parser's events.
class JsonBuilder : public nlohmann::json_sax<json> {
 public:
  explicit JsonBuilder(const LineCounter& counter) : counter_(counter) {}
  Document document;
  absl::Status status;

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override { return Scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return Scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool string(string_t& value) override { return Scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Open(json::object()); }
  bool start_array(std::size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    Frame& top = stack_.back();
    if (name.size() > kMaxKey) {
      status = Broken(Path(), counter_.line, "TOO_LARGE", "A key is longer than 1,024 bytes.");
      return false;
    }
    if (top.value->contains(name)) {
      status =
          Broken(PointerTo(Path(), name), counter_.line, "DUPLICATE_KEY", absl::StrCat("The key \"", name, "\" is there twice."));
      return false;
    }
    top.member = &top.lines->members[name];
    top.member->line = counter_.line;
    top.key = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string& last_token, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: syntax error while …": the part after the place.
    std::string_view what = error.what();
    if (const size_t at = what.find(": "); at != std::string_view::npos) what.remove_prefix(at + 2);
    status = Broken("", counter_.line, "SYNTAX", absl::StrCat("This is not JSON: ", View(what), "."));
    return false;
  }

 private:
  struct Frame {
    json* value;
    Lines* lines;
    std::string key;          // of the member under way
    Lines* member = nullptr;  // its place
  };

  // The pointer of the innermost value that is open.
  std::string Path() const {
    std::string path;
    for (size_t i = 0; i + 1 < stack_.size(); ++i) {
      const Frame& frame = stack_[i];
      path = frame.value->is_object() ? PointerTo(path, frame.key) : PointerTo(path, frame.value->size() - 1);
    }
    return path;
  }

  // Puts the next value where it goes; {nullptr, nullptr} when a limit is passed.
  std::pair<json*, Lines*> Place(json value) {
    if (++values_ > kMaxValues) {
      status = Broken("", counter_.line, "TOO_LARGE", "There are more than 100,000 values.");
      return {};
    }
    if (stack_.empty()) {
      document.root = std::move(value);
      document.lines.line = counter_.line;
      return {&document.root, &document.lines};
    }
    Frame& top = stack_.back();
    if (top.value->is_object()) return {&((*top.value)[top.key] = std::move(value)), top.member};
    top.value->push_back(std::move(value));
    top.lines->items.push_back({.line = counter_.line});
    return {&top.value->back(), &top.lines->items.back()};
  }
  bool Scalar(json value) { return Place(std::move(value)).first != nullptr; }
  bool Open(json value) {
    if (stack_.size() >= kMaxDepth) {
      status = Broken("", counter_.line, "TOO_DEEP", "There are more than 64 levels.");
      return false;
    }
    const auto [placed, lines] = Place(std::move(value));
    if (placed == nullptr) return false;
    stack_.push_back({placed, lines, "", nullptr});
    return true;
  }
  bool Close() {
    stack_.pop_back();
    return true;
  }

  const LineCounter& counter_;
  std::vector<Frame> stack_;
  size_t values_ = 0;
};

absl::StatusOr<Document> ReadJson(std::string_view text) {
  LineCounter counter;
  JsonBuilder builder(counter);
  const bool whole =
      json::sax_parse(CountingIterator(text.data(), &counter), CountingIterator(text.data() + text.size(), &counter), &builder);
  if (whole) return std::move(builder.document);
  return builder.status.ok() ? Broken("", counter.line, "SYNTAX", "This is not JSON.") : builder.status;
}

// A plain scalar by the core schema of YAML 1.2: null, true, false, numbers; all else is a string. ("no" and "on" are strings.)
json PlainScalar(const std::string& text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (text.find_first_not_of("0123456789+-.eE") != std::string::npos) return text;
  const size_t digits = text[0] == '-' || text[0] == '+' ? 1 : 0;
  if (digits == text.size() || text.find_first_of("0123456789") == std::string::npos) return text;
  if (text.find_first_not_of("0123456789", digits) == std::string::npos) {
    int64_t integer = 0;
    if (absl::SimpleAtoi(text, &integer)) return integer;
  }
  double number = 0;
  if (absl::SimpleAtod(text, &number) && std::isfinite(number)) return number;
  return text;
}

class YamlReader {
 public:
  absl::Status Read(const YAML::Node& node, const std::string& path, size_t depth, json& out, Lines& lines) {
    const int line = node.Mark().line + 1;
    if (depth >= kMaxDepth && (node.IsSequence() || node.IsMap()))
      return Broken(path, line, "TOO_DEEP", "There are more than 64 levels.");
    if (++values_ > kMaxValues) return Broken(path, line, "TOO_LARGE", "There are more than 100,000 values.");
    if (lines.line == 0) lines.line = line;
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: out = nullptr; return CheckTag(node, path, {"null"});
      case YAML::NodeType::Scalar: return ReadScalar(node, path, out);
      case YAML::NodeType::Sequence: break;
      case YAML::NodeType::Map: return ReadMap(node, path, depth, out, lines);
    }
    RETURN_IF_ERROR(CheckTag(node, path, {"seq"}));
    out = json::array();
    for (const YAML::Node& item : node) {
      json value;
      Lines at;
      RETURN_IF_ERROR(Read(item, PointerTo(path, out.size()), depth + 1, value, at));
      out.push_back(std::move(value));
      lines.items.push_back(std::move(at));
    }
    return absl::OkStatus();
  }

 private:
  // "?" and "" are no tag, "!" is a quoted scalar.
  static absl::Status CheckTag(const YAML::Node& node, const std::string& path, std::initializer_list<std::string_view> known) {
    constexpr std::string_view kCore = "tag:yaml.org,2002:";
    const std::string& tag = node.Tag();
    if (tag.empty() || tag == "?" || tag == "!") return absl::OkStatus();
    const std::string_view name = std::string_view(tag).substr(std::min(tag.size(), kCore.size()));
    if (tag.starts_with(kCore) && std::find(known.begin(), known.end(), name) != known.end()) return absl::OkStatus();
    return Broken(path, node.Mark().line + 1, "SYNTAX",
                  absl::StrCat("The tag \"", tag.substr(0, 64), "\" means nothing here; leave it out."));
  }
  absl::Status ReadScalar(const YAML::Node& node, const std::string& path, json& out) {
    RETURN_IF_ERROR(CheckTag(node, path, {"str", "int", "float", "bool", "null"}));
    expanded_ += node.Scalar().size();
    if (expanded_ > kMaxExpanded)
      return Broken(path, node.Mark().line + 1, "TOO_LARGE", "With its aliases the text is longer than 10 MiB.");
    if (!IsValidUtf8(node.Scalar())) {  // by an escape: "\0", "\xff" is U+00FF
      return Broken(path, node.Mark().line + 1, "SYNTAX", "A text has a NUL, or is not UTF-8.");
    }
    const bool is_text = node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str";  // quoted, or said to be a string
    out = is_text ? json(node.Scalar()) : PlainScalar(node.Scalar());
    return absl::OkStatus();
  }
  absl::Status ReadMap(const YAML::Node& node, const std::string& path, size_t depth, json& out, Lines& lines) {
    RETURN_IF_ERROR(CheckTag(node, path, {"map"}));
    out = json::object();
    for (const auto& member : node) {
      const int line = member.first.Mark().line + 1;
      if (!member.first.IsScalar()) return Broken(path, line, "SYNTAX", "A key must be a plain name.");
      const std::string& name = member.first.Scalar();
      if (name.size() > kMaxKey) return Broken(path, line, "TOO_LARGE", "A key is longer than 1,024 bytes.");
      if (name == "<<" && member.first.Tag() != "!") {
        return Broken(path, line, "SYNTAX",
                      "\"<<\" does not merge here: write the fields out, or repeat the values with an alias each.");
      }
      const std::string member_path = PointerTo(path, name);
      if (out.contains(name))
        return Broken(member_path, line, "DUPLICATE_KEY", absl::StrCat("The key \"", name, "\" is there twice."));
      Lines& at = lines.members[name];
      at.line = line;
      json value;
      RETURN_IF_ERROR(Read(member.second, member_path, depth + 1, value, at));
      out[name] = std::move(value);
    }
    return absl::OkStatus();
  }
  size_t values_ = 0, expanded_ = 0;
};

// Where the first thing of a document was written.
class FirstEvent : public YAML::EventHandler {
 public:
  int line = 0;  // 0: nothing yet

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { At(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { At(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string&) override { At(mark); }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { At(mark); }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { At(mark); }
  void OnMapEnd() override {}

 private:
  void At(const YAML::Mark& mark) {
    if (line == 0) line = mark.line + 1;
  }
};

// The line of a second document, 0 without one. YAML::LoadAll would do, but a stray bracket makes the library see documents without end
// and without a byte of their own; so nobody may ask for more than the second.
int SecondDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  FirstEvent first, second;
  return parser.HandleNextDocument(first) && parser.HandleNextDocument(second) ? std::max(second.line, 1) : 0;
}

absl::StatusOr<Document> ReadYaml(std::string_view text) {
  try {
    const std::string copy(text);
    if (const int line = SecondDocument(copy); line > 0) {
      return Broken("", line, "SYNTAX", "There is more than one YAML document, or something that belongs to none.");
    }
    Document document;
    YamlReader reader;
    RETURN_IF_ERROR(reader.Read(YAML::Load(copy), "", 0, document.root, document.lines));
    return document;
  } catch (const YAML::Exception& e) {
    return Broken("", e.mark.is_null() ? 0 : e.mark.line + 1, "SYNTAX", absl::StrCat("This is not YAML: ", e.msg, "."));
  }
}

// The first line that is not UTF-8 or has a NUL; 0 without any.
int LineThatIsNoText(std::string_view text) {
  if (IsValidUtf8(text)) return 0;
  int line = 1;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos && IsValidUtf8(text.substr(0, end)); ++line)
    text.remove_prefix(end + 1);
  return line;
}

}  // namespace

int Document::LineOf(std::string_view pointer) const {
  const Lines* at = &lines;
  int line = lines.line;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const size_t end = std::min(pointer.find('/'), pointer.size());
    const std::string key = absl::StrReplaceAll(View(pointer.substr(0, end)), {{"~1", "/"}, {"~0", "~"}});
    pointer.remove_prefix(end);
    const Lines* next = nullptr;
    size_t index = 0;
    if (auto member = at->members.find(key); member != at->members.end()) {
      next = &member->second;
    } else if (absl::SimpleAtoi(key, &index) && index < at->items.size()) {
      next = &at->items[index];
    }
    if (next == nullptr) break;
    at = next;
    line = at->line;
  }
  return line;
}

std::string PointerTo(std::string_view parent, std::string_view key) {
  return absl::StrCat(View(parent), "/", absl::StrReplaceAll(View(key), {{"~", "~0"}, {"/", "~1"}}));
}

std::string PointerTo(std::string_view parent, size_t index) { return absl::StrCat(View(parent), "/", index); }

absl::StatusOr<Document> ReadDocument(std::string_view text, bool yaml) {
  if (text.size() > kMaxText) return Broken("", 0, "TOO_LARGE", "The text is longer than 1 MiB.");
  if (const int line = LineThatIsNoText(text); line > 0) {
    return Broken("", line, "SYNTAX", "There is a NUL here, or bytes that are not UTF-8: this is no text.");
  }
  return yaml ? ReadYaml(text) : ReadJson(text);
}

}  // namespace bulkhead
