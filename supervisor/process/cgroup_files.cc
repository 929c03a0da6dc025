#include "supervisor/process/cgroup_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace bulkhead::cgroup_files {
namespace {

// /proc/self/mountinfo, proc(5): id, parent, major:minor, root, mount point, options, …, "-", type, source, super options.
struct Mount {
  std::string root, point, type, options;
};

std::vector<Mount> CgroupMounts() {
  std::vector<Mount> mounts;
  auto text = ReadFile("/proc/self/mountinfo");
  if (!text.ok()) return mounts;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Mount mount;
    std::string skip;
    words >> skip >> skip >> skip >> mount.root >> mount.point;
    while (words >> skip && skip != "-") {
    }
    words >> mount.type >> skip >> mount.options;
    if (mount.type == "cgroup" || mount.type == "cgroup2") mounts.push_back(std::move(mount));
  }
  return mounts;
}

bool HasOption(const std::string& options, const std::string& option) {
  return ("," + options + ",").find("," + option + ",") != std::string::npos;
}

}  // namespace

std::vector<Mounted> OwnCgroups() {
  std::vector<Mounted> found;
  auto text = ReadFile("/proc/self/cgroup");
  if (!text.ok()) return found;
  auto mounts = CgroupMounts();
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {  // "<number>:<controllers>:<path>", cgroups(7)
    size_t first = line.find(':');
    size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    bool v2 = controllers.empty();
    for (const char* controller : {"", "memory", "cpu", "pids"}) {
      if (v2 ? *controller != 0 : (*controller == 0 || !HasOption(controllers, controller))) continue;
      for (const Mount& mount : mounts) {
        if (v2 ? mount.type != "cgroup2" : (mount.type != "cgroup" || !HasOption(mount.options, controller))) continue;
        // A mount in a container may show only a part of the tree: its root is a prefix of the path.
        std::string below = path;
        if (mount.root != "/") {
          if (below.rfind(mount.root, 0) != 0) continue;
          below.erase(0, mount.root.size());
        }
        std::string own = mount.point + (below == "/" ? "" : below);
        struct stat info;
        if (stat(own.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) continue;
        found.push_back({v2, controller, own});
        break;
      }
    }
  }
  return found;
}

std::string MountPointOf(const std::string& folder) {
  for (const Mount& mount : CgroupMounts()) {
    if (mount.type == "cgroup2" && (folder == mount.point || folder.rfind(mount.point + "/", 0) == 0)) return mount.point;
  }
  return "";
}

int Write(const std::string& file, std::string_view text) {
  UniqueFd fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno;
  return write(fd.get(), text.data(), text.size()) < 0 ? errno : 0;
}

std::vector<std::string> Words(const std::string& file) {
  auto text = ReadFile(file);
  if (!text.ok()) return {};
  std::vector<std::string> words;
  std::istringstream in(*text);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

int64_t Counter(const std::string& file, std::string_view key) {
  auto words = Words(file);
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    if (words[i] == key) return strtoll(words[i + 1].c_str(), nullptr, 10);
  }
  return 0;
}

std::vector<pid_t> Members(const std::string& folder) {
  std::vector<pid_t> pids;
  for (const std::string& word : Words(folder + "/cgroup.procs")) {
    pid_t pid = static_cast<pid_t>(strtol(word.c_str(), nullptr, 10));
    if (pid > 0) pids.push_back(pid);
  }
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (!entry.is_directory(ignored)) continue;
    auto below = Members(entry.path().string());
    pids.insert(pids.end(), below.begin(), below.end());
  }
  return pids;
}

bool RemoveFolder(const std::string& folder) {
  if (rmdir(folder.c_str()) == 0 || errno == ENOENT) return true;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.is_directory(ignored)) RemoveFolder(entry.path().string());
  }
  return rmdir(folder.c_str()) == 0;
}

UniqueFd Lock(const std::string& folder) {
  UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.Reset();
  return fd;
}

}  // namespace bulkhead::cgroup_files
