// Jobs, events and dependencies of a manifest.
#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "supervisor/manifest/cron.h"
#include "supervisor/manifest/nearest.h"
#include "supervisor/manifest/reader.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxJobs = 200;
constexpr size_t kMaxEvents = 500;
constexpr size_t kMaxTopic = 128;
constexpr size_t kMaxChannels = 65, kMaxChannel = 71;
constexpr int kMaxCatchUp = 1'000;
constexpr size_t kMaxRange = 1'024;
constexpr size_t kMaxDependencies = 100;
constexpr int64_t kMaxJobTimeoutMs = 7LL * 24 * 3'600'000;
constexpr int64_t kMaxRetries = 100;
constexpr int64_t kMaxConcurrency = 1'000;
constexpr int64_t kMaxHistory = 100'000;
constexpr int64_t kMaxHistoryAgeMs = 3'650LL * 24 * 3'600'000;

std::string Sentence(const absl::Status& status) { return std::string(status.message()); }

void ReadSchedule(ObjectReader& reader, JobSpec& job, Findings& out) {
  if (auto zone = reader.String("timeZone", 64)) {
    job.time_zone = *zone;
    absl::TimeZone loaded;
    if (!LoadZone(*zone, loaded)) {
      out.Error(
          reader.PathOf("timeZone"), "TIME_ZONE_UNKNOWN",
          absl::StrCat("There is no time zone \"", *zone, "\" in the time zone database; use a name such as Europe/Berlin."));
    }
  }
  if (auto schedule = reader.String("schedule")) {  // null: manual only
    job.schedule = *schedule;
    if (auto cron = Cron::Parse(*schedule); !cron.ok())
      out.Error(reader.PathOf("schedule"), "CRON_INVALID", Sentence(cron.status()));
  }
}

// "none", "latest", "all:N" or {"all": N}.
void ReadCatchUp(ObjectReader& reader, JobSpec& job, Findings& out) {
  const json* value = reader.Get("catchUp");
  if (value == nullptr) return;
  const std::string path = reader.PathOf("catchUp");
  int most = 0;
  if (value->is_object()) {
    ObjectReader all(*value, path, out);
    all.Require("all");
    most = static_cast<int>(all.Integer("all", 1, kMaxCatchUp).value_or(0));
    all.WarnUnknown();
    if (most == 0) return;
  } else if (!value->is_string()) {
    out.Error(path, "WRONG_TYPE", absl::StrCat("\"catchUp\" must be a string or an object, not ", TypeName(*value), "."));
    return;
  } else {
    const auto& text = value->get_ref<const std::string&>();
    absl::string_view number = text;
    if (text == "none" || text == "latest") {
      job.catch_up = text;
      return;
    }
    const bool all =
        absl::ConsumePrefix(&number, "all:") && !number.empty() && absl::ascii_isdigit(number[0]) && number[0] != '0';
    if (!all || !absl::SimpleAtoi(number, &most) || most > kMaxCatchUp || number.size() > 4) {
      out.Error(path, "INVALID_VALUE",
                absl::StrCat("\"catchUp\" is \"none\", \"latest\", or \"all:N\" with N from 1 to ", kMaxCatchUp, "."));
      return;
    }
  }
  job.catch_up = "all";
  job.catch_up_most = most;
}

void ReadHistory(ObjectReader& reader, JobSpec& job, Findings& out) {
  const json* history = reader.Object("history");
  if (history == nullptr) return;
  ObjectReader known(*history, reader.PathOf("history"), out);
  if (auto count = known.Integer("count", 1, kMaxHistory)) job.history_count = static_cast<int>(*count);
  if (auto age = known.Integer("age", 0, kMaxHistoryAgeMs)) job.history_age = Millis(*age);
  known.WarnUnknown();
}

