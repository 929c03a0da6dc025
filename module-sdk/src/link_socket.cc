#include "link_socket.h"

#include <algorithm>
#include <stdexcept>

#include "json_text.h"

namespace bulkhead::sdk {
namespace {

using websocket::ControlFrame;
using SocketEvent = websocket::Event;  // bulkhead/events.h has an Event, too
using websocket::Opcode;

constexpr int kTurnSteps = 16;       // pieces decoded and callbacks called before others have their turn
constexpr size_t kMaxInbound = 256;  // messages that wait for their callbacks; beyond: the client is not read
constexpr size_t kMaxHeld =
    link::kWindow / 2;                   // of a message that is not credited before it is handled: the rest must be able to come
constexpr size_t kUnlimited = SIZE_MAX;  // of what the protocol itself sends, which other limits bound

}  // namespace

LinkSocket::LinkSocket(std::weak_ptr<LinkStream> stream, const WebSocketRoute& route, WebSocketEvents events, Names names,
                       SocketTotals& totals)
    : stream_(std::move(stream)),
      max_buffered_(route.max_buffered()),
      ping_interval_(route.ping_interval()),
      names_(std::move(names)),
      totals_(totals),
      decoder_(route.max_message()),
      events_(std::move(events)),
      close_timeout_(route.close_timeout()),
      deadline_(Clock::now() + ping_interval_) {
  inbound_.emplace_back();
}

bool LinkSocket::Send(std::string_view text) {
  if (!websocket::IsUtf8(text)) throw std::invalid_argument("a text message must be UTF-8");
  return Queue(Opcode::kText, text);
}

bool LinkSocket::Queue(Opcode opcode, std::string_view payload) {
  auto stream = stream_.lock();
  if (!stream) return false;
  char header[websocket::kMaxFrameHeader];
  size_t size = websocket::PutFrameHeader(header, opcode, payload.size());
  std::lock_guard lock(mutex_);
  return state_ == State::kOpen && stream->Push({header, size}, payload, max_buffered_);
}

void LinkSocket::Close(uint16_t code, std::string_view reason) {
  if (!websocket::IsCloseCode(code)) throw std::invalid_argument("the close code " + std::to_string(code) + " must not be sent");
  if (!websocket::IsUtf8(reason)) throw std::invalid_argument("a close reason must be UTF-8");
  auto stream = stream_.lock();
  if (!stream) return;
  std::lock_guard lock(mutex_);
  StartClose(*stream, code, reason, Clock::now());
}

size_t LinkSocket::buffered() const {
  auto stream = stream_.lock();
  return stream ? stream->unsent() : 0;
}

bool LinkSocket::open() const {
  auto stream = stream_.lock();
  std::lock_guard lock(mutex_);
  return stream && !stream->cancelled() && state_ == State::kOpen;
}

bool LinkSocket::Turn(LinkStream& stream) {
  for (int i = 0; i < kTurnSteps; ++i) {
    bool decoded = Decode(stream);
    bool delivered = Deliver(stream);
    if (!decoded && !delivered) return false;
  }
  return true;
}

bool LinkSocket::Decode(LinkStream& stream) {
  {
    std::lock_guard lock(mutex_);
    if (decoding_ || read_all_ || finished_) return false;
    if (state_ == State::kOpen && (inbound_.size() >= kMaxInbound || AwaitsRoom(stream))) return false;
    if (input_at_ == input_.size()) {
      bool ended = false;
      input_ = stream.TakeInput(ended);
      input_at_ = 0;
      if (input_.empty()) {
        if (ended) QueueLast(stream, Inbound::Kind::kVanished, 0, {});
        return ended;
      }
    }
    decoding_ = true;
  }
  std::string_view rest = std::string_view(input_).substr(input_at_);
  for (bool more = true; more;) {
    size_t before = rest.size();
    SocketEvent event = decoder_.Next(rest);
    uncredited_ += before - rest.size();
    more = event.kind != SocketEvent::Kind::kNone && Take(stream, std::move(event));
  }
  Credit(stream);
  std::lock_guard lock(mutex_);
  input_at_ = input_.size() - rest.size();
  kept_ = decoder_.kept();
  Recharge();
  if (kept_ > 0 && !read_all_ && totals_.bytes > int64_t(kMaxSocketBytes)) {
    QueueLast(stream, Inbound::Kind::kViolated, close_code::kTryAgainLater,
              "the module has more messages in memory than it takes");
  }
  decoding_ = false;
  return true;
}

// False: decode no more for now.
bool LinkSocket::Take(LinkStream& stream, SocketEvent event) {
  std::lock_guard lock(mutex_);
  switch (event.kind) {
    case SocketEvent::Kind::kNone:
    case SocketEvent::Kind::kPong: break;
    case SocketEvent::Kind::kPing:
      if (state_ == State::kOpen) stream.Push(ControlFrame(Opcode::kPong, event.payload), {}, kUnlimited);
      break;
    case SocketEvent::Kind::kText:
    case SocketEvent::Kind::kBinary: {
      if (state_ != State::kOpen) break;
      size_t held = std::min(uncredited_, kMaxHeld);
      uncredited_ -= held;
      inbound_bytes_ += event.payload.size();
      inbound_.push_back(
          {event.kind == SocketEvent::Kind::kText ? Inbound::Kind::kText : Inbound::Kind::kBinary, 0, std::move(event.payload), held});
      break;
    }
    case SocketEvent::Kind::kClose: QueueLast(stream, Inbound::Kind::kClosed, event.code, std::move(event.payload)); break;
    case SocketEvent::Kind::kViolation: QueueLast(stream, Inbound::Kind::kViolated, event.code, std::move(event.payload)); break;
  }
  return !read_all_ && inbound_.size() < kMaxInbound;
}

// Gives back what no message holds: so much of an unfinished one that the rest of it can come.
void LinkSocket::Credit(LinkStream& stream) {
  size_t held = decoder_.in_message() ? std::min(uncredited_, kMaxHeld) : 0;
  if (uncredited_ > held) stream.Consumed(uncredited_ - held);
  uncredited_ = held;
}

bool LinkSocket::Deliver(LinkStream& stream) {
  Inbound one;
  if (!Next(stream, one)) return false;
  size_t size = one.message() ? one.data.size() : 0;
  size_t held = one.held;
  Call(stream, std::move(one));
  if (held > 0) stream.Consumed(held);
  std::lock_guard lock(mutex_);
  delivering_ = false;
  inbound_bytes_ -= size;
  Recharge();
  return true;
}

bool LinkSocket::Next(LinkStream& stream, Inbound& out) {
  std::lock_guard lock(mutex_);
  if (delivering_ || finished_) return false;
  if (stream.cancelled()) {
    bool heard_of = inbound_.empty() || inbound_.front().kind != Inbound::Kind::kOpened;
    out.kind = heard_of ? Inbound::Kind::kVanished : Inbound::Kind::kUnheard;
  } else {
    if (inbound_.empty()) return false;
    if (inbound_.front().message() && AwaitsRoom(stream)) return false;
    out = std::move(inbound_.front());
    inbound_.pop_front();
  }
  delivering_ = true;
  if (out.last()) Settle(stream, out);
  return true;
}

void LinkSocket::Call(LinkStream& stream, Inbound one) {
  bool last = one.last();
  try {
    switch (one.kind) {
      case Inbound::Kind::kOpened:
        if (events_.on_open) events_.on_open(shared_from_this());
        break;
      case Inbound::Kind::kText:
      case Inbound::Kind::kBinary:
        if (events_.on_message) events_.on_message(shared_from_this(), std::move(one.data), one.kind == Inbound::Kind::kBinary);
        break;
      case Inbound::Kind::kClosed:
      case Inbound::Kind::kViolated:
      case Inbound::Kind::kVanished:
        if (events_.on_close)
          events_.on_close(shared_from_this(), close_code_, close_reason_);  // settled, so nobody changes them
        break;
      case Inbound::Kind::kUnheard: break;
    }
  } catch (const std::exception& error) {
    CallbackFailed(stream, TypeName(error), error.what());
  } catch (...) {
    CallbackFailed(stream, "unknown", "something that is no std::exception was thrown");
  }
  if (last) events_ = {};  // with what the author has captured, which may be this socket
}

void LinkSocket::CallbackFailed(LinkStream& stream, std::string_view type, std::string_view what) {
  log_.Error("WebSocket callback failed",
             {{"route", names_.route}, {"requestId", names_.request_id}, {"type", type}, {"error", what}});
  std::lock_guard lock(mutex_);
  StartClose(stream, close_code::kInternalError, "the module failed", Clock::now());
}

LinkSocket::Clock::time_point LinkSocket::deadline() const {
  std::lock_guard lock(mutex_);
  return deadline_;
}

bool LinkSocket::OnTimer(LinkStream& stream, Clock::time_point now) {
  std::lock_guard lock(mutex_);
  if (now < deadline_) return false;
  switch (state_) {
    case State::kOpen: {
      bool heard = heard_.exchange(false);
      if (pinged_ && !heard && !Busy(stream)) {
        StartClose(stream, close_code::kInternalError, "no answer to a ping", now);
        return true;
      }
      stream.Push(ControlFrame(Opcode::kPing, {}), {}, kUnlimited);
      pinged_ = true;
      deadline_ = now + ping_interval_;
      return false;
    }
    case State::kClosing:
      if (!read_all_) QueueLast(stream, Inbound::Kind::kVanished, 0, {});
      End(stream, now);
      return true;
    case State::kEnded:
      deadline_ = Clock::time_point::max();
      stream.Abort(link::CancelCode::kTimeout);
      return false;
  }
  return false;
}

void LinkSocket::Shutdown(LinkStream& stream, std::chrono::milliseconds wait) {
  auto now = Clock::now();
  std::lock_guard lock(mutex_);
  close_timeout_ = std::min(close_timeout_, wait);
  StartClose(stream, close_code::kGoingAway, "the module is stopping", now);
  deadline_ = std::min(deadline_, now + close_timeout_);
}

bool LinkSocket::AwaitsRoom(LinkStream& stream) {
  choked_ = stream.AwaitRoom(max_buffered_ / 2 - websocket::kMaxFrameHeader);
  return choked_;
}

// Whether the client may be silent because of us: what it sent waits for the module, so its pongs do too.
bool LinkSocket::Busy(LinkStream& stream) const {
  return delivering_ || (!choked_ && (!inbound_.empty() || input_at_ < input_.size() || stream.HasInput()));
}

void LinkSocket::StartClose(LinkStream& stream, uint16_t code, std::string_view reason, Clock::time_point now) {
  if (state_ != State::kOpen) return;
  state_ = State::kClosing;
  deadline_ = now + close_timeout_;
  close_code_ = code;
  close_reason_ = websocket::CutText(reason, kMaxCloseReason);
  size_t held = 0;
  std::erase_if(inbound_, [&](const Inbound& one) {
    if (!one.message()) return false;
    held += one.held;
    inbound_bytes_ -= one.data.size();
    return true;
  });
  Recharge();
  stream.Push(websocket::CloseFrame(code, close_reason_), {}, kUnlimited);
  if (held > 0) stream.Consumed(held);
  if (read_all_) End(stream, now);
}

void LinkSocket::End(LinkStream& stream, Clock::time_point now) {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  deadline_ = now + close_timeout_;
  stream.End({});
}

// The last event has its turn: what is to be said is said, and what on_close is told is decided.
void LinkSocket::Settle(LinkStream& stream, const Inbound& last) {
  finished_ = true;
  if (state_ == State::kOpen) {
    bool vanished = last.kind != Inbound::Kind::kClosed && last.kind != Inbound::Kind::kViolated;
    close_code_ = vanished ? close_code::kVanished : last.code;
    close_reason_ = last.data;
    if (!vanished)
      stream.Push(websocket::CloseFrame(last.code, last.kind == Inbound::Kind::kViolated ? last.data : ""), {}, kUnlimited);
  }
  End(stream, Clock::now());
  inbound_.clear();
  Recharge();
  totals_.open.fetch_sub(1);
}

void LinkSocket::QueueLast(LinkStream& stream, Inbound::Kind kind, uint16_t code, std::string reason) {
  read_all_ = true;
  inbound_.push_back({kind, code, std::move(reason), 0});
  // Whoever waits for the client's Close has dropped what came before it, and a slow callback must not hold up the end.
  if (state_ == State::kClosing) End(stream, Clock::now());
}

void LinkSocket::Recharge() {
  int64_t now = finished_ ? 0 : int64_t(inbound_bytes_ + kept_);
  if (now == charged_) return;
  totals_.bytes.fetch_add(now - charged_);
  charged_ = now;
}

}  // namespace bulkhead::sdk
