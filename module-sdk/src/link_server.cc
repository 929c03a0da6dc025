#include "link_server.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace bulkhead::sdk {
namespace {

constexpr size_t kReadBuffer = 256 * 1024;
constexpr size_t kMaxLinks = 256;                   // gateway threads; beyond: the newest is closed
constexpr auto kHelloTimeout = std::chrono::seconds(10);  // for the first frame; beyond: close
constexpr int kEventsPerTurn = 64;
constexpr int kBacklog = 128;

}  // namespace

int ListenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw std::runtime_error("the socket path " + path + " is empty or longer than 107 bytes");
  }
  memcpy(address.sun_path, path.data(), path.size());
  struct stat old;
  if (lstat(path.c_str(), &old) == 0 && S_ISSOCK(old.st_mode)) unlink(path.c_str());
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(fd, kBacklog) != 0) {
    std::string why = strerror(errno);
    if (fd >= 0) close(fd);
    throw std::runtime_error("can't listen on " + path + ": " + why);
  }
  return fd;
}

LinkServer::LinkServer(int listener, std::string token, Dispatcher& dispatcher)
    : listener_(listener), token_(std::move(token)), dispatcher_(dispatcher), buffer_(kReadBuffer) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || wake_ < 0) throw std::runtime_error(std::string("no epoll or eventfd: ") + strerror(errno));
  epoll_event event{EPOLLIN, {.ptr = &listener_}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event);
  event.data.ptr = &wake_;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  thread_ = std::thread([this] { Loop(); });
}

LinkServer::~LinkServer() {
  Post([this] { stopping_ = true; });
  thread_.join();
  connections_.clear();
  if (listener_ >= 0) close(listener_);
  close(wake_);
  close(epoll_);
}

void LinkServer::BeginDrain(std::chrono::milliseconds socket_wait) {
  dispatcher_.RefuseSockets();
  std::lock_guard lock(mutex_);
  idle_ = false;
  commands_.push_back([this, socket_wait] {
    draining_ = true;
    if (listener_ >= 0) close(std::exchange(listener_, -1));
    for (auto& connection : connections_) {
      connection->GoAway(socket_wait);
      MarkDirty(connection.get());
    }
  });
  Wake();
}

bool LinkServer::WaitIdle(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(mutex_);
  return idle_changed_.wait_until(lock, until, [&] { return idle_; });
}

void LinkServer::CancelAll() {
  Post([this] {
    for (auto& connection : connections_) {
      connection->CancelAll();
      MarkDirty(connection.get());
    }
  });
}

void LinkServer::Notify(std::shared_ptr<LinkStream> stream) {
  const bool here = std::this_thread::get_id() == loop_thread_;
  // An inline handler, called with what is being read: the answer goes into this turn's flush by the shortest way.
  if (here && reading_ && !stream->socket()) {
    if (stream->connection && !stream->connection->closed) stream->connection->OnStream(stream);
    return;
  }
  if (stream->notified.exchange(true)) return;
  std::lock_guard lock(mutex_);
  bool first = notified_.empty();
  notified_.push_back(std::move(stream));
  // What the loop itself notifies is looked at later in the same turn.
  if (first && (!here || looked_)) Wake();
}

void LinkServer::Post(std::function<void()> command) {
  std::lock_guard lock(mutex_);
  commands_.push_back(std::move(command));
  Wake();
}

