// The files of /proc that tell what a Linux host consumes, from text to numbers. Pure: see proc(5) and the kernel's
// Documentation/admin-guide/iostats.rst for the formats. All throw ProcfsError with a sentence for text that is not of that format.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace consumption {

class ProcfsError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// /proc/stat: seconds that the CPUs were busy since boot: user, nice, system, irq and softirq. Idle and iowait are no work, stolen
// time was another machine's, guest time is inside user. `ticks_per_second` is sysconf(_SC_CLK_TCK).
double ParseBusySeconds(std::string_view stat, long ticks_per_second);

// /proc/meminfo: bytes in use, MemTotal less MemAvailable (kernel 3.14 or later).
double ParseUsedMemory(std::string_view meminfo);

struct DiskCounters {  // since boot
  std::string name;
  double read_bytes = 0, write_bytes = 0;
};
// /proc/diskstats: every line, partitions and virtual devices too.
std::vector<DiskCounters> ParseDiskstats(std::string_view diskstats);

struct InterfaceCounters {  // since boot, or since the interface was made
  std::string name;
  double receive_bytes = 0, transmit_bytes = 0;
};
// /proc/net/dev: every line, lo too.
std::vector<InterfaceCounters> ParseNetDev(std::string_view net_dev);

}  // namespace consumption
