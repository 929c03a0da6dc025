// bulkhead secrets rotate: a new key for the secrets at rest.
#include "bulkhead/admin/v1/system.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/report.h"

namespace bulkhead {

Outcome Run(Session& session, const RotateSecretsCommand&) {
  constexpr Millis kTimeout{600'000};  // every configuration is sealed anew, one after another
  auto answer = session.connection.Call(&admin::v1::System::Stub::RotateSecrets, admin::v1::RotateSecretsRequest(), kTimeout);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    std::string body;  // as REST answers it, without an envelope
    PrintMessage(*answer, body);
    session.terminal.Out(body + "\n");
    return Outcome::kDone;
  }
  Terminal& terminal = session.terminal;
  terminal.Out("The secrets of " + std::to_string(answer->modules()) + (answer->modules() == 1 ? " module" : " modules") + " were sealed anew.\n");
  Table table({"KEY", "USE"});
  for (int k = 0; k < answer->keys_size(); ++k) table.Add({answer->keys(k), k == 0 ? "seals and opens" : "opens"});
  terminal.Out(table.Text(terminal.columns()));
  if (answer->keys_size() > 1) {
    terminal.Out("The keys are given in BULKHEAD_SECRETS_KEYS: when each supervisor on this database has the first of them, the others can be "
                 "taken away there.\n");
  }
  return Outcome::kDone;
}

}  // namespace bulkhead
