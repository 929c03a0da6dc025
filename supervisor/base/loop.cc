#include "supervisor/base/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "supervisor/base/log.h"

namespace bulkhead {

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  BULKHEAD_CHECK(epoll_ && wake_);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;  // serial 0 is the wake-up
  BULKHEAD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) == 0);
}

Loop::~Loop() = default;

bool Loop::InLoopThread() const { return thread_ == std::thread::id() || thread_ == std::this_thread::get_id(); }

void Loop::Post(Task task) {
  const bool first = posted_.With([&](Posted& posted) {
    posted.tasks.push_back(std::move(task));
    return posted.tasks.size() == 1;
  });
  if (!first) return;  // the first one has woken the loop
  uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);  // a full counter is a wake-up too
}

void Loop::Stop() {
  posted_.With([](Posted& posted) { posted.stop = true; });
  uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
}

Loop::TimerId Loop::After(Millis delay, Task task) {
  TimerId id = next_timer_++;
  auto it = timers_.emplace(Clock::Real().Now() + std::max(delay, Millis(0)), std::make_pair(id, std::move(task)));
  timer_index_[id] = it;
  return id;
}

void Loop::Cancel(TimerId id) {
  auto it = timer_index_.find(id);
  if (it == timer_index_.end()) return;
  timers_.erase(it->second);
  timer_index_.erase(it);
}

void Loop::Watch(int fd, uint32_t events, std::function<void(uint32_t)> fn) {
  epoll_event event{};
  event.events = events;
  // The serial tells a stale report of an earlier watcher of the same number from this one's.
  uint64_t serial = next_serial_++;
  event.data.u64 = serial << 32 | static_cast<uint32_t>(fd);
  bool known = watchers_.contains(fd);
  BULKHEAD_CHECK(epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0);
  watchers_[fd] = {serial, std::make_shared<std::function<void(uint32_t)>>(std::move(fn))};
}

void Loop::Unwatch(int fd) {
  if (watchers_.erase(fd) == 0) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void Loop::RunPosted() {
  auto tasks = posted_.With([](Posted& posted) { return std::exchange(posted.tasks, {}); });
  for (Task& task : tasks) task();
}

void Loop::RunTimers() {
  Instant now = Clock::Real().Now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    auto [id, task] = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    timer_index_.erase(id);
    task();
  }
}

int Loop::TimeoutMs() const {
  if (timers_.empty()) return -1;
  auto left = std::chrono::ceil<Millis>(timers_.begin()->first - Clock::Real().Now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

void Loop::Run() {
  thread_ = std::this_thread::get_id();
  epoll_event events[64];
  for (;;) {
    RunPosted();
    RunTimers();
    bool empty_and_stopped = posted_.With([](Posted& posted) { return posted.stop && posted.tasks.empty(); });
    if (empty_and_stopped) break;
    int count = epoll_wait(epoll_.get(), events, 64, TimeoutMs());
    for (int i = 0; i < count; ++i) {
      uint64_t data = events[i].data.u64;
      if (data == 0) {
        uint64_t drained;
        (void)!read(wake_.get(), &drained, sizeof drained);
        continue;
      }
      auto it = watchers_.find(static_cast<int>(data & 0xffffffff));
      if (it == watchers_.end() || (it->second.serial & 0xffffffff) != data >> 32) continue;
      auto fn = it->second.fn;  // keeps the callable alive when it unwatches itself
      (*fn)(events[i].events);
    }
  }
  posted_.With([](Posted& posted) { posted.stop = false; });
  thread_ = std::thread::id();
}

}  // namespace bulkhead
