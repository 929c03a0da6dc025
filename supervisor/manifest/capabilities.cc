// Jobs, events, pages, dependencies and limits of a manifest.
#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/manifest/cron.h"
#include "supervisor/manifest/reader.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxJobs = 200;
constexpr size_t kMaxEvents = 500;
constexpr size_t kMaxDependencies = 100;
constexpr int64_t kMaxJobTimeoutMs = 7LL * 24 * 3'600'000;
constexpr int64_t kMaxRetries = 100;
constexpr int64_t kMinMemory = 1 << 20;
constexpr int64_t kMaxMemory = int64_t{1} << 44;
constexpr double kMinCpu = 0.01, kMaxCpu = 1024;

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

void ReadJob(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
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
    if (std::any_of(manifest.jobs.begin(), manifest.jobs.end(), [&](const JobSpec& other) { return other.name == *name; })) {
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
  if (auto catch_up = reader.String("catchUp")) {
    job.catch_up = *catch_up;
    if (*catch_up != "none" && *catch_up != "latest") {
      out.Error(reader.PathOf("catchUp"), "INVALID_VALUE", "\"catchUp\" is \"none\" or \"latest\".");
    }
  }
  if (const json* config = reader.Object("config"))
    job.config_json = config->dump(-1, ' ', false, json::error_handler_t::replace);
  reader.Accept({"handler", "displayName", "description"});
  reader.WarnUnknown();
  manifest.jobs.push_back(std::move(job));
}

// "order.created"; with `wildcard` also "order.*".
bool IsTopic(const std::string& topic, bool wildcard) {
  const std::vector<absl::string_view> parts = absl::StrSplit(topic, '.');
  if (parts.size() < 2 || topic.size() > 128) return false;
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

std::vector<std::string> ReadTopics(ObjectReader& reader, const char* name, bool wildcard, Findings& out) {
  std::vector<std::string> topics = reader.Strings(name, kMaxEvents, 256);
  std::set<std::string> seen;
  for (size_t i = 0; i < topics.size(); ++i) {
    const std::string path = PointerTo(reader.PathOf(name), i);
    if (!IsTopic(topics[i], wildcard)) {
      out.Error(path, "INVALID_TOPIC",
                absl::StrCat("An event is \"entity.action\", such as \"order.created\"", wildcard ? " or \"order.*\"" : "", "."));
    } else if (!seen.insert(topics[i]).second) {
      out.Warn(path, "DUPLICATE", absl::StrCat("The event \"", topics[i], "\" is there twice."));
    }
  }
  return topics;
}

// "512Mi", "256MB", "1073741824": bytes. Units as Kubernetes and as people write them.
std::optional<double> ParseMemory(absl::string_view text) {
  static constexpr std::pair<absl::string_view, double> kUnits[] = {{"kib", 1024.0},
                                                                    {"mib", 1048576.0},
                                                                    {"gib", 1073741824.0},
                                                                    {"ki", 1024.0},
                                                                    {"mi", 1048576.0},
                                                                    {"gi", 1073741824.0},
                                                                    {"kb", 1e3},
                                                                    {"mb", 1e6},
                                                                    {"gb", 1e9},
                                                                    {"k", 1e3},
                                                                    {"m", 1e6},
                                                                    {"g", 1e9},
                                                                    {"b", 1},
                                                                    {"", 1}};
  const std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  for (const auto& [unit, factor] : kUnits) {
    if (!absl::EndsWith(lower, unit)) continue;
    const absl::string_view number =
        absl::StripTrailingAsciiWhitespace(absl::string_view(lower).substr(0, lower.size() - unit.size()));
    double value = 0;
    const bool plain = !number.empty() && number.find_first_not_of("0123456789.") == absl::string_view::npos;
    return plain && absl::SimpleAtod(number, &value) ? std::optional(value * factor) : std::nullopt;
  }
  return std::nullopt;
}

// 0.5, "0.5" or "500m": CPUs.
std::optional<double> ParseCpu(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  const double factor = absl::ConsumeSuffix(&text, "m") ? 0.001 : 1;
  double value = 0;
  const bool plain = !text.empty() && text.find_first_not_of("0123456789.") == absl::string_view::npos;
  return plain && absl::SimpleAtod(text, &value) ? std::optional(value * factor) : std::nullopt;
}

std::optional<double> ReadQuantity(ObjectReader& reader, const char* name, std::optional<double> (*parse)(absl::string_view)) {
  const json* value = reader.Get(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) return value->get<double>();
  if (value->is_string()) return parse(value->get_ref<const std::string&>()).value_or(std::nan(""));
  return std::nan("");
}

void ReadRange(const std::string& range, const std::string& path, Findings& out) {
  if (!SemVerRange::Parse(range)) {
    out.Error(path, "INVALID_RANGE",
              absl::StrCat("\"", range.substr(0, 64), "\" is no version range such as \"^1.2.0\", \"~2.1\" or \">=1 <3\"."));
  }
}

}  // namespace

void ReadJobs(const json& jobs, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(jobs, path, out);
  if (const json* handlers = reader.Array("handlers", kMaxJobs)) {
    for (size_t i = 0; i < handlers->size(); ++i) ReadJob((*handlers)[i], PointerTo(reader.PathOf("handlers"), i), manifest, out);
  }
  reader.WarnUnknown();
}

void ReadEvents(const json& events, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(events, path, out);
  manifest.publishes = ReadTopics(reader, "publishes", false, out);
  manifest.subscribes = ReadTopics(reader, "subscribes", true, out);
  reader.Accept({"handlers"});
  if (!manifest.publishes.empty() || !manifest.subscribes.empty()) {
    out.Warn(path, "NOT_APPLIED", "\"events\" has no effect in this version: events are not delivered.");
  }
  reader.WarnUnknown();
}

void ReadUi(const json& ui, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(ui, path, out);
  for (const char* list : {"pages", "navigation"}) {
    const json* items = reader.Array(list, 100);
    for (size_t i = 0; items != nullptr && i < items->size(); ++i) {
      ObjectReader item((*items)[i], PointerTo(reader.PathOf(list), i), out);
      item.Require("path");
      if (auto item_path = item.String("path"); item_path && (item_path->empty() || (*item_path)[0] != '/')) {
        out.Error(item.PathOf("path"), "INVALID_ROUTE_PATH", "The path of a page begins with \"/\".");
      }
      CheckPermissions(item.Strings("permissions", 64, 128), item.PathOf("permissions"), manifest, out);
      item.String("title");
      item.String("label");
      item.Number("order");
      item.Accept({"component", "icon", "description", "parent", "children", "group", "exact", "layout", "entry", "element"});
      item.WarnUnknown();
    }
  }
  if (auto entry = reader.String("entry"); entry && !IsInnerPath(*entry)) {
    out.Error(reader.PathOf("entry"), "INVALID_PATH",
              "\"entry\" must be a file inside the module's folder, without \"..\" and not absolute.");
  }
  out.Warn(path, "NOT_APPLIED", "\"ui\" has no effect in this version: pages of modules are not served.");
  reader.WarnUnknown();
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
      ReadRange(range.get_ref<const std::string&>(), item, out);
      manifest.dependencies.push_back({name, range.get<std::string>()});
    }
  }
  if (const json* system = reader.Object("system")) {
    ObjectReader known(*system, reader.PathOf("system"), out);
    if (auto range = known.String("bulkhead", 256)) {
      manifest.bulkhead_range = *range;
      ReadRange(*range, known.PathOf("bulkhead"), out);
    }
    // Other entries ("node") speak to the module's own build, as `npm` does.
  }
  reader.Object("npm");
  reader.WarnUnknown();
}

void ReadLimits(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(value, path, out);
  if (auto bytes = ReadQuantity(reader, "memory", ParseMemory)) {
    if (!(*bytes >= kMinMemory && *bytes <= kMaxMemory)) {
      out.Error(reader.PathOf("memory"), "INVALID_QUANTITY",
                "\"memory\" is a number of bytes or a text such as \"512Mi\" or \"256MB\", 1 MiB to 16 TiB.");
    } else {
      manifest.limit_memory = std::llround(*bytes);
    }
  }
  if (auto cpus = ReadQuantity(reader, "cpu", ParseCpu)) {
    if (!(*cpus >= kMinCpu && *cpus <= kMaxCpu)) {
      out.Error(reader.PathOf("cpu"), "INVALID_QUANTITY",
                "\"cpu\" is a number of CPUs such as 0.5, or a text such as \"500m\", 0.01 to 1024.");
    } else {
      manifest.limit_cpu_millis = static_cast<int32_t>(std::lround(*cpus * 1000));
    }
  }
  manifest.limit_pids = static_cast<int32_t>(reader.Integer("pids", 1, 4'194'304).value_or(0));
  reader.WarnUnknown();
}

}  // namespace bulkhead