void ReadJob(const json& value, const std::string& path, std::set<std::string>& names, Manifest& manifest, Findings& out) {
  ObjectReader reader(value, path, out);
  if (!value.is_object()) return;
  JobSpec job;
  reader.Require("name");
  if (auto name = reader.String("name")) {
    job.name = *name;
    if (!IsKebab(*name) || name->size() > 63) {
      out.Error(reader.PathOf("name"), "INVALID_NAME",
                "A job's name is at most 63 lower-case letters, digits and single hyphens, such as \"sync-inventory\".");
    }
    if (!names.insert(*name).second) {
      out.Error(reader.PathOf("name"), "DUPLICATE", absl::StrCat("There is a job \"", *name, "\" above already."));
    }
  }
  ReadSchedule(reader, job, out);
  if (auto ms = reader.Integer("timeout", 1, kMaxJobTimeoutMs)) job.timeout = Millis(*ms);
  job.retries = static_cast<int>(reader.Integer("retries", 0, kMaxRetries).value_or(0));
  if (auto overlap = reader.String("overlap")) {
    if (*overlap == "queue") {
      job.overlap = Overlap::kQueue;
    } else if (*overlap == "replace") {
      job.overlap = Overlap::kReplace;
    } else if (*overlap != "skip") {
      out.Error(reader.PathOf("overlap"), "INVALID_VALUE", "\"overlap\" is \"skip\", \"queue\" or \"replace\".");
    }
  }
  ReadCatchUp(reader, job, out);
  job.concurrency = static_cast<int>(reader.Integer("concurrency", 1, kMaxConcurrency).value_or(1));
  ReadHistory(reader, job, out);
  if (const json* config = reader.Object("config"))
    job.config_json = config->dump(-1, ' ', false, json::error_handler_t::replace);
  reader.Labels({"handler"});
  job.display_name = reader.String("displayName").value_or("");
  job.description = reader.String("description", 4096).value_or("");
  reader.WarnUnknown();
  manifest.jobs.push_back(std::move(job));
}

std::vector<std::string> ReadTopics(ObjectReader& reader, const char* name, bool wildcard, Findings& out) {
  std::vector<std::string> topics = reader.Strings(name, kMaxEvents, 2 * kMaxTopic);
  std::set<std::string> seen;
  for (size_t i = 0; i < topics.size(); ++i) {
    const std::string path = PointerTo(reader.PathOf(name), i);
    if (!IsEventTopic(topics[i], wildcard)) {
      out.Error(path, "INVALID_TOPIC",
                absl::StrCat("An event is \"entity.action\", such as \"order.created\"", wildcard ? " or \"order.*\"" : "", "."));
    } else if (!seen.insert(topics[i]).second) {
      out.Warn(path, "DUPLICATE", absl::StrCat("The event \"", topics[i], "\" is there twice."));
    }
  }
  return topics;
}

void ReadRange(const std::string& range, const std::string& path, Findings& out) {
  const auto parsed = SemVerRange::Parse(range);
  if (!parsed) {
    out.Error(path, "INVALID_RANGE",
              absl::StrCat("\"", range.substr(0, 64), "\" is no version range such as \"^1.2.0\", \"~2.1\" or \">=1 <3\"."));
  } else if (!parsed->Minimum()) {
    out.Error(path, "UNSATISFIABLE_RANGE",
              absl::StrCat("No version can be within \"", range.substr(0, 64), "\": its bounds leave nothing between them."));
  }
}

// Versions of what the module runs in. Only the supervisor's is checked; "node" and the like speak to a build of the module's
// own.
void ReadSystem(const json& system, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader known(system, path, out);
  if (auto range = known.String("bulkhead", kMaxRange)) {
    manifest.bulkhead_range = *range;
    ReadRange(*range, known.PathOf("bulkhead"), out);
  }
  for (const auto& [name, value] : system.items()) {
    if (name == "bulkhead") continue;
    if (!Nearest(name, {"bulkhead"}).empty()) {
      out.Warn(known.PathOf(name), "UNKNOWN_FIELD",
               absl::StrCat("\"", name.substr(0, 64), "\" is no field that is known here. Did you mean \"bulkhead\"?"));
    } else {
      known.NotApplied(name, "nothing but the supervisor's own version is checked");
    }
  }
}

}  // namespace

