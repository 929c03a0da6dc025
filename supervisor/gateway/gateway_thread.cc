#include "supervisor/gateway/gateway_thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <optional>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/gateway/balance.h"

namespace bulkhead {
namespace {

constexpr Millis kAcceptPause{100};     // after EMFILE and the like, instead of a hot loop
constexpr int kMaxAcceptsPerTurn = 256;
constexpr Millis kDateStep{200};        // how late the Date header may be
constexpr size_t kMaxLinksGoingAway = 8;  // of one worker, with streams that still live; beyond: 503 OVERLOADED instead of another

// Peer as text; an IPv4 client of an IPv6 socket by its IPv4 address.
std::pair<std::string, uint16_t> PeerOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "unknown";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return {text, ntohs(v4.sin_port)};
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) inet_ntop(AF_INET, v6.sin6_addr.s6_addr + 12, text, sizeof text);
    else inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return {text, ntohs(v6.sin6_port)};
  }
  return {text, 0};
}

}  // namespace

class GatewayThread::Acceptor final : public Pollable {
 public:
  Acceptor(GatewayThread& thread, UniqueFd fd, bool of_modules) : of_modules(of_modules), thread_(thread), fd_(std::move(fd)) {}
  const bool of_modules;
  int fd() const { return fd_.get(); }
  void OnEvents(uint32_t) override { Run(); }
  void Run() override { if (fd_) thread_.AcceptAll(*this); }
  void Flush() override {}
  void OnTimer() override { Run(); }
  void CloseListener() { fd_.Reset(); }

 private:
  GatewayThread& thread_;
  UniqueFd fd_;
};

namespace {

// Tells, when the last hold of it goes, that nobody takes the rest of an answer; unless its end has come.
class Gone {
 public:
  explicit Gone(std::function<void()> tell) : tell_(std::move(tell)) {}
  ~Gone() {
    if (!ended_) tell_();
  }
  void Ended() { ended_ = true; }

 private:
  const std::function<void()> tell_;
  std::atomic<bool> ended_{false};
};

}  // namespace

// What an answer that goes on is written to. The client holds `gone`, and so does the task that brings it there.
class GatewayThread::Outlet final : public LocalStream {
 public:
  Outlet(GatewayThread& thread, std::shared_ptr<Inbox> mailbox, uint64_t id, std::weak_ptr<Gone> gone)
      : thread_(thread), mailbox_(std::move(mailbox)), id_(id), gone_(std::move(gone)) {}
  ~Outlet() override {
    if (!ended_) Post([id = id_](Client& client) { client.EndLocal(id, false); });
  }
  void Write(std::string bytes, std::function<void()> then) override {
    Post([id = id_, bytes = std::move(bytes), then = std::move(then)](Client& client) { client.WriteLocal(id, bytes, then); });
  }
  void End() override {
    ended_ = true;
    if (auto gone = gone_.lock()) gone->Ended();
    Post([id = id_](Client& client) { client.EndLocal(id, true); });
  }

 private:
  // The task runs on the thread or not at all, so `thread` is alive in it.
  void Post(std::function<void(Client&)> task) {
    mailbox_->Post([&thread = thread_, id = id_, task = std::move(task)] {
      if (auto it = thread.awaiting_local_.find(id); it != thread.awaiting_local_.end()) task(*it->second);
    });
  }
  GatewayThread& thread_;
  const std::shared_ptr<Inbox> mailbox_;
  const uint64_t id_;
  const std::weak_ptr<Gone> gone_;
  bool ended_ = false;
};

