#include "infrastructure/host.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "infrastructure/devices.h"
#include "infrastructure/procfs.h"

namespace consumption {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFile = 4 << 20;  // of /proc; thousands of disks or interfaces stay below it

// The files of /proc have no size and must be read to their end. Throws ProcfsError.
std::string ReadFile(const fs::path& path) {
  auto failed = [&] { return ProcfsError(path.string() + " can't be read: " + std::generic_category().message(errno)); };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw failed();
  std::string text;
  char buffer[16 * 1024];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const auto error = failed();
      close(fd);
      throw error;
    }
    if (got == 0) break;
    text.append(buffer, size_t(got));
    if (text.size() > kMaxFile) {
      close(fd);
      throw ProcfsError(path.string() + " is larger than " + std::to_string(kMaxFile) + " bytes");
    }
  }
  close(fd);
  return text;
}

// A boot's id, random and made by the kernel. Empty when it can't be read.
std::string BootId(const fs::path& proc) {
  try {
    std::string id = ReadFile(proc / "sys/kernel/random/boot_id");
    id.erase(id.find_last_not_of(" \n") + 1);
    return id;
  } catch (const ProcfsError&) {
    return {};
  }
}

// Runs one reader, which adds its values only when it has all of them.
template <typename F>
void Try(Measurement& measurement, F reader) {
  try {
    reader();
  } catch (const ProcfsError& error) {
    measurement.problems.emplace_back(error.what());
  }
}

}  // namespace

Measurement MeasureHost(const HostOptions& options, const fs::path& root) {
  const fs::path proc = root / "proc", sys = root / "sys";
  Measurement result;
  auto add = [&](std::string_view name, double value, const std::string& scope = {}) {
    result.values.push_back({std::string(name), value, scope});
  };
  result.at = std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now());
  result.epoch = BootId(proc);
  Try(result, [&] { add(metric::kCpuSeconds, ParseBusySeconds(ReadFile(proc / "stat"), sysconf(_SC_CLK_TCK))); });
  Try(result, [&] { add(metric::kMemoryBytes, ParseUsedMemory(ReadFile(proc / "meminfo"))); });
  Try(result, [&] {
    const NamePatterns patterns(options.disks);
    double read_bytes = 0, write_bytes = 0;
    for (const auto& disk : SelectDisks(ParseDiskstats(ReadFile(proc / "diskstats")), patterns, sys)) {
      read_bytes += disk.read_bytes;
      write_bytes += disk.write_bytes;
    }
    add(metric::kDiskReadBytes, read_bytes, options.disks);
    add(metric::kDiskWriteBytes, write_bytes, options.disks);
  });
  Try(result, [&] {
    const NamePatterns patterns(options.interfaces);
    double receive_bytes = 0, transmit_bytes = 0;
    for (const auto& interface : SelectInterfaces(ParseNetDev(ReadFile(proc / "net/dev")), patterns, sys)) {
      receive_bytes += interface.receive_bytes;
      transmit_bytes += interface.transmit_bytes;
    }
    add(metric::kNetworkReceiveBytes, receive_bytes, options.interfaces);
    add(metric::kNetworkTransmitBytes, transmit_bytes, options.interfaces);
  });
  return result;
}

}  // namespace consumption
