// The calls of the cache on the host API, between gRPC and HostCache. Private to this room.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "bulkhead/host/v1/host.pb.h"
#include "supervisor/worker/host_cache.h"

namespace bulkhead {

// `answer` is what ends the call, see LaterCall.
template <typename Response>
using CacheAnswer = std::function<void(const absl::Status& status, const std::function<void(Response&)>& fill)>;
void AnswerCacheGet(HostCache& cache, const std::string& module, const host::v1::CacheGetRequest& request,
                    CacheAnswer<host::v1::CacheGetResponse> answer);
void AnswerCacheSet(HostCache& cache, const std::string& module, const host::v1::CacheSetRequest& request,
                    CacheAnswer<host::v1::CacheSetResponse> answer);
void AnswerCacheInvalidate(HostCache& cache, const std::string& module, const host::v1::CacheInvalidateRequest& request,
                           CacheAnswer<host::v1::CacheInvalidateResponse> answer);
// Follows the cache until the caller leaves.
grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews>* FollowCache(HostCache& cache, const std::string& module,
                                                                                         const std::string& worker);
grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews>* RefuseToFollowCache(grpc::Status status);

}  // namespace bulkhead