// The way back from whatever thread answers.
class GatewayThread::Responder final : public LocalResponder {
 public:
  Responder(GatewayThread& thread, uint64_t id) : thread_(thread), mailbox_(thread.loop_.mailbox()), id_(id) {}
  ~Responder() override {
    if (!answered_) Post(0, {}, {});
  }
  std::unique_ptr<LocalStream> Stream(int status, HeaderList headers, std::string idle, std::function<void()> gone) override {
    answered_ = true;
    auto held = std::make_shared<Gone>(std::move(gone));
    auto outlet = std::make_unique<Outlet>(thread_, mailbox_, id_, held);
    mailbox_->Post([&thread = thread_, id = id_, status, headers = std::move(headers), idle = std::move(idle), held = std::move(held)] {
      if (auto it = thread.awaiting_local_.find(id); it != thread.awaiting_local_.end()) it->second->BeginLocal(id, status, headers, idle, held);
    });
    return outlet;
  }
  void Respond(int status, HeaderList headers, std::string body) override {
    if (!std::exchange(answered_, true)) Post(status, std::move(headers), std::move(body));
  }

 private:
  void Post(int status, HeaderList headers, std::string body) {
    // The task runs on the thread or not at all, so `thread` is alive in it.
    mailbox_->Post([&thread = thread_, id = id_, status, headers = std::move(headers), body = std::move(body)] {
      auto it = thread.awaiting_local_.find(id);
      if (it == thread.awaiting_local_.end()) return;
      Client* connection = it->second;
      thread.awaiting_local_.erase(it);
      connection->AnswerLocal(id, status, headers, body);
    });
  }
  GatewayThread& thread_;
  const std::shared_ptr<Inbox> mailbox_;
  const uint64_t id_;
  bool answered_ = false;
};

GatewayThread::GatewayThread(UniqueFd listener, const Clock& clock, Connected& connected, GatewayMeters& meters, size_t number)
    : loop_(clock),
      acceptor_(std::make_unique<Acceptor>(*this, std::move(listener), false)),
      connected_(connected),
      meters_(meters),
      number_(number),
      counters_(meters.thread(number)),
      no_module_(meters.Unmatched(kNoModule)),
      nowhere_(meters.Unmatched(kAdminLabel)),
      random_(Random::FromEntropy()),
      snapshot_(std::make_shared<RoutingSnapshot>()) {}

GatewayThread::~GatewayThread() { Join(); }

void GatewayThread::ListenForModules(UniqueFd listener) { module_acceptor_ = std::make_unique<Acceptor>(*this, std::move(listener), true); }

void GatewayThread::Start(const Parts& parts, std::shared_ptr<const RoutingSnapshot> snapshot) {
  authenticator_ = &parts.authenticator;
  local_ = &parts.local;
  tracer_ = &parts.tracer;
  access_log_ = &parts.access_log;
  thread_ = std::thread([this, snapshot = std::move(snapshot)]() mutable {
    prctl(PR_SET_NAME, "gateway");
    Use(std::move(snapshot));
    Run();
  });
}

void GatewayThread::Run() {
  BULKHEAD_CHECK(loop_.Watch(acceptor_->fd(), *acceptor_).ok());
  if (module_acceptor_) BULKHEAD_CHECK(loop_.Watch(module_acceptor_->fd(), *module_acceptor_, GatewayLoop::Watching::kReads).ok());
  loop_.Run([this] { return Done(); });
  loop_.CloseMailbox();
  // Whoever writes an answer is told now that nobody takes it, not when this object goes.
  while (!connections_.empty()) connections_.back()->CloseNow();
  links_.clear();
  leaving_.clear();
}

void GatewayThread::Join() {
  if (thread_.joinable()) thread_.join();
}

bool GatewayThread::Adopt(std::shared_ptr<const RoutingSnapshot> snapshot, std::function<void()> done) {
  return loop_.mailbox()->Post([this, snapshot = std::move(snapshot), done = std::move(done)]() mutable {
    Use(std::move(snapshot));
    done();
  });
}

bool GatewayThread::Drain(const std::string& instance, std::function<void()> done) {
  return loop_.mailbox()->Post([this, instance, done = std::move(done)]() mutable { DrainHere(instance, std::move(done)); });
}

void GatewayThread::BeginStop(Millis drain) {
  loop_.mailbox()->Post([this, drain] { StopHere(drain); });
}

