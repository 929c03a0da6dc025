// How values are written for people, the same in all commands. Pure, but for SinceTime(), which asks the clock.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace bulkhead {

// Nothing that a terminal would obey, for what a module has written.
std::string Escaped(std::string_view text);
// "840 ms", "12 s".
std::string Took(int64_t ms);
int64_t MillisBetween(const google::protobuf::Timestamp& from, const google::protobuf::Timestamp& to);
// RFC 3339 without parts of seconds, as --since takes it, too.
std::string Moment(const google::protobuf::Timestamp& time);
// On one line, and escaped; "" of a null.
std::string Inline(const google::protobuf::Value& value);
// A message as the REST API has it, on a line of its own.
std::string AsJson(const google::protobuf::Message& message);
// `text` is a time, or so long before now as in "10m": the time as the API takes it; "" of "". CONFIG_INVALID.
absl::StatusOr<std::string> SinceTime(const std::string& text);

}  // namespace bulkhead
