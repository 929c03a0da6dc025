// What the handler of this thread works for, as far as its calls of services want to know: until when, for which request, and whether anybody still
// waits. The SDK makes one around each handler of a request and each run of a job; other threads have none.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "bulkhead/http.h"
#include "bulkhead/jobs.h"

namespace bulkhead::sdk {

class CallScope {
 public:
  explicit CallScope(const Request& request) : request_(&request), before_(current_) { current_ = this; }
  explicit CallScope(const JobContext& job) : job_(&job), before_(current_) { current_ = this; }
  ~CallScope() { current_ = before_; }
  CallScope(const CallScope&) = delete;

  static const CallScope* Current() { return current_; }  // nullptr where there is none

  std::optional<std::chrono::steady_clock::time_point> deadline() const {  // a request's is the gateway's, which cancels it then
    return job_ ? std::optional(job_->deadline()) : std::nullopt;
  }
  std::string request_id() const { return request_ ? std::string(request_->request_id()) : std::string(); }
  bool cancelled() const { return job_ ? job_->cancelled() : request_->cancelled(); }
  [[noreturn]] void ThrowCancelled() const {
    if (job_) throw JobCancelled();
    throw RequestCancelled();
  }

 private:
  const Request* const request_ = nullptr;
  const JobContext* const job_ = nullptr;
  CallScope* const before_;
  inline static thread_local CallScope* current_ = nullptr;
};

}  // namespace bulkhead::sdk
