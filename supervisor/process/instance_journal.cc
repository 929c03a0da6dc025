#include "supervisor/process/instance_journal.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/process/cgroup_files.h"
#include "supervisor/process/tree_kill.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxRecord = 64 * 1024;
constexpr int kSweepPauseMs = 5;  // to the next look for somebody who was there and could not be held
constexpr char kFormat[] = "bulkhead-instance 1\n";
constexpr std::string_view kNote = "note.";
constexpr long kPidfsMagic = 0x50494446;  // PIDFS_MAGIC, which Debian 12's headers do not have yet

// A value is one line.
std::string OneLine(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20; }, ' ');
  return text;
}

void Put(std::string& out, std::string_view key, const std::string& value) { out.append(key).append("=").append(OneLine(value)).append("\n"); }

void PutProcess(std::string& out, const std::string& key, const ProcessIdentity& process) {
  Put(out, key + "Pid", std::to_string(process.pid));
  Put(out, key + "StartTime", std::to_string(process.start_time));
  Put(out, key + "PidfdInode", std::to_string(process.pidfd_inode));
}

// Whether `pidfd`, opened by its number, is of the very process. Who has the number and the known start now has had it all the time since, so
// also when the pidfd was opened.
bool IsStill(int pidfd, const ProcessIdentity& known) {
  const ProcessIdentity now = IdentityOf(known.pid, pidfd);
  if (now.start_time == 0 || now.start_time != known.start_time) return false;
  return known.pidfd_inode == 0 || now.pidfd_inode == 0 || known.pidfd_inode == now.pidfd_inode;
}

UniqueFd OpenKnown(const ProcessIdentity& known) {
  if (known.pid <= 0) return {};
  UniqueFd fd = OpenPidfd(known.pid);
  return fd && IsStill(fd.get(), known) ? std::move(fd) : UniqueFd();
}

// Whether all of these have ended, waiting `patience` for it.
bool AwaitEnd(const std::vector<int>& pidfds, Millis patience) {
  const Instant deadline = Clock::Real().Now() + patience;
  for (int fd : pidfds) {
    pollfd ended{fd, POLLIN, 0};
    for (;;) {
      const auto left = std::max(std::chrono::ceil<Millis>(deadline - Clock::Real().Now()), Millis(0));
      const int count = poll(&ended, 1, static_cast<int>(left.count()));
      if (count > 0) break;
      if (count == 0) return false;
      if (errno != EINTR) return false;
    }
  }
  return true;
}

std::vector<pid_t> AllProcesses() {
  std::vector<pid_t> pids;
  std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir("/proc"), closedir);
  while (dirent* entry = entries ? readdir(entries.get()) : nullptr) {
    char* end;
    const long pid = strtol(entry->d_name, &end, 10);
    if (pid > 0 && *end == 0) pids.push_back(static_cast<pid_t>(pid));
  }
  return pids;
}

