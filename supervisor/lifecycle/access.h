// What a module's manifest wants to reach, and how much of its isolation it insists on, against what this node can give. Pure, but for links in
// the paths of files, which the spawner follows.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/base/service_client.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/process/spawner.h"
#include "supervisor/store/store_reach.h"

namespace bulkhead {

// What this node gives to a module that asks for every limit, by its access to the network.
using MachineIsolation = std::map<NetworkAccess, std::vector<IsolationItem>>;

struct NodeAccess {
  StoreReach store;
  std::shared_ptr<const ServiceClients> clients;  // that the operator has configured; null: none
  std::vector<std::string> own_folders;  // of the supervisor, which no module may ask for: data, sockets
  MachineIsolation machine;              // empty: not known, so nothing is refused before the spawner does it
};

// Of those that the manifest names, what is configured: what its workers are given. By name.
ServiceClients ClientsOf(const Manifest& manifest, const NodeAccess& node);

// What a module of this manifest reaches beside its own folders, which are the worker's to name. Of the network what is declared, and else
// nothing but its database and its clients; with kPorts the ports of these are always among them, and that of
// name servers where one has to be asked.
ReachSpec ModuleReach(const Manifest& manifest, const NodeAccess& node);

// ACCESS_CONFLICT: it wants what it can't have here: its database or a client through a network that it does not want, the supervisor's own
// folders. CLIENT_NOT_CONFIGURED: a client that is not optional is not there.
// ISOLATION_INCOMPLETE: it wants to be isolated strictly, and measures are missing, which the sentence and the details name.
absl::Status CheckAccess(const Manifest& manifest, const NodeAccess& node);

}  // namespace bulkhead
