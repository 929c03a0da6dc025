#include "supervisor/jobs/run_store.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr char kColumns[] =
    " r.id, r.module, r.job, r.status, r.attempt, r.max_attempts, r.trigger, r.slot, r.payload::text AS payload, r.progress, "
    "r.progress_message,"
    " r.result::text AS result, r.error_code, r.error_message, r.error_stack, r.queued_at, r.started_at, r.finished_at, r.node, "
    "r.worker, r.fence, r.priority, r.not_before, r.cancel_requested_at IS NOT NULL AS cancel ";

// And what the latest attempt has left, for those who look at runs.
constexpr char kWithArtifacts[] =
    ", (SELECT jsonb_agg(jsonb_build_array(a.id, a.name, a.content_type, a.bytes, extract(epoch FROM a.at) * 1000) ORDER BY a.name COLLATE \"C\")"
    " FROM bulkhead_internal.run_artifacts a WHERE a.run_id = r.id AND a.fence = r.fence)::text AS artifacts ";

std::vector<Artifact> ReadArtifacts(const Rows& rows, int row) {
  std::vector<Artifact> artifacts;
  if (rows.Null(row, "artifacts")) return artifacts;
  for (const nlohmann::json& a : nlohmann::json::parse(rows.Text(row, "artifacts"))) {
    artifacts.push_back({a[1].get<std::string>(), a[2].get<std::string>(), a[3].get<int64_t>(),
                         WallTime(Millis(static_cast<int64_t>(a[4].get<double>()))), a[0].get<int64_t>()});
  }
  return artifacts;
}

RunView ToView(const Rows& rows, int row) {
  RunView view;
  view.id = rows.Text(row, "id");
  view.module = rows.Text(row, "module");
  view.job = rows.Text(row, "job");
  view.status = ParseRunStatus(rows.Text(row, "status")).value_or(RunStatus::kFailed);
  view.attempt = static_cast<int>(rows.Int(row, "attempt"));
  view.max_attempts = static_cast<int>(rows.Int(row, "max_attempts"));
  view.trigger = rows.Text(row, "trigger");
  view.slot = rows.Time(row, "slot");
  view.payload_json = rows.Text(row, "payload");
  view.progress = std::strtod(rows.Text(row, "progress").c_str(), nullptr);
  view.progress_message = rows.Text(row, "progress_message");
  if (!rows.Null(row, "result")) view.result_json = rows.Text(row, "result");
  view.error_code = rows.Text(row, "error_code");
  view.error_message = rows.Text(row, "error_message");
  view.error_stack = rows.Text(row, "error_stack");
  view.queued_at = rows.Time(row, "queued_at").value_or(WallTime());
  view.started_at = rows.Time(row, "started_at");
  view.finished_at = rows.Time(row, "finished_at");
  view.node = rows.Text(row, "node");
  view.worker = rows.Text(row, "worker");
  view.priority = static_cast<int>(rows.Int(row, "priority"));
  if (view.status == RunStatus::kQueued) view.not_before = rows.Time(row, "not_before");
  view.cancel_requested = rows.Bool(row, "cancel") && (view.status == RunStatus::kQueued || view.status == RunStatus::kRunning);
  return view;
}

ClosedRun ToClosed(const Rows& rows, int row) {
  ClosedRun run;
  run.status = ParseRunStatus(rows.Text(row, "status")).value_or(RunStatus::kFailed);
  run.attempt = static_cast<int>(rows.Int(row, "attempt"));
  if (!rows.Null(row, "result")) run.result_json = rows.Text(row, "result");
  run.error_code = rows.Text(row, "error_code");
  run.error_message = rows.Text(row, "error_message");
  run.error_stack = rows.Text(row, "error_stack");
  run.progress = std::strtod(rows.Text(row, "progress").c_str(), nullptr);
  run.progress_message = rows.Text(row, "progress_message");
  run.started_at = rows.Time(row, "started_at");
  run.finished_at = rows.Time(row, "finished_at");
  run.not_before = rows.Time(row, "not_before");
  run.cancel_requested = rows.Bool(row, "cancel");
  return run;
}

