// How the parts of a manifest are read: typed fields of a JSON object, every mistake collected with its pointer, fields that
// nobody asked for reported with the nearest name that somebody did. Private to this room.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"
#include "supervisor/base/text.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

struct Findings {
  static constexpr size_t kMaxReported = 1'000;  // of errors, and of warnings; beyond: one that says how many more
  static constexpr int kMaxSuggestions = 200;  // comparing names takes time; a text with more slips than that gets no more advice

  std::vector<Finding> errors, warnings;
  void Error(std::string path, std::string code, std::string message) {
    errors.push_back({std::move(path), 0, std::move(code), std::move(message)});
  }
  void Warn(std::string path, std::string code, std::string message) {
    warnings.push_back({std::move(path), 0, std::move(code), std::move(message)});
  }
  // DidYouMean() of nearest.h, while suggestions last.
  std::string Suggest(std::string_view wrong, const std::vector<std::string>& known);

 private:
  int suggestions_left_ = kMaxSuggestions;
};

// "a string", "a list", …
std::string TypeName(const nlohmann::json& value);

class ObjectReader {
 public:
  // `value` must outlive it. What is no object is reported once and read as an empty one.
  ObjectReader(const nlohmann::json& value, std::string path, Findings& out);
  ObjectReader(const ObjectReader&) = delete;

  const std::string& path() const { return path_; }
  std::string PathOf(std::string_view name) const { return PointerTo(path_, name); }

  // nullptr when absent or null. All of these make the name a known one, and answer nothing after reporting a wrong value.
  const nlohmann::json* Get(std::string_view name);
  const nlohmann::json* Object(std::string_view name);
  const nlohmann::json* Array(std::string_view name, size_t max_items);
  std::optional<std::string> String(std::string_view name, size_t max_length = 1024);
  std::optional<bool> Bool(std::string_view name);
  std::optional<int64_t> Integer(std::string_view name, int64_t min, int64_t max);
  std::optional<double> Number(std::string_view name);
  std::vector<std::string> Strings(std::string_view name, size_t max_items = 256, size_t max_length = 1024);
  // Texts that nothing here acts on: labels of older systems, words for people.
  void Labels(std::initializer_list<const char*> names, size_t max_length = 1024);
  // A text or an object of whatever members.
  void TextOrObject(std::string_view name);
  // Known, not looked into.
  void Accept(std::initializer_list<const char*> names);
  // Known, valid, but nothing in this version acts on it: said, not hidden.
  void NotApplied(std::string_view name, std::string_view why);
  void Require(std::string_view name);  // REQUIRED unless it is there
  // Every member that was not asked for: UNKNOWN_FIELD.
  void WarnUnknown();

 private:
  const nlohmann::json* Typed(std::string_view name, bool (nlohmann::json::*is)() const noexcept, std::string_view wanted);
  const nlohmann::json& object_;
  const std::string path_;
  Findings& out_;
  std::vector<std::string> known_;
};

// Lower-case letters, digits and single hyphens, beginning with a letter.
bool IsKebab(std::string_view text);
// A path inside the module's folder: relative, no "..", nothing that a shell or a log would stumble on, nothing percent-encoded.
bool IsInnerPath(std::string_view path);
// INVALID_PATH unless it is one; `what` is its name in the sentence.
void CheckInnerPath(const std::string& path, std::string pointer, std::string_view what, Findings& out);
size_t Characters(std::string_view utf8);
// INVALID_TEXT for every text and key with a NUL, at whatever depth: no PostgreSQL text can hold one.
void CheckNul(const nlohmann::json& value, const std::string& path, Findings& out);

// A whole manifest by the readers alone, without the stage of the schema (manifest_schema.h).
ManifestResult ReadManifest(const nlohmann::json& document);
// The parts. Each reports into `out` and fills `manifest`.
void ReadRoutes(const nlohmann::json& api, const std::string& path, Manifest& manifest, Findings& out);
void ReadJobs(const nlohmann::json& jobs, const std::string& path, Manifest& manifest, Findings& out);
void ReadEvents(const nlohmann::json& events, const std::string& path, Manifest& manifest, Findings& out);
// Payloads of what it publishes; they are read from the manifest's text by the database.
void ReadEventSchemas(const nlohmann::json& schemas, const std::string& path, const std::vector<std::string>& publishes, Findings& out);
inline constexpr size_t kMaxClients = 32;
void ReadClientUses(const nlohmann::json& clients, const std::string& path, Manifest& manifest, Findings& out);
// The channels of `capabilities.notifications`; the database reads them from the manifest's text.
void ReadChannels(ObjectReader& capabilities, Findings& out);
void ReadUi(const nlohmann::json& ui, const std::string& path, Manifest& manifest, Findings& out);
void ReadConfigSchema(const nlohmann::json& config, const std::string& path, Manifest& manifest, Findings& out);
void ReadDependencies(const nlohmann::json& dependencies, const std::string& path, Manifest& manifest, Findings& out);
void ReadRestart(const nlohmann::json& restart, const std::string& path, Manifest& manifest, Findings& out);
void ReadHealth(const nlohmann::json& health, const std::string& path, Manifest& manifest, Findings& out);
void ReadLimits(const nlohmann::json& limits, const std::string& path, Manifest& manifest, Findings& out);
void ReadAccess(const nlohmann::json& access, const std::string& path, Manifest& manifest, Findings& out);
void ReadIsolation(ObjectReader& top, Manifest& manifest, Findings& out);
// Permissions must be declared in the manifest's own `permissions`.
void CheckPermissions(const std::vector<std::string>& used, const std::string& path, const Manifest& manifest, Findings& out);

}  // namespace bulkhead
