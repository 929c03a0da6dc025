// What modules get of what they want to reach, and what is refused before anything is started.
#include "supervisor/lifecycle/access.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using State = IsolationItem::State;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Manifest Module(std::optional<NetworkAccess> network, bool has_database) {
  Manifest manifest;
  manifest.name = "orders";
  manifest.network = network;
  manifest.has_database = has_database;
  return manifest;
}

NodeAccess At(StoreReach store) {
  NodeAccess node;
  node.store = std::move(store);
  return node;
}

StoreReach Tcp(std::vector<uint16_t> ports, bool by_name = false, bool loopback = false) { return {true, std::move(ports), by_name, loopback, {}}; }

TEST(Access, WithoutAWordOnTheNetworkAModuleReachesItsDatabaseAlone) {
  EXPECT_EQ(ModuleReach(Module({}, true), {}).network, NetworkAccess::kNone);
  EXPECT_EQ(ModuleReach(Module({}, false), At(Tcp({5432}))).network, NetworkAccess::kNone);
  const ReachSpec reach = ModuleReach(Module({}, true), At(Tcp({5432, 6432}, true)));
  EXPECT_EQ(reach.network, NetworkAccess::kPorts);
  EXPECT_THAT(reach.ports, ElementsAre(5432, 6432, 53)) << "answers of a name server that are too long for UDP come over TCP";
  EXPECT_TRUE(reach.lookups);
  EXPECT_THAT(reach.why_network, HasSubstr("its database alone"));
}

TEST(Access, ThePortOfTheDatabaseIsAmongThosePermitted) {
  Manifest manifest = Module(NetworkAccess::kPorts, true);
  manifest.network_ports = {443, 5432};
  EXPECT_THAT(ModuleReach(manifest, At(Tcp({5432, 6432}))).ports, ElementsAre(443, 5432, 6432));
  EXPECT_FALSE(ModuleReach(manifest, At(Tcp({5432}))).lookups);
  EXPECT_THAT(ModuleReach(manifest, {}).ports, ElementsAre(443, 5432));
  manifest.has_database = false;
  manifest.network_ports.clear();
  EXPECT_THAT(ModuleReach(manifest, At(Tcp({5432}, true))).ports, IsEmpty());
  EXPECT_EQ(ModuleReach(Module(NetworkAccess::kOutbound, true), At(Tcp({5432}))).network, NetworkAccess::kOutbound);
}

TEST(Access, FilesAreForeignAndSocketsOfTheDatabaseAreNot) {
  Manifest manifest = Module({}, true);
  manifest.access_files = {{"/opt/a", false}, {"/opt/b", true}};
  StoreReach store;
  store.socket_folders = {"/run/postgresql"};
  const ReachSpec reach = ModuleReach(manifest, At(store));
  EXPECT_THAT(reach.foreign_readable, ElementsAre("/opt/a"));
  EXPECT_THAT(reach.foreign_writable, ElementsAre("/opt/b"));
  EXPECT_THAT(reach.readable, ElementsAre("/run/postgresql"));
}

TEST(Access, ADatabaseBehindANetworkThatIsNotWantedIsAConflict) {
  NodeAccess node;
  node.store = Tcp({5432});
  const absl::Status none = CheckAccess(Module(NetworkAccess::kNone, true), node);
  EXPECT_EQ(ErrorCode(none), "ACCESS_CONFLICT");
  EXPECT_EQ(ErrorDetails(none).at(0).path, "/access/network");
  EXPECT_EQ(ErrorCode(CheckAccess(Module(NetworkAccess::kLoopback, true), node)), "ACCESS_CONFLICT");
  EXPECT_TRUE(CheckAccess(Module(NetworkAccess::kNone, false), node).ok());
  for (auto network : {std::optional<NetworkAccess>(), std::optional(NetworkAccess::kPorts), std::optional(NetworkAccess::kOutbound)})
    EXPECT_TRUE(CheckAccess(Module(network, true), node).ok());
  node.store.loopback = true;
  EXPECT_TRUE(CheckAccess(Module(NetworkAccess::kLoopback, true), node).ok());
  EXPECT_EQ(ErrorCode(CheckAccess(Module(NetworkAccess::kNone, true), node)), "ACCESS_CONFLICT");
  EXPECT_TRUE(CheckAccess(Module(NetworkAccess::kNone, true), NodeAccess()).ok());
}

Manifest Calling(std::vector<ClientUse> clients, std::optional<NetworkAccess> network = {}) {
  Manifest manifest = Module(network, false);
  manifest.clients = std::move(clients);
  return manifest;
}

NodeAccess With(std::map<std::string, std::string> urls, StoreReach store = {}) {
  ServiceClients clients;
  for (const auto& [name, url] : urls) clients[name].base_url = url;
  NodeAccess node = At(std::move(store));
  node.clients = std::make_shared<const ServiceClients>(std::move(clients));
  return node;
}

TEST(Access, AModuleReachesItsClientsAndNoOthers) {
  const NodeAccess node = With({{"shop", "https://192.0.2.7/api"}, {"crm", "http://crm.example.org:8080"}, {"other", "https://192.0.2.8:9443"}}, Tcp({5432}));
  const ReachSpec reach = ModuleReach(Calling({{"shop"}, {"absent", true}}), node);
  EXPECT_EQ(reach.network, NetworkAccess::kPorts);
  EXPECT_THAT(reach.ports, ElementsAre(443));
  EXPECT_FALSE(reach.lookups);
  EXPECT_THAT(reach.why_network, HasSubstr("its clients alone"));
  EXPECT_TRUE(ModuleReach(Calling({{"crm"}}), node).lookups);
  Manifest both = Calling({{"crm"}, {"shop"}});
  both.has_database = true;
  EXPECT_THAT(ModuleReach(both, node).ports, testing::UnorderedElementsAre(5432, 8080, 443, 53));
  both.network = NetworkAccess::kPorts;
  both.network_ports = {25, 443};
  EXPECT_THAT(ModuleReach(both, node).ports, testing::UnorderedElementsAre(25, 443, 5432, 8080, 53));
  EXPECT_EQ(ModuleReach(Calling({{"absent", true}}), node).network, NetworkAccess::kNone);
  EXPECT_EQ(ClientsOf(both, node).size(), 2u);
  EXPECT_TRUE(ClientsOf(both, NodeAccess()).empty());
}

