#include "supervisor/cli/client.h"

#include "supervisor/cli/commands.h"
#include "supervisor/cli/report.h"

namespace bulkhead {

Outcome RunClient(const ClientRequest& request, Terminal& terminal) {
  auto connection = AdminConnection::Open(request.options);
  if (!connection.ok()) {
    ReportError(connection.status(), "", request.options, terminal);
    return Outcome::kUsage;
  }
  Session session{request.options, **connection, terminal};
  return std::visit([&](const auto& command) { return Run(session, command); }, request.command);
}

}  // namespace bulkhead