// Between turns, so no decision is half made by the older snapshot.
void GatewayThread::Use(std::shared_ptr<const RoutingSnapshot> snapshot) {
  std::map<std::string, Module, std::less<>> modules;
  std::unordered_map<std::string, bool> listed;
  for (const auto& [name, routed] : snapshot->modules) {
    Module module;
    module.routed = &routed;
    module.retries = &retries_[name];
    auto link_to = [&](const DirectoryWorker& worker) {
      listed[worker.instance] = true;
      std::unique_ptr<Link>& link = links_[worker.instance];
      if (!link) {
        counters_.links_opened.Add();
        link = std::make_unique<Link>(
            loop_, std::make_shared<LinkWorker>(LinkWorker{name, worker.instance, worker.data_socket, worker.token, worker.faulty}));
        // Connected before the first request needs it; when it can't be, that request tries again.
        if (routed.module->manifest->transport == Transport::kLink) link->EnsureUp();
      }
      return link.get();
    };
    for (const DirectoryWorker& worker : routed.module->workers) module.links.push_back(link_to(worker));
    for (const DirectoryWorker& worker : routed.module->standby) module.standby.push_back(link_to(worker));
    modules.emplace(name, std::move(module));
  }
  modules_ = std::move(modules);
  snapshot_ = std::move(snapshot);
  std::erase_if(retries_, [this](const auto& one) { return !modules_.contains(one.first); });
  std::vector<std::string> gone;
  for (const auto& [instance, link] : links_) {
    if (!listed.count(instance)) gone.push_back(instance);
  }
  for (const std::string& instance : gone) Leave(instance);
  UnparkWhereDecided();
}

// Whether a request that finds no worker now may find one soon. Listed workers that can't be reached have just ended, which the
// next snapshot will say.
bool GatewayThread::Expects(const Module* module) {
  return module && (module->routed->module->starting || !module->links.empty());
}

bool GatewayThread::Park(Client& client, const std::string& name, size_t bytes) {
  if (draining_ || !Expects(FindModule(name))) return false;
  Parked& parked = parked_[name];
  if (parked.clients.size() >= limits::kMaxParkedRequests || parked.bytes + bytes > limits::kMaxParkedBytes) return false;
  parked.clients.push_back(&client);
  parked.bytes += bytes;
  counters_.parked.Add();
  return true;
}

void GatewayThread::Forget(Client& client, const std::string& name, size_t bytes) {
  auto it = parked_.find(name);
  counters_.unparked.Add();
  it->second.clients.remove(&client);
  it->second.bytes -= bytes;
  if (it->second.clients.empty()) parked_.erase(it);
}

void GatewayThread::UnparkWhereDecided() {
  for (auto it = parked_.begin(); it != parked_.end();) {
    Module* module = FindModule(it->first);
    if (Expects(module) && module->links.empty()) {
      ++it;
      continue;
    }
    Parked parked = std::move(it->second);
    it = parked_.erase(it);
    counters_.unparked.Add(parked.clients.size());
    for (Client* client : parked.clients) client->Unpark();
  }
}

void GatewayThread::Leave(const std::string& instance) {
  auto node = links_.extract(instance);
  Link& link = *node.mapped();
  leaving_.emplace(instance, std::move(node.mapped()));
  link.Leave([this, instance, &link] {
    auto [first, last] = leaving_.equal_range(instance);
    auto left = std::find_if(first, last, [&link](const auto& entry) { return entry.second.get() == &link; });
    counters_.links_closed.Add();
    loop_.Bury(std::move(left->second));
    leaving_.erase(left);
    if (leaving_.count(instance)) return;
    auto [begin, end] = drains_.equal_range(instance);
    std::vector<std::function<void()>> drained;
    for (auto it = begin; it != end; ++it) drained.push_back(std::move(it->second));
    drains_.erase(begin, end);
    for (auto& done : drained) done();
  });
}

// Puts a fresh link in the place of one that is going away. False when too many of the same worker are.
bool GatewayThread::Renew(Link*& link) {
  std::shared_ptr<const LinkWorker> worker = link->worker();
  if (leaving_.count(worker->instance) >= kMaxLinksGoingAway) return false;
  Leave(worker->instance);
  auto fresh = std::make_unique<Link>(loop_, worker);
  counters_.links_opened.Add();
  link = fresh.get();
  links_[worker->instance] = std::move(fresh);
  return true;
}

