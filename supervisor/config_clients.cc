// `clients` of the configuration file: services that modules may call.
#include <algorithm>
#include <array>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/duration.h"
#include "supervisor/base/secret_file.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/nearest.h"
#include "supervisor/manifest/quantities.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using Auth = ServiceClient::Auth;

constexpr std::array kClientKeys{"baseUrl", "auth",           "timeout", "attemptTimeout", "connectTimeout", "retries",
                                 "breaker", "maxConnections", "maxBody", "headers",        "caFile"};
constexpr std::array kClientAuthKeys{"type", "username", "password", "passwordFile", "token", "tokenFile", "name", "value", "valueFile"};
constexpr std::array kBreakerKeys{"failures", "percent", "window", "openFor"};
constexpr char kSecretVariable[] = "BULKHEAD_CLIENT_";
constexpr char kSecretEnding[] = "_SECRET";
constexpr Millis kLongestCall{600'000};
constexpr Millis kLongestOpen{3'600'000};
constexpr size_t kMaxClientName = 63, kMaxValue = 4'096;
constexpr double kLargestBody = 1 << 30;
constexpr std::array kHeadersOfTheClient{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
                                         "proxy-connection", "proxy-authorization", "content-type", "idempotency-key", "accept-encoding"};

bool CouldBeClient(const std::string& name) {
  return !name.empty() && name.size() <= kMaxClientName && absl::ascii_islower(name[0]) && name.back() != '-' && name.find("--") == std::string::npos &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

bool IsFieldName(const std::string& name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || std::string("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string::npos;
         });
}

bool IsHeaderOfTheClient(const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(name);
  return std::find(kHeadersOfTheClient.begin(), kHeadersOfTheClient.end(), lower) != kHeadersOfTheClient.end();
}

bool IsPrintable(const std::string& text, size_t most) {
  return !text.empty() && text.size() <= most && std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
}

// What a type of auth is made of: its keys, the last two of which are the secret and the file that has it.
std::vector<std::string> KeysOf(const std::string& type) {
  if (type == "basic") return {"username", "password", "passwordFile"};
  if (type == "bearer") return {"token", "tokenFile"};
  if (type == "header" || type == "query") return {"name", "value", "valueFile"};
  return {};
}

class ClientReader {
 public:
  ClientReader(const std::string& cwd, ServiceClient& client, const Blame& wrong) : cwd_(cwd), client_(client), wrong_(wrong) {}

  void Read(const json& value, const std::string& pointer, const std::string& key) {
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), member_key = key + "." + name;
      if (std::find(kClientKeys.begin(), kClientKeys.end(), name) == kClientKeys.end()) {
        wrong_(at, member_key, "There is no such key." + DidYouMean(name, {kClientKeys.begin(), kClientKeys.end()}));
      } else if (!member.is_null()) {
        Member(name, member, at, member_key);
      }
    }
    if (!value.contains("baseUrl")) wrong_(pointer, key, "The client needs a baseUrl, such as https://shop.example.org/api.");
  }

 private:
  void Member(const std::string& name, const json& value, const std::string& at, const std::string& key) {
    if (name == "auth") return ReadAuth(value, at, key);
    if (name == "breaker") return ReadBreaker(value, at, key);
    if (name == "headers") return ReadHeaders(value, at, key);
    if (name == "retries") return Number(value, 0, 10, client_.retries, at, key);
    if (name == "maxConnections") return Number(value, 1, 256, client_.max_connections, at, key);
    if (name == "timeout") return Time(value, kLongestCall, client_.timeout, at, key);
    if (name == "attemptTimeout") return Time(value, kLongestCall, client_.attempt_timeout, at, key);
    if (name == "connectTimeout") return Time(value, kLongestCall, client_.connect_timeout, at, key);
    if (name == "maxBody") return Size(value, at, key);
    if (!value.is_string()) return wrong_(at, key, "This must be a text.");
    const std::string& text = value.get_ref<const std::string&>();
    if (name == "baseUrl") {
      client_.base_url = text;
      if (std::string fault = BaseUrlFault(text); !fault.empty()) wrong_(at, key, std::move(fault));
    } else {
      File(text, client_.ca_file, at, key);
    }
  }

  void File(const std::string& text, std::string& target, const std::string& at, const std::string& key) {
    if (text.empty() || text.find('\0') != std::string::npos) return wrong_(at, key, "This must be the path of a file.");
    target = (std::filesystem::path(cwd_) / text).lexically_normal().string();
  }

  void Number(const json& value, int least, int most, int& target, const std::string& at, const std::string& key) {
    if (!value.is_number_integer() || value.get<double>() < least || value.get<double>() > most)
      return wrong_(at, key, absl::StrCat("This must be a whole number from ", least, " to ", most, "."));
    target = value.get<int>();
  }

  void Time(const json& value, Millis most, Millis& target, const std::string& at, const std::string& key) {
    const auto parsed = value.is_string() ? ParseDuration(value.get_ref<const std::string&>()) : std::nullopt;
    if (!parsed || *parsed < Millis(1) || *parsed > most)
      return wrong_(at, key, absl::StrCat("This must be a duration such as 500ms or 10s, from 1ms to ", FormatDuration(most), "."));
    target = *parsed;
  }

  void Size(const json& value, const std::string& at, const std::string& key) {
    const auto bytes = ParseMemory(value.is_string() ? value.get<std::string>() : value.dump());
    if (!bytes || *bytes < 1 || *bytes > kLargestBody) return wrong_(at, key, "This must be a size such as 16MiB, at most 1GiB.");
    client_.max_body = static_cast<int64_t>(*bytes);
  }

  void ReadBreaker(const json& value, const std::string& pointer, const std::string& key) {
    if (value.is_boolean() && !value.get<bool>()) {
      client_.breaker = false;
      return;
    }
    if (!value.is_object()) return wrong_(pointer, key, "This must be a mapping of failures, percent, window and openFor; or false for none.");
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), member_key = key + "." + name;
      if (name == "failures") Number(member, 0, 1'000, client_.breaker_failures, at, member_key);
      else if (name == "percent") Number(member, 0, 100, client_.breaker_percent, at, member_key);
      else if (name == "window") Time(member, kLongestOpen, client_.breaker_window, at, member_key);
      else if (name == "openFor") Time(member, kLongestOpen, client_.breaker_open, at, member_key);
      else wrong_(at, member_key, "There is no such key." + DidYouMean(name, {kBreakerKeys.begin(), kBreakerKeys.end()}));
    }
  }

  // No sentence repeats a value: they may be secrets.
  void ReadHeaders(const json& value, const std::string& pointer, const std::string& key) {
    if (!value.is_object() || value.size() > kMaxClientHeaders)
      return wrong_(pointer, key, absl::StrCat("This must be a mapping of at most ", kMaxClientHeaders, " names and texts."));
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), member_key = key + "." + name;
      if (!IsFieldName(name) || IsHeaderOfTheClient(name)) {
        wrong_(at, member_key, "No header of this name can be set here.");
      } else if (!member.is_string() || !IsPrintable(member.get_ref<const std::string&>(), kMaxValue)) {
        wrong_(at, member_key, "This must be a text of printable ASCII; quote it when it looks like a number.");
      } else {
        client_.headers.emplace_back(absl::AsciiStrToLower(name), member.get<std::string>());
      }
    }
  }

  void ReadAuth(const json& value, const std::string& pointer, const std::string& key) {
    if (!value.is_object()) return wrong_(pointer, key, "This must be a mapping with a type: none, basic, bearer, header or query.");
    std::map<std::string, std::string> given;
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), member_key = key + "." + name;
      if (std::find(kClientAuthKeys.begin(), kClientAuthKeys.end(), name) == kClientAuthKeys.end()) {
        return wrong_(at, member_key, "There is no such key." + DidYouMean(name, {kClientAuthKeys.begin(), kClientAuthKeys.end()}));
      }
      if (member.is_null()) continue;
      if (!member.is_string() || !IsPrintable(member.get_ref<const std::string&>(), kMaxValue))
        return wrong_(at, member_key, "This must be a text of printable ASCII; quote it when it looks like a number.");
      given[name] = member.get<std::string>();
    }
    const std::string type = given["type"];
    if (type == "none" || type == "basic" || type == "bearer" || type == "header" || type == "query") return Login(type, given, pointer, key);
    wrong_(pointer, key, "The type must be none, basic, bearer, header or query.");
  }

  void Login(const std::string& type, std::map<std::string, std::string>& given, const std::string& pointer, const std::string& key) {
    const std::vector<std::string> keys = KeysOf(type);
    for (const auto& [name, text] : given) {
      if (name != "type" && std::find(keys.begin(), keys.end(), name) == keys.end())
        return wrong_(PointerTo(pointer, name), key + "." + name, "This does not go with the type " + type + ".");
    }
    for (Auth auth : {Auth::kBasic, Auth::kBearer, Auth::kHeader, Auth::kQuery}) {
      if (type == AuthName(auth)) client_.auth = auth;
    }
    if (client_.auth == Auth::kNone) return;
    const std::string secret = keys[keys.size() - 2], file = keys.back();
    if (given.contains(secret) && given.contains(file)) return wrong_(pointer, key, "Give " + secret + " or " + file + ", not both.");
    client_.secret = given[secret];
    if (given.contains(file)) File(given[file], client_.secret_file, PointerTo(pointer, file), key + "." + file);
    client_.user = given["username"];
    client_.field = given["name"];
    const bool of_header = client_.auth == Auth::kHeader;
    if (client_.auth == Auth::kBasic && (client_.user.empty() || client_.user.find(':') != std::string::npos)) {
      wrong_(pointer, key, "basic needs a username, without a colon.");
    } else if ((of_header || client_.auth == Auth::kQuery) && (!IsFieldName(client_.field) || (of_header && IsHeaderOfTheClient(client_.field)))) {
      wrong_(pointer, key, type + " needs a name: that of the " + (of_header ? "header" : "parameter") + " that has the secret.");
    }
  }

  const std::string& cwd_;
  ServiceClient& client_;
  const Blame& wrong_;
};

