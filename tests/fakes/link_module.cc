#include "tests/fakes/link_module.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "supervisor/base/log.h"

namespace bulkhead {

using link::Type;

std::string FakeRequest::Header(const std::string& name) const {
  std::string found;
  for (const auto& [n, v] : headers) {
    if (n == name) found += (found.empty() ? "" : "|") + v;
  }
  return found;
}

FakeLinkModule::FakeLinkModule(std::string socket, std::string token, Handler on_end)
    : token_(std::move(token)), on_end_(std::move(on_end)), wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  unlink(socket.c_str());
  listener_.Reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  BULKHEAD_CHECK(socket.size() <= kMaxSocketPath);
  memcpy(address.sun_path, socket.data(), socket.size());
  BULKHEAD_CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  BULKHEAD_CHECK(listen(listener_.get(), 64) == 0);
  thread_ = std::thread([this] { Run(); });
}

FakeLinkModule::~FakeLinkModule() {
  Do([](FakeLinkModule& m) { m.stop_ = true; });
  thread_.join();
}

void FakeLinkModule::Do(std::function<void(FakeLinkModule&)> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
}

void FakeLinkModule::Kill() {
  Do([](FakeLinkModule& m) {
    m.killed_ = true;
    m.listener_.Reset();
    m.peers_.clear();
    m.Note([](Counts& c) { ++c.closed; });
  });
  WaitFor([](const Counts& c) { return c.closed > 0; });
}

void FakeLinkModule::Note(const std::function<void(Counts&)>& change) {
  std::lock_guard lock(mutex_);
  change(counts_);
  changed_.notify_all();
}

FakeLinkModule::Counts FakeLinkModule::counts() {
  std::lock_guard lock(mutex_);
  return counts_;
}

bool FakeLinkModule::WaitFor(const std::function<bool(const Counts&)>& done) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return done(counts_); });
}

void FakeLinkModule::Run() {
  while (!stop_) {
    std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    std::vector<uint64_t> ids;
    for (auto& [id, peer] : peers_) {
      fds.push_back({peer.fd.get(), short((reads ? POLLIN : 0) | (peer.out.empty() ? 0 : POLLOUT)), 0});
      ids.push_back(id);
    }
    poll(fds.data(), fds.size(), -1);
    uint64_t count;
    (void)!read(wake_.get(), &count, sizeof count);
    std::vector<std::function<void(FakeLinkModule&)>> tasks;
    {
      std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task(*this);
    if (listener_ && (fds[1].revents & POLLIN)) {
      UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd && drop_connections > 0) {
        --drop_connections;
      } else if (fd) {
        Peer& peer = peers_[next_peer_++];
        peer.fd = std::move(fd);
        link::AppendHello(peer.out, hello);
        Note([](Counts& c) { ++c.connections; });
      }
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      if (fds[i + 2].revents & (POLLIN | POLLHUP | POLLERR)) Read(ids[i]);
    }
    for (auto& [id, peer] : peers_) Pump(peer);
  }
}

void FakeLinkModule::Read(uint64_t id) {
  auto it = peers_.find(id);
  if (it == peers_.end()) return;
  char buffer[65536];
  ssize_t n = recv(it->second.fd.get(), buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) it->second.in.append(buffer, size_t(n));
  if (n <= 0 || !TakeFrames(id)) {
    peers_.erase(id);
    Note([](Counts& c) { ++c.closed; });
  }
}

bool FakeLinkModule::TakeFrames(uint64_t id) {
  for (;;) {
    auto it = peers_.find(id);
    if (it == peers_.end()) return true;  // a handler closed it
    std::string& in = it->second.in;
    if (in.size() < link::kHeaderSize) return true;
    link::Header header = link::GetHeader(in.data());
    const char* problem = link::CheckHeader(header);
    if (problem) {
      LogError("test", problem);
      return false;
    }
    if (in.size() < link::kHeaderSize + header.length) return true;
    std::string payload = in.substr(link::kHeaderSize, header.length);
    in.erase(0, link::kHeaderSize + header.length);
    if (!TakeFrame(id, header, payload)) return false;
  }
}

