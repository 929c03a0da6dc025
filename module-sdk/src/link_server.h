// The module's end of the data link: one thread that accepts the gateway's connections, reads and writes their frames, and runs
// inline handlers. Public functions are thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include "dispatcher.h"
#include "link_connection.h"

namespace bulkhead::sdk {

// Binds and listens; throws std::runtime_error with a sentence. What is already there under the path is replaced if it is a
// socket.
int ListenUnix(const std::string& path);

class LinkServer final : public StreamListener {
 public:
  // Takes the listening socket. Starts its thread at once.
  LinkServer(int listener, std::string token, Dispatcher& dispatcher);
  ~LinkServer() override;  // closes every connection, joins

  // Accepts no more connections and streams; what is in flight goes on, but sockets are closed: their clients have `socket_wait`
  // to answer, and as long again to read what is queued.
  void BeginDrain(std::chrono::milliseconds socket_wait);
  // True when every stream is answered and written, by `until` at the latest.
  bool WaitIdle(std::chrono::steady_clock::time_point until);
  // Cuts off what is in flight; handlers see cancelled().
  void CancelAll();

  void Notify(std::shared_ptr<LinkStream> stream) override;

 private:
  void Loop();
  void Turn(int timeout_ms);
  void Accept();
  void RunPosted();
  void RunTimers();
  // Looks at a stream's socket at its deadline, if that is earlier than what is planned.
  void Arm(const std::shared_ptr<LinkStream>& stream);
  int UntilNextTimer() const;
  void FlushDirty();
  void Post(std::function<void()> command);
  void MarkDirty(LinkConnection* connection);
  void Close(LinkConnection* connection);
  void CloseSilent();
  void UpdateIdle();
  void Wake();

  int epoll_ = -1, wake_ = -1, listener_ = -1;
  const std::string token_;
  Dispatcher& dispatcher_;
  Logger log_;
  std::vector<char> buffer_;  // one read buffer for all connections
  std::vector<std::unique_ptr<LinkConnection>> connections_;
  std::vector<LinkConnection*> dirty_;
  struct Timer {
    std::chrono::steady_clock::time_point at;
    std::weak_ptr<LinkStream> stream;
    bool operator<(const Timer& other) const { return at > other.at; }  // the earliest on top
  };
  std::priority_queue<Timer> timers_;  // of sockets; one that is no longer its stream's armed_at counts for nothing
  size_t gathered_bytes_ = 0;
  bool draining_ = false, stopping_ = false, any_closed_ = false;
  bool reading_ = false;  // frames of a connection are being handled
  bool looked_ = false;  // this turn has taken what was notified

  std::mutex mutex_;
  std::condition_variable idle_changed_;
  std::vector<std::shared_ptr<LinkStream>> notified_;
  std::vector<std::function<void()>> commands_;
  bool idle_ = true;             // as of the last turn, after BeginDrain
  std::thread::id loop_thread_;  // set by the loop before there is any stream
  std::thread thread_;           // last: uses the rest
};

}  // namespace bulkhead::sdk
