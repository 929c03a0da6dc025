// The lifecycle of one module on one node (being written; ObservedState is settled).
#pragma once

#include <string_view>

#include "supervisor/base/clock.h"

namespace bulkhead {

enum class ObservedState { kStarting, kRunning, kDegraded, kBackoff, kQuarantined, kStopping, kStopped, kFailed, kSkipped };
std::string_view ObservedStateName(ObservedState state);  // "STARTING", …

}  // namespace bulkhead
