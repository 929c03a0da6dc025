#include "supervisor/jobs/run_store.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

// Claims are made one after another: "is one of this job running?" and the claim are one step cluster-wide. On a table that no module can
// reach: an advisory lock could be taken by any of them, to stop all jobs. Nothing else locks it so, readers and writers do not wait for
// it, and nothing is written for it.
constexpr char kLockClaims[] = "LOCK TABLE bulkhead_internal.instance IN SHARE UPDATE EXCLUSIVE MODE";

constexpr char kColumns[] =
    " r.id, r.module, r.job, r.status, r.attempt, r.max_attempts, r.trigger, r.slot, r.payload::text AS payload, r.progress, "
    "r.progress_message,"
    " r.result::text AS result, r.error_code, r.error_message, r.error_stack, r.queued_at, r.started_at, r.finished_at, r.node, "
    "r.worker, r.fence ";

RunView ToView(const Rows& rows, int row) {
  RunView view;
  view.id = rows.Text(row, "id");
  view.module = rows.Text(row, "module");
  view.job = rows.Text(row, "job");
  view.status = ParseRunStatus(rows.Text(row, "status")).value_or(RunStatus::kFailed);
  view.attempt = static_cast<int>(rows.Int(row, "attempt"));
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
  return view;
}

// A PostgreSQL array literal; every element quoted.
template <typename List, typename Get>
std::string ArrayOf(const List& list, Get get) {
  std::string text = "{";
  for (const auto& item : list) {
    if (text.size() > 1) text += ',';
    absl::StrAppend(&text, "\"", absl::StrReplaceAll(get(item), {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
  }
  return text + "}";
}

// Errors about the content of a jsonb: "\u0000", a number out of range, broken text.
bool IsContentError(const absl::Status& status) { return absl::StartsWith(SqlState(status), "22"); }

std::string Seconds(Millis time) { return absl::StrCat(static_cast<double>(time.count()) / 1000.0); }

SqlParam NullIfEmpty(const std::string& text) { return text.empty() ? SqlParam() : SqlParam(text); }

bool IsUuid(const std::string& id) {
  if (id.size() != 36) return false;
  for (size_t i = 0; i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? id[i] != '-' : !absl::ascii_isxdigit(id[i])) return false;
  }
  return true;
}

// What becomes of a RUNNING row whose executor is gone. attempt counts, but a run is not given up for one death.
std::string LossColumns() {
  return absl::StrCat(" status = CASE WHEN r.attempt < greatest(r.max_attempts, ", limits::kMinAttemptsAfterLoss,
                      ") THEN 'QUEUED' ELSE 'INTERRUPTED' END, finished_at = CASE WHEN r.attempt < greatest(r.max_attempts, ",
                      limits::kMinAttemptsAfterLoss,
                      ") THEN NULL ELSE now() END, not_before = now(), lease_until = NULL,"
                      " error_code = 'WORKER_LOST', error_message = 'The worker that ran attempt ' || r.attempt || ' is gone.', "
                      "error_stack = NULL ");
}

}  // namespace

absl::StatusOr<std::optional<RunView>> RunStore::InsertTick(const std::string& module, const JobSpec& spec, WallTime slot) {
  const std::string busy =
      spec.overlap == Overlap::kSkip
          ? "EXISTS (SELECT 1 FROM bulkhead_internal.runs WHERE module = $1 AND job = $2 AND status IN ('QUEUED', 'RUNNING'))"
          : absl::StrCat("(SELECT count(*) FROM bulkhead_internal.runs WHERE module = $1 AND job = $2 AND status = 'QUEUED') >= ",
                         limits::kMaxWaitingRuns);
  const std::string sql = absl::StrCat(
      "INSERT INTO bulkhead_internal.runs AS r (module, job, status, max_attempts, trigger, slot, finished_at, error_code, "
      "error_message)"
      " SELECT $1, $2, CASE WHEN busy THEN 'SKIPPED' ELSE 'QUEUED' END, $3::int, 'schedule', $4::timestamptz, CASE WHEN busy "
      "THEN now() END,"
      " CASE WHEN busy THEN 'OVERLAP' END, CASE WHEN busy THEN 'An earlier run of the job had not ended.' END FROM (SELECT ",
      busy,
      " AS busy) AS b"
      " ON CONFLICT ON CONSTRAINT runs_slot_key DO NOTHING RETURNING",
      kColumns);
  std::optional<RunView> inserted;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& connection) -> absl::Status {
    inserted.reset();
    ASSIGN_OR_RETURN(Rows rows, connection.Run(sql, {module, spec.name, absl::StrCat(spec.retries + 1), FormatWall(slot)}));
    if (rows.size() == 0) return absl::OkStatus();
    inserted = ToView(rows, 0);
    if (spec.overlap != Overlap::kReplace) return absl::OkStatus();
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
                     " SELECT $1, $2, $3::int, 'manual', $4::jsonb WHERE (SELECT count(*) FROM bulkhead_internal.runs"
                     " WHERE module = $1 AND job = $2 AND status = 'QUEUED') < ",
                     limits::kMaxWaitingRuns, " RETURNING", kColumns),
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

absl::StatusOr<std::vector<ClaimedRun>> RunStore::Claim(const std::vector<RunClaim>& claims, int limit) {
  const std::string sql = absl::StrCat(
      "WITH active AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS a(module, job, instance)),"
      " picked AS (SELECT w.id, a.instance FROM active a CROSS JOIN LATERAL ("
      "   SELECT id FROM bulkhead_internal.runs q WHERE q.module = a.module AND q.job = a.job AND q.status = 'QUEUED' AND "
      "q.not_before <= now()"
      "   ORDER BY q.queued_at, q.id LIMIT 1 FOR UPDATE SKIP LOCKED) AS w"
      "  WHERE NOT EXISTS (SELECT 1 FROM bulkhead_internal.runs x WHERE x.module = a.module AND x.job = a.job AND x.status = "
      "'RUNNING')"
      "  LIMIT $4::int)"
      " UPDATE bulkhead_internal.runs AS r SET status = 'RUNNING', attempt = r.attempt + 1, started_at = now(), finished_at = "
      "NULL, node = $5,"
      " worker = p.instance, lease_until = now() + $6::float8 * interval '1 second', fence = "
      "nextval('bulkhead_internal.run_fence'),"
      " progress = 0, progress_message = '', error_code = NULL, error_message = NULL, error_stack = NULL"
      " FROM picked p WHERE r.id = p.id RETURNING",
      kColumns);
  std::vector<ClaimedRun> claimed;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& connection) -> absl::Status {
    claimed.clear();
    RETURN_IF_ERROR(connection.Run(kLockClaims).status());
    ASSIGN_OR_RETURN(Rows rows, connection.Run(sql, {ArrayOf(claims, [](const RunClaim& c) { return c.module; }),
                                                     ArrayOf(claims, [](const RunClaim& c) { return c.job; }),
                                                     ArrayOf(claims, [](const RunClaim& c) { return c.instance; }),
                                                     absl::StrCat(limit), node_, Seconds(limits::kRunLease)}));
    for (int i = 0; i < rows.size(); ++i) {
      claimed.push_back({ToView(rows, i), rows.Int(i, "fence"), static_cast<int>(rows.Int(i, "max_attempts"))});
    }
    return absl::OkStatus();
  }));
  return claimed;
}

