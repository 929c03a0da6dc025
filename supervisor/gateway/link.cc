#include "supervisor/gateway/link.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

using link::CancelCode;
using link::Type;

constexpr size_t kStreamBacklog = 64 * 1024;         // body bytes of one stream that wait here; beyond: its client is not read
constexpr size_t kMaxLinkBacklog = 4 * 1024 * 1024;  // bytes that the module has not taken; beyond: no new streams
constexpr size_t kSendBatch = 256 * 1024;            // body bytes are framed only up to here, so that PING and CANCEL don't wait long
constexpr size_t kBodyFrame = 32 * 1024;             // body bytes per frame and turn of a stream
constexpr int64_t kMaxCredit = 0x7fffffff;
constexpr uint32_t kMaxStreamId = 0x7fffffff;
constexpr Millis kPingAfter{10'000};    // of silence while streams are open
constexpr Millis kPingTimeout{10'000};  // beyond: the link is lost
constexpr Millis kPingCheck{2'000};
constexpr Millis kLookAgain{1'000};    // behind a link that was closed: whether its module lives on
constexpr Millis kBlameInterval{1'000};  // between two reports about one module; what comes between is counted

}  // namespace

Link::Link(GatewayLoop& loop, std::shared_ptr<const LinkWorker> worker) : loop_(loop), worker_(std::move(worker)) {}

Link::~Link() = default;

bool Link::EnsureUp() {
  if (leaving_) return false;
  if (state_ == State::kUp) return !going_away_;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (worker_->socket.size() > kMaxSocketPath) return false;
  memcpy(address.sun_path, worker_->socket.data(), worker_->socket.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return false;
  // On a Unix socket this is answered at once; EAGAIN means that the module's backlog is full.
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
  if (!loop_.Watch(fd.get(), *this, GatewayLoop::Watching::kReads).ok()) return false;
  fd_ = std::move(fd);
  state_ = State::kUp;
  readable_ = hangup_ = going_away_ = ping_outstanding_ = unheard_ = false;
  writable_ = true;
  last_id_ = 0;
  partial_.clear();  // here and not in Fail(), whose callers may still look at it
  peer_max_frame_ = link::kMaxFrame;
  peer_window_ = link::kWindow;
  last_received_ = loop_.now();
  out_.clear();
  out_at_ = 0;
  link::Hello hello;
  hello.token = worker_->token;
  link::AppendHello(out_, hello);
  loop_.MarkLinkDirty(*this);
  return true;
}

bool Link::CanOpen() const {
  return streams_.size() < limits::kMaxStreamsPerLink && Unsent() < kMaxLinkBacklog && last_id_ < kMaxStreamId;
}

void Link::Open(Stream& stream, StreamSink& sink, std::string_view frame, bool end) {
  BULKHEAD_CHECK(state_ == State::kUp && !stream.open());
  stream.link_ = this;
  stream.sink_ = &sink;
  stream.id_ = ++last_id_;
  link::Header header = link::GetHeader(frame.data());
  stream.send_credit_ = int64_t(peer_window_) - (header.length - header.head_length);
  stream.receive_credit_ = link::kWindow;
  stream.consumed_ = 0;
  stream.pending_.clear();
  stream.pending_at_ = 0;
  stream.trailers_.clear();
  stream.asks_tunnel_ = header.flags & link::kUpgrade;
  stream.end_queued_ = stream.end_sent_ = end;
  stream.head_seen_ = stream.queued_ = stream.wants_room_ = false;
  streams_.emplace(stream.id_, &stream);
  unheard_ = true;
  size_t at = out_.size();
  out_.append(frame);
  link::internal::Put32(out_.data() + at + 4, stream.id_);
  if (last_id_ == kMaxStreamId) going_away_ = true;
  if (!armed()) loop_.timers().Arm(*this, loop_.now() + kPingCheck);
  loop_.MarkLinkDirty(*this);
}

size_t Link::Room(Stream& stream) {
  size_t waiting = stream.pending_.size() - stream.pending_at_;
  if (waiting < kStreamBacklog) return kStreamBacklog - waiting;
  stream.wants_room_ = true;
  return 0;
}

void Link::Send(Stream& stream, std::string_view bytes, bool end) {
  if (stream.pending_.empty() && stream.pending_.capacity() < 64) stream.pending_ = loop_.TakeBuffer();
  stream.pending_.append(bytes);
  stream.end_queued_ |= end;
  Queue(stream);
  loop_.MarkLinkDirty(*this);
}

void Link::End(Stream& stream, std::string trailers) {
  stream.trailers_ = std::move(trailers);
  Send(stream, {}, true);
}

void Link::Cancel(Stream& stream, CancelCode code) {
  link::AppendCancel(out_, stream.id_, code);
  stream.end_sent_ = true;  // CANCEL has said it
  loop_.MarkLinkDirty(*this);
  EndStream(stream);
}

void Link::Consumed(Stream& stream, size_t bytes) {
  stream.consumed_ += uint32_t(bytes);
  if (stream.consumed_ < link::kWindow / 2) return;
  link::AppendWindow(out_, stream.id_, stream.consumed_);
  stream.receive_credit_ += stream.consumed_;
  stream.consumed_ = 0;
  loop_.MarkLinkDirty(*this);
}

void Link::Leave(std::function<void()> left) {
  leaving_ = true;
  left_ = std::move(left);
  const bool tunnels = std::any_of(streams_.begin(), streams_.end(), [](const auto& one) { return one.second->asks_tunnel_; });
  if (!tunnels) SayGoaway();
  LeaveIfIdle();
}

void Link::EndTunnels() {
  if (leaving_) SayGoaway();
}

void Link::SayGoaway() {
  if (state_ != State::kUp || std::exchange(said_goaway_, true)) return;
  char goaway[link::kHeaderSize];
  link::PutHeader(goaway, {0, 0, Type::kGoaway, 0, 0, 0});
  out_.append(goaway, sizeof goaway);
  loop_.MarkLinkDirty(*this);
}

void Link::LeaveIfIdle() {
  if (!streams_.empty()) return;
  if (going_away_ && state_ == State::kUp && !leaving_) return Fail(StreamLoss::kClosed, "went away");
  if (!leaving_ || !left_) return;
  if (state_ == State::kUp) {
    (void)!send(fd_.get(), out_.data() + out_at_, Unsent(), MSG_NOSIGNAL);  // what does not fit is moot: the close says the same
    state_ = State::kDown;
    fd_.Reset();
  }
  std::exchange(left_, nullptr)();
}

void Link::CloseNow(StreamLoss loss) {
  if (state_ == State::kUp) Fail(loss, "closed by the gateway");
}

void Link::OnEvents(uint32_t events) {
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable_ = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) hangup_ = true;
  if (events & EPOLLOUT) {
    writable_ = true;
    if (fd_) loop_.WatchAgain(fd_.get(), *this, GatewayLoop::Watching::kReads);
    if (Unsent() > 0 || !ready_.empty()) loop_.MarkLinkDirty(*this);
  }
  Run();
}

void Link::Run() {
  if (state_ != State::kUp) return;
  if (readable_) ReadOnce();
  if (state_ == State::kUp && readable_) loop_.ScheduleNextTurn(*this);
  if (state_ == State::kUp && writable_ && !ready_.empty()) loop_.MarkLinkDirty(*this);
}

void Link::ReadOnce() {
  ssize_t n = recv(fd_.get(), loop_.read_buffer(), GatewayLoop::kReadBuffer, 0);
  if (n < 0) {
    if (errno == EINTR) return;
    readable_ = false;
    if (errno != EAGAIN && errno != EWOULDBLOCK) Fail(StreamLoss::kClosed, strerror(errno));
    return;
  }
  if (n == 0) {
    const char* how = in_frame_ || !partial_.empty() ? "closed its data link within a frame" : "closed its data link";
    if (!going_away_ && !leaving_) closed_ = how;
    return Fail(StreamLoss::kClosed, how);
  }
  // A short read has emptied the socket; what comes later is a new edge. Only an end that was announced has to be read.
  if (size_t(n) < GatewayLoop::kReadBuffer && !hangup_) readable_ = false;
  last_received_ = loop_.now();
  unheard_ = false;
  TakeBytes(loop_.read_buffer(), size_t(n));
}

void Link::TakeBytes(const char* data, size_t size) {
  // A part that did not come whole waits in partial_; bodies never wait here, they are handed on as they come.
  auto gather = [&](size_t want, std::string_view& part) {
    if (partial_.empty() && size >= want) {
      part = {data, want};
      data += want;
      size -= want;
      return true;
    }
    size_t take = std::min(want - partial_.size(), size);
    partial_.append(data, take);
    data += take;
    size -= take;
    part = partial_;
    return partial_.size() == want;
  };
  while (state_ == State::kUp) {
    if (in_body_) {
      size_t take = std::min(size, body_left_);
      if (take == 0) return;
      body_left_ -= take;
      std::string_view bytes(data, take);
      data += take;
      size -= take;
      if (body_left_ == 0) in_body_ = in_frame_ = false;
      TakeBody(bytes, body_left_ == 0);
      continue;
    }
    std::string_view part;
    if (!in_frame_) {
      if (size == 0 || !gather(link::kHeaderSize, part)) return;
      bool ok = TakeHeader(part.data());
      partial_.clear();
      if (!ok) return;
      in_frame_ = true;
    }
    bool streams_body = header_.type == Type::kResponse || (header_.type == Type::kData && !(header_.flags & link::kTrailers));
    size_t want = streams_body ? header_.head_length : header_.length;
    if (!gather(want, part)) return;
    body_left_ = header_.length - want;
    in_body_ = body_left_ > 0;
    if (!in_body_) in_frame_ = false;
    bool ok = TakeFrame(part);
    partial_.clear();
    if (!ok) return;
  }
}

bool Link::TakeHeader(const char* at) {
  header_ = link::GetHeader(at);
  auto refuse = [this](std::string_view why) {
    Fail(StreamLoss::kProtocol, why);
    return false;
  };
  if (const char* problem = link::CheckHeader(header_)) return refuse(std::string("sent a malformed frame: ") + problem);
  if (!hello_seen_ && header_.type != Type::kHello) return refuse("sent something before its HELLO");
  switch (header_.type) {
    case Type::kHello: return !hello_seen_ || refuse("sent a second HELLO");
    case Type::kRequest: return refuse("sent a REQUEST, which only the gateway may");
    case Type::kPing: return header_.length == 8 || refuse("sent a malformed PING");
    case Type::kGoaway: return header_.length == 0 || refuse("sent a malformed GOAWAY");
    case Type::kResponse:
    case Type::kData:
    case Type::kWindow:
    case Type::kCancel: return header_.stream <= last_id_ || refuse("sent a frame for a stream that was never opened");
  }
  return true;
}

bool Link::TakeFrame(std::string_view payload) {
  switch (header_.type) {
    case Type::kHello: {
      auto hello = link::GetHello(payload);
      if (!hello || hello->version != link::kVersion || hello->max_frame < link::kMinMaxFrame || hello->window > kMaxCredit) {
        Fail(StreamLoss::kProtocol, "sent a malformed HELLO, or speaks another version of the link");
        break;
      }
      hello_seen_ = true;
      if (!closed_.empty()) Blame(std::exchange(closed_, {}));  // it lives, so closing the last one was its own doing
      peer_max_frame_ = std::min(hello->max_frame, link::kMaxFrame);
      int64_t delta = int64_t(hello->window) - peer_window_;  // streams that did not wait for it
      peer_window_ = hello->window;
      for (auto& [id, stream] : streams_) {
        stream->send_credit_ += delta;
        Queue(*stream);
      }
      break;
    }
    case Type::kPing:
      if (header_.flags & link::kEnd) {
        ping_outstanding_ = false;
      } else {
        char pong[link::kHeaderSize];
        link::PutHeader(pong, {8, 0, Type::kPing, link::kEnd, 0, 0});
        if (Unsent() > kMaxLinkBacklog) {
          Fail(StreamLoss::kProtocol, "sends PINGs and does not read the answers");
          break;
        }
        out_.append(pong, sizeof pong).append(payload);
        loop_.MarkLinkDirty(*this);
      }
      break;
    case Type::kGoaway: TakeGoaway(); break;
    case Type::kResponse: TakeResponse(payload); break;
    case Type::kData:
      if (header_.flags & link::kTrailers) TakeTrailers(payload);
      else if (!in_body_) TakeBody({}, true);  // an empty frame
      break;
    case Type::kWindow: TakeWindow(payload); break;
    case Type::kCancel:
      if (Stream* stream = Find(header_.stream)) {
        StreamSink* sink = stream->sink_;
        stream->end_sent_ = true;
        EndStream(*stream);
        CancelCode code = CancelCode(header_.status);
        sink->OnLost(code == CancelCode::kRefused ? StreamLoss::kRefused : code == CancelCode::kTimeout ? StreamLoss::kTimeout : StreamLoss::kCancelled);
      }
      break;
    case Type::kRequest: break;
  }
  return state_ == State::kUp;
}

Stream* Link::Find(uint32_t id) {
  auto it = streams_.find(id);
  return it == streams_.end() ? nullptr : it->second;  // ended ones are dropped (rule 2)
}

void Link::TakeResponse(std::string_view head) {
  Stream* stream = Find(header_.stream);
  if (!stream) return;
  uint8_t expected = stream->asks_tunnel_ && header_.status == 101 ? uint8_t(link::kUpgrade) : uint8_t(header_.flags & link::kEnd);
  if (stream->head_seen_ || header_.flags != expected || (header_.status == 101 && expected != link::kUpgrade)) {
    return FailStream(*stream, stream->head_seen_ ? "answered a request twice" : "sent a RESPONSE whose status and flags do not fit");
  }
  stream->head_seen_ = true;
  StreamSink* sink = stream->sink_;
  bool whole = header_.flags & link::kEnd;
  if (whole && body_left_ == 0) EndStream(*stream);
  bool was_open = stream->open();
  if (sink->OnHead(header_.status, head, whole, body_left_)) return;
  if (!was_open) sink->OnLost(StreamLoss::kProtocol);
  Fail(StreamLoss::kProtocol, "sent a response head that does not parse");
}

void Link::TakeBody(std::string_view bytes, bool last) {
  Stream* stream = Find(header_.stream);
  if (!stream) return;
  stream->receive_credit_ -= int64_t(bytes.size());
  if (!stream->head_seen_) return FailStream(*stream, "sent DATA before a RESPONSE");
  if (stream->receive_credit_ < 0) return FailStream(*stream, "sent more than its credit");
  StreamSink* sink = stream->sink_;
  bool end = last && (header_.flags & link::kEnd);
  if (end) EndStream(*stream);
  if (end || !bytes.empty()) sink->OnBody(bytes, end);
}

void Link::TakeTrailers(std::string_view pairs) {
  Stream* stream = Find(header_.stream);
  if (!stream) return;
  if (stream->head_seen_ && !stream->sink_->OnTrailers(pairs)) return Fail(StreamLoss::kProtocol, "sent trailers that do not parse");
  TakeBody({}, true);
}

void Link::TakeWindow(std::string_view payload) {
  Stream* stream = Find(header_.stream);
  if (!stream) return;
  stream->send_credit_ += link::internal::Get32(payload.data());
  if (stream->send_credit_ > kMaxCredit) return FailStream(*stream, "gave more than 2^31-1 bytes of credit");
  Queue(*stream);
  if (stream->queued_) loop_.MarkLinkDirty(*this);
}

void Link::TakeGoaway() {
  going_away_ = true;
  std::vector<Stream*> refused;
  for (auto& [id, stream] : streams_) {
    if (id > header_.stream) refused.push_back(stream);
  }
  for (Stream* stream : refused) {
    StreamSink* sink = stream->sink_;
    stream->end_sent_ = true;
    EndStream(*stream);
    sink->OnLost(StreamLoss::kRefused);
  }
  LeaveIfIdle();
}

// Ends the link's part. When the answer came before the request's end, CANCEL tells the module that no more of it will come (rule 4).
void Link::EndStream(Stream& stream) {
  if (!stream.end_sent_) {
    link::AppendCancel(out_, stream.id_, CancelCode::kClientGone);
    loop_.MarkLinkDirty(*this);
  }
  if (stream.queued_) std::erase(ready_, &stream);
  streams_.erase(stream.id_);
  stream.link_ = nullptr;
  stream.queued_ = false;
  loop_.GiveBuffer(std::move(stream.pending_));
  stream.pending_at_ = 0;
  if (leaving_ || going_away_) LeaveIfIdle();
}

void Link::FailStream(Stream& stream, std::string_view why) {
  StreamSink* sink = stream.sink_;
  Blame(why);
  Cancel(stream, CancelCode::kProtocol);
  sink->OnLost(StreamLoss::kProtocol);
}

void Link::Blame(std::string_view why) {
  Instant now = loop_.now();
  if (blamed_ != Instant{} && now - blamed_ < kBlameInterval) {
    ++blames_left_out_;
    return;
  }
  blamed_ = now;
  std::string message(why);
  if (int more = std::exchange(blames_left_out_, 0)) message += " (and " + std::to_string(more) + " faults more since the last report)";
  LogWarn("gateway", "a module is at fault on its data link", {{"module", worker_->module}, {"instance", worker_->instance}, {"why", "it " + message}});
  if (worker_->faulty) worker_->faulty(WorkerFault::kLink, std::move(message));
}

void Link::Fail(StreamLoss loss, std::string_view why) {
  if (state_ != State::kUp) return;
  if (loss == StreamLoss::kProtocol) {
    Blame(why);
  } else if (loss == StreamLoss::kUnresponsive || !streams_.empty()) {
    LogWarn("gateway", "link lost", {{"module", worker_->module}, {"instance", worker_->instance}, {"why", std::string(why)},
                                     {"inFlight", std::to_string(streams_.size())}});
  }
  if (loss == StreamLoss::kUnresponsive && worker_->faulty) worker_->faulty(WorkerFault::kUnresponsive, std::string(why));
  // Who was not at fault must not pay for it: for the streams a broken link is a closed one.
  StreamLoss told = loss == StreamLoss::kProtocol ? StreamLoss::kClosed : loss;
  if (told == StreamLoss::kClosed && !hello_seen_) told = StreamLoss::kUnopened;
  state_ = State::kDown;
  fd_.Reset();
  out_ = std::string();
  out_at_ = 0;
  last_id_ = 0;
  ready_.clear();
  in_frame_ = in_body_ = hello_seen_ = readable_ = false;
  auto streams = std::exchange(streams_, {});
  for (auto& [id, stream] : streams) {
    stream->link_ = nullptr;
    stream->queued_ = false;
    loop_.GiveBuffer(std::move(stream->pending_));
    stream->pending_at_ = 0;
  }
  for (auto& [id, stream] : streams) stream->sink_->OnLost(told);
  if (!closed_.empty() && !leaving_) loop_.timers().Arm(*this, loop_.now() + kLookAgain);
  LeaveIfIdle();
}

bool Link::Sendable(const Stream& stream) const {
  if (stream.pending_.size() > stream.pending_at_) return stream.send_credit_ > 0;
  return stream.end_queued_ && !stream.end_sent_;
}

void Link::Queue(Stream& stream) {
  if (stream.queued_ || !Sendable(stream)) return;
  stream.queued_ = true;
  ready_.push_back(&stream);
}

void Link::FillFromStreams() {
  while (!ready_.empty() && Unsent() < kSendBatch) {
    Stream& stream = *ready_.front();
    ready_.pop_front();
    stream.queued_ = false;
    size_t waiting = stream.pending_.size() - stream.pending_at_;
    size_t take = std::min({waiting, kBodyFrame, size_t(peer_max_frame_), size_t(std::max<int64_t>(stream.send_credit_, 0))});
    bool end = stream.end_queued_ && take == waiting;
    if (take == 0 && !end) continue;
    char header[link::kHeaderSize];
    bool trailers = end && !stream.trailers_.empty();
    if (take > 0 || !trailers) {
      link::PutHeader(header, {uint32_t(take), stream.id_, Type::kData, uint8_t(end && !trailers ? link::kEnd : 0), 0, 0});
      out_.append(header, sizeof header).append(stream.pending_, stream.pending_at_, take);
    }
    if (trailers) {
      uint32_t length = uint32_t(stream.trailers_.size());
      link::PutHeader(header, {length, stream.id_, Type::kData, uint8_t(link::kEnd | link::kTrailers), 0, length});
      out_.append(header, sizeof header).append(stream.trailers_);
    }
    stream.send_credit_ -= int64_t(take);
    stream.pending_at_ += take;
    stream.end_sent_ = end;
    if (stream.pending_at_ == stream.pending_.size()) {
      stream.pending_.clear();
      stream.pending_at_ = 0;
    } else if (stream.pending_at_ >= kBodyFrame) {
      stream.pending_.erase(0, stream.pending_at_);
      stream.pending_at_ = 0;
    }
    Queue(stream);
    if (stream.wants_room_ && take > 0) {
      stream.wants_room_ = false;
      stream.sink_->OnRoom();
    }
  }
}

void Link::Flush() {
  if (state_ != State::kUp || !writable_) return;
  FillFromStreams();
  if (Unsent() == 0) return;
  ssize_t n = send(fd_.get(), out_.data() + out_at_, Unsent(), MSG_NOSIGNAL);
  if (n < 0) {
    if (errno == EINTR) return loop_.ScheduleNextTurn(*this);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return AwaitWritable();
    writable_ = false;
    // What the module sent before it left is still to be read; the end follows it.
    if (errno == EPIPE || errno == ECONNRESET) {
      readable_ = hangup_ = true;
      return loop_.ScheduleNextTurn(*this);
    }
    return Fail(StreamLoss::kClosed, strerror(errno));
  }
  out_at_ += size_t(n);
  if (Unsent() > 0) {
    AwaitWritable();
    if (out_at_ >= kSendBatch) {
      out_.erase(0, out_at_);
      out_at_ = 0;
    }
    return;
  }
  out_at_ = 0;
  out_.clear();
  if (out_.capacity() > kMaxLinkBacklog) out_ = std::string();
  if (!ready_.empty()) loop_.ScheduleNextTurn(*this);
}

void Link::AwaitWritable() {
  writable_ = false;
  loop_.WatchAgain(fd_.get(), *this, GatewayLoop::Watching::kBoth);
}

void Link::OnTimer() {
  if (state_ == State::kDown && !closed_.empty()) EnsureUp();
  // Armed again by the next request. Those that were given up on do not end the question whether anybody is there.
  if (state_ != State::kUp || (streams_.empty() && !unheard_)) return;
  Instant now = loop_.now();
  if (ping_outstanding_ && now - ping_sent_ >= kPingTimeout) return Fail(StreamLoss::kUnresponsive, "did not answer a PING on its data link");
  if (!ping_outstanding_ && now - last_received_ >= kPingAfter) SendPing();
  loop_.timers().Arm(*this, now + kPingCheck);
}

void Link::SendPing() {
  char ping[link::kHeaderSize + 8] = {};
  link::PutHeader(ping, {8, 0, Type::kPing, 0, 0, 0});
  out_.append(ping, sizeof ping);
  ping_outstanding_ = true;
  ping_sent_ = loop_.now();
  loop_.MarkLinkDirty(*this);
}

}  // namespace bulkhead
