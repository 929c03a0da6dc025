#include "supervisor/store/audit.h"

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessage = 2'000;  // bytes of a refusal's sentence; the rest is left out

SqlParam OrNull(const std::string& text) { return text.empty() ? SqlParam() : SqlParam(text); }

// What a refused call named may be as long as its body, and an index takes no more than a third of a page.
std::string AuditName(const std::string& name) { return std::string(CutUtf8(ValidUtf8(name), kMaxAuditName)); }

json Object(const std::string& text) {
  json value = json::parse(text.empty() ? "{}" : text, nullptr, false);
  return value.is_object() ? value : json::object();
}

AuditRow RowOf(const Rows& rows, int r) {
  AuditRow row;
  row.id = rows.Int(r, "id");
  row.at = rows.Time(r, "at").value_or(WallTime());
  AuditRecord& record = row.record;
  record.by = {rows.Text(r, "subject"), rows.Text(r, "credential"), rows.Text(r, "credential_id"),
               rows.Text(r, "address"), rows.Text(r, "request_id"), rows.Text(r, "node"), nullptr};
  record.action = rows.Text(r, "action");
  record.module = rows.Text(r, "module");
  record.target = rows.Text(r, "target");
  record.before_json = rows.Text(r, "before");
  record.after_json = rows.Text(r, "after");
  record.outcome = rows.Text(r, "outcome");
  record.message = rows.Text(r, "message");
  return row;
}

// The conditions of a query, with their parameters.
std::string Where(const AuditQuery& query, std::vector<SqlParam>& params) {
  std::string where = " WHERE true";
  auto add = [&](const std::string& condition, std::string value, const std::string& cast = "") {
    params.emplace_back(std::move(value));
    where += " AND " + condition + " $" + std::to_string(params.size()) + cast;
  };
  if (query.since) add("at >=", FormatWallExactly(*query.since), "::timestamptz");
  if (query.until) add("at <", FormatWallExactly(*query.until), "::timestamptz");
  if (!query.subject.empty()) add("subject =", ValidUtf8(query.subject));
  if (!query.module.empty()) add("module =", ValidUtf8(query.module));
  if (!query.outcome.empty()) add("outcome =", ValidUtf8(query.outcome));
  if (!query.request_id.empty()) add("request_id =", ValidUtf8(query.request_id));
  if (query.action.ends_with(".*")) {
    // starts_with() takes its argument as it is, without LIKE's wildcards.
    params.emplace_back(ValidUtf8(query.action.substr(0, query.action.size() - 1)));
    where += " AND starts_with(action, $" + std::to_string(params.size()) + ")";
  } else if (!query.action.empty()) {
    add("action =", ValidUtf8(query.action));
  }
  return where;
}

}  // namespace

Actor OnTheWay(Actor by) {
  by.recorded = nullptr;
  return by;
}

Actor SystemActor(std::string node) { return {"system", "system", "", "", "", std::move(node), nullptr}; }

absl::Status AppendAudit(Connection& connection, const AuditRecord& record) {
  const Actor& by = record.by;
  if (by.recorded && record.outcome != kAccepted) {
    std::lock_guard lock(by.recorded->order);
    by.recorded->outcome = true;
  }
  return connection
      .Run(
          "INSERT INTO bulkhead_internal.audit (node, subject, credential, credential_id, address, request_id, action, module, "
          "target, before, after, outcome, message) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11::jsonb, $12, $13)",
          {by.node, ValidUtf8(by.subject), by.credential, ValidUtf8(by.credential_id), ValidUtf8(by.address),
           ValidUtf8(by.request_id), record.action, OrNull(AuditName(record.module)), AuditName(record.target),
           OrNull(record.before_json), OrNull(record.after_json), record.outcome,
           std::string(CutUtf8(ValidUtf8(record.message), kMaxMessage))})
      .status();
}

void Recorded(const AuditRecord& record) {
  if (record.by.recorded) record.by.recorded->what = (record.outcome == kAccepted ? Recording::kAcceptance : Recording::kOutcome);
}

std::pair<std::string, std::string> Changed(const std::string& before_json, const std::string& after_json) {
  const json before = Object(before_json), after = Object(after_json);
  json from = json::object(), to = json::object();
  for (const auto& [name, value] : before.items()) {
    auto now = after.find(name);
    if (now != after.end() && *now == value) continue;
    from[name] = value;
  }
  for (const auto& [name, value] : after.items()) {
    auto then = before.find(name);
    if (then != before.end() && *then == value) continue;
    to[name] = value;
  }
  auto dump = [](const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); };
  return {before_json.empty() ? "" : dump(from), after_json.empty() ? "" : dump(to)};
}

absl::Status AuditLog::Append(const AuditRecord& record) {
  return database_.With([&](Connection& connection) {
    RecordedCall* const call = record.outcome == kAccepted ? record.by.recorded.get() : nullptr;
    if (call == nullptr) return AppendAudit(connection, record);
    std::lock_guard lock(call->order);
    return call->outcome ? absl::OkStatus() : AppendAudit(connection, record);
  });
}

absl::StatusOr<AuditPage> AuditLog::Find(const AuditQuery& query) {
  std::vector<SqlParam> params;
  const std::string where = Where(query, params);
  AuditPage page;
  // One snapshot for both, so that a page never has rows beyond its total.
  absl::Status status = database_.Transaction([&](Connection& connection) -> absl::Status {
    page = {};
    RETURN_IF_ERROR(connection.Run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").status());
    ASSIGN_OR_RETURN(const Rows counted, connection.Run("SELECT count(*) AS total FROM bulkhead_internal.audit" + where, params));
    page.total = static_cast<int>(counted.Int(0, "total"));
    std::vector<SqlParam> paged = params;
    paged.emplace_back(std::to_string(query.page_size));
    paged.emplace_back(std::to_string(int64_t{query.page - 1} * query.page_size));
    ASSIGN_OR_RETURN(const Rows rows,
                     connection.Run("SELECT * FROM bulkhead_internal.audit" + where + " ORDER BY id DESC LIMIT $" +
                                        std::to_string(paged.size() - 1) + "::bigint OFFSET $" + std::to_string(paged.size()) + "::bigint",
                                    paged));
    for (int r = 0; r < rows.size(); ++r) page.rows.push_back(RowOf(rows, r));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return page;
}

}  // namespace bulkhead
