#include "supervisor/cli/session.h"

#include "bulkhead/admin/v1/modules.grpc.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

constexpr int kPageSize = 500;  // the longest that the API has

}  // namespace

Outcome Failed(Session& session, const absl::Status& status) {
  return ReportError(status, AdminConnection::LastRequestId(), session.options, session.terminal);
}

Outcome Misused(Session& session, const absl::Status& status) {
  ReportError(status, "", session.options, session.terminal);
  return Outcome::kUsage;
}

std::optional<Outcome> Unconfirmed(Session& session, bool yes, const std::string& what) {
  if (yes) return std::nullopt;
  const std::optional<bool> answer = session.terminal.Ask(what + " Go on?");
  if (!answer) return Misused(session, Error("CONFIG_INVALID", what + " Nobody is there to be asked: say --yes to go on."));
  if (*answer) return std::nullopt;
  session.terminal.Err("Nothing was changed.\n");
  return Outcome::kRefused;
}

absl::StatusOr<std::vector<std::string>> ModuleNames(Session& session) {
  std::vector<std::string> names;
  admin::v1::ListModulesRequest request;
  request.set_page_size(kPageSize);
  for (int page = 1;; ++page) {
    request.set_page(page);
    ASSIGN_OR_RETURN(const auto list, session.connection.Call(&admin::v1::Modules::Stub::ListModules, request));
    for (const auto& module : list.modules()) names.push_back(module.name());
    if (list.modules_size() == 0 || static_cast<int>(names.size()) >= list.meta().total()) return names;
  }
}

void TellRest(Session& session, int shown, int total) {
  if (shown < total) session.terminal.Err(std::to_string(shown) + " of " + std::to_string(total) + " are shown; --limit N shows up to 500.\n");
}

}  // namespace bulkhead
