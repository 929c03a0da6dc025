#include "infrastructure/devices.h"

#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <set>
#include <system_error>

namespace consumption {
namespace {

namespace fs = std::filesystem;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// `name` is `prefix` and a number: "loop7", "dm-0".
bool IsNumbered(std::string_view name, std::string_view prefix) {
  return name.size() > prefix.size() && name.starts_with(prefix) &&
         std::all_of(name.begin() + ptrdiff_t(prefix.size()), name.end(), IsDigit);
}

bool IsAnyNumbered(std::string_view name, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) { return IsNumbered(name, prefix); });
}

bool IsNoDisk(std::string_view name) { return IsAnyNumbered(name, {"loop", "ram", "zram", "sr", "fd"}); }

// By name alone: the device that `name` would be a partition of, or empty. A name that ends in a digit puts a "p" before
// the partition's number (nvme0n1p2, mmcblk0p1), others do not (sda1).
std::string_view ParentByName(std::string_view name) {
  std::string_view parent = name;
  while (!parent.empty() && IsDigit(parent.back())) parent.remove_suffix(1);
  if (parent.empty() || parent.size() == name.size()) return {};
  if (parent.size() > 1 && parent.back() == 'p' && IsDigit(parent[parent.size() - 2])) parent.remove_suffix(1);
  return parent;
}

bool IsEmptyOrAbsent(const fs::path& folder) {
  std::error_code error;
  const bool empty = fs::is_empty(folder, error);
  return error || empty;
}

// Null when the folder can't be read.
std::optional<std::set<std::string>> Names(const fs::path& folder) {
  std::error_code error;
  std::set<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) names.insert(entry->path().filename());
  if (error) return std::nullopt;
  return names;
}

}  // namespace

NamePatterns::NamePatterns(std::string_view text) {
  while (!text.empty()) {
    std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (!item.empty()) patterns_.emplace_back(item);
  }
}

bool NamePatterns::Match(std::string_view name) const {
  const std::string text(name);
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const std::string& pattern) { return fnmatch(pattern.c_str(), text.c_str(), 0) == 0; });
}

std::vector<DiskCounters> SelectDisks(std::vector<DiskCounters> disks, const NamePatterns& patterns, const fs::path& sys) {
  if (!patterns.empty()) {
    std::erase_if(disks, [&](const DiskCounters& disk) { return !patterns.Match(disk.name); });
    return disks;
  }
  std::set<std::string, std::less<>> all;
  for (const DiskCounters& disk : disks) all.insert(disk.name);
  const auto whole = Names(sys / "block");  // partitions are not listed here
  std::erase_if(disks, [&](const DiskCounters& disk) {
    if (IsNoDisk(disk.name)) return true;
    if (!whole) return all.contains(ParentByName(disk.name)) || IsAnyNumbered(disk.name, {"dm-", "md", "bcache", "drbd"});
    std::string entry = disk.name;
    std::replace(entry.begin(), entry.end(), '/', '!');  // as sysfs writes cciss/c0d0
    return !whole->contains(entry) || !IsEmptyOrAbsent(sys / "block" / entry / "slaves");
  });
  return disks;
}

std::vector<InterfaceCounters> SelectInterfaces(std::vector<InterfaceCounters> interfaces, const NamePatterns& patterns,
                                                const fs::path& sys) {
  const fs::path root = sys / "class" / "net";
  auto physical = [&](const std::string& name) {
    std::error_code error;
    return fs::exists(root / name / "device", error);
  };
  const bool any_physical = std::any_of(interfaces.begin(), interfaces.end(), [&](const auto& i) { return physical(i.name); });
  std::erase_if(interfaces, [&](const InterfaceCounters& interface) {
    if (!patterns.empty()) return !patterns.Match(interface.name);
    if (!any_physical) return interface.name == "lo";
    if (!physical(interface.name)) return true;
    std::error_code error;  // a port of another device links to it
    const fs::path master = fs::read_symlink(root / interface.name / "master", error);
    return !error && physical(master.filename());
  });
  return interfaces;
}

}  // namespace consumption
