#include "supervisor/startup.h"

#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <thread>

namespace bulkhead {

absl::StatusOr<UidClaim> ModuleUids(const Config& config, const DataFolder& folder) {
  if (!folder.privileged) return UidClaim();
  UidOptions options;
  options.data_dir = folder.path;
  options.hash = folder.hash;
  if (config.first_uid != 0) options.configured = {config.first_uid, config.last_uid};
  return ClaimUids(options);
}

Spawner::Options SpawnerOptions(const Config& config, const DataFolder& folder, const UidClaim& uids) {
  Spawner::Options options;
  options.off = config.isolation_off;
  options.cgroup_name = "bulkhead-" + folder.hash;
  options.folder_roots = {folder.path, folder.run};
  options.journal = folder.instances;
  if (folder.privileged) {
    options.refuse_root_children = true;
    options.child_uids = options.child_gids = {{uids.range.first, uids.range.last}};  // a module's gid is the number of its uid
    options.keep_open = uids.held.get();  // while a module of ours runs, nobody else's may have its uid
    if (passwd* postgres = getpwnam("postgres")) {
      options.child_uids.push_back({postgres->pw_uid, postgres->pw_uid});
      options.child_gids.push_back({postgres->pw_gid, postgres->pw_gid});
    }
  }
  return options;
}

int UsableCpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
}

void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::StatusOr<UniqueFd> BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return ErrnoStatus(errno, "pthread_sigmask");
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_DFL);  // ignored until now, see Make()
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return ErrnoStatus(errno, "signalfd");
  return fd;
}

}  // namespace bulkhead
