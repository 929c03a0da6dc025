#include "supervisor/process/wire.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <type_traits>

namespace bulkhead::wire {
namespace {

constexpr int kPacketsPerTurn = 64;  // then other descriptors of the loop get their turn

class Writer {
 public:
  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void Text(std::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    out_.append(text);
  }
  void Texts(const std::vector<std::string>& texts) {
    Number(static_cast<uint32_t>(texts.size()));
    for (const std::string& text : texts) Text(text);
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

// Every read is checked; after the first that does not fit all others give zeros, and Complete() is false.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <typename T>
  void Number(T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    if (in_.size() < sizeof value) {
      ok_ = false;
      value = T{};
      return;
    }
    memcpy(&value, in_.data(), sizeof value);
    in_.remove_prefix(sizeof value);
  }
  void Flag(bool& value) {
    uint8_t byte = 0;
    Number(byte);
    value = byte != 0;
  }
  void Text(std::string& text) {
    uint32_t size = 0;
    Number(size);
    if (size > in_.size()) {
      ok_ = false;
      return;
    }
    text.assign(in_.substr(0, size));
    in_.remove_prefix(size);
  }
  void Texts(std::vector<std::string>& texts) {
    texts.resize(Count(sizeof(uint32_t)));
    for (std::string& text : texts) Text(text);
  }
  // A count of elements of at least `least` bytes each.
  uint32_t Count(size_t least) {
    uint32_t count = 0;
    Number(count);
    if (count > in_.size() / least) {
      ok_ = false;
      return 0;
    }
    return count;
  }
  bool Complete() const { return ok_ && in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

enum FdFlag : uint8_t { kControl = 1, kOut = 2, kErr = 4 };

void Put(Writer& w, const ReachSpec& reach) {
  for (const auto* paths : {&reach.readable, &reach.writable, &reach.foreign_readable, &reach.foreign_writable}) w.Texts(*paths);
  w.Text(reach.tmp);
  w.Number(reach.network);
  w.Number(static_cast<uint32_t>(reach.ports.size()));
  for (uint16_t port : reach.ports) w.Number(port);
  w.Number(static_cast<uint8_t>(reach.lookups));
  w.Text(reach.why_network);
}

void Get(Reader& r, ReachSpec& reach) {
  for (auto* paths : {&reach.readable, &reach.writable, &reach.foreign_readable, &reach.foreign_writable}) r.Texts(*paths);
  r.Text(reach.tmp);
  r.Number(reach.network);
  reach.ports.resize(r.Count(sizeof(uint16_t)));
  for (uint16_t& port : reach.ports) r.Number(port);
  r.Flag(reach.lookups);
  r.Text(reach.why_network);
}

void Put(Writer& w, const SpawnSpec& spec, uint8_t fd_flags) {
  w.Text(spec.id);
  w.Text(spec.executable);
  w.Texts(spec.args);
  w.Number(static_cast<uint32_t>(spec.env.size()));
  for (const auto& [name, value] : spec.env) {
    w.Text(name);
    w.Text(value);
  }
  w.Text(spec.cwd);
  w.Number(static_cast<uint8_t>(spec.change_user));
  w.Number(spec.uid);
  w.Number(spec.gid);
  w.Number(static_cast<uint8_t>(spec.sandbox));
  w.Number(static_cast<uint8_t>(spec.strict));
  w.Text(spec.kin);
  Put(w, spec.reach);
  w.Number(spec.limits.memory_bytes);
  w.Number(spec.limits.cpu_millis);
  w.Number(spec.limits.pids);
  w.Number(spec.limits.nofile);
  w.Number(spec.limits.file_bytes);
  w.Number(static_cast<int32_t>(spec.graceful_signal));
  w.Number(static_cast<uint32_t>(spec.notes.size()));
  for (const auto& [name, value] : spec.notes) {
    w.Text(name);
    w.Text(value);
  }
  w.Number(fd_flags);
}

uint8_t Get(Reader& r, SpawnSpec& spec) {
  constexpr size_t kLeastText = sizeof(uint32_t);
  r.Text(spec.id);
  r.Text(spec.executable);
  r.Texts(spec.args);
  spec.env.resize(r.Count(2 * kLeastText));
  for (auto& [name, value] : spec.env) {
    r.Text(name);
    r.Text(value);
  }
  r.Text(spec.cwd);
  r.Flag(spec.change_user);
  r.Number(spec.uid);
  r.Number(spec.gid);
  r.Flag(spec.sandbox);
  r.Flag(spec.strict);
  r.Text(spec.kin);
  Get(r, spec.reach);
  r.Number(spec.limits.memory_bytes);
  r.Number(spec.limits.cpu_millis);
  r.Number(spec.limits.pids);
  r.Number(spec.limits.nofile);
  r.Number(spec.limits.file_bytes);
  int32_t graceful_signal = 0;
  r.Number(graceful_signal);
  spec.graceful_signal = graceful_signal;
  spec.notes.resize(r.Count(2 * kLeastText));
  for (auto& [name, value] : spec.notes) {
    r.Text(name);
    r.Text(value);
  }
  uint8_t fd_flags = 0;
  r.Number(fd_flags);
  return fd_flags;
}

}  // namespace

std::string Encode(Request& request, std::vector<UniqueFd>& fds) {
  Writer w;
  w.Number(request.kind);
  w.Number(request.serial);
  switch (request.kind) {
    case Request::Kind::kSpawn:
    case Request::Kind::kInspect: {
      uint8_t flags = 0;
      for (auto [fd, flag] : {std::pair{&request.spec.control, kControl}, {&request.spec.out, kOut}, {&request.spec.err, kErr}}) {
        if (!*fd) continue;
        flags |= flag;
        fds.push_back(std::move(*fd));
      }
      Put(w, request.spec, flags);
      break;
    }
    case Request::Kind::kSignal:
      w.Text(request.id);
      w.Number(request.signal);
      break;
    case Request::Kind::kKillTree:
      w.Text(request.id);
      break;
    case Request::Kind::kMakeFolder:
      w.Text(request.path);
      w.Number(request.uid);
      w.Number(request.gid);
      w.Number(request.mode);
      break;
    case Request::Kind::kRemoveFolder:
      w.Text(request.path);
      break;
  }
  return w.Take();
}

bool Decode(std::string_view packet, std::vector<UniqueFd>& fds, Request& request) {
  Reader r(packet);
  r.Number(request.kind);
  r.Number(request.serial);
  switch (request.kind) {
    case Request::Kind::kSpawn:
    case Request::Kind::kInspect: {
      uint8_t flags = Get(r, request.spec);
      size_t next = 0;
      for (auto [fd, flag] : {std::pair{&request.spec.control, kControl}, {&request.spec.out, kOut}, {&request.spec.err, kErr}}) {
        if (!(flags & flag)) continue;
        if (next == fds.size()) return false;
        *fd = std::move(fds[next++]);
      }
      break;
    }
    case Request::Kind::kSignal:
      r.Text(request.id);
      r.Number(request.signal);
      break;
    case Request::Kind::kKillTree:
      r.Text(request.id);
      break;
    case Request::Kind::kMakeFolder:
      r.Text(request.path);
      r.Number(request.uid);
      r.Number(request.gid);
      r.Number(request.mode);
      break;
    case Request::Kind::kRemoveFolder:
      r.Text(request.path);
      break;
    default:
      return false;
  }
  return r.Complete();
}

std::string Encode(const Reply& reply) {
  Writer w;
  w.Number(reply.kind);
  w.Number(reply.serial);
  w.Number(reply.code);
  w.Text(reply.text);
  w.Number(static_cast<int32_t>(reply.process.pid));
  w.Number(static_cast<uint32_t>(reply.process.isolation.size()));
  for (const IsolationItem& item : reply.process.isolation) {
    w.Text(item.name);
    w.Number(item.state);
    w.Text(item.why);
  }
  w.Text(reply.process.cpu_stat);
  w.Number(static_cast<int32_t>(reply.exit.exit_code));
  w.Number(static_cast<int32_t>(reply.exit.signal));
  w.Number(static_cast<uint8_t>(reply.exit.core_dumped));
  w.Number(static_cast<uint8_t>(reply.exit.oom_killed));
  w.Number(static_cast<int32_t>(reply.exit.forks_refused));
  w.Number(static_cast<uint32_t>(reply.killed.size()));
  for (const KilledProcess& killed : reply.killed) {
    w.Text(killed.name);
    w.Number(static_cast<uint8_t>(killed.main));
  }
  return w.Take();
}

bool Decode(std::string_view packet, Reply& reply) {
  Reader r(packet);
  r.Number(reply.kind);
  r.Number(reply.serial);
  r.Number(reply.code);
  r.Text(reply.text);
  int32_t pid = 0;
  r.Number(pid);
  reply.process.pid = pid;
  reply.process.isolation.resize(r.Count(2 * sizeof(uint32_t) + 1));
  for (IsolationItem& item : reply.process.isolation) {
    r.Text(item.name);
    r.Number(item.state);
    r.Text(item.why);
  }
  r.Text(reply.process.cpu_stat);
  int32_t exit_code = 0, signal = 0, forks_refused = 0;
  r.Number(exit_code);
  r.Number(signal);
  reply.exit.exit_code = exit_code;
  reply.exit.signal = signal;
  r.Flag(reply.exit.core_dumped);
  r.Flag(reply.exit.oom_killed);
  r.Number(forks_refused);
  reply.exit.forks_refused = forks_refused;
  reply.killed.resize(r.Count(sizeof(uint32_t) + 1));
  for (KilledProcess& killed : reply.killed) {
    r.Text(killed.name);
    r.Flag(killed.main);
  }
  return r.Complete();
}

int SendPacket(int socket, std::string_view packet, const std::vector<UniqueFd>& fds) {
  iovec part{const_cast<char*>(packet.data()), packet.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFds)] = {};
  if (!fds.empty()) {
    if (fds.size() > kMaxPacketFds) return E2BIG;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    for (size_t i = 0; i < fds.size(); ++i) {
      int fd = fds[i].get();
      memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
    }
  }
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

Received ReceivePacket(int socket, std::string& packet, std::vector<UniqueFd>& fds) {
  packet.resize(kMaxPacket);
  fds.clear();
  iovec part{packet.data(), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFds)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t size;
  do {
    size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? Received::kNothing : Received::kEnd;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  if (size == 0) return Received::kEnd;
  packet.resize(static_cast<size_t>(size));
  // A packet that was cut decodes as malformed: its end is missing, or a descriptor is.
  return Received::kPacket;
}

PacketSocket::~PacketSocket() {
  if (loop_ != nullptr && socket_) loop_->Unwatch(socket_.get());
}

void PacketSocket::Attach(Loop& loop, PacketFn packet, std::function<void()> end) {
  loop_ = &loop;
  packet_ = std::move(packet);
  end_ = std::move(end);
  writing_ = !queue_.empty();
  Rewatch();
}

void PacketSocket::Rewatch() {
  loop_->Watch(socket_.get(), EPOLLIN | (writing_ ? EPOLLOUT : 0u), [this](uint32_t events) { OnEvents(events); });
}

void PacketSocket::Send(std::string packet, std::vector<UniqueFd> fds) {
  if (!socket_) return;
  queue_.push_back({std::move(packet), std::move(fds)});
  if (queue_.size() == 1) Flush();
}

void PacketSocket::Flush() {
  while (!queue_.empty()) {
    int error = SendPacket(socket_.get(), queue_.front().packet, queue_.front().fds);
    if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) {
      queue_.clear();  // the other side is gone: the read side reports it
      break;
    }
    if (error != 0) break;  // full, or too many descriptors in flight: when it is writable again
    queue_.pop_front();
  }
  if (loop_ == nullptr || writing_ == !queue_.empty()) return;
  writing_ = !queue_.empty();
  Rewatch();
}

void PacketSocket::End() {
  loop_->Unwatch(socket_.get());
  socket_.Reset();
  queue_.clear();
  if (end_) std::exchange(end_, nullptr)();
}

void PacketSocket::OnEvents(uint32_t events) {
  if (events & EPOLLOUT) Flush();
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  std::string packet;
  std::vector<UniqueFd> fds;
  for (int i = 0; i < kPacketsPerTurn; ++i) {
    switch (ReceivePacket(socket_.get(), packet, fds)) {
      case Received::kPacket:
        packet_(packet, fds);
        break;
      case Received::kNothing:
        return;
      case Received::kEnd:
        End();
        return;
    }
  }
}

}  // namespace bulkhead::wire
