// Deadlines of many connections at a constant cost: a hashed wheel of intrusive timers. Owners keep one Timer and push its time out
// lazily, so a request that begins and ends before its deadline costs nothing here. Belongs to one gateway thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "supervisor/base/clock.h"

namespace bulkhead {

class TimerWheel;

class Timer {
 public:
  virtual ~Timer() { Unlink(); }
  virtual void OnTimer() = 0;
  bool armed() const { return next_ != nullptr; }
  Instant due() const { return due_; }

 protected:
  Timer() = default;
  Timer(const Timer&) = delete;

 private:
  friend class TimerWheel;
  void Unlink() {
    if (!next_) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
  }
  Timer* next_ = nullptr;
  Timer* prev_ = nullptr;
  Instant due_{};
};

class TimerWheel {
 public:
  explicit TimerWheel(Instant now);
  // Fires at the first Advance() with `now` at or behind `due`, at most kTick late.
  void Arm(Timer& timer, Instant due);
  void Disarm(Timer& timer) { timer.Unlink(); }
  void Advance(Instant now);
  // Milliseconds until Advance() may have something to do; -1 when nothing is armed.
  int NextMs(Instant now);

 private:
  static constexpr Millis kTick{8};
  static constexpr size_t kSlots = 4096;  // a revolution is 32 s; what is due later stays for another one
  struct Head : Timer {
    void OnTimer() override {}
  };
  int64_t TickOf(Instant time) const { return (time - start_) / kTick; }
  void Insert(Timer& timer);
  static void Init(Timer& head) { head.next_ = head.prev_ = &head; }

  const Instant start_;
  int64_t done_ = 0;  // ticks up to here have fired
  std::vector<Head> slots_;
  std::array<uint64_t, kSlots / 64> occupied_{};  // may say so of an empty slot, never the reverse
};

}  // namespace bulkhead
