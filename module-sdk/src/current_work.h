// What this thread works for: the request or the run whose handler it runs. Calls of modules and services take from it until when they may go on, for
// which request, and whether anybody still waits. Made around each handler; other threads have none.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "bulkhead/http.h"
#include "bulkhead/jobs.h"

namespace bulkhead::sdk {

class CurrentWork {
 public:
  // What it is given outlives it.
  explicit CurrentWork(const Request& request) : request_(&request), before_(current_) { current_ = this; }
  explicit CurrentWork(const JobContext& job) : job_(&job), before_(current_) { current_ = this; }
  ~CurrentWork() { current_ = before_; }
  CurrentWork(const CurrentWork&) = delete;

  static const CurrentWork* Get() { return current_; }  // nullptr where there is none

  const Request* request() const { return request_; }
  std::string request_id() const { return request_ ? std::string(request_->request_id()) : std::string(); }
  // Until when an answer is wanted; nothing: not known.
  std::optional<std::chrono::steady_clock::time_point> deadline() const {
    return job_ ? std::optional(job_->deadline()) : request_->deadline();
  }
  bool cancelled() const { return job_ ? job_->cancelled() : request_->cancelled(); }
  [[noreturn]] void ThrowCancelled() const {
    if (job_) throw JobCancelled();
    throw RequestCancelled();
  }

 private:
  const Request* const request_ = nullptr;
  const JobContext* const job_ = nullptr;
  const CurrentWork* const before_;
  inline static thread_local const CurrentWork* current_ = nullptr;
};

}  // namespace bulkhead::sdk
