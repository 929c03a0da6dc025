#include "supervisor/lifecycle/access.h"

#include <algorithm>

#include "supervisor/base/status.h"
#include "supervisor/manifest/document.h"

namespace bulkhead {
namespace {

constexpr uint16_t kDnsPort = 53;  // over TCP come the answers that are too long for UDP, which is open to all then (RFC 7766)

bool IsOrHolds(const std::string& folder, const std::string& path) { return path == folder || path.rfind(folder + "/", 0) == 0; }

bool NeedsTcp(const Manifest& manifest, const StoreReach& store) { return manifest.has_database && store.tcp; }

void GrantNetwork(const Manifest& manifest, const NodeAccess& node, ReachSpec& reach) {
  const StoreReach& store = node.store;
  const bool database = NeedsTcp(manifest, store);
  const ServiceClients clients = ClientsOf(manifest, node);
  if (manifest.network) {
    reach.network = *manifest.network;
    reach.ports = manifest.network_ports;
    reach.why_network = "access.network of the manifest says so";
  } else {
    reach.network = database || !clients.empty() ? NetworkAccess::kPorts : NetworkAccess::kNone;
    reach.why_network = "the manifest names no access.network";
    if (database) reach.why_network += clients.empty() ? ", so it reaches its database alone" : ", so it reaches its database and its clients";
    if (!database && !clients.empty()) reach.why_network += ", so it reaches its clients alone";
  }
  if (reach.network != NetworkAccess::kPorts) return;
  const auto permit = [&](uint16_t port, bool by_name) {
    if (std::find(reach.ports.begin(), reach.ports.end(), port) == reach.ports.end()) reach.ports.push_back(port);
    reach.lookups |= by_name;
  };
  for (uint16_t port : database ? store.ports : std::vector<uint16_t>()) permit(port, store.by_name);
  for (const auto& [name, client] : clients) permit(PlaceOf(client).port, PlaceOf(client).by_name);
  if (reach.lookups) permit(kDnsPort, true);
}

// A network that the manifest itself does not want is a conflict whether the client is configured or not.
absl::Status CheckClients(const Manifest& manifest, const NodeAccess& node) {
  for (size_t i = 0; i < manifest.clients.size(); ++i) {
    const ClientUse& use = manifest.clients[i];
    const bool there = node.clients != nullptr && node.clients->contains(use.name);
    if (!there && !use.optional) {
      const std::string message = "the client \"" + use.name + "\" of its manifest is not configured: put clients." + use.name +
                                  ".baseUrl into the supervisor's configuration and send it SIGHUP, or let the manifest say that it is optional";
      return Error("CLIENT_NOT_CONFIGURED", message, {{PointerTo("/capabilities/clients", i), "CLIENT_NOT_CONFIGURED", message, 0}});
    }
    const bool none = manifest.network == NetworkAccess::kNone;
    const bool apart = manifest.network == NetworkAccess::kLoopback && there && !PlaceOf(node.clients->at(use.name)).loopback;
    if (!none && !apart) continue;
    const std::string message = std::string("access.network is \"") + (none ? "none" : "loopback") + "\", and the client \"" + use.name +
                                "\" is reached over TCP" + (none ? "" : " on another host") +
                                ": let the manifest say {\"ports\": []}, to which the client's port is added, or leave it out";
    return Error("ACCESS_CONFLICT", message, {{"/access/network", "ACCESS_CONFLICT", message, 0}});
  }
  return absl::OkStatus();
}

absl::Status CheckNetwork(const Manifest& manifest, const StoreReach& store) {
  if (!NeedsTcp(manifest, store) || !manifest.network) return absl::OkStatus();
  const bool none = *manifest.network == NetworkAccess::kNone;
  const bool apart = *manifest.network == NetworkAccess::kLoopback && !store.loopback;
  if (!none && !apart) return absl::OkStatus();
  const std::string message = std::string("access.network is \"") + (none ? "none" : "loopback") +
                              "\", and the database of store.url is reached over TCP" + (none ? "" : " on another host") +
                              ": let the manifest say {\"ports\": []}, to which the database's port is added, or leave it out";
  return Error("ACCESS_CONFLICT", message, {{"/access/network", "ACCESS_CONFLICT", message, 0}});
}

absl::Status CheckFiles(const Manifest& manifest, const std::vector<std::string>& own_folders) {
  for (size_t i = 0; i < manifest.access_files.size(); ++i) {
    const std::string& path = manifest.access_files[i].path;
    for (const std::string& own : own_folders) {
      if (!IsOrHolds(own, path) && !IsOrHolds(path, own)) continue;
      const std::string message = "access.files names " + path + ", which " + (IsOrHolds(own, path) ? "lies in" : "holds") +
                                  " the supervisor's own folder " + own + ": no module may reach into that";
      return Error("ACCESS_CONFLICT", message, {{PointerTo("/access/files", i), "ACCESS_CONFLICT", message, 0}});
    }
  }
  return absl::OkStatus();
}

// What the node can't give counts only where the module asks for it.
bool Asks(const Manifest& manifest, const std::string& measure) {
  auto names = [&](const std::string& place) {
    return std::any_of(manifest.access_files.begin(), manifest.access_files.end(), [&](const FileAccess& f) { return IsOrHolds(place, f.path); });
  };
  if (measure == "cgroup.memory") return manifest.limit_memory > 0;
  if (measure == "cgroup.cpu") return manifest.limit_cpu_millis > 0;
  if (measure == "tmp") return !names("/tmp") && !names("/var/tmp") && !names("/dev/shm");
  if (measure == "proc") return std::none_of(manifest.access_files.begin(), manifest.access_files.end(), [](const FileAccess& f) { return f.path == "/proc"; });
  return true;
}

absl::Status CheckStrict(const Manifest& manifest, const NodeAccess& node) {
  if (!manifest.strict_isolation) return absl::OkStatus();
  const ReachSpec reach = ModuleReach(manifest, node);
  const auto given = node.machine.find(reach.network);
  if (given == node.machine.end()) return absl::OkStatus();
  std::vector<IsolationItem> missing;
  for (const IsolationItem& item : given->second) {
    if (item.missing() && Asks(manifest, item.name)) missing.push_back(item);
  }
  if (reach.lookups) {
    missing.push_back({"network", IsolationItem::State::kUnavailable,
                       "a name must be looked up over UDP: give its address in store.url, and in the baseUrl of its clients"});
  }
  if (missing.empty()) return absl::OkStatus();
  std::vector<ErrorDetail> details;
  for (const IsolationItem& item : missing) details.push_back({"/isolation", "ISOLATION_INCOMPLETE", item.name + ": " + item.why, 0});
  return Error("ISOLATION_INCOMPLETE", "it wants all of its isolation (`isolation: strict`), and this is missing: " + MissingMeasures(missing),
               std::move(details));
}

}  // namespace

ServiceClients ClientsOf(const Manifest& manifest, const NodeAccess& node) {
  ServiceClients clients;
  for (const ClientUse& use : manifest.clients) {
    if (node.clients == nullptr) continue;
    if (const auto found = node.clients->find(use.name); found != node.clients->end()) clients.insert(*found);
  }
  return clients;
}

ReachSpec ModuleReach(const Manifest& manifest, const NodeAccess& node) {
  ReachSpec reach;
  GrantNetwork(manifest, node, reach);
  if (manifest.has_database) reach.readable = node.store.socket_folders;
  for (const FileAccess& file : manifest.access_files) (file.write ? reach.foreign_writable : reach.foreign_readable).push_back(file.path);
  return reach;
}

absl::Status CheckAccess(const Manifest& manifest, const NodeAccess& node) {
  RETURN_IF_ERROR(CheckNetwork(manifest, node.store));
  RETURN_IF_ERROR(CheckClients(manifest, node));
  RETURN_IF_ERROR(CheckFiles(manifest, node.own_folders));
  return CheckStrict(manifest, node);
}

}  // namespace bulkhead