void GatewayThread::DrainHere(const std::string& instance, std::function<void()> done) {
  if (links_.count(instance)) Leave(instance);
  if (!leaving_.count(instance)) return done();
  drains_.emplace(instance, std::move(done));
}

void GatewayThread::EndTunnels(const std::string& instance) {
  loop_.mailbox()->Post([this, instance] {
    auto [first, last] = leaving_.equal_range(instance);
    for (auto it = first; it != last; ++it) it->second->EndTunnels();
  });
}

GatewayThread::Module* GatewayThread::FindModule(std::string_view name) {
  auto it = modules_.find(name);
  return it == modules_.end() ? nullptr : &it->second;
}

GatewayThread::Pick GatewayThread::PickLink(Module& module, const LinkWorker* avoid) {
  Pick pick;
  size_t count = module.links.size();
  if (count == 0) return pick;
  auto take = [&](Link*& link) {
    if (link->going_away() ? !Renew(link) : !link->CanOpen()) pick.overloaded = true;
    else if (link->EnsureUp()) pick.link = link;
  };
  auto load = [](const Link* link) { return link->going_away() ? 0 : link->outstanding(); };
  size_t left_out = count;  // none
  for (size_t i = 0; avoid && i < count; ++i) {
    if (module.links[i]->worker().get() == avoid) left_out = i;
  }
  if (const size_t others = left_out < count ? count - 1 : count; others > 0) {
    auto other = [&](size_t i) -> Link*& { return module.links[i >= left_out ? i + 1 : i]; };
    take(other(PickOfTwo(others, random_, [&](size_t i) { return load(other(i)); })));
    if (pick.link) return pick;
  }
  // That one is full, or about to end: whatever can be used, the worker to avoid last.
  for (Link*& link : module.links) {
    if (link->worker().get() == avoid) continue;
    if (!pick.link || load(link) < pick.link->outstanding()) take(link);
  }
  if (pick.link) return pick;
  for (Link*& link : module.links) {
    if (link->worker().get() == avoid) take(link);
  }
  for (Link*& link : module.standby) {
    if (!pick.link && !pick.overloaded) take(link);
  }
  return pick;
}

Authenticator::Known GatewayThread::Authenticate(std::string_view secret) {
  uint64_t version = authenticator_->version();
  if (!tokens_ || version != tokens_version_) {
    tokens_ = authenticator_->Table();
    tokens_version_ = version;
  }
  if (auto identity = tokens_->Find(secret, loop_.clock().Wall())) return {std::move(identity), false};
  return authenticator_->FindJwt(secret);
}

void GatewayThread::Verify(Client& client, std::string_view secret, uint64_t& id) {
  id = next_login_id_++;
  awaiting_login_[id] = &client;
  // The task runs on the thread or not at all, so `this` is alive in it.
  authenticator_->Verify(secret, [this, mailbox = loop_.mailbox(), id = id](JwtVerifier::Verdict verdict) {
    mailbox->Post([this, id, verdict = std::move(verdict)] {
      auto it = awaiting_login_.find(id);
      if (it == awaiting_login_.end()) return;
      Client* connection = it->second;
      awaiting_login_.erase(it);
      connection->LoginDecided(id, verdict);
    });
  });
}

std::string_view GatewayThread::Date() {
  if (date_.empty() || loop_.now() - date_at_ >= kDateStep) {
    time_t seconds = std::chrono::system_clock::to_time_t(loop_.clock().Wall());
    tm utc{};
    gmtime_r(&seconds, &utc);
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char text[64];
    snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[utc.tm_wday], utc.tm_mday, kMonths[utc.tm_mon],
             utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);  // IMF-fixdate, RFC 9110 5.6.7; not strftime: locale
    date_ = text;
    date_at_ = loop_.now();
  }
  return date_;
}

std::unique_ptr<LocalResponder> GatewayThread::AwaitLocal(Client& connection, uint64_t& id) {
  id = next_local_id_++;
  awaiting_local_[id] = &connection;
  return std::make_unique<Responder>(*this, id);
}

