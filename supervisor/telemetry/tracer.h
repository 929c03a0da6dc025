// Which spans are recorded, and their way to a collector: OTLP over HTTP (POST /v1/traces, protobuf) by a thread of its own, in batches, with
// retries. Put() never waits for the collector: what does not fit into the queue is dropped and counted. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/random.h"
#include "supervisor/telemetry/otlp.h"
#include "supervisor/telemetry/span.h"

namespace bulkhead {

// `telemetry.otlp` of the configuration.
struct OtlpSettings {
  std::string endpoint;  // "http://127.0.0.1:4318", to which /v1/traces is added unless it ends so; "": nothing is exported
  std::vector<std::pair<std::string, std::string>> headers;  // secret
  double sample_ratio = 1;  // of traces that begin here; others follow the `sampled` of whoever began them
};

class Tracer {
 public:
  // Starts the thread, unless nothing is exported.
  Tracer(OtlpSettings settings, OtlpResource resource, const Clock& clock);
  ~Tracer();  // without waiting
  Tracer(const Tracer&) = delete;

  // The span that answers a request with this traceparent ("" or malformed: a new trace). Without export every new trace is `sampled`, so that
  // modules which trace by themselves do.
  TraceContext Begin(const TraceContext& parent, Random& random) const;
  // Whether spans of this context are to be Put().
  bool Records(const TraceContext& context) const { return exports_ && context.sampled; }
  void Put(Span span);
  // Exports what waits, within `budget`, and ends the thread. Blocking.
  void Stop(Millis budget);

  struct Totals {
    uint64_t exported = 0;
    uint64_t dropped = 0;    // did not fit into the queue, or were given up
    uint64_t rejected = 0;   // by the collector
    uint64_t failures = 0;   // exports that were not taken, also those that a later try mended
    uint64_t waiting = 0;
  };
  Totals totals() const;
  bool exports() const { return exports_; }

 private:
  class Post;
  void Run();
  std::vector<Span> Take();
  void Export(Post& post, const std::vector<Span>& spans);
  void Pause(Millis time);  // less when it is time to end
  Millis TimeLeft() const;

  const OtlpSettings settings_;
  const OtlpResource resource_;
  const Clock& clock_;
  const bool exports_;
  const bool all_;            // a ratio of 1
  const uint64_t threshold_;  // trace ids whose lower half is below it are sampled
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Span> queue_;
  Totals totals_;
  bool stopping_ = false;
  Instant stop_at_ = Instant::max();
  Random jitter_ = Random::FromEntropy();  // these two are the thread's
  Instant complained_{};
  std::thread thread_;
};

}  // namespace bulkhead