absl::StatusOr<std::optional<RunView>> RunStore::Finish(const std::string& id, int64_t fence, const RunOutcome& outcome) {
  using Kind = RunOutcome::Kind;
  constexpr char kBegin[] = "UPDATE bulkhead_internal.runs AS r SET ";
  const std::string end =
      absl::StrCat(" WHERE r.id = $1::uuid AND r.fence = $2::bigint AND r.status = 'RUNNING' RETURNING", kColumns);
  const std::vector<SqlParam> key{id, absl::StrCat(fence)};
  std::vector<SqlParam> all = key;
  for (const std::string* text : {&outcome.error_code, &outcome.error_message, &outcome.error_stack})
    all.push_back(NullIfEmpty(*text));
  absl::StatusOr<Rows> rows = absl::InternalError("no such outcome");
  switch (outcome.kind) {
    case Kind::kFinal:
      all.push_back(std::string(RunStatusName(outcome.status)));
      all.push_back(outcome.result_json);
      all.push_back(absl::StrCat(outcome.progress));
      all.push_back(outcome.progress_message);
      rows = database_.Run(
          absl::StrCat(kBegin,
                       "status = $6, finished_at = now(), lease_until = NULL, result = $7::jsonb, error_code = $3,"
                       " error_message = $4, error_stack = $5, progress = CASE WHEN $6 = 'SUCCEEDED' THEN 1 ELSE $8::float8 END,"
                       " progress_message = $9",
                       end),
          all);
      break;
    case Kind::kRetry:
      all.push_back(Seconds(outcome.delay));
      rows = database_.Run(
          absl::StrCat(kBegin,
                       "status = 'QUEUED', lease_until = NULL, not_before = now() + $6::float8 * interval '1 second',"
                       " error_code = $3, error_message = $4, error_stack = $5",
                       end),
          all);
      break;
    case Kind::kLost: rows = database_.Run(absl::StrCat(kBegin, LossColumns(), end), key); break;
    case Kind::kShutdown:
      rows = database_.Run(
          absl::StrCat(kBegin,
                       "status = 'INTERRUPTED', attempt = greatest(r.attempt - 1, 0), finished_at = now(), lease_until = NULL,"
                       " error_code = 'SHUTDOWN', error_message = 'The supervisor was shut down; the run is taken up again.',"
                       " error_stack = NULL",
                       end),
          key);
      break;
    case Kind::kReturned:
      rows = database_.Run(
          absl::StrCat(kBegin,
                       "status = 'QUEUED', attempt = greatest(r.attempt - 1, 0), not_before = now(), lease_until = NULL,"
                       " started_at = NULL",
                       end),
          key);
      break;
  }
  if (!rows.ok() && outcome.result_json && IsContentError(rows.status())) {
    RunOutcome refused = outcome;
    refused.status = RunStatus::kFailed;
    refused.result_json.reset();
    refused.error_code = "RESULT_INVALID";
    refused.error_message = "The result has a value that the database can't keep, such as \\u0000 in a text.";
    return Finish(id, fence, refused);
  }
  if (!rows.ok()) return rows.status();
  if (rows->size() == 0) return std::nullopt;
  return ToView(*rows, 0);
}

