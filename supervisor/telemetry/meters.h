// What the gateway counts. A gateway thread writes only cells of its own, with a load and a store and neither lock nor allocation; whoever
// scrapes adds them up. Cells are never freed while the gateway lives, so a pointer to one may be kept.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

// A number that one thread changes and any thread reads.
class Count {
 public:
  void Add(uint64_t by = 1) { value_.store(value_.load(std::memory_order_relaxed) + by, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Upper bounds of the buckets, in microseconds; beyond the last is a bucket of its own. A bound belongs to its bucket, as Prometheus has it.
inline constexpr std::array<int64_t, 15> kLatencyBounds = {500,     1'000,   2'500,     5'000,     10'000,    25'000,     50'000,    100'000,
                                                           250'000, 500'000, 1'000'000, 2'500'000, 5'000'000, 10'000'000, 30'000'000};
inline constexpr size_t kLatencyBuckets = kLatencyBounds.size() + 1;
size_t LatencyBucket(int64_t micros);

// Sums of cells.
struct Latency {
  std::array<uint64_t, kLatencyBuckets> buckets{};
  uint64_t micros = 0;
  uint64_t count() const;
  double mean_ms() const;  // 0 without any
  // The share `q` (0 to 1) of requests took at most so long, interpolated within its bucket; the last bound for what is beyond. 0 without any.
  double quantile_ms(double q) const;
  void Add(const Latency& other);
};

// How a request ended: [1] to [5] are its status class, [0] had a client that left before the answer was whole.
inline constexpr size_t kStatusClasses = 6;
std::string_view StatusClassName(size_t status_class);  // "2xx", "aborted"

// Methods that have a name of their own; whatever else a client makes up is the last, "_OTHER".
inline constexpr std::array<std::string_view, 8> kMeteredMethods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER"};
size_t MeteredMethod(std::string_view method);

// Labels that no module, route or method can have.
inline constexpr std::string_view kAdminLabel = "_admin";        // module: the admin API, probes, and what is nowhere
inline constexpr std::string_view kNoModule = "_none";           // module: a path of modules that none has
inline constexpr std::string_view kUnmatched = "_unmatched";     // route: the module has none for the request
inline constexpr std::string_view kOverflow = "_overflow";       // route, module or job: beyond the limit on series

// The requests of one route pattern and method.
class RouteMeter {
 public:
  RouteMeter(std::string module, std::string route, std::string method, size_t threads);
  // On gateway thread `thread`.
  void Record(size_t thread, size_t status_class, int64_t micros, uint64_t bytes) {
    Cells& cells = cells_[thread];
    cells.by_class[status_class].Add();
    cells.buckets[LatencyBucket(micros)].Add();
    cells.micros.Add(uint64_t(micros));
    cells.bytes.Add(bytes);
  }
  struct Totals {
    std::array<uint64_t, kStatusClasses> by_class{};
    Latency latency;
    uint64_t bytes = 0;
    uint64_t requests() const;
  };
  Totals Sum() const;

  const std::string module, route, method;

 private:
  struct alignas(64) Cells {  // no two threads share a cache line
    std::array<Count, kStatusClasses> by_class;
    std::array<Count, kLatencyBuckets> buckets;
    Count micros, bytes;
  };
  const size_t threads_;
  const std::unique_ptr<Cells[]> cells_;
};

// Why a request was answered 503 by the gateway.
enum class Unserved {
  kNoWorker,      // no ready worker, and none expected soon, or too many wait for it already
  kParkTimeout,   // waited for a worker that did not come
  kReplaced,      // waited, and another version came
  kOverloaded,    // every worker has as many requests as it takes
  kWorkerLost,    // its worker ended, and the request can't be repeated
  kRetriesSpent,  // its worker ended, and the module's budget of repeated requests is used up
  kRefused,       // the module gave it back unprocessed
  kStopping,      // the supervisor stops
  kConnections,   // too many connections
  kLogin,         // nobody could say whose token it is
};
inline constexpr std::array<std::string_view, 10> kUnservedNames = {
    "no_worker", "park_timeout", "replaced", "overloaded", "worker_lost", "retries_spent", "refused", "stopping", "connections", "login"};

// Counters of one gateway thread that belong to no route.
struct alignas(64) GatewayCounters {
  Count connections_opened, connections_closed;
  Count bytes_received, bytes_sent;
  Count heads_refused;  // what is no HTTP request, or came too slowly
  Count requests_begun, requests_ended;
  Count parked, unparked;
  Count retries;
  Count links_opened, links_closed;
  std::array<Count, kUnservedNames.size()> unserved;
};
struct GatewayTotals {
  uint64_t connections_opened = 0, connections_open = 0, bytes_received = 0, bytes_sent = 0, heads_refused = 0, requests_open = 0, parked = 0,
           parked_now = 0, retries = 0, links_opened = 0, links_open = 0;
  std::array<uint64_t, kUnservedNames.size()> unserved{};
};

using ByMeteredMethod = std::array<RouteMeter*, kMeteredMethods.size()>;

class GatewayMeters {
 public:
  explicit GatewayMeters(size_t threads);
  GatewayCounters& thread(size_t number) { return threads_[number]; }

  // Any thread; locks, so not for each request. Beyond limits::kMaxMetersPerModule or kMaxMeteredModules the meter that all others share.
  RouteMeter* Route(std::string_view module, std::string_view route, std::string_view method);
  ByMeteredMethod Unmatched(std::string_view module);

  std::vector<const RouteMeter*> Routes() const;  // by module, route and method; those beyond the limits last of their module
  GatewayTotals Sum() const;

 private:
  using Key = std::tuple<std::string, std::string, std::string>;
  struct Known {
    std::map<Key, std::unique_ptr<RouteMeter>> meters;
    std::map<std::string, size_t, std::less<>> per_module;
  };
  std::vector<GatewayCounters> threads_;
  mutable Guarded<Known> known_;
};

}  // namespace bulkhead
