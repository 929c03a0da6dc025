#include "infrastructure/procfs.h"

#include <charconv>
#include <cstdint>
#include <optional>

namespace consumption {
namespace {

constexpr double kSectorBytes = 512;  // of diskstats, whatever the device's own sector size

std::string_view TakeLine(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

std::string_view TakeWord(std::string_view& line) {
  constexpr std::string_view kBlank = " \t";
  const size_t begin = line.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return line = {};
  line.remove_prefix(begin);
  const size_t end = line.find_first_of(kBlank);
  std::string_view word = line.substr(0, end);
  line.remove_prefix(word.size());
  return word;
}

// The kernel prints these as unsigned 64-bit numbers.
std::optional<double> Number(std::string_view word) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return double(value);
}

double TakeNumber(std::string_view& line, std::string_view file, std::string_view field) {
  const std::string_view word = TakeWord(line);
  if (auto value = Number(word)) return *value;
  throw ProcfsError(std::string(file) + ": " + std::string(field) + " should be a number, not \"" + std::string(word) + "\"");
}

void SkipWords(std::string_view& line, int count) {
  while (count-- > 0) TakeWord(line);
}

}  // namespace

double ParseBusySeconds(std::string_view stat, long ticks_per_second) {
  if (ticks_per_second <= 0) throw ProcfsError("the length of a clock tick is unknown");
  while (!stat.empty()) {
    std::string_view line = TakeLine(stat);
    if (TakeWord(line) != "cpu") continue;  // the sum over all CPUs
    double ticks = TakeNumber(line, "stat", "user");
    ticks += TakeNumber(line, "stat", "nice");
    ticks += TakeNumber(line, "stat", "system");
    SkipWords(line, 2);  // idle, iowait
    ticks += TakeNumber(line, "stat", "irq");
    ticks += TakeNumber(line, "stat", "softirq");
    return ticks / double(ticks_per_second);
  }
  throw ProcfsError("stat: there is no line \"cpu\"");
}

double ParseUsedMemory(std::string_view meminfo) {
  std::optional<double> total, available;
  while (!meminfo.empty()) {
    std::string_view line = TakeLine(meminfo);
    const std::string_view name = TakeWord(line);
    if (name != "MemTotal:" && name != "MemAvailable:") continue;
    const double value = TakeNumber(line, "meminfo", name);
    if (TakeWord(line) != "kB") throw ProcfsError("meminfo: " + std::string(name) + " should be in kB");
    (name == "MemTotal:" ? total : available) = value * 1024;
  }
  if (!total || !available) throw ProcfsError("meminfo: MemTotal or MemAvailable is missing");
  // In a container with a limit the two may come from different sources.
  return *available > *total ? 0 : *total - *available;
}

std::vector<DiskCounters> ParseDiskstats(std::string_view diskstats) {
  std::vector<DiskCounters> disks;
  while (!diskstats.empty()) {
    std::string_view line = TakeLine(diskstats);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    SkipWords(line, 2);  // major, minor
    DiskCounters disk;
    disk.name = TakeWord(line);
    SkipWords(line, 2);  // reads completed, reads merged
    disk.read_bytes = TakeNumber(line, "diskstats", "sectors read of " + disk.name) * kSectorBytes;
    SkipWords(line, 3);  // time reading, writes completed, writes merged
    disk.write_bytes = TakeNumber(line, "diskstats", "sectors written of " + disk.name) * kSectorBytes;
    disks.push_back(std::move(disk));
  }
  return disks;
}

std::vector<InterfaceCounters> ParseNetDev(std::string_view net_dev) {
  std::vector<InterfaceCounters> interfaces;
  int header_lines = 2;
  for (; header_lines > 0 && !net_dev.empty(); --header_lines) {
    if (TakeLine(net_dev).find('|') == std::string_view::npos) break;
  }
  if (header_lines > 0) throw ProcfsError("net/dev: the two header lines are missing");
  while (!net_dev.empty()) {
    std::string_view line = TakeLine(net_dev);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    // The name ends at the last colon (an alias, "eth0:1", has one itself), and the counter may follow without a space.
    const size_t colon = line.rfind(':');
    if (colon == std::string_view::npos) throw ProcfsError("net/dev: a line without an interface's name");
    InterfaceCounters interface;
    std::string_view name = line.substr(0, colon);
    interface.name = TakeWord(name);
    line.remove_prefix(colon + 1);
    interface.receive_bytes = TakeNumber(line, "net/dev", "bytes received by " + interface.name);
    SkipWords(line, 7);  // packets, errors, drops, fifo, frame, compressed, multicast
    interface.transmit_bytes = TakeNumber(line, "net/dev", "bytes sent by " + interface.name);
    interfaces.push_back(std::move(interface));
  }
  return interfaces;
}

}  // namespace consumption
