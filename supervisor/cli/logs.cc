// bulkhead logs: what a module has printed, and with -f what it prints.
#include "bulkhead/admin/v1/logs.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/format.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

using admin::v1::FollowModuleLogsRequest;
using admin::v1::FollowModuleLogsResponse;
using admin::v1::GetModuleLogsRequest;
using LogsStub = admin::v1::Logs::Stub;

// "2026-01-31T09:30:00.123Z WARN  0 stock is low  {"sku":"a-1"}"
std::string ForPeople(const admin::v1::LogLine& line) {
  std::string level = admin::v1::LogLevel::Enum_Name(line.level());
  level.resize(5, ' ');
  std::string text = FormatWall(FromTimestamp(line.time())) + " " + level + " " + std::to_string(line.slot()) + " " + Escaped(line.message());
  if (line.has_fields() && line.fields().fields_size() > 0) {
    std::string fields;
    PrintMessage(line.fields(), fields);
    text += "  " + Escaped(fields);
  }
  return text + "\n";
}

template <typename Request>
Request RequestOf(const LogsCommand& command) {
  Request request;
  request.set_module(command.module);
  if (command.tail) request.set_tail(*command.tail);
  if (command.slot) request.set_slot(*command.slot);
  request.set_since(command.since);
  request.set_level(command.level);
  request.set_search(command.search);
  return request;
}

Outcome FollowLogs(Session& session, const LogsCommand& command) {
  Terminal& terminal = session.terminal;
  const absl::Status end = session.connection.Follow<FollowModuleLogsResponse>(
      &LogsStub::FollowModuleLogs, RequestOf<FollowModuleLogsRequest>(command), [&](const FollowModuleLogsResponse& event) {
        if (event.has_line()) terminal.Out(session.options.json ? AsJson(event.line()) : ForPeople(event.line()));
        if (event.has_missed()) terminal.Err("bulkhead: " + std::to_string(event.missed().lines()) + " lines are nowhere any more\n");
        terminal.Flush();
      });
  return end.ok() ? Outcome::kDone : Failed(session, end);
}

}  // namespace

Outcome Run(Session& session, const LogsCommand& command) {
  if (command.follow) return FollowLogs(session, command);
  const auto answer = session.connection.Call(&LogsStub::GetModuleLogs, RequestOf<GetModuleLogsRequest>(command));
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "lines", session.terminal);
    return Outcome::kDone;
  }
  for (const auto& line : answer->lines()) session.terminal.Out(ForPeople(line));
  return Outcome::kDone;
}

}  // namespace bulkhead