bool IsEventTopic(std::string_view topic, bool wildcard) {
  const std::vector<absl::string_view> parts = absl::StrSplit(absl::string_view(topic.data(), topic.size()), '.');
  if (parts.size() < 2 || topic.size() > kMaxTopic) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (wildcard && i > 0 && i + 1 == parts.size() && parts[i] == "*") continue;
    if (parts[i].empty() || !absl::ascii_isalpha(parts[i][0]) ||
        !std::all_of(parts[i].begin(), parts[i].end(),
                     [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-'; })) {
      return false;
    }
  }
  return true;
}

void ReadJobs(const json& jobs, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(jobs, path, out);
  if (const json* handlers = reader.Array("handlers", kMaxJobs)) {
    std::set<std::string> names;
    for (size_t i = 0; i < handlers->size(); ++i) {
      ReadJob((*handlers)[i], PointerTo(reader.PathOf("handlers"), i), names, manifest, out);
    }
  }
  reader.WarnUnknown();
}

void ReadEvents(const json& events, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(events, path, out);
  manifest.publishes = ReadTopics(reader, "publishes", false, out);
  manifest.subscribes = ReadTopics(reader, "subscribes", true, out);
  if (const json* handlers = reader.Get("handlers");
      handlers != nullptr && !handlers->is_structured()) {  // labels of older systems
    out.Error(reader.PathOf("handlers"), "WRONG_TYPE",
              absl::StrCat("\"handlers\" must be a list or an object, not ", TypeName(*handlers), "."));
  }
  if (const json* schemas = reader.Object("schemas")) ReadEventSchemas(*schemas, reader.PathOf("schemas"), manifest.publishes, out);
  reader.WarnUnknown();
}

// "woocommerce" or {"name": "billing", "optional": true}.
void ReadClientUses(const json& clients, const std::string& path, Manifest& manifest, Findings& out) {
  for (size_t i = 0; i < clients.size(); ++i) {
    const std::string pointer = PointerTo(path, i);
    ClientUse use;
    std::string place = pointer;
    if (clients[i].is_string()) {
      use.name = clients[i].get<std::string>();
    } else if (clients[i].is_object()) {
      ObjectReader reader(clients[i], pointer, out);
      reader.Require("name");
      const auto name = reader.String("name");
      use.optional = reader.Bool("optional").value_or(false);
      reader.WarnUnknown();
      if (!name) continue;
      use.name = *name;
      place = reader.PathOf("name");
    } else {
      out.Error(pointer, "WRONG_TYPE", absl::StrCat("A client is a name or an object, not ", TypeName(clients[i]), "."));
      continue;
    }
    const auto same = [&](const ClientUse& other) { return other.name == use.name; };
    if (!IsKebab(use.name) || use.name.size() > 63) {
      out.Error(place, "INVALID_NAME", "A client's name is at most 63 lower-case letters, digits and single hyphens, such as \"woocommerce\".");
    } else if (std::any_of(manifest.clients.begin(), manifest.clients.end(), same)) {
      out.Error(place, "DUPLICATE", absl::StrCat("There is a client \"", use.name, "\" above already."));
    } else {
      manifest.clients.push_back(std::move(use));
    }
  }
}

void ReadChannels(ObjectReader& capabilities, Findings& out) {
  const std::vector<std::string> channels = capabilities.Strings("notifications", kMaxChannels, kMaxChannel);
  for (size_t i = 0; i < channels.size(); ++i) {
    absl::string_view name = channels[i];
    const bool webhook = absl::ConsumePrefix(&name, "webhook:") && !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
                           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-' || c == '_';
                         });
    if (channels[i] != "smtp" && !webhook)
      out.Error(PointerTo(capabilities.PathOf("notifications"), i), "INVALID_CHANNEL",
                "A channel is \"smtp\", or \"webhook:NAME\" of a webhook that the operator has configured.");
  }
}

void ReadDependencies(const json& dependencies, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(dependencies, path, out);
  if (const json* modules = reader.Object("modules")) {
    if (modules->size() > kMaxDependencies)
      out.Error(reader.PathOf("modules"), "TOO_MANY", "A module may have at most 100 dependencies.");
    for (const auto& [name, range] : modules->items()) {
      const std::string item = PointerTo(reader.PathOf("modules"), name);
      if (!IsKebab(name) || name.size() > 63) {
        out.Error(item, "INVALID_NAME", absl::StrCat("\"", name.substr(0, 64), "\" is no name of a module."));
      } else if (name == manifest.name) {
        out.Error(item, "SELF_DEPENDENCY", "A module can't depend on itself.");
      }
      if (!range.is_string()) {
        out.Error(item, "WRONG_TYPE", absl::StrCat("A dependency's version range is a string, not ", TypeName(range), "."));
        continue;
      }
      if (Characters(range.get_ref<const std::string&>()) > kMaxRange) {
        out.Error(item, "TOO_LONG", absl::StrCat("A version range may have at most ", kMaxRange, " characters."));
        continue;
      }
      ReadRange(range.get_ref<const std::string&>(), item, out);
      manifest.dependencies.push_back({name, range.get<std::string>()});
    }
  }
  if (const json* system = reader.Object("system")) ReadSystem(*system, reader.PathOf("system"), manifest, out);
  reader.NotApplied("npm", "packages are the matter of the module's own build");
  reader.WarnUnknown();
}

}  // namespace bulkhead
