#include "supervisor/admin/guard.h"

#include <algorithm>

#include "google/protobuf/struct.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

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
  return PercentDecodeUtf8(rest, false).value_or(std::string(rest));
}

std::string Explained(std::string_view why) {
  return std::string(why) + " Send Authorization: Bearer with the secret of <data>/admin.token, of an API token, or what a login gave.";
}

absl::Status Unauthenticated(std::string_view why) { return Error("UNAUTHENTICATED", Explained(why)); }

// The field of a request that names a module.
const google::protobuf::FieldDescriptor* ModuleFieldOf(const google::protobuf::MethodDescriptor& method) {
  const auto& request = *method.input_type();
  const auto* field = request.FindFieldByName("module");
  const std::string& service = method.service()->name();
  if (field == nullptr && (service == "Modules" || service == "Migrations")) field = request.FindFieldByName("name");
  const bool text = field != nullptr && field->type() == google::protobuf::FieldDescriptor::TYPE_STRING && !field->is_repeated();
  return text ? field : nullptr;
}

}  // namespace

Guard::Guard(const Authenticator& authenticator, Records& records)
    : authenticator_(authenticator), records_(records), secret_(RandomHex(kSecretBytes)) {}

absl::Status Guard::Add(const google::protobuf::ServiceDescriptor& service) {
  for (int i = 0; i < service.method_count(); ++i) {
    const auto& method = *service.method(i);
    Requirement wants;
    wants.permission = method.options().GetExtension(admin::v1::permission);
    wants.access = method.options().GetExtension(admin::v1::access);
    const bool by_access = wants.access != admin::v1::Access::UNSPECIFIED;
    if (by_access ? !wants.permission.empty() : !ValidPermission(wants.permission)) {
      return absl::FailedPreconditionError("the admin method " + method.full_name() +
                                           " has no usable `permission` option, and no `access` option instead");
    }
    wants.module = ModuleFieldOf(method);
    const bool gets = method.options().ExtensionSize(admin::v1::rest) > 0 && method.options().GetExtension(admin::v1::rest, 0).method() == "GET";
    wants.writes = by_access ? !gets : !std::string_view(wants.permission).ends_with(":read");
    wants.action = method.options().GetExtension(admin::v1::action);
    if (wants.writes == wants.action.empty()) {
      return absl::FailedPreconditionError("the admin method " + method.full_name() + (wants.writes ? " writes and has no" : " only reads and has an") +
                                           " `action` option");
    }
    methods_[method.full_name()] = std::move(wants);
  }
  return absl::OkStatus();
}

const Guard::Requirement& Guard::Of(std::string_view method) const {
  const auto found = methods_.find(method);
  BULKHEAD_CHECK(found != methods_.end());
  return found->second;
}

bool Guard::ForAnybody(std::string_view method) const { return Of(method).access == admin::v1::Access::ANYBODY; }

std::string Guard::ModuleOf(std::string_view method, const google::protobuf::Message& request) const {
  const auto* field = Of(method).module;
  return field == nullptr ? "" : request.GetReflection()->GetString(request, field);
}

std::string_view Guard::ModuleField(std::string_view method) const {
  const auto* field = Of(method).module;
  return field == nullptr ? std::string_view() : field->json_name();
}

std::string Guard::TargetOf(const google::protobuf::Message& request) {
  using google::protobuf::FieldDescriptor;
  const auto& type = *request.GetDescriptor();
  for (const char* name : {"name", "job", "module"}) {
    const auto* field = type.FindFieldByName(name);
    if (field != nullptr && field->type() == FieldDescriptor::TYPE_STRING && !field->is_repeated())
      return request.GetReflection()->GetString(request, field);
  }
  const auto* manifest = type.FindFieldByName("manifest");
  if (manifest == nullptr || manifest->message_type() != google::protobuf::Struct::descriptor()) return "";
  const auto& fields = dynamic_cast<const google::protobuf::Struct&>(request.GetReflection()->GetMessage(request, manifest)).fields();
  const auto found = fields.find("name");
  return found == fields.end() ? "" : found->second.string_value();
}

Guard::Decision Guard::Authenticate(std::string_view authorization, std::string_view address) const {
  if (authorization.empty()) return {Unauthenticated("The call has no token."), nullptr, ""};
  const std::string_view secret = BearerSecret(authorization);
  if (secret.empty()) return {Unauthenticated("The authorization is not of the scheme Bearer."), nullptr, ""};
  Authenticator::Known known = authenticator_.Find(secret);
  if (known.pending) return {absl::OkStatus(), nullptr, std::string(secret)};
  if (known.identity == nullptr) return {authenticator_.RefuseToken(address, Explained("The token is not known or has expired.")), nullptr, ""};
  return {absl::OkStatus(), std::move(known.identity), ""};
}

void Guard::AwaitIdentity(const std::string& pending, std::string address, std::function<void(Decision)> done) const {
  authenticator_.Verify(pending, [this, address = std::move(address), done = std::move(done)](JwtVerifier::Verdict verdict) {
    if (verdict.ok()) return done({absl::OkStatus(), *std::move(verdict), ""});
    const bool refused = ErrorCode(verdict.status()) == "UNAUTHENTICATED";
    const std::string why(verdict.status().message());
    done({refused ? authenticator_.RefuseToken(address, Explained(why)) : verdict.status(), nullptr, ""});
  });
}

absl::Status Guard::Authorize(const Identity& identity, std::string_view method, std::string_view module) const {
  const Requirement& wants = Of(method);
  if (wants.access != admin::v1::Access::UNSPECIFIED || identity.Allows(wants.permission, module)) return absl::OkStatus();
  return Error("FORBIDDEN", "\"" + identity.subject + "\" lacks the permission \"" + wants.permission + "\" for this call.");
}

void Guard::Await(const std::string& pending, std::string method, std::string module, std::string address,
                  std::function<void(Decision)> done) const {
  AwaitIdentity(pending, std::move(address), [this, method = std::move(method), module = std::move(module), done = std::move(done)](Decision decision) {
    if (decision.status.ok()) decision.status = Authorize(*decision.identity, method, module);
    done(std::move(decision));
  });
}

Guard::Decision Guard::Check(const Metadata& metadata, const std::string& peer, std::string_view method, std::string_view module,
                             Caller& caller) const {
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
      return {Error("FORBIDDEN", "Metadata under x-bulkhead- is the supervisor's own. Leave it out."), nullptr, ""};
    }
    caller.address = told["address"].get<std::string>();
    caller.request_id = told["requestId"].get<std::string>();
    caller.in_process = true;
  }
  if (ForAnybody(method)) return {};
  if (authorizations > 1) return {Unauthenticated("The call has more than one authorization."), nullptr, ""};
  Decision decision = Authenticate(authorization, caller.address);
  if (decision.identity) decision.status = Authorize(*decision.identity, method, module);
  return decision;
}

std::vector<std::pair<std::string, std::string>> Guard::SignOrigin(std::string_view address, std::string_view request_id,
                                                                   std::string_view method) const {
  const nlohmann::json told = {{"method", method}, {"address", ValidUtf8(address)}, {"requestId", ValidUtf8(request_id)}};
  std::string origin = told.dump();
  std::string signature = HmacSha256(secret_, origin);
  return {{std::string(kOrigin), std::move(origin)}, {std::string(kSignature), std::move(signature)}};
}

}  // namespace bulkhead
