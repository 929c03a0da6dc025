// bulkhead migrate: status, plan, up and down of a module's migrations.
#include <future>

#include "bulkhead/admin/v1/migrations.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/format.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

using admin::v1::GetMigrationsRequest;
using admin::v1::GetMigrationsResponse;
using admin::v1::MigrateDownRequest;
using admin::v1::MigrateResponse;
using admin::v1::MigrateUpRequest;
using admin::v1::Migration;
using admin::v1::MigrationState;
using admin::v1::PlanMigrationsRequest;

using Migrations = admin::v1::Migrations::Stub;

constexpr char kOwn[] = "bulkhead";
constexpr Millis kWait{600'000};           // the longest that the API waits
constexpr Millis kWaitMargin{30'000};      // for its answer behind that
constexpr Millis kProgressEvery{500};
constexpr size_t kShownDigits = 12;        // of a checksum

std::string StateName(const Migration& file) {
  switch (file.state()) {
    case MigrationState::PENDING: return "pending";
    case MigrationState::PARTIAL: return "partly applied";
    case MigrationState::APPLIED: return "applied";
    case MigrationState::ROLLED_BACK: return "rolled back";
    default: return "?";
  }
}

std::string Note(const Migration& file) {
  std::string note;
  const auto add = [&](const std::string& what) { note += (note.empty() ? "" : ", ") + what; };
  if (file.edited()) add("edited");
  if (!file.present()) add("not in this version");
  if (file.state() == MigrationState::PARTIAL) add(std::to_string(file.done()) + " of " + std::to_string(file.statements()) + " statements done");
  if (!file.transactional() && file.present()) add("no transaction");
  if (file.has_rolled_back_at()) add("rolled back " + FormatWall(FromTimestamp(file.rolled_back_at())));
  return note;
}

void PrintProblems(const google::protobuf::RepeatedPtrField<admin::v1::MigrationProblem>& problems, Terminal& terminal) {
  for (const auto& problem : problems) terminal.Out(problem.code() + ": " + problem.message() + "\n");
}

void PrintStatus(const admin::v1::ModuleMigrations& migrations, Terminal& terminal) {
  terminal.Out(migrations.module() + ": " + std::to_string(migrations.applied()) + " applied, " + std::to_string(migrations.pending()) + " pending\n");
  if (migrations.files_size() > 0) {
    Table table({"FILE", "STATE", "APPLIED", "TOOK", "DOWN", "NOTE"});
    for (const Migration& file : migrations.files()) {
      table.Add({file.name(), StateName(file), file.has_applied_at() ? FormatWall(FromTimestamp(file.applied_at())) : "-",
                 file.has_took_ms() ? Took(file.took_ms()) : "-", file.reversible() ? "yes" : "no", Note(file)});
    }
    terminal.Out(table.Text(terminal.columns()));
  }
  if (migrations.has_running()) {
    terminal.Out("Running " + migrations.running().direction() + ": " + migrations.running().file() + ", since " +
                 FormatWall(FromTimestamp(migrations.running().since())) + ", pid " + std::to_string(migrations.running().pid()) + "\n");
  }
  PrintProblems(migrations.problems(), terminal);
}

absl::StatusOr<GetMigrationsResponse> Get(Session& session, const std::string& module) {
  GetMigrationsRequest request;
  request.set_name(module);
  return session.connection.Call(&Migrations::GetMigrations, request);
}

// One line per module. One whose answer is an error has it in its line, and skips nobody else.
Outcome StatusOfAll(Session& session) {
  auto names = ModuleNames(session);
  if (!names.ok()) return Failed(session, names.status());
  names->insert(names->begin(), kOwn);
  Table table({"MODULE", "APPLIED", "PENDING", "NOTE"});
  std::string json = "{\"success\":true,\"data\":[";
  for (const std::string& name : *names) {
    auto answer = Get(session, name);
    if (!answer.ok() && (ErrorCode(answer.status()) == "SERVER_UNREACHABLE" || ErrorCode(answer.status()) == "FORBIDDEN")) {
      return Failed(session, answer.status());
    }
    if (json.back() != '[') json += ',';
    if (!answer.ok()) {
      table.Add({name, "-", "-", ErrorCode(answer.status())});
      json += "{\"module\":";
      PrintString(name, json);
      json += ",\"error\":";
      PrintString(ErrorCode(answer.status()), json);
      json += '}';
      continue;
    }
    const auto& migrations = answer->migrations();
    std::string note = migrations.has_running() ? "running " + migrations.running().file() : "";
    for (const auto& problem : migrations.problems()) note += (note.empty() ? "" : ", ") + problem.code() + " " + problem.file();
    table.Add({name, std::to_string(migrations.applied()), std::to_string(migrations.pending()), note});
    PrintMessage(migrations, json);
  }
  session.terminal.Out(session.options.json ? json + "]}\n" : table.Text(session.terminal.columns()));
  return Outcome::kDone;
}

Outcome Status(Session& session, const std::string& module) {
  if (module.empty()) return StatusOfAll(session);
  auto answer = Get(session, module);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "migrations", session.terminal);
  } else {
    PrintStatus(answer->migrations(), session.terminal);
  }
  return Outcome::kDone;
}

