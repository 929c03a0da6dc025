// bulkhead jobs: what jobs modules have, when each runs next and what came of its last run; and a run of one, now.
#include <cstdio>

#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/format.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

using JobsStub = admin::v1::Jobs::Stub;

constexpr size_t kMaxPayload = 1 << 20;  // bytes that are read of a file; the API takes 256 KiB as JSON

// The newest run of a job; nullopt when none is kept.
absl::StatusOr<std::optional<admin::v1::Run>> LastRun(Session& session, const admin::v1::Job& job) {
  admin::v1::ListRunsRequest request;
  request.set_module(job.module());
  request.set_job(job.name());
  request.set_page_size(1);
  ASSIGN_OR_RETURN(const auto runs, session.connection.Call(&JobsStub::ListRuns, request));
  return runs.runs_size() == 0 ? std::nullopt : std::optional(runs.runs(0));
}

absl::StatusOr<admin::v1::ListJobsResponse> JobsOf(Session& session, const std::string& module) {
  admin::v1::ListJobsRequest request;
  request.set_module(module);
  return session.connection.Call(&JobsStub::ListJobs, request);
}

// Those of all modules as one list.
absl::StatusOr<admin::v1::ListJobsResponse> AllJobs(Session& session) {
  ASSIGN_OR_RETURN(const std::vector<std::string> modules, ModuleNames(session));
  admin::v1::ListJobsResponse all;
  for (const std::string& module : modules) {
    auto jobs = JobsOf(session, module);
    if (!jobs.ok() && ErrorCode(jobs.status()) == "MODULE_NOT_FOUND") continue;  // deleted meanwhile
    if (!jobs.ok()) return jobs.status();
    for (auto& job : *jobs->mutable_jobs()) *all.add_jobs() = std::move(job);
  }
  all.mutable_meta()->set_total(all.jobs_size());
  all.mutable_meta()->set_page(1);
  all.mutable_meta()->set_page_size(all.jobs_size());
  return all;
}

// JSON that was given, or that is in the file or on stdin that was named.
absl::StatusOr<nlohmann::json> ReadPayload(const std::string& given) {
  std::string text = given;
  if (given == "-") {
    text.clear();
    char buffer[64 << 10];
    for (size_t read; text.size() <= kMaxPayload && (read = fread(buffer, 1, sizeof buffer, stdin)) > 0;) text.append(buffer, read);
  } else if (!given.empty() && given[0] == '@') {
    auto file = ReadFile(given.substr(1), kMaxPayload);
    if (!file.ok()) return Error("CONFIG_INVALID", "The payload can't be read: " + std::string(file.status().message()) + ".", {{.path = "--payload"}});
    text = *std::move(file);
  }
  if (text.empty()) return Error("CONFIG_INVALID", "The payload is empty: give JSON, @FILE, or - for what comes on stdin.", {{.path = "--payload"}});
  auto json = ParseJson(text);
  if (!json.ok()) return Error("CONFIG_INVALID", "The payload is no JSON: " + std::string(json.status().message()), {{.path = "--payload"}});
  return json;
}

}  // namespace

Outcome Run(Session& session, const JobsCommand& command) {
  const auto answer = command.module.empty() ? AllJobs(session) : JobsOf(session, command.module);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "jobs", session.terminal);
    return Outcome::kDone;
  }
  if (answer->jobs_size() == 0) {
    session.terminal.Out(command.module.empty() ? "No module has a job.\n" : command.module + " has no jobs.\n");
    return Outcome::kDone;
  }
  Table table({"MODULE", "JOB", "SCHEDULE", "TIME ZONE", "NEXT RUN", "LAST RUN", "RESULT"});
  for (const auto& job : answer->jobs()) {
    session.terminal.Progress(job.module() + "/" + job.name());
    const auto last = LastRun(session, job);
    if (!last.ok()) return Failed(session, last.status());
    const bool manual = job.schedule().empty();
    std::string result = *last ? admin::v1::RunStatus::Enum_Name((*last)->status()) : "";
    if (*last && (*last)->has_error()) result += " " + (*last)->error().code();
    const std::string next = job.has_next_run_at() ? Moment(job.next_run_at()) : job.active() ? "-" : "module is off";
    table.Add({job.module(), job.name(), manual ? "manual" : job.schedule(), manual ? "-" : job.time_zone(), next,
               *last ? Moment((*last)->queued_at()) : "never", result});
  }
  session.terminal.Out(table.Text(session.terminal.columns()));
  return Outcome::kDone;
}

Outcome Run(Session& session, const RunJobCommand& command) {
  admin::v1::RunJobRequest request;
  request.set_module(command.module);
  request.set_job(command.job);
  if (!command.payload.empty()) {
    const auto payload = ReadPayload(command.payload);
    if (!payload.ok()) return Misused(session, payload.status());
    FromJson(*payload, *request.mutable_payload());
  }
  const auto answer = session.connection.Call(&JobsStub::RunJob, request);
  if (!answer.ok()) return Failed(session, answer.status());
  const std::string& id = answer->run().id();
  if (command.follow) {
    if (!session.options.json) session.terminal.Err("Run " + id + "\n");
    return FollowRun(session, id);
  }
  if (session.options.json) {
    PrintJson(*answer, "run", session.terminal);
  } else {
    session.terminal.Out("Queued as " + id + ". `bulkhead runs " + id + " --follow` shows how it goes on.\n");
  }
  return Outcome::kDone;
}

}  // namespace bulkhead
