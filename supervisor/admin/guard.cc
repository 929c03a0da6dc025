#include "supervisor/admin/guard.h"

#include <algorithm>

#include "bulkhead/admin/v1/options.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/text.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr size_t kMaxRequestId = 128;
constexpr std::string_view kReserved = "x-bulkhead-";  // what only this supervisor may send
constexpr std::string_view kOrigin = "x-bulkhead-origin-bin";
constexpr std::string_view kSignature = "x-bulkhead-signature-bin";

std::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

bool UsableRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestId &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
}

// gRPC's "ipv4:127.0.0.1:5000" and "ipv6:%5B::1%5D:5000" as people write them.
std::string PeerAddress(const std::string& peer) {
  const size_t colon = peer.find(':');
  const std::string_view rest = colon == std::string::npos ? std::string_view(peer) : std::string_view(peer).substr(colon + 1);
  return PercentDecode(rest, false).value_or(std::string(rest));
}

absl::Status Unauthenticated(std::string_view why) {
  return Error("UNAUTHENTICATED",
               std::string(why) + " Send Authorization: Bearer with the secret of <data>/admin.token or of an API token.");
}

}  // namespace

void Audit(std::string_view method, const Caller& caller, const absl::Status& result) {
  LogInfo("admin", method.substr(method.rfind('.') + 1),
          {{"subject", caller.identity ? caller.identity->subject : "-"},
           {"address", caller.address},
           {"request", caller.request_id},
           {"result", result.ok() ? "OK" : ErrorCode(result)}});
}

Guard::Guard(const Authenticator& authenticator) : authenticator_(authenticator), secret_(RandomHex(kSecretBytes)) {}

absl::Status Guard::Add(const google::protobuf::ServiceDescriptor& service) {
  for (int i = 0; i < service.method_count(); ++i) {
    const auto& method = *service.method(i);
    const std::string& permission = method.options().GetExtension(admin::v1::permission);
    if (!ValidPermission(permission)) {
      return absl::FailedPreconditionError("the admin method " + method.full_name() + " has no usable `permission` option");
    }
    permissions_[method.full_name()] = permission;
  }
  return absl::OkStatus();
}

const std::string& Guard::Permission(std::string_view method) const {
  const auto found = permissions_.find(method);
  BULKHEAD_CHECK(found != permissions_.end());
  return found->second;
}

bool Guard::Writes(std::string_view method) const { return !std::string_view(Permission(method)).ends_with(":read"); }

absl::StatusOr<std::shared_ptr<const Identity>> Guard::Authenticate(std::string_view authorization) const {
  if (authorization.empty()) return Unauthenticated("The call has no token.");
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer = authorization.size() > kScheme.size() &&
                      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                                 [](char want, char got) { return want == (got >= 'A' && got <= 'Z' ? got + 32 : got); });
  if (!bearer) return Unauthenticated("The authorization is not of the scheme Bearer.");
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  auto identity = authenticator_.Authenticate(authorization);
  if (!identity) return Unauthenticated("The token is not known or has expired.");
  return identity;
}

absl::Status Guard::Authorize(const Identity& identity, std::string_view method) const {
  const std::string& permission = Permission(method);
  if (identity.Allows(permission)) return absl::OkStatus();
  return Error("FORBIDDEN", "\"" + identity.subject + "\" lacks the permission \"" + permission + "\" for this call.");
}

absl::Status Guard::Check(const Metadata& metadata, const std::string& peer, std::string_view method, Caller& caller) const {
  std::string_view origin, signature, authorization, request_id;
  int origins = 0, signatures = 0, authorizations = 0, reserved = 0;
  for (const auto& [key, value] : metadata) {
    const std::string_view name = View(key);
    if (name == kOrigin)
      origin = View(value), ++origins;
    else if (name == kSignature)
      signature = View(value), ++signatures;
    else if (name == "authorization")
      authorization = View(value), ++authorizations;
    else if (name == "x-request-id")
      request_id = View(value);
    if (name.starts_with(kReserved)) ++reserved;
  }
  caller.address = PeerAddress(peer);
  caller.request_id = UsableRequestId(request_id) ? std::string(request_id) : RandomUuid();
  if (reserved > 0) {
    const bool genuine =
        origins == 1 && signatures == 1 && reserved == 2 && ConstantTimeEquals(signature, HmacSha256(secret_, origin));
    nlohmann::json told;
    if (genuine) told = nlohmann::json::parse(origin, nullptr, false);
    if (!told.is_object() || told["method"] != std::string(method)) {
      return Error("FORBIDDEN", "Metadata under x-bulkhead- is the supervisor's own. Leave it out.");
    }
    caller.address = told["address"].get<std::string>();
    caller.request_id = told["requestId"].get<std::string>();
    caller.in_process = true;
  }
  if (authorizations > 1) return Unauthenticated("The call has more than one authorization.");
  ASSIGN_OR_RETURN(caller.identity, Authenticate(authorization));
  return Authorize(*caller.identity, method);
}

std::vector<std::pair<std::string, std::string>> Guard::SignOrigin(std::string_view address, std::string_view request_id,
                                                                   std::string_view method) const {
  const nlohmann::json told = {{"method", method}, {"address", ValidUtf8(address)}, {"requestId", ValidUtf8(request_id)}};
  std::string origin = told.dump();
  std::string signature = HmacSha256(secret_, origin);
  return {{std::string(kOrigin), std::move(origin)}, {std::string(kSignature), std::move(signature)}};
}

}  // namespace bulkhead
