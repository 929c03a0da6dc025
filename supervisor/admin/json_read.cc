// The reading half of json.h.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::ListValue;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::Struct;
using google::protobuf::Timestamp;
using google::protobuf::Value;
using nlohmann::json;

absl::Status Wrong(const std::string& pointer, const std::string& sentence) {
  const std::string where = pointer.empty() ? "The body" : "The field " + pointer;
  return Error("INVALID_ARGUMENT", where + " " + sentence + ".", {{pointer, "INVALID_ARGUMENT", where + " " + sentence + "."}});
}

absl::Status WrongType(const std::string& pointer, std::string_view wanted, const json& got) {
  std::string kind = got.type_name();
  const bool vowel = kind == "array" || kind == "object";
  return Wrong(pointer, "must be " + std::string(wanted) + ", not " + (kind == "null" ? "null" : (vowel ? "an " : "a ") + kind));
}

std::optional<Timestamp> ParseTimestamp(const std::string& text) {
  absl::Time time;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, nullptr)) return std::nullopt;
  const int64_t nanos = absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(absl::ToUnixSeconds(time)));
  Timestamp stamp;
  stamp.set_seconds(absl::ToUnixSeconds(time));
  stamp.set_nanos(static_cast<int32_t>(nanos));
  const bool in_range = stamp.seconds() >= -62135596800 && stamp.seconds() <= 253402300799;  // the years 1 to 9999
  if (!in_range) return std::nullopt;
  return stamp;
}

void SetInteger(Message& m, const FieldDescriptor* f, int64_t number) {
  const Reflection& r = *m.GetReflection();
  if (f->cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
    f->is_repeated() ? r.AddInt32(&m, f, static_cast<int32_t>(number)) : r.SetInt32(&m, f, static_cast<int32_t>(number));
  } else {
    f->is_repeated() ? r.AddInt64(&m, f, number) : r.SetInt64(&m, f, number);
  }
}

bool InRange(const FieldDescriptor& f, int64_t number) {
  return f.cpp_type() == FieldDescriptor::CPPTYPE_INT64 || (number >= INT32_MIN && number <= INT32_MAX);
}

absl::Status ReadObject(const json& object, Message& message, const std::string& pointer, const std::set<std::string>& bound);

// kAsSent: of a request, of which nothing may become something else before it is checked. JSON's parser lets nothing but UTF-8 through.
enum class Text { kAsSent, kMadeValid };
void FromJsonAt(const json& source, Value& value, int depth, Text text);

absl::Status ReadSubmessage(const json& value, Message& message, const std::string& pointer) {
  if (auto* any = dynamic_cast<Value*>(&message)) {
    FromJsonAt(value, *any, 1, Text::kAsSent);
    return absl::OkStatus();
  }
  if (auto* object = dynamic_cast<Struct*>(&message)) {
    if (!value.is_object()) return WrongType(pointer, "an object", value);
    for (const auto& [key, item] : value.items()) FromJsonAt(item, (*object->mutable_fields())[key], 2, Text::kAsSent);
    return absl::OkStatus();
  }
  if (auto* list = dynamic_cast<ListValue*>(&message)) {
    if (!value.is_array()) return WrongType(pointer, "an array", value);
    for (const json& item : value) FromJsonAt(item, *list->add_values(), 1, Text::kAsSent);
    return absl::OkStatus();
  }
  if (auto* time = dynamic_cast<Timestamp*>(&message)) {
    const auto parsed = value.is_string() ? ParseTimestamp(value.get<std::string>()) : std::nullopt;
    if (!parsed) return Wrong(pointer, "must be a time in RFC 3339, such as \"2026-01-10T15:17:56.967Z\"");
    *time = *parsed;
    return absl::OkStatus();
  }
  return ReadObject(value, message, pointer, {});
}