absl::Status RunStore::SetProgress(const std::string& id, int64_t fence, double progress, const std::string& message) {
  return database_
      .Run(
          "UPDATE bulkhead_internal.runs SET progress = $3::float8, progress_message = $4"
          " WHERE id = $1::uuid AND fence = $2::bigint AND status = 'RUNNING'",
          {id, absl::StrCat(fence), absl::StrCat(progress), message})
      .status();
}

absl::StatusOr<std::vector<RunStore::Extended>> RunStore::Extend(
    const std::vector<std::pair<std::string, int64_t>>& ids_and_fences) {
  ASSIGN_OR_RETURN(
      Rows rows,
      database_.Run(
          "UPDATE bulkhead_internal.runs AS r SET lease_until = now() + $3::float8 * interval '1 second'"
          " FROM unnest($1::uuid[], $2::bigint[]) AS mine(id, fence)"
          " WHERE r.id = mine.id AND r.fence = mine.fence AND r.status = 'RUNNING'"
          " RETURNING r.fence, EXISTS (SELECT 1 FROM bulkhead_internal.runs n WHERE n.module = r.module AND n.job = r.job"
          "   AND n.status = 'QUEUED' AND n.queued_at > r.queued_at) AS newer",
          {ArrayOf(ids_and_fences, [](const auto& pair) { return pair.first; }),
           ArrayOf(ids_and_fences, [](const auto& pair) { return absl::StrCat(pair.second); }), Seconds(limits::kRunLease)}));
  std::vector<Extended> extended;
  for (int i = 0; i < rows.size(); ++i) extended.push_back({rows.Int(i, "fence"), rows.Bool(i, "newer")});
  return extended;
}

