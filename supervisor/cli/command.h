// What the client half of the binary was asked to do: the command line as values. No behaviour; a new command is a struct here, a part of
// command_line.cc that reads it, and a file of this room that carries it out.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

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

// The jobs of a module, of all when it is empty.
struct JobsCommand {
  std::string module;
};
struct RunJobCommand {
  std::string module, job;
  std::string payload;  // JSON; @FILE, or - for what comes on stdin
  bool follow = false;
};

// One run, or the newest of those that the filters leave.
struct RunsCommand {
  std::string id;
  bool follow = false;
  std::string module, job, status;
  std::optional<int> limit;
};
struct CancelRunCommand {
  std::string id;
};
struct ArtifactCommand {
  std::string id, name;
  std::string output;  // file or folder; empty: a new file of that name here; - for stdout
};

struct EventsCommand {
  std::string topic, since, key, source;
  std::optional<int> limit;
};
struct SubscriptionsCommand {};
// To one subscriber again, from a time on.
struct ReplayEventsCommand {
  std::string module, since;
  bool forget = false, yes = false;
};
struct DeadLettersCommand {
  std::string id;  // empty: a list
  std::string module, topic;
  std::optional<int> limit;
};
// Those of these numbers; with none, all of a module and a topic.
struct ReplayDeadLettersCommand {
  std::vector<std::string> ids;
  std::string module, topic;
  bool all = false, yes = false;
};
struct DropDeadLettersCommand {
  std::vector<std::string> ids;
  bool yes = false;
};

// A new key for the secrets of configurations, and all of them sealed with it.
struct RotateSecretsCommand {};

struct ClientRequest {
  ClientOptions options;
  std::variant<MigrateCommand, RotateSecretsCommand, LogsCommand, JobsCommand, RunJobCommand, RunsCommand, CancelRunCommand, ArtifactCommand,
               EventsCommand, SubscriptionsCommand, ReplayEventsCommand, DeadLettersCommand, ReplayDeadLettersCommand, DropDeadLettersCommand>
      command;
};

}  // namespace bulkhead
