#include "supervisor/telemetry/meters.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "supervisor/base/limits.h"

namespace bulkhead {

size_t LatencyBucket(int64_t micros) {
  return size_t(std::lower_bound(kLatencyBounds.begin(), kLatencyBounds.end(), micros) - kLatencyBounds.begin());
}

uint64_t Latency::count() const { return std::accumulate(buckets.begin(), buckets.end(), uint64_t{0}); }

double Latency::mean_ms() const {
  const uint64_t n = count();
  return n == 0 ? 0 : double(micros) / double(n) / 1000;
}

// As Prometheus' histogram_quantile() does it.
double Latency::quantile_ms(double q) const {
  const uint64_t n = count();
  if (n == 0) return 0;
  const double rank = q * double(n);
  double below = 0;
  for (size_t i = 0; i < kLatencyBounds.size(); ++i) {
    const double here = double(buckets[i]);
    if (here > 0 && below + here >= rank) {
      const double low = i == 0 ? 0 : double(kLatencyBounds[i - 1]), high = double(kLatencyBounds[i]);
      return (low + (high - low) * std::max(0.0, (rank - below) / here)) / 1000;
    }
    below += here;
  }
  return double(kLatencyBounds.back()) / 1000;
}

void Latency::Add(const Latency& other) {
  for (size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i];
  micros += other.micros;
}

std::string_view StatusClassName(size_t status_class) {
  static constexpr std::array<std::string_view, kStatusClasses> kNames = {"aborted", "1xx", "2xx", "3xx", "4xx", "5xx"};
  return kNames[status_class];
}

size_t MeteredMethod(std::string_view method) {
  const auto* found = std::find(kMeteredMethods.begin(), kMeteredMethods.end() - 1, method);
  return size_t(found - kMeteredMethods.begin());
}

RouteMeter::RouteMeter(std::string module, std::string route, std::string method, size_t threads)
    : module(std::move(module)), route(std::move(route)), method(std::move(method)), threads_(threads), cells_(new Cells[threads]) {}

uint64_t RouteMeter::Totals::requests() const { return std::accumulate(by_class.begin(), by_class.end(), uint64_t{0}); }

RouteMeter::Totals RouteMeter::Sum() const {
  Totals totals;
  for (size_t t = 0; t < threads_; ++t) {
    const Cells& cells = cells_[t];
    for (size_t i = 0; i < kStatusClasses; ++i) totals.by_class[i] += cells.by_class[i].value();
    for (size_t i = 0; i < kLatencyBuckets; ++i) totals.latency.buckets[i] += cells.buckets[i].value();
    totals.latency.micros += cells.micros.value();
    totals.bytes += cells.bytes.value();
  }
  return totals;
}

GatewayMeters::GatewayMeters(size_t threads) : threads_(threads) {}

RouteMeter* GatewayMeters::Route(std::string_view module, std::string_view route, std::string_view method) {
  return known_.With([&](Known& known) {
    Key key(module, route, method);
    if (auto found = known.meters.find(key); found != known.meters.end()) return found->second.get();
    auto counted = known.per_module.find(module);
    if (counted == known.per_module.end() && known.per_module.size() >= limits::kMaxMeteredModules) {
      key = {std::string(kOverflow), std::string(kOverflow), std::string(kMeteredMethods.back())};
    } else if (counted != known.per_module.end() && counted->second >= limits::kMaxMetersPerModule) {
      key = {std::string(module), std::string(kOverflow), std::string(kMeteredMethods.back())};
    } else {
      ++known.per_module[std::string(module)];
    }
    std::unique_ptr<RouteMeter>& meter = known.meters[key];
    if (!meter) meter = std::make_unique<RouteMeter>(std::get<0>(key), std::get<1>(key), std::get<2>(key), threads_.size());
    return meter.get();
  });
}

ByMeteredMethod GatewayMeters::Unmatched(std::string_view module) {
  ByMeteredMethod meters;
  for (size_t i = 0; i < meters.size(); ++i) meters[i] = Route(module, kUnmatched, kMeteredMethods[i]);
  return meters;
}

std::vector<const RouteMeter*> GatewayMeters::Routes() const {
  return known_.With([](const Known& known) {
    std::vector<const RouteMeter*> meters;
    for (const auto& [key, meter] : known.meters) meters.push_back(meter.get());
    return meters;
  });
}

GatewayTotals GatewayMeters::Sum() const {
  GatewayTotals sum;
  auto minus = [](const Count& more, const Count& less) { return more.value() - std::min(more.value(), less.value()); };
  for (const GatewayCounters& thread : threads_) {
    sum.connections_opened += thread.connections_opened.value();
    sum.connections_open += minus(thread.connections_opened, thread.connections_closed);
    sum.bytes_received += thread.bytes_received.value();
    sum.bytes_sent += thread.bytes_sent.value();
    sum.heads_refused += thread.heads_refused.value();
    sum.requests_open += minus(thread.requests_begun, thread.requests_ended);
    sum.parked += thread.parked.value();
    sum.parked_now += minus(thread.parked, thread.unparked);
    sum.retries += thread.retries.value();
    sum.links_opened += thread.links_opened.value();
    sum.links_open += minus(thread.links_opened, thread.links_closed);
    for (size_t i = 0; i < sum.unserved.size(); ++i) sum.unserved[i] += thread.unserved[i].value();
  }
  return sum;
}

}  // namespace bulkhead
