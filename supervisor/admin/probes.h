// /health, /healthz and /readyz: plain answers without a token, from what the daemon says of the node. Pure.
#pragma once

#include "supervisor/admin/admin.h"

namespace bulkhead {

std::string_view ProbeAt(std::string_view path);  // the same, of a literal; "" when there is none
inline bool IsProbe(std::string_view path) { return !ProbeAt(path).empty(); }
void AnswerProbe(const LocalRequest& request, const NodeStatus& node, const Clock& clock, LocalResponder& responder);

}  // namespace bulkhead
