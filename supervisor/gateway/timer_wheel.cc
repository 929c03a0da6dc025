#include "supervisor/gateway/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace bulkhead {

TimerWheel::TimerWheel(Instant now) : start_(now), slots_(kSlots) {
  for (Head& head : slots_) Init(head);
}

void TimerWheel::Insert(Timer& timer) {
  // One tick later than the tick it falls in, so that it never fires early.
  int64_t tick = std::max(TickOf(timer.due_) + 1, done_ + 1);
  size_t slot = size_t(tick) % kSlots;
  Head& head = slots_[slot];
  timer.prev_ = head.prev_;
  timer.next_ = &head;
  head.prev_->next_ = &timer;
  head.prev_ = &timer;
  occupied_[slot / 64] |= uint64_t{1} << (slot % 64);
}

void TimerWheel::Arm(Timer& timer, Instant due) {
  timer.Unlink();
  timer.due_ = due;
  Insert(timer);
}

void TimerWheel::Advance(Instant now) {
  int64_t target = TickOf(now);
  // After a long sleep one revolution sees every slot.
  int64_t from = std::max(done_ + 1, target - int64_t(kSlots) + 1);
  for (int64_t tick = from; tick <= target; ++tick) {
    done_ = tick;
    size_t slot = size_t(tick) % kSlots;
    if (!(occupied_[slot / 64] >> (slot % 64) & 1)) continue;
    occupied_[slot / 64] &= ~(uint64_t{1} << (slot % 64));
    // Taken out first: what fires may arm and disarm others, also in this slot.
    Head due, &head = slots_[slot];
    Init(due);
    if (head.next_ != &head) {
      due.next_ = head.next_;
      due.prev_ = head.prev_;
      due.next_->prev_ = due.prev_->next_ = &due;
      Init(head);
    }
    while (due.next_ != &due) {
      Timer& timer = *due.next_;
      timer.Unlink();
      if (timer.due_ <= now) timer.OnTimer();
      else Insert(timer);
    }
    due.next_ = due.prev_ = nullptr;
  }
}

int TimerWheel::NextMs(Instant now) {
  for (size_t passed = 1; passed <= kSlots;) {
    size_t slot = size_t(done_ + int64_t(passed)) % kSlots;
    uint64_t word = occupied_[slot / 64] >> (slot % 64);
    if (word == 0) {
      passed += 64 - slot % 64;
      continue;
    }
    size_t skip = size_t(std::countr_zero(word));
    passed += skip;
    slot = size_t(done_ + int64_t(passed)) % kSlots;
    if (slots_[slot].next_ == &slots_[slot]) {
      occupied_[slot / 64] &= ~(uint64_t{1} << (slot % 64));
      ++passed;
      continue;
    }
    Instant at = start_ + (done_ + int64_t(passed)) * kTick;
    auto left = std::chrono::duration_cast<Millis>(at - now).count();
    return int(std::max<int64_t>(left + 1, 0));
  }
  return -1;
}

}  // namespace bulkhead