void GatewayThread::ForgetLocal(uint64_t id) { awaiting_local_.erase(id); }

RouteMeter* GatewayThread::LocalMeter(size_t method, std::string_view path) {
  const std::string_view name = kMeteredMethods[method];
  const std::string_view pattern = local_->RouteOf(name == "HEAD" ? "GET" : name, path);
  if (pattern.empty()) return nowhere_[method];
  RouteMeter*& meter = local_meters_[{pattern.data(), method}];
  if (meter == nullptr) meter = meters_.Route(kAdminLabel, pattern, name);
  return meter;
}

void GatewayThread::AcceptAll(Acceptor& acceptor) {
  for (int i = 0; i < kMaxAcceptsPerTurn; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    UniqueFd fd(accept4(acceptor.fd(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      acceptor.of_modules ? ModuleAccepted(std::move(fd)) : Accepted(std::move(fd), address);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM: they pass when others have closed.
    LogWarn("gateway", "accepting connections pauses", {{"reason", strerror(errno)}});
    loop_.timers().Arm(acceptor, loop_.now() + kAcceptPause);
    return;
  }
  loop_.ScheduleNextTurn(acceptor);
}

void GatewayThread::Accepted(UniqueFd fd, const sockaddr_storage& address) {
  if (connected_.clients.fetch_add(1, std::memory_order_relaxed) >= limits::kMaxClientConnections) {
    connected_.clients.fetch_sub(1, std::memory_order_relaxed);
    return Refuse(fd.get(), "The gateway has as many connections as it may; try again soon.");
  }
  int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  auto [peer, port] = PeerOf(address);
  Begin(std::move(fd), {std::move(peer), port, std::nullopt});
}

void GatewayThread::ModuleAccepted(UniqueFd fd) {
  const std::optional<uint64_t> peer = connected_.modules.Take(fd.get());
  if (!peer) return Refuse(fd.get(), "The gateway has as many connections of modules, or of this one, as it may; try again soon.");
  Begin(std::move(fd), {"", 0, peer});
}

void GatewayThread::Refuse(int fd, const char* message) {
  counters_.unserved[size_t(Unserved::kConnections)].Add();
  std::string id;
  AppendHex(id, random_.Next());
  std::string body = ErrorBody(Error("OVERLOADED", message), id);
  std::string answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\nx-request-id: " +
                       id + "\r\ndate: " + std::string(Date()) + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  (void)!send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
}

void GatewayThread::Begin(UniqueFd fd, ClientOrigin origin) {
  counters_.connections_opened.Add();
  auto connection = std::make_unique<Client>(*this, std::move(fd), std::move(origin));
  Client& c = *connection;
  c.index = connections_.size();
  connections_.push_back(std::move(connection));
  if (!c.Begin().ok()) c.CloseNow();
}

void GatewayThread::Closed(Client& connection) {
  counters_.connections_closed.Add();
  if (connection.origin().module_peer) connected_.modules.Release(*connection.origin().module_peer);
  else connected_.clients.fetch_sub(1, std::memory_order_relaxed);
  size_t index = connection.index;
  std::unique_ptr<Client> owned = std::move(connections_[index]);
  if (index + 1 != connections_.size()) {
    connections_[index] = std::move(connections_.back());
    connections_[index]->index = index;
  }
  connections_.pop_back();
  loop_.Bury(std::move(owned));
}

void GatewayThread::StopHere(Millis drain) {
  if (draining_) return;
  draining_ = true;
  acceptor_->CloseListener();
  if (module_acceptor_) module_acceptor_->CloseListener();
  stop_at_ = loop_.now() + drain;
  loop_.timers().Arm(*acceptor_, stop_at_);  // wakes the loop
  for (size_t i = connections_.size(); i-- > 0;) {
    if (i < connections_.size()) connections_[i]->Drain();
  }
}

bool GatewayThread::Done() const { return draining_ && (connections_.empty() || loop_.now() >= stop_at_); }

}  // namespace bulkhead
