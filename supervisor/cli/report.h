// How answers and errors are told, the same for all commands: for people, or with --json as the REST API would.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "supervisor/cli/client.h"

namespace bulkhead {

// Tells the error with its details and what to do next; to stdout as JSON, to stderr for people. `request_id` names it in the supervisor's log.
Outcome ReportError(const absl::Status& status, const std::string& request_id, const ClientOptions& options, Terminal& terminal);
// {"success": true, "data": …, "meta": …} of a response whose field `data` is the data.
void PrintJson(const google::protobuf::Message& response, const std::string& data, Terminal& terminal);

}  // namespace bulkhead
