// The event loop of one gateway thread (decision 5): epoll, edge-triggered, every descriptor registered once; work is collected during a
// turn and each socket is written once at its end. Everything but Inbox::Post belongs to the thread that calls Run().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/fd.h"
#include "supervisor/base/guarded.h"
#include "supervisor/gateway/timer_wheel.h"

namespace bulkhead {

// Tasks for a gateway thread from any other. May outlive the thread; then it refuses. Thread-safe.
class Inbox {
 public:
  Inbox();
  // False when the thread has ended: the task did not and will not run.
  bool Post(std::function<void()> task);

 private:
  friend class GatewayLoop;
  struct State {
    std::vector<std::function<void()>> tasks;
    bool closed = false;
  };
  std::vector<std::function<void()>> Take();
  void Close();
  Guarded<State> state_;
  UniqueFd wake_;
};

// A socket of the loop and what it does in a turn.
class Pollable : public Timer {
 public:
  virtual void OnEvents(uint32_t events) = 0;  // what epoll reports; top of a turn
  virtual void Run() = 0;                      // was scheduled
  virtual void Flush() = 0;                    // was marked dirty; the one write of the turn

 private:
  friend class GatewayLoop;
  bool run_queued_ = false, next_queued_ = false, dirty_ = false, buried_ = false;
};

class GatewayLoop {
 public:
  explicit GatewayLoop(const Clock& clock);
  ~GatewayLoop();

  // Turns until `done` answers true at the end of one.
  void Run(const std::function<bool()>& done);
  void CloseMailbox() { mailbox_->Close(); }  // what was posted and has not run never will

  // For its whole life; closing the descriptor ends it. A TCP socket tells that it is writable once a write fell short, so both can be watched
  // always; a Unix socket tells it whenever its peer has read, which would wake the loop for nothing, so it is asked only when it matters.
  enum class Watching { kReads, kBoth };
  absl::Status Watch(int fd, Pollable& pollable, Watching what = Watching::kBoth);
  void WatchAgain(int fd, Pollable& pollable, Watching what);  // what is so already is told again
  void Schedule(Pollable& p);          // Run() later in this turn
  void ScheduleNextTurn(Pollable& p);  // Run() in the next turn, which then does not wait
  void MarkClientDirty(Pollable& p);   // Flush() at the end of this turn
  void MarkLinkDirty(Pollable& p);     // Flush() after all clients, because their flushes give credit
  void Bury(std::unique_ptr<Pollable> p);  // destroyed when the turn is over; nothing of it is called any more

  Instant now() const { return now_; }  // of this turn
  const Clock& clock() const { return clock_; }
  TimerWheel& timers() { return timers_; }
  const std::shared_ptr<Inbox>& mailbox() const { return mailbox_; }

  // One buffer for all reads of the thread. Valid until the next read; whoever needs bytes longer copies them.
  char* read_buffer() { return read_buffer_.get(); }
  static constexpr size_t kReadBuffer = 256 * 1024;

  // Strings that keep their capacity between requests, so that idle connections hold none.
  std::string TakeBuffer();
  void GiveBuffer(std::string&& buffer);

 private:
  void Turn(int timeout_ms);
  void RunQueues();

  const Clock& clock_;
  Instant now_;
  TimerWheel timers_;
  UniqueFd epoll_;
  std::shared_ptr<Inbox> mailbox_;
  std::unique_ptr<char[]> read_buffer_;
  std::vector<Pollable*> run_, next_, dirty_clients_, dirty_links_, batch_;
  std::vector<std::unique_ptr<Pollable>> graveyard_;
  std::vector<std::string> buffers_;
};

}  // namespace bulkhead
