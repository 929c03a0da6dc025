// What this thread works for: the request or the run whose handler it runs. A call of another module takes time, trace and request id from it.
#pragma once

#include <chrono>
#include <optional>

#include "bulkhead/http.h"
#include "bulkhead/jobs.h"

namespace bulkhead::sdk {

class CurrentWork {
 public:
  // Made around each handler. What it is given outlives it.
  class Scope {
   public:
    explicit Scope(const Request& request) : request_(&request), before_(std::exchange(current_, this)) {}
    explicit Scope(const JobContext& job) : job_(&job), before_(std::exchange(current_, this)) {}
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;

   private:
    friend class CurrentWork;
    const Request* request_ = nullptr;
    const JobContext* job_ = nullptr;
    Scope* const before_;
  };

  static const Request* request() { return current_ ? current_->request_ : nullptr; }
  static const JobContext* job() { return current_ ? current_->job_ : nullptr; }
  // Until when an answer is wanted; nothing: not known.
  static std::optional<std::chrono::steady_clock::time_point> deadline() {
    if (const Request* of = request()) return of->deadline();
    if (const JobContext* of = job()) return of->deadline();
    return std::nullopt;
  }
  // Throws RequestCancelled or JobCancelled when nobody waits any more.
  static void ThrowIfCancelled() {
    if (const Request* of = request(); of && of->cancelled()) throw RequestCancelled();
    if (const JobContext* of = job(); of && of->cancelled()) throw JobCancelled();
  }

 private:
  static inline thread_local Scope* current_ = nullptr;
};

}  // namespace bulkhead::sdk
