#include "supervisor/telemetry/access_log.h"

#include <sys/prctl.h>

#include <cstdio>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr Millis kWritePause{50};  // between two looks at the queue, so that a busy gateway wakes the writer rarely

void Write(const AccessLine& line) {
  char millis[32];
  snprintf(millis, sizeof millis, "%.3f", double(line.micros) / 1000);
  const LogField fields[] = {{"module", line.meter->module},
                             {"route", line.meter->route},
                             {"method", std::string(line.method)},
                             {"status", std::to_string(line.status)},
                             {"bytes", std::to_string(line.bytes)},
                             {"ms", millis},
                             {"request", line.request_id},
                             {"trace", TraceId(line.trace)},
                             {"subject", line.subject},
                             {"address", line.address}};
  const bool failed = line.status == 0 || line.status >= 500;
  LogLine(failed ? LogLevel::kWarn : LogLevel::kInfo, "access", line.status == 0 ? "request broken off" : "request", fields, std::size(fields));
}

}  // namespace

AccessLog::AccessLog(AccessLogging what, const Clock& clock) : what_(what), clock_(clock) {
  if (what_ != AccessLogging::kOff) thread_ = std::thread([this] { Run(); });
}

AccessLog::~AccessLog() { Stop(); }

void AccessLog::Put(AccessLine line) {
  std::lock_guard lock(mutex_);
  bool fits = !stopping_ && queue_.size() < limits::kMaxQueuedAccess;
  if (fits && what_ == AccessLogging::kErrors) {
    const Instant now = clock_.Now();
    if (now - second_ >= std::chrono::seconds(1)) {
      second_ = now;
      in_second_ = 0;
    }
    fits = in_second_++ < limits::kAccessErrorsPerSecond;
  }
  if (!fits) {
    ++totals_.dropped;
    return;
  }
  queue_.push_back(std::move(line));
  if (queue_.size() == 1) wake_.notify_one();
}

void AccessLog::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

AccessLog::Totals AccessLog::totals() const {
  std::lock_guard lock(mutex_);
  return totals_;
}

void AccessLog::Run() {
  prctl(PR_SET_NAME, "access-log");
  uint64_t told = 0;  // of the dropped ones
  std::vector<AccessLine> lines;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    lines.swap(queue_);
    totals_.written += lines.size();
    const uint64_t dropped = totals_.dropped;
    const bool last = stopping_;
    lock.unlock();
    for (const AccessLine& line : lines) Write(line);
    lines.clear();
    if (dropped > told) LogWarn("access", "lines were dropped", {{"lines", std::to_string(dropped - std::exchange(told, dropped))}});
    lock.lock();
    if (last) return;
    wake_.wait_for(lock, kWritePause, [this] { return stopping_; });
  }
}

}  // namespace bulkhead
