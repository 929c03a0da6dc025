#include "supervisor/telemetry/exposition.h"

#include <algorithm>
#include <limits>

#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "supervisor/base/log.h"
#include "supervisor/base/text.h"

namespace bulkhead {

std::string_view BuildVersion() { return BULKHEAD_VERSION; }

struct Exposition::Families {
  std::vector<prometheus::MetricFamily> all;

  void Begin(prometheus::MetricType type, std::string_view name, std::string_view help) {
    BULKHEAD_CHECK(std::none_of(all.begin(), all.end(), [&](const auto& family) { return family.name == name; }));
    prometheus::MetricFamily& family = all.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
  }
  prometheus::ClientMetric& Add(const MetricLabels& labels) {
    prometheus::ClientMetric& metric = all.back().metric.emplace_back();
    for (const auto& [name, value] : labels) metric.label.push_back({std::string(name), ValidUtf8(value)});
    return metric;
  }
};

Exposition::Exposition() : families_(std::make_unique<Families>()) {}
Exposition::~Exposition() = default;

void Exposition::Counter(std::string_view name, std::string_view help) { families_->Begin(prometheus::MetricType::Counter, name, help); }
void Exposition::Gauge(std::string_view name, std::string_view help) { families_->Begin(prometheus::MetricType::Gauge, name, help); }
void Exposition::Histogram(std::string_view name, std::string_view help) { families_->Begin(prometheus::MetricType::Histogram, name, help); }

void Exposition::Sample(const MetricLabels& labels, double value) {
  prometheus::ClientMetric& metric = families_->Add(labels);
  metric.counter.value = metric.gauge.value = value;
}

void Exposition::Sample(const MetricLabels& labels, const Latency& latency) {
  prometheus::ClientMetric::Histogram& out = families_->Add(labels).histogram;
  uint64_t below = 0;
  for (size_t i = 0; i < kLatencyBuckets; ++i) {
    below += latency.buckets[i];
    const double bound = i < kLatencyBounds.size() ? double(kLatencyBounds[i]) / 1e6 : std::numeric_limits<double>::infinity();
    out.bucket.push_back({below, bound});
  }
  out.sample_count = below;
  out.sample_sum = double(latency.micros) / 1e6;
}

std::string Exposition::Text() const {
  std::vector<prometheus::MetricFamily> filled;
  for (const auto& family : families_->all) {
    if (!family.metric.empty()) filled.push_back(family);
  }
  return prometheus::TextSerializer().Serialize(filled);
}

}  // namespace bulkhead