// One value into a field: sets a singular one, adds to a repeated one.
absl::Status ReadSingle(const json& value, Message& m, const FieldDescriptor* f, const std::string& pointer) {
  const Reflection& r = *m.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: {
      if (!value.is_string()) return WrongType(pointer, "a string", value);
      f->is_repeated() ? r.AddString(&m, f, value.get<std::string>()) : r.SetString(&m, f, value.get<std::string>());
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      if (!value.is_boolean()) return WrongType(pointer, "true or false", value);
      f->is_repeated() ? r.AddBool(&m, f, value.get<bool>()) : r.SetBool(&m, f, value.get<bool>());
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64: {
      if (!value.is_number_integer())
        return value.is_number() ? Wrong(pointer, "must be a whole number") : WrongType(pointer, "a whole number", value);
      const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX;
      if (huge || !InRange(*f, value.get<int64_t>())) return Wrong(pointer, "is out of range");
      SetInteger(m, f, value.get<int64_t>());
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      if (!value.is_number()) return WrongType(pointer, "a number", value);
      f->is_repeated() ? r.AddDouble(&m, f, value.get<double>()) : r.SetDouble(&m, f, value.get<double>());
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumValueDescriptor* named = value.is_string() ? f->enum_type()->FindValueByName(value.get<std::string>()) : nullptr;
      if (named == nullptr || named->number() == 0) return Wrong(pointer, "must be one of " + EnumNames(*f->enum_type()));
      f->is_repeated() ? r.AddEnum(&m, f, named) : r.SetEnum(&m, f, named);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ReadSubmessage(value, f->is_repeated() ? *r.AddMessage(&m, f) : *r.MutableMessage(&m, f), pointer);
    default: return Wrong(pointer, "cannot be given in JSON");
  }
}

absl::Status ReadMap(const json& value, Message& m, const FieldDescriptor* f, const std::string& pointer) {
  if (!value.is_object()) return WrongType(pointer, "an object", value);
  for (const auto& [key, item] : value.items()) {
    Message& entry = *m.GetReflection()->AddMessage(&m, f);
    RETURN_IF_ERROR(ReadSingle(json(key), entry, f->message_type()->map_key(), pointer + PointerToken(key)));
    RETURN_IF_ERROR(ReadSingle(item, entry, f->message_type()->map_value(), pointer + PointerToken(key)));
  }
  return absl::OkStatus();
}

absl::Status ReadObject(const json& object, Message& message, const std::string& pointer, const std::set<std::string>& bound) {
  if (!object.is_object()) return WrongType(pointer, "a JSON object", object);
  const auto& type = *message.GetDescriptor();
  for (const auto& [key, value] : object.items()) {
    const std::string here = pointer + PointerToken(key);
    const FieldDescriptor* field = nullptr;
    std::string known;
    for (int i = 0; i < type.field_count(); ++i) {
      const std::string& name = type.field(i)->json_name();
      if (name == key) field = type.field(i);
      if (!bound.contains(name)) known += (known.empty() ? "" : ", ") + name;
    }
    if (field == nullptr)
      return Wrong(here, known.empty() ? "is not known; there are none here" : "is not known; known are " + known);
    if (bound.contains(key)) return Wrong(here, "is given by the path or a header and has no place in the body");
    if (value.is_null() && !(field->message_type() != nullptr && field->message_type() == Value::descriptor()))
      continue;  // as absent
    if (field->is_map()) {
      RETURN_IF_ERROR(ReadMap(value, message, field, here));
    } else if (field->is_repeated()) {
      if (!value.is_array()) return WrongType(here, "an array", value);
      for (size_t i = 0; i < value.size(); ++i)
        RETURN_IF_ERROR(ReadSingle(value[i], message, field, here + "/" + std::to_string(i)));
    } else {
      RETURN_IF_ERROR(ReadSingle(value, message, field, here));
    }
  }
  return absl::OkStatus();
}

void FromJsonAt(const json& source, Value& value, int depth, Text text) {
  const auto kept = [text](const std::string& bytes) { return text == Text::kAsSent ? bytes : ValidUtf8(bytes); };
  if ((source.is_array() || source.is_object()) && depth > kMaxJsonDepth) return value.set_string_value("…");
  switch (source.type()) {
    case json::value_t::object: {
      auto& fields = *value.mutable_struct_value()->mutable_fields();
      for (const auto& [key, item] : source.items()) FromJsonAt(item, fields[kept(key)], depth + 1, text);
      return;
    }
    case json::value_t::array: {
      auto& list = *value.mutable_list_value();
      for (const json& item : source) FromJsonAt(item, *list.add_values(), depth + 1, text);
      return;
    }
    case json::value_t::string: return value.set_string_value(kept(source.get_ref<const std::string&>()));
    case json::value_t::boolean: return value.set_bool_value(source.get<bool>());
    case json::value_t::number_integer:
    case json::value_t::number_unsigned:
    case json::value_t::number_float: return value.set_number_value(source.get<double>());
    case json::value_t::null:
    case json::value_t::binary:
    case json::value_t::discarded: return value.set_null_value(google::protobuf::NULL_VALUE);
  }
}

}  // namespace