std::string SecretVariableOf(const std::string& client) {
  std::string name = absl::AsciiStrToUpper(client);
  std::replace(name.begin(), name.end(), '-', '_');
  return kSecretVariable + name + kSecretEnding;
}

}  // namespace

void ReadClients(const json& value, const std::string& pointer, const std::string& cwd, ServiceClients& clients, const Blame& wrong) {
  if (!value.is_object()) return wrong(pointer, "clients", "This must be a mapping of keys and values.");
  if (value.size() > kMaxServiceClients) return wrong(pointer, "clients", absl::StrCat("At most ", kMaxServiceClients, " clients are possible."));
  for (const auto& [name, client] : value.items()) {
    const std::string at = PointerTo(pointer, name), key = "clients." + name;
    if (!CouldBeClient(name)) {
      wrong(at, key, "A client's name is 1 to 63 lower-case letters, digits and single hyphens, and begins with a letter.");
    } else if (!client.is_object()) {
      wrong(at, key, "This must be a mapping of keys and values.");
    } else {
      ClientReader(cwd, clients[name], wrong).Read(client, at, key);
    }
  }
}

bool ApplyClientVariable(const std::string& variable, const std::string& value, Config& config, Mistakes& mistakes) {
  const auto named = [&](const auto& one) { return SecretVariableOf(one.first) == variable && one.second.auth != Auth::kNone; };
  const auto found = std::find_if(config.clients.begin(), config.clients.end(), named);
  if (found == config.clients.end()) return false;
  if (!IsPrintable(value, kMaxSecretFile)) {
    mistakes.Add(variable, 0, "The secret of a client is one line of printable ASCII, at most 16 KiB long.");
    return true;
  }
  found->second.secret = value;
  found->second.secret_file.clear();
  return true;
}

void CheckClients(const Config& config, Mistakes& mistakes) {
  for (const auto& [name, client] : config.clients) {
    if (client.auth == Auth::kNone || !client.secret.empty() || !client.secret_file.empty()) continue;
    const auto place = config.places.find("clients." + name);
    mistakes.Add(absl::StrCat(place == config.places.end() ? "" : place->second + ": ", "clients.", name, ".auth"), 0,
                 "There is no secret: give it here, in a file that is named here, or in the variable " + SecretVariableOf(name) + ".");
  }
}

}  // namespace bulkhead
