#include "supervisor/events/event_store.h"

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr char kEventColumns[] = " e.id, e.topic, e.key, e.payload::text AS payload, e.source, e.at ";

// Of the window from $1 to $2 beyond $3, for the topics like $4: what is of later transactions than $1 knew.
constexpr char kNewcomers[] =
    " e.xid >= pg_snapshot_xmax($1::pg_snapshot) AND pg_visible_in_snapshot(e.xid, $2::pg_snapshot)"
    " AND e.id > $3::bigint AND e.topic LIKE ANY ($4::text[]) ";

// The same of transactions that were under way in $1, each by its number: a comparison of both that only the index of both is good for, because an
// equality of the one would let the planner take that of the other and read the whole outbox. `xids` is never empty.
std::string Stragglers(const std::string& columns, const std::string& xids, const std::string& end) {
  return absl::StrCat("SELECT l.* FROM unnest('{", xids, "}'::xid8[]) AS x(xid) CROSS JOIN LATERAL (SELECT ", columns,
                      " FROM bulkhead_internal.events e WHERE (e.xid, e.id) > (x.xid, $3::bigint) AND e.xid <= x.xid"
                      " AND pg_visible_in_snapshot(e.xid, $2::pg_snapshot) AND e.topic LIKE ANY ($4::text[]) ", end, ") l ");
}

// "10:20:10,14,15" → "10,14,15": transactions that were under way when the snapshot was taken.
std::string UnderWay(const std::string& snapshot) {
  const size_t colon = snapshot.rfind(':');
  return colon == std::string::npos ? "" : snapshot.substr(colon + 1);
}

StoredEvent EventOf(const Rows& rows, int row) {
  StoredEvent event;
  event.id = rows.Int(row, "id");
  event.topic = rows.Text(row, "topic");
  event.key = rows.Text(row, "key");
  event.payload_json = rows.Text(row, "payload");
  event.source = rows.Text(row, "source");
  event.at = rows.Time(row, "at").value_or(WallTime());
  return event;
}

std::string SecondsOf(Millis time) { return absl::StrCat(static_cast<double>(time.count()) / 1000.0); }

template <typename List, typename Get>
std::string NumberArray(const List& list, Get get) {
  std::string text = "{";
  for (const auto& item : list) absl::StrAppend(&text, text.size() > 1 ? "," : "", get(item));
  return text + "}";
}

std::vector<std::string> TopicsOf(const std::string& json) {
  const auto parsed = nlohmann::json::parse(json, nullptr, false);
  return parsed.is_array() ? parsed.get<std::vector<std::string>>() : std::vector<std::string>();
}

}  // namespace