Outcome Plan(Session& session, const MigrateCommand& command) {
  PlanMigrationsRequest request;
  request.set_name(command.module);
  request.set_down(command.down);
  if (command.to) request.set_to(*command.to);
  auto answer = session.connection.Call(&Migrations::PlanMigrations, request);
  if (!answer.ok()) return Failed(session, answer.status());
  const auto& plan = answer->plan();
  const Outcome outcome = plan.problems_size() == 0 ? Outcome::kDone : Outcome::kRefused;
  Terminal& terminal = session.terminal;
  if (session.options.json) {
    PrintJson(*answer, "plan", terminal);
    return outcome;
  }
  if (plan.steps_size() == 0) {
    terminal.Out("Nothing to do.\n");
  } else {
    terminal.Out(command.down ? "Would be rolled back, in this order:\n" : "Would be applied, in this order:\n");
    Table table({"FILE", "CHECKSUM", "TRANSACTION", "STATEMENTS"});
    for (const Migration& step : plan.steps()) {
      const std::string& checksum = command.down ? step.down_checksum() : step.checksum();
      const std::string statements = std::to_string(step.statements());
      table.Add({step.name(), checksum.substr(0, kShownDigits), command.down || step.transactional() ? "yes" : "no",
                 command.down ? "" : step.done() > 0 ? statements + ", " + std::to_string(step.done()) + " of them done" : statements});
    }
    terminal.Out(table.Text(terminal.columns()));
  }
  if (plan.problems_size() > 0) terminal.Out("It would be refused:\n");
  PrintProblems(plan.problems(), terminal);
  return outcome;
}

// Waits for the answer of `call`; who watches is told meanwhile which file runs.
absl::StatusOr<MigrateResponse> Watched(Session& session, const std::string& module,
                                        const std::function<absl::StatusOr<MigrateResponse>()>& call, std::string& request_id) {
  auto answer = std::async(std::launch::async, [&] {
    auto result = call();
    request_id = AdminConnection::LastRequestId();
    return result;
  });
  int waited_ms = 0;
  while (answer.wait_for(kProgressEvery) != std::future_status::ready) {
    if (!session.terminal.watched()) continue;
    waited_ms += static_cast<int>(kProgressEvery.count());
    const auto now = Get(session, module);
    const std::string what = now.ok() && now->migrations().has_running() ? now->migrations().running().file() : "waiting";
    session.terminal.Progress(module + ": " + what + " (" + std::to_string(waited_ms / 1'000) + " s)");
  }
  return answer.get();
}

Outcome Move(Session& session, const MigrateCommand& command) {
  const bool down = command.what == MigrateCommand::What::kDown;
  const std::string wait = FormatDuration(std::chrono::floor<std::chrono::seconds>(kWait));
  std::string request_id;
  auto answer = Watched(session, command.module, [&]() -> absl::StatusOr<MigrateResponse> {
    if (!down) {
      MigrateUpRequest request;
      request.set_name(command.module);
      request.set_wait(wait);
      return session.connection.Call(&Migrations::MigrateUp, request, kWait + kWaitMargin);
    }
    MigrateDownRequest request;
    request.set_name(command.module);
    request.set_wait(wait);
    if (command.to) request.set_to(*command.to);
    return session.connection.Call(&Migrations::MigrateDown, request, kWait + kWaitMargin);
  }, request_id);
  if (!answer.ok()) return ReportError(answer.status(), request_id, session.options, session.terminal);
  const bool finished = answer->meta().converged();
  Terminal& terminal = session.terminal;
  if (session.options.json) {
    PrintJson(*answer, "result", terminal);
  } else if (!finished) {
    terminal.Err("It still runs after " + wait + ". `bulkhead migrate status " + command.module + "` shows how far it is.\n");
  } else if (answer->result().steps_size() == 0) {
    terminal.Out("Nothing to do.\n");
  }
  for (const auto& step : answer->result().steps()) {
    if (!session.options.json) terminal.Out((down ? "rolled back " : "applied ") + step.name() + " (" + Took(step.took_ms()) + ")\n");
  }
  return finished ? Outcome::kDone : Outcome::kUnfinished;
}

}  // namespace

Outcome Run(Session& session, const MigrateCommand& command) {
  switch (command.what) {
    case MigrateCommand::What::kPlan: return Plan(session, command);
    case MigrateCommand::What::kStatus: return Status(session, command.module);
    case MigrateCommand::What::kUp:
    case MigrateCommand::What::kDown: return Move(session, command);
  }
  return Outcome::kUsage;
}

}  // namespace bulkhead
