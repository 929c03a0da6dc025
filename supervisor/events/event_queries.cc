#include "supervisor/events/event_queries.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/events/event_store.h"

namespace bulkhead {
namespace {

constexpr char kTell[] = "SELECT pg_notify('bulkhead_events', '')";
constexpr char kLetterColumns[] =
    " l.id, l.module, l.event_id, l.topic, l.key, l.payload::text AS payload, l.source, l.published_at, l.attempts, l.error, l.died_at ";

DeadLetter LetterOf(const Rows& rows, int row) {
  DeadLetter letter;
  letter.id = rows.Int(row, "id");
  letter.module = rows.Text(row, "module");
  letter.event = {rows.Int(row, "event_id"), rows.Text(row, "topic"), rows.Text(row, "key"), rows.Text(row, "payload"), rows.Text(row, "source"),
                  rows.Time(row, "published_at").value_or(WallTime())};
  letter.attempts = static_cast<int>(rows.Int(row, "attempts"));
  letter.error = rows.Text(row, "error");
  letter.died_at = rows.Time(row, "died_at").value_or(WallTime());
  return letter;
}

absl::Status NoLetter(int64_t id) {
  return Error("DEAD_LETTER_NOT_FOUND", absl::StrCat("There is no dead letter ", id, ". GET /api/v1/events/dead-letters lists them."));
}

// The letters of `ids` wait for delivery again. An event that its age has taken out of the outbox is put back, as one that was always there.
absl::Status TakeBack(Connection& c, const std::string& ids) {
  RETURN_IF_ERROR(c.Run("INSERT INTO bulkhead_internal.events (id, xid, topic, key, payload, source, at) OVERRIDING SYSTEM VALUE"
                        " SELECT DISTINCT ON (event_id) event_id, '3'::xid8, topic, key, payload, source, published_at"
                        " FROM bulkhead_internal.event_dead_letters WHERE id = ANY ($1::bigint[]) ON CONFLICT (id) DO NOTHING", {ids}).status());
  RETURN_IF_ERROR(c.Run("WITH back AS (DELETE FROM bulkhead_internal.event_dead_letters WHERE id = ANY ($1::bigint[]) RETURNING module, event_id)"
                        " INSERT INTO bulkhead_internal.event_deliveries (module, event_id, fresh) SELECT module, event_id, true FROM back"
                        " WHERE module IN (SELECT module FROM bulkhead_internal.event_subscriptions) ON CONFLICT DO NOTHING", {ids}).status());
  return c.Run(kTell).status();
}

absl::StatusOr<DeadLetter> Locked(Connection& c, int64_t id) {
  ASSIGN_OR_RETURN(Rows rows, c.Run(absl::StrCat("SELECT", kLetterColumns, "FROM bulkhead_internal.event_dead_letters l WHERE l.id = $1::bigint"
                                                 " FOR UPDATE"), {absl::StrCat(id)}));
  if (rows.size() == 0) return NoLetter(id);
  return LetterOf(rows, 0);
}

std::string About(const DeadLetter& letter) {
  return nlohmann::json{{"event", std::to_string(letter.event.id)}, {"topic", letter.event.topic}, {"attempts", letter.attempts}}.dump();
}

// `e` is of a topic that `s` subscribes to.
constexpr char kWanted[] =
    " e.topic LIKE ANY (ARRAY(SELECT regexp_replace(replace(replace(t, '\\', '\\\\'), '_', '\\_'), '\\.\\*$', '.%') FROM unnest(s.topics) t)) ";

// What `s` has still to be given of `e` but for its topic, beside event_deliveries.
constexpr char kOwed[] =
    " ((e.xid = ANY (ARRAY(SELECT pg_snapshot_xip(s.done))) OR e.xid >= pg_snapshot_xmax(s.done))"
    " AND (s.reach IS NULL OR e.id > s.position OR NOT pg_visible_in_snapshot(e.xid, s.reach))) ";

absl::Status NotSubscribed(const std::string& module) {
  return Error("SUBSCRIPTION_NOT_FOUND", absl::StrCat("The module \"", module.substr(0, 64), "\" has never been enabled with a subscription to events."));
}

}  // namespace

absl::StatusOr<EventPage> EventQueries::Find(const Filter& filter) {
  std::vector<SqlParam> params;
  std::string where = " FROM bulkhead_internal.events e WHERE true";
  const auto with = [&](const std::string& condition, std::string value) {
    params.emplace_back(std::move(value));
    absl::StrAppend(&where, " AND ", condition, " $", params.size());
  };
  if (!filter.topic.empty()) {
    with("e.topic LIKE ANY (", TopicPatterns({filter.topic}));
    where += "::text[])";
  }
  if (!filter.key.empty()) with("e.key =", filter.key);
  if (!filter.source.empty()) with("e.source =", filter.source);
  if (filter.since) {
    with("e.at >=", FormatWallExactly(*filter.since));
    where += "::timestamptz";
  }
  ASSIGN_OR_RETURN(Rows count, database_.Run("SELECT count(*) AS total" + where, params));
  EventPage page;
  page.total = static_cast<int>(count.Int(0, "total"));
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat("SELECT e.id, e.topic, e.key, e.payload::text AS payload, e.source, e.at", where,
                                                         " ORDER BY e.id DESC LIMIT ", filter.page_size, " OFFSET ",
                                                         (int64_t{filter.page} - 1) * filter.page_size), params));
  for (int i = 0; i < rows.size(); ++i) {
    page.events.push_back({rows.Int(i, "id"), rows.Text(i, "topic"), rows.Text(i, "key"), rows.Text(i, "payload"), rows.Text(i, "source"),
                           rows.Time(i, "at").value_or(WallTime())});
  }
  return page;
}

