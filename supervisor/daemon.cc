#include "supervisor/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "supervisor/admin/admin.h"
#include "supervisor/auth/accounts.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/auth/credential_store.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/systemd.h"
#include "supervisor/cache/cache.h"
#include "supervisor/data_folder.h"
#include "supervisor/events/events.h"
#include "supervisor/files/file_store.h"
#include "supervisor/flags/flags.h"
#include "supervisor/gateway/gateway.h"
#include "supervisor/greeting.h"
#include "supervisor/jobs/jobs.h"
#include "supervisor/notify/notifier.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/logs/module_logs.h"
#include "supervisor/process/instance_journal.h"
#include "supervisor/process/spawner.h"
#include "supervisor/process/uid_range.h"
#include "supervisor/reload.h"
#include "supervisor/service.h"
#include "supervisor/shutdown_report.h"
#include "supervisor/startup.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/module_migrations.h"
#include "supervisor/store/postgres.h"
#include "supervisor/store/secret_box.h"
#include "supervisor/telemetry/exposition.h"
#include "supervisor/worker/host.h"

namespace bulkhead {
namespace {

constexpr int kPoolThreads = 6;          // blocking work at a time: database, archives, hashing
constexpr size_t kPoolQueue = 4096;      // beyond: refused (blocking_pool.h)
constexpr int kDatabaseConnections = 8;  // of the supervisor itself
constexpr int kMaxGatewayThreads = 4;
constexpr Millis kWorkGrace{3'000};   // running jobs and deliveries at a shutdown
constexpr Millis kDrainGrace{3'000};  // in-flight requests at a shutdown
constexpr Millis kIdlePoll{20};       // between two looks whether blocking work is done, at the end
constexpr int kExitStartFailed = 1, kExitCriticalModule = 3, kExitKilled = 4, kExitSpawnerLost = 5;

// Flags as modules are told of them.
std::map<std::string, HostFlag> HostFlags(const FlagSet& flags) {
  std::map<std::string, HostFlag> told;
  for (const auto& [variable, flag] : flags.all()) told[flag.name] = {flag.enabled, flag.percentage, flag.identities};
  return told;
}

FileQuota FilesAsked(const Manifest& manifest) { return {manifest.limit_storage, manifest.limit_files}; }

LogStream StreamOf(std::string_view name) {
  return name == "stdout" ? LogStream::kStdout : name == "stderr" ? LogStream::kStderr : LogStream::kSupervisor;
}

class Daemon {
 public:
  Daemon(const Config& config, RereadConfig reread, DataFolder folder, UidClaim uids, std::unique_ptr<Spawner> spawner,
         std::unique_ptr<Gateway> gateway, UniqueFd modules, UniqueFd signals, std::vector<VerificationKey> jwt_keys,
         const ServiceEnvironment& environment, UniqueFd grpc)
      : config_(config),
        reread_(std::move(reread)),
        folder_(std::move(folder)),
        uids_(std::move(uids)),
        jwt_keys_(std::move(jwt_keys)),
        modules_(std::move(modules)),
        signals_(std::move(signals)),
        given_grpc_(std::move(grpc)),
        service_(loop_, environment),
        spawner_(std::move(spawner)),
        gateway_(std::move(gateway)),
        pool_(kPoolThreads, kPoolQueue) {
    node_.environment = config.environment;
    node_.started_at = clock_.Wall();
  }

  int Run() {
    spawner_->Attach(loop_);
    spawner_->OnLost([this](const std::string& how) { SpawnerLost(how); });
    spawner_->OnKilled([this](const std::string& id, const std::vector<KilledProcess>& killed) {
      if (stopping_) report_.Add(id, killed);
    });
    service_.Start({[this](std::function<void()> turned) { gateway_->Turn(std::move(turned)); }, &pool_, &migrating_});
    service_.Status("starting: the database");
    loop_.Watch(signals_.get(), EPOLLIN, [this](uint32_t) { OnSignal(); });
    loop_.Post([this] { StartDatabase(); });
    loop_.Run();
    return exit_code_;
  }

 private:
  // ---- the boot, phase by phase; each ends by calling the next ----

  void StartDatabase() {
    if (!config_.store_url.empty()) {
      database_ = std::make_unique<Database>(config_.store_url, kDatabaseConnections);
      return PrepareStore();
    }
    PrivatePostgresOptions options;
    options.data_dir = folder_.path + "/postgres";
    options.socket_dir = folder_.run + "/pg";
    options.secrets_dir = folder_.path + "/secrets";
    options.privileged = folder_.privileged;
    postgres_ = std::make_unique<PrivatePostgres>(loop_, *spawner_, options);
    postgres_->Start([this](absl::Status status) {
      if (stopping_) return;
      if (!status.ok()) return FailStart(status);
      database_ = std::make_unique<Database>(postgres_->conninfo(), kDatabaseConnections);
      PrepareStore();
    });
  }

  void PrepareStore() {
    auto work = [this]() -> absl::Status {
      MigrationLimits limits;
      limits.statement_timeout = config_.migration_timeout;
      limits.under_way = &migrating_;
      RETURN_IF_ERROR(Migrate(*database_, "bulkhead", database_->conninfo(), OwnMigrations(), limits).status());
      ASSIGN_OR_RETURN(const std::string key, MasterKey(folder_.path + "/secrets/master.key"));
      master_key_ = key;
      registry_ = std::make_unique<Registry>(*database_, key, config_.store_extensions);
      RETURN_IF_ERROR(registry_->Open());
      credentials_ = std::make_unique<CredentialStore>(*database_);
      authenticator_ = std::make_unique<Authenticator>(clock_, *credentials_, JwtVerifier::Options{config_.jwt, jwt_keys_, AccessKey(key)});
      accounts_ = std::make_unique<Accounts>(clock_, *credentials_, *authenticator_, AccessKey(key));
      RETURN_IF_ERROR(authenticator_->LoadAdminToken(folder_.path + "/admin.token"));
      ASSIGN_OR_RETURN(secrets_, SecretBox::Load(folder_.path + "/secrets/config.keys", config_.secrets_keys));
      flags_ = std::make_unique<Flags>(loop_, pool_, *database_, Flags::Sources{config_.environment_flags, config_.flags});
      RETURN_IF_ERROR(flags_->Load());
      ASSIGN_OR_RETURN(files_, FileStore::Open(folder_.path + "/files", config_.files_bytes_per_module));
      return authenticator_->Reload();
    };
    BULKHEAD_CHECK(pool_.Submit([this, work] {
      absl::Status status = work();
      loop_.Post([this, status] {
        if (stopping_) return;
        if (!status.ok()) return FailStart(status);
        StartServices();
      });
    }));
  }

  void StartServices() {
    const std::string node = NodeName(folder_);
    tracer_ = std::make_unique<Tracer>(config_.otlp, OtlpResource{std::string(BuildVersion()), node}, clock_);
    access_log_ = std::make_unique<AccessLog>(config_.access_log, clock_);
    jobs_ = Jobs::Make(loop_, pool_, *database_, clock_, {node, &job_meters_, tracer_.get(), config_.store_url.empty()});
    publisher_.AddReader(gateway_.get());
    notifier_ = std::make_unique<Notifier>(*database_, clock_, config_.notifications);
    notified_jobs_ = std::make_unique<WithNotifications>(*jobs_, *notifier_);
    publisher_.AddReader(notified_jobs_.get());
    notified_jobs_->Adopt(publisher_.current(), [] {});  // its jobs need no module to be there
    events_ = Events::Make(loop_, *database_, clock_, {node, config_.events_kept, config_.events_kept_unread,
                                                       config_.events_on_redis ? ParseRedisUrl(config_.events_redis) : std::nullopt});
    publisher_.AddReader(events_.get());
    auto cache = Cache::Make(loop_, clock_, CacheOptions(node));
    if (!cache.ok()) return FailStart(cache.status());
    cache_ = *std::move(cache);
    publisher_.AddReader(&cache_->shared());
    publisher_.AddReader(&worker_survey_);

    Reconciler::Options options;
    options.node = node;
    options.data_dir = folder_.path;
    options.run_dir = folder_.run;
    options.host_socket = folder_.run + "/host";
    options.call_socket = folder_.run + "/calls";
    options.modules_dir = config_.modules_dir;
    options.modules_access = modules_ ? "/proc/self/fd/" + std::to_string(modules_.get()) : config_.modules_dir;
    options.development = config_.discovery_development;
    options.privileged = folder_.privileged;
    options.gid = folder_.gid;
    options.first_uid = uids_.range.first;
    options.last_uid = uids_.range.last;
    options.migration_limits.statement_timeout = config_.migration_timeout;
    options.migration_limits.under_way = &migrating_;
    options.flags = HostFlags(*flags_->current());
    options.clients = config_.clients;
    for (const auto& [name, settings] : config_.modules) options.settings[name] = {settings.enabled, settings.config_json};
    options.not_started = config_.disable;
    reconciler_ = std::make_unique<Reconciler>(loop_, pool_, *spawner_, *registry_, *database_, *secrets_, publisher_, clock_,
                                              options);
    reconciler_->OnChange([this] { ShowStatus(); });
    reconciler_->OnStuck([this](const std::string& worker) { report_.Stuck(worker); });
    reconciler_->OnWorkerLeaving([this](const std::string& instance) { jobs_->WorkerLeaving(instance); });
    reconciler_->OnWorkerGone([this](const std::string& instance) { jobs_->WorkerGone(instance); });

    logs_ = std::make_unique<ModuleLogs>(clock_, ModuleLogs::Options{folder_.path + "/logs", {config_.log_files, config_.log_file_size}});
    reconciler_->OnPrinted([this](const PrintedLine& line) {
      ModuleLine read = ReadModuleLine(line.text);
      const LogStream stream = StreamOf(line.stream);
      if (stream == LogStream::kSupervisor) read.level = LogLevel::kWarn;
      LogModuleLine(line.module, line.stream, read);
      logs_->Append({line.module, line.instance, line.slot}, stream, std::move(read));
    });
    reconciler_->OnDeleted([this](const std::string& module, bool purge, std::function<void(absl::Status)> done) {
      logs_->Deleted(module, purge, [this, module, purge, done](const absl::Status& logs) {
        const auto answer = [this, done, logs](absl::Status files) { loop_.Post([done, logs, files] { done(logs.ok() ? files : logs); }); };
        if (!purge) return answer(absl::OkStatus());
        const bool taken = files_->Run([this, module, answer] { answer(files_->Purge(module)); });
        if (!taken) answer(absl::UnavailableError("the supervisor has too much to do with files"));
      });
    });
    reconciler_->OnFiles([this](const Manifest& manifest) { return files_->Usage(manifest.name, FilesAsked(manifest)); });

    auto host = HostServer::Listen(options.host_socket, options.flags);
    if (!host.ok()) return FailStart(host.status());
    host_ = *std::move(host);
    host_->OnEnqueue([this](const std::string& module, HostEnqueue run, HostServer::Enqueued done) {
      jobs_->Enqueue(module, {run.job, run.payload_json, run.delay, run.unique_key, run.priority}, [done = std::move(done)](absl::StatusOr<Enqueued> queued) {
        queued.ok() ? done(absl::OkStatus(), queued->id, !queued->fresh) : done(queued.status(), "", false);
      });
    });
    host_->ServeCache(cache_->shared());
    host_->ServeFiles(*files_);
    host_->OnPublish([this](auto e, auto done) { events_->Publish({e.module, e.topic, e.key, e.payload_json}, std::move(done)); });
    static_assert(limits::kMaxArtifactBytes == limits::kMaxUpload);
    host_->OnArtifact([this](HostArtifact file, HostServer::ArtifactDone done) {
      ArtifactUpload upload{file.run_id, file.fence, file.name, file.content_type, std::move(file.data)};
      jobs_->KeepArtifact(file.module, std::move(upload), [done = std::move(done)](const absl::StatusOr<Artifact>& kept) { done(kept.status()); });
    });
    host_->OnNotify([this](HostServer::Notice notice, const HostServer::NoticeDone& done) {
      const bool taken = pool_.Submit([this, notice = std::move(notice), done] { done(notifier_->Queue(notice.module, notice.channel, notice.message_json)); });
      if (!taken) done(absl::UnavailableError("The supervisor is too busy; try again later."));
    });
    if (absl::Status listens = gateway_->ListenForModules(options.call_socket); !listens.ok()) return FailStart(listens);
    reconciler_->OnInstances([this](const std::string& token, const std::shared_ptr<const Manifest>& manifest, bool present) {
      files_->SetInstance(token, manifest->name, FilesAsked(*manifest), present);
      host_->SetInstance(token, manifest->name, present);
      gateway_->SetInstance(token, present ? manifest : nullptr);
    });

    flags_->OnChange([this](const std::shared_ptr<const FlagSet>& flags) {
      host_->SetFlags(HostFlags(*flags));
      reconciler_->SetFlags(HostFlags(*flags));
    });

    records_ = std::make_unique<Records>(*database_, *secrets_, pool_, node);
    migrations_ = std::make_unique<ModuleMigrations>(*database_, *registry_, folder_.path, options.migration_limits);
    auto admin = Admin::Serve(config_.admin_listen, {*authenticator_, *accounts_, *reconciler_, *jobs_, pool_, clock_, node_,
                                                     *migrations_, *flags_, *records_, *logs_, events_->queries(),
                                                     {&worker_survey_, &gateway_->meters(), &job_meters_, database_.get(), tracer_.get(),
                                                      access_log_.get(), &cache_->shared()}, files_.get()}, std::move(given_grpc_));
    if (!admin.ok()) return FailStart(admin.status());
    admin_ = *std::move(admin);
    authenticator_->Start();
    reload_ = std::make_unique<Reload>(Reload::Parts{loop_, pool_, *flags_, *registry_, *authenticator_, *database_, *reconciler_, *notified_jobs_,
                                                     node}, reread_, config_, jwt_keys_);
    FollowStore();
    gateway_->Start(*authenticator_, *admin_, {tracer_.get(), access_log_.get()});
    jobs_->Start();
    events_->Start();
    LogInfo("daemon", "serving", {{"http", gateway_->address()}, {"grpc", admin_->address()}, {"data", folder_.path}});
    reconciler_->Boot([this](absl::Status status, std::vector<Reconciler::BootFailure> failures) {
      if (!status.ok()) return FailStart(status);
      Ready(failures);
    });
  }

  // A private database is no other node's.
  Cache::Options CacheOptions(const std::string& node) const {
    return {size_t(config_.cache_bytes), size_t(config_.cache_bytes_per_module), config_.store_url.empty() ? "" : database_->conninfo(), master_key_,
            config_.cache_on_redis ? ParseRedisUrl(config_.cache_redis) : std::nullopt, node, folder_.path + "/cache.in-redis"};
  }

  // What other nodes change of tokens, users, roles and flags is read, and when tokens were used is written.
  void FollowStore() {
    if (stopping_) return;
    const bool queued = pool_.Submit([this] {
      authenticator_->Upkeep(false);
      flags_->Follow();
      loop_.Post([this] { loop_.After(limits::kStorePoll, [this] { FollowStore(); }); });
    });
    if (!queued) loop_.After(limits::kStorePoll, [this] { FollowStore(); });
  }

  void Ready(const std::vector<Reconciler::BootFailure>& failures) {
    for (const auto& failure : failures) {
      Log(failure.critical ? LogLevel::kError : LogLevel::kWarn, "daemon",
          failure.critical ? "a critical module did not start" : "a module did not start",
          {{"module", failure.module}, {"reason", failure.message}});
      if (failure.critical && config_.critical_failure_exits) exit_code_ = kExitCriticalModule;
    }
    if (exit_code_ != 0) return Shutdown();
    node_.ready = true;
    service_.Ready(StatusText());
    if (reload_wanted_) ReadAgain();
    // The other terminal is the user's own when we were started through sudo; a machine where root logs in may have no sudo.
    const bool sudo = folder_.privileged && getenv("SUDO_USER");
    Greet("http://" + gateway_->address(), (sudo ? "sudo cat " : "cat ") + folder_.path + "/admin.token",
          publisher_.current()->modules.contains("consumption-monitor"));
  }

  // ---- what a service manager sees ----

  std::string StatusText() const {
    const Reconciler::Tally tally = reconciler_->Count();
    std::string text = std::to_string(tally.running) + " of " + std::to_string(tally.wanted) + " modules run";
    for (size_t i = 0; i < tally.not_running.size(); ++i) text += (i == 0 ? "; not running: " : ", ") + tally.not_running[i];
    return text;
  }

  // Several changes of one turn are one.
  void ShowStatus() {
    if (std::exchange(status_due_, true)) return;
    loop_.Post([this] {
      status_due_ = false;
      if (!reloading_) service_.Status((stopping_ ? "stopping: " : node_.ready ? "" : "starting: ") + StatusText());
    });
  }

  // SIGHUP.
  void ReadAgain() {
    reload_wanted_ = !node_.ready;  // after the boot then
    if (stopping_ || reload_wanted_) return;
    reloading_ = true;
    service_.Reloading();
    reload_->Run([this](const std::string& outcome) {
      reloading_ = false;
      if (!stopping_) service_.Ready(outcome + "; " + StatusText());
    });
  }

  // ---- the end ----

  void FailStart(const absl::Status& status) {
    std::string text(status.message());
    for (const ErrorDetail& detail : ErrorDetails(status))
      text += "\n  " + (detail.path.empty() ? "" : detail.path + ": ") + detail.message;
    fprintf(stderr, "bulkhead: %s\n", text.c_str());
    exit_code_ = kExitStartFailed;
    Shutdown();
  }

  void OnSignal() {
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGHUP) {
        ReadAgain();
      } else if (!stopping_) {
        LogInfo("daemon", "stopping", {{"signal", strsignal(static_cast<int>(info.ssi_signo))}});
        Shutdown();
      } else if (!hastened_) {
        Hasten();
      } else {
        LogWarn("daemon", "third signal: leaving at once");
        Leave();
      }
    }
  }

  // Stop claiming jobs and delivering events, unroute and stop modules dependents first, close the front doors, stop PostgreSQL.
  void Shutdown() {
    if (stopping_) return;
    stopping_ = true;
    node_.stopping = true;
    node_.ready = false;
    deadline_ = clock_.Now() + limits::kShutdownBudget;
    service_.Stopping("stopping");
    loop_.After(limits::kShutdownBudget, [this] {
      LogWarn("shutdown", "the budget is spent: killing what is left");
      report_.Because("the end of the time for a shutdown");
      Leave();
    });
    if (!reconciler_) return StopPostgres();
    const auto stopped = [this, left = std::make_shared<int>(2)] {
      if (--*left > 0) return;
      work_stopped_ = true;
      StopModules();
      CloseDoors();
    };
    jobs_->Stop(kWorkGrace, stopped);
    events_->Stop(kWorkGrace, stopped);
  }

  void StopModules() {
    if (std::exchange(modules_stopping_, true)) return;
    Millis left = std::chrono::ceil<Millis>(deadline_ - clock_.Now());
    reconciler_->StopAll(hastened_ ? Millis(0) : left - std::min(left / 3, Millis(8'000)), [this] {
      modules_stopped_ = true;
      CloseDoors();
    });
  }

  // A second signal: in the same order, but nobody is given time.
  void Hasten() {
    LogWarn("daemon", "second signal: killing what is left");
    hastened_ = true;
    report_.Because("a second signal");
    loop_.After(limits::kHastenedBudget, [this] { Leave(); });
    if (!reconciler_) return;
    if (modules_stopping_) {
      reconciler_->Hasten();
    } else {
      StopModules();
    }
  }

  // The kernel has killed our children with it. Nothing can be started or ended any more, so the daemon ends, too.
  void SpawnerLost(const std::string& how) {
    LogError("daemon", "the spawner process has ended; the supervisor can't go on without it and ends", {{"spawner", how}});
    exit_code_ = kExitSpawnerLost;
    lost_ = true;
    loop_.After(limits::kSpawnerLostBudget, [this] { Leave(); });
    const bool was_stopping = std::exchange(stopping_, true);
    node_.stopping = true;
    node_.ready = false;
    service_.Stopping("the spawner process has ended");
    if (!reconciler_) return Leave();
    if (was_stopping) report_.LeftBehind(reconciler_->Left());
    work_stopped_ = modules_stopped_ = hastened_ = true;  // as far as they ever will be
    CloseDoors();
  }

  void CloseDoors() {
    if (!work_stopped_ || !modules_stopped_ || std::exchange(doors_closing_, true)) return;
    closer_ = std::thread([this, grace = hastened_ ? Millis(0) : kDrainGrace] {
      if (admin_) admin_->EndStreams();
      if (gateway_ && admin_) gateway_->Stop(grace);
      authenticator_->Close();  // nobody waits any more for a token to be verified
      if (admin_) admin_->Stop(grace);
      accounts_->Close();
      if (!lost_) authenticator_->Upkeep(true);
      if (host_) host_->Stop();
      if (files_) files_->Close();
      if (logs_) logs_->Close();
      access_log_->Stop();
      tracer_->Stop(limits::kExportFlush);
      loop_.Post([this] { StopPostgres(); });
    });
  }

  void StopPostgres() {
    if (closer_.joinable()) closer_.join();
    if (lost_) return Leave();
    pool_.Shutdown();
    if (!postgres_) return Finished();
    postgres_->Stop([this] { Finished(); });
  }

  // Work on the pool, such as a migration on somebody else's server, may not be done yet. It is waited for here, where the budget
  // and a second signal still count: the destructor would wait for as long as it takes.
  void Finished() {
    if (!pool_.Idle()) {
      if (hastened_ && (work_left_ -= kIdlePoll) <= Millis(0)) return Leave();
      loop_.After(kIdlePoll, [this] { Finished(); });
      return;
    }
    // What is stuck keeps the spawner: the destructor would wait for it.
    leaves_at_once_ = report_.something_stuck();
    SayStopped();
    loop_.Stop();
  }

  // The last line of the log.
  void SayStopped() {
    if (report_.empty()) {
      LogInfo("daemon", exit_code_ == kExitSpawnerLost ? "ended without its spawner" : "stopped", {{"exit", std::to_string(exit_code_)}});
      return;
    }
    if (exit_code_ == 0) exit_code_ = kExitKilled;
    LogWarn("daemon", "stopped, but not everything ended by itself",
            {{"exit", std::to_string(exit_code_)}, {"modules", report_.modules()}, {"killed", report_.processes()}, {"left", report_.left()}});
  }

  // Nothing is waited for any more: the process ends, and the spawner, which kills every tree when it sees that, cleans up behind it.
  void Leave() {
    if (std::exchange(leaves_at_once_, true)) return;
    if (lost_) {
      // Not as root: what its death did not kill, because it had a process group and parents of its own, can be ended from here.
      EndLeftovers({.folder = folder_.instances, .predecessor = Millis(0), .graceful = limits::kKillPatience, .killed = limits::kKillPatience});
    } else {
      if (reconciler_) report_.LeftBehind(reconciler_->Left());
      if (report_.empty()) report_.LeftBehind({"blocking work"});
    }
    SayStopped();
    loop_.Stop();
  }

 public:
  bool leaves_at_once() const { return leaves_at_once_; }

 private:
  const Config config_;  // of the start; reload_ has the one in force
  const RereadConfig reread_;
  const Clock& clock_ = Clock::Real();
  DataFolder folder_;
  const UidClaim uids_;
  const std::vector<VerificationKey> jwt_keys_;  // read before the privilege drop
  UniqueFd modules_;  // the modules directory, opened before the privilege drop
  UniqueFd signals_;
  UniqueFd given_grpc_;  // a socket of the service manager, until it is served
  NodeStatus node_;
  std::atomic<int> migrating_{0};
  Loop loop_;
  Service service_;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<PrivatePostgres> postgres_;
  std::unique_ptr<Database> database_;
  std::string master_key_;
  std::unique_ptr<Registry> registry_;
  std::unique_ptr<SecretBox> secrets_;
  std::unique_ptr<Flags> flags_;
  std::unique_ptr<Records> records_;
  std::unique_ptr<ModuleMigrations> migrations_;
  std::unique_ptr<CredentialStore> credentials_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<Accounts> accounts_;
  JobMeters job_meters_;
  WorkerSurvey worker_survey_{clock_};
  std::unique_ptr<Tracer> tracer_;
  std::unique_ptr<AccessLog> access_log_;
  DirectoryPublisher publisher_{loop_};
  std::unique_ptr<ModuleLogs> logs_;
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<Notifier> notifier_;
  std::unique_ptr<Jobs> jobs_;
  std::unique_ptr<WithNotifications> notified_jobs_;
  std::unique_ptr<Events> events_;
  std::unique_ptr<Cache> cache_;
  std::unique_ptr<FileStore> files_;
  std::unique_ptr<HostServer> host_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Reload> reload_;
  BlockingPool pool_;  // last: its threads use what stands above, and are joined first
  std::thread closer_;
  Instant deadline_{};
  ShutdownReport report_;
  bool status_due_ = false, reload_wanted_ = false, reloading_ = false;
  bool stopping_ = false, hastened_ = false, lost_ = false, leaves_at_once_ = false;
  Millis work_left_ = limits::kHastenedWork;  // of blocking work, once hastened
  bool work_stopped_ = false, modules_stopping_ = false, modules_stopped_ = false, doors_closing_ = false;
  int exit_code_ = 0;
};

absl::StatusOr<std::unique_ptr<Daemon>> Make(Config config, RereadConfig reread) {
  umask(022);
  signal(SIGHUP, SIG_IGN);  // who reads the configuration for the first time need not be told to read it again
  const ServiceEnvironment environment = ServiceEnvironment::Take();
  ASSIGN_OR_RETURN(ServedSockets given, SocketsOf(environment));
  RaiseFileLimit();
  ASSIGN_OR_RETURN(std::vector<VerificationKey> jwt_keys, ReadKeyFiles(config.jwt));
  RETURN_IF_ERROR(ReadSecretFiles(config));
  // The ports first: when one is taken, nothing is made.
  if (!given.grpc) RETURN_IF_ERROR(Admin::CheckListen(config.admin_listen));
  int threads = std::clamp(UsableCpus(), 1, kMaxGatewayThreads);
  ASSIGN_OR_RETURN(std::unique_ptr<Gateway> gateway, Gateway::Listen({config.listen, threads, std::move(given.http)}, Clock::Real()));
  ASSIGN_OR_RETURN(DataFolder folder, OpenDataFolder(config.data));
  // Before any thread, and while we still are who we were started as.
  EndLeftovers({.folder = folder.instances});  // of an earlier life, should daemon and spawner have been killed at once
  ASSIGN_OR_RETURN(UidClaim uids, ModuleUids(config, folder));
  ASSIGN_OR_RETURN(std::unique_ptr<Spawner> spawner, Spawner::Fork(SpawnerOptions(config, folder, uids)));
  ASSIGN_OR_RETURN(UniqueFd signals, BlockSignals());
  UniqueFd modules(open(config.modules_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!modules) LogWarn("daemon", "no modules directory", {{"folder", config.modules_dir}, {"reason", strerror(errno)}});
  RETURN_IF_ERROR(DropPrivileges(folder));
  return std::make_unique<Daemon>(config, std::move(reread), std::move(folder), std::move(uids), std::move(spawner), std::move(gateway),
                                  std::move(modules), std::move(signals), std::move(jwt_keys), environment, std::move(given.grpc));
}

}  // namespace

int RunDaemon(const Config& config, RereadConfig reread) {
  auto daemon = Make(config, std::move(reread));
  if (!daemon.ok()) {
    fprintf(stderr, "bulkhead: %s\n", std::string(daemon.status().message()).c_str());
    return kExitStartFailed;
  }
  int code = (*daemon)->Run();
  if ((*daemon)->leaves_at_once()) _exit(code);
  return code;
}

}  // namespace bulkhead