// A PostgreSQL array literal; every element quoted, nullopt is NULL.
template <typename List, typename Get>
std::string ArrayOf(const List& list, Get get) {
  std::string text = "{";
  for (const auto& item : list) {
    if (text.size() > 1) text += ',';
    const SqlParam value = get(item);
    if (value) {
      absl::StrAppend(&text, "\"", absl::StrReplaceAll(*value, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
    } else {
      text += "NULL";
    }
  }
  return text + "}";
}

// Errors about the content of a jsonb: "\u0000", a number out of range, broken text.
bool IsContentError(const absl::Status& status) { return absl::StartsWith(SqlState(status), "22"); }

std::string Seconds(Millis time) { return absl::StrCat(time.count() / 1000, ".", absl::Dec(time.count() % 1000, absl::kZeroPad3)); }

SqlParam NullIfEmpty(const std::string& text) { return text.empty() ? SqlParam() : SqlParam(text); }

std::string_view KindName(RunOutcome::Kind kind) {
  switch (kind) {
    case RunOutcome::Kind::kFinal: return "final";
    case RunOutcome::Kind::kRetry: return "retry";
    case RunOutcome::Kind::kLost: return "lost";
    case RunOutcome::Kind::kShutdown: return "shutdown";
    case RunOutcome::Kind::kReturned: return "returned";
    case RunOutcome::Kind::kUnbegun: return "unbegun";
  }
  return "returned";
}

absl::Status NoRun(const std::string& id) { return Error("RUN_NOT_FOUND", absl::StrCat("There is no run ", id.substr(0, 64), ".")); }

// Why enqueue_run() refused.
absl::Status NotQueued(const std::string& module, const EnqueueRequest& request, const absl::Status& why) {
  const std::string state = SqlState(why);
  const auto details = ErrorDetails(why);
  const std::string sentence = details.empty() ? "" : details[0].message.substr(0, details[0].message.find(" (PL/pgSQL"));
  if (state == "42704") return Error("JOB_NOT_FOUND", absl::StrCat("The module \"", module, "\" has no job \"", request.job.substr(0, 64), "\"."));
  if (state == "53400") return Error("OVERLOADED", absl::StrCat("A million runs of the job \"", request.job, "\" are waiting already."));
  if (state == "22023") return Error("INVALID_ARGUMENT", sentence);
  if (IsContentError(why)) return Error("INVALID_ARGUMENT", "The payload is not JSON that the database can keep.");
  return why;
}

// claim_runs() with the parameters from $`first` on; `most` instead of the ninth.
std::string ClaimCall(int first, const std::string& most) {
  const auto n = [first](int i) { return absl::StrCat("$", first + i); };
  return absl::StrCat("bulkhead_internal.claim_runs(", n(0), "::text[], ", n(1), "::text[], ", n(2), "::int[], ", n(3), "::int[], ", n(4), "::int[], ", n(5),
                      "::int[], ", n(6), "::int[], ", n(7), "::text[], ", most, ", ", n(9), ", ", n(10), "::float8 * interval '1 second')");
}

std::vector<SqlParam> ClaimParams(const std::vector<RunClaim>& claims, int most, const std::string& node) {
  const auto numbers = [&](int RunClaim::* number) { return ArrayOf(claims, [number](const RunClaim& c) { return absl::StrCat(c.*number); }); };
  return {ArrayOf(claims, [](const RunClaim& c) { return c.module; }),
          ArrayOf(claims, [](const RunClaim& c) { return c.job; }),
          numbers(&RunClaim::concurrency),
          numbers(&RunClaim::capacity),
          numbers(&RunClaim::busy),
          numbers(&RunClaim::wanted),
          numbers(&RunClaim::ahead),
          ArrayOf(claims, [](const RunClaim& c) { return absl::StrJoin(c.instances, " "); }),
          absl::StrCat(most),
          node,
          Seconds(limits::kRunLease)};
}

std::vector<ClaimedRun> ClaimedOf(const Rows& rows) {
  std::vector<ClaimedRun> claimed;
  for (int i = 0; i < rows.size(); ++i) claimed.push_back({ToView(rows, i), rows.Int(i, "fence"), static_cast<int>(rows.Int(i, "slots"))});
  std::sort(claimed.begin(), claimed.end(), [](const ClaimedRun& a, const ClaimedRun& b) {
    return std::pair(-a.view.priority, a.view.queued_at) < std::pair(-b.view.priority, b.view.queued_at);
  });
  return claimed;
}

// So many waiting runs of $1 and $2 are there, without counting the others.
std::string Full() {
  return absl::StrCat("(SELECT count(*) FROM (SELECT FROM bulkhead_internal.runs WHERE module = $1 AND job = $2 AND status = 'QUEUED' LIMIT ",
                      limits::kMaxWaitingRuns, ") AS w) >= ", limits::kMaxWaitingRuns);
}

}  // namespace

bool IsRunId(const std::string& id) {
  if (id.size() != 36) return false;
  for (size_t i = 0; i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? id[i] != '-' : !absl::ascii_isxdigit(id[i])) return false;
  }
  return true;
}

