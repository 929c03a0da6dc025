// From a request on the link to a handler and back: routing, where the handler runs, counting. Open() and Dispatch() belong to
// the loop's thread, Run() to whoever runs the handler.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "bulkhead/log.h"
#include "bulkhead/router.h"
#include "link_socket.h"
#include "link_stream.h"
#include "worker_pool.h"

namespace bulkhead::sdk {

// Since the process started.
struct RequestCounts {
  std::atomic<int64_t> requests{0};
  std::atomic<int64_t> errors{0};        // of these, answered with 5xx or cut off
  std::atomic<int64_t> microseconds{0};  // from the request's head to the handler's end, all together
};

class Dispatcher {
 public:
  Dispatcher(const Router& router, int threads, size_t max_waiting);

  // Makes stream.request and finds stream.route; answers by itself when there is none. False when it has answered.
  bool Open(LinkStream& stream, std::string_view method, std::string_view target, std::string_view pairs);
  // Hands a stream that has its body (or streams it) to the pool, or runs it here.
  void Dispatch(const std::shared_ptr<LinkStream>& stream);
  // Something has happened to a stream's socket: a worker looks at it.
  void Turn(const std::shared_ptr<LinkStream>& stream);
  // From now on requests for a socket are answered 503.
  void RefuseSockets() { sockets_.refused = true; }
  // An answer by the SDK itself, before any handler.
  void Answer(LinkStream& stream, Response response);
  void AnswerError(LinkStream& stream, int status, std::string_view code, std::string_view message);

  WorkerPool& pool() { return pool_; }
  const RequestCounts& counts() const { return counts_; }

 private:
  void Run(const std::shared_ptr<LinkStream>& stream);
  void Handle(LinkStream& stream);
  void Accept(const std::shared_ptr<LinkStream>& stream);
  void Send(LinkStream& stream, Response response);
  void Count(LinkStream& stream, bool failed);
  void ReportStall(const LinkStream& stream, std::chrono::steady_clock::duration took);

  const Router& router_;
  Logger log_;
  RequestCounts counts_;
  SocketTotals sockets_;
  std::chrono::steady_clock::time_point last_stall_report_{};
  int stalls_unreported_ = 0;
  WorkerPool pool_;  // last: its threads use the rest
};

}  // namespace bulkhead::sdk
