#include "supervisor/manifest/reader.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/text.h"
#include "supervisor/manifest/nearest.h"

namespace bulkhead {
namespace {

using nlohmann::json;

const json& EmptyObject() {
  static const json empty = json::object();
  return empty;
}

constexpr size_t kMaxReported = 100;  // unknown fields of one object; more than that is no slip

bool HasControl(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 && c != '\n' && c != '\t' && c != '\r'; });
}

bool HasNul(const std::string& text) { return text.find('\0') != std::string::npos; }
bool HasNul(const json& value) {
  if (value.is_string()) return HasNul(value.get_ref<const std::string&>());
  if (value.is_array()) return std::any_of(value.begin(), value.end(), [](const json& item) { return HasNul(item); });
  if (!value.is_object()) return false;
  const auto& members = value.get_ref<const json::object_t&>();
  return std::any_of(members.begin(), members.end(), [](const auto& m) { return HasNul(m.first) || HasNul(m.second); });
}

}  // namespace

std::string Findings::Suggest(std::string_view wrong, const std::vector<std::string>& known) {
  return suggestions_left_-- > 0 ? DidYouMean(wrong, known) : "";
}

std::string TypeName(const json& value) {
  switch (value.type()) {
    case json::value_t::null: return "null";
    case json::value_t::boolean: return "a boolean";
    case json::value_t::string: return "a string";
    case json::value_t::array: return "a list";
    case json::value_t::object: return "an object";
    default: return "a number";
  }
}

ObjectReader::ObjectReader(const json& value, std::string path, Findings& out)
    : object_(value.is_object() ? value : EmptyObject()), path_(std::move(path)), out_(out) {
  if (!value.is_object()) out_.Error(path_, "WRONG_TYPE", absl::StrCat("This must be an object, not ", TypeName(value), "."));
}

const json* ObjectReader::Get(std::string_view name) {
  known_.emplace_back(name);
  auto found = object_.find(known_.back());
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json* ObjectReader::Typed(std::string_view name, bool (json::*is)() const noexcept, std::string_view wanted) {
  const json* value = Get(name);
  if (value == nullptr || (value->*is)()) return value;
  std::string message = absl::StrCat("\"", View(name), "\" must be ", View(wanted), ", not ", TypeName(*value), ".");
  if (wanted == "a string" && value->is_primitive()) message += " Put it in quotes.";
  out_.Error(PathOf(name), "WRONG_TYPE", std::move(message));
  return nullptr;
}

const json* ObjectReader::Object(std::string_view name) { return Typed(name, &json::is_object, "an object"); }

const json* ObjectReader::Array(std::string_view name, size_t max_items) {
  const json* value = Typed(name, &json::is_array, "a list");
  if (value != nullptr && value->size() > max_items) {
    out_.Error(PathOf(name), "TOO_MANY",
               absl::StrCat("\"", View(name), "\" may have at most ", max_items, " entries, this has ", value->size(), "."));
    return nullptr;
  }
  return value;
}

std::optional<std::string> ObjectReader::String(std::string_view name, size_t max_length) {
  const json* value = Typed(name, &json::is_string, "a string");
  if (value == nullptr) return std::nullopt;
  auto text = value->get<std::string>();
  if (Characters(text) > max_length) {
    out_.Error(PathOf(name), "TOO_LONG", absl::StrCat("\"", View(name), "\" may have at most ", max_length, " characters."));
    return std::nullopt;
  }
  if (HasControl(text)) {
    out_.Error(PathOf(name), "INVALID_TEXT", absl::StrCat("\"", View(name), "\" has a control character."));
    return std::nullopt;
  }
  return text;
}

std::optional<bool> ObjectReader::Bool(std::string_view name) {
  const json* value = Typed(name, &json::is_boolean, "true or false");
  return value == nullptr ? std::nullopt : std::optional(value->get<bool>());
}

std::optional<double> ObjectReader::Number(std::string_view name) {
  const json* value = Typed(name, &json::is_number, "a number");
  return value == nullptr ? std::nullopt : std::optional(value->get<double>());
}

std::optional<int64_t> ObjectReader::Integer(std::string_view name, int64_t min, int64_t max) {
  const auto number = Number(name);
  if (!number) return std::nullopt;
  if (*number != std::floor(*number) || *number < static_cast<double>(min) || *number > static_cast<double>(max)) {
    out_.Error(PathOf(name), "OUT_OF_RANGE",
               absl::StrCat("\"", View(name), "\" must be a whole number from ", min, " to ", max, "."));
    return std::nullopt;
  }
  return static_cast<int64_t>(*number);
}

std::vector<std::string> ObjectReader::Strings(std::string_view name, size_t max_items, size_t max_length) {
  std::vector<std::string> strings;
  const json* list = Array(name, max_items);
  if (list == nullptr) return strings;
  for (size_t i = 0; i < list->size(); ++i) {
    const json& item = (*list)[i];
    const std::string item_path = PointerTo(PathOf(name), i);
    if (!item.is_string()) {
      out_.Error(item_path, "WRONG_TYPE",
                 absl::StrCat("Each entry of \"", View(name), "\" must be a string, not ", TypeName(item), "."));
    } else if (Characters(item.get_ref<const std::string&>()) > max_length || HasControl(item.get_ref<const std::string&>())) {
      out_.Error(item_path, "INVALID_TEXT",
                 absl::StrCat("Each entry of \"", View(name), "\" may have at most ", max_length,
                              " characters, none of them a control character."));
    } else {
      strings.push_back(item.get<std::string>());
    }
  }
  return strings;
}

void ObjectReader::Labels(std::initializer_list<const char*> names, size_t max_length) {
  for (const char* name : names) String(name, max_length);
}

void ObjectReader::TextOrObject(std::string_view name) {
  const json* value = Get(name);
  if (value != nullptr && value->is_object()) return;
  if (value != nullptr && !value->is_string()) {
    out_.Error(PathOf(name), "WRONG_TYPE",
               absl::StrCat("\"", View(name), "\" must be a string or an object, not ", TypeName(*value), "."));
  } else {
    String(name);
  }
}

void ObjectReader::Accept(std::initializer_list<const char*> names) { known_.insert(known_.end(), names.begin(), names.end()); }

void ObjectReader::NotApplied(std::string_view name, std::string_view why) {
  if (Get(name) != nullptr)
    out_.Warn(PathOf(name), "NOT_APPLIED", absl::StrCat("\"", View(name), "\" has no effect in this version: ", View(why), "."));
}

void ObjectReader::Require(std::string_view name) {
  auto found = object_.find(std::string(name));
  if (found == object_.end() || found->is_null()) {
    out_.Error(PathOf(name), "REQUIRED", absl::StrCat("\"", View(name), "\" is missing."));
  }
}

void ObjectReader::WarnUnknown() {
  size_t reported = 0;  // of this object
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    if (++reported > kMaxReported) return;
    out_.Warn(PathOf(name), "UNKNOWN_FIELD",
              absl::StrCat("\"", name.substr(0, 64), "\" is no field that is known here.", out_.Suggest(name, known_)));
  }
}