absl::StatusOr<std::optional<RunView>> RunStore::InsertTick(const std::string& module, const JobSpec& spec, WallTime slot, bool made_up_for) {
  // A run that is to begin later keeps no tick away.
  const std::string busy =
      spec.overlap == Overlap::kSkip && !made_up_for
          ? "EXISTS (SELECT 1 FROM bulkhead_internal.runs WHERE module = $1 AND job = $2 AND (status = 'RUNNING' OR status = 'QUEUED'"
            " AND (not_before <= now() OR attempt > 0)))"
          : Full();
  const std::string sql = absl::StrCat(
      "INSERT INTO bulkhead_internal.runs AS r (module, job, status, max_attempts, trigger, slot, finished_at, error_code, "
      "error_message)"
      " SELECT $1, $2, CASE WHEN busy THEN 'SKIPPED' ELSE 'QUEUED' END, $3::int, 'schedule', $4::timestamptz, CASE WHEN busy "
      "THEN now() END,"
      " CASE WHEN busy THEN 'OVERLAP' END, CASE WHEN busy THEN 'An earlier run of the job had not ended.' END FROM (SELECT ",
      busy, " AS busy) AS b ON CONFLICT (module, job, slot) WHERE slot IS NOT NULL DO NOTHING RETURNING", kColumns);
  std::optional<RunView> inserted;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& connection) -> absl::Status {
    inserted.reset();
    ASSIGN_OR_RETURN(Rows rows, connection.Run(sql, {module, spec.name, absl::StrCat(spec.retries + 1), FormatWall(slot)}));
    if (rows.size() == 0) return absl::OkStatus();
    inserted = ToView(rows, 0);
    if (spec.overlap != Overlap::kReplace || made_up_for) return absl::OkStatus();
    return connection
        .Run(
            "UPDATE bulkhead_internal.runs SET status = 'SKIPPED', finished_at = now(), error_code = 'REPLACED',"
            " error_message = 'A later tick of the job took its place.'"
            " WHERE module = $1 AND job = $2 AND status = 'QUEUED' AND trigger = 'schedule' AND id <> $3::uuid",
            {module, spec.name, inserted->id})
        .status();
  }));
  return inserted;
}

