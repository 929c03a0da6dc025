// What gRPC cannot decode as the request's message never comes to a handler, and gRPC answers UNIMPLEMENTED without a word, as if there were no
// such call. Here it becomes INVALID_ARGUMENT with a sentence, like all other wrong input.
#pragma once

#include <memory>

#include "grpcpp/support/server_interceptor.h"

namespace bulkhead {

// For ServerBuilder; of the services of the admin API alone.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ExplainUndecodable();

}  // namespace bulkhead