bool FakeLinkModule::TakeFrame(uint64_t id, const link::Header& header, const std::string& payload) {
  Peer& peer = peers_[id];
  if (!peer.hello) {
    auto hello = link::GetHello(payload);
    if (header.type != Type::kHello || !hello || hello->token != token_) return false;
    peer.hello = true;
    peer.window = hello->window;
    return true;
  }
  bool end = header.flags & link::kEnd;
  std::string_view body(payload);
  body.remove_prefix(header.head_length);
  switch (header.type) {
    case Type::kRequest: {
      FakeRequest& request = peer.requests[header.stream];
      request.connection = id;
      request.stream = header.stream;
      request.flags = header.flags;
      link::HeadReader reader(std::string_view(payload).substr(0, header.head_length));
      std::string_view method, target, name, value;
      uint16_t count = 0;
      if (!reader.Str(method) || !reader.Str(target) || !reader.U16(count)) return false;
      request.method = method;
      request.target = target;
      for (uint16_t i = 0; i < count; ++i) {
        if (!reader.Str(name) || !reader.Str(value)) return false;
        request.headers.emplace_back(name, value);
      }
      if (!reader.AtEnd()) return false;
      peer.outgoing[header.stream].credit = peer.window;
      Note([&](Counts& c) {
        ++c.requests;
        c.last = request;
      });
      if (on_head) on_head(*this, request);
      break;
    }
    case Type::kData:
      if (header.flags & link::kTrailers) {
        link::HeadReader reader(payload);
        std::string_view name, value;
        uint16_t count = 0;
        if (!reader.U16(count)) return false;
        for (uint16_t i = 0; i < count; ++i) {
          if (!reader.Str(name) || !reader.Str(value)) return false;
          if (peer.requests.count(header.stream)) peer.requests[header.stream].trailers.emplace_back(name, value);
        }
      }
      break;
    case Type::kWindow:
      if (auto it = peer.outgoing.find(header.stream); it != peer.outgoing.end()) it->second.credit += link::internal::Get32(payload.data());
      return true;
    case Type::kCancel:
      peer.requests.erase(header.stream);
      peer.outgoing.erase(header.stream);
      Note([&](Counts& c) {
        ++c.cancels;
        c.last_cancel = header.status;
      });
      return true;
    case Type::kGoaway:
      Note([](Counts& c) { ++c.goaways; });
      return true;
    case Type::kPing:
      Note([&](Counts& c) {
        ++(end ? c.pongs : c.pings);
        if (end) c.last_pong = payload;
      });
      if (!end && answer_pings) {
        char pong[link::kHeaderSize];
        link::PutHeader(pong, {8, 0, Type::kPing, link::kEnd, 0, 0});
        peer.out.append(pong, sizeof pong).append(payload);
      }
      return true;
    case Type::kHello:
    case Type::kResponse: return false;
  }
  if (!peers_.count(id)) return true;
  auto it = peer.requests.find(header.stream);
  if (it == peer.requests.end()) return true;
  FakeRequest& request = it->second;
  if (keep_bodies) request.body.append(body);
  if (!body.empty()) {
    Note([&](Counts& c) {
      c.body_bytes += body.size();
      if (c.bodies.size() < kMaxFramesNoted) c.bodies.emplace_back(header.stream, body.size());
    });
    if (give_credit && !end) link::AppendWindow(peer.out, header.stream, uint32_t(body.size()));
    if (on_body) on_body(*this, request);
  }
  if (end && peers_.count(id) && peer.requests.count(header.stream)) {
    request.ended = true;
    Note([&](Counts& c) { c.last = request; });
    on_end_(*this, request);
  }
  return true;
}

void FakeLinkModule::Upgrade(FakeRequest& request, const FakeHeaders& headers) {
  size_t at = peers_[request.connection].out.size();
  Respond(request, 101, headers, "", false);
  peers_[request.connection].out[at + 9] = char(link::kUpgrade);
}

void FakeLinkModule::Respond(FakeRequest& request, int status, const FakeHeaders& headers, const std::string& body, bool end) {
  Peer& peer = peers_[request.connection];
  std::string head;
  link::HeadWriter writer(head);
  writer.U16(uint16_t(headers.size()));
  for (const auto& [name, value] : headers) writer.Pair(name, value);
  char header[link::kHeaderSize];
  link::PutHeader(header, {uint32_t(head.size() + body.size()), request.stream, Type::kResponse, uint8_t(end ? link::kEnd : 0), uint16_t(status),
                           uint32_t(head.size())});
  peer.out.append(header, sizeof header).append(head).append(body);
  Outgoing& outgoing = peer.outgoing[request.stream];
  outgoing.credit -= int64_t(body.size());
  outgoing.ended = end;
}

void FakeLinkModule::Send(FakeRequest& request, std::string bytes, bool end) {
  Outgoing& outgoing = peers_[request.connection].outgoing[request.stream];
  outgoing.pending += bytes;
  outgoing.end = end;
}

void FakeLinkModule::SendZeros(FakeRequest& request, size_t count) {
  Outgoing& outgoing = peers_[request.connection].outgoing[request.stream];
  outgoing.zeros = count;
  outgoing.end = true;
}

void FakeLinkModule::Raw(FakeRequest& request, const std::string& bytes) { peers_[request.connection].out += bytes; }

void FakeLinkModule::Cancel(FakeRequest& request, link::CancelCode code) {
  Peer& peer = peers_[request.connection];
  link::AppendCancel(peer.out, request.stream, code);
  peer.outgoing.erase(request.stream);
}

void FakeLinkModule::GoAway(FakeRequest& request, uint32_t last) {
  char frame[link::kHeaderSize];
  link::PutHeader(frame, {0, last, Type::kGoaway, 0, 0, 0});
  peers_[request.connection].out.append(frame, sizeof frame);
}

void FakeLinkModule::Credit(const std::vector<FakeRequest>& requests, uint32_t bytes) {
  for (const FakeRequest& request : requests) link::AppendWindow(peers_[request.connection].out, request.stream, bytes);
}

void FakeLinkModule::CloseConnection(FakeRequest& request) { peers_.erase(request.connection); }

void FakeLinkModule::Pump(Peer& peer) {
  for (auto& [stream, outgoing] : peer.outgoing) {
    while (!outgoing.ended && peer.out.size() < 256 * 1024) {
      size_t waiting = outgoing.pending.size() + outgoing.zeros;
      size_t take = std::min<size_t>({waiting, 16 * 1024, size_t(std::max<int64_t>(outgoing.credit, 0))});
      bool end = outgoing.end && take == waiting;
      if (take == 0 && !end) break;
      std::string bytes = outgoing.pending.substr(0, take);
      outgoing.pending.erase(0, bytes.size());
      outgoing.zeros -= take - bytes.size();
      bytes.resize(take, '0');
      char header[link::kHeaderSize];
      link::PutHeader(header, {uint32_t(take), stream, Type::kData, uint8_t(end ? link::kEnd : 0), 0, 0});
      peer.out.append(header, sizeof header).append(bytes);
      outgoing.credit -= int64_t(take);
      outgoing.ended = end;
    }
  }
  if (peer.out.empty()) return;
  ssize_t n = send(peer.fd.get(), peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
  if (n > 0) peer.out.erase(0, size_t(n));
}

}  // namespace bulkhead
