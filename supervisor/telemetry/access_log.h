// One line per request in the supervisor's log (`log.access`), written by a thread of its own: a gateway thread hands over what happened and
// goes on. What the writer can't keep up with is dropped and counted. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/trace_context.h"

namespace bulkhead {

// kErrors: those that were answered 5xx, or broke off.
enum class AccessLogging { kOff, kErrors, kAll };

struct AccessLine {
  const RouteMeter* meter = nullptr;  // names module and route; outlives the log
  std::string_view method;            // one of kMeteredMethods
  int status = 0;                     // 0: no whole answer
  uint64_t bytes = 0;                 // of the answer's body
  int64_t micros = 0;
  TraceContext trace;
  std::string request_id, subject, address;
};

class AccessLog {
 public:
  // Starts the thread, unless it is off.
  AccessLog(AccessLogging what, const Clock& clock);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;

  bool on() const { return what_ != AccessLogging::kOff; }
  bool Wants(int status) const { return what_ == AccessLogging::kAll || (what_ == AccessLogging::kErrors && (status == 0 || status >= 500)); }
  void Put(AccessLine line);
  // Writes what waits and ends the thread. Blocking.
  void Stop();
  struct Totals {
    uint64_t written = 0, dropped = 0;
  };
  Totals totals() const;

 private:
  void Run();
  const AccessLogging what_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<AccessLine> queue_;
  Totals totals_;
  Instant second_{};     // in which `in_second_` lines came
  size_t in_second_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace bulkhead
