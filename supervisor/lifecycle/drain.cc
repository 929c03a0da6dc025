// The way out of a worker that has left the Directory: what is in flight may end, for a while.
#include <algorithm>
#include <memory>
#include <utility>

#include "supervisor/base/limits.h"
#include "supervisor/lifecycle/reconciler.h"

namespace bulkhead {

void Reconciler::Drain(const EntryPtr& entry, action::DrainWorker drain) {
  Running& running = entry->running[static_cast<size_t>(drain.slot)];
  if (!running.process || running.run != drain.run) return;
  const std::string& instance = running.process->spec().instance;
  const Millis time = time_left_.ToDrain(running.process->spec().manifest->drain_timeout, clock_.Now());
  running.drain = {};
  running.drain.end = loop_.After(time, [this, weak = std::weak_ptr(entry), drain] {
    if (auto entry = weak.lock()) Drained(entry, drain);
  });
  publisher_.Drain(instance, [this, weak = std::weak_ptr(entry), drain] {
    if (auto entry = weak.lock()) Drained(entry, drain);
  });
  // A WebSocket is of use as long as its module is: it has the time of the drain when another worker takes over, and none otherwise.
  if (!GoesOn(entry->state)) return publisher_.EndTunnels(instance);
  running.drain.tunnels = loop_.After(time - std::min(limits::kTunnelGoodbye, time / 2), [this, instance] { publisher_.EndTunnels(instance); });
}

void Reconciler::Drained(const EntryPtr& entry, action::DrainWorker drain) {
  Running& running = entry->running[static_cast<size_t>(drain.slot)];
  if (running.run != drain.run) return;
  loop_.Cancel(running.drain.end);
  loop_.Cancel(running.drain.tunnels);
  Dispatch(entry, event::WorkerDrained{drain.slot, drain.run});
}

void Reconciler::EndTunnels(const EntryPtr& entry) {
  for (size_t i = 0; i < entry->running.size() && i < entry->state.slots.size(); ++i) {
    const Running& running = entry->running[i];
    if (running.process && entry->state.slots[i].phase == SlotState::Phase::kDraining) publisher_.EndTunnels(running.process->spec().instance);
  }
}

}  // namespace bulkhead
