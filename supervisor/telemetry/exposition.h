// A page of metrics in the text format of Prometheus (0.0.4), put together family by family. Belongs to one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/telemetry/meters.h"

namespace bulkhead {

std::string_view BuildVersion();  // of this program, "0.1.0"

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

class Exposition {
 public:
  Exposition();
  ~Exposition();

  // A family begins; the samples that follow are its own. One name begins once. `help` is a sentence.
  void Counter(std::string_view name, std::string_view help);  // name ends in _total
  void Gauge(std::string_view name, std::string_view help);
  void Histogram(std::string_view name, std::string_view help);

  // Values of labels that are not UTF-8 are made so.
  void Sample(const MetricLabels& labels, double value);
  void Sample(double value) { Sample({}, value); }
  void Sample(const MetricLabels& labels, const Latency& latency);  // in seconds

  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";
  std::string Text() const;  // families without samples are left out

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace bulkhead
