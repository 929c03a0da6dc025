#include "supervisor/store/store_reach.h"

#include <libpq-fe.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "absl/strings/str_split.h"
#include "supervisor/base/service_client.h"

namespace bulkhead {
namespace {

constexpr uint16_t kDefaultPort = 5432;

std::vector<std::string> List(const std::map<std::string, std::string>& options, const std::string& name) {
  auto found = options.find(name);
  return found == options.end() || found->second.empty() ? std::vector<std::string>() : absl::StrSplit(found->second, ',');
}

std::string At(const std::vector<std::string>& list, size_t index) { return index < list.size() ? list[index] : ""; }

}  // namespace

StoreReach ReachOf(const std::string& conninfo) {
  StoreReach reach;
  std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> parsed(PQconninfoParse(conninfo.c_str(), nullptr), PQconninfoFree);
  std::map<std::string, std::string> options;
  for (const PQconninfoOption* option = parsed.get(); option != nullptr && option->keyword != nullptr; ++option) {
    if (option->val != nullptr) options[option->keyword] = option->val;
  }
  const std::vector<std::string> hosts = List(options, "host"), addresses = List(options, "hostaddr"), ports = List(options, "port");
  for (size_t i = 0; i < std::max(hosts.size(), addresses.size()); ++i) {
    const std::string address = At(addresses, i), host = address.empty() ? At(hosts, i) : address;
    if (host.empty() || host[0] == '@') continue;
    if (host[0] == '/') {
      reach.socket_folders.push_back(host);
      continue;
    }
    const int port = std::atoi(At(ports, ports.size() == 1 ? 0 : i).c_str());
    reach.tcp = true;
    reach.ports.push_back(port > 0 ? static_cast<uint16_t>(port) : kDefaultPort);
    reach.by_name |= !IsAddressHost(host) && !IsLoopbackHost(host);
    reach.loopback &= IsLoopbackHost(host);
  }
  std::sort(reach.ports.begin(), reach.ports.end());
  reach.ports.erase(std::unique(reach.ports.begin(), reach.ports.end()), reach.ports.end());
  return reach;
}

}  // namespace bulkhead
