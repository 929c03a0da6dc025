// From a request head to whoever answers it: routing, authorisation, the module's stream, the LocalService.
#include <algorithm>

#include "supervisor/auth/identity.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/client_login.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr std::string_view kModulePrefix = "/api/v1/m/";
constexpr size_t kMaxFirstBody = 16 * 1024;  // a body up to here that came with its head travels in the REQUEST
constexpr const char* kLoginWanted = "Send 'Authorization: Bearer <token>' with a valid token.";
constexpr int kMaxUnopened = 3;              // connections to workers that were about to end, of one request
constexpr Millis kLoginCheck{1'000};         // an expired token ends at most so much later on a connection that is in use

std::string RetryAfter() { return std::to_string(limits::kRetryAfterSeconds); }

}  // namespace

// Returns how many bytes of `rest`, which follows the head, were taken.
size_t Client::StartRequest(const http1::RequestHead& head, std::string_view rest) {
  head_only_ = head.method == "HEAD";
  http10_ = head.minor_version == 0;
  keep_alive_ = head.keep_alive && !thread_.draining() && !peer_finished_;
  head_since_ = Instant{};
  first_request_ = false;
  BeginMeasure(head);
  response_begun_ = retried_ = lost_ = blocked_ = false;
  unopened_ = hops_ = 0;
  call_deadline_ = Instant::max();
  body_seen_ = 0;
  ExpectBody();
  body_.Begin(head);
  expect_ = head.expect_continue && !body_.done();
  if (ValidRequestId(head.request_id)) {
    request_id_.assign(head.request_id);
  } else {
    request_id_.clear();
    AppendHex(request_id_, thread_.random().Next());
    AppendHex(request_id_, thread_.random().Next());
  }
  if (FromModule() && !KnowModule(head)) return 0;
  if (head.expect_unknown) {
    RespondError("EXPECTATION_FAILED", "The only expectation met here is 100-continue.");
    return 0;
  }
  if (head.path == "*") {
    RespondWhole(204, {{"allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}}, {});
    return 0;
  }
  if (head.path.starts_with(kModulePrefix)) return RouteToModule(head, rest);
  StartLocal(head);
  return 0;
}

size_t Client::RouteToModule(const http1::RequestHead& head, std::string_view rest) {
  std::string_view path = head.path.substr(kModulePrefix.size());
  size_t slash = path.find('/');
  std::string_view name = path.substr(0, slash);
  path = slash == std::string_view::npos ? std::string_view("/") : path.substr(slash);

  GatewayThread::Module* module = thread_.FindModule(name);
  meter_ = module ? module->routed->meters->unmatched[method_] : thread_.NoModuleMeter(method_);
  if (FromModule() && !MayCallModule(name, module ? module->routed->module->manifest : nullptr)) return 0;
  if (!module) {
    RespondError("ROUTE_NOT_FOUND", "No enabled module has this path.");
    return 0;
  }
  RouteTable::Match match = module->routed->routes->Find(head.method, path);
  if (!match.route) {
    if (match.allowed == 0) {
      RespondError("ROUTE_NOT_FOUND", "The module has no such route.");
    } else {
      RespondError("METHOD_NOT_ALLOWED", "The route exists, but not for this method; see Allow.", {{"allow", RouteTable::AllowHeader(match.allowed)}});
    }
    return 0;
  }
  const RouteSpec& route = *match.route;
  meter_ = module->routed->meters->routes[size_t(&route - module->routed->module->manifest->routes.data())];
  if (!MayPass(head, route, name)) return 0;
  if (head.content_length > route.body_limit) {
    keep_alive_ = false;
    RespondError("BODY_TOO_LARGE", "The body is larger than this route takes.");
    return 0;
  }
  if (module->routed->module->manifest->transport == Transport::kHttp) {
    RespondError("NOT_IMPLEMENTED", "This module serves plain HTTP ('transport: http'), which this gateway does not reach yet; use 'transport: link'.");
    return 0;
  }
  module_.assign(name);
  parked_for_.reset();
  body_limit_ = route.body_limit;
  timeout_ = route.timeout;
  head_as_get_ = match.head_as_get;
  websocket_ = head.websocket;
  safe_ = head.method == "GET" || head.method == "HEAD" || head.method == "OPTIONS";
  return SendRequest(head, match.head_as_get ? std::string_view("GET") : head.method, path, rest);
}

// False: the request is answered, or waits for its token to be verified.
bool Client::MayPass(const http1::RequestHead& head, const RouteSpec& route, std::string_view module) {
  Known known = FromModule() ? Known::kYes : head.authorization.data() != nullptr ? KnowCaller(head.authorization) : Known::kNo;
  if (known == Known::kPending) {
    AwaitLogin(head.authorization);
    return false;
  }
  identity_known_ = known == Known::kYes;
  if (route.is_public) return true;
  if (!identity_known_) {
    RefuseLogin(head.authorization);
    return false;
  }
  for (const std::string& permission : route.permissions) {
    if (login_->identity->Allows(permission, module)) continue;
    RespondError("FORBIDDEN", "The caller lacks a permission that this route needs.");
    return false;
  }
  return true;
}

Client::Known Client::KnowCaller(std::string_view authorization) {
  uint64_t version = thread_.token_version();
  bool same = login_ && login_->version == version && ConstantTimeEquals(login_->authorization, authorization);
  if (same && loop_.now() - login_->checked < kLoginCheck) {
    return login_->identity ? Known::kYes : login_->refusal.ok() ? Known::kNo : Known::kUndecided;
  }
  std::string_view secret = BearerSecret(authorization);
  Authenticator::Known found;
  if (!secret.empty()) found = thread_.Authenticate(secret);
  if (found.pending) return Known::kPending;
  if (!found.identity) {
    login_.reset();
    return Known::kNo;
  }
  if (!same || login_->identity != found.identity) {
    login_ = std::make_unique<Login>();
    login_->authorization.assign(authorization);
    login_->pairs = EncodeIdentity(*found.identity);
    login_->identity = std::move(found.identity);
  }
  login_->version = version;
  login_->checked = loop_.now();
  return Known::kYes;
}

// The request stays at the front of the input until the verdict; nothing else is read meanwhile.
void Client::AwaitLogin(std::string_view authorization) {
  login_ = std::make_unique<Login>();
  login_->authorization.assign(authorization);
  login_->version = thread_.token_version();
  state_ = State::kLogin;
  thread_.Verify(*this, BearerSecret(authorization), login_id_);
}

void Client::LoginDecided(uint64_t id, const absl::StatusOr<std::shared_ptr<const Identity>>& verdict) {
  if (state_ != State::kLogin || login_id_ != id) return;
  login_id_ = 0;
  if (verdict.ok()) {
    login_->pairs = EncodeIdentity(**verdict);
    login_->identity = *verdict;
  } else if (ErrorCode(verdict.status()) != "UNAUTHENTICATED") {
    login_->refusal = verdict.status();
  }
  // A table that has moved meanwhile decides anew when the request is read again.
  login_->checked = loop_.now();
  state_ = State::kHead;
  more_input_ = true;
  loop_.Schedule(*this);
}

void Client::RefuseLogin(std::string_view authorization) {
  absl::Status why = Error("UNAUTHENTICATED", kLoginWanted);
  // Refused a moment ago because nobody could say: not the caller's fault.
  if (login_ && !login_->refusal.ok() && ConstantTimeEquals(login_->authorization, authorization)) {
    why = login_->refusal;
    login_.reset();
  } else if (!authorization.empty()) {
    why = thread_.authenticator().RefuseToken(origin_.address, kLoginWanted);
  }
  const std::string code = ErrorCode(why);
  HeaderList headers;
  if (code == "UNAUTHENTICATED") headers.emplace_back("www-authenticate", "Bearer");
  if (const int seconds = bulkhead::RetryAfter(why); seconds > 0) headers.emplace_back("retry-after", std::to_string(seconds));
  else if (HttpStatus(code) == 503) headers.emplace_back("retry-after", RetryAfter());
  if (HttpStatus(code) == 503) CountUnserved(Unserved::kLogin);
  RespondError(code.c_str(), std::string_view(why.message().data(), why.message().size()), headers);
}

size_t Client::SendRequest(const http1::RequestHead& head, std::string_view method, std::string_view path, std::string_view rest) {
  std::string_view first_body;
  int64_t remaining = body_.remaining();
  if (remaining > 0 && size_t(remaining) <= std::min(rest.size(), kMaxFirstBody)) first_body = rest.substr(0, size_t(remaining));
  RequestContext context;
  context.method = method;
  context.path = path;
  context.request_id = request_id_;
  context.peer_address = origin_.address;
  context.websocket = websocket_;
  context.hops = hops_;
  context.trace = trace_;
  context.tracestate = tracestate_;
  if (identity_known_) context.identity = &login_->pairs;
  if (frame_.capacity() < 64) frame_ = loop_.TakeBuffer();
  whole_request_ = !websocket_ && (remaining == 0 || !first_body.empty());
  const bool called = call_deadline_ != Instant::max();
  if (called) timeout_ = std::min(timeout_, std::max(std::chrono::ceil<Millis>(call_deadline_ - loop_.now()), Millis(1)));
  // The time of a body that is still to come is not known; a module's call has it within its own.
  if (!websocket_ && (called || whole_request_)) context.timeout = timeout_;
  bool fits = EncodeRequest(head, context, first_body, whole_request_, frame_);
  if (!fits && !first_body.empty()) {
    first_body = {};
    whole_request_ = false;
    if (!called) context.timeout.reset();
    fits = EncodeRequest(head, context, first_body, false, frame_);
  }
  told_timeout_ = context.timeout.has_value();
  if (!fits) {
    RespondError("HEADERS_TOO_LARGE", "The headers do not fit into 64 KiB together with those that the gateway adds.");
    return 0;
  }
  if (!first_body.empty()) {
    std::string_view in = rest, piece;
    while (!body_.done()) body_.Next(in, kMaxFirstBody, piece);
    expect_ = false;
  }
  replayable_ = body_.done();
  state_ = State::kModule;
  last_worker_ = nullptr;
  route_deadline_ = loop_.now() + timeout_;
  Dispatch();
  if (state_ == State::kModule && expect_) {
    if (!rest.empty()) expect_ = false;  // it did not wait
    else if (!parked_) SendContinue();
  }
  return first_body.size();
}

void Client::SendContinue() {
  expect_ = false;
  Out() += "HTTP/1.1 100 Continue\r\n\r\n";
  MarkDirty();
}

void Client::Unavailable(Unserved why, std::string_view message) {
  CountUnserved(why);
  RespondError("MODULE_UNAVAILABLE", message, {{"retry-after", RetryAfter()}});
}

// Sends frame_ to the best worker, or parks the request. Top of a turn or within Consume only, never from a link's callback.
void Client::Dispatch() {
  GatewayThread::Module* module = thread_.FindModule(module_);
  if (!module && FromModule()) return Unavailable(Unserved::kNoWorker, "The module was disabled while the call waited for it.");
  if (!module) return RespondError("ROUTE_NOT_FOUND", "The module was disabled while the request waited for it.");
  // What let the request in must be what serves it.
  const std::shared_ptr<const Manifest>& manifest = module->routed->module->manifest;
  if (parked_for_ && parked_for_ != manifest) return Unavailable(Unserved::kReplaced, "The module was replaced while the request waited for it; try again.");
  GatewayThread::Pick pick = thread_.PickLink(*module, last_worker_);
  if (!pick.link) {
    if (pick.overloaded) {
      CountUnserved(Unserved::kOverloaded);
      return RespondError("OVERLOADED", "Every worker of the module has as many requests in flight as it may.", {{"retry-after", RetryAfter()}});
    }
    if (!thread_.Park(*this, module_, frame_.size())) {
      return Unavailable(Unserved::kNoWorker, "The module has no ready worker at the moment; try again soon.");
    }
    parked_ = true;
    NoteEvent("parked");
    if (!parked_for_) {
      parked_for_ = manifest;
      parked_until_ = std::min(loop_.now() + limits::kParkTimeout, route_deadline_);
    }
    return;
  }
  const bool later = parked_for_ || retried_ || unopened_ > 0;
  if (later && told_timeout_) {
    LowerTimeout(frame_, std::chrono::ceil<Millis>(std::min(route_deadline_, call_deadline_) - loop_.now()));
  }
  if (std::exchange(parked_for_, nullptr)) ExpectBody();
  if (link::GetHeader(frame_.data()).head_length > pick.link->max_frame()) {
    return RespondError("HEADERS_TOO_LARGE", "The headers are longer than the module accepts in one frame.");
  }
  last_link_ = pick.link;
  last_worker_ = pick.link->worker().get();
  if (!retried_ && unopened_ == 0) module->retries->Sent();
  OpenStream(*pick.link);
  if (!replayable_) loop_.GiveBuffer(std::move(frame_));
}

void Client::OpenStream(Link& link) {
  if (Traced()) worker_ = link.worker()->instance;
  link::Header header = link::GetHeader(frame_.data());
  const size_t body = header.length - header.head_length;
  if (header.length <= link.max_frame() && body <= link.window()) return link.Open(stream_, *this, frame_, whole_request_);
  // A module that takes less at once than was put together gets the body behind the head.
  header.length = header.head_length;
  header.flags &= ~link::kEnd;
  std::string head = frame_.substr(0, link::kHeaderSize + header.head_length);
  link::PutHeader(head.data(), header);
  link.Open(stream_, *this, head, false);
  link.Send(stream_, std::string_view(frame_).substr(head.size()), whole_request_);
}

void Client::Unpark() {
  parked_ = false;
  unparked_ = true;
  NoteEvent("unparked");
  loop_.Schedule(*this);
}

void Client::SendAgain() {
  thread_.counters().retries.Add();
  NoteEvent("retried");
  Dispatch();
}

// The stream ended without its answer; see "Request" in the five flows.
void Client::HandleLoss() {
  lost_ = false;
  if (response_begun_ && !RollBackResponse()) return Abort();
  bool unopened = loss_ == StreamLoss::kUnopened;
  bool again = loss_ == StreamLoss::kRefused || (safe_ && (unopened || loss_ == StreamLoss::kClosed || loss_ == StreamLoss::kUnresponsive));
  if (again && replayable_ && !frame_.empty()) {
    // A connection that never came to be is not the one retry that a request has.
    if (unopened && unopened_++ < kMaxUnopened) return SendAgain();
    if (!unopened && !std::exchange(retried_, true)) {
      GatewayThread::Module* module = thread_.FindModule(module_);
      if (!module || module->retries->Take(loop_.now())) return SendAgain();
      return Unavailable(Unserved::kRetriesSpent, "The worker was lost, and as many requests to its module are being sent again as may be; try again soon.");
    }
  }
  switch (loss_) {
    case StreamLoss::kRefused:
      return Unavailable(Unserved::kRefused, "The module refused the request before it processed anything.");
    case StreamLoss::kTimeout: return RespondError("GATEWAY_TIMEOUT", "The module gave up on the request for lack of time.");
    case StreamLoss::kProtocol: return RespondError("BAD_GATEWAY", "The module's answer was malformed.");
    case StreamLoss::kCancelled: return RespondError("BAD_GATEWAY", "The module gave up on the request.");
    case StreamLoss::kUnresponsive: return RespondError("BAD_GATEWAY", "The worker stopped responding while the request was in flight.");
    case StreamLoss::kUnopened:
    case StreamLoss::kClosed: break;
  }
  // Gone from the Directory: its end is known and a successor is on its way.
  GatewayThread::Module* module = thread_.FindModule(module_);
  auto listed = [this](const Link* link) { return link->worker().get() == last_worker_; };
  if (!module || std::none_of(module->links.begin(), module->links.end(), listed)) {
    return Unavailable(Unserved::kWorkerLost, "The worker ended while the request was in flight.");
  }
  RespondError("BAD_GATEWAY", "The connection to the worker broke while the request was in flight.");
}

void Client::StartLocal(const http1::RequestHead& head) {
  meter_ = thread_.LocalMeter(method_, head.path);
  body_limit_ = int64_t(limits::kAdminBodyLimit);
  // No memory for the body of somebody unknown, but a little for who logs in. What the caller may do is the service's to say.
  if (!body_.done()) {
    const int64_t anonymous = thread_.local().AnonymousBody(head.method, head.path);
    const Known known = anonymous > 0 ? Known::kNo : KnowCaller(head.authorization);
    if (known == Known::kPending) return AwaitLogin(head.authorization);
    if (known != Known::kYes && anonymous == 0) return RefuseLogin(head.authorization);
    if (anonymous > 0) body_limit_ = anonymous;
  }
  // For the access log alone: the service looks for itself.
  if (thread_.access_log().on() && !head.authorization.empty()) identity_known_ = KnowCaller(head.authorization) == Known::kYes;
  if (head.content_length > body_limit_) {
    keep_alive_ = false;
    return RespondError("BODY_TOO_LARGE", "The body of an administrative request is at most 1 MiB, that of a login 16 KiB.");
  }
  local_ = std::make_unique<LocalRequest>();
  local_->method = head_only_ ? "GET" : std::string(head.method);
  if (!PercentDecode(head.path, local_->path)) return RespondError("BAD_REQUEST", "The path has an invalid percent escape.");
  local_->query = head.query;
  local_->authorization = head.authorization;
  local_->content_type = head.content_type;
  local_->if_match = head.if_match;
  for (size_t i = 0; i < head.field_count; ++i) {
    if (head.fields[i].name == "idempotency-key") local_->idempotency_key = head.fields[i].value;
    if (head.fields[i].name == "last-event-id") local_->last_event_id = head.fields[i].value;
  }
  const std::string& peer = origin_.address;
  bool v6 = peer.find(':') != std::string::npos;
  local_->remote_address = (v6 ? "[" + peer + "]" : peer) + ":" + std::to_string(origin_.port);
  local_->request_id = request_id_;
  state_ = State::kLocalBody;
  if (expect_) {
    Out() += "HTTP/1.1 100 Continue\r\n\r\n";
    expect_ = false;
    MarkDirty();
  }
  if (body_.done()) BodyDone();
}

void Client::HandToLocal() {
  state_ = State::kLocalWait;
  std::unique_ptr<LocalResponder> responder = thread_.AwaitLocal(*this, local_id_);
  thread_.local().Handle(std::move(*std::exchange(local_, nullptr)), std::move(responder));
}

void Client::ForwardBody(std::string_view piece) {
  if (state_ == State::kLocalBody) {
    local_->body.append(piece);
  } else if (stream_.open()) {
    route_deadline_ = loop_.now() + timeout_;
    stream_.link()->Send(stream_, piece, false);
  }
}

void Client::BodyDone() {
  if (state_ == State::kLocalBody) return HandToLocal();
  route_deadline_ = loop_.now() + timeout_;
  if (!stream_.open()) return;
  std::string trailers = body_.trailers().empty() ? std::string() : EncodeTrailers(body_.trailers());
  if (trailers.size() > stream_.link()->max_frame()) {
    return BodyRefused("HEADERS_TOO_LARGE", "The trailers are longer than the module accepts in one frame.");
  }
  stream_.link()->End(stream_, std::move(trailers));
}

void Client::BodyRefused(const char* code, const char* message) {
  keep_alive_ = false;
  if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kClientGone);
  if (state_ == State::kModule && response_begun_ && !RollBackResponse()) return Abort();
  RespondError(code, message);
}

}  // namespace bulkhead
