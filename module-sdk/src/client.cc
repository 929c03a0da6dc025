#include "bulkhead/client.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "breaker.h"
#include "bulkhead/log.h"
#include "current_work.h"
#include "client_target.h"
#include "json_text.h"
#include "transfer.h"

namespace bulkhead::sdk {
namespace {

using CallClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kWaitStep{50};  // between two looks whether anybody still waits, while a call waits to be tried again
constexpr size_t kMinSecret = 4;       // bytes; what is shorter would be found everywhere

ClientError Invalid(const std::string& client, const std::string& why) {
  return ClientError("INVALID_REQUEST", "client \"" + client + "\": " + why, false);
}

// What may be tried again some time is not the same as what this call is to try again.
bool TransientCode(const std::string& code) {
  return code != "TLS_FAILED" && code != "BODY_TOO_LARGE" && code != "INVALID_REQUEST" && code != "CLIENT_UNAVAILABLE";
}

double Chance() {
  static thread_local std::mt19937_64 chance(std::random_device{}());
  return std::uniform_real_distribution<double>(0, 1)(chance);
}

Breaker::Verdict VerdictOf(const TransferResult& result) {
  switch (result.end) {
    case AttemptEnd::kAnswered: return result.response.status >= 500 ? Breaker::Verdict::kFailure : Breaker::Verdict::kSuccess;
    case AttemptEnd::kNotConnected:
    case AttemptEnd::kLost:
    case AttemptEnd::kTimedOut: return Breaker::Verdict::kFailure;
    case AttemptEnd::kUnusable: return result.code == "TLS_FAILED" ? Breaker::Verdict::kFailure : Breaker::Verdict::kNothing;
    case AttemptEnd::kCancelled: break;
  }
  return Breaker::Verdict::kNothing;
}

void CheckSettings(const ClientSettings& settings) {
  const auto require = [&](bool fine, const std::string& why) {
    if (!fine) throw std::invalid_argument("client \"" + settings.name + "\": " + why);
  };
  const std::string fault = BaseUrlFault(settings.base_url);
  require(fault.empty(), fault);
  for (const auto* list : {&settings.headers, &settings.secret_headers}) {
    for (const auto& [name, value] : *list) {
      const std::string wrong = HeaderFault(name, value);
      require(wrong.empty(), wrong);
    }
  }
  require(settings.timeout > milliseconds(0) && settings.attempt_timeout > milliseconds(0) && settings.connect_timeout > milliseconds(0), "a timeout is 0");
  require(settings.retries >= 0 && settings.max_connections > 0, "a negative number of retries, or no connection");
}

}  // namespace

std::optional<std::string_view> ClientResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (SameHeader(key, name)) return value;
  }
  return std::nullopt;
}

Json ClientResponse::json() const {
  Json document = Json::parse(body, nullptr, false);
  if (document.is_discarded()) throw ClientError("INVALID_ANSWER", "the answer with status " + std::to_string(status) + " is no JSON", false);
  return document;
}

struct ServiceClient::Body {
  explicit Body(ClientSettings all)
      : settings(std::move(all)),
        transfers(settings),
        breaker({settings.breaker_failures, settings.breaker_percent, settings.breaker_window, settings.breaker_open}) {}

  ClientResponse Send(const ClientRequest& request, const CurrentWork* scope);
  Transfer Prepare(const ClientRequest& request, const CurrentWork* scope) const;
  TransferResult Attempt(Transfer& transfer, CallClock::time_point until);
  void Settle(const Breaker::Admission& admission, Breaker::Verdict verdict);
  bool MayRepeat(const RetryQuestion& question, milliseconds& wait);
  void Wait(milliseconds time, const CurrentWork* scope) const;
  std::string Scrubbed(std::string text) const;
  [[noreturn]] void Throw(const ClientRequest& request, const TransferResult& result, int attempts) const;

  const ClientSettings settings;
  const Logger log{};
  Transfers transfers;
  std::mutex mutex;
  Breaker breaker;      // under `mutex`, as what follows
  RetryTokens tokens;
  Counts counts;
};

