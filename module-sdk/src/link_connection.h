// One gateway thread's connection: its frames in, its streams, its frames out. Belongs to the loop's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "dispatcher.h"
#include "link_stream.h"

namespace bulkhead::sdk {

class LinkConnection {
 public:
  LinkConnection(int fd, const std::string& token, Dispatcher& dispatcher, StreamListener& listener, size_t& gathered_bytes);
  LinkConnection(const LinkConnection&) = delete;
  ~LinkConnection();  // cancels its streams, closes

  // Reads once into `buffer` and handles whole frames. False: close this connection.
  bool OnReadable(char* buffer, size_t size);
  // A worker has done something to one of its streams.
  void OnStream(const std::shared_ptr<LinkStream>& stream);
  // Puts frames of ready streams together and writes once. False: close this connection.
  bool Flush();
  // Refuses what comes from now on, and closes its sockets, also those that a handler is just accepting; see
  // LinkSocket::Shutdown.
  void GoAway(std::chrono::milliseconds socket_wait);
  // Cuts off every stream that is not answered yet.
  void CancelAll();

  int fd() const { return fd_; }
  bool greeted() const { return greeted_; }
  bool wants_write() const { return out_at_ < out_.size() || !urgent_.empty() || !fresh_.empty() || !ready_.empty(); }
  bool idle() const { return streams_.empty() && !wants_write(); }
  bool finished() const { return peer_leaves_ && idle(); }
  std::chrono::steady_clock::time_point opened() const { return opened_; }
  bool dirty = false;   // listed for the flush of this turn
  bool closed = false;  // listed for deletion at the end of this turn
  bool armed = false;   // EPOLLOUT is on

 private:
  bool OnFrame(const link::Header& header, std::string_view payload);
  bool OnHello(std::string_view payload);
  bool OnRequest(const link::Header& header, std::string_view payload);
  void OnBody(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end);
  bool EmitFirst(std::deque<std::shared_ptr<LinkStream>>& lane);
  void CloseSockets(std::chrono::milliseconds wait);
  void OnTunnel(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end);
  bool OnTrailers(const std::shared_ptr<LinkStream>& stream, std::string_view pairs);
  void Gather(const std::shared_ptr<LinkStream>& stream, std::string_view data, bool end);
  bool Violation(std::string_view sentence);
  void MakeReady(const std::shared_ptr<LinkStream>& stream);
  void Erase(const std::shared_ptr<LinkStream>& stream);
  void Cut(const std::shared_ptr<LinkStream>& stream);
  void CancelStream(const std::shared_ptr<LinkStream>& stream, link::CancelCode code);

  const int fd_;
  const std::string& token_;
  Dispatcher& dispatcher_;
  StreamListener& listener_;
  size_t& gathered_bytes_;  // of all connections of this module
  const std::chrono::steady_clock::time_point opened_;
  Logger log_;
  bool greeted_ = false;
  bool going_away_ = false;   // we sent GOAWAY
  bool peer_leaves_ = false;  // the gateway sent GOAWAY
  uint32_t highest_ = 0;      // stream id seen
  uint32_t peer_max_frame_ = link::kMaxFrame;
  uint32_t peer_window_ = link::kWindow;
  absl::flat_hash_map<uint32_t, std::shared_ptr<LinkStream>> streams_;
  size_t tunnels_ = 0;                                     // of these, open sockets
  std::optional<std::chrono::milliseconds> closing_wait_;  // once sockets are to close
  std::deque<std::shared_ptr<LinkStream>> fresh_, ready_;  // have a frame to send now: their first, or another
  int turns_since_short_ = 0;                              // an answer of one frame
  std::string in_;                                         // the beginning of a frame that is not there whole
  std::string urgent_;                                     // frames that go ahead of streams
  std::string out_;                                        // being written
  size_t out_at_ = 0;
};

}  // namespace bulkhead::sdk
