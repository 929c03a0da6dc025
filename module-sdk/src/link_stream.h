// One request and its answer on the link, or a tunnel of bytes once the answer was 101. The loop owns its life and its credit;
// one worker thread reads the body and writes the answer through the mutex. Everything under "loop" belongs to the loop's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "bulkhead/http.h"
#include "bulkhead/link/frame.h"
#include "bulkhead/router.h"

namespace bulkhead::sdk {

class LinkConnection;
class LinkSocket;
class LinkStream;

// Tells the loop that a worker has done something to a stream. Thread-safe.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  virtual void Notify(std::shared_ptr<LinkStream> stream) = 0;
};

class LinkStream final : public BodySource, public std::enable_shared_from_this<LinkStream> {
 public:
  // `max_frame`: bytes that the peer takes in one frame, at least link::kMinMaxFrame.
  LinkStream(uint32_t id, StreamListener& listener, LinkConnection* connection, uint32_t send_credit, uint32_t max_frame)
      : max_frame(max_frame), id(id), connection(connection), send_credit(send_credit), listener_(listener) {}

  // ---- worker (or, for inline handlers, the loop) ----
  size_t Read(char* out, size_t size) override;
  bool cancelled() const override { return cancelled_.load(std::memory_order_acquire); }
  Headers TakeTrailers() override;
  // The head, already encoded, with the whole body (`end`) or before a streamed one.
  void Respond(int status, std::string head, std::string body, bool end);
  // Blocks while the buffer is full. False when cancelled.
  bool Write(std::string_view data);
  void End(std::string trailers);     // `trailers` encoded pairs, or empty
  void Abort(link::CancelCode code);  // instead of the rest of the answer

  // ---- a tunnel: workers, and the loop for the socket's timers ----
  // Answers 101 with this head; from here on the bytes both ways are the socket's. Once.
  void Upgrade(std::string head, std::shared_ptr<LinkSocket> socket);
  // The socket; null before Upgrade(). Any thread.
  LinkSocket* socket() const { return upgraded_.load(std::memory_order_acquire) ? socket_.get() : nullptr; }
  // All that has come, moved out. `ended`: the client sends no more, and nothing is left.
  std::string TakeInput(bool& ended);
  bool HasInput();
  // The client may send as many more.
  void Consumed(size_t bytes);
  // Appends both to what is sent. False, and nothing is appended, when more than `limit` bytes would wait, or after the end.
  bool Push(std::string_view header, std::string_view payload, size_t limit);
  size_t unsent();
  // True when more than `mark` bytes wait to be sent. Then the loop schedules the socket once no more than that do.
  bool AwaitRoom(size_t mark);

  const uint32_t max_frame;  // what a head, or the trailers, may not pass

  // ---- the request; set by the loop before a worker sees the stream ----
  std::optional<Request> request;
  const Route* route = nullptr;
  std::chrono::steady_clock::time_point arrived;
  std::chrono::steady_clock::time_point counted;  // when its handler had ended; whoever ran it

  // ---- loop ----
  const uint32_t id;
  LinkConnection* connection;  // null once the stream is over
  int64_t send_credit;
  int64_t receive_credit = link::kWindow;
  uint32_t received_uncredited = 0;  // of a gathered body, since the last WINDOW
  bool request_ended = false;
  bool dispatched = false;
  bool in_ready = false;
  bool begun = false;        // a frame of the answer may have gone out
  bool answered = false;     // a response was given, so more of the body is dropped
  bool asks_tunnel = false;  // of a request with UPGRADE: it has no body, what follows are the tunnel's bytes
  bool counted_tunnel = false;
  bool room_again = false;  // Emit() has made the room that AwaitRoom() asked for
  std::chrono::steady_clock::time_point armed_at = std::chrono::steady_clock::time_point::max();  // when the socket is looked at
  std::string gathered;                                                                           // a whole body on its way
  size_t gathered_charge = 0;  // of it, counted against the module's bound until the stream is over

  void PushBody(std::string_view data, bool end);
  void SetTrailers(Headers trailers);  // of a body that is read by a worker; before its end is pushed
  uint32_t TakeConsumed();             // bytes read by the worker since the last call, once it is worth a WINDOW; else 0
  void Cancel();                       // wakes whoever waits
  enum class Emitted { kNothing, kMore, kDone };
  // Appends at most one frame within credit. kMore: there is another at once; kNothing: no data or no credit.
  Emitted Emit(std::string& out);

  std::atomic<bool> notified{false};
  std::atomic<bool> turn_waiting{false};  // the socket is in the pool's queue

 private:
  void NotifyLoop() { listener_.Notify(shared_from_this()); }

  StreamListener& listener_;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  // Body to the worker.
  std::string in_;
  size_t in_at_ = 0;
  bool in_ended_ = false;
  Headers in_trailers_;
  uint32_t consumed_ = 0;
  // Answer to the loop.
  int status_ = 0;
  bool head_ready_ = false, head_sent_ = false, out_ended_ = false, tunnel_ = false;
  std::string head_, out_, trailers_;
  size_t out_at_ = 0;
  std::optional<size_t> room_mark_;
  std::optional<link::CancelCode> abort_;
  std::shared_ptr<LinkSocket> socket_;  // set once, before upgraded_
  std::atomic<bool> upgraded_{false};
};

}  // namespace bulkhead::sdk