// What the request says, checked, with what the operator and the handler add to it.
Transfer ServiceClient::Body::Prepare(const ClientRequest& request, const CurrentWork* scope) const {
  const auto require = [&](const std::string& fault) {
    if (!fault.empty()) throw Invalid(settings.name, fault);
  };
  require(MethodFault(request.method));
  require(PathFault(request.path));
  Transfer transfer;
  transfer.method = request.method;
  transfer.url = JoinUrl(settings.base_url, request.path, request.options.query, settings.secret_query);
  transfer.body = request.body;
  transfer.scope = scope;
  transfer.repeatable = IsIdempotent(request.method) || !request.options.idempotency_key.empty();
  if (transfer.url.size() > settings.base_url.size() + 2 * kMaxClientTarget) require("path and query are longer than 8 KiB");
  const auto add = [&](std::string_view name, std::string_view value) {
    transfer.lines.push_back(std::string(name) + (value.empty() ? ";" : ": " + std::string(value)));
  };
  const auto operators = [&](std::string_view name) {
    const auto named = [&](const auto& header) { return SameHeader(header.first, name); };
    return std::any_of(settings.headers.begin(), settings.headers.end(), named) ||
           std::any_of(settings.secret_headers.begin(), settings.secret_headers.end(), named);
  };
  Headers own = CurrentTrace::Get().Headers();
  if (const std::string id = scope ? scope->request_id() : ""; !id.empty() && HeaderFault("x-request-id", id).empty()) own.emplace_back("x-request-id", id);
  for (const auto& [name, value] : request.options.headers) {
    require(HeaderFault(name, value));
    if (operators(name)) throw Invalid(settings.name, "the header " + name + " is set by the supervisor's configuration");
    std::erase_if(own, [&](const auto& header) { return SameHeader(header.first, name); });  // the author knows better
    add(name, value);
  }
  for (const Headers* list : {static_cast<const Headers*>(&own), &settings.headers, &settings.secret_headers}) {
    for (const auto& [name, value] : *list) add(name, value);
  }
  const auto is_line = [](std::string_view text) { return text.size() <= 1'024 && HeaderFault("x", text).empty(); };
  if (!is_line(request.content_type) || !is_line(request.options.idempotency_key)) {
    throw Invalid(settings.name, "the content type or the idempotency key is longer than 1 KiB, or has a control character");
  }
  transfer.lines.push_back(request.content_type.empty() ? "content-type:" : "content-type: " + request.content_type);
  if (!request.options.idempotency_key.empty()) add("idempotency-key", request.options.idempotency_key);
  transfer.lines.emplace_back("expect:");  // it would cost a round trip, or a second of waiting
  return transfer;
}

ClientResponse ServiceClient::Body::Send(const ClientRequest& request, const CurrentWork* scope) {
  Transfer transfer = Prepare(request, scope);
  CallClock::time_point until = CallClock::now() + std::min(request.options.timeout.value_or(settings.timeout), settings.timeout);
  if (const auto deadline = scope ? scope->deadline() : std::nullopt) until = std::min(until, *deadline);
  {
    std::lock_guard lock(mutex);
    tokens.Called();
  }
  for (int attempt = 1;; ++attempt) {
    if (scope && scope->cancelled()) scope->ThrowCancelled();
    TransferResult result = Attempt(transfer, until);
    if (result.end == AttemptEnd::kCancelled) scope->ThrowCancelled();
    RetryQuestion question{result.end, result.response.status, transfer.repeatable, attempt, settings.retries};
    if (const auto header = result.response.header("retry-after"))
      question.retry_after = ParseRetryAfter(*header, std::chrono::system_clock::now());
    question.left = std::chrono::floor<milliseconds>(until - CallClock::now());
    milliseconds wait{0};
    if (MayRepeat(question, wait)) {
      Wait(wait, scope);
      continue;
    }
    if (result.end != AttemptEnd::kAnswered) Throw(request, result, attempt);
    result.response.attempts = attempt;
    return std::move(result.response);
  }
}

// One attempt, unless the breaker refuses it. What it throws tells the breaker nothing.
TransferResult ServiceClient::Body::Attempt(Transfer& transfer, CallClock::time_point until) {
  transfer.until = std::min(until, CallClock::now() + settings.attempt_timeout);
  Breaker::Admission admission;
  {
    std::lock_guard lock(mutex);
    admission = breaker.Admit(CallClock::now());
    if (!admission.admitted) ++counts.refused;
  }
  if (!admission.admitted) {
    throw ClientError("CIRCUIT_OPEN",
                      "client \"" + settings.name + "\" is not asked for the moment, because it has failed too often; again in " +
                          std::to_string(admission.retry_in.count()) + " ms",
                      true, admission.retry_in);
  }
  try {
    TransferResult result = transfers.Run(transfer);
    Settle(admission, VerdictOf(result));
    return result;
  } catch (...) {
    Settle(admission, Breaker::Verdict::kNothing);
    throw;
  }
}

void ServiceClient::Body::Settle(const Breaker::Admission& admission, Breaker::Verdict verdict) {
  Breaker::Change change;
  {
    std::lock_guard lock(mutex);
    change = breaker.Report(admission, verdict, CallClock::now());
  }
  if (change == Breaker::Change::kOpened)
    log.Warn("the breaker of a client has opened: it is not asked", {{"client", settings.name}, {"forMs", settings.breaker_open.count()}});
  if (change == Breaker::Change::kClosed) log.Warn("the breaker of a client has closed: it is asked again", {{"client", settings.name}});
}

bool ServiceClient::Body::MayRepeat(const RetryQuestion& question, milliseconds& wait) {
  const auto next = NextAttempt(question, Chance());
  if (!next) return false;
  std::lock_guard lock(mutex);
  if (breaker.state() == BreakerState::kOpen) return false;  // it would be refused, and hide what has happened
  if (!tokens.Take(CallClock::now())) return false;
  ++counts.retries;
  wait = *next;
  return true;
}

void ServiceClient::Body::Wait(milliseconds time, const CurrentWork* scope) const {
  const auto until = CallClock::now() + time;
  for (auto now = CallClock::now(); now < until; now = CallClock::now()) {
    if (scope && scope->cancelled()) scope->ThrowCancelled();
    std::this_thread::sleep_until(scope ? std::min(until, now + kWaitStep) : until);
  }
}

// libcurl's sentences name hosts and files, and no header; this is for what it may do one day.
std::string ServiceClient::Body::Scrubbed(std::string text) const {
  for (const auto* list : {&settings.secret_headers, &settings.secret_query}) {
    for (const auto& [name, secret] : *list) {
      if (secret.size() < kMinSecret) continue;
      for (size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at + 8)) text.replace(at, secret.size(), "********");
    }
  }
  return text;
}

