// A REST request as the request message of its RPC: path, query, If-Match and body. Pure.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "supervisor/admin/routes.h"
#include "supervisor/gateway/local_service.h"

namespace bulkhead {

// INVALID_ARGUMENT naming the parameter or the JSON pointer, INVALID_JSON, UNSUPPORTED_MEDIA_TYPE, PRECONDITION_FAILED
// for an If-Match that can match no generation.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> ReadRequest(const RestRoute& route, const PathValues& values,
                                                                       const LocalRequest& request);

}  // namespace bulkhead
