#include "supervisor/notify/notifier.h"

#include <atomic>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/notify/delivery.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxWaiting = 64;        // for a thread; the jobs send no more than limits::kMaxRunsPerWorker
constexpr Millis kRunMargin{10'000};      // of a run beyond the timeout of its channel
constexpr size_t kMaxMessage = 256 * 1024;
constexpr char kSmtp[] = "smtp";
constexpr char kWebhook[] = "webhook:";

// Why queue_notification() refused, as the host API answers (host/v1/notifications.proto).
absl::Status NotQueued(const absl::Status& why) {
  const std::string state = SqlState(why);
  const auto details = ErrorDetails(why);
  const std::string sentence = details.empty() ? "" : details[0].message.substr(0, details[0].message.find(" (PL/pgSQL"));
  if (state == "42501") return absl::PermissionDeniedError(sentence);
  if (state == "22023") return absl::InvalidArgumentError(sentence);
  if (state == "53400") return absl::ResourceExhaustedError(sentence);
  if (absl::StartsWith(state, "22")) return absl::InvalidArgumentError("the message is not JSON that the database can keep");
  return why;
}

JobSpec SpecOf(const std::string& channel, Millis timeout) {
  JobSpec spec;
  spec.name = channel;
  spec.timeout = timeout + kRunMargin;
  spec.concurrency = limits::kNotificationsAtOnce;
  spec.history_count = limits::kNotificationHistory;
  return spec;
}

class Sending : public JobCall {
 public:
  void Cancel() override { cancelled = true; }
  std::atomic<bool> cancelled{false};
};

}  // namespace

// The worker of that module: its runs are attempts to send. Thread-safe.
class Notifier::Port : public ControlPort {
 public:
  Port(Database& database, const Clock& clock) : database_(database), clock_(clock), pool_(limits::kNotificationThreads, kMaxWaiting) {}
  ~Port() override { Stop(); }

  void Configure(std::shared_ptr<const NotificationSettings> settings) {
    std::lock_guard lock(mutex_);
    settings_ = std::move(settings);
  }

  void Stop() {
    stopping_ = true;
    pool_.Shutdown();
  }

  std::shared_ptr<JobCall> RunJob(const module::v1::RunJobRequest& request, Millis, std::function<void(const module::v1::RunJobUpdate&)> update,
                                  std::function<void(absl::Status)> done) override {
    auto sending = std::make_shared<Sending>();
    const int64_t fence = request.fence();
    With([&](auto& fences) { fences.insert(fence); });
    const bool taken = pool_.Submit([this, sending, fence, id = request.run_id(), channel = request.job(), update, done] {
      if (!sending->cancelled && !stopping_) update(Send(id, channel, [&] { return sending->cancelled || stopping_; }));
      With([&](auto& fences) { fences.erase(fence); });
      // Cancelled or not: what came of it has been said, and a run without that is begun again.
      done(stopping_ ? absl::UnavailableError("the supervisor stops") : absl::OkStatus());
    });
    if (!taken) {
      With([&](auto& fences) { fences.erase(fence); });
      done(absl::UnavailableError("the supervisor stops"));
    }
    return sending;
  }
  void RunningJobs(Millis, Done<module::v1::RunningJobsResponse> done) override {
    module::v1::RunningJobsResponse response;
    With([&](auto& fences) {
      for (int64_t fence : fences) response.add_fences(fence);
    });
    done(absl::OkStatus(), std::move(response));
  }
  // A module that was never started and is never asked.
  void Initialize(const module::v1::InitializeRequest&, Millis, Done<module::v1::InitializeResponse> done) override { done(Never(), {}); }
  void Start(Millis, Done<module::v1::StartResponse> done) override { done(Never(), {}); }
  void Stop(Millis, Done<module::v1::StopResponse> done) override { done(Never(), {}); }
  void Health(Millis, Done<module::v1::HealthResponse> done) override { done(Never(), {}); }
  void Metrics(Millis, Done<module::v1::MetricsResponse> done) override { done(Never(), {}); }
  void Configure(const module::v1::ConfigureRequest&, Millis, Done<module::v1::ConfigureResponse> done) override { done(Never(), {}); }
  void DeliverEvents(const module::v1::DeliverEventsRequest&, Millis, Done<module::v1::DeliverEventsResponse> done) override { done(Never(), {}); }

 private:
  static absl::Status Never() { return absl::UnimplementedError("the supervisor's own"); }

  template <typename Use>
  void With(Use use) {
    std::lock_guard lock(mutex_);
    use(fences_);
  }

  std::shared_ptr<const NotificationSettings> settings() {
    std::lock_guard lock(mutex_);
    return settings_;
  }

