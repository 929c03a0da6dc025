// Calls of the supervisor's host API that wait for their answer. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "bulkhead/events.h"
#include "bulkhead/host/v1/host.grpc.pb.h"

namespace bulkhead::sdk {

// Publishes by RPC, with the token of this instance. The channel is opened with the first event.
Events::Call PublishThrough(const std::string& host_socket, const std::string& token);

}  // namespace bulkhead::sdk
