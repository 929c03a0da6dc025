// bulkhead runs: runs of jobs, as a list and one by one; live until the end; cancelled.
#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/format.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

using JobsStub = admin::v1::Jobs::Stub;
using RunMessage = admin::v1::Run;

constexpr Millis kCancelWait{60'000};        // for the handler; behind a grace its worker is killed, so it takes seconds
constexpr Millis kCancelMargin{30'000};      // for the answer behind that
constexpr int kLogPage = 1'000;

std::string StatusName(const RunMessage& run) { return admin::v1::RunStatus::Enum_Name(run.status()); }

bool HasEnded(const RunMessage& run) { return run.status() != admin::v1::RunStatus::QUEUED && run.status() != admin::v1::RunStatus::RUNNING; }

std::string AttemptOf(const RunMessage& run) { return std::to_string(run.attempt()) + " of " + std::to_string(run.max_attempts()); }

std::string RunTook(const RunMessage& run) {
  return run.has_started_at() && run.has_finished_at() ? Took(MillisBetween(run.started_at(), run.finished_at())) : "-";
}

// "42 % said 3", "CODE: message", what is waited for; whatever says most of where it is.
std::string NoteOf(const RunMessage& run) {
  std::string note = run.cancel_requested() && !HasEnded(run) ? "is being cancelled" : "";
  const auto add = [&](const std::string& more) { note += (note.empty() ? "" : ", ") + more; };
  if (run.has_error()) add(run.error().code() + ": " + run.error().message());
  if (run.status() == admin::v1::RunStatus::QUEUED && run.has_not_before() && MillisBetween(run.queued_at(), run.not_before()) > 0)
    add("not before " + Moment(run.not_before()));
  if (run.has_progress() && !HasEnded(run)) add(std::to_string(static_cast<int>(run.progress().fraction() * 100)) + " % " + run.progress().message());
  return note;
}

Outcome ListThem(Session& session, const RunsCommand& command) {
  admin::v1::ListAllRunsRequest request;
  request.set_module(command.module);
  request.set_job(command.job);
  request.set_status(command.status);
  if (command.limit) request.set_page_size(*command.limit);
  const auto answer = session.connection.Call(&JobsStub::ListAllRuns, request);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "runs", session.terminal);
    return Outcome::kDone;
  }
  Table table({"RUN", "MODULE", "JOB", "STATUS", "ATTEMPT", "QUEUED", "TOOK", "NOTE"});
  for (const auto& run : answer->runs())
    table.Add({run.id(), run.module(), run.job(), StatusName(run), AttemptOf(run), Moment(run.queued_at()), RunTook(run), NoteOf(run)});
  session.terminal.Out(answer->runs_size() == 0 ? "There are no such runs.\n" : table.Text(session.terminal.columns()));
  TellRest(session, answer->runs_size(), answer->meta().total());
  return Outcome::kDone;
}

// A text of several lines, each behind a margin.
std::string Indented(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines += "    " + Escaped(text.substr(0, end)) + "\n";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

void PrintRun(const RunMessage& run, Terminal& terminal) {
  std::string text = "Run " + run.id() + " of " + run.module() + "/" + run.job() + ": " + StatusName(run) + "\n";
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(11, ' ');
    if (!value.empty()) text += "  " + name + value + "\n";
  };
  line("attempt", AttemptOf(run));
  line("trigger", run.trigger() + (run.has_slot() ? ", for " + Moment(run.slot()) : ""));
  line("queued", FormatWall(FromTimestamp(run.queued_at())));
  line("started", run.has_started_at() ? FormatWall(FromTimestamp(run.started_at())) : "");
  line("finished", run.has_finished_at() ? FormatWall(FromTimestamp(run.finished_at())) + (run.has_started_at() ? ", after " + RunTook(run) : "") : "");
  line("node", run.node());
  line("worker", run.worker());
  line("payload", Inline(run.payload()));
  line("note", HasEnded(run) ? "" : Escaped(NoteOf(run)));
  line("result", Inline(run.result()));
  if (run.has_error()) {
    line("error", run.error().code() + ": " + Escaped(run.error().message()));
    text += Indented(run.error().stack());
  }
  terminal.Out(text);
}

std::string LogForPeople(const admin::v1::RunLogLine& line) {
  std::string level = line.level();
  for (char& c : level) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  level.resize(5, ' ');
  return FormatWall(FromTimestamp(line.time())) + " " + Escaped(level) + " " + Escaped(line.message()) + "\n";
}

