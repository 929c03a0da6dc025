// Command line → Config → daemon → exit code.
#include <absl/synchronization/mutex.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/client.h"
#include "supervisor/config.h"
#include "supervisor/daemon.h"

extern char** environ;

namespace {

constexpr int kServeRefused = 1;  // a configuration that `serve` can't use

// `ps` shows a process's arguments to everybody: what is the password of a URL there becomes asterisks. Of the spawner too, forked later.
void MaskPasswords(int argc, char** argv) {
  auto mask = [](char* begin, const char* end) { std::fill(begin, begin + (end - begin), '*'); };
  for (int i = 1; i < argc; ++i) {
    char* const scheme = strstr(argv[i], "://");
    if (scheme == nullptr) continue;
    char* const login = scheme + 3;
    char* const path = login + strcspn(login, "/?");
    if (auto* at = static_cast<char*>(memrchr(login, '@', size_t(path - login)))) {
      char* const colon = std::find(login, at, ':');
      if (colon != at) mask(colon + 1, at);
    }
    constexpr std::string_view kQuery = "password=";
    for (char* query = path; (query = strstr(query, kQuery.data())) != nullptr;) {
      query += kQuery.size();
      mask(query, query + strcspn(query, "&"));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Debian builds abseil with its checks: at every lock, gRPC's too, it looks for an order of locks that might deadlock one day, and when it
  // finds one it ends the process.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::map<std::string, std::string> environment;
  for (char** variable = environ; *variable; ++variable) {
    std::string_view text = *variable;
    size_t equals = text.find('=');
    bool ours = text.starts_with("BULKHEAD_") || text.starts_with("FEATURE_FLAG_");
    if (ours && equals != text.npos) environment[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  std::error_code error;
  std::string cwd = std::filesystem::current_path(error).string();
  const std::vector<std::string> arguments(argv, argv + argc);
  auto parse = [arguments, environment, cwd = error ? "/" : cwd, root = geteuid() == 0] {
    std::vector<const char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
    return bulkhead::ParseCommandLine(int(pointers.size()), pointers.data(), environment, root, cwd);
  };
  auto line = parse();
  MaskPasswords(argc, argv);
  if (!line.ok()) {
    fprintf(stderr, "bulkhead: %s\n", std::string(line.status().message()).c_str());
    for (const auto& detail : bulkhead::ErrorDetails(line.status())) {
      if (detail.message != line.status().message()) fprintf(stderr, "  %s: %s\n", detail.path.c_str(), detail.message.c_str());
    }
    // A command of the client that can't be understood is not one that was refused.
    return argc > 1 && std::string_view(argv[1]) == "serve" ? kServeRefused : static_cast<int>(bulkhead::Outcome::kUsage);
  }
  switch (line->command) {
    case bulkhead::Command::kHelp:
    case bulkhead::Command::kVersion: fputs(line->text.c_str(), stdout); return 0;
    case bulkhead::Command::kClient: {
      bulkhead::Terminal terminal = bulkhead::Terminal::Standard();
      return static_cast<int>(bulkhead::RunClient(line->client, terminal));
    }
    case bulkhead::Command::kServe: break;
  }
  bulkhead::ConfigureLog(line->config.log_level, line->config.log_format);
  for (const std::string& warning : line->config.warnings) bulkhead::LogWarn("config", warning);
  auto reread = [parse]() -> absl::StatusOr<bulkhead::Config> {
    auto again = parse();
    if (!again.ok()) return again.status();
    return std::move(again->config);
  };
  return bulkhead::RunDaemon(line->config, reread);
}