absl::StatusOr<RunView> RunStore::InsertManual(const std::string& module, const JobSpec& spec, const std::string& payload_json,
                                               const AuditRecord* audit) {
  RunView run;
  const absl::Status inserted = database_.Transaction([&](Connection& connection) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, connection.Run(
        absl::StrCat("INSERT INTO bulkhead_internal.runs AS r (module, job, max_attempts, trigger, payload)"
                     " SELECT $1, $2, $3::int, 'manual', $4::jsonb WHERE NOT (",
                     Full(), ") RETURNING", kColumns),
        {module, spec.name, absl::StrCat(spec.retries + 1), payload_json}));
    if (rows.size() == 0)
      return Error("OVERLOADED", absl::StrCat(limits::kMaxWaitingRuns, " runs of the job are waiting already; try again later."));
    run = ToView(rows, 0);
    if (audit == nullptr) return absl::OkStatus();
    AuditRecord record = *audit;
    record.target = run.id;
    record.outcome = kAccepted;
    record.after_json = nlohmann::json({{"job", spec.name}}).dump();
    return AppendAudit(connection, record);
  });
  if (!inserted.ok() && IsContentError(inserted)) {
    return Error("INVALID_ARGUMENT", "The payload has a value that the database can't keep, such as \\u0000 in a text.");
  }
  RETURN_IF_ERROR(inserted);
  // The row says ACCEPTED, and what the run comes to is added by whoever ends it (migrations/0011_audit_outcomes.sql): the call itself adds nothing.
  if (audit != nullptr) Recorded({.by = audit->by});
  return run;
}

absl::StatusOr<std::optional<WallTime>> RunStore::LastSlot(const std::string& module, const std::string& job) {
  ASSIGN_OR_RETURN(Rows rows, database_.Run("SELECT max(slot) AS slot FROM bulkhead_internal.runs WHERE module = $1 AND job = $2",
                                            {module, job}));
  return rows.Time(0, "slot");
}

absl::StatusOr<Enqueued> RunStore::Enqueue(const std::string& module, const EnqueueRequest& request) {
  ASSIGN_OR_RETURN(Queued queued, EnqueueAndClaim(module, request, {}));
  return queued.run;
}

absl::StatusOr<RunStore::Queued> RunStore::EnqueueAndClaim(const std::string& module, const EnqueueRequest& request,
                                                           const std::vector<RunClaim>& claims) {
  // One statement: the claim, which is a part of it, comes after the run is there, and both are committed together.
  static const std::string kEnqueue =
      " FROM bulkhead_internal.enqueue_run($1, $2, $3::jsonb, $4::float8 * interval '1 second', $5, $6::int) AS q";
  static const std::string kAlone = absl::StrCat("SELECT q.run_id, q.fresh", kEnqueue);
  static const std::string kWithClaim =
      absl::StrCat("SELECT q.run_id, q.fresh, r.slots,", kColumns, kEnqueue, " LEFT JOIN LATERAL ",
                   ClaimCall(7, "CASE WHEN q.run_id IS NULL THEN 0 ELSE $15::int END"), " AS r ON true");
  std::vector<SqlParam> params = {module, request.job, request.payload_json, Seconds(request.delay), NullIfEmpty(request.unique_key),
                                  absl::StrCat(request.priority)};
  if (!claims.empty()) {
    for (SqlParam& param : ClaimParams(claims, claims[0].wanted, node_)) params.push_back(std::move(param));
  }
  auto rows = database_.RunPrepared(claims.empty() ? kAlone : kWithClaim, params);
  if (!rows.ok()) return NotQueued(module, request, rows.status());
  Queued queued{{rows->Text(0, "run_id"), rows->Bool(0, "fresh")}, {}};
  if (!claims.empty() && !rows->Null(0, "fence")) queued.claimed = ClaimedOf(*rows);
  return queued;
}

absl::StatusOr<std::vector<ClaimedRun>> RunStore::Claim(const std::vector<RunClaim>& claims, int limit) {
  static const std::string kClaim = absl::StrCat("SELECT r.slots,", kColumns, "FROM ", ClaimCall(1, "$9::int"), " AS r");
  ASSIGN_OR_RETURN(const Rows rows, database_.RunPrepared(kClaim, ClaimParams(claims, limit, node_)));
  return ClaimedOf(rows);
}

