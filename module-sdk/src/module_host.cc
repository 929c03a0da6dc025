#include "module_host.h"

#include <unistd.h>

#include <algorithm>

#include "host_client.h"
#include "json_text.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {
constexpr int kExitConfiguration = 125;
constexpr int kExitFailure = 1;
// Of the time that Stop has, what in-flight work may take at most; the rest is Module::Stop's.
constexpr int kDrainPercent = 70;
// And what handlers may take to notice that they were cut off.
constexpr int kCancelPercent = 10;
// What the clients of WebSockets may take to answer a Close; then as long again to read what is queued.
constexpr int kSocketPercent = 20;
constexpr std::chrono::milliseconds kMaxSocketWait{1'000};

grpc::Status OutOfOrder(const char* sentence) { return {grpc::StatusCode::ABORTED, sentence}; }

pb::HealthStatus ToProto(HealthStatus status) {
  switch (status) {
    case HealthStatus::kHealthy: return pb::HEALTHY;
    case HealthStatus::kDegraded: return pb::DEGRADED;
    case HealthStatus::kUnhealthy: return pb::UNHEALTHY;
  }
  return pb::UNHEALTHY;
}

ClientSettings SettingsOf(const pb::ServiceClient& client) {
  using std::chrono::milliseconds;
  ClientSettings settings;
  const auto headers = [](const auto& map) { return Headers(map.begin(), map.end()); };
  settings.name = client.name();
  settings.base_url = client.base_url();
  settings.headers = headers(client.headers());
  settings.secret_headers = headers(client.secret_headers());
  settings.secret_query = headers(client.secret_query());
  settings.timeout = milliseconds(client.timeout_ms());
  settings.attempt_timeout = milliseconds(client.attempt_timeout_ms());
  settings.connect_timeout = milliseconds(client.connect_timeout_ms());
  settings.retries = client.retries();
  settings.breaker_failures = client.breaker().failures();
  settings.breaker_percent = client.breaker().percent();
  settings.breaker_window = milliseconds(client.breaker().window_ms());
  settings.breaker_open = milliseconds(client.breaker().open_ms());
  settings.max_connections = client.max_connections();
  settings.max_body = static_cast<size_t>(client.max_body());
  settings.ca_pem = client.ca_pem();
  return settings;
}

}  // namespace

ModuleHost::ModuleHost(std::unique_ptr<Module> module, std::vector<std::string> args, std::string token, int data_listener,
                       std::string host_socket, std::string call_socket)
    : module_(std::move(module)),
      args_(std::move(args)),
      token_(std::move(token)),
      host_socket_(std::move(host_socket)),
      call_socket_(std::move(call_socket)),
      data_listener_(data_listener) {}

ModuleHost::~ModuleHost() {
  if (data_listener_ >= 0) close(data_listener_);
}

// Runs an author's lifecycle function and says to the supervisor what it threw.
grpc::Status ModuleHost::Guard(const char* where, const std::function<void()>& call) {
  grpc::Status status;
  try {
    call();
    return status;
  } catch (const ConfigError& error) {
    exit_code_ = kExitConfiguration;
    status = {grpc::StatusCode::FAILED_PRECONDITION, Utf8(error.what())};
  } catch (const DatabaseError& error) {
    exit_code_ = kExitFailure;
    status = {error.transient() ? grpc::StatusCode::UNAVAILABLE : grpc::StatusCode::INTERNAL, Utf8(error.what())};
  } catch (const std::exception& error) {
    exit_code_ = kExitFailure;
    status = {grpc::StatusCode::INTERNAL, Utf8(error.what())};
  } catch (...) {
    exit_code_ = kExitFailure;
    status = {grpc::StatusCode::INTERNAL, "something that is no std::exception was thrown"};
  }
  log_.Error(std::string(where) + " failed", {{"error", status.error_message()}});
  state_ = State::kFailed;
  return status;
}

