// Messages of a stream as Server-Sent Events (HTML Living Standard, 9.2). Pure.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "supervisor/admin/routes.h"

namespace bulkhead {

// One response as one event (options.proto, Rest.stream); "" for one that has neither cursor nor event.
std::string EventText(const RestRoute& route, const google::protobuf::Message& response);
// The event `end` of a stream that ends with an error: its data is the body that every error has.
std::string EndText(const absl::Status& status, const std::string& request_id);
// A comment, for a connection on which nothing else is sent.
inline constexpr char kHeartbeatText[] = ":\n\n";

}  // namespace bulkhead
