#include "supervisor/flags/flags.h"

#include <algorithm>
#include <tuple>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {
namespace {

using nlohmann::json;

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// FNV-1a with a finaliser: cheap, and the same everywhere and for ever.
uint64_t Hash(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 33);
}

bool ValidName(std::string_view name) {
  return !name.empty() && name.size() <= Flags::kMaxName && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
         });
}

absl::Status NotFound(const std::string& name) {
  return Error("FLAG_NOT_FOUND", "the flag " + name.substr(0, Flags::kMaxName) + " was not set through the API");
}

absl::Status CheckChange(const std::string& name, const FlagChange& change) {
  std::vector<ErrorDetail> wrong;
  if (!ValidName(name)) wrong.push_back({"/name", "INVALID_NAME", "A flag's name is 1 to 128 letters, digits, \"_\", \"-\" and \".\"."});
  if (change.percentage && (*change.percentage < 0 || *change.percentage > 100))
    wrong.push_back({"/percentage", "OUT_OF_RANGE", "A percentage is a whole number from 0 to 100."});
  if (change.identities.size() > Flags::kMaxIdentities)
    wrong.push_back({"/identities", "TOO_MANY", "A flag may name at most 1000 identities."});
  for (size_t i = 0; i < change.identities.size() && wrong.size() < 20; ++i) {
    const std::string& one = change.identities[i];
    if (one.empty() || one.size() > Flags::kMaxIdentity || !IsValidUtf8(one))
      wrong.push_back({"/identities/" + std::to_string(i), "INVALID_VALUE", "An identity is 1 to 128 bytes of text."});
  }
  if (change.description.size() > Flags::kMaxDescription || !IsValidUtf8(change.description))
    wrong.push_back({"/description", "TOO_LONG", "A description has at most 500 bytes, none of them NUL."});
  if (wrong.empty()) return absl::OkStatus();
  const std::string message = "The flag can't be set: " + wrong.front().message;
  return Error("INVALID_ARGUMENT", message, std::move(wrong));
}

Flag FlagOf(const Rows& rows, int r) {
  Flag flag;
  flag.name = rows.Text(r, "name");
  flag.enabled = rows.Bool(r, "enabled");
  flag.source = "api";
  if (!rows.Null(r, "percentage")) flag.percentage = static_cast<int>(rows.Int(r, "percentage"));
  const json identities = json::parse(rows.Text(r, "identities"), nullptr, false);
  for (const auto& one : identities) {
    if (one.is_string()) flag.identities.push_back(one.get<std::string>());
  }
  flag.description = rows.Text(r, "description");
  flag.revision = rows.Int(r, "revision");
  flag.updated_at = rows.Time(r, "updated_at");
  flag.updated_by = rows.Text(r, "updated_by");
  return flag;
}

// About what a module is told of one takes in a message: its name twice, as a flag and as a rule.
size_t ToldBytes(const std::string& name, const std::vector<std::string>& identities) {
  size_t bytes = 2 * name.size() + 16;
  for (const std::string& identity : identities) bytes += identity.size() + 3;
  return bytes;
}

// What the audit shows of one.
std::string Summary(const Flag& flag) {
  json shown = {{"enabled", flag.enabled}, {"identities", flag.identities}, {"description", flag.description}};
  shown["percentage"] = flag.percentage ? json(*flag.percentage) : json(nullptr);
  return Dump(shown);
}

constexpr char kSelect[] =
    "SELECT name, enabled, percentage, identities::text AS identities, description, revision, updated_at, updated_by "
    "FROM bulkhead_internal.flags";

}  // namespace

bool Flag::EnabledFor(std::string_view identity) const {
  if (!enabled) return false;
  if (std::find(identities.begin(), identities.end(), identity) != identities.end()) return true;
  if (!percentage) return identities.empty();
  return Hash(FeatureFlagVariable(name) + "/" + std::string(identity)) % 100 < static_cast<uint64_t>(*percentage);
}

const Flag* FlagSet::Find(std::string_view name) const {
  auto found = flags_.find(FeatureFlagVariable(name));
  return found == flags_.end() ? nullptr : &found->second;
}

Flags::Flags(Loop& loop, BlockingPool& pool, Database& database, Sources sources)
    : loop_(loop), pool_(pool), database_(database), sources_(std::move(sources)) {
  Rebuild();
}

absl::StatusOr<std::vector<Flag>> Flags::Read() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(std::string(kSelect) + " ORDER BY name"));
  std::vector<Flag> flags;
  for (int r = 0; r < rows.size(); ++r) flags.push_back(FlagOf(rows, r));
  return flags;
}

void Flags::Rebuild() {
  std::map<std::string, Flag> by_variable;
  auto plain = [&](const std::map<std::string, bool>& values, const char* source) {
    for (const auto& [name, on] : values) {
      Flag& flag = by_variable[FeatureFlagVariable(name)];
      // A variable knows no letter case: a name from elsewhere is the better one.
      const std::string kept = flag.name.empty() ? name : flag.name;
      flag = {.name = kept, .enabled = on, .source = source};
    }
  };
  plain(sources_.file, "file");
  for (const Flag& flag : stored_) by_variable[FeatureFlagVariable(flag.name)] = flag;
  plain(sources_.environment, "environment");
  auto set = std::make_shared<const FlagSet>(std::move(by_variable));
  current_.With([&](auto& current) { current = set; });
}