grpc::Status ModuleHost::Initialize(const pb::InitializeRequest& request) {
  if (state_ != State::kNew) return OutOfOrder("Initialize comes once, and first");
  Json config = request.config_json().empty() ? Json::object() : Json::parse(request.config_json(), nullptr, false);
  if (!config.is_object()) return {grpc::StatusCode::INVALID_ARGUMENT, "config_json is not a JSON object"};
  HostContext::Facts facts;
  facts.module = request.module();
  facts.version = request.version();
  facts.data_dir = request.data_dir();
  facts.schema = request.schema();
  facts.conninfo = request.conninfo();
  facts.slot = request.slot();
  facts.args = args_;
  facts.host_socket = host_socket_;
  facts.call_socket = call_socket_;
  facts.token = token_;
  facts.flags = FlagStatesOf(request.flags(), request.flag_rules());
  for (const pb::ServiceClient& client : request.clients()) facts.clients.push_back(SettingsOf(client));
  try {
    context_ = std::make_unique<HostContext>(std::move(facts), std::move(config), request.config_revision());
  } catch (const std::invalid_argument& wrong) {  // of a client
    return {grpc::StatusCode::INVALID_ARGUMENT, wrong.what()};
  }
  grpc::Status status = Guard("Initialize", [&] { module_->Initialize(*context_); });
  if (!status.ok()) return status;
  context_->Freeze();
  state_ = State::kInitialized;
  initialized_ = context_.get();
  return status;
}

grpc::Status ModuleHost::Start() {
  if (state_ != State::kInitialized) return OutOfOrder("Start comes once, after Initialize");
  grpc::Status status = Guard("Start", [&] {
    module_->Start();
    dispatcher_ = std::make_unique<Dispatcher>(context_->router(), context_->worker_threads(), size_t(context_->max_waiting()));
    link_ = std::make_unique<LinkServer>(std::exchange(data_listener_, -1), token_, *dispatcher_);
  });
  if (!status.ok()) return status;
  state_ = State::kStarted;
  started_ = dispatcher_.get();
  if (!host_socket_.empty()) {
    flags_ = std::make_unique<FlagWatch>(host_socket_, token_, [this](FlagStates flags) { FlagsChanged(std::move(flags)); });
  }
  return status;
}

void ModuleHost::FlagsChanged(FlagStates flags) {
  const std::vector<std::string> changed = context_->ReplaceFlags(std::move(flags));
  if (changed.empty()) return;
  try {
    module_->OnFlags(changed);
  } catch (const std::exception& error) {
    log_.Error("OnFlags failed", {{"error", error.what()}, {"type", TypeName(error)}});
  } catch (...) {
    log_.Error("OnFlags failed", {{"error", "something that is no std::exception was thrown"}});
  }
}

void ModuleHost::Configure(const pb::ConfigureRequest& request, pb::ConfigureResponse& response) {
  auto refuse = [&](std::string_view sentence) { response.mutable_refused()->set_message(Utf8(sentence)); };
  if (state_ != State::kInitialized && state_ != State::kStarted) return refuse("the module is not running");
  Json config = Json::parse(request.config_json(), nullptr, false);
  if (!config.is_object()) return refuse("config_json is not a JSON object");
  try {
    if (auto sentence = module_->OnConfigure(config, request.revision())) return refuse(*sentence);
  } catch (const std::exception& error) {
    return refuse(error.what());
  } catch (...) {
    return refuse("the module threw something that is no std::exception");
  }
  context_->Replace(std::move(config), request.revision());
  response.mutable_applied();
}

void ModuleHost::Stop(Clock::time_point deadline) {
  if (state_ == State::kStopped) return;
  bool initialized = state_ == State::kInitialized || state_ == State::kStarted;
  state_ = State::kStopped;
  auto now = Clock::now();
  auto budget = std::max(deadline - now, Clock::duration(0));
  auto drained_by = now + budget * kDrainPercent / 100;
  auto cancelled_by = drained_by + budget * kCancelPercent / 100;
  runs_.Interrupt();
  deliveries_.Interrupt();
  flags_.reset();
  if (link_) {
    auto socket_wait = std::chrono::duration_cast<std::chrono::milliseconds>(budget * kSocketPercent / 100);
    link_->BeginDrain(std::min(socket_wait, kMaxSocketWait));
    if (!link_->WaitIdle(drained_by)) {
      log_.Warn("requests that did not end in time are cut off");
      link_->CancelAll();
    }
    dispatcher_->pool().WaitIdle(cancelled_by);
  }
  runs_.WaitIdle(drained_by);
  runs_.Abandon();
  deliveries_.WaitIdle(drained_by);
  deliveries_.Abandon();
  if (initialized) {
    try {
      module_->Stop(deadline);
    } catch (const std::exception& error) {
      log_.Error("Stop failed", {{"error", error.what()}, {"type", TypeName(error)}});
    } catch (...) {
      log_.Error("Stop failed", {{"error", "something that is no std::exception was thrown"}});
    }
  }
  if (context_) context_->Close();
}