absl::StatusOr<int> RunStore::ReleaseExpired() {
  ASSIGN_OR_RETURN(Rows lost, database_.Run(absl::StrCat("UPDATE bulkhead_internal.runs AS r SET", LossColumns(),
                                                         "WHERE r.status = 'RUNNING' AND r.lease_until < now()")));
  ASSIGN_OR_RETURN(
      Rows interrupted,
      database_.Run(
          "UPDATE bulkhead_internal.runs SET status = 'QUEUED', not_before = now(), finished_at = NULL, error_code = NULL,"
          " error_message = NULL WHERE status = 'INTERRUPTED' AND error_code = 'SHUTDOWN'"
          " AND finished_at > now() - $1::float8 * interval '1 second'",
          {Seconds(limits::kMaxInterruptedAge)}));
  return lost.affected() + interrupted.affected();
}

absl::StatusOr<int> RunStore::ReleaseOwn() {
  ASSIGN_OR_RETURN(Rows lost, database_.Run(absl::StrCat("UPDATE bulkhead_internal.runs AS r SET", LossColumns(),
                                                         "WHERE r.status = 'RUNNING' AND r.node = $1"),
                                            {node_}));
  return lost.affected();
}

absl::Status RunStore::Trim(const std::string& module, const std::string& job) {
  return database_
      .Run(
          "DELETE FROM bulkhead_internal.runs WHERE id IN (SELECT id FROM bulkhead_internal.runs WHERE module = $1 AND job = $2"
          " AND status NOT IN ('QUEUED', 'RUNNING') ORDER BY queued_at DESC OFFSET $3::int)",
          {module, job, absl::StrCat(limits::kMaxRunHistory)})
      .status();
}

absl::StatusOr<RunView> RunStore::Get(const std::string& id) {
  const absl::Status missing = Error("RUN_NOT_FOUND", absl::StrCat("There is no run ", id.substr(0, 64), "."));
  if (!IsUuid(id)) return missing;
  ASSIGN_OR_RETURN(Rows rows,
                   database_.Run(absl::StrCat("SELECT", kColumns, "FROM bulkhead_internal.runs r WHERE r.id = $1::uuid"), {id}));
  if (rows.size() == 0) return missing;
  return ToView(rows, 0);
}

absl::StatusOr<RunPage> RunStore::List(const std::string& module, const std::string& job, std::optional<RunStatus> status,
                                       int page, int page_size) {
  std::vector<SqlParam> params{module, job};
  std::string where = " FROM bulkhead_internal.runs r WHERE r.module = $1 AND r.job = $2";
  if (status) {
    where += " AND r.status = $3";
    params.emplace_back(std::string(RunStatusName(*status)));
  }
  ASSIGN_OR_RETURN(Rows count, database_.Run("SELECT count(*) AS total" + where, params));
  RunPage result;
  result.total = static_cast<int>(count.Int(0, "total"));
  const int64_t offset = static_cast<int64_t>(page - 1) * page_size;
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat("SELECT", kColumns, where, " ORDER BY r.queued_at DESC, r.id LIMIT ",
                                                         page_size, " OFFSET ", offset),
                                            params));
  for (int i = 0; i < rows.size(); ++i) result.runs.push_back(ToView(rows, i));
  return result;
}

}  // namespace bulkhead
