// Command line → Config → daemon → exit code.
#include <absl/synchronization/mutex.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/client.h"
#include "supervisor/config.h"
#include "supervisor/daemon.h"

extern char** environ;

namespace {

constexpr int kServeRefused = 1;  // a configuration that `serve` can't use

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
  auto line = bulkhead::ParseCommandLine(argc, argv, environment, geteuid() == 0, error ? "/" : cwd);
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
  auto reread = [argc, argv, environment, cwd = error ? "/" : cwd, root = geteuid() == 0]() -> absl::StatusOr<bulkhead::Config> {
    auto again = bulkhead::ParseCommandLine(argc, argv, environment, root, cwd);
    if (!again.ok()) return again.status();
    return std::move(again->config);
  };
  return bulkhead::RunDaemon(line->config, std::move(reread));
}
