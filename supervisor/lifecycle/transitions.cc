#include "supervisor/lifecycle/transitions.h"

#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr ModuleAction kActions[] = {ModuleAction::kInstall, ModuleAction::kEnable, ModuleAction::kDisable, ModuleAction::kConfigure,
                                     ModuleAction::kScale,   ModuleAction::kReset,  ModuleAction::kReload,  ModuleAction::kRestart,
                                     ModuleAction::kUpgrade, ModuleAction::kRollback, ModuleAction::kDelete};

}  // namespace

std::string_view ModuleActionName(ModuleAction action) {
  switch (action) {
    case ModuleAction::kInstall: return "install";
    case ModuleAction::kEnable: return "enable";
    case ModuleAction::kDisable: return "disable";
    case ModuleAction::kConfigure: return "configure";
    case ModuleAction::kScale: return "scale";
    case ModuleAction::kReset: return "reset";
    case ModuleAction::kReload: return "reload";
    case ModuleAction::kRestart: return "restart";
    case ModuleAction::kUpgrade: return "upgrade";
    case ModuleAction::kRollback: return "rollback";
    case ModuleAction::kDelete: return "delete";
  }
  return "";
}

std::optional<ModuleAction> ParseModuleAction(std::string_view name) {
  for (ModuleAction action : kActions) {
    if (ModuleActionName(action) == name) return action;
  }
  return std::nullopt;
}

TransitionVerdict JudgeTransition(RegistryStatus status, ModuleAction action) {
  using Verdict = TransitionVerdict;
  const bool enabled = status == RegistryStatus::kEnabled;
  switch (status) {
    case RegistryStatus::kInstalling:
    case RegistryStatus::kUpdating:
    case RegistryStatus::kRemoving: return Verdict::kRefused;
    case RegistryStatus::kRegistered:
      switch (action) {
        case ModuleAction::kDisable:
        case ModuleAction::kReset:
        case ModuleAction::kReload:
        case ModuleAction::kRestart:
        case ModuleAction::kRollback: return Verdict::kRefused;
        default: return Verdict::kAllowed;
      }
    case RegistryStatus::kEnabled:
    case RegistryStatus::kDisabled: break;
  }
  switch (action) {
    case ModuleAction::kInstall: return Verdict::kAlreadySo;
    case ModuleAction::kEnable: return enabled ? Verdict::kAlreadySo : Verdict::kAllowed;
    case ModuleAction::kDisable: return enabled ? Verdict::kAllowed : Verdict::kAlreadySo;
    case ModuleAction::kConfigure:
    case ModuleAction::kScale:
    case ModuleAction::kUpgrade:
    case ModuleAction::kRollback: return Verdict::kAllowed;
    case ModuleAction::kReset:
    case ModuleAction::kReload:
    case ModuleAction::kRestart: return enabled ? Verdict::kAllowed : Verdict::kRefused;
    case ModuleAction::kDelete: return enabled ? Verdict::kRefused : Verdict::kAllowed;
  }
  return Verdict::kRefused;
}

std::vector<ModuleAction> PossibleActions(RegistryStatus status) {
  std::vector<ModuleAction> possible;
  for (ModuleAction action : kActions) {
    if (JudgeTransition(status, action) == TransitionVerdict::kAllowed) possible.push_back(action);
  }
  return possible;
}

absl::Status StateRefusal(std::string_view code, const std::string& message, RegistryStatus status) {
  std::vector<ErrorDetail> details = {{"/status", "CURRENT_STATE", std::string(RegistryStatusName(status))}};
  for (ModuleAction possible : PossibleActions(status)) details.push_back({"/status", "POSSIBLE_ACTION", std::string(ModuleActionName(possible))});
  return Error(code, message, std::move(details));
}

absl::Status CheckTransition(const std::string& module, RegistryStatus status, ModuleAction action) {
  if (JudgeTransition(status, action) != TransitionVerdict::kRefused) return absl::OkStatus();
  std::string possible;
  for (ModuleAction other : PossibleActions(status)) possible += (possible.empty() ? "" : ", ") + std::string(ModuleActionName(other));
  const std::string what = "module " + module + " is " + std::string(RegistryStatusName(status));
  if (possible.empty()) return StateRefusal("MODULE_BUSY", what + ": wait for the end of that, then try again", status);
  if (status == RegistryStatus::kEnabled && action == ModuleAction::kDelete)
    return StateRefusal("MODULE_ENABLED", what + "; disable it first. Possible now: " + possible, status);
  const std::string message = what + ", so it can't be told to " + std::string(ModuleActionName(action)) + ". Possible now: " + possible;
  return StateRefusal("INVALID_TRANSITION", message, status);
}

}  // namespace bulkhead