void LinkServer::Wake() {
  uint64_t one = 1;
  while (write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void LinkServer::Loop() {
  loop_thread_ = std::this_thread::get_id();
  while (!stopping_) {
    bool silent = false;
    for (auto& connection : connections_) silent |= !connection->greeted();
    int timeout = UntilNextTimer();
    Turn(silent && (timeout < 0 || timeout > 1'000) ? 1'000 : timeout);
    if (silent) CloseSilent();
  }
}

void LinkServer::Turn(int timeout_ms) {
  epoll_event events[kEventsPerTurn];
  int n = epoll_wait(epoll_, events, kEventsPerTurn, timeout_ms);
  for (int i = 0; i < n; ++i) {
    void* who = events[i].data.ptr;
    if (who == &wake_) {
      uint64_t count;
      [[maybe_unused]] ssize_t r = read(wake_, &count, sizeof count);
    } else if (who == &listener_) {
      Accept();
    } else {
      auto* connection = static_cast<LinkConnection*>(who);
      if (connection->closed) continue;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        reading_ = true;
        const bool open = connection->OnReadable(buffer_.data(), buffer_.size());
        reading_ = false;
        if (!open) {
          Close(connection);
          continue;
        }
      }
      MarkDirty(connection);
    }
  }
  RunTimers();
  RunPosted();
  FlushDirty();
  if (any_closed_) {
    std::erase_if(connections_, [](const auto& connection) { return connection->closed; });
    any_closed_ = false;
  }
  if (draining_) UpdateIdle();
  looked_ = false;
}

void LinkServer::Accept() {
  while (listener_ >= 0) {
    int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    if (connections_.size() >= kMaxLinks) {
      log_.Warn("a link was refused: too many connections", {{"limit", kMaxLinks}});
      close(fd);
      continue;
    }
    auto connection = std::make_unique<LinkConnection>(fd, token_, dispatcher_, *this, gathered_bytes_);
    epoll_event event{EPOLLIN, {.ptr = connection.get()}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    connections_.push_back(std::move(connection));
  }
}

void LinkServer::RunPosted() {
  std::vector<std::shared_ptr<LinkStream>> notified;
  std::vector<std::function<void()>> commands;
  {
    std::lock_guard lock(mutex_);
    commands.swap(commands_);
  }
  for (auto& command : commands) command();
  {
    std::lock_guard lock(mutex_);
    notified.swap(notified_);  // also by the commands
    looked_ = true;
  }
  for (auto& stream : notified) {
    stream->notified = false;
    if (!stream->connection || stream->connection->closed) continue;
    stream->connection->OnStream(stream);
    Arm(stream);
    MarkDirty(stream->connection);
  }
}

void LinkServer::Arm(const std::shared_ptr<LinkStream>& stream) {
  LinkSocket* socket = stream->socket();
  if (!socket) return;
  auto at = socket->deadline();
  if (at >= stream->armed_at) return;
  stream->armed_at = at;
  timers_.push({at, stream});
}

// What falls due is a ping or the end of a wait: a few bytes for the stream, no work.
void LinkServer::RunTimers() {
  if (timers_.empty()) return;
  auto now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.top().at <= now) {
    Timer timer = timers_.top();
    timers_.pop();
    auto stream = timer.stream.lock();
    if (!stream || !stream->connection || stream->connection->closed || stream->armed_at != timer.at) continue;
    stream->armed_at = std::chrono::steady_clock::time_point::max();
    if (stream->socket()->OnTimer(*stream, now)) dispatcher_.Turn(stream);
    Arm(stream);
  }
}

// Milliseconds; -1 for none.
int LinkServer::UntilNextTimer() const {
  if (timers_.empty()) return -1;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.top().at - std::chrono::steady_clock::now()).count();
  return int(std::max<int64_t>(left, 0));
}

void LinkServer::FlushDirty() {
  for (size_t i = 0; i < dirty_.size(); ++i) {
    LinkConnection* connection = dirty_[i];
    connection->dirty = false;
    if (connection->closed) continue;
    if (!connection->Flush() || connection->finished()) {
      Close(connection);
      continue;
    }
    if (connection->wants_write() == connection->armed) continue;
    connection->armed = connection->wants_write();
    uint32_t events = EPOLLIN;
    if (connection->armed) events |= EPOLLOUT;
    epoll_event event{events, {.ptr = connection}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd(), &event);
  }
  dirty_.clear();
}

void LinkServer::MarkDirty(LinkConnection* connection) {
  if (!std::exchange(connection->dirty, true)) dirty_.push_back(connection);
}

void LinkServer::Close(LinkConnection* connection) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, connection->fd(), nullptr);
  connection->closed = true;
  any_closed_ = true;
}

void LinkServer::CloseSilent() {
  auto now = std::chrono::steady_clock::now();
  for (auto& connection : connections_) {
    if (!connection->greeted() && now - connection->opened() > kHelloTimeout) {
      log_.Warn("a link was closed: no HELLO within 10 s");
      Close(connection.get());
    }
  }
  std::erase_if(connections_, [](const auto& connection) { return connection->closed; });
}

void LinkServer::UpdateIdle() {
  bool idle = true;
  for (auto& connection : connections_) idle &= connection->idle();
  std::lock_guard lock(mutex_);
  idle_ = idle;
  if (idle) idle_changed_.notify_all();
}

}  // namespace bulkhead::sdk
