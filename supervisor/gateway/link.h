// The gateway's end of the data link (proto/LINK.md): one connection of one gateway thread to one worker instance, requests as streams.
// It checks every frame of the module before anybody sees a byte of it. Belongs to its thread; callbacks never come from within a
// call into it, but for OnRoom and OnLost from Flush().
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "bulkhead/link/frame.h"
#include "supervisor/gateway/gateway_loop.h"
#include "supervisor/lifecycle/directory.h"

namespace bulkhead {

// Why a stream ended without its answer.
enum class StreamLoss {
  kClosed,        // the connection broke: the worker ended, or closed it
  kUnopened,      // the same before its HELLO came: it was about to end when it was connected to
  kProtocol,      // the module broke a rule on this stream
  kUnresponsive,  // a PING was not answered
  kRefused,       // CANCEL 5: nothing was processed
  kTimeout,       // CANCEL 2
  kCancelled,     // any other CANCEL
};

class Stream;

class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // `pairs` is the head as it came; `whole` says that the body is these `body_length` bytes and no more. False: it does not parse, which
  // ends the connection. With `whole` and no body this is the last call. `status` 101 comes only where a tunnel was asked for, and begins it.
  virtual bool OnHead(uint16_t status, std::string_view pairs, bool whole, size_t body_length) = 0;
  virtual void OnBody(std::string_view bytes, bool end) = 0;
  // Comes right before the end. False: as of OnHead.
  virtual bool OnTrailers(std::string_view pairs) = 0;
  virtual void OnRoom() = 0;                // Room() grew after it had been 0
  virtual void OnLost(StreamLoss loss) = 0;  // the last call
};

// One request on a link. Lives in its owner; the link refers to it between Open and its end.
class Stream {
 public:
  bool open() const { return link_ != nullptr; }
  class Link* link() const { return link_; }

 private:
  friend class Link;
  class Link* link_ = nullptr;
  StreamSink* sink_ = nullptr;
  uint32_t id_ = 0;
  int64_t send_credit_ = 0;
  int64_t receive_credit_ = 0;  // what the module may still send
  uint32_t consumed_ = 0;       // not given back as credit yet
  std::string pending_;         // body bytes that wait for their turn or for credit
  size_t pending_at_ = 0;
  std::string trailers_;        // encoded, to be sent with the end
  bool asks_tunnel_ = false;
  bool end_queued_ = false, end_sent_ = false, head_seen_ = false, queued_ = false, wants_room_ = false;
};

// The worker at the other end. Immutable; the links to one worker that follow each other share it.
struct LinkWorker {
  std::string module, instance, socket, token;
  std::function<void(WorkerFault, std::string)> faulty;  // is told, limited in rate, what the module does that it may not
};

class Link : public Pollable {
 public:
  Link(GatewayLoop& loop, std::shared_ptr<const LinkWorker> worker);
  ~Link() override;

  // Connects when it is not. False when nobody listens there, or the link is leaving.
  bool EnsureUp();
  bool up() const { return state_ == State::kUp; }
  // Answers what it has and opens nothing more: the module said GOAWAY, or the ids are used up. Another link is to take its place.
  bool going_away() const { return going_away_ && up() && !leaving_; }
  // Whether another stream fits: limits::kMaxStreamsPerLink, and bytes that the module has not taken.
  bool CanOpen() const;
  uint32_t max_frame() const { return peer_max_frame_; }
  uint32_t window() const { return peer_window_; }
  size_t outstanding() const { return streams_.size(); }
  const std::shared_ptr<const LinkWorker>& worker() const { return worker_; }

  // Sends `frame`, a REQUEST for stream 0, under a new id. After `end` nothing more can be sent.
  void Open(Stream& stream, StreamSink& sink, std::string_view frame, bool end);
  // How many body bytes Send() takes now. 0: wait for OnRoom.
  size_t Room(Stream& stream);
  void Send(Stream& stream, std::string_view bytes, bool end);
  // The end, with trailers as pairs ("" for none).
  void End(Stream& stream, std::string trailers);
  void Cancel(Stream& stream, link::CancelCode code);
  // `bytes` of the body have left this process; the module may send as many more.
  void Consumed(Stream& stream, size_t bytes);

  // No new streams; when the last has ended, closes and calls `left` (possibly at once). Says GOAWAY, by which the module ends its
  // tunnels: at once when there are none, else when EndTunnels() is called.
  void Leave(std::function<void()> left);
  void EndTunnels();  // of a link that leaves
  void CloseNow(StreamLoss loss);
  // For the log and the status: the module did what it may not, or holds up a request. `why` goes on from "it …".
  void Blame(std::string_view why);

  void OnEvents(uint32_t events) override;
  void Run() override;
  void Flush() override;
  void OnTimer() override;

 private:
  enum class State { kDown, kUp };
  void ReadOnce();
  void TakeBytes(const char* data, size_t size);
  bool TakeHeader(const char* at);
  bool TakeFrame(std::string_view payload);
  void TakeResponse(std::string_view head);
  void TakeTrailers(std::string_view pairs);
  void TakeWindow(std::string_view payload);
  void TakeGoaway();
  void SayGoaway();
  void TakeBody(std::string_view bytes, bool last);
  Stream* Find(uint32_t id);
  void EndStream(Stream& stream);
  void FailStream(Stream& stream, std::string_view why);
  void Fail(StreamLoss loss, std::string_view why);
  void Queue(Stream& stream);
  bool Sendable(const Stream& stream) const;
  void FillFromStreams();
  void AwaitWritable();
  void SendPing();
  void LeaveIfIdle();
  size_t Unsent() const { return out_.size() - out_at_; }

  GatewayLoop& loop_;
  const std::shared_ptr<const LinkWorker> worker_;
  State state_ = State::kDown;
  UniqueFd fd_;
  bool readable_ = false, writable_ = false, hangup_ = false;
  bool leaving_ = false, going_away_ = false, said_goaway_ = false;
  std::function<void()> left_;

  std::string out_;
  size_t out_at_ = 0;
  std::deque<Stream*> ready_;  // streams with body to send, in turns
  absl::flat_hash_map<uint32_t, Stream*> streams_;
  uint32_t last_id_ = 0;
  uint32_t peer_max_frame_ = link::kMaxFrame;
  uint32_t peer_window_ = link::kWindow;

  // The frame being received.
  std::string partial_;  // its header, or its head or small payload, as far as it has come
  bool in_frame_ = false, hello_seen_ = false, in_body_ = false;
  link::Header header_;
  size_t body_left_ = 0;

  Instant last_received_{}, ping_sent_{};
  bool ping_outstanding_ = false;
  bool unheard_ = false;  // a request went out, and nothing has come since

  // Across connections.
  std::string closed_;    // how the last one ended that the module had no reason to end; empty: otherwise
  Instant blamed_{};
  int blames_left_out_ = 0;
};

}  // namespace bulkhead
