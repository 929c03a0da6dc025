// Events and actions in words, for the tale of a replayed world. A worker is <slot>#<run>.
#pragma once

#include <string>
#include <vector>

#include "supervisor/lifecycle/step.h"

namespace bulkhead::sim {

inline std::string Of(int slot, uint64_t run) { return " " + std::to_string(slot) + "#" + std::to_string(run); }

inline std::string Describe(const Event& event) {
  struct Name {
    std::string operator()(const event::Want& e) const {
      return std::string(e.enabled ? "wanted" : "unwanted") + (e.skipped ? ", skipped" : "") + ", " + std::to_string(e.workers) +
             " workers" + (e.warm_spare ? " and a spare" : "");
    }
    std::string operator()(const event::Close&) const { return "close"; }
    std::string operator()(const event::Retry&) const { return "retry"; }
    std::string operator()(const event::Restart& e) const {
      std::string slots;
      for (int slot : e.slots) slots += " " + std::to_string(slot);
      return "restart" + slots;
    }
    std::string operator()(const event::Replace& e) const {
      return e.at_once ? "another version, " + std::to_string(e.workers) + " workers" : "replace one after another";
    }
    std::string operator()(const event::TakeOver& e) const {
      return "take over, soak " + std::to_string(e.soak.count()) + " ms" + (e.warm_spare ? ", with a spare" : "");
    }
    std::string operator()(const event::KeepOld&) const { return "keep old"; }
    std::string operator()(const event::Prepared& e) const { return e.ok ? "prepared" : "not prepared: " + e.reason.code; }
    std::string operator()(const event::WorkerReady& e) const { return "ready" + Of(e.slot, e.run); }
    std::string operator()(const event::WorkerDrained& e) const { return "drained" + Of(e.slot, e.run); }
    std::string operator()(const event::WorkerDied& e) const {
      return "died" + Of(e.slot, e.run) + " " + std::string(ExitCauseName(e.cause));
    }
    std::string operator()(const event::WorkerGone& e) const { return "gone" + Of(e.slot, e.run); }
    std::string operator()(const event::WorkerHealthChanged& e) const {
      return "health" + Of(e.slot, e.run) + " " + std::to_string(static_cast<int>(e.health));
    }
    std::string operator()(const event::WorkerReadiness& e) const { return (e.ready ? "well" : "unready") + Of(e.slot, e.run); }
    std::string operator()(const event::WorkerAtFault& e) const { return "at fault" + Of(e.slot, e.run); }
    std::string operator()(const event::WorkerFloods& e) const { return "floods" + Of(e.slot, e.run); }
    std::string operator()(const event::Tick&) const { return "tick"; }
  };
  return std::visit(Name(), event);
}

inline std::string Describe(const std::vector<Action>& actions) {
  struct Name {
    std::string operator()(const action::Prepare&) const { return "prepare"; }
    std::string operator()(const action::StartWorker& a) const {
      return "start" + Of(a.slot, a.run) + " as " + std::to_string(a.number) + (a.incoming ? " of the other version" : "");
    }
    std::string operator()(const action::Publish&) const { return "publish"; }
    std::string operator()(const action::DrainWorker& a) const { return "drain" + Of(a.slot, a.run); }
    std::string operator()(const action::StopWorker& a) const { return "stop" + Of(a.slot, a.run); }
    std::string operator()(const action::Wake&) const { return "wake"; }
    std::string operator()(const action::Report&) const { return "report"; }
    std::string operator()(const action::SuccessorsReady&) const { return "successors ready"; }
    std::string operator()(const action::ReplaceDone&) const { return "replaced"; }
    std::string operator()(const action::ReplaceFailed& a) const { return "not replaced: " + a.reason.code; }
    std::string operator()(const action::SoakFailed&) const { return "does not do well"; }
  };
  std::string all;
  for (const Action& action : actions) all += (all.empty() ? ": " : ", ") + std::visit(Name(), action);
  return all;
}

}  // namespace bulkhead::sim