void ServiceClient::Body::Throw(const ClientRequest& request, const TransferResult& result, int attempts) const {
  const std::string what = request.method + " " + request.path.substr(0, std::min<size_t>(request.path.find('?'), 256));
  const std::string times = attempts > 1 ? " (attempt " + std::to_string(attempts) + ")" : "";
  throw ClientError(result.code, Scrubbed("client \"" + settings.name + "\": " + what + times + ": " + result.why), TransientCode(result.code));
}

ServiceClient::ServiceClient(ClientSettings settings) {
  CheckSettings(settings);
  body_ = std::make_unique<Body>(std::move(settings));
}
ServiceClient::~ServiceClient() = default;

ClientResponse ServiceClient::Send(const ClientRequest& request) {
  const auto began = CallClock::now();
  const auto count = [&](bool failed) {
    std::lock_guard lock(body_->mutex);
    ++body_->counts.calls;
    body_->counts.failures += failed;
    body_->counts.seconds += std::chrono::duration<double>(CallClock::now() - began).count();
  };
  try {
    ClientResponse response = body_->Send(request, CurrentWork::Get());
    count(response.status >= 500);
    return response;
  } catch (const ClientError& error) {
    if (error.code() != "INVALID_REQUEST") count(true);  // the module's own mistake is no call
    throw;
  } catch (...) {
    count(false);  // nobody waited any more
    throw;
  }
}

ClientResponse ServiceClient::SendJson(const char* method, std::string path, const Json& body, ClientOptions options) {
  return Send({method, std::move(path), Dump(body), "application/json", std::move(options)});
}

const std::string& ServiceClient::name() const { return body_->settings.name; }

BreakerState ServiceClient::breaker() const {
  std::lock_guard lock(body_->mutex);
  return body_->breaker.state();
}

ServiceClient::Counts ServiceClient::counts() const {
  std::lock_guard lock(body_->mutex);
  return body_->counts;
}

}  // namespace bulkhead::sdk