TEST(Access, AClientThatIsNotConfiguredOrCantBeReachedIsRefused) {
  const NodeAccess node = With({{"shop", "https://192.0.2.7"}, {"near", "http://localhost:8080"}});
  const absl::Status missing = CheckAccess(Calling({{"shop"}, {"billing"}}), node);
  EXPECT_EQ(ErrorCode(missing), "CLIENT_NOT_CONFIGURED");
  EXPECT_EQ(ErrorDetails(missing).at(0).path, "/capabilities/clients/1");
  EXPECT_THAT(std::string(missing.message()), HasSubstr("clients.billing.baseUrl"));
  EXPECT_EQ(ErrorCode(CheckAccess(Calling({{"shop"}}), NodeAccess())), "CLIENT_NOT_CONFIGURED");
  EXPECT_TRUE(CheckAccess(Calling({{"shop"}, {"billing", true}}), node).ok());
  EXPECT_EQ(ErrorCode(CheckAccess(Calling({{"shop"}}, NetworkAccess::kNone), node)), "ACCESS_CONFLICT");
  EXPECT_EQ(ErrorCode(CheckAccess(Calling({{"billing", true}}, NetworkAccess::kNone), node)), "ACCESS_CONFLICT");
  EXPECT_EQ(ErrorCode(CheckAccess(Calling({{"shop"}}, NetworkAccess::kLoopback), node)), "ACCESS_CONFLICT");
  EXPECT_TRUE(CheckAccess(Calling({{"near"}}, NetworkAccess::kLoopback), node).ok());
  EXPECT_TRUE(CheckAccess(Calling({{"shop"}}, NetworkAccess::kOutbound), node).ok());
}

TEST(Access, NoModuleReachesIntoTheSupervisorsOwnFolders) {
  NodeAccess node;
  node.own_folders = {"/var/lib/bulkhead", "/run/bulkhead/1234"};
  for (auto [path, refused] : {std::pair{"/var/lib/bulkhead", true}, {"/var/lib/bulkhead/secrets/master.key", true}, {"/var/lib", true}, {"/run", true},
                               {"/run/bulkhead/1234/w", true}, {"/var/lib/bulkhead-other", false}, {"/var/lib/postgresql", false}, {"/srv", false}}) {
    Manifest manifest = Module({}, false);
    manifest.access_files = {{"/etc/fstab", false}, {path, true}};
    const absl::Status checked = CheckAccess(manifest, node);
    EXPECT_EQ(!checked.ok(), refused) << path;
    if (!refused) continue;
    EXPECT_EQ(ErrorCode(checked), "ACCESS_CONFLICT");
    EXPECT_EQ(ErrorDetails(checked).at(0).path, "/access/files/1");
  }
}

TEST(Access, StrictIsRefusedForWhatIsMissingAndAskedFor) {
  NodeAccess node;
  node.machine[NetworkAccess::kNone] = {{"uid", State::kUnavailable, "not root"}, {"landlock", State::kOff, "switched off"},
                                        {"seccomp", State::kActive, ""},          {"cgroup.memory", State::kUnavailable, "no cgroup"},
                                        {"tmp", State::kUnavailable, "not root"},  {"proc", State::kUnavailable, "not root"},
                                        {"ipc", State::kNotAskedFor, "never"}};
  Manifest manifest = Module({}, false);
  EXPECT_TRUE(CheckAccess(manifest, node).ok());
  manifest.strict_isolation = true;
  auto missing = [&] {
    std::vector<std::string> names;
    for (const ErrorDetail& detail : ErrorDetails(CheckAccess(manifest, node))) names.push_back(detail.message.substr(0, detail.message.find(':')));
    return names;
  };
  EXPECT_EQ(ErrorCode(CheckAccess(manifest, node)), "ISOLATION_INCOMPLETE");
  EXPECT_THAT(std::string(CheckAccess(manifest, node).message()), HasSubstr("uid (not root), landlock (switched off), tmp (not root), proc (not root)"));
  manifest.limit_memory = 1 << 30;
  EXPECT_THAT(missing(), ElementsAre("uid", "landlock", "cgroup.memory", "tmp", "proc"));
  manifest.access_files = {{"/tmp/shared", true}, {"/proc", false}};
  EXPECT_THAT(missing(), ElementsAre("uid", "landlock", "cgroup.memory"));
  node.machine[NetworkAccess::kNone] = {{"uid", State::kActive, ""}};
  EXPECT_TRUE(CheckAccess(manifest, node).ok());
}

TEST(Access, StrictPortsNeedADatabaseByItsAddress) {
  NodeAccess node;
  node.store = Tcp({5432}, true);
  node.machine[NetworkAccess::kPorts] = {{"network", State::kActive, ""}};
  Manifest manifest = Module(NetworkAccess::kPorts, true);
  manifest.strict_isolation = true;
  EXPECT_THAT(std::string(CheckAccess(manifest, node).message()), HasSubstr("give its address in store.url"));
  node.store.by_name = false;
  EXPECT_TRUE(CheckAccess(manifest, node).ok());
}

}  // namespace
}  // namespace bulkhead
