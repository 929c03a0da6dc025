// What the client half of the binary was asked to do: the command line as values. No behaviour; a new command is a struct here, a part of
// command_line.cc that reads it, and a file of this room that carries it out.
#pragma once

#include <optional>
#include <string>
#include <variant>

namespace bulkhead {

// Which supervisor, as whom, and how to show its answer.
struct ClientOptions {
  std::string server = "127.0.0.1:4001";  // --server, BULKHEAD_SERVER: HOST:PORT of the gRPC admin API
  std::string token;                      // BULKHEAD_TOKEN; empty: read from token_file
  std::string token_file;                 // --token-file, else <data>/admin.token
  bool json = false;                      // --json: what the REST API answers, on one line
};

struct MigrateCommand {
  enum class What { kPlan, kStatus, kUp, kDown };
  What what = What::kStatus;
  bool down = false;                      // of a plan: what `down` would do
  std::string module;                     // empty: all, for kStatus only
  std::optional<int> to;
};

// What a module has printed; follow: and prints.
struct LogsCommand {
  std::string module;
  bool follow = false;
  std::optional<int> tail, slot;
  std::string since, level, search;       // as the API takes them
};

// A new key for the secrets of configurations, and all of them sealed with it.
struct RotateSecretsCommand {};

struct ClientRequest {
  ClientOptions options;
  std::variant<MigrateCommand, RotateSecretsCommand, LogsCommand> command;
};

}  // namespace bulkhead