void ModuleHost::Health(std::chrono::milliseconds budget, pb::HealthResponse& response) {
  HostContext* context = initialized_;
  if (!context) {
    response.set_status(pb::UNHEALTHY);
    pb::HealthCheck& check = *response.add_checks();
    check.set_name("module");
    check.set_status(pb::UNHEALTHY);
    check.set_message("not initialized");
    return;
  }
  HealthReport report = context->health().Run(budget, [this](HealthStatus worst) { return module_->Health(worst); }, context->CheckClients());
  response.set_status(ToProto(report.status));
  for (const CheckReport& one : report.checks) {
    pb::HealthCheck& check = *response.add_checks();
    check.set_name(Utf8(one.name));
    check.set_status(ToProto(one.result.status));
    check.set_latency_ms(one.latency_ms);
    check.set_message(Utf8(one.result.message));
  }
}

void ModuleHost::Metrics(pb::MetricsResponse& response) {
  if (Dispatcher* dispatcher = started_) {
    const RequestCounts& counts = dispatcher->counts();
    int64_t requests = counts.requests;
    response.set_request_count(requests);
    response.set_error_count(counts.errors);
    if (requests > 0) response.set_avg_response_time(double(counts.microseconds) / 1000.0 / double(requests));
    response.set_active_workers(dispatcher->pool().active());
  }
  response.mutable_event_count()->set_received(deliveries_.received());
  HostContext* context = initialized_;
  if (!context) return;
  response.mutable_event_count()->set_published(context->events().published());
  if (const WorkerCache::Counts cache = context->cache_counts(); cache.lookups() > 0) {
    response.set_cache_hit_rate(cache.hit_rate());
    pb::CacheCount& count = *response.mutable_cache();
    count.set_hits(cache.one.hits);
    count.set_shared_hits(cache.shared_hits);
    count.set_misses(cache.misses);
    count.set_evictions(cache.one.evictions);
    count.set_bytes(int64_t(cache.one.bytes));
    count.set_entries(int64_t(cache.one.entries));
  }
  std::map<std::string, double> custom;
  context->Collect(custom);
  try {
    module_->Metrics(custom);
  } catch (const std::exception& error) {
    log_.Error("Metrics failed", {{"error", error.what()}, {"type", TypeName(error)}});
  } catch (...) {
    log_.Error("Metrics failed", {{"error", "something that is no std::exception was thrown"}});
  }
  for (const auto& [name, value] : custom) (*response.mutable_custom())[Utf8(name)] = value;
}

JobSurroundings ModuleHost::around() {
  HostContext* context = started_ ? initialized_.load() : nullptr;
  if (context == nullptr) return {};
  return {&context->jobs(), &context->host()};
}

void ModuleHost::DeliverEvents(const pb::DeliverEventsRequest& request, pb::DeliverEventsResponse& response, std::function<void()> done) {
  HostContext* context = started_ ? initialized_.load() : nullptr;
  deliveries_.Begin(request, context ? &context->events() : nullptr, response, std::move(done));
}

bool ModuleHost::quiet() {
  auto now = Clock::now();
  if (!runs_.WaitIdle(now) || !deliveries_.WaitIdle(now)) return false;
  if (context_ && context_->health().running() > 0) return false;
  return !dispatcher_ || dispatcher_->pool().WaitIdle(now);
}

}  // namespace bulkhead::sdk
