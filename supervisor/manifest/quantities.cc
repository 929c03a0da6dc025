// Limits of a manifest: bytes and CPUs, as numbers or as people write them.
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "supervisor/manifest/quantities.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr int64_t kMinMemory = 1 << 20;
constexpr int64_t kMaxMemory = int64_t{1} << 44;
constexpr double kMinCpu = 0.01, kMaxCpu = 1024;

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

}  // namespace

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
  if (auto bytes = ReadQuantity(reader, "storage", ParseMemory)) {
    if (!(*bytes >= 0 && *bytes <= kMaxMemory)) {
      out.Error(reader.PathOf("storage"), "INVALID_QUANTITY", "\"storage\" is a number of bytes or a text such as \"512Mi\" or \"256MB\", 0 to 16 TiB.");
    } else {
      manifest.limit_storage = std::llround(*bytes);
    }
  }
  manifest.limit_files = static_cast<int32_t>(reader.Integer("files", 0, limits::kMaxStoredFiles).value_or(manifest.limit_files));
  reader.WarnUnknown();
}

}  // namespace bulkhead
