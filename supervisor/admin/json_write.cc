// The printing half of json.h.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/dynamic_message.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::ListValue;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::Struct;
using google::protobuf::Timestamp;
using google::protobuf::Value;

constexpr double kMaxExact = 9007199254740992.0;  // 2^53: every whole number below it has a double of its own

bool IsWhole(double number) { return std::abs(number) < kMaxExact && number == std::trunc(number); }

template <typename Integer>
void PrintInteger(Integer number, std::string& out) {
  char buffer[24];
  out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);
}

void PrintValue(const Value& value, std::string& out);

void PrintStruct(const Struct& value, std::string& out) {
  std::map<std::string_view, const Value*> sorted;  // a protobuf map has no order
  for (const auto& [key, item] : value.fields()) sorted[key] = &item;
  out += '{';
  for (const auto& [key, item] : sorted) {
    if (out.back() != '{') out += ',';
    PrintString(key, out);
    out += ':';
    PrintValue(*item, out);
  }
  out += '}';
}

void PrintList(const ListValue& list, std::string& out) {
  out += '[';
  for (int i = 0; i < list.values_size(); ++i) {
    if (i > 0) out += ',';
    PrintValue(list.values(i), out);
  }
  out += ']';
}

void PrintValue(const Value& value, std::string& out) {
  switch (value.kind_case()) {
    case Value::kNumberValue: return PrintNumber(value.number_value(), out);
    case Value::kStringValue: return PrintString(value.string_value(), out);
    case Value::kBoolValue: out += value.bool_value() ? "true" : "false"; return;
    case Value::kStructValue: return PrintStruct(value.struct_value(), out);
    case Value::kListValue: return PrintList(value.list_value(), out);
    case Value::kNullValue:
    case Value::KIND_NOT_SET: out += "null"; return;
  }
}

// One value of a field: the only one, or element `index` of a repeated one.
void PrintSingle(const Message& message, const FieldDescriptor& field, int index, std::string& out) {
  const Reflection& r = *message.GetReflection();
  const FieldDescriptor* f = &field;
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return PrintInteger(repeated ? r.GetRepeatedInt32(message, f, index) : r.GetInt32(message, f), out);
    case FieldDescriptor::CPPTYPE_INT64:
      return PrintInteger(repeated ? r.GetRepeatedInt64(message, f, index) : r.GetInt64(message, f), out);
    case FieldDescriptor::CPPTYPE_UINT32:
      return PrintInteger(repeated ? r.GetRepeatedUInt32(message, f, index) : r.GetUInt32(message, f), out);
    case FieldDescriptor::CPPTYPE_UINT64:
      return PrintInteger(repeated ? r.GetRepeatedUInt64(message, f, index) : r.GetUInt64(message, f), out);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return PrintNumber(repeated ? r.GetRepeatedDouble(message, f, index) : r.GetDouble(message, f), out);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return PrintNumber(repeated ? r.GetRepeatedFloat(message, f, index) : r.GetFloat(message, f), out);
    case FieldDescriptor::CPPTYPE_BOOL:
      out += (repeated ? r.GetRepeatedBool(message, f, index) : r.GetBool(message, f)) ? "true" : "false";
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      return PrintString((repeated ? r.GetRepeatedEnum(message, f, index) : r.GetEnum(message, f))->name(), out);
    case FieldDescriptor::CPPTYPE_STRING:
      return PrintString(repeated ? r.GetRepeatedString(message, f, index) : r.GetString(message, f), out);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return PrintMessage(repeated ? r.GetRepeatedMessage(message, f, index) : r.GetMessage(message, f), out);
  }
}

std::string MapKey(const Message& entry) {
  const FieldDescriptor& key = *entry.GetDescriptor()->map_key();
  if (key.cpp_type() == FieldDescriptor::CPPTYPE_STRING) return entry.GetReflection()->GetString(entry, &key);
  std::string text;
  PrintSingle(entry, key, 0, text);
  return text;
}