void PrintFiles(const RunMessage& run, Terminal& terminal) {
  if (run.artifacts_size() == 0) return;
  terminal.Out("Files, to be had by `bulkhead runs artifact " + run.id() + " NAME`:\n");
  Table table({"NAME", "TYPE", "BYTES"});
  for (const auto& file : run.artifacts()) table.Add({file.name(), file.content_type(), std::to_string(file.bytes())});
  terminal.Out(table.Text(terminal.columns()));
}

absl::Status PrintLogs(Session& session, const std::string& id) {
  admin::v1::ListRunLogsRequest request;
  request.set_id(id);
  request.set_limit(kLogPage);
  for (bool first = true;; first = false) {
    const auto answer = session.connection.Call(&JobsStub::ListRunLogs, request);
    if (!answer.ok()) return answer.status();
    if (first && answer->lines_size() > 0) session.terminal.Out("It has said:\n");
    for (const auto& line : answer->lines()) session.terminal.Out(LogForPeople(line));
    if (answer->lines_size() < kLogPage) return absl::OkStatus();
    request.set_after(answer->lines(kLogPage - 1).seq());
  }
}

Outcome ShowOne(Session& session, const std::string& id) {
  admin::v1::GetRunRequest request;
  request.set_id(id);
  const auto answer = session.connection.Call(&JobsStub::GetRun, request);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "run", session.terminal);
    return Outcome::kDone;
  }
  PrintRun(answer->run(), session.terminal);
  if (const absl::Status logs = PrintLogs(session, id); !logs.ok()) return Failed(session, logs);
  PrintFiles(answer->run(), session.terminal);
  return Outcome::kDone;
}

}  // namespace

Outcome FollowRun(Session& session, const std::string& id) {
  Terminal& terminal = session.terminal;
  admin::v1::FollowRunRequest request;
  request.set_id(id);
  RunMessage last;
  int told_attempt = 0;
  const absl::Status end = session.connection.Follow<admin::v1::FollowRunResponse>(&JobsStub::FollowRun, request, [&](const auto& event) {
    if (event.has_log()) terminal.Out(session.options.json ? AsJson(event.log()) : LogForPeople(event.log()));
    if (event.has_run()) {
      last = event.run();
      if (session.options.json) {
        terminal.Out(AsJson(last));
      } else if (!HasEnded(last)) {
        if (last.status() == admin::v1::RunStatus::QUEUED && last.has_error() && last.attempt() > std::exchange(told_attempt, last.attempt()))
          terminal.Err("Attempt " + AttemptOf(last) + " has failed: " + Escaped(NoteOf(last)) + "\n");
        terminal.Progress(last.module() + "/" + last.job() + " " + StatusName(last) + " " + NoteOf(last));
      }
    }
    terminal.Flush();
  });
  if (!end.ok()) return Failed(session, end);
  if (!HasEnded(last)) return Outcome::kUnfinished;
  if (!session.options.json) {
    PrintRun(last, terminal);
    PrintFiles(last, terminal);
  }
  return last.status() == admin::v1::RunStatus::SUCCEEDED ? Outcome::kDone : Outcome::kUnsuccessful;
}

Outcome Run(Session& session, const RunsCommand& command) {
  if (command.id.empty()) return ListThem(session, command);
  return command.follow ? FollowRun(session, command.id) : ShowOne(session, command.id);
}

Outcome Run(Session& session, const CancelRunCommand& command) {
  admin::v1::CancelRunRequest request;
  request.set_id(command.id);
  request.set_wait(std::to_string(kCancelWait.count() / 1'000) + "s");
  session.terminal.Progress("waiting until the run's handler has ended");
  const auto answer = session.connection.Call(&JobsStub::CancelRun, request, kCancelWait + kCancelMargin);
  if (!answer.ok()) return Failed(session, answer.status());
  const bool ended = answer->meta().converged();
  if (session.options.json) {
    PrintJson(*answer, "run", session.terminal);
  } else if (ended) {
    session.terminal.Out("Run " + answer->run().id() + " of " + answer->run().module() + "/" + answer->run().job() + ": " + StatusName(answer->run()) + "\n");
  } else {
    session.terminal.Err("It has not ended yet. `bulkhead runs " + command.id + " --follow` tells when it has.\n");
  }
  return ended ? Outcome::kDone : Outcome::kUnfinished;
}

}  // namespace bulkhead