std::string TextArray(const std::vector<std::string>& texts) {
  std::string array = "{";
  for (const std::string& text : texts) {
    absl::StrAppend(&array, array.size() > 1 ? "," : "", "\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
  }
  return array + "}";
}

std::string TopicPatterns(const std::vector<std::string>& topics) {
  std::vector<std::string> patterns;
  for (const std::string& topic : topics) {
    std::string pattern = absl::StrReplaceAll(topic, {{"\\", "\\\\"}, {"_", "\\_"}, {"%", "\\%"}});
    if (pattern == "*" || absl::EndsWith(pattern, ".*")) pattern.back() = '%';
    patterns.push_back(std::move(pattern));
  }
  return TextArray(patterns);
}

absl::Status EventStore::Begin() { return connection_->RunScript("SET synchronous_commit = off; LISTEN bulkhead_events"); }

absl::StatusOr<std::vector<ClaimedSubscription>> EventStore::Claim(const std::vector<std::string>& modules) {
  ASSIGN_OR_RETURN(Rows rows,
                   connection_->Run("UPDATE bulkhead_internal.event_subscriptions SET node = $1, fence = fence + 1,"
                                    " lease_until = now() + $3::float8 * interval '1 second'"
                                    " WHERE module = ANY ($2::text[]) AND (node IS NULL OR node = $1 OR lease_until < now())"
                                    " RETURNING module, to_json(topics)::text AS topics, done::text, reach::text, position, fence",
                                    {node_, TextArray(modules), SecondsOf(limits::kSubscriptionLease)}));
  std::vector<ClaimedSubscription> claimed;
  for (int i = 0; i < rows.size(); ++i) {
    ClaimedSubscription one{.module = rows.Text(i, "module"), .topics = TopicsOf(rows.Text(i, "topics")), .fence = rows.Int(i, "fence")};
    one.place.done = rows.Text(i, "done");
    if (!rows.Null(i, "reach")) one.place.reach = rows.Text(i, "reach");
    one.place.position = rows.Int(i, "position");
    claimed.push_back(std::move(one));
  }
  return claimed;
}

absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> EventStore::Renew() {
  ASSIGN_OR_RETURN(Rows rows, connection_->Run("UPDATE bulkhead_internal.event_subscriptions"
                                               " SET lease_until = now() + $2::float8 * interval '1 second' WHERE node = $1 RETURNING module, fence",
                                               {node_, SecondsOf(limits::kSubscriptionLease)}));
  std::vector<std::pair<std::string, int64_t>> held;
  for (int i = 0; i < rows.size(); ++i) held.emplace_back(rows.Text(i, "module"), rows.Int(i, "fence"));
  return held;
}

absl::Status EventStore::Release(const std::string& module, int64_t fence) {
  return connection_->Run("UPDATE bulkhead_internal.event_subscriptions SET node = NULL, lease_until = NULL"
                          " WHERE module = $1 AND fence = $2::bigint AND node = $3",
                          {module, absl::StrCat(fence), node_}).status();
}

absl::StatusOr<std::vector<EventStore::ParkedRow>> EventStore::Parked(const std::string& module, int limit, bool only_fresh) {
  const std::string columns = absl::StrCat(kEventColumns, ", d.attempt, d.losses, d.error, greatest(0, extract(epoch FROM d.not_before - now())",
                                           " * 1000)::bigint AS delay ");
  const std::string sql =
      only_fresh ? absl::StrCat("UPDATE bulkhead_internal.event_deliveries d SET fresh = false FROM bulkhead_internal.events e"
                                " WHERE d.module = $1 AND d.fresh AND e.id = d.event_id AND d.event_id IN (SELECT f.event_id FROM"
                                " bulkhead_internal.event_deliveries f WHERE f.module = $1 AND f.fresh ORDER BY f.event_id LIMIT $2::int)"
                                " RETURNING ", columns)
                 : absl::StrCat("SELECT ", columns, "FROM bulkhead_internal.event_deliveries d JOIN bulkhead_internal.events e ON e.id = d.event_id"
                                " WHERE d.module = $1 ORDER BY d.event_id LIMIT $2::int");
  ASSIGN_OR_RETURN(Rows rows, connection_->Run(sql, {module, absl::StrCat(limit)}));
  std::vector<ParkedRow> parked;
  for (int i = 0; i < rows.size(); ++i) {
    ParkedRow row;
    row.event = {.event = EventOf(rows, i), .attempt = static_cast<int>(rows.Int(i, "attempt")), .losses = static_cast<int>(rows.Int(i, "losses")),
                 .error = rows.Text(i, "error")};
    row.delay = Millis(rows.Int(i, "delay"));
    parked.push_back(std::move(row));
  }
  return parked;
}

absl::StatusOr<OutboxView> EventStore::Look() {
  ASSIGN_OR_RETURN(Rows rows, connection_->RunPrepared("SELECT pg_current_snapshot()::text AS snapshot, r.stream, r.reach::text AS reach,"
                                                       " coalesce(r.lease_until >= now(), false) AS kept_up"
                                                       " FROM (SELECT) AS always LEFT JOIN bulkhead_internal.event_relay r ON true"));
  OutboxView view{.snapshot = rows.Text(0, "snapshot")};
  if (!rows.Null(0, "stream")) view.relayed = OutboxView::Relayed{rows.Text(0, "stream"), rows.Text(0, "reach"), rows.Bool(0, "kept_up")};
  return view;
}

absl::StatusOr<WindowSize> EventStore::Measure(const std::vector<std::string>& topics, const std::string& done, const std::string& reach,
                                               int64_t position) {
  const std::string xids = UnderWay(done);
  const std::string late = xids.empty() ? "0" : absl::StrCat("(SELECT count(*) FROM (", Stragglers("1", xids, ""), ") late)");
  ASSIGN_OR_RETURN(Rows rows, connection_->Run(absl::StrCat("SELECT ", late, " AS late, n.count, n.first FROM (SELECT count(*) AS count,"
                                                            " min(e.id) AS first FROM bulkhead_internal.events e WHERE", kNewcomers, ") n"),
                                               {done, reach, absl::StrCat(position), TopicPatterns(topics)}));
  return WindowSize{rows.Int(0, "late") + rows.Int(0, "count"), rows.Int(0, "first")};
}

absl::StatusOr<std::vector<StoredEvent>> EventStore::Fetch(const std::vector<std::string>& topics, const std::string& done, const std::string& reach,
                                                           int64_t position, int64_t first_new, int limit) {
  // Newcomers by their numbers, of which few are somebody else's: no sort of a long window for each page of it.
  const std::string end = absl::StrCat(" ORDER BY e.id LIMIT ", limit), late_end = absl::StrCat(" ORDER BY e.xid, e.id LIMIT ", limit);
  const std::string xids = UnderWay(done);
  std::string sql = absl::StrCat("SELECT * FROM (SELECT", kEventColumns, "FROM bulkhead_internal.events e WHERE", kNewcomers, "AND e.id >= ", first_new,
                                 end, ") new ");
  if (first_new == 0 && !xids.empty()) {
    sql = absl::StrCat(Stragglers(kEventColumns, xids, late_end), "WHERE $1::text IS NOT NULL");
  } else if (!xids.empty()) {
    absl::StrAppend(&sql, " UNION ALL ", Stragglers(kEventColumns, xids, late_end));
  }
  ASSIGN_OR_RETURN(Rows rows, connection_->Run(absl::StrCat(sql, " ORDER BY id LIMIT ", limit),
                                               {done, reach, absl::StrCat(position), TopicPatterns(topics)}));
  std::vector<StoredEvent> events;
  for (int i = 0; i < rows.size(); ++i) events.push_back(EventOf(rows, i));
  return events;
}

absl::StatusOr<bool> EventStore::Settle(const std::string& module, int64_t fence, const EventPlace& place, const Settlement& settlement) {
  bool ours = false;
  RETURN_IF_ERROR(connection_->Transaction([&](Connection& c) -> absl::Status {
    // One transaction: what a crash of the server takes away, it takes away as a whole.
    ASSIGN_OR_RETURN(Rows moved, c.Run("UPDATE bulkhead_internal.event_subscriptions SET done = $3::pg_snapshot, reach = $4::pg_snapshot,"
                                       " position = $5::bigint, lease_until = now() + $6::float8 * interval '1 second', delivered_at = now()"
                                       " WHERE module = $1 AND fence = $2::bigint AND node = $7 RETURNING fence",
                                       {module, absl::StrCat(fence), place.done, place.reach, absl::StrCat(place.position),
                                        SecondsOf(limits::kSubscriptionLease), node_}));
    ours = moved.size() == 1;
    if (!ours) return absl::OkStatus();
    if (!settlement.parked.empty()) {
      std::map<int64_t, const Settlement::Parked*> rows;  // the last word on each
      for (const Settlement::Parked& row : settlement.parked) rows[row.id] = &row;
      std::vector<std::string> errors;
      for (const auto& [id, row] : rows) errors.push_back(row->error);
      RETURN_IF_ERROR(c.Run("INSERT INTO bulkhead_internal.event_deliveries AS d (module, event_id, attempt, losses, not_before, error)"
                            " SELECT $1, r.id, r.attempt, r.losses, now() + r.delay * interval '1 millisecond', r.error"
                            " FROM unnest($2::bigint[], $3::int[], $4::int[], $5::bigint[], $6::text[]) AS r(id, attempt, losses, delay, error)"
                            " ON CONFLICT (module, event_id) DO UPDATE SET attempt = excluded.attempt, losses = excluded.losses,"
                            " not_before = excluded.not_before, error = excluded.error",
                            {module, NumberArray(rows, [](const auto& r) { return r.first; }),
                             NumberArray(rows, [](const auto& r) { return r.second->attempt; }),
                             NumberArray(rows, [](const auto& r) { return r.second->losses; }),
                             NumberArray(rows, [](const auto& r) { return r.second->delay.count(); }), TextArray(errors)}).status());
    }
    if (!settlement.unparked.empty()) {
      RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_deliveries WHERE module = $1 AND event_id = ANY ($2::bigint[])",
                            {module, NumberArray(settlement.unparked, [](int64_t id) { return id; })}).status());
    }
    for (const Settlement::Dead& dead : settlement.dead) {
      const StoredEvent& event = dead.event.event;
      RETURN_IF_ERROR(c.Run("WITH gone AS (DELETE FROM bulkhead_internal.event_deliveries WHERE module = $1 AND event_id = $2::bigint)"
                            " INSERT INTO bulkhead_internal.event_dead_letters"
                            " (module, event_id, topic, key, payload, source, published_at, attempts, error)"
                            " VALUES ($1, $2::bigint, $3, $4, $5::jsonb, $6, $7::timestamptz, $8::int, $9)"
                            " ON CONFLICT (module, event_id) DO UPDATE SET attempts = excluded.attempts, error = excluded.error, died_at = now()",
                            {module, absl::StrCat(event.id), event.topic, event.key, event.payload_json, event.source, FormatWallExactly(event.at),
                             absl::StrCat(dead.event.attempt + dead.event.losses), dead.error}).status());
    }
    return absl::OkStatus();
  }));
  return ours;
}

