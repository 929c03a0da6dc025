// What states are called, and what is to be read off them.
#include "supervisor/lifecycle/step.h"

namespace bulkhead {

std::string_view ObservedStateName(ObservedState state) {
  switch (state) {
    case ObservedState::kStarting: return "STARTING";
    case ObservedState::kRunning: return "RUNNING";
    case ObservedState::kDegraded: return "DEGRADED";
    case ObservedState::kBackoff: return "BACKOFF";
    case ObservedState::kQuarantined: return "QUARANTINED";
    case ObservedState::kStopping: return "STOPPING";
    case ObservedState::kStopped: return "STOPPED";
    case ObservedState::kFailed: return "FAILED";
    case ObservedState::kSkipped: return "SKIPPED";
  }
  return "";
}

std::string_view ExitCauseName(ExitCause cause) {
  switch (cause) {
    case ExitCause::kExit: return "EXIT";
    case ExitCause::kSignal: return "SIGNAL";
    case ExitCause::kOom: return "OOM";
    case ExitCause::kHandshake: return "HANDSHAKE";
    case ExitCause::kStartTimeout: return "START_TIMEOUT";
    case ExitCause::kLiveness: return "LIVENESS";
    case ExitCause::kLimit: return "LIMIT";
    case ExitCause::kConfig: return "CONFIG";
  }
  return "";
}

bool Routed(const ModuleState& state) { return state.wanted && !state.skipped; }

bool StartsNow(const ModuleState& state) { return Routed(state) && state.observed == ObservedState::kStarting; }

bool Unwell(const SlotState& slot) {
  return slot.phase == SlotState::Phase::kReady && (slot.unready || slot.health != WorkerHealth::kHealthy || slot.faulty_until || slot.flooding_until);
}

bool Serves(const SlotState& slot) { return slot.phase == SlotState::Phase::kReady && slot.role == SlotState::Role::kMember; }

bool InService(const SlotState& slot) {
  return Serves(slot) || (slot.phase == SlotState::Phase::kReady && slot.role == SlotState::Role::kSpare);
}

bool StandsBy(const SlotState& slot) { return InService(slot) && slot.role == SlotState::Role::kSpare && !slot.unready; }

bool Listed(const SlotState& slot) { return Serves(slot) && !slot.unready; }

bool Settled(const ModuleState& state) {
  switch (state.observed) {
    case ObservedState::kStarting: return state.start_exhausted;
    case ObservedState::kStopping: return false;
    case ObservedState::kBackoff:
    case ObservedState::kQuarantined:
    case ObservedState::kRunning:
    case ObservedState::kDegraded:
    case ObservedState::kStopped:
    case ObservedState::kFailed:
    case ObservedState::kSkipped: return true;
  }
  return true;
}

}  // namespace bulkhead