absl::StatusOr<std::vector<std::optional<ClosedRun>>> RunStore::Finish(const std::vector<FinishedRun>& runs) {
  using Run = FinishedRun;
  const auto column = [&](auto get) { return SqlParam(ArrayOf(runs, get)); };
  static const std::string kFinish =
      "SELECT * FROM bulkhead_internal.finish_runs($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::float8[], $6::text[], $7::text[],"
      " $8::text[], $9::text[], $10::float8[], $11::text[], $12::text[])";
  auto rows = database_.RunPrepared(
      kFinish,
      {column([](const Run& r) { return r.id; }), column([](const Run& r) { return absl::StrCat(r.fence); }),
       column([](const Run& r) { return std::string(KindName(r.outcome.kind)); }),
       column([](const Run& r) { return std::string(RunStatusName(r.outcome.status)); }),
       column([](const Run& r) { return Seconds(r.outcome.delay); }), column([](const Run& r) { return r.outcome.result_json; }),
       column([](const Run& r) { return NullIfEmpty(r.outcome.error_code); }),
       column([](const Run& r) { return NullIfEmpty(r.outcome.error_message); }),
       column([](const Run& r) { return NullIfEmpty(r.outcome.error_stack); }),
       column([](const Run& r) { return absl::StrCat(r.outcome.progress); }), column([](const Run& r) { return r.outcome.progress_message; }),
       column([](const Run& r) { return NullIfEmpty(r.worker); })});
  // One that the database can't keep spoils the statement for all of them.
  if (!rows.ok() && IsContentError(rows.status())) return FinishOneByOne(runs);
  if (!rows.ok()) return rows.status();
  std::map<int64_t, int> by_fence;
  for (int i = 0; i < rows->size(); ++i) by_fence[rows->Int(i, "fence")] = i;
  std::vector<std::optional<ClosedRun>> finished(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    if (auto found = by_fence.find(runs[i].fence); found != by_fence.end()) finished[i] = ToClosed(*rows, found->second);
  }
  return finished;
}

absl::StatusOr<std::vector<std::optional<ClosedRun>>> RunStore::FinishOneByOne(const std::vector<FinishedRun>& runs) {
  std::vector<std::optional<ClosedRun>> finished;
  for (FinishedRun run : runs) {
    if (runs.size() == 1) {
      if (!run.outcome.result_json) return Error("DATABASE_ERROR", "the outcome of a run has a text that the database can't keep");
      run.outcome.status = RunStatus::kFailed;
      run.outcome.result_json.reset();
      run.outcome.error_code = "RESULT_INVALID";
      run.outcome.error_message = "The result has a value that the database can't keep, such as \\u0000 in a text.";
    }
    ASSIGN_OR_RETURN(std::vector<std::optional<ClosedRun>> one, Finish({std::move(run)}));
    finished.push_back(std::move(one[0]));
  }
  return finished;
}

absl::Status RunStore::SetProgress(const std::string& id, int64_t fence, double progress, const std::string& message) {
  return database_
      .Run(
          "UPDATE bulkhead_internal.runs SET progress = $3::float8, progress_message = $4"
          " WHERE id = $1::uuid AND fence = $2::bigint AND status = 'RUNNING'",
          {id, absl::StrCat(fence), absl::StrCat(progress), message})
      .status();
}

absl::Status RunStore::AddLogs(const std::string& id, const std::vector<RunLogLine>& lines) {
  return database_
      .Run("INSERT INTO bulkhead_internal.run_logs (run_id, seq, at, level, message) SELECT $1::uuid, l.seq, l.at, l.level, l.message"
           " FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[]) AS l(seq, at, level, message)"
           " WHERE EXISTS (SELECT 1 FROM bulkhead_internal.runs WHERE id = $1::uuid) ON CONFLICT DO NOTHING",
           {id, ArrayOf(lines, [](const RunLogLine& l) { return absl::StrCat(l.seq); }),
            ArrayOf(lines, [](const RunLogLine& l) { return FormatWall(l.at); }), ArrayOf(lines, [](const RunLogLine& l) { return l.level; }),
            ArrayOf(lines, [](const RunLogLine& l) { return l.message; })})
      .status();
}

