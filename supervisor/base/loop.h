// An event loop of one thread: descriptors, timers and tasks posted from elsewhere. The control loop is one of these; the
// gateway has its own on purpose (decision 5). Everything but Post() and Stop() belongs to the thread that calls Run().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

class Loop {
 public:
  using Task = std::function<void()>;
  using TimerId = uint64_t;  // never reused; 0 is none

  Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop();

  // Runs until Stop(). Tasks already posted when Stop() is called still run.
  void Run();
  void Stop();                 // thread-safe
  void Post(Task task);        // thread-safe; runs in the order of posting; unbounded, so post facts and not payloads
  bool InLoopThread() const;   // true before Run() too

  TimerId After(Millis delay, Task task);
  void Cancel(TimerId id);     // harmless when it has run

  // Level-triggered. `events` are EPOLLIN and EPOLLOUT; `fn` gets what epoll reports. The descriptor stays the caller's.
  void Watch(int fd, uint32_t events, std::function<void(uint32_t)> fn);
  void Unwatch(int fd);        // no call of fn after this, not even one already due

 private:
  void RunPosted();
  void RunTimers();
  int TimeoutMs() const;

  struct Watcher {
    uint64_t serial;
    std::shared_ptr<std::function<void(uint32_t)>> fn;
  };
  UniqueFd epoll_;
  UniqueFd wake_;
  std::multimap<Instant, std::pair<TimerId, Task>> timers_;
  std::unordered_map<TimerId, std::multimap<Instant, std::pair<TimerId, Task>>::iterator> timer_index_;
  std::unordered_map<int, Watcher> watchers_;
  TimerId next_timer_ = 1;
  uint64_t next_serial_ = 1;
  std::thread::id thread_;
  struct Posted {
    std::vector<Task> tasks;
    bool stop = false;
  };
  Guarded<Posted> posted_;
};

}  // namespace bulkhead