std::string PointerToken(std::string_view name) {
  std::string token = "/";
  for (const char c : name) {
    if (c == '~')
      token += "~0";
    else if (c == '/')
      token += "~1";
    else
      token += c;
  }
  return token;
}

absl::StatusOr<json> ParseJson(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return json::object();
  bool too_deep = false;
  const auto bound_depth = [&](int depth, json::parse_event_t event, json&) {
    const bool opens = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (opens && depth >= kMaxJsonDepth) too_deep = true;
    return !too_deep;
  };
  json parsed;
  try {
    parsed = json::parse(text, bound_depth);
  } catch (const json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while …"
    std::string_view what = e.what();
    if (const size_t end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    const std::string sentence = "The body is not valid JSON: " + ValidUtf8(what) + ".";
    return Error("INVALID_JSON", sentence, {{"", "INVALID_JSON", sentence}});
  }
  if (too_deep) return Error("INVALID_ARGUMENT", "The body is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels.");
  return parsed;
}

absl::Status ReadMessage(const json& object, Message& message, const std::set<std::string>& bound) {
  return ReadObject(object, message, "", bound);
}

bool IsScalar(const FieldDescriptor& field) { return field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE; }

absl::Status ReadScalar(std::string_view text, const FieldDescriptor& field, Message& message) {
  const auto fail = [](const std::string& sentence) { return Error("INVALID_ARGUMENT", sentence); };
  json value;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
    case FieldDescriptor::CPPTYPE_ENUM:
      if (!IsValidUtf8(text)) return fail("must be UTF-8");
      value = text;
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (text != "true" && text != "false") return fail("must be true or false");
      value = text == "true";
      break;
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size()) return fail("must be a whole number");
      value = number;
      break;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) return fail("must be a number");
      value = number;
      break;
    }
    default: return fail("cannot be given here");
  }
  const absl::Status read = ReadSingle(value, message, &field, "");
  if (read.ok()) return read;
  // The sentence without its subject, which the caller knows better.
  std::string sentence(read.message());
  constexpr std::string_view kSubject = "The body ";
  if (sentence.starts_with(kSubject)) sentence.erase(0, kSubject.size());
  if (sentence.ends_with('.')) sentence.pop_back();
  return fail(sentence);
}

void FromJson(const json& source, Value& value) { FromJsonAt(source, value, 1, Text::kMadeValid); }

void FromJson(const json& object, Struct& value) {
  if (!object.is_object()) return;
  for (const auto& [key, item] : object.items()) FromJsonAt(item, (*value.mutable_fields())[ValidUtf8(key)], 2, Text::kMadeValid);
}

Timestamp ToTimestamp(WallTime time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch());
  Timestamp stamp;
  stamp.set_seconds(seconds.count());
  stamp.set_nanos(
      static_cast<int32_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch() - seconds).count()));
  return stamp;
}

WallTime FromTimestamp(const Timestamp& time) {
  // A WallTime counts nanoseconds in 64 bits: the years 1677 to 2262. What lies beyond is put at the edge.
  constexpr int64_t kMaxSeconds = INT64_MAX / 1'000'000'000 - 1;
  const int64_t seconds = std::clamp(time.seconds(), -kMaxSeconds, kMaxSeconds);
  return WallTime(
      std::chrono::duration_cast<WallTime::duration>(std::chrono::seconds(seconds) + std::chrono::nanoseconds(time.nanos())));
}

}  // namespace bulkhead