// BULKHEAD_INSTANCE of the process, "" when it has none or does not show it to us.
std::string InstanceOf(pid_t pid) {
  auto text = ReadFile("/proc/" + std::to_string(pid) + "/environ");
  if (!text.ok()) return "";
  const std::string prefix = std::string(kInstanceVariable) + "=";
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = std::min(text->find('\0', begin), text->size());
    if (std::string_view(*text).substr(begin, end - begin).starts_with(prefix)) return text->substr(begin + prefix.size(), end - begin - prefix.size());
    begin = end + 1;
  }
  return "";
}

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// The records in the folder that are ours to believe.
std::vector<InstanceRecord> ReadRecords(int folder) {
  std::vector<InstanceRecord> records;
  UniqueFd again(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::unique_ptr<DIR, int (*)(DIR*)> entries(again ? fdopendir(again.get()) : nullptr, closedir);
  if (!entries) return records;
  (void)again.Release();
  while (dirent* entry = readdir(entries.get())) {
    if (entry->d_name[0] == '.') continue;
    UniqueFd file(openat(folder, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    struct stat info;
    if (!file || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid()) continue;
    std::string text(kMaxRecord, 0);
    const ssize_t size = read(file.get(), text.data(), text.size());
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    InstanceRecord record;
    if (DecodeRecord(text, record) && record.id == entry->d_name) {
      records.push_back(std::move(record));
    } else {
      unlinkat(folder, entry->d_name, 0);  // a write that a power cut has halved
    }
  }
  return records;
}

// One that has ended and is not reaped yet does not run: its parent may take its time, or never come to it.
bool Runs(pid_t pid) {
  const UniqueFd fd = OpenPidfd(pid);
  return fd && !AwaitEnd({fd.get()}, Millis(0));
}

// Everything of one child that runs now.
std::vector<pid_t> MembersOf(const InstanceRecord& record) {
  std::set<pid_t> found;
  if (OpenKnown(record.process)) found.insert(record.process.pid);
  if (!record.cgroup.empty() && record.cgroup.ends_with("/" + record.id)) {
    for (pid_t pid : cgroup_files::Members(record.cgroup)) found.insert(pid);
  }
  for (pid_t pid : AllProcesses()) {
    if (InstanceOf(pid) == record.id) found.insert(pid);
  }
  for (pid_t pid : Descendants({found.begin(), found.end()})) found.insert(pid);
  found.erase(getpid());
  std::erase_if(found, [](pid_t pid) { return !Runs(pid); });
  return {found.begin(), found.end()};
}

void EndOne(const InstanceRecord& record, const LeftoverOptions& options, Leftover& result) {
  if (record.graceful_signal != 0) {
    if (UniqueFd main = OpenKnown(record.process)) {
      if (std::string name = NameOf(record.process.pid); !name.empty()) result.ended.push_back(std::move(name));
      SignalPidfd(main.get(), record.graceful_signal);
      SignalPidfd(main.get(), SIGCONT);  // a stopped process can't act on it
      AwaitEnd({main.get()}, options.graceful);
    }
  }
  const Instant deadline = Clock::Real().Now() + options.killed;
  for (;;) {
    const std::vector<pid_t> members = MembersOf(record);
    if (members.empty()) return;
    // Named before they are killed: afterwards there is nobody to ask. One that has ended meanwhile may have left another behind, so no name
    // does not mean that nobody is there.
    std::vector<std::string> names;
    for (pid_t pid : members) {
      if (std::string name = NameOf(pid); !name.empty()) names.push_back(std::move(name));
    }
    if (Clock::Real().Now() >= deadline) {
      result.left = std::move(names);
      return;
    }
    if (!record.cgroup.empty()) cgroup_files::Write(record.cgroup + "/cgroup.kill", "1");  // reaches also who is forked right now
    std::vector<int> pidfds;
    const auto killed = StopAndKill([&] { return MembersOf(record); });
    for (const auto& [pid, fd] : killed) pidfds.push_back(fd.get());
    if (pidfds.empty()) poll(nullptr, 0, kSweepPauseMs);
    AwaitEnd(pidfds, std::max(std::chrono::ceil<Millis>(deadline - Clock::Real().Now()), Millis(0)));
    for (std::string& name : names) {
      if (std::find(result.ended.begin(), result.ended.end(), name) == result.ended.end()) result.ended.push_back(std::move(name));
    }
  }
}

}  // namespace

std::string BootId() {
  auto text = ReadFile("/proc/sys/kernel/random/boot_id");
  return text.ok() ? text->substr(0, text->find('\n')) : "";
}

ProcessIdentity IdentityOf(pid_t pid, int pidfd) {
  ProcessIdentity identity{pid, 0, 0};
  auto text = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = text.ok() ? text->rfind(')') : std::string::npos;  // a name may hold blanks and parentheses
  if (name_end == std::string::npos) return identity;
  const char* at = text->c_str() + name_end + 1;
  for (int field = 2; field < 21 && *at != 0; ++field) at = strchr(at + 1, ' ') ? strchr(at + 1, ' ') : "";
  identity.start_time = strtoull(at, nullptr, 10);
  struct statfs file_system;
  struct stat info;
  if (pidfd >= 0 && fstatfs(pidfd, &file_system) == 0 && file_system.f_type == kPidfsMagic && fstat(pidfd, &info) == 0) {
    identity.pidfd_inode = info.st_ino;
  }
  return identity;
}

std::string EncodeRecord(const InstanceRecord& record) {
  std::string out = kFormat;
  Put(out, "instance", record.id);
  Put(out, "executable", record.executable);
  Put(out, "bootId", record.boot_id);
  Put(out, "uid", std::to_string(record.uid));
  Put(out, "gracefulSignal", std::to_string(record.graceful_signal));
  PutProcess(out, "spawner", record.spawner);
  PutProcess(out, "process", record.process);
  Put(out, "cgroup", record.cgroup);
  for (const auto& [name, value] : record.notes) Put(out, std::string(kNote) + OneLine(name), value);
  return out + "end\n";
}

bool DecodeRecord(const std::string& text, InstanceRecord& record) {
  if (!text.starts_with(kFormat) || !text.ends_with("\nend\n")) return false;
  std::map<std::string, std::string> values;
  for (size_t begin = sizeof kFormat - 1; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) return false;
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = line.find('=');
    if (equals == std::string::npos) continue;  // "end"
    const std::string key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key.starts_with(kNote)) {
      record.notes.emplace_back(key.substr(kNote.size()), value);
    } else {
      values[key] = value;
    }
  }
  auto number = [&](const std::string& key) { return strtoull(values[key].c_str(), nullptr, 10); };
  auto process = [&](const std::string& key) {
    return ProcessIdentity{static_cast<pid_t>(number(key + "Pid")), number(key + "StartTime"), number(key + "PidfdInode")};
  };
  record.id = values["instance"];
  record.executable = values["executable"];
  record.boot_id = values["bootId"];
  record.uid = static_cast<uid_t>(number("uid"));
  record.graceful_signal = static_cast<int>(number("gracefulSignal"));
  record.spawner = process("spawner");
  record.process = process("process");
  record.cgroup = values["cgroup"];
  return !record.id.empty() && record.id.find('/') == std::string::npos && !record.boot_id.empty() && record.graceful_signal < NSIG;
}