absl::StatusOr<int64_t> Flags::StoreVersion() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT version FROM bulkhead_internal.flags_version"));
  return rows.size() == 0 ? 0 : rows.Int(0, "version");
}

// The version is read first, so what changes while the rest is read is read once more.
absl::Status Flags::Reread() {
  ASSIGN_OR_RETURN(const int64_t version, StoreVersion());
  ASSIGN_OR_RETURN(stored_, Read());
  Rebuild();
  store_version_ = version;
  return absl::OkStatus();
}

absl::Status Flags::Load() {
  std::lock_guard lock(write_);
  return Reread();
}

void Flags::Follow() {
  std::lock_guard lock(write_);
  const auto before = current();
  absl::Status read = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t version, StoreVersion());
    return version == store_version_ ? absl::OkStatus() : Reread();
  }();
  if (!read.ok()) LogDebug("flags", "what other nodes change waits for the database", {{"reason", std::string(read.message())}});
  Tell(before);
}

void Flags::Tell(const std::shared_ptr<const FlagSet>& before) {
  if (*current() == *before) return;
  loop_.Post([this] {
    if (changed_) changed_(current());
  });
}

void Flags::SetFile(std::map<std::string, bool> file) {
  std::lock_guard lock(write_);
  const auto before = current();
  sources_.file = std::move(file);
  Rebuild();
  Tell(before);
}

std::shared_ptr<const FlagSet> Flags::current() const {
  return current_.With([](const auto& current) { return current; });
}

void Flags::Set(const std::string& name, FlagChange change, Actor by, Done<Flag> done) {
  if (absl::Status checked = CheckChange(name, change); !checked.ok()) return loop_.Post([done, checked] { done(checked); });
  const auto flags = current();
  const Flag* known = flags->Find(name);
  if (known != nullptr && known->source == "environment") {
    return loop_.Post([done, name] {
      done(Error("FLAG_FIXED", "the flag " + name + " is set by " + FeatureFlagVariable(name) + " in the environment of this node, which counts for more"));
    });
  }
  auto work = [this, name, change = std::move(change), by]() -> absl::StatusOr<Flag> {
    std::lock_guard lock(write_);
    Flag after;
    RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
      // Of the spellings of one name the one that was set first stays.
      ASSIGN_OR_RETURN(const Rows all, c.Run(std::string(kSelect) + " FOR UPDATE"));
      std::string stored_name = name, before;
      size_t told = ToldBytes(name, change.identities);
      for (int r = 0; r < all.size(); ++r) {
        const Flag flag = FlagOf(all, r);
        if (FeatureFlagVariable(flag.name) != FeatureFlagVariable(name)) {
          told += ToldBytes(flag.name, flag.identities);
          continue;
        }
        stored_name = flag.name;
        before = Summary(flag);
      }
      if (told > kMaxTold) return Error("OVERLOADED", "all flags together would have more names and identities than modules can be told of; delete some first");
      if (before.empty() && static_cast<size_t>(all.size()) >= kMaxFlags)
        return Error("OVERLOADED", "there are 10000 flags already; delete some first");
      ASSIGN_OR_RETURN(const Rows rows,
                       c.Run("INSERT INTO bulkhead_internal.flags AS f (name, enabled, percentage, identities, description, updated_by) "
                             "VALUES ($1, $2::boolean, $3::int, $4::jsonb, $5, $6) ON CONFLICT (name) DO UPDATE SET enabled = "
                             "excluded.enabled, percentage = excluded.percentage, identities = excluded.identities, description = "
                             "excluded.description, updated_by = excluded.updated_by, updated_at = now(), revision = f.revision + 1 "
                             "RETURNING name, enabled, percentage, identities::text AS identities, description, revision, updated_at, updated_by",
                             {stored_name, change.enabled ? "true" : "false",
                              change.percentage ? SqlParam(std::to_string(*change.percentage)) : std::nullopt, Dump(change.identities),
                              change.description, by.subject}));
      after = FlagOf(rows, 0);
      AuditRecord audit{.by = by, .action = "flags.set", .target = stored_name};
      std::tie(audit.before_json, audit.after_json) = Changed(before, Summary(after));
      return AppendAudit(c, audit);
    }));
    Recorded({.by = by});
    RETURN_IF_ERROR(Reread());
    return after;
  };
  Answer<Flag>(std::move(work), std::move(done));
}

void Flags::Delete(const std::string& name, Actor by, Done<bool> done) {
  auto work = [this, name, by]() -> absl::StatusOr<bool> {
    std::lock_guard lock(write_);
    RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
      ASSIGN_OR_RETURN(const Rows all, c.Run(std::string(kSelect) + " FOR UPDATE"));
      for (int r = 0; r < all.size(); ++r) {
        const Flag flag = FlagOf(all, r);
        if (FeatureFlagVariable(flag.name) != FeatureFlagVariable(name)) continue;
        RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.flags WHERE name = $1", {flag.name}).status());
        return AppendAudit(c, {.by = by, .action = "flags.delete", .target = flag.name, .before_json = Summary(flag)});
      }
      return NotFound(name);
    }));
    Recorded({.by = by});
    RETURN_IF_ERROR(Reread());
    return true;
  };
  Answer<bool>(std::move(work), std::move(done));
}

}  // namespace bulkhead
