#include "host_context.h"

#include <algorithm>
#include <stdexcept>

#include "cache_watch.h"
#include "json_text.h"

namespace bulkhead::sdk {
namespace {
constexpr int kDefaultWorkers = 8;
constexpr int kDefaultWaiting = 1'024;
constexpr size_t kMaxInstruments = 1'000;

std::string MessageOf(const Notification& notification) {
  Json message = Json::object();
  if (!notification.to.empty()) message["to"] = notification.to;
  if (!notification.subject.empty()) message["subject"] = notification.subject;
  if (!notification.text.empty()) message["text"] = notification.text;
  if (!notification.html.empty()) message["html"] = notification.html;
  if (!notification.data.is_null()) message["data"] = notification.data;
  return Dump(message);
}
}  // namespace

HostContext::HostContext(Facts facts, Json config, int64_t revision)
    : facts_(std::move(facts)),
      host_(facts_.host_socket, facts_.token),
      files_(facts_.host_socket, facts_.token),
      calls_(facts_.call_socket, facts_.token),
      cache_([this](LevelOne& one) { return facts_.host_socket.empty() ? MakeNoLevelTwo(one) : MakeHostLevelTwo(facts_.host_socket, facts_.token, one); },
             SteadyNow),
      config_(std::move(config)),
      revision_(revision),
      flags_(facts_.flags),
      worker_threads_(kDefaultWorkers),
      max_waiting_(kDefaultWaiting) {
  for (const ClientSettings& settings : facts_.clients) clients_.emplace(settings.name, std::make_unique<ServiceClient>(settings));
  events_.Connect([this](std::string_view topic, std::string_view key, const std::string& payload_json) { return host_.Publish(topic, key, payload_json); });
  if (facts_.conninfo.empty()) return;
  database_ = std::make_unique<Database>(facts_.conninfo);
  health_.Add("database", [this] {
    database_->Ping();
    return HealthResult{};
  });
}

Json HostContext::config() const {
  std::lock_guard lock(config_mutex_);
  return config_;
}

int64_t HostContext::config_revision() const {
  std::lock_guard lock(config_mutex_);
  return revision_;
}

bool HostContext::flag(std::string_view name, bool fallback) const {
  std::lock_guard lock(flags_mutex_);
  auto found = flags_.find(FlagVariable(name));
  return found == flags_.end() ? fallback : found->second.enabled;
}

bool HostContext::flag_for(std::string_view name, std::string_view identity, bool fallback) const {
  std::lock_guard lock(flags_mutex_);
  auto found = flags_.find(FlagVariable(name));
  return found == flags_.end() ? fallback : FlagOnFor(found->second, name, identity);
}

std::vector<std::string> HostContext::ReplaceFlags(FlagStates flags) {
  std::lock_guard lock(flags_mutex_);
  std::vector<std::string> changed;
  for (const auto& [variable, state] : flags) {
    auto before = flags_.find(variable);
    if (before == flags_.end() || before->second != state) changed.push_back(variable);
  }
  for (const auto& [variable, state] : flags_) {
    if (!flags.contains(variable)) changed.push_back(variable);
  }
  flags_ = std::move(flags);
  return changed;
}

Database& HostContext::database() {
  if (!database_) throw ConfigError("this module uses a database, but its manifest has no `database`");
  return *database_;
}

ServiceClient& HostContext::client(std::string_view name) {
  const auto found = clients_.find(name);
  if (found != clients_.end()) return *found->second;
  throw ConfigError("there is no client \"" + std::string(name) +
                    "\": `capabilities.clients` of the manifest has to name it, and `clients` of the supervisor's configuration");
}

std::vector<CheckReport> HostContext::CheckClients() const {
  std::vector<CheckReport> checks;
  for (const auto& [name, client] : clients_) {
    const bool closed = client->breaker() == BreakerState::kClosed;
    HealthResult result;
    if (!closed) result = {HealthStatus::kDegraded, "it has failed too often, and is not asked for the moment"};
    checks.push_back({"client:" + name, std::move(result), 0});
  }
  return checks;
}

EnqueuedRun HostContext::Enqueue(std::string_view job, const Json& payload, const EnqueueOptions& options) {
  return host_.Enqueue(job, Dump(payload), options);
}

std::string HostContext::Enqueue(Transaction& transaction, std::string_view job, const Json& payload, const EnqueueOptions& options) {
  const Rows rows = transaction.Query("SELECT bulkhead.enqueue($1, $2::jsonb, $3::float8 * interval '1 second', $4, $5::int) AS id",
                                      {Param(job), Param(Dump(payload)), Param(static_cast<double>(options.delay.count()) / 1000),
                                       Param(options.unique_key), Param(options.priority)});
  return rows[0].Get<std::string>("id");
}

std::string HostContext::Notify(const Notification& notification) { return host_.Notify(notification.channel, MessageOf(notification)); }

std::string HostContext::Notify(Transaction& transaction, const Notification& notification) {
  const Rows rows = transaction.Query("SELECT bulkhead.notify($1, $2::jsonb) AS id", {Param(notification.channel), Param(MessageOf(notification))});
  return rows[0].Get<std::string>("id");
}

void HostContext::AddHealthCheck(std::string name, HealthCheck check) {
  RequireOpen("health checks");
  health_.Add(std::move(name), std::move(check));
}

Counter& HostContext::counter(std::string name) {
  RequireOpen("counters");
  if (counters_.size() >= kMaxInstruments || gauges_.contains(name))
    throw std::invalid_argument("counter " + name + ": more than 1,000, or a gauge already");
  return counters_[std::move(name)];
}

Gauge& HostContext::gauge(std::string name) {
  RequireOpen("gauges");
  if (gauges_.size() >= kMaxInstruments || counters_.contains(name))
    throw std::invalid_argument("gauge " + name + ": more than 1,000, or a counter already");
  return gauges_[std::move(name)];
}

void HostContext::SetWorkers(int threads, int max_waiting) {
  RequireOpen("workers");
  if (threads < 1 || threads > 256 || max_waiting < 1 || max_waiting > 65'536) {
    throw std::invalid_argument("SetWorkers takes 1 to 256 threads and 1 to 65,536 waiting requests");
  }
  worker_threads_ = threads;
  max_waiting_ = max_waiting;
}

void HostContext::RequireOpen(const char* what) const {
  if (frozen_) throw std::logic_error(std::string(what) + " are registered in Initialize only");
}

void HostContext::Freeze() {
  frozen_ = true;
  router_.Freeze();
  jobs_.Freeze();
  events_.Freeze();
  cache_.Freeze();
}

void HostContext::Replace(Json config, int64_t revision) {
  std::lock_guard lock(config_mutex_);
  config_ = std::move(config);
  revision_ = revision;
}

void HostContext::Close() {
  cache_.Close();
  if (database_) database_->Close();
}

void HostContext::Collect(std::map<std::string, double>& custom) const {
  for (const auto& [name, counter] : counters_) custom[name] = counter.value();
  for (const auto& [name, gauge] : gauges_) custom[name] = gauge.value();
  for (const auto& [name, client] : clients_) {
    std::string prefix = "client_" + name + "_";
    std::replace(prefix.begin(), prefix.end(), '-', '_');
    const ServiceClient::Counts counts = client->counts();
    custom[prefix + "calls"] = static_cast<double>(counts.calls);
    custom[prefix + "failures"] = static_cast<double>(counts.failures);
    custom[prefix + "retries"] = static_cast<double>(counts.retries);
    custom[prefix + "refused"] = static_cast<double>(counts.refused);
    custom[prefix + "seconds"] = counts.seconds;
    custom[prefix + "breaker"] = static_cast<double>(client->breaker());
  }
}

}  // namespace bulkhead::sdk
