// A connection's reading, writing and time.
#include "supervisor/gateway/client.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

#include "supervisor/base/limits.h"
#include "supervisor/gateway/client_login.h"
#include "supervisor/gateway/client_streaming.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr size_t kSendTurn = 64 * 1024;  // bytes to one client per turn of the loop, so that short answers wait for no long ones
constexpr size_t kReadSize = 64 * 1024;
constexpr size_t kMinCapacity = 64;              // of a buffer worth keeping; what is shorter is the string itself
constexpr size_t kMaxUnsentForNext = 64 * 1024;  // of earlier answers; beyond, a pipelined request waits
constexpr Millis kWriteTimeout{30'000};          // without progress of a client that has to read; beyond: close
constexpr Millis kLingerTimeout{2'000};

}  // namespace

Client::Client(GatewayThread& thread, UniqueFd fd, ClientOrigin origin)
    : thread_(thread), loop_(thread.loop()), fd_(std::move(fd)), origin_(std::move(origin)) {}

Client::~Client() = default;

bool Client::Answered() const { return (state_ == State::kModule && body_.done() && !lost_) || state_ == State::kLocalStream; }

absl::Status Client::Begin() {
  idle_since_ = loop_.now();
  UpdateDeadline();
  return loop_.Watch(fd_.get(), *this, FromModule() ? GatewayLoop::Watching::kReads : GatewayLoop::Watching::kBoth);
}

std::string& Client::Out() {
  if (out_.empty() && out_.capacity() < kMinCapacity) out_ = loop_.TakeBuffer();
  return out_;
}

void Client::MarkDirty() { loop_.MarkClientDirty(*this); }

void Client::OnEvents(uint32_t events) {
  if (state_ == State::kClosed) return;
  if (events & (EPOLLERR | EPOLLHUP)) return PeerGone();
  if (events & (EPOLLIN | EPOLLRDHUP)) readable_ = true;
  if (events & EPOLLRDHUP) {
    hangup_ = true;
    // Nobody waits for a module's answer any more (what nginx and others conclude, too). An answer of our own is nearly there: it is sent.
    if (Answered()) return PeerGone();
  }
  if (events & EPOLLOUT) {
    writable_ = true;
    if (FromModule()) loop_.WatchAgain(fd_.get(), *this, GatewayLoop::Watching::kReads);
    if (Unsent() > 0) MarkDirty();
  }
  Run();
}

void Client::Run() {
  if (state_ == State::kClosed) return;
  if (std::exchange(more_to_send_, false)) MarkDirty();
  if (lost_) HandleLoss();
  if (std::exchange(unparked_, false) && state_ == State::kModule) {
    Dispatch();
    if (state_ == State::kModule && !parked_ && expect_) SendContinue();
  }
  TakeBuffered();
  if (readable_ && WantsRead()) ReadOnce();
  if (state_ == State::kClosed) return;
  // Its end came with the request, or while the stream was being lost: no event tells of it again.
  if (hangup_ && Answered()) return PeerGone();
  if (readable_ && WantsRead()) loop_.ScheduleNextTurn(*this);
  UpdateDeadline();
}

bool Client::WantsRead() const {
  switch (state_) {
    case State::kHead: return Unsent() < kMaxUnsentForNext;
    case State::kModule: return !body_.done() && !blocked_ && !lost_ && !parked_;
    case State::kTunnel: return !blocked_ && !peer_finished_ && !lost_;
    case State::kLocalBody:
    case State::kDiscard:
    case State::kLinger: return true;
    case State::kLogin:
    case State::kLocalWait:
    case State::kLocalStream:
    case State::kClosing:
    case State::kClosed: return false;
  }
  return false;
}

// Input that was left because nobody could take it then.
void Client::TakeBuffered() {
  if (in_.empty() || state_ == State::kClosed || !more_input_) return;
  size_t used = Consume(in_.data(), in_.size());
  if (used == in_.size()) loop_.GiveBuffer(std::move(in_));
  else in_.erase(0, used);
}

void Client::ReadOnce() {
  char* buffer = loop_.read_buffer();
  ssize_t n = recv(fd_.get(), buffer, kReadSize, 0);
  if (n < 0) {
    if (errno == EINTR) return;
    readable_ = false;
    if (errno != EAGAIN && errno != EWOULDBLOCK) PeerGone();
    return;
  }
  if (n == 0) return PeerFinished();
  thread_.counters().bytes_received.Add(uint64_t(n));
  if (size_t(n) < kReadSize && !hangup_) readable_ = false;  // no probe for EAGAIN: more is a new edge
  if (in_.empty()) {
    size_t used = Consume(buffer, size_t(n));
    if (used == size_t(n) || state_ == State::kClosed) return;
    in_ = loop_.TakeBuffer();
    in_.assign(buffer + used, size_t(n) - used);
  } else {
    in_.append(buffer, size_t(n));
    more_input_ = true;
    TakeBuffered();
  }
}

// Takes what it can from the front of the input. Stops where a request has to be answered first, or a module has to take bytes.
size_t Client::Consume(char* data, size_t size) {
  size_t used = 0;
  more_input_ = true;
  while (used < size) {
    std::string_view rest(data + used, size - used);
    size_t took = 0;
    switch (state_) {
      case State::kHead: {
        if (Unsent() >= kMaxUnsentForNext) return used;
        if (head_since_ == Instant{}) head_since_ = loop_.now();
        static thread_local http1::RequestHead head;
        switch (parser_.Parse(data + used, size - used, head)) {
          case http1::Progress::kNeedMore:
            more_input_ = false;
            return used;
          case http1::Progress::kRefused: {
            http1::Refusal why = parser_.refusal();
            thread_.counters().heads_refused.Add();
            parser_.Reset();
            head_only_ = http10_ = keep_alive_ = response_begun_ = false;
            request_id_.clear();
            body_ = http1::BodyReader();
            RespondError(why.code, why.message);
            return used;
          }
          case http1::Progress::kComplete: break;
        }
        took = parser_.consumed();
        parser_.Reset();
        rest.remove_prefix(took);
        took += StartRequest(head, rest);
        if (state_ == State::kLogin) return used;  // the head comes again when its token is known
        break;
      }
      case State::kModule:
        if (body_.done() || lost_ || parked_ || unparked_) return used;
        took = ConsumeBody(rest);
        if (took == 0) return used;
        break;
      case State::kTunnel:
        took = ConsumeTunnel(rest);
        if (took == 0) return used;
        break;
      case State::kLocalBody: took = ConsumeBody(rest); break;
      case State::kDiscard: took = ConsumeDiscarded(rest); break;
      case State::kLinger:
      case State::kClosed: return size;  // nobody looks at it
      case State::kLogin:
      case State::kClosing:
      case State::kLocalStream:
      case State::kLocalWait: return used;
    }
    used += took;
  }
  return used;
}

// So many bytes of an expected body are there; see limits::kMinBodyRate.
void Client::BodyCame(size_t bytes) {
  Instant bought = body_until_ + std::chrono::nanoseconds(std::chrono::seconds(bytes)) / limits::kMinBodyRate;
  body_until_ = std::min(bought, loop_.now() + limits::kClientBodyTimeout);
}

// The client's time to send a body begins, or goes on after a while in which nobody took any.
void Client::ExpectBody() { body_until_ = loop_.now() + limits::kClientBodyTimeout; }

size_t Client::ConsumeBody(std::string_view in) {
  std::string_view left = in, piece;
  BodyCame(in.size());
  while (!body_.done() && (state_ == State::kModule || state_ == State::kLocalBody) && !lost_) {
    size_t room = kReadSize;
    if (state_ == State::kModule) {
      room = link::kMaxFrame;
      if (stream_.open()) room = stream_.link()->Room(stream_);
      if (room == 0) {
        // From the moment on at which the module takes no more; what the client still sends moves nothing.
        if (!std::exchange(blocked_, true)) route_deadline_ = loop_.now() + timeout_;
        break;
      }
      blocked_ = false;
    }
    switch (body_.Next(left, room, piece)) {
      case http1::BodyReader::Step::kNeedMore: return in.size();
      case http1::BodyReader::Step::kData:
        body_seen_ += int64_t(piece.size());
        if (body_seen_ > body_limit_) {
          BodyRefused("BODY_TOO_LARGE", "The body is larger than this route takes.");
          return in.size() - left.size();
        }
        ForwardBody(piece);
        break;
      case http1::BodyReader::Step::kDone: break;
      case http1::BodyReader::Step::kRefused:
        BodyRefused("BAD_REQUEST", body_.refusal());
        return in.size() - left.size();
    }
  }
  if (body_.done() && (state_ == State::kModule || state_ == State::kLocalBody)) BodyDone();
  return in.size() - left.size();
}

size_t Client::ConsumeTunnel(std::string_view in) {
  tunnel_progress_ = loop_.now();
  if (!stream_.open()) return in.size();  // the module has ended it
  size_t take = std::min(in.size(), stream_.link()->Room(stream_));
  blocked_ = take == 0;
  if (take > 0) stream_.link()->Send(stream_, in.substr(0, take), false);
  return take;
}

size_t Client::ConsumeDiscarded(std::string_view in) {
  std::string_view left = in, piece;
  BodyCame(in.size());
  for (;;) {
    switch (body_.Next(left, kReadSize, piece)) {
      case http1::BodyReader::Step::kNeedMore: return in.size();
      case http1::BodyReader::Step::kData: break;
      case http1::BodyReader::Step::kDone:
        state_ = State::kHead;
        idle_since_ = loop_.now();
        return in.size() - left.size();
      case http1::BodyReader::Step::kRefused:
        state_ = State::kClosing;
        MarkDirty();
        return in.size();
    }
  }
}

// The client has closed its half.
void Client::PeerFinished() {
  readable_ = false;
  peer_finished_ = true;
  if (state_ == State::kTunnel && in_.empty()) {
    if (stream_.open()) stream_.link()->End(stream_, {});  // the module may still have something to say
    return;
  }
  bool owes_answer = state_ == State::kLocalWait || state_ == State::kClosing || (state_ == State::kHead && Unsent() > 0);
  if (!owes_answer) return PeerGone();
  keep_alive_ = false;
  if (state_ == State::kHead) state_ = State::kClosing;
}

void Client::PeerGone() {
  if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kClientGone);
  Close();
}

