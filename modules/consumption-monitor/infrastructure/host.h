// This host as a source of measurements: reads /proc and /sys below a root, "/" but in tests. Keeps nothing; any thread.
#pragma once

#include <filesystem>
#include <string>

#include "domain/reading.h"

namespace consumption {

struct HostOptions {
  std::string disks;       // patterns as in devices.h; empty: the physical ones
  std::string interfaces;  // the same
};

// Every metric of the host that can be read, in the order of metric::, with a problem for each file that can't.
Measurement MeasureHost(const HostOptions& options, const std::filesystem::path& root = "/");

}  // namespace consumption