absl::StatusOr<InstanceJournal> InstanceJournal::Open(const std::string& folder) {
  InstanceJournal journal;
  journal.folder_.Reset(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!journal.folder_) return ErrnoStatus(errno, folder);
  return journal;
}

// Not synced to disk: a machine that went down has ended every process as well.
absl::Status InstanceJournal::Write(const InstanceRecord& record) {
  if (!folder_) return absl::OkStatus();
  const std::string fresh = "." + record.id, text = EncodeRecord(record);
  unlinkat(folder_.get(), fresh.c_str(), 0);
  UniqueFd file(openat(folder_.get(), fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return ErrnoStatus(errno, record.id);
  const ssize_t written = write(file.get(), text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) return ErrnoStatus(written < 0 ? errno : ENOSPC, record.id);
  if (renameat(folder_.get(), fresh.c_str(), folder_.get(), record.id.c_str()) != 0) return ErrnoStatus(errno, record.id);
  return absl::OkStatus();
}

void InstanceJournal::Remove(const std::string& id) {
  if (folder_) unlinkat(folder_.get(), id.c_str(), 0);
}

std::vector<Leftover> EndLeftovers(const LeftoverOptions& options) {
  std::vector<Leftover> found;
  UniqueFd folder(open(options.folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  if (!folder || fstat(folder.get(), &info) != 0 || info.st_uid != geteuid()) return found;
  const std::string boot = BootId();
  std::vector<InstanceRecord> records = ReadRecords(folder.get());
  // A spawner that lives is about to end its children in its own order: PostgreSQL last, and gently.
  std::map<pid_t, UniqueFd> spawners;
  for (const InstanceRecord& record : records) {
    if (record.boot_id != boot || spawners.contains(record.spawner.pid) || record.spawner.pid == getpid()) continue;
    if (UniqueFd fd = OpenKnown(record.spawner)) spawners[record.spawner.pid] = std::move(fd);
  }
  std::vector<int> waiting;
  for (const auto& [pid, fd] : spawners) waiting.push_back(fd.get());
  AwaitEnd(waiting, options.predecessor);
  // Modules first, then what they use.
  std::stable_sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return (a.graceful_signal != 0) < (b.graceful_signal != 0); });
  for (const InstanceRecord& record : records) {
    Leftover one{record.id, record.notes, {}, {}};
    if (record.boot_id == boot) EndOne(record, options, one);
    if (one.left.empty()) unlinkat(folder.get(), record.id.c_str(), 0);
    if (!one.ended.empty()) LogWarn("spawner", "ended what an earlier life left", {{"instance", one.id}, {"processes", Joined(one.ended)}});
    if (!one.left.empty()) LogError("spawner", "what an earlier life left can't be ended", {{"instance", one.id}, {"processes", Joined(one.left)}});
    if (!one.ended.empty() || !one.left.empty()) found.push_back(std::move(one));
  }
  return found;
}

}  // namespace bulkhead
