// The layers of the configuration, lowest first: file, environment, flags. Each knows how to name the place of a wrong value.
// Private to config.cc, config_file.cc, config_auth.cc, config_clients.cc, config_notifications.cc and command_line.cc.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json_fwd.hpp"
#include "supervisor/base/status.h"
#include "supervisor/config.h"

namespace bulkhead {

// One scalar setting, under its three names.
struct Setting {
  const char* key;       // in the file
  const char* variable;  // in the environment
  const char* option;    // on the command line
  const char* value;     // what the help calls its value
  const char* help;      // with the default
  // Checks and stores; a sentence when the value is wrong. `cwd` is for relative paths.
  std::string (*set)(Config& config, const std::string& value, const std::string& cwd);
  bool list = false;     // names split by commas; a list of them in the file
};
const std::vector<Setting>& Settings();

// Mistakes found so far, each "place: sentence".
class Mistakes {
 public:
  void Add(std::string place, int line, std::string sentence);
  bool empty() const { return details_.empty(); }
  // CONFIG_INVALID. One mistake is the message; of several the message has the number, and the details are place and sentence.
  absl::Status ToStatus() const;

 private:
  std::vector<ErrorDetail> details_;
};

// The mapping below `auth`, at `pointer` of the file. `wrong` is told of each mistake: its pointer, its key, a sentence. config_auth.cc.
using Blame = std::function<void(const std::string& pointer, const std::string& key, std::string sentence)>;
void ReadAuth(const nlohmann::json& value, const std::string& pointer, const std::string& cwd, JwtSettings& jwt, const Blame& wrong);

// The mapping below `clients`, as ReadAuth(). config_clients.cc.
void ReadClients(const nlohmann::json& value, const std::string& pointer, const std::string& cwd, ServiceClients& clients, const Blame& wrong);
// BULKHEAD_CLIENT_<NAME>_SECRET ("-" as "_"), which counts for more than what the file says. False when no client of the file wants it.
bool ApplyClientVariable(const std::string& variable, const std::string& value, Config& config, Mistakes& mistakes);
// Clients that want a secret and have none from anywhere.
void CheckClients(const Config& config, Mistakes& mistakes);
// The mapping below `notifications`, likewise. config_notifications.cc.
void ReadNotifications(const nlohmann::json& value, const std::string& pointer, const std::string& cwd, NotificationSettings& settings, const Blame& wrong);
// BULKHEAD_SMTP_PASSWORD and BULKHEAD_WEBHOOK_<NAME>_{SECRET,URL,HEADER_<HEADER>}, likewise. False when nothing of the file wants it.
bool ApplyNotificationVariable(const std::string& variable, const std::string& value, Config& config, Mistakes& mistakes);
// What lacks its secret or address, or has two.
void CheckNotifications(const Config& config, Mistakes& mistakes);

void ApplyFile(const std::string& path, const std::string& cwd, Config& config, Mistakes& mistakes);
void ApplyEnvironment(const std::map<std::string, std::string>& environment, const std::string& cwd, Config& config,
                      Mistakes& mistakes);
// Defaults that depend on who runs and where, before any layer; what has to fit together, after all of them.
void ApplyDefaults(bool is_root, const std::string& cwd, Config& config);
void CheckWhole(Config& config, Mistakes& mistakes);

std::optional<bool> ParseBool(std::string_view text);

// The configuration that the three layers make; `options` by Setting::option.
absl::StatusOr<Config> MakeConfig(const std::string& config_file, const std::map<std::string, std::string>& options,
                                  std::vector<std::string> disable, const std::map<std::string, std::string>& environment,
                                  bool is_root, const std::string& cwd);

}  // namespace bulkhead
