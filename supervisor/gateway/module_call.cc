#include "supervisor/gateway/module_call.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/gateway/request_head.h"

namespace bulkhead {
namespace {

constexpr uint64_t kByProcess = uint64_t{1} << 32;  // a peer that is known by its process rather than by its user

// A header that is a whole number from 0 to `most`. Once at most; what is larger counts as `most`.
absl::Status ReadNumber(const http1::HeaderField& field, std::optional<int64_t>& value, int64_t most) {
  int64_t number = 0;
  if (value || !http1::ParseContentLength(field.value, number)) {
    const std::string name(field.name);
    return Error("INVALID_ARGUMENT", name + " must be one whole number.", {{name, "INVALID", "is no whole number, or comes twice"}});
  }
  value = std::min(number, most);
  return absl::OkStatus();
}

}  // namespace

void ModuleCallers::Add(const std::string& token, std::shared_ptr<const Manifest> manifest) {
  std::string subject = std::string(kModuleSubjects) + manifest->name;
  auto caller = std::make_shared<const ModuleCaller>(ModuleCaller{std::move(manifest), std::move(subject)});
  callers_.With([&](auto& callers) { callers[Sha256(token)] = std::move(caller); });
  version_.fetch_add(1, std::memory_order_release);
}

void ModuleCallers::Remove(const std::string& token) {
  callers_.With([&](auto& callers) { callers.erase(Sha256(token)); });
  version_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const ModuleCaller> ModuleCallers::Find(std::string_view token) const {
  const std::string key = Sha256(token);
  return callers_.With([&](const auto& callers) -> std::shared_ptr<const ModuleCaller> {
    auto found = callers.find(key);
    return found == callers.end() ? nullptr : found->second;
  });
}

std::optional<uint64_t> ModuleConnections::Take(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return std::nullopt;
  const uint64_t who = peer.uid == geteuid() ? kByProcess | uint32_t(peer.pid) : peer.uid;
  return counts_.With([&](Counts& counts) -> std::optional<uint64_t> {
    size_t& own = counts.by_peer[who];
    const bool taken = counts.all < limits::kMaxModuleConnections && own < limits::kMaxConnectionsPerModule;
    if (taken) ++own, ++counts.all;
    if (own == 0) counts.by_peer.erase(who);
    return taken ? std::optional(who) : std::nullopt;
  });
}

void ModuleConnections::Release(uint64_t peer) {
  counts_.With([&](Counts& counts) {
    --counts.all;
    if (auto own = counts.by_peer.find(peer); --own->second == 0) counts.by_peer.erase(own);
  });
}

absl::StatusOr<CallTerms> ReadCallTerms(const http1::RequestHead& head) {
  CallTerms terms;
  bool has_token = false;
  std::optional<int64_t> timeout, hops;
  for (size_t i = 0; i < head.field_count; ++i) {
    const http1::HeaderField& field = head.fields[i];
    if (field.field != http1::Field::kReserved) continue;
    if (field.name == "x-bulkhead-token") {
      terms.token = std::exchange(has_token, true) ? std::string_view() : field.value;
    } else if (field.name == kTimeoutHeader) {
      RETURN_IF_ERROR(ReadNumber(field, timeout, limits::kMaxRouteTimeout.count()));
    } else if (field.name == kHopsHeader) {
      RETURN_IF_ERROR(ReadNumber(field, hops, limits::kMaxCallHops));
    }
  }
  if (timeout) terms.timeout = Millis(*timeout);
  terms.hops = int(hops.value_or(0));
  if (terms.hops >= limits::kMaxCallHops) {
    return Error("LOOP_DETECTED", "The call has come through " + std::to_string(limits::kMaxCallHops) +
                                      " modules already, which is as many as one request may; look for modules that call each other in a circle.");
  }
  return terms;
}

absl::Status MayCall(const Manifest& caller, std::string_view called) {
  const auto declared = [&](const DependencySpec& dependency) { return dependency.module == called; };
  if (std::any_of(caller.dependencies.begin(), caller.dependencies.end(), declared)) return absl::OkStatus();
  const std::string other(called);
  if (called == caller.name) return Error("MODULE_NOT_A_DEPENDENCY", "A module does not call itself through the gateway; call the function instead.");
  return Error("MODULE_NOT_A_DEPENDENCY", caller.name + " does not declare that it depends on " + other +
                                              ", so it may not call it. Add \"" + other +
                                              "\": \"<range of its versions>\" to dependencies.modules in the manifest of " + caller.name + ".");
}

Identity CallerIdentity(const ModuleCaller& caller, const Manifest& called) {
  Identity identity;
  identity.subject = caller.subject;
  identity.permissions = called.permissions;
  identity.credential.kind = Credential::Kind::kModule;
  return identity;
}

}  // namespace bulkhead
