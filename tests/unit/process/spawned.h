// A real spawner on a real loop for tests: calls that come back when the answer is there.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/loop.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

inline constexpr Millis kTestPatience{10'000};

// A folder that is removed with all in it.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& place = "/tmp") : path_(place + "/bulkhead-test-XXXXXX") {
    BULKHEAD_CHECK(mkdtemp(path_.data()) != nullptr);
    std::filesystem::permissions(path_, std::filesystem::perms(0755));
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string Path(const std::string& name = "") const { return name.empty() ? path_ : path_ + "/" + name; }

 private:
  std::string path_;
};

inline bool Alive(pid_t pid) { return kill(pid, 0) == 0 || errno == EPERM; }

// Runs the loop until `done` holds. False after kTestPatience.
inline bool RunUntil(Loop& loop, const std::function<bool()>& done) {
  bool late = false;
  auto timer = loop.After(kTestPatience, [&] { late = true; });
  std::function<void()> check = [&] {
    if (done() || late) {
      loop.Stop();
    } else {
      loop.After(Millis(2), check);
    }
  };
  check();
  loop.Run();
  loop.Cancel(timer);
  return done();
}

// A child's output, read to its end once the child and all who hold the pipe have gone.
struct Output {
  UniqueFd read, write;
  Output() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) == 0) {
      read.Reset(ends[0]);
      write.Reset(ends[1]);
    }
  }
  std::string Line() {
    std::string line;
    char c;
    while (::read(read.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
  }
  std::string All() {
    std::string all;
    char buffer[4096];
    ssize_t size;
    while ((size = ::read(read.get(), buffer, sizeof buffer)) > 0) all.append(buffer, static_cast<size_t>(size));
    return all;
  }
};

class Spawned {
 public:
  explicit Spawned(bool use_cgroups = true) : Spawned(MakeOptions(use_cgroups)) {}
  explicit Spawned(Spawner::Options options) {
    auto forked = Spawner::Fork(std::move(options));
    EXPECT_TRUE(forked.ok()) << forked.status();
    spawner = *std::move(forked);
    spawner->Attach(loop);
  }
  static Spawner::Options MakeOptions(bool use_cgroups) {
    Spawner::Options options;
    options.cgroup_name = "bulkhead-test-" + std::to_string(getpid());
    options.use_cgroups = use_cgroups;
    return options;
  }

  // A shell script as a child; its stdout goes to `output`.
  static SpawnSpec Script(const std::string& id, const std::string& text, Output* output = nullptr) {
    SpawnSpec spec;
    spec.id = id;
    spec.executable = "/bin/sh";
    spec.args = {"-c", text};
    spec.env = {{"PATH", "/usr/bin:/bin"}};
    spec.cwd = "/";
    if (output != nullptr) spec.out = std::move(output->write);
    return spec;
  }

  absl::StatusOr<SpawnedProcess> Spawn(SpawnSpec spec) {
    std::optional<absl::StatusOr<SpawnedProcess>> result;
    std::string id = spec.id;
    spawner->Spawn(std::move(spec), [&](absl::StatusOr<SpawnedProcess> process) { result = std::move(process); },
                   [this, id](ProcessExit exit) { exits[id] = exit; });
    if (!RunUntil(loop, [&] { return result.has_value(); })) return absl::DeadlineExceededError("no answer to Spawn");
    return *std::move(result);
  }
  ProcessExit Exit(const std::string& id) {
    EXPECT_TRUE(RunUntil(loop, [&] { return exits.contains(id); })) << id << " has not ended";
    return exits[id];
  }
  void KillTree(const std::string& id) {
    bool empty = false;
    spawner->KillTree(id, [&] { empty = true; });
    EXPECT_TRUE(RunUntil(loop, [&] { return empty; })) << "the tree of " << id << " did not end";
  }
  absl::Status MakeFolder(const std::string& path, uid_t uid, gid_t gid, mode_t mode) {
    std::optional<absl::Status> result;
    spawner->MakeFolder(path, uid, gid, mode, [&](absl::Status status) { result = status; });
    if (!RunUntil(loop, [&] { return result.has_value(); })) return absl::DeadlineExceededError("no answer");
    return *result;
  }
  absl::Status RemoveFolder(const std::string& path) {
    std::optional<absl::Status> result;
    spawner->RemoveFolder(path, [&](absl::Status status) { result = status; });
    if (!RunUntil(loop, [&] { return result.has_value(); })) return absl::DeadlineExceededError("no answer");
    return *result;
  }

  Loop loop;
  std::unique_ptr<Spawner> spawner;
  std::map<std::string, ProcessExit> exits;
};

inline std::map<std::string, IsolationItem> ByName(const std::vector<IsolationItem>& items) {
  std::map<std::string, IsolationItem> named;
  for (const IsolationItem& item : items) named[item.name] = item;
  return named;
}

}  // namespace bulkhead
