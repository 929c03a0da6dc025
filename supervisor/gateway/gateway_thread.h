// One thread of the gateway: its listening socket, its clients, its links to every ready worker, and the snapshot that routes.
// Only Post-like calls (Adopt, Drain, EndTunnels, Stop) come from outside; the rest belongs to the thread.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "supervisor/auth/authenticator.h"
#include "supervisor/base/random.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/gateway_loop.h"
#include "supervisor/gateway/link.h"
#include "supervisor/gateway/local_service.h"
#include "supervisor/gateway/module_call.h"
#include "supervisor/gateway/retry_budget.h"
#include "supervisor/gateway/route_table.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/telemetry/access_log.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/tracer.h"

namespace bulkhead {

// Where the requests of a module are counted.
struct ModuleMeters {
  std::vector<RouteMeter*> routes;  // in the order of the manifest
  ByMeteredMethod unmatched{};
};

// What the threads of a gateway share of those who connect.
struct Connected {
  std::atomic<size_t> clients{0};  // for limits::kMaxClientConnections
  ModuleConnections modules;
  ModuleCallers callers;
};

// A Directory with its routes compiled; made once per publication, shared by the threads. Immutable.
struct RoutingSnapshot {
  struct Module {
    std::shared_ptr<const DirectoryModule> module;
    std::shared_ptr<const RouteTable> routes;
    std::shared_ptr<const ModuleMeters> meters;
  };
  std::map<std::string, Module, std::less<>> modules;
};

class GatewayThread {
 public:
  // `number` is the thread's in `meters`.
  GatewayThread(UniqueFd listener, const Clock& clock, Connected& connected, GatewayMeters& meters, size_t number);
  ~GatewayThread();
  // From this one modules are accepted. Before Start().
  void ListenForModules(UniqueFd listener);

  struct Parts {
    const Authenticator& authenticator;
    LocalService& local;
    Tracer& tracer;
    AccessLog& access_log;
  };
  void Start(const Parts& parts, std::shared_ptr<const RoutingSnapshot> snapshot);
  // Thread-safe. False when the thread has ended; then `done` is the caller's to call.
  bool Adopt(std::shared_ptr<const RoutingSnapshot> snapshot, std::function<void()> done);
  bool Drain(const std::string& instance, std::function<void()> done);
  void EndTunnels(const std::string& instance);
  bool Turn(std::function<void()> done) { return loop_.mailbox()->Post(std::move(done)); }
  void BeginStop(Millis drain);
  void Join();

  // For connections, on the thread.
  struct Module {
    const RoutingSnapshot::Module* routed = nullptr;
    std::vector<Link*> links;
    std::vector<Link*> standby;      // when none of these can be reached
    RetryBudget* retries = nullptr;  // the thread's, for as long as the module is routed
  };
  struct Pick {
    Link* link = nullptr;
    bool overloaded = false;  // there are workers, but each has its fill
  };
  GatewayLoop& loop() { return loop_; }
  Module* FindModule(std::string_view name);
  // The less loaded of two ready workers that are drawn (balance.h), or the least loaded of all when that one can't be used; `avoid` only
  // when there is no other, and one that stands by when none can be reached: who is listed has just ended, then, and that one takes its place.
  Pick PickLink(Module& module, const LinkWorker* avoid);
  // Keeps a request that found no worker until there is one, or none is to be expected: then Client::Unpark(). False when none is
  // expected now, or limits::kMaxParkedRequests or kMaxParkedBytes would be passed.
  bool Park(Client& client, const std::string& module, size_t bytes);
  void Forget(Client& client, const std::string& module, size_t bytes);  // parked, and leaves by itself
  Authenticator::Known Authenticate(std::string_view secret);
  // Has a pending token verified; then Client::LoginDecided(), unless ForgetLogin() was called before.
  void Verify(Client& client, std::string_view secret, uint64_t& id);
  void ForgetLogin(uint64_t id) { awaiting_login_.erase(id); }
  const Authenticator& authenticator() const { return *authenticator_; }
  uint64_t token_version() const { return authenticator_->version(); }
  ModuleCallers& module_callers() { return connected_.callers; }
  LocalService& local() { return *local_; }
  Random& random() { return random_; }
  size_t number() const { return number_; }
  GatewayCounters& counters() { return counters_; }
  Tracer& tracer() { return *tracer_; }
  AccessLog& access_log() { return *access_log_; }
  // Where a request is counted that the LocalService answers, or that is for no module.
  RouteMeter* LocalMeter(size_t method, std::string_view path);
  RouteMeter* NoModuleMeter(size_t method) { return no_module_[method]; }
  bool draining() const { return draining_; }
  std::string_view Date();  // as in the Date header
  std::unique_ptr<LocalResponder> AwaitLocal(Client& connection, uint64_t& id);
  void ForgetLocal(uint64_t id);
  void Closed(Client& connection);

 private:
  class Acceptor;
  class Outlet;
  class Responder;
  struct Parked {
    std::list<Client*> clients;  // in order of arrival
    size_t bytes = 0;
  };
  static bool Expects(const Module* module);
  void UnparkWhereDecided();
  void Run();
  void Use(std::shared_ptr<const RoutingSnapshot> snapshot);
  // Makes room for a link's successor, or for none: it opens nothing more and goes when its streams have ended.
  void Leave(const std::string& instance);
  bool Renew(Link*& link);
  void DrainHere(const std::string& instance, std::function<void()> done);
  void AcceptAll(Acceptor& acceptor);
  void Accepted(UniqueFd fd, const sockaddr_storage& address);
  void ModuleAccepted(UniqueFd fd);
  void Begin(UniqueFd fd, ClientOrigin origin);
  void Refuse(int fd, const char* message);
  void StopHere(Millis drain);
  bool Done() const;

  GatewayLoop loop_;
  std::unique_ptr<Acceptor> acceptor_, module_acceptor_;  // the latter may be null
  Connected& connected_;
  GatewayMeters& meters_;
  const size_t number_;
  GatewayCounters& counters_;
  const ByMeteredMethod no_module_, nowhere_;
  std::map<std::pair<const char*, size_t>, RouteMeter*> local_meters_;  // by pattern, whose text stays, and method
  Tracer* tracer_ = nullptr;
  AccessLog* access_log_ = nullptr;
  Random random_;
  const Authenticator* authenticator_ = nullptr;
  LocalService* local_ = nullptr;
  std::shared_ptr<const TokenTable> tokens_;
  uint64_t tokens_version_ = 0;

  std::shared_ptr<const RoutingSnapshot> snapshot_;
  std::map<std::string, Module, std::less<>> modules_;
  std::map<std::string, RetryBudget, std::less<>> retries_;  // by module
  std::unordered_map<std::string, std::unique_ptr<Link>> links_;    // by instance
  std::unordered_multimap<std::string, std::unique_ptr<Link>> leaving_;  // gone from the Directory, or going away; streams still open
  std::unordered_multimap<std::string, std::function<void()>> drains_;
  std::vector<std::unique_ptr<Client>> connections_;
  std::unordered_map<uint64_t, Client*> awaiting_local_;
  std::unordered_map<uint64_t, Client*> awaiting_login_;
  std::map<std::string, Parked, std::less<>> parked_;  // by module
  uint64_t next_local_id_ = 1, next_login_id_ = 1;
  bool draining_ = false;
  Instant stop_at_{};
  std::string date_;
  Instant date_at_{};
  std::thread thread_;
};

}  // namespace bulkhead
