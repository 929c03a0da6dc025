// Between JSON and the messages of the admin API (tests/interface/rest.json): lowerCamel names, every field printed, unset
// messages null, enums by their short names, 64-bit integers as numbers, timestamps in RFC 3339, Struct as plain JSON.
// protobuf's own JSON differs in most of these. Pure.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "nlohmann/json_fwd.hpp"
#include "supervisor/base/clock.h"

namespace bulkhead {

// Nesting of a JSON text. protobuf reads 100 levels of messages, and a level of a Struct takes three.
inline constexpr int kMaxJsonDepth = 32;

// One reference token of a JSON pointer (RFC 6901), with its slash.
std::string PointerToken(std::string_view name);

// INVALID_JSON with line and column; INVALID_ARGUMENT beyond kMaxJsonDepth. Empty text is an empty object.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text);

// Fills `message` from an object. INVALID_ARGUMENT with the JSON pointer of an unknown field or a wrong type. `bound` are
// JSON names of fields that come from elsewhere (the path); in the body they are refused. At the top level only. Texts are taken as they
// are: CheckRequestText() looks at them.
absl::Status ReadMessage(const nlohmann::json& object, google::protobuf::Message& message,
                         const std::set<std::string>& bound = {});

// Sets one scalar field (or adds to a repeated one) from the text of a path or query parameter.
// INVALID_ARGUMENT says what it must be: "must be a whole number".
absl::Status ReadScalar(std::string_view text, const google::protobuf::FieldDescriptor& field,
                        google::protobuf::Message& message);
// Whether ReadScalar can set it.
bool IsScalar(const google::protobuf::FieldDescriptor& field);

// Appends the message as one JSON object, or the value of one of its fields.
void PrintMessage(const google::protobuf::Message& message, std::string& out);
void PrintField(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field, std::string& out);
// The whole answer {"success": true, "data": …, "meta": …}: `data` names the field that becomes the data, "" is the whole response, which then has no meta.
std::string SuccessBody(const google::protobuf::Message& response, const std::string& data);
void PrintString(std::string_view text, std::string& out);
void PrintNumber(double number, std::string& out);  // null when it is none

// Struct and Value to JSON and back. Whole numbers below 2^53 become integers; what is nested deeper than kMaxJsonDepth is
// shown as "…".
nlohmann::json ToJson(const google::protobuf::Struct& value);
nlohmann::json ToJson(const google::protobuf::Value& value);
void FromJson(const nlohmann::json& object, google::protobuf::Struct& value);
void FromJson(const nlohmann::json& json, google::protobuf::Value& value);

google::protobuf::Timestamp ToTimestamp(WallTime time);
WallTime FromTimestamp(const google::protobuf::Timestamp& time);

}  // namespace bulkhead