absl::StatusOr<std::optional<ClaimedRelay>> EventStore::ClaimRelay() {
  // What was published since the last one let go is in no entry: `reach` says so, and subscribers get it from the outbox.
  ASSIGN_OR_RETURN(Rows rows, connection_->Run(
      "INSERT INTO bulkhead_internal.event_relay AS r (stream, reach, fence, node, lease_until)"
      " VALUES ('bulkhead:events:' || gen_random_uuid(), pg_current_snapshot(), 1, $1, now() + $2::float8 * interval '1 second')"
      " ON CONFLICT (one) DO UPDATE SET reach = pg_current_snapshot(), fence = r.fence + 1, node = excluded.node, lease_until = excluded.lease_until"
      " WHERE r.node IS NULL OR r.node = $1 OR r.lease_until < now() RETURNING stream, reach::text, number, fence",
      {node_, SecondsOf(limits::kStreamLease)}));
  if (rows.size() == 0) return std::nullopt;
  return ClaimedRelay{rows.Text(0, "stream"), rows.Text(0, "reach"), rows.Int(0, "number"), rows.Int(0, "fence")};
}

absl::StatusOr<bool> EventStore::MoveRelay(const ClaimedRelay& relay) {
  ASSIGN_OR_RETURN(Rows rows, connection_->Run("UPDATE bulkhead_internal.event_relay SET reach = $3::pg_snapshot, number = $4::bigint,"
                                               " lease_until = now() + $5::float8 * interval '1 second'"
                                               " WHERE stream = $1 AND fence = $2::bigint AND node = $6 RETURNING fence",
                                               {relay.stream, absl::StrCat(relay.fence), relay.reach, absl::StrCat(relay.number),
                                                SecondsOf(limits::kStreamLease), node_}));
  return rows.size() == 1;
}