absl::StatusOr<std::vector<SubscriptionView>> EventQueries::Subscriptions() {
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat(
      "SELECT s.module, to_json(s.topics)::text AS topics, coalesce(s.node, '') AS node, s.delivered_at, owed.count + waiting.count AS lag,"
      " least(owed.oldest, waiting.oldest) AS oldest, waiting.count AS retrying,"
      " (SELECT count(*) FROM bulkhead_internal.event_dead_letters l WHERE l.module = s.module) AS dead"
      " FROM bulkhead_internal.event_subscriptions s,"
      " LATERAL (SELECT count(*) AS count, min(at) AS oldest FROM (SELECT e.at FROM bulkhead_internal.events e WHERE", kOwed, "AND", kWanted,
      " LIMIT ", limits::kMaxCountedLag, ") c) owed,"
      " LATERAL (SELECT count(*) AS count, min(e.at) AS oldest FROM bulkhead_internal.event_deliveries d JOIN bulkhead_internal.events e"
      "          ON e.id = d.event_id WHERE d.module = s.module) waiting ORDER BY s.module")));
  std::vector<SubscriptionView> views;
  for (int i = 0; i < rows.size(); ++i) {
    SubscriptionView view;
    view.module = rows.Text(i, "module");
    const auto topics = nlohmann::json::parse(rows.Text(i, "topics"), nullptr, false);
    if (topics.is_array()) view.topics = topics.get<std::vector<std::string>>();
    view.node = rows.Text(i, "node");
    view.lag = static_cast<int>(std::min<int64_t>(rows.Int(i, "lag"), limits::kMaxCountedLag));
    view.oldest = rows.Time(i, "oldest");
    view.retrying = static_cast<int>(rows.Int(i, "retrying"));
    view.dead_letters = static_cast<int>(rows.Int(i, "dead"));
    view.delivered_at = rows.Time(i, "delivered_at");
    views.push_back(std::move(view));
  }
  return views;
}

absl::StatusOr<std::vector<OpenTransaction>> EventQueries::OpenTransactions() {
  // Who has inserted holds this lock until the end of his transaction.
  ASSIGN_OR_RETURN(Rows rows, database_.Run(
      "SELECT DISTINCT a.pid, coalesce(r.module, '') AS module, a.xact_start, coalesce(a.state, '') AS state, left(a.query, 200) AS query"
      " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN bulkhead_internal.module_roles r ON r.role = a.usename"
      " WHERE l.relation = 'bulkhead_internal.events'::regclass AND l.mode = 'RowExclusiveLock' AND a.pid <> pg_backend_pid()"
      " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY a.xact_start LIMIT 100"));
  std::vector<OpenTransaction> open;
  for (int i = 0; i < rows.size(); ++i) {
    open.push_back({static_cast<int>(rows.Int(i, "pid")), rows.Text(i, "module"), rows.Time(i, "xact_start").value_or(WallTime()),
                    rows.Text(i, "state"), rows.Text(i, "query")});
  }
  return open;
}

absl::StatusOr<DeadLetterPage> EventQueries::DeadLetters(const std::string& module, const std::string& topic, int page, int page_size) {
  const std::vector<SqlParam> params{module, topic.empty() ? "{}" : TopicPatterns({topic})};
  constexpr char kWhere[] = " FROM bulkhead_internal.event_dead_letters l WHERE ($1 = '' OR l.module = $1)"
                            " AND ($2::text[] = '{}' OR l.topic LIKE ANY ($2::text[]))";
  ASSIGN_OR_RETURN(Rows count, database_.Run(absl::StrCat("SELECT count(*) AS total", kWhere), params));
  DeadLetterPage result;
  result.total = static_cast<int>(count.Int(0, "total"));
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat("SELECT", kLetterColumns, kWhere, " ORDER BY l.id DESC LIMIT ", page_size, " OFFSET ",
                                                         (int64_t{page} - 1) * page_size), params));
  for (int i = 0; i < rows.size(); ++i) result.letters.push_back(LetterOf(rows, i));
  return result;
}

