#include "supervisor/gateway/gateway_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr int kMaxEvents = 256;
constexpr int kMaxRounds = 32;             // of run and flush in one turn, so that one chain of pipelined requests can't starve the rest
constexpr size_t kMaxPooledBuffers = 256;
constexpr size_t kMaxPooledCapacity = 64 * 1024;

epoll_event EventOf(Pollable& pollable, GatewayLoop::Watching what) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  if (what == GatewayLoop::Watching::kBoth) event.events |= EPOLLOUT;
  event.data.ptr = &pollable;
  return event;
}

}  // namespace

Inbox::Inbox() : wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { BULKHEAD_CHECK(wake_); }

bool Inbox::Post(std::function<void()> task) {
  bool wake = false;
  bool posted = state_.With([&](State& state) {
    if (state.closed) return false;
    wake = state.tasks.empty();
    state.tasks.push_back(std::move(task));
    return true;
  });
  if (wake) {
    uint64_t one = 1;
    while (write(wake_.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
  }
  return posted;
}

std::vector<std::function<void()>> Inbox::Take() {
  uint64_t count;
  while (read(wake_.get(), &count, sizeof count) < 0 && errno == EINTR) {
  }
  return state_.With([](State& state) { return std::exchange(state.tasks, {}); });
}

void Inbox::Close() {
  std::vector<std::function<void()>> dropped;  // destroyed outside of the lock
  state_.With([&](State& state) {
    state.closed = true;
    dropped.swap(state.tasks);
  });
}

GatewayLoop::GatewayLoop(const Clock& clock)
    : clock_(clock),
      now_(clock.Now()),
      timers_(now_),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      mailbox_(std::make_shared<Inbox>()),
      read_buffer_(new char[kReadBuffer]) {
  BULKHEAD_CHECK(epoll_);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = nullptr;  // the mailbox
  BULKHEAD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mailbox_->wake_.get(), &event) == 0);
}

GatewayLoop::~GatewayLoop() { mailbox_->Close(); }

absl::Status GatewayLoop::Watch(int fd, Pollable& pollable, Watching what) {
  epoll_event event = EventOf(pollable, what);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  return absl::OkStatus();
}

void GatewayLoop::WatchAgain(int fd, Pollable& pollable, Watching what) {
  epoll_event event = EventOf(pollable, what);
  BULKHEAD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0);
}

void GatewayLoop::Schedule(Pollable& p) {
  if (p.run_queued_ || p.buried_) return;
  p.run_queued_ = true;
  run_.push_back(&p);
}

void GatewayLoop::ScheduleNextTurn(Pollable& p) {
  if (p.next_queued_ || p.buried_) return;
  p.next_queued_ = true;
  next_.push_back(&p);
}

void GatewayLoop::MarkClientDirty(Pollable& p) {
  if (p.dirty_ || p.buried_) return;
  p.dirty_ = true;
  dirty_clients_.push_back(&p);
}

void GatewayLoop::MarkLinkDirty(Pollable& p) {
  if (p.dirty_ || p.buried_) return;
  p.dirty_ = true;
  dirty_links_.push_back(&p);
}

void GatewayLoop::Bury(std::unique_ptr<Pollable> p) {
  p->buried_ = true;
  timers_.Disarm(*p);
  graveyard_.push_back(std::move(p));
}

std::string GatewayLoop::TakeBuffer() {
  if (buffers_.empty()) return {};
  std::string buffer = std::move(buffers_.back());
  buffers_.pop_back();
  return buffer;
}

void GatewayLoop::GiveBuffer(std::string&& buffer) {
  std::string taken = std::move(buffer);
  buffer = std::string();
  if (buffers_.size() >= kMaxPooledBuffers || taken.capacity() > kMaxPooledCapacity || taken.capacity() < 64) return;
  taken.clear();
  buffers_.push_back(std::move(taken));
}

void GatewayLoop::RunQueues() {
  auto each = [this](std::vector<Pollable*>& queue, bool Pollable::*flag, void (Pollable::*call)()) {
    batch_.swap(queue);
    for (Pollable* p : batch_) {
      p->*flag = false;
      if (!p->buried_) (p->*call)();
    }
    batch_.clear();
  };
  for (int round = 0; round < kMaxRounds; ++round) {
    if (!run_.empty()) {
      each(run_, &Pollable::run_queued_, &Pollable::Run);
    } else if (!dirty_clients_.empty()) {
      each(dirty_clients_, &Pollable::dirty_, &Pollable::Flush);
    } else if (!dirty_links_.empty()) {
      each(dirty_links_, &Pollable::dirty_, &Pollable::Flush);
    } else {
      return;
    }
  }
}

void GatewayLoop::Turn(int timeout_ms) {
  epoll_event events[kMaxEvents];
  int n = epoll_wait(epoll_.get(), events, kMaxEvents, timeout_ms);
  now_ = clock_.Now();
  bool posted = false;
  for (int i = 0; i < n; ++i) {
    auto* pollable = static_cast<Pollable*>(events[i].data.ptr);
    if (pollable == nullptr) posted = true;
    else if (!pollable->buried_) pollable->OnEvents(events[i].events);
  }
  for (Pollable* p : std::exchange(next_, {})) {
    p->next_queued_ = false;
    Schedule(*p);
  }
  timers_.Advance(now_);
  if (posted) {
    for (auto& task : mailbox_->Take()) task();
  }
  RunQueues();
  if (!graveyard_.empty()) {
    auto buried = [](Pollable* p) { return p->buried_; };
    for (auto* queue : {&run_, &next_, &dirty_clients_, &dirty_links_}) std::erase_if(*queue, buried);
    graveyard_.clear();
  }
}

void GatewayLoop::Run(const std::function<bool()>& done) {
  while (!done()) {
    bool busy = !run_.empty() || !next_.empty() || !dirty_clients_.empty() || !dirty_links_.empty();
    Turn(busy ? 0 : timers_.NextMs(now_));
  }
}

}  // namespace bulkhead