void PrintMap(const Message& message, const FieldDescriptor& field, std::string& out) {
  const Reflection& r = *message.GetReflection();
  std::map<std::string, const Message*> sorted;
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, &field, i);
    sorted[MapKey(entry)] = &entry;
  }
  out += '{';
  for (const auto& [key, entry] : sorted) {
    if (out.back() != '{') out += ',';
    PrintString(key, out);
    out += ':';
    PrintSingle(*entry, *entry->GetDescriptor()->map_value(), 0, out);
  }
  out += '}';
}

}  // namespace

void PrintNumber(double number, std::string& out) {
  char buffer[40];
  if (!std::isfinite(number)) {
    out += "null";
  } else if (IsWhole(number)) {
    out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(number)).ptr);
  } else {
    out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);  // the shortest that reads back the same
  }
}

void PrintString(std::string_view text, std::string& out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const std::string repaired = IsValidUtf8(text) ? std::string() : ValidUtf8(text);
  out += '"';
  for (const char c : repaired.empty() ? text : std::string_view(repaired)) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += "\\u00";
          out += kDigits[c >> 4];
          out += kDigits[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void PrintField(const Message& message, const FieldDescriptor& field, std::string& out) {
  if (field.is_map()) return PrintMap(message, field, out);
  const Reflection& r = *message.GetReflection();
  if (field.is_repeated()) {
    out += '[';
    for (int i = 0; i < r.FieldSize(message, &field); ++i) {
      if (i > 0) out += ',';
      PrintSingle(message, field, i, out);
    }
    out += ']';
  } else if (field.has_presence() && !r.HasField(message, &field)) {
    out += "null";
  } else {
    PrintSingle(message, field, 0, out);
  }
}

void PrintMessage(const Message& message, std::string& out) {
  // What comes through a descriptor may be a generated message, or one of the same type made dynamically; ours are generated.
  if (const auto* value = dynamic_cast<const Value*>(&message)) return PrintValue(*value, out);
  if (const auto* value = dynamic_cast<const Struct*>(&message)) return PrintStruct(*value, out);
  if (const auto* value = dynamic_cast<const ListValue*>(&message)) return PrintList(*value, out);
  if (const auto* time = dynamic_cast<const Timestamp*>(&message)) return PrintString(FormatWall(FromTimestamp(*time)), out);
  const auto& type = *message.GetDescriptor();
  out += '{';
  for (int i = 0; i < type.field_count(); ++i) {
    if (i > 0) out += ',';
    PrintString(type.field(i)->json_name(), out);
    out += ':';
    PrintField(message, *type.field(i), out);
  }
  out += '}';
}

std::string SuccessBody(const Message& response, const std::string& data) {
  const auto& type = *response.GetDescriptor();
  std::string body = "{\"success\":true,\"data\":";
  if (data.empty()) {
    PrintMessage(response, body);
  } else {
    PrintField(response, *type.FindFieldByName(data), body);
    if (const FieldDescriptor* meta = type.FindFieldByName("meta")) {
      body += ",\"meta\":";
      PrintField(response, *meta, body);
    }
  }
  body += '}';
  return body;
}

nlohmann::json ToJson(const Value& value) {
  switch (value.kind_case()) {
    case Value::kNumberValue:
      if (IsWhole(value.number_value())) return static_cast<int64_t>(value.number_value());
      return value.number_value();
    case Value::kStringValue: return value.string_value();
    case Value::kBoolValue: return value.bool_value();
    case Value::kStructValue: return ToJson(value.struct_value());
    case Value::kListValue: {
      auto list = nlohmann::json::array();
      for (const Value& item : value.list_value().values()) list.push_back(ToJson(item));
      return list;
    }
    case Value::kNullValue:
    case Value::KIND_NOT_SET: break;
  }
  return nullptr;
}

nlohmann::json ToJson(const Struct& value) {
  auto object = nlohmann::json::object();
  for (const auto& [key, item] : value.fields()) object[key] = ToJson(item);
  return object;
}

}  // namespace bulkhead
