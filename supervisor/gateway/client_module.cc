// A module calls another one: its token instead of a login, and its manifest instead of permissions of its own (module_call.h).
#include "supervisor/base/status.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/client_login.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr std::string_view kCallsBelow = "/api/v1/m/";

}  // namespace

// Who calls, and what the call says of itself. False: it is answered.
bool Client::KnowModule(const http1::RequestHead& head) {
  const absl::StatusOr<CallTerms> terms = ReadCallTerms(head);
  const auto refuse = [this](const absl::Status& why) {
    RespondError(ErrorCode(why).c_str(), std::string_view(why.message().data(), why.message().size()));
    return false;
  };
  if (!terms.ok()) return refuse(terms.status());
  ModuleCallers& callers = thread_.module_callers();
  const uint64_t version = callers.version();
  if (!login_ || login_->version != version || !ConstantTimeEquals(login_->authorization, terms->token)) {
    auto caller = terms->token.empty() ? nullptr : callers.Find(terms->token);
    if (!caller) {
      login_.reset();
      keep_alive_ = false;
      return refuse(Error("UNAUTHENTICATED", "x-bulkhead-token is missing, or not that of a running instance of a module."));
    }
    if (!login_ || login_->caller != caller) {
      login_ = std::make_unique<Login>();
      login_->authorization.assign(terms->token);
      login_->identity = std::make_shared<const Identity>(Identity{caller->subject, {}, {}, {Credential::Kind::kModule, ""}, ""});
      login_->caller = std::move(caller);
    }
    login_->version = version;
  }
  identity_known_ = true;
  hops_ = uint8_t(terms->hops + 1);
  if (terms->timeout) call_deadline_ = loop_.now() + *terms->timeout;
  if (terms->timeout && *terms->timeout == Millis(0)) return refuse(Error("GATEWAY_TIMEOUT", "The caller has no time left for an answer."));
  if (!head.path.starts_with(kCallsBelow)) return refuse(Error("ROUTE_NOT_FOUND", "Modules call modules here, at /api/v1/m/<name>/…, and nothing else."));
  return true;
}

// `manifest` is that of the called module; null when it is not enabled, which its caller may wait for. False: the call is answered.
bool Client::MayCallModule(std::string_view called, const std::shared_ptr<const Manifest>& manifest) {
  if (const absl::Status may = MayCall(*login_->caller->manifest, called); !may.ok()) {
    RespondError(ErrorCode(may).c_str(), std::string_view(may.message().data(), may.message().size()));
    return false;
  }
  if (!manifest) {
    Unavailable(Unserved::kNoWorker, "The module is not enabled at the moment; try again later.");
    return false;
  }
  if (login_->called != manifest) {
    auto identity = std::make_shared<const Identity>(CallerIdentity(*login_->caller, *manifest));
    login_->pairs = EncodeIdentity(*identity);
    login_->identity = std::move(identity);
    login_->called = manifest;
  }
  return true;
}

}  // namespace bulkhead
