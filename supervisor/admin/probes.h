// /health, /healthz and /readyz: plain answers without a token, from what the daemon says of the node. Pure.
#pragma once

#include "supervisor/admin/admin.h"

namespace bulkhead {

bool IsProbe(std::string_view path);
void AnswerProbe(const LocalRequest& request, const NodeStatus& node, const Clock& clock, LocalResponder& responder);

}  // namespace bulkhead
