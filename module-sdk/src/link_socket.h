// A WebSocket on a stream of the link. The loop hands in bytes and time and does nothing else: it appends what came to the stream
// and schedules a turn. Turns run on the worker pool, where frames are decoded and callbacks called, so unmasking, checking and
// the author's code never hold up the link. At most one turn of a socket decodes and at most one calls back, but these may be
// two: while a callback takes its time another turn answers the client's pings and sees it close.
//
//   kOpen ── Close(), a callback that threw, no answer to a ping, Stop ──> kClosing: our Close is sent, theirs is awaited
//   kOpen ── their Close, a violation, their END ──> kEnded, behind the callbacks of what came before
//   kClosing ── their Close or END, timeout ──> kEnded: END is sent behind what is queued; after another timeout CANCEL
// CANCEL by the gateway ends everything from any state. on_close is called once, whichever way it went.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "bulkhead/log.h"
#include "bulkhead/websocket.h"
#include "link_stream.h"
#include "websocket_frame.h"

namespace bulkhead::sdk {

// Of all sockets of this process.
struct SocketTotals {
  std::atomic<int> open{0};
  std::atomic<int64_t> bytes{0};     // of messages that came and are not handled
  std::atomic<bool> refused{false};  // no more of them: the module is stopping
};

class LinkSocket final : public WebSocket, public std::enable_shared_from_this<LinkSocket> {
 public:
  using Clock = std::chrono::steady_clock;
  struct Names {  // for the log and the author
    std::string route, request_id, protocol;
  };
  // Counts as one of `totals.open` already.
  LinkSocket(std::weak_ptr<LinkStream> stream, const WebSocketRoute& route, WebSocketEvents events, Names names,
             SocketTotals& totals);

  // ---- any thread ----
  bool Send(std::string_view text) override;
  bool SendBinary(std::string_view bytes) override { return Queue(websocket::Opcode::kBinary, bytes); }
  void Close(uint16_t code, std::string_view reason) override;
  size_t buffered() const override;
  bool open() const override;
  const std::string& protocol() const override { return names_.protocol; }

  // ---- a worker ----
  // Decodes and calls back, a bounded number of steps. True: there is more to do, in another turn.
  bool Turn(LinkStream& stream);

  // ---- the loop ----
  void Heard() { heard_ = true; }  // a byte, or progress in reading what waits
  Clock::time_point deadline() const;
  // Pings, or gives up. True: schedule a turn.
  bool OnTimer(LinkStream& stream, Clock::time_point now);
  // Closes with 1001; from here on `wait` takes the place of the close timeout when that is longer.
  void Shutdown(LinkStream& stream, std::chrono::milliseconds wait);

 private:
  enum class State { kOpen, kClosing, kEnded };
  struct Inbound {
    // The last ones from kClosed on. kUnheard: gone before on_open, so that nobody is told.
    enum class Kind : uint8_t { kOpened, kText, kBinary, kClosed, kViolated, kVanished, kUnheard } kind = Kind::kOpened;
    uint16_t code = 0;
    std::string data;  // message, reason
    size_t held = 0;   // wire bytes that are credited when it is handled
    bool message() const { return kind == Kind::kText || kind == Kind::kBinary; }
    bool last() const { return kind >= Kind::kClosed; }
  };

  bool Queue(websocket::Opcode opcode, std::string_view payload);
  // One piece of what has come. False: nothing to read, nothing to be read now, or another turn is at it.
  bool Decode(LinkStream& stream);
  bool Take(LinkStream& stream, websocket::Event event);
  void Credit(LinkStream& stream);
  // One callback. False: none is due, or another turn is at it.
  bool Deliver(LinkStream& stream);
  bool Next(LinkStream& stream, Inbound& out);
  void Call(LinkStream& stream, Inbound one);
  void CallbackFailed(LinkStream& stream, std::string_view type, std::string_view what);

  // With the mutex held.
  bool AwaitsRoom(LinkStream& stream);
  bool Busy(LinkStream& stream) const;
  void StartClose(LinkStream& stream, uint16_t code, std::string_view reason, Clock::time_point now);
  void End(LinkStream& stream, Clock::time_point now);
  void Settle(LinkStream& stream, const Inbound& last);
  void QueueLast(LinkStream& stream, Inbound::Kind kind, uint16_t code, std::string reason);
  void Recharge();

  const std::weak_ptr<LinkStream> stream_;  // it owns this
  const size_t max_buffered_;
  const std::chrono::milliseconds ping_interval_;
  const Names names_;
  SocketTotals& totals_;  // not used once finished_: a module may keep the socket longer
  Logger log_;
  std::atomic<bool> heard_{false};

  // Whoever has set decoding_.
  websocket::Decoder decoder_;
  size_t uncredited_ = 0;  // decoded wire bytes that no event has taken over

  // Whoever has set delivering_.
  WebSocketEvents events_;

  mutable std::mutex mutex_;  // before the stream's
  State state_ = State::kOpen;
  std::chrono::milliseconds close_timeout_;
  Clock::time_point deadline_;
  bool pinged_ = false;
  bool decoding_ = false, delivering_ = false;
  bool read_all_ = false;  // a last event was queued: what comes behind it is not read
  bool finished_ = false;  // on_close was called, or nobody is to hear of it
  bool choked_ = false;    // the client does not read its answers, so it is not listened to
  std::string input_;      // taken from the stream; belongs to whoever decodes while somebody does
  size_t input_at_ = 0;
  std::deque<Inbound> inbound_;
  size_t inbound_bytes_ = 0;  // of messages in inbound_ and the one in its callback
  size_t kept_ = 0;           // of the message on its way
  int64_t charged_ = 0;       // of both, in totals_.bytes
  uint16_t close_code_ = 0;   // what on_close is told
  std::string close_reason_;
};

}  // namespace bulkhead::sdk
