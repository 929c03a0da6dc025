#include "link_connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "secret.h"

namespace bulkhead::sdk {
namespace {

using link::CancelCode;
using link::Type;
constexpr size_t kMaxStreams = 1'024;              // per connection, but for open sockets; beyond: CANCEL refused
constexpr size_t kTurnBytes = 256 * 1024;          // put together per turn and connection; the rest waits in its streams
constexpr size_t kSharedTurnBytes = 64 * 1024;     // the same beside short answers, so that the next one finds less before it
constexpr int kSharedTurns = 16;                   // and for so many turns behind the last short one
constexpr size_t kMaxUnread = 1024 * 1024;         // answered to a peer that does not read; beyond: close
constexpr size_t kMaxGathered = 64 * 1024 * 1024;  // whole bodies on their way, all connections together; beyond: 503
constexpr int64_t kMaxCredit = 0x7fffffff;
constexpr std::chrono::milliseconds kLeaveSocketWait{1'000};  // what clients may take to answer a Close when the gateway leaves

bool CleanName(std::string_view s) {
  return !s.empty() &&
         std::none_of(s.begin(), s.end(), [](unsigned char c) { return c <= 0x20 || c == 0x7f || (c >= 'A' && c <= 'Z'); });
}
bool CleanValue(std::string_view s) {
  return std::none_of(s.begin(), s.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

}  // namespace

LinkConnection::LinkConnection(int fd, const std::string& token, Dispatcher& dispatcher, StreamListener& listener,
                               size_t& gathered_bytes)
    : fd_(fd),
      token_(token),
      dispatcher_(dispatcher),
      listener_(listener),
      gathered_bytes_(gathered_bytes),
      opened_(std::chrono::steady_clock::now()) {}

LinkConnection::~LinkConnection() {
  while (!streams_.empty()) {
    auto stream = streams_.begin()->second;
    Cut(stream);
    Erase(stream);
  }
  close(fd_);
}

bool LinkConnection::OnReadable(char* buffer, size_t size) {
  ssize_t n = recv(fd_, buffer, size, 0);
  if (n == 0) return false;
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  std::string_view data(buffer, size_t(n));
  // Only the frame that was cut at the last read is copied; whole frames are handled where they lie.
  while (!data.empty()) {
    if (in_.empty()) {
      if (data.size() < link::kHeaderSize) break;
      link::Header header = link::GetHeader(data.data());
      if (const char* problem = link::CheckHeader(header)) return Violation(problem);
      size_t whole = link::kHeaderSize + header.length;
      if (data.size() < whole) break;
      if (!OnFrame(header, data.substr(link::kHeaderSize, header.length))) return false;
      data.remove_prefix(whole);
      continue;
    }
    size_t need = link::kHeaderSize;
    if (in_.size() >= link::kHeaderSize) need += link::GetHeader(in_.data()).length;
    size_t take = std::min(need - in_.size(), data.size());
    in_.append(data.substr(0, take));
    data.remove_prefix(take);
    if (in_.size() < need) return true;
    link::Header header = link::GetHeader(in_.data());
    if (need == link::kHeaderSize) {
      if (const char* problem = link::CheckHeader(header)) return Violation(problem);
      if (header.length > 0) continue;
    }
    std::string frame = std::exchange(in_, {});
    if (!OnFrame(header, std::string_view(frame).substr(link::kHeaderSize))) return false;
  }
  in_.append(data);
  if (in_.size() >= link::kHeaderSize) {
    if (const char* problem = link::CheckHeader(link::GetHeader(in_.data()))) return Violation(problem);
  }
  return true;
}

bool LinkConnection::Violation(std::string_view sentence) {
  log_.Warn("the link's peer broke a rule; its connection is closed", {{"rule", sentence}});
  return false;
}

bool LinkConnection::OnFrame(const link::Header& header, std::string_view payload) {
  if (!greeted_) return header.type == Type::kHello ? OnHello(payload) : Violation("the first frame was no HELLO");
  switch (header.type) {
    case Type::kHello: return Violation("a second HELLO");
    case Type::kRequest: return OnRequest(header, payload);
    case Type::kResponse: return Violation("a RESPONSE from the gateway");
    case Type::kPing: {
      if (payload.size() != 8 || header.head_length != 0) return Violation("a PING without its 8 bytes");
      if (header.flags & link::kEnd) return true;
      char answer[link::kHeaderSize];
      link::PutHeader(answer, {8, 0, Type::kPing, link::kEnd, 0, 0});
      urgent_.append(answer, sizeof answer).append(payload);
      return true;
    }
    case Type::kGoaway:
      peer_leaves_ = true;
      CloseSockets(kLeaveSocketWait);  // it waits for its streams to end, and these would not
      return true;
    case Type::kData:
    case Type::kWindow:
    case Type::kCancel: break;
  }
  auto found = streams_.find(header.stream);
  if (found == streams_.end()) return header.stream <= highest_ || Violation("a frame for a stream that was never opened");
  auto stream = found->second;
  if (header.type == Type::kCancel) {
    Cut(stream);
    Erase(stream);
  } else if (header.type == Type::kWindow) {
    // Where bytes wait, this says that the client reads; else only that the gateway has taken them.
    if (LinkSocket* socket = stream->socket(); socket && stream->send_credit <= 0) socket->Heard();
    stream->send_credit += link::internal::Get32(payload.data());
    if (stream->send_credit > kMaxCredit) return Violation("credit beyond 2^31-1");
    MakeReady(stream);
  } else if (header.flags & link::kTrailers) {
    return OnTrailers(stream, payload);
  } else {
    OnBody(stream, payload, header.flags & link::kEnd);
  }
  return true;
}

bool LinkConnection::OnHello(std::string_view payload) {
  auto hello = link::GetHello(payload);
  if (!hello) return Violation("a HELLO that does not parse");
  if (!SameSecret(hello->token, token_)) {
    log_.Warn("a link was refused: wrong token");
    return false;
  }
  if (hello->version != link::kVersion) {
    log_.Warn("a link was refused: unknown version", {{"version", hello->version}, {"supported", link::kVersion}});
    return false;
  }
  if (hello->max_frame < link::kMinMaxFrame || hello->window > kMaxCredit) return Violation("a HELLO with limits out of range");
  greeted_ = true;
  peer_max_frame_ = std::min(hello->max_frame, link::kMaxFrame);
  peer_window_ = hello->window;
  link::AppendHello(urgent_, {});
  return true;
}

bool LinkConnection::OnRequest(const link::Header& header, std::string_view payload) {
  if (header.stream <= highest_) return Violation("a stream id used again");
  if (peer_leaves_) return Violation("a stream opened after GOAWAY");
  highest_ = header.stream;
  link::HeadReader head(payload.substr(0, header.head_length));
  std::string_view method, target;
  if (!head.Str(method) || !head.Str(target)) return Violation("a request head that does not parse");
  const std::string_view pairs = head.rest();
  bool clean = !method.empty() && target.starts_with('/') && CleanValue(method) && CleanValue(target);
  auto check = [&](std::string_view name, std::string_view value) { clean = clean && CleanName(name) && CleanValue(value); };
  if (!link::ForEachPair(pairs, check)) return Violation("a request head that does not parse");
  if (!clean) {
    link::AppendCancel(urgent_, header.stream, CancelCode::kProtocol);
    return true;
  }
  if (going_away_ || streams_.size() - tunnels_ >= kMaxStreams) {
    link::AppendCancel(urgent_, header.stream, CancelCode::kRefused);
    return true;
  }
  auto stream = std::make_shared<LinkStream>(header.stream, listener_, this, peer_window_, peer_max_frame_);
  stream->asks_tunnel = (header.flags & link::kUpgrade) && !(header.flags & link::kEnd);
  streams_.emplace(header.stream, stream);
  stream->answered = !dispatcher_.Open(*stream, method, target, pairs);
  OnBody(stream, payload.substr(header.head_length), header.flags & link::kEnd);
  return true;
}

void LinkConnection::OnBody(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end) {
  stream->receive_credit -= int64_t(data.size());
  if (stream->request_ended || stream->receive_credit < 0) return CancelStream(stream, CancelCode::kProtocol);
  stream->request_ended = end;
  if (stream->answered) return;
  if (stream->asks_tunnel) return OnTunnel(stream, data, end);
  if (!stream->route->streams_body()) return Gather(stream, data, end);
  stream->PushBody(data, end);
  if (!std::exchange(stream->dispatched, true)) dispatcher_.Dispatch(stream);
}

// A request with UPGRADE has no body, so its handler runs at once; what comes behind it are the tunnel's bytes.
void LinkConnection::OnTunnel(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end) {
  if (!stream->route->websocket()) {
    stream->answered = true;  // as a plain request
    stream->request->set_body({});
    return dispatcher_.Dispatch(stream);
  }
  stream->PushBody(data, end);
  if (LinkSocket* socket = stream->socket()) {
    socket->Heard();
    dispatcher_.Turn(stream);
  } else if (!std::exchange(stream->dispatched, true)) {
    dispatcher_.Dispatch(stream);
  }
}

// False: end the connection.
bool LinkConnection::OnTrailers(const std::shared_ptr<LinkStream>& stream, std::string_view pairs) {
  bool clean = true;
  Headers trailers;
  auto take = [&](std::string_view name, std::string_view value) {
    clean = clean && CleanName(name) && CleanValue(value);
    trailers.emplace_back(name, value);
  };
  if (!link::ForEachPair(pairs, take)) return Violation("trailers that do not parse");
  if (!clean) {
    CancelStream(stream, CancelCode::kProtocol);
    return true;
  }
  // No worker has the request yet, unless it reads the body itself; a tunnel has no trailers.
  if (!stream->answered && !stream->request_ended && !stream->asks_tunnel) {
    if (stream->route->streams_body()) {
      stream->SetTrailers(std::move(trailers));
    } else {
      stream->request->set_trailers(std::move(trailers));
    }
  }
  OnBody(stream, {}, true);
  return true;
}

void LinkConnection::Gather(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end) {
  if (stream->gathered.size() + data.size() > stream->route->max_body()) {
    stream->answered = true;
    return dispatcher_.AnswerError(*stream, 413, "BODY_TOO_LARGE",
                                   "the body is longer than " + std::to_string(stream->route->max_body()) + " bytes");
  }
  if (gathered_bytes_ + data.size() > kMaxGathered) {
    stream->answered = true;
    return dispatcher_.AnswerError(*stream, 503, "OVERLOADED",
                                   "the module has more request bodies in memory than it takes; try again");
  }
  stream->gathered.append(data);
  stream->gathered_charge += data.size();
  gathered_bytes_ += data.size();
  if (end) {
    stream->dispatched = true;
    stream->request->set_body(std::move(stream->gathered));
    return dispatcher_.Dispatch(stream);
  }
  stream->received_uncredited += uint32_t(data.size());
  if (stream->received_uncredited >= link::kWindow / 2) {
    link::AppendWindow(urgent_, stream->id, stream->received_uncredited);
    stream->receive_credit += std::exchange(stream->received_uncredited, 0);
  }
}

void LinkConnection::OnStream(const std::shared_ptr<LinkStream>& stream) {
  if (uint32_t consumed = stream->TakeConsumed(); consumed && !stream->request_ended) {
    link::AppendWindow(urgent_, stream->id, consumed);
    stream->receive_credit += consumed;
  }
  if (LinkSocket* socket = stream->socket(); socket && !std::exchange(stream->counted_tunnel, true)) {
    ++tunnels_;
    if (closing_wait_) socket->Shutdown(*stream, *closing_wait_);
  }
  MakeReady(stream);
}

void LinkConnection::MakeReady(const std::shared_ptr<LinkStream>& stream) {
  if (!std::exchange(stream->in_ready, true)) (stream->begun ? ready_ : fresh_).push_back(stream);
}

void LinkConnection::Erase(const std::shared_ptr<LinkStream>& stream) {
  gathered_bytes_ -= std::exchange(stream->gathered_charge, 0);
  tunnels_ -= std::exchange(stream->counted_tunnel, false);
  stream->connection = nullptr;
  streams_.erase(stream->id);
}

// Tells whoever works for the stream that it is over.
void LinkConnection::Cut(const std::shared_ptr<LinkStream>& stream) {
  stream->Cancel();
  if (stream->socket()) dispatcher_.Turn(stream);
}

void LinkConnection::CancelStream(const std::shared_ptr<LinkStream>& stream, CancelCode code) {
  link::AppendCancel(urgent_, stream->id, code);
  Cut(stream);
  Erase(stream);
}

// True when that was the end of it.
bool LinkConnection::EmitFirst(std::deque<std::shared_ptr<LinkStream>>& lane) {
  auto stream = std::move(lane.front());
  lane.pop_front();
  stream->in_ready = false;
  if (!stream->connection) return false;  // cancelled meanwhile
  stream->begun = true;
  const LinkStream::Emitted emitted = stream->Emit(out_);
  switch (emitted) {
    case LinkStream::Emitted::kMore: MakeReady(stream); break;
    case LinkStream::Emitted::kNothing: break;
    case LinkStream::Emitted::kDone:
      // The handler of an answered request may still be reading a body that no one sends any more.
      if (!stream->request_ended || stream->socket()) Cut(stream);
      Erase(stream);
  }
  if (std::exchange(stream->room_again, false)) dispatcher_.Turn(stream);
  return emitted == LinkStream::Emitted::kDone;
}

bool LinkConnection::Flush() {
  if (!out_.empty() && !urgent_.empty() && out_.size() - out_at_ + urgent_.size() > kMaxUnread) {
    return Violation("answers were not read");
  }
  // out_ ends with a whole frame, so urgent ones need not wait until it has drained, which under load may be never.
  out_.append(urgent_);
  urgent_.clear();
  // Answers that begin go ahead of those that go on: a short one waits for no long one. Of these there is one each turn all the same.
  auto room = [this](size_t bytes) { return out_.size() - out_at_ < bytes; };
  turns_since_short_ = std::min(turns_since_short_ + 1, kSharedTurns);
  while (!fresh_.empty() && room(kTurnBytes)) {
    if (EmitFirst(fresh_)) turns_since_short_ = 0;
  }
  const size_t turn = turns_since_short_ < kSharedTurns ? kSharedTurnBytes : kTurnBytes;
  if (!ready_.empty() && room(2 * kTurnBytes)) EmitFirst(ready_);
  while (!ready_.empty() && room(turn)) EmitFirst(ready_);
  if (out_.empty()) return true;
  ssize_t n = send(fd_, out_.data() + out_at_, out_.size() - out_at_, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
  if (n > 0) out_at_ += size_t(n);
  if (out_at_ == out_.size() || out_at_ >= kTurnBytes) {
    out_.erase(0, out_at_);
    out_at_ = 0;
  }
  return true;
}

void LinkConnection::GoAway(std::chrono::milliseconds socket_wait) {
  CloseSockets(socket_wait);
  if (std::exchange(going_away_, true) || !greeted_) return;
  char frame[link::kHeaderSize];
  link::PutHeader(frame, {0, highest_, Type::kGoaway, 0, 0, 0});
  urgent_.append(frame, sizeof frame);
}

void LinkConnection::CloseSockets(std::chrono::milliseconds wait) {
  closing_wait_ = wait;
  for (auto& [id, stream] : streams_) {
    LinkSocket* socket = stream->socket();
    if (!socket) continue;
    socket->Shutdown(*stream, wait);
    dispatcher_.Turn(stream);
  }
}

void LinkConnection::CancelAll() {
  while (!streams_.empty()) {
    auto stream = streams_.begin()->second;
    CancelStream(stream, CancelCode::kInternal);
  }
}

}  // namespace bulkhead::sdk
