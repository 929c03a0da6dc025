// Which registry states there are between a module's registration and its removal, and what may be done in each. Pure.
//
//   register → REGISTERED → install → (INSTALLING) → DISABLED ⇄ ENABLED      delete: from REGISTERED and DISABLED, through REMOVING
//   upgrade: from REGISTERED, DISABLED and ENABLED, through UPDATING, to DISABLED or ENABLED; rollback: from DISABLED and ENABLED
//
// INSTALLING, UPDATING and REMOVING are on the way to another one: nothing may be begun then.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/store/registry.h"

namespace bulkhead {

enum class ModuleAction { kInstall, kEnable, kDisable, kConfigure, kScale, kReset, kReload, kRestart, kUpgrade, kRollback, kDelete };
std::string_view ModuleActionName(ModuleAction action);  // "install", …
std::optional<ModuleAction> ParseModuleAction(std::string_view name);

enum class TransitionVerdict { kAllowed, kAlreadySo, kRefused };
TransitionVerdict JudgeTransition(RegistryStatus status, ModuleAction action);
// What may be begun now and would change something, in the order of ModuleAction.
std::vector<ModuleAction> PossibleActions(RegistryStatus status);

// A refusal that has to do with the state: an error with the state as the detail CURRENT_STATE and each action that is possible in it as a
// detail POSSIBLE_ACTION.
absl::Status StateRefusal(std::string_view code, const std::string& message, RegistryStatus status);
// OK for what is allowed or so already, else INVALID_TRANSITION, MODULE_ENABLED (delete while it is enabled) or MODULE_BUSY, as
// StateRefusal() makes them.
absl::Status CheckTransition(const std::string& module, RegistryStatus status, ModuleAction action);

}  // namespace bulkhead