bool IsKebab(std::string_view text) {
  if (text.empty() || !absl::ascii_islower(text.front()) || text.back() == '-') return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '-' ? text[i + 1] == '-' : !absl::ascii_islower(text[i]) && !absl::ascii_isdigit(text[i])) return false;
  }
  return true;
}

bool IsInnerPath(std::string_view path) {
  if (path.empty() || path.size() > 255 || path.front() == '/') return false;
  for (size_t i = 0; i < path.size(); ++i) {
    const auto c = static_cast<unsigned char>(path[i]);
    if (c < 0x20 || c == 0x7f || c == '\\') return false;
    // "%2e%2e" is ".." for whoever decodes it; no file of ours needs such a name.
    if (c == '%' && i + 2 < path.size() && HexDigit(path[i + 1]) >= 0 && HexDigit(path[i + 2]) >= 0) return false;
  }
  for (absl::string_view part : absl::StrSplit(View(path), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

void CheckInnerPath(const std::string& path, std::string pointer, std::string_view what, Findings& out) {
  if (IsInnerPath(path)) return;
  out.Error(std::move(pointer), "INVALID_PATH",
            absl::StrCat("\"", View(what),
                         "\" must be a path inside the module's folder: not absolute, at most 255 bytes, without \"..\", ",
                         "empty parts, backslashes and percent-encoding."));
}

void CheckNul(const json& value, const std::string& path, Findings& out) {
  if (!HasNul(value)) return;  // nearly always, and then without a path
  if (value.is_string()) return out.Error(path, "INVALID_TEXT", "There is a NUL in this text.");
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) CheckNul(value[i], PointerTo(path, i), out);
    return;
  }
  for (const auto& [name, member] : value.items()) {
    if (HasNul(name)) out.Error(path, "INVALID_TEXT", "There is a NUL in the name of a member.");
    CheckNul(member, PointerTo(path, name), out);
  }
}

size_t Characters(std::string_view utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace bulkhead
