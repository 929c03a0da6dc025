// Which block devices and network interfaces count. By default the physical ones, because what stands on top of them (partitions, RAID,
// LVM, bridges, tunnels, containers' interfaces) would count the same bytes again. Reads /sys below an injectable root.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "infrastructure/procfs.h"

namespace consumption {

// Names separated by commas, with * and ?. Empty text matches nothing.
class NamePatterns {
 public:
  explicit NamePatterns(std::string_view text);
  bool empty() const { return patterns_.empty(); }
  bool Match(std::string_view name) const;

 private:
  std::vector<std::string> patterns_;
};

// With patterns exactly what they match. Without: whole devices that stand on no other and are no memory, loop, optical or floppy
// drive. Where /sys/block can't be read, whole and standing alone are told by the usual names.
std::vector<DiskCounters> SelectDisks(std::vector<DiskCounters> disks, const NamePatterns& patterns,
                                      const std::filesystem::path& sys);

// With patterns exactly what they match. Without: interfaces with hardware behind them that are not a port of another such one;
// where there are none (in a container) or /sys/class/net can't be read, all but lo.
std::vector<InterfaceCounters> SelectInterfaces(std::vector<InterfaceCounters> interfaces, const NamePatterns& patterns,
                                                const std::filesystem::path& sys);

}  // namespace consumption