absl::Status EventStore::ReleaseRelay(const ClaimedRelay& relay) {
  return connection_->Run("UPDATE bulkhead_internal.event_relay SET node = NULL, lease_until = NULL"
                          " WHERE stream = $1 AND fence = $2::bigint AND node = $3", {relay.stream, absl::StrCat(relay.fence), node_}).status();
}

absl::Status EventStore::Sleep() {
  return connection_->Run("INSERT INTO bulkhead_internal.event_sleepers (node) VALUES ($1) ON CONFLICT DO NOTHING", {node_}).status();
}

absl::Status EventStore::Wake() {
  return connection_->Run("DELETE FROM bulkhead_internal.event_sleepers WHERE node = $1", {node_}).status();
}

absl::StatusOr<int> EventStore::Trim(Millis kept, Millis kept_at_most) {
  // Wanted still: what a subscriber has not been given, told by the oldest transaction that its place does not cover.
  ASSIGN_OR_RETURN(Rows rows, connection_->Run(
      "WITH bound AS (SELECT min(pg_snapshot_xmin(done)) AS xid FROM bulkhead_internal.event_subscriptions"
      "               WHERE cardinality(topics) > 0 AND module IN (SELECT name FROM bulkhead_internal.modules)),"
      " old AS (SELECT e.id FROM bulkhead_internal.events e, bound b WHERE e.at < now() - $1::float8 * interval '1 second'"
      "         AND (e.at < now() - $2::float8 * interval '1 second' OR b.xid IS NULL OR e.xid < b.xid)"
      "         AND NOT EXISTS (SELECT FROM bulkhead_internal.event_deliveries d WHERE d.event_id = e.id) ORDER BY e.id LIMIT $3::int)"
      " DELETE FROM bulkhead_internal.events e USING old WHERE e.id = old.id",
      {SecondsOf(kept), SecondsOf(kept_at_most), absl::StrCat(limits::kMaxTrimmed)}));
  if (rows.affected() == 0) return 0;
  // What can't come again needs not be remembered.
  RETURN_IF_ERROR(connection_->Run("DELETE FROM bulkhead_internal.event_inbox i WHERE i.event_id < (SELECT min(e.id) FROM bulkhead_internal.events e)"
                                   " AND NOT EXISTS (SELECT FROM bulkhead_internal.event_dead_letters d WHERE d.event_id = i.event_id)").status());
  return rows.affected();
}

}  // namespace bulkhead