absl::StatusOr<DeadLetter> EventQueries::GetDeadLetter(int64_t id) {
  ASSIGN_OR_RETURN(Rows rows, database_.Run(absl::StrCat("SELECT", kLetterColumns,
                                                         "FROM bulkhead_internal.event_dead_letters l WHERE l.id = $1::bigint"), {absl::StrCat(id)}));
  if (rows.size() == 0) return NoLetter(id);
  return LetterOf(rows, 0);
}

absl::StatusOr<DeadLetter> EventQueries::ReplayDeadLetter(int64_t id, AuditRecord audit) {
  DeadLetter letter;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(letter, Locked(c, id));
    RETURN_IF_ERROR(TakeBack(c, absl::StrCat("{", id, "}")));
    audit.module = letter.module;
    audit.target = absl::StrCat(id);
    audit.after_json = About(letter);
    return AppendAudit(c, audit);
  }));
  Recorded(audit);
  return letter;
}

absl::StatusOr<int> EventQueries::ReplayDeadLetters(const std::string& module, const std::string& topic, AuditRecord audit) {
  int count = 0;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows known, c.Run("SELECT FROM bulkhead_internal.event_subscriptions WHERE module = $1", {module}));
    if (!module.empty() && known.size() == 0) return NotSubscribed(module);
    ASSIGN_OR_RETURN(Rows rows, c.Run("SELECT id FROM bulkhead_internal.event_dead_letters l WHERE ($1 = '' OR l.module = $1)"
                                      " AND ($2::text[] = '{}' OR l.topic LIKE ANY ($2::text[])) ORDER BY id LIMIT $3::int FOR UPDATE",
                                      {module, topic.empty() ? "{}" : TopicPatterns({topic}), absl::StrCat(limits::kMaxReplayedDeadLetters)}));
    count = rows.size();
    std::string ids = "{";
    for (int i = 0; i < count; ++i) absl::StrAppend(&ids, i > 0 ? "," : "", rows.Text(i, "id"));
    RETURN_IF_ERROR(TakeBack(c, ids + "}"));
    audit.module = module;
    audit.after_json = nlohmann::json{{"topic", topic}, {"deadLetters", count}}.dump();
    return AppendAudit(c, audit);
  }));
  Recorded(audit);
  return count;
}

absl::StatusOr<DeadLetter> EventQueries::DropDeadLetter(int64_t id, AuditRecord audit) {
  DeadLetter letter;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(letter, Locked(c, id));
    RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_dead_letters WHERE id = $1::bigint", {absl::StrCat(id)}).status());
    audit.module = letter.module;
    audit.target = absl::StrCat(id);
    audit.before_json = About(letter);
    return AppendAudit(c, audit);
  }));
  Recorded(audit);
  return letter;
}

absl::StatusOr<int> EventQueries::Replay(const std::string& module, WallTime since, bool forget, AuditRecord audit) {
  int count = 0;
  const absl::Status replayed = database_.Transaction([&](Connection& c) -> absl::Status {
    // The fence first: from now on nobody writes the place, and the snapshot below is taken after what it was.
    ASSIGN_OR_RETURN(Rows own, c.Run("UPDATE bulkhead_internal.event_subscriptions SET fence = fence + 1, node = NULL, lease_until = NULL"
                                     " WHERE module = $1 RETURNING fence", {module}));
    if (own.size() == 0) return NotSubscribed(module);
    // From the first event of that time on, or from the first that it is still owed, should that be older.
    ASSIGN_OR_RETURN(Rows from, c.Run(absl::StrCat(
        "SELECT least((SELECT min(e.id) FROM bulkhead_internal.events e WHERE e.at >= $2::timestamptz),"
        " (SELECT min(e.id) FROM bulkhead_internal.events e WHERE", kOwed, "AND", kWanted, ")) AS first, pg_current_snapshot()::text AS reach"
        " FROM bulkhead_internal.event_subscriptions s WHERE s.module = $1"), {module, FormatWallExactly(since)}));
    if (!from.Null(0, "first")) {
      const std::string first = from.Text(0, "first");
      ASSIGN_OR_RETURN(Rows moved, c.Run(absl::StrCat(
          "WITH s AS (UPDATE bulkhead_internal.event_subscriptions SET done = '1:1:', reach = $3::pg_snapshot, position = $2::bigint - 1"
          " WHERE module = $1 RETURNING topics)"
          " SELECT count(*) AS count FROM bulkhead_internal.events e, s WHERE e.id >= $2::bigint AND pg_visible_in_snapshot(e.xid, $3::pg_snapshot)"
          " AND", kWanted), {module, first, from.Text(0, "reach")}));
      count = static_cast<int>(moved.Int(0, "count"));
      if (forget) {
        RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_inbox WHERE module = $1 AND event_id >= $2::bigint", {module, first}).status());
      }
    }
    RETURN_IF_ERROR(c.Run(kTell).status());
    audit.module = module;
    audit.after_json = nlohmann::json{{"since", FormatWall(since)}, {"events", count}, {"forget", forget}}.dump();
    return AppendAudit(c, audit);
  });
  RETURN_IF_ERROR(replayed);
  Recorded(audit);
  return count;
}

}  // namespace bulkhead
