// The YAML file of the configuration: its keys, each wrong one with its line.
#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/fd.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/manifest/nearest.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigFile = 1 << 20;

// A module's name, as manifests have it: only such a one can ever match.
bool CouldBeModule(const std::string& name) {
  return !name.empty() && name.size() <= 63 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

// A flag's name as the API takes it, so that what the file says can be looked at and overruled there.
bool CouldBeFlag(const std::string& name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
         });
}

class FileReader {
 public:
  FileReader(const std::string& file, const std::string& cwd, const Document& document, Config& config, Mistakes& mistakes)
      : file_(file), cwd_(cwd), document_(document), config_(config), mistakes_(mistakes) {}

  void Read() {
    const json& root = document_.root;
    if (root.is_null()) return;  // an empty file
    if (!root.is_object()) return Wrong("", "", "The file must hold keys and values.");
    std::vector<std::string> known{"flags", "clients", "modules"};
    known.emplace_back("auth");
    known.emplace_back("notifications");
    for (const Setting& setting : Settings())
      known.push_back(std::string(setting.key).substr(0, std::string(setting.key).find('.')));
    for (const auto& [key, value] : root.items()) {
      const std::string pointer = PointerTo("", key);
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        Wrong(pointer, key, "There is no such key." + DidYouMean(key, known));
      } else if (value.is_null()) {
        continue;  // a key without a value: the default
      } else if (key == "flags") {
        Flags(value, pointer);
      } else if (key == "modules") {
        Modules(value, pointer);
      } else if (key == "clients") {
        ReadClients(value, pointer, cwd_, config_.clients,
                    [this](const std::string& at, const std::string& name, std::string sentence) { Wrong(at, name, std::move(sentence)); });
        for (const auto& [name, client] : config_.clients) Remember(PointerTo(pointer, name), "clients." + name);
      } else if (key == "auth") {
        ReadAuth(value, pointer, cwd_, config_.jwt,
                 [this](const std::string& at, const std::string& name, std::string sentence) { Wrong(at, name, std::move(sentence)); });
      } else if (key == "notifications") {
        Remember(pointer, key);
        ReadNotifications(value, pointer, cwd_, config_.notifications,
                          [this](const std::string& at, const std::string& name, std::string sentence) { Wrong(at, name, std::move(sentence)); });
      } else {
        Scalars(key, value, pointer);
      }
    }
  }

 private:
  void Wrong(const std::string& pointer, const std::string& key, std::string sentence) {
    const int line = document_.LineOf(pointer);
    std::string place = line > 0 ? absl::StrCat(file_, ":", line) : file_;
    if (!key.empty()) absl::StrAppend(&place, ": ", key);
    mistakes_.Add(std::move(place), line, std::move(sentence));
  }

  void Remember(const std::string& pointer, const std::string& key) {
    const int line = document_.LineOf(pointer);
    config_.places[key] = line > 0 ? absl::StrCat(file_, ":", line) : file_;
  }

  bool IsObject(const json& value, const std::string& pointer, const std::string& key) {
    if (!value.is_object()) Wrong(pointer, key, "This must be a mapping of keys and values.");
    return value.is_object();
  }

  // "listen", or the settings below "log" or "telemetry.otlp".
  void Scalars(const std::string& top, const json& value, const std::string& pointer) {
    const auto& settings = Settings();
    auto exact = std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return top == s.key; });
    if (exact != settings.end()) return Set(*exact, value, pointer);
    if (!IsObject(value, pointer, top)) return;
    std::vector<std::string> known;
    for (const Setting& setting : settings) {
      if (std::string(setting.key).rfind(top + ".", 0) != 0) continue;
      const std::string name(setting.key + top.size() + 1);
      known.push_back(name.substr(0, name.find('.')));
    }
    for (const auto& [name, member] : value.items()) {
      const std::string key = top + "." + name, member_pointer = PointerTo(pointer, name);
      auto setting = std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return key == s.key; });
      const auto below = [&](const Setting& s) { return std::string(s.key).rfind(key + ".", 0) == 0; };
      if (setting == settings.end() && std::any_of(settings.begin(), settings.end(), below)) {
        if (!member.is_null()) Scalars(key, member, member_pointer);
      } else if (setting == settings.end()) {
        Wrong(member_pointer, key, "There is no such key." + DidYouMean(name, known));
      } else if (!member.is_null()) {
        Set(*setting, member, member_pointer);
      }
    }
  }

  void Set(const Setting& setting, const json& value, const std::string& pointer) {
    Remember(pointer, setting.key);
    if (setting.list && value.is_array()) return SetList(setting, value, pointer);
    if (value.is_structured()) return Wrong(pointer, setting.key, setting.list ? "This must be a list of names." : "This must be a single value.");
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (std::string fault = setting.set(config_, text, cwd_); !fault.empty()) Wrong(pointer, setting.key, std::move(fault));
  }

  void SetList(const Setting& setting, const json& value, const std::string& pointer) {
    std::string names;
    for (size_t i = 0; i < value.size(); ++i) {
      const bool single = value[i].is_string() && value[i].get_ref<const std::string&>().find(',') == std::string::npos;
      if (!single) return Wrong(PointerTo(pointer, i), setting.key, "This must be a list of names.");
      absl::StrAppend(&names, i == 0 ? "" : ",", value[i].get_ref<const std::string&>());
    }
    if (std::string fault = setting.set(config_, names, cwd_); !fault.empty()) Wrong(pointer, setting.key, std::move(fault));
  }

  void Flags(const json& value, const std::string& pointer) {
    if (!IsObject(value, pointer, "flags")) return;
    std::map<std::string, std::string> spelled;  // by variable
    for (const auto& [name, state] : value.items()) {
      if (!CouldBeFlag(name)) {
        Wrong(PointerTo(pointer, name), "flags." + name, "A flag's name is 1 to 128 letters, digits, \"_\", \"-\" and \".\".");
        continue;
      }
      if (auto [first, fresh] = spelled.emplace(FeatureFlagVariable(name), name); !fresh) {
        Wrong(PointerTo(pointer, name), "flags." + name, "This is the same flag as \"" + first->second + "\": keep one of them.");
        continue;
      }
      const auto on = state.is_boolean()  ? std::optional(state.get<bool>())
                      : state.is_string() ? ParseBool(state.get<std::string>())
                                          : std::nullopt;
      if (on) {
        config_.flags[name] = *on;
      } else {
        Wrong(PointerTo(pointer, name), "flags." + name, "A flag is true or false.");
      }
    }
  }

  void Modules(const json& value, const std::string& pointer) {
    if (!IsObject(value, pointer, "modules")) return;
    for (const auto& [name, module] : value.items()) {
      const std::string key = "modules." + name, module_pointer = PointerTo(pointer, name);
      if (!CouldBeModule(name)) {
        Wrong(module_pointer, key, "This is no name of a module.");
        continue;
      }
      ModuleSettings& settings = config_.modules[name];
      Remember(module_pointer, key);
      if (module.is_null() || !IsObject(module, module_pointer, key)) continue;
      for (const auto& [member, content] : module.items()) {
        const std::string member_pointer = PointerTo(module_pointer, member), member_key = key + "." + member;
        if (member == "enabled") {
          if (!content.is_boolean()) {
            Wrong(member_pointer, member_key, "This is true or false.");
          } else {
            settings.enabled = content.get<bool>();
          }
        } else if (member == "config") {
          if (IsObject(content, member_pointer, member_key))
            settings.config_json = content.dump(-1, ' ', false, json::error_handler_t::replace);
        } else {
          Wrong(member_pointer, member_key, "There is no such key." + DidYouMean(member, {"enabled", "config"}));
        }
      }
    }
  }

  const std::string& file_;
  const std::string& cwd_;
  const Document& document_;
  Config& config_;
  Mistakes& mistakes_;
};

}  // namespace

void ApplyFile(const std::string& path, const std::string& cwd, Config& config, Mistakes& mistakes) {
  // In messages the path as short as it can be from here.
  const std::string relative = std::filesystem::path(path).lexically_relative(cwd).string();
  const std::string shown = relative.empty() || relative.rfind("..", 0) == 0 ? path : relative;
  const auto text = ReadFile(path, kMaxConfigFile);
  if (!text.ok()) {
    return mistakes.Add(shown, 0, absl::StrCat("The configuration file can't be read: ", text.status().message(), "."));
  }
  const auto document = ReadDocument(*text, true);
  if (!document.ok()) {
    for (const ErrorDetail& detail : ErrorDetails(document.status())) {
      mistakes.Add(detail.line > 0 ? absl::StrCat(shown, ":", detail.line) : shown, detail.line, detail.message);
    }
    return;
  }
  FileReader(shown, cwd, *document, config, mistakes).Read();
}

}  // namespace bulkhead