absl::StatusOr<std::vector<RunStore::Extended>> RunStore::Extend(const std::vector<RunningRun>& runs) {
  ASSIGN_OR_RETURN(
      Rows rows,
      database_.Run(
          "UPDATE bulkhead_internal.runs AS r SET lease_until = clock_timestamp() + $4::float8 * interval '1 second', worker = coalesce(mine.worker, r.worker)"
          " FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS mine(id, fence, worker)"
          " WHERE r.id = mine.id AND r.fence = mine.fence AND r.status = 'RUNNING'"
          " RETURNING r.fence, r.cancel_requested_at IS NOT NULL AS cancel,"
          " EXISTS (SELECT 1 FROM bulkhead_internal.runs n WHERE n.module = r.module AND n.job = r.job"
          "   AND n.status = 'QUEUED' AND n.queued_at > r.queued_at AND n.not_before <= now()) AS newer",
          {ArrayOf(runs, [](const RunningRun& run) { return run.id; }), ArrayOf(runs, [](const RunningRun& run) { return absl::StrCat(run.fence); }),
           ArrayOf(runs, [](const RunningRun& run) { return NullIfEmpty(run.worker); }), Seconds(limits::kRunLease)}));
  std::vector<Extended> extended;
  for (int i = 0; i < rows.size(); ++i) extended.push_back({rows.Int(i, "fence"), rows.Bool(i, "newer"), rows.Bool(i, "cancel")});
  return extended;
}

absl::StatusOr<int> RunStore::ReleaseExpired() {
  ASSIGN_OR_RETURN(Rows lost, database_.Run("SELECT count(*) AS runs FROM bulkhead_internal.release_runs(NULL)"));
  ASSIGN_OR_RETURN(
      Rows interrupted,
      database_.Run(
          "UPDATE bulkhead_internal.runs SET status = 'QUEUED', not_before = now(), finished_at = NULL, error_code = NULL,"
          " error_message = NULL WHERE status = 'INTERRUPTED' AND error_code = 'SHUTDOWN'"
          " AND finished_at > now() - $1::float8 * interval '1 second'",
          {Seconds(limits::kMaxInterruptedAge)}));
  return static_cast<int>(lost.Int(0, "runs")) + interrupted.affected();
}

absl::StatusOr<int> RunStore::ReleaseOwn() {
  ASSIGN_OR_RETURN(Rows lost, database_.Run("SELECT count(*) AS runs FROM bulkhead_internal.release_runs($1)", {node_}));
  return static_cast<int>(lost.Int(0, "runs"));
}

absl::Status RunStore::Trim(const std::string& module, const JobSpec& spec) {
  const std::string age = spec.history_age > Millis(0) ? Seconds(spec.history_age) : "Infinity";
  return database_
      .Run(
          "DELETE FROM bulkhead_internal.runs WHERE id IN (SELECT id FROM (SELECT id, slot, finished_at, row_number() OVER (ORDER BY"
          " queued_at DESC) AS n, max(slot) OVER () AS last FROM bulkhead_internal.runs WHERE module = $1 AND job = $2"
          " AND status NOT IN ('QUEUED', 'RUNNING')"
          // Neither too many nor too old, as an index tells: then a long history is not sorted.
          " AND (EXISTS (SELECT FROM bulkhead_internal.runs WHERE module = $1 AND job = $2 OFFSET $3::int)"
          " OR (SELECT extract(epoch FROM now() - min(queued_at)) FROM bulkhead_internal.runs WHERE module = $1 AND job = $2) > $4::float8)) AS ended"
          " WHERE (n > $3::int OR extract(epoch FROM now() - finished_at) > $4::float8) AND (slot IS NULL OR slot <> last))",
          {module, spec.name, absl::StrCat(spec.history_count), age})
      .status();
}

absl::Status RunStore::CountBacklog(const std::vector<std::string>& modules) {
  return database_
      .Run(
          "UPDATE bulkhead_internal.module_jobs AS j SET backlog = w.waiting FROM (SELECT k.module, k.job, (SELECT count(*) FROM"
          " bulkhead_internal.runs r WHERE r.module = k.module AND r.job = k.job AND r.status = 'QUEUED') AS waiting"
          " FROM bulkhead_internal.module_jobs k WHERE k.module = ANY ($1::text[])) AS w"
          " WHERE j.module = w.module AND j.job = w.job AND j.backlog <> w.waiting",
          {ArrayOf(modules, [](const std::string& m) { return m; })})
      .status();
}