void Client::CloseNow() {
  if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kClientGone);
  Close();
}

void Client::Drain() {
  keep_alive_ = false;
  if (state_ == State::kHead && Unsent() == 0 && head_since_ == Instant{}) Close();
  if (std::exchange(parked_, false)) {
    thread_.Forget(*this, module_, frame_.size());
    Unavailable(Unserved::kStopping, "The supervisor is stopping.");
  }
}

void Client::StartLinger() {
  state_ = State::kLinger;
  loop_.GiveBuffer(std::move(in_));
  shutdown(fd_.get(), SHUT_WR);
  linger_until_ = loop_.now() + kLingerTimeout;
  if (readable_) loop_.ScheduleNextTurn(*this);
  UpdateDeadline();
}

void Client::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  Measure(kClientLeft);
  if (local_id_ != 0) thread_.ForgetLocal(std::exchange(local_id_, 0));
  streaming_.reset();
  if (login_id_ != 0) thread_.ForgetLogin(std::exchange(login_id_, 0));
  if (std::exchange(parked_, false)) thread_.Forget(*this, module_, frame_.size());
  fd_.Reset();
  loop_.GiveBuffer(std::move(in_));
  loop_.GiveBuffer(std::move(out_));
  loop_.GiveBuffer(std::move(frame_));
  thread_.Closed(*this);
}

