// What a request's telemetry costs on its gateway thread, in nanoseconds of CPU; each line is the median of several rounds.
//
//   bench_telemetry [MILLISECONDS]     per round; 200 by default
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "supervisor/telemetry/access_log.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/tracer.h"

namespace {

using namespace bulkhead;

constexpr int kRounds = 5;
constexpr int kSteps = 256;  // between two looks at the clock

// CPU time, so that others on the machine change little.
template <typename Work>
void Print(const char* what, std::chrono::milliseconds round, Work work) {
  std::vector<double> medians;
  for (int r = 0; r < kRounds; ++r) {
    const clock_t began = clock(), length = static_cast<clock_t>(round.count() * CLOCKS_PER_SEC / 1'000);
    int64_t count = 0;
    while (clock() - began < length) {
      for (int i = 0; i < kSteps; ++i) work(count++);
    }
    medians.push_back(1e9 / CLOCKS_PER_SEC * static_cast<double>(clock() - began) / static_cast<double>(count));
  }
  std::sort(medians.begin(), medians.end());
  printf("%-58s %8.1f\n", what, medians[medians.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const auto round = std::chrono::milliseconds(argc > 1 ? std::max(atoi(argv[1]), 1) : 200);
  GatewayMeters meters(2);
  RouteMeter* meter = meters.Route("bench", "/small", "GET");
  Random random(1);
  Tracer tracer({}, {}, Clock::Real());
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  uint64_t seen = 0;
  std::string out;
  printf("%-58s %8s\n", "of one request", "ns");
  Print("counted: status, histogram, sum, bytes", round, [&](int64_t i) { meter->Record(0, 2, (i * 37) & 0xfff, 100); });
  Print("a trace begun", round, [&](int64_t) { seen += tracer.Begin({}, random).span; });
  Print("a trace of the client read and gone on with", round, [&](int64_t) {
    TraceContext parent;
    ParseTraceparent(header, parent);
    seen += tracer.Begin(parent, random).span;
  });
  Print("traceparent written", round, [&](int64_t) {
    out.clear();
    AppendTraceparent(out, {seen, 1, 1, true});
  });
  AccessLog errors(AccessLogging::kErrors, Clock::Real());
  Print("the access log asked (log.access: errors), nothing to tell", round, [&](int64_t) { seen += errors.Wants(200); });
  fprintf(stderr, "%s", seen == 0 ? "\n" : "");  // so that nothing is left out
}
