#include "supervisor/gateway/local_service.h"

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {

std::string ErrorBody(const absl::Status& status, std::string_view request_id) {
  nlohmann::ordered_json details = nlohmann::ordered_json::array();
  for (const ErrorDetail& detail : ErrorDetails(status)) {
    nlohmann::ordered_json entry = {{"path", detail.path}, {"code", detail.code}, {"message", detail.message}};
    if (detail.line > 0) entry["line"] = detail.line;
    details.push_back(std::move(entry));
  }
  std::string message(status.message().data(), status.message().size());
  nlohmann::ordered_json body = {
      {"success", false},
      {"error", {{"code", ErrorCode(status)}, {"message", message}, {"details", std::move(details)}, {"requestId", std::string(request_id)}}}};
  // Bytes that are not UTF-8 become U+FFFD: a message that quotes input must never break the answer.
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace bulkhead