void Client::Flush() {
  if (state_ == State::kClosed) return;
  if (Unsent() > 0 && writable_) {
    const size_t part = std::min(Unsent(), kSendTurn);
    ssize_t n = send(fd_.get(), out_.data() + out_at_, part, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return PeerGone();
    if (n < 0 && errno == EINTR) return loop_.ScheduleNextTurn(*this), MarkDirty();
    if (n > 0) {
      write_progress_ = loop_.now();
      sent_total_ += uint64_t(n);
      thread_.counters().bytes_sent.Add(uint64_t(n));
      out_at_ += size_t(n);
    }
    if (Unsent() > 0) {
      more_to_send_ = n == ssize_t(part);  // the socket takes more, and others have their turn first
      if (more_to_send_) {
        loop_.ScheduleNextTurn(*this);
      } else {
        if (writable_) write_progress_ = loop_.now();  // the client's time to read begins
        AwaitWritable();
      }
      if (out_at_ >= kReadSize) {
        out_.erase(0, out_at_);
        out_at_ = 0;
      }
    }
  }
  if (Unsent() == 0 && out_at_ > 0) {
    out_at_ = 0;
    out_.clear();
    if (state_ == State::kHead || out_.capacity() > kReadSize) loop_.GiveBuffer(std::move(out_));
  }
  GiveCredit();
  if (streaming_ && streaming_->then && Unsent() <= limits::kStreamRoom) std::exchange(streaming_->then, nullptr)();
  if (state_ == State::kClosing && Unsent() == 0) {
    if (peer_finished_ || (in_.empty() && body_.done() && !readable_)) return Close();
    return StartLinger();
  }
  // A pipelined request may have waited for this.
  if (state_ == State::kHead && Unsent() < kMaxUnsentForNext && (readable_ || (!in_.empty() && more_input_))) loop_.Schedule(*this);
  UpdateDeadline();
}

void Client::AwaitWritable() {
  writable_ = false;
  if (FromModule()) loop_.WatchAgain(fd_.get(), *this, GatewayLoop::Watching::kBoth);  // a Unix socket: GatewayLoop::Watching
}

// The module may send as much as the client has taken: what is still in out_ counts as not taken.
void Client::GiveCredit() {
  if (uncredited_ == 0) return;
  size_t kept = std::min(uncredited_, Unsent());
  size_t credit = uncredited_ - kept;
  uncredited_ = kept;
  if (credit > 0 && stream_.open()) stream_.link()->Consumed(stream_, credit);
}

Instant Client::ComputeDeadline() const {
  Instant deadline = Instant::max();
  auto at = [&deadline](Instant time) { deadline = std::min(deadline, time); };
  if (Unsent() > 0 && !writable_) at(write_progress_ + kWriteTimeout);
  switch (state_) {
    case State::kHead:
      if (head_since_ != Instant{}) at(head_since_ + limits::kClientHeadTimeout);
      else if (Unsent() == 0) at(idle_since_ + (first_request_ ? limits::kClientHeadTimeout : limits::kClientIdleTimeout));
      break;
    case State::kModule:
      if (!response_begun_) at(call_deadline_);
      if (parked_) at(parked_until_);
      else if (!body_.done() && !blocked_) at(body_until_);
      else if (!response_begun_) at(route_deadline_);
      break;
    case State::kTunnel: at(tunnel_progress_ + limits::kTunnelIdleTimeout); break;
    case State::kLocalBody:
    case State::kDiscard: at(body_until_); break;
    case State::kLinger: at(linger_until_); break;
    case State::kLocalStream: at(streaming_->wrote + limits::kStreamHeartbeat); break;
    case State::kLogin:  // the verification has bounds of its own
    case State::kLocalWait:
    case State::kClosing:
    case State::kClosed: break;
  }
  return deadline;
}

// Only a deadline that came nearer touches the wheel; one that went further is found out when the old one fires.
void Client::UpdateDeadline() {
  if (state_ == State::kClosed) return;
  deadline_ = ComputeDeadline();
  if (deadline_ != Instant::max() && (!armed() || deadline_ < due())) loop_.timers().Arm(*this, deadline_);
}

void Client::OnTimer() {
  if (state_ == State::kClosed) return;
  deadline_ = ComputeDeadline();
  if (!lost_ && loop_.now() >= deadline_) OnDeadline();
  UpdateDeadline();
}

void Client::OnDeadline() {
  if (Unsent() > 0 && !writable_ && loop_.now() >= write_progress_ + kWriteTimeout) return PeerGone();
  switch (state_) {
    case State::kHead: {
      if (head_since_ == Instant{}) return Close();
      thread_.counters().heads_refused.Add();
      head_only_ = http10_ = keep_alive_ = response_begun_ = false;
      request_id_.clear();
      body_ = http1::BodyReader();
      return RespondError("REQUEST_TIMEOUT", "The request head did not arrive in time.");
    }
    case State::kModule:
      if (std::exchange(parked_, false)) {
        thread_.Forget(*this, module_, frame_.size());
        return Unavailable(Unserved::kParkTimeout, "The module is restarting and was not back in time; try again soon.");
      }
      if (!response_begun_ && loop_.now() >= call_deadline_) {
        if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kTimeout);
        return RespondError("GATEWAY_TIMEOUT", "The module did not answer within the time that its caller had left.");
      }
      if (!body_.done() && !blocked_) return BodyRefused("REQUEST_TIMEOUT", "The body did not arrive in time.");
      if (stream_.open()) {
        if (blocked_) stream_.link()->Blame("took no more of a request's body within the route's timeout");
        stream_.link()->Cancel(stream_, link::CancelCode::kTimeout);
      }
      return RespondError("GATEWAY_TIMEOUT", "The module did not answer within the route's timeout.");
    case State::kTunnel:
      if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kTimeout);
      return Close();
    case State::kLocalBody: return BodyRefused("REQUEST_TIMEOUT", "The body did not arrive in time.");
    case State::kDiscard:
    case State::kLinger: return Close();
    case State::kLocalStream:
      streaming_->wrote = loop_.now();
      if (Unsent() == 0) AppendBody(streaming_->idle, false);  // who takes nothing needs no sign of life
      return;
    case State::kLogin:
    case State::kLocalWait:
    case State::kClosing:
    case State::kClosed: return;
  }
}

}  // namespace bulkhead
