// What the module knows about: endpoints, metrics, and readings of a metric at an endpoint. Values only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domain/timestamp.h"

namespace consumption {

// The endpoint that migration 001 creates for the machine the module runs on.
inline constexpr std::string_view kHostEndpoint = "host";

namespace metric {  // the rows of the table `metrics` that the host has
inline constexpr std::string_view kCpuSeconds = "cpu_seconds";
inline constexpr std::string_view kMemoryBytes = "memory_bytes";
inline constexpr std::string_view kDiskReadBytes = "disk_read_bytes";
inline constexpr std::string_view kDiskWriteBytes = "disk_write_bytes";
inline constexpr std::string_view kNetworkReceiveBytes = "network_receive_bytes";
inline constexpr std::string_view kNetworkTransmitBytes = "network_transmit_bytes";
}  // namespace metric

// One look at a source: every metric that could be read, and why others could not.
struct Measurement {
  struct Value {
    std::string metric;
    double value = 0;
    std::string scope;  // which parts were summed up, where that can be chosen; values of two scopes don't compare
  };
  Timestamp at;
  std::vector<Value> values;
  std::vector<std::string> problems;  // a sentence each
  std::string epoch;                  // names the life of the source's counters (a host's boot); empty when unknown
};

struct Endpoint {
  std::string id, name, kind;
};

// A stored reading. `kind` is "counter" (grows until its source starts anew) or "gauge".
struct Reading {
  int64_t id = 0;
  std::string endpoint_id, metric, unit, kind;
  Timestamp recorded_at;
  double value = 0;
  std::optional<double> consumed;         // counters: since the reading before
  std::optional<double> elapsed_seconds;  // the time that took
};

// One series over one span of time, from `start` on.
struct Statistics {
  std::string endpoint_id, metric, unit, kind;
  Timestamp start;
  int64_t samples = 0;
  double first = 0, last = 0, min = 0, max = 0, avg = 0;  // of the values as read
  std::optional<double> total;                            // consumed; counters with at least one step
  std::optional<double> min_rate, max_rate, avg_rate;     // per second; the same
};

}  // namespace consumption