  module::v1::RunJobUpdate Send(const std::string& id, const std::string& channel, const std::function<bool()>& stopped) {
    auto rows = database_.Run("SELECT module, message::text AS message FROM bulkhead_internal.notifications WHERE run_id = $1::uuid", {id});
    if (!rows.ok()) return Failure("DATABASE_UNAVAILABLE", std::string(rows.status().message()), true);
    if (rows->size() == 0) return Failure("NOTIFICATION_LOST", "The notification is not in the database any more.", false);
    const Notification notification{id, rows->Text(0, "module"), rows->Text(0, "message")};
    const auto now = settings();
    const auto webhook = channel == kSmtp ? now->webhooks.end() : now->webhooks.find(channel.substr(sizeof kWebhook - 1));
    if (channel == kSmtp ? !now->smtp : webhook == now->webhooks.end())
      return Failure("NOTIFICATION_FAILED", "The channel is not configured any more; the notification waits for it.", true);
    Delivered delivered = channel == kSmtp ? SendMail(*now->smtp, notification, clock_.Wall(), stopped)
                                           : CallWebhook(webhook->second, channel, notification, clock_.Wall(), stopped);
    // A server may say again what it was sent.
    delivered.message = MaskSecrets(delivered.message, channel == kSmtp ? SecretTexts(*now->smtp) : SecretTexts(webhook->second));
    const std::string status = std::to_string(delivered.status);
    if (delivered.kind == Delivered::Kind::kSent) {
      LogInfo("notify", "a notification was sent", {{"module", notification.module}, {"channel", channel}, {"run", id}, {"status", status}});
      module::v1::RunJobUpdate update;
      update.mutable_result()->set_result_json(nlohmann::json({{"status", delivered.status}}).dump());
      return update;
    }
    LogWarn("notify", "a notification was not sent",
            {{"module", notification.module}, {"channel", channel}, {"run", id}, {"status", status}, {"error", delivered.message}});
    const bool refused = delivered.kind == Delivered::Kind::kRefused;
    return Failure(refused ? "NOTIFICATION_REFUSED" : "NOTIFICATION_FAILED", delivered.message, !refused);
  }

  static module::v1::RunJobUpdate Failure(const char* code, const std::string& message, bool retryable) {
    module::v1::RunJobUpdate update;
    update.mutable_error()->set_code(code);
    update.mutable_error()->set_message(message);
    update.mutable_error()->set_retryable(retryable);
    return update;
  }

  Database& database_;
  const Clock& clock_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::shared_ptr<const NotificationSettings> settings_;  // under mutex_, as what follows
  std::set<int64_t> fences_;                              // of attempts that have not ended
  BlockingPool pool_;
};

Notifier::Notifier(Database& database, const Clock& clock, NotificationSettings settings)
    : database_(database), port_(std::make_shared<Port>(database, clock)) {
  Configure(std::move(settings));
}

void Notifier::Configure(NotificationSettings settings) {
  auto manifest = std::make_shared<Manifest>();
  manifest->name = kNotificationModule;
  if (settings.smtp) manifest->jobs.push_back(SpecOf(kSmtp, settings.smtp->timeout));
  for (const auto& [name, webhook] : settings.webhooks) manifest->jobs.push_back(SpecOf(kWebhook + name, webhook.timeout));
  port_->Configure(std::make_shared<const NotificationSettings>(std::move(settings)));
  module_ = nullptr;
  if (manifest->jobs.empty()) return;
  auto module = std::make_shared<DirectoryModule>();
  module->name = kNotificationModule;
  module->manifest = std::move(manifest);
  DirectoryWorker worker;
  worker.instance = kNotificationModule;
  worker.control = port_;
  worker.faulty = [](WorkerFault, const std::string& why) { LogError("notify", "the sender of notifications hangs", {{"why", "it " + why}}); };
  module->workers.push_back(std::move(worker));
  module_ = std::move(module);
}

Notifier::~Notifier() { port_->Stop(); }

absl::StatusOr<std::string> Notifier::Queue(const std::string& module, const std::string& channel, const std::string& message_json) {
  if (message_json.size() > 2 * kMaxMessage) return absl::InvalidArgumentError("the message has more than 262144 bytes as JSON");
  auto rows = database_.Run("SELECT bulkhead_internal.queue_notification($1, $2, $3::jsonb) AS run", {module, channel, message_json});
  if (!rows.ok()) return NotQueued(rows.status());
  return rows->Text(0, "run");
}

void WithNotifications::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  directory_ = directory;
  const auto module = notifier_.module();
  if (module == nullptr) return jobs_.Adopt(std::move(directory), std::move(adopted));
  auto more = std::make_shared<Directory>(*directory);
  more->modules[module->name] = module;
  jobs_.Adopt(std::move(more), std::move(adopted));
}

void WithNotifications::Configure(NotificationSettings settings) {
  notifier_.Configure(std::move(settings));
  if (directory_ != nullptr) Adopt(directory_, [] {});
}

}  // namespace bulkhead
