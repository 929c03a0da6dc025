// Follows the module's cache in the supervisor (Host.WatchCache) for the worker's own memory: drops what was invalidated, says so, and keeps the
// lease while the memory is used. When the stream breaks the lease is over at once, and what was kept is dropped when there is a new stream. A
// worker that does not use its cache has no stream and no threads, and one that does not use it any more says nothing.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "level_one.h"

namespace bulkhead::sdk {

class CacheWatch {
 public:
  CacheWatch(std::string host_socket, std::string token, LevelOne& one);
  ~CacheWatch();
  CacheWatch(const CacheWatch&) = delete;
  // A lease is needed. Returns at once.
  void Want();
  // The lease is over, then the stream. Want() does nothing any more.
  void Close();

 private:
  using Stream = grpc::ClientReaderWriter<::bulkhead::host::v1::WatchCacheRequest, ::bulkhead::host::v1::CacheNews>;
  void Follow();
  void KeepLease();
  void Heed(const ::bulkhead::host::v1::CacheNews& news, bool first);
  void Say(const ::bulkhead::host::v1::WatchCacheRequest& message);

  const std::string host_socket_, token_;
  LevelOne& one_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  bool asking_ = false, asked_ = false;  // a lease is wanted; and it has been asked for
  int64_t request_ = 0;                  // the last one's number, and when it was made
  LevelOne::Nanoseconds requested_at_ = 0;
  grpc::ClientContext* call_ = nullptr;  // of the open stream
  std::mutex write_mutex_;               // never taken under mutex_
  Stream* stream_ = nullptr;             // under write_mutex_
  std::thread follower_, keeper_;
};

LevelOne::Nanoseconds SteadyNow();

}  // namespace bulkhead::sdk