absl::StatusOr<RunView> RunStore::Get(const std::string& id) {
  if (!IsRunId(id)) return NoRun(id);
  ASSIGN_OR_RETURN(Rows rows,
                   database_.Run(absl::StrCat("SELECT", kColumns, kWithArtifacts, "FROM bulkhead_internal.runs r WHERE r.id = $1::uuid"), {id}));
  if (rows.size() == 0) return NoRun(id);
  RunView run = ToView(rows, 0);
  run.artifacts = ReadArtifacts(rows, 0);
  return run;
}

absl::StatusOr<RunView> RunStore::Cancel(const std::string& id, const AuditRecord& audit) {
  if (!IsRunId(id)) return NoRun(id);
  std::optional<RunView> cancelled;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& connection) -> absl::Status {
    cancelled.reset();
    ASSIGN_OR_RETURN(const Rows rows,
                     connection.Run(absl::StrCat("SELECT", kColumns, "FROM bulkhead_internal.cancel_run($1::uuid) AS r"), {id}));
    if (rows.size() == 0) return absl::OkStatus();
    cancelled = ToView(rows, 0);
    AuditRecord record = audit;
    record.module = cancelled->module;
    record.target = id;
    record.after_json = nlohmann::json({{"job", cancelled->job}}).dump();
    return AppendAudit(connection, record);
  }));
  if (cancelled) {
    Recorded(audit);
    return *cancelled;
  }
  ASSIGN_OR_RETURN(RunView ended, Get(id));
  if (ended.status == RunStatus::kCancelled) return ended;
  return Error("RUN_ENDED", absl::StrCat("The run ", id, " has ended as ", std::string(RunStatusName(ended.status)), " already."));
}

absl::StatusOr<std::vector<RunLogLine>> RunStore::Logs(const std::string& id, int64_t after, int limit) {
  RETURN_IF_ERROR(Get(id).status());
  ASSIGN_OR_RETURN(Rows rows, database_.Run("SELECT seq, at, level, message FROM bulkhead_internal.run_logs WHERE run_id = $1::uuid"
                                            " AND seq > $2::bigint ORDER BY seq LIMIT $3::int",
                                            {id, absl::StrCat(after), absl::StrCat(limit)}));
  std::vector<RunLogLine> lines;
  for (int i = 0; i < rows.size(); ++i)
    lines.push_back({rows.Int(i, "seq"), rows.Time(i, "at").value_or(WallTime()), rows.Text(i, "level"), rows.Text(i, "message")});
  return lines;
}

absl::StatusOr<RunPage> RunStore::List(const RunFilter& filter, int page, int page_size) {
  std::vector<SqlParam> params;
  std::string where = " FROM bulkhead_internal.runs r";
  const auto only = [&](const char* column, const std::string& value) {
    if (value.empty()) return;
    params.emplace_back(value);
    absl::StrAppend(&where, params.size() == 1 ? " WHERE" : " AND", " r.", column, " = $", params.size());
  };
  only("module", filter.module);
  only("job", filter.job);
  only("trigger", filter.trigger);
  only("status", filter.status ? std::string(RunStatusName(*filter.status)) : "");
  ASSIGN_OR_RETURN(Rows count, database_.Run("SELECT count(*) AS total" + where, params));
  RunPage result;
  result.total = static_cast<int>(count.Int(0, "total"));
  const int64_t offset = static_cast<int64_t>(page - 1) * page_size;
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat("SELECT", kColumns, kWithArtifacts, where, " ORDER BY r.queued_at DESC, r.id LIMIT ",
                                                         page_size, " OFFSET ", offset),
                                            params));
  for (int i = 0; i < rows.size(); ++i) {
    result.runs.push_back(ToView(rows, i));
    result.runs.back().artifacts = ReadArtifacts(rows, i);
  }
  return result;
}

}  // namespace bulkhead
