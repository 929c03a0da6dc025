#include "supervisor/admin/probes.h"

#include <algorithm>

#include "supervisor/admin/json.h"
#include "supervisor/admin/rest.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

std::string HealthBody(const NodeStatus& node, const Clock& clock) {
  const WallTime now = clock.Wall();
  const Millis uptime = std::max(std::chrono::duration_cast<Millis>(now - node.started_at), Millis(0));  // the wall may jump
  std::string body = "{\"status\":\"ok\",\"timestamp\":\"" + FormatWall(now) + "\",\"uptime\":";
  PrintNumber(static_cast<double>(uptime.count()) / 1000, body);
  body += ",\"environment\":";
  PrintString(node.environment, body);
  return body + "}";
}

}  // namespace

std::string_view ProbeAt(std::string_view path) {
  for (std::string_view probe : {"/health", "/healthz", "/readyz"}) {
    if (path == probe) return probe;
  }
  return {};
}

void AnswerProbe(const LocalRequest& request, const NodeStatus& node, const Clock& clock, LocalResponder& responder) {
  if (request.method != "GET") {
    return RespondError(
        responder, Error("METHOD_NOT_ALLOWED", request.method + " is not possible at " + request.path + ". Possible: GET, HEAD."),
        request.request_id, {{"allow", "GET, HEAD"}});
  }
  if (request.path == "/health") return RespondJson(responder, 200, HealthBody(node, clock));
  if (request.path == "/healthz") return RespondJson(responder, 200, R"({"status":"ok"})");
  if (node.stopping.load() || !node.ready.load()) {
    const char* body = node.stopping.load() ? R"({"status":"stopping"})" : R"({"status":"starting"})";
    return RespondJson(responder, 503, body, {{"retry-after", std::to_string(limits::kRetryAfterSeconds)}});
  }
  RespondJson(responder, 200, R"({"status":"ready"})");
}

}  // namespace bulkhead
