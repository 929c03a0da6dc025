// The command line of the binary (CLI11), laid over environment and file.
#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/nearest.h"

namespace bulkhead {
namespace {

constexpr char kFooter[] =
    "In brackets stands the variable that sets the same; all but --config and --disable can be set in the file, too. What is given\n"
    "twice is taken from the options first, then from the variables, then from the file, then from the defaults.\n"
    "FEATURE_FLAG_<NAME>=true|false sets a feature flag; BULKHEAD_ENVIRONMENT is the name that /health shows (default development\n"
    "with --development true, else production). BULKHEAD_SECRETS_KEYS holds the keys of secrets at rest (64 hexadecimal digits each, split by\n"
    "commas, the first seals; default: a key file in the data folder). BULKHEAD_SERVER and BULKHEAD_TOKEN are for the client's commands.\n"
    "BULKHEAD_CLIENT_<NAME>_SECRET is the secret of that service client (- as _), instead of what the file says; so are BULKHEAD_SMTP_PASSWORD,\n"
    "BULKHEAD_WEBHOOK_<NAME>_URL, BULKHEAD_WEBHOOK_<NAME>_SECRET and BULKHEAD_WEBHOOK_<NAME>_HEADER_<HEADER> for notifications.\n"
    "Ctrl-C or SIGTERM stops the modules in order, then the supervisor, within 30 seconds; a second one kills what is left. SIGHUP reads the file\n"
    "again: all of it is taken, or nothing. log.level, log.format, flags.*, auth.*, clients.*, notifications.* and store.extensions can change so; any other\n"
    "key that has changed is named and wants a restart. Sockets of systemd (LISTEN_FDS) called http and grpc are served instead of --listen and\n"
    "--admin-listen; NOTIFY_SOCKET and WATCHDOG_USEC are understood.\n"
    "Exit codes: 0 stopped as asked; 1 could not start; 3 a critical module could not start; 4 stopped, but something had to be killed, which the\n"
    "last line of the log names; 5 the spawner process has ended, to be started again.\n";

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back("--" + option->get_single_name());
  return names;
}

constexpr char kExitCodes[] =
    "Exit codes: 0 done, 1 refused by the supervisor, 2 wrong usage or no token, 3 no supervisor answers, 4 still under way.\n";

constexpr char kRunExitCodes[] =
    "Exit codes: 0 done, 1 refused by the supervisor, 2 wrong usage or no token, 3 no supervisor answers, 4 still under way,\n"
    "5 the run that was followed has ended without success.\n";

// The innermost command that was named, and how it is called.
const CLI::App& Named(const CLI::App& app, std::string& path) {
  const CLI::App* at = &app;
  path = at->get_name();
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return *at;
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
  return names;
}

// CLI11's complaint as a sentence, with the nearest option or command for something that it did not expect.
absl::Status Refused(const CLI::App& app, const CLI::ParseError& error) {
  std::string path;
  const CLI::App& named = Named(app, path);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr) {
    return Error("CONFIG_INVALID", absl::StrCat(error.what(), ". `", path, " --help` says what is expected."));
  }
  const std::vector<std::string> extras = app.remaining(true), commands = CommandNames(named);
  const std::string extra = extras.empty() ? "" : extras.front().substr(0, extras.front().find('='));
  const bool option = !extra.empty() && extra[0] == '-', command = !option && !commands.empty();
  const std::string hint = option ? DidYouMean(extra, OptionNames(named)) : command ? DidYouMean(extra, commands) : "";
  return Error("CONFIG_INVALID", absl::StrCat(option ? "Unknown option " : command ? "Unknown command " : "Unexpected argument ", extra, ".", hint,
                                              " `", path, " --help` lists the ", command ? "commands." : "options."));
}

// What every command of the client takes.
void AddClientOptions(CLI::App& command, ClientOptions& options, std::string& token_file) {
  command.set_help_flag("-h,--help", "this text");
  command.add_option("--server", options.server, "gRPC admin API of the supervisor (default 127.0.0.1:4001) [BULKHEAD_SERVER]")
      ->type_name("HOST:PORT")
      ->take_last();
  command.add_option("--token-file", token_file, "file with the token (default: BULKHEAD_TOKEN, then admin.token in the data folder, BULKHEAD_DATA)")
      ->type_name("FILE")
      ->take_last();
  command.add_flag("--json", options.json, "print what the REST API answers");
  command.footer(kExitCodes);
}

// bulkhead migrate …
struct MigrateArguments {
  CLI::App* command = nullptr;
  CLI::App *status = nullptr, *up = nullptr, *down = nullptr;
  bool dry_run = false;
  std::string module;
  int to = 0;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    const char* dry = "only list what would run, with checksums and problems; nothing is run or changed";
    command = app.add_subcommand("migrate", "migrations of a module: what is applied, apply, take back");
    AddClientOptions(*command, options, token_file);
    command->require_subcommand(0, 1);
    command->add_option("NAME", module, "the module, with --dry-run");
    command->add_flag("--dry-run", dry_run, dry);
    status = command->add_subcommand("status", "what is applied, pending or wrong");
    status->add_option("NAME", module, "a module, or bulkhead for the supervisor's own tables (default: a line for each)");
    up = command->add_subcommand("up", "apply what is pending; the module must not be enabled, an enable does the same");
    up->add_option("NAME", module, "the module")->required();
    down = command->add_subcommand("down", "take the last one back, by its down file; the module must not be enabled");
    down->add_option("NAME", module, "the module")->required();
    down->add_option("--to", to, "take back all above this number; 0 for all")->type_name("N")->take_last();
    for (CLI::App* one : {status, up, down}) AddClientOptions(*one, options, token_file);
    for (CLI::App* one : {up, down}) one->add_flag("--dry-run", dry_run, dry);
  }

  absl::StatusOr<MigrateCommand> Read() const {
    MigrateCommand wanted;
    wanted.module = module;
    wanted.down = down->parsed();
    if (down->count("--to") > 0) wanted.to = to;
    if (to < 0) return Error("CONFIG_INVALID", "--to is the number of a migration, or 0 for none.");
    if (status->parsed()) {
      wanted.what = MigrateCommand::What::kStatus;
    } else if (dry_run) {
      wanted.what = MigrateCommand::What::kPlan;
    } else if (up->parsed() || down->parsed()) {
      wanted.what = down->parsed() ? MigrateCommand::What::kDown : MigrateCommand::What::kUp;
    } else {
      return Error("CONFIG_INVALID", "Say what to do: `bulkhead migrate --dry-run NAME`, or one of the commands status, up and down.");
    }
    if (wanted.module.empty() && !status->parsed()) return Error("CONFIG_INVALID", "NAME is missing: `bulkhead migrate --dry-run NAME`.");
    return wanted;
  }
};

// bulkhead logs …
struct LogsArguments {
  CLI::App* command = nullptr;
  LogsCommand wanted;
  int tail = 0, slot = 0;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    command = app.add_subcommand("logs", "what a module has printed on this node, and with -f what it prints");
    AddClientOptions(*command, options, token_file);
    command->add_option("NAME", wanted.module, "the module")->required();
    command->add_flag("-f,--follow", wanted.follow, "go on with each line as it is printed, until Ctrl-C; with --json a line of JSON for each");
    command->add_option("--tail", tail, "the last N lines, 0 to 5000 (default 200)")->type_name("N")->take_last();
    command->add_option("--since", wanted.since, "from a time such as 2026-01-31T09:30:00Z, or so long before now as in 10m")->type_name("TIME")->take_last();
    command->add_option("--level", wanted.level, "debug, info, warn or error, and above")->type_name("LEVEL")->take_last();
    command->add_option("--search", wanted.search, "a text in message or fields")->type_name("TEXT")->take_last();
    command->add_option("--slot", slot, "of one worker")->type_name("N")->take_last();
  }

  absl::StatusOr<LogsCommand> Read() const {
    LogsCommand read = wanted;
    if (command->count("--tail") > 0) read.tail = tail;
    if (command->count("--slot") > 0) read.slot = slot;
    return read;
  }
};

// bulkhead secrets …
struct SecretsArguments {
  CLI::App* command = nullptr;
  CLI::App* rotate = nullptr;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    command = app.add_subcommand("secrets", "the keys of secrets at rest");
    AddClientOptions(*command, options, token_file);
    command->require_subcommand(0, 1);
    rotate = command->add_subcommand("rotate", "make a new key, seal the secrets of every configuration with it, and forget the old one; with keys "
                                               "from BULKHEAD_SECRETS_KEYS: seal all with the first. May be repeated when it was interrupted");
    AddClientOptions(*rotate, options, token_file);
  }

  absl::StatusOr<RotateSecretsCommand> Read() const {
    if (!rotate->parsed()) return Error("CONFIG_INVALID", "Say what to do: `bulkhead secrets rotate`.");
    return RotateSecretsCommand{};
  }
};

// bulkhead jobs …
struct JobsArguments {
  CLI::App *command = nullptr, *run = nullptr;
  JobsCommand list;
  RunJobCommand one;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    command = app.add_subcommand("jobs", "jobs of modules: schedule, next run, what came of the last one; and run one now");
    AddClientOptions(*command, options, token_file);
    command->require_subcommand(0, 1);
    command->add_option("NAME", list.module, "a module (default: all)");
    run = command->add_subcommand("run", "queue a run of a job now");
    AddClientOptions(*run, options, token_file);
    run->add_option("NAME", one.module, "the module")->required();
    run->add_option("JOB", one.job, "the job")->required();
    run->add_option("--payload", one.payload, "JSON that the run is given (default: null); @FILE for a file's, - for what comes on stdin")
        ->type_name("JSON")
        ->take_last();
    run->add_flag("-f,--follow", one.follow, "tell how it goes on until it has ended; with --json a line of JSON for each change and each line of its log");
    run->footer(kRunExitCodes);
  }

  absl::StatusOr<decltype(ClientRequest::command)> Read() const {
    if (run->parsed()) return one;
    return list;
  }
};

// bulkhead runs …
struct RunsArguments {
  CLI::App *command = nullptr, *cancel = nullptr, *artifact = nullptr;
  RunsCommand list;
  CancelRunCommand cancelled;
  ArtifactCommand file;
  int limit = 0;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    command = app.add_subcommand("runs", "runs of jobs, the newest first; one with its log and its files; cancel one");
    AddClientOptions(*command, options, token_file);
    command->require_subcommand(0, 1);
    command->add_option("ID", list.id, "one run (default: a list)");
    command->add_flag("-f,--follow", list.follow, "of one: tell how it goes on until it has ended; with --json a line of JSON for each change and log line");
    command->add_option("--module", list.module, "of one module; bulkhead.notifications for what modules send")->type_name("NAME")->take_last();
    command->add_option("--job", list.job, "of jobs of that name")->type_name("JOB")->take_last();
    command->add_option("--status", list.status, "QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED, TIMED_OUT, SKIPPED or INTERRUPTED")
        ->type_name("STATUS")
        ->take_last();
    command->add_option("--limit", limit, "as many at most, 1 to 500 (default 50)")->type_name("N")->take_last();
    command->footer(kRunExitCodes);
    cancel = command->add_subcommand("cancel", "end a run: one that waits at once, another when its handler has returned");
    AddClientOptions(*cancel, options, token_file);
    cancel->add_option("ID", cancelled.id, "the run")->required();
    artifact = command->add_subcommand("artifact", "download a file that a run has left");
    AddClientOptions(*artifact, options, token_file);
    artifact->add_option("ID", file.id, "the run")->required();
    artifact->add_option("FILE", file.name, "the name of the file, as `bulkhead runs ID` lists it")->required();
    artifact->add_option("-o,--output", file.output, "where it goes: a file, which is replaced, a folder, or - for stdout (default: a new file here)")
        ->type_name("PATH")
        ->take_last();
  }

  absl::StatusOr<decltype(ClientRequest::command)> Read() const {
    if (cancel->parsed()) return cancelled;
    if (artifact->parsed()) return file;
    RunsCommand read = list;
    for (char& c : read.status) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    if (command->count("--limit") > 0) read.limit = limit;
    const bool filtered = read.limit || !read.module.empty() || !read.job.empty() || !read.status.empty();
    if (read.follow && read.id.empty()) return Error("CONFIG_INVALID", "--follow wants one run: `bulkhead runs ID --follow`.");
    if (filtered && !read.id.empty()) return Error("CONFIG_INVALID", "One run is asked for by its ID alone, without filters.");
    return read;
  }
};

// bulkhead events …
struct EventsArguments {
  CLI::App *command = nullptr, *subscriptions = nullptr, *replay = nullptr, *letters = nullptr, *letters_replay = nullptr, *letters_drop = nullptr;
  EventsCommand list;
  ReplayEventsCommand again;
  DeadLettersCommand dead;
  ReplayDeadLettersCommand dead_again;
  DropDeadLettersCommand dropped;
  int limit = 0;

  void Add(CLI::App& app, ClientOptions& options, std::string& token_file) {
    const char* many = "as many at most, 1 to 500 (default 50)";
    const char* since = "from a time such as 2026-01-31T09:30:00Z, or so long before now as in 10m";
    const char* unasked = "don't ask whether to go on; needed where nobody can be asked";
    command = app.add_subcommand("events", "what modules have published, who has come how far, and what could not be delivered");
    command->require_subcommand(0, 1);
    command->add_option("--topic", list.topic, "such as order.created or order.*")->type_name("TOPIC")->take_last();
    command->add_option("--since", list.since, since)->type_name("TIME")->take_last();
    command->add_option("--key", list.key, "of one key")->type_name("KEY")->take_last();
    command->add_option("--source", list.source, "that this module has published")->type_name("NAME")->take_last();
    command->add_option("--limit", limit, many)->type_name("N")->take_last();
    subscriptions = command->add_subcommand("subscriptions", "each subscriber with its lag, and the open transactions whose events wait for their end");
    replay = command->add_subcommand("replay", "deliver to a module again what was published since a time");
    replay->add_option("NAME", again.module, "the module")->required();
    replay->add_option("--since", again.since, since)->type_name("TIME")->take_last()->required();
    replay->add_flag("--forget", again.forget, "also forget what it has done with once(): its effects are had again");
    replay->add_flag("--yes", again.yes, unasked);
    letters = command->add_subcommand("dead-letters", "what could not be delivered; one with its payload");
    letters->require_subcommand(0, 1);
    letters->add_option("NUMBER", dead.id, "one dead letter (default: a list)");
    letters->add_option("--module", dead.module, "for one module")->type_name("NAME")->take_last();
    letters->add_option("--topic", dead.topic, "such as order.created or order.*")->type_name("TOPIC")->take_last();
    letters->add_option("--limit", limit, many)->type_name("N")->take_last();
    letters_replay = letters->add_subcommand("replay", "deliver again: those of these numbers, or all of a module or a topic");
    letters_replay->add_option("NUMBER", dead_again.ids, "dead letters");
    letters_replay->add_option("--module", dead_again.module, "all for this module")->type_name("NAME")->take_last();
    letters_replay->add_option("--topic", dead_again.topic, "all with this topic")->type_name("TOPIC")->take_last();
    letters_replay->add_flag("--all", dead_again.all, "all; the oldest 10,000 at a time");
    letters_replay->add_flag("--yes", dead_again.yes, unasked);
    letters_drop = letters->add_subcommand("drop", "give up for good");
    letters_drop->add_option("NUMBER", dropped.ids, "dead letters")->required();
    letters_drop->add_flag("--yes", dropped.yes, unasked);
    for (CLI::App* one : {command, subscriptions, replay, letters, letters_replay, letters_drop}) AddClientOptions(*one, options, token_file);
  }

  absl::StatusOr<decltype(ClientRequest::command)> Read() const {
    if (subscriptions->parsed()) return SubscriptionsCommand{};
    if (replay->parsed()) return again;
    if (letters_drop->parsed()) return dropped;
    if (letters_replay->parsed()) {
      const bool by_filter = dead_again.all || !dead_again.module.empty() || !dead_again.topic.empty();
      if (by_filter == !dead_again.ids.empty())
        return Error("CONFIG_INVALID", "Say which: numbers of dead letters, or --module, --topic or --all.");
      return dead_again;
    }
    if (letters->parsed()) {
      DeadLettersCommand read = dead;
      if (letters->count("--limit") > 0) read.limit = limit;
      return read;
    }
    EventsCommand read = list;
    if (command->count("--limit") > 0) read.limit = limit;
    return read;
  }
};

// The layers below the options: variables, then what depends on who runs and where.
void ApplyClientDefaults(const std::map<std::string, std::string>& environment, bool is_root, const std::string& cwd,
                         const std::string& token_file, ClientOptions& options) {
  const auto variable = [&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::string() : found->second;
  };
  if (!token_file.empty()) {
    options.token_file = token_file;
    return;
  }
  options.token = variable("BULKHEAD_TOKEN");
  Config config;
  ApplyDefaults(is_root, cwd, config);
  const std::string data = variable("BULKHEAD_DATA");
  options.token_file = (data.empty() ? config.data : data) + "/admin.token";
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv,
                                             const std::map<std::string, std::string>& environment, bool is_root,
                                             const std::string& cwd) {
  CLI::App app("Bulkhead runs an application as modules, each in a process of its own.", "bulkhead");
  app.require_subcommand(0, 1);
  app.set_help_flag("-h,--help", "what there is");
  app.footer("`bulkhead COMMAND --help` says more of each.\n");
  bool version_flag = false;
  app.add_flag("-V,--version", version_flag, "the version");
  CLI::App* version = app.add_subcommand("version", "print the version");
  version->set_help_flag("-h,--help", "this text");
  CLI::App* serve = app.add_subcommand("serve", "run the supervisor in the foreground");
  serve->set_help_flag("-h,--help", "this text");
  serve->footer(kFooter);

  // A later one wins, so that options can be added behind those that a script passes.
  std::string config_file;
  serve->add_option("--config", config_file, "YAML file with the configuration (default: none) [BULKHEAD_CONFIG]")
      ->type_name("FILE")
      ->take_last();
  std::map<std::string, std::string> values;
  for (const Setting& setting : Settings()) {
    serve->add_option(setting.option, values[setting.option], absl::StrCat(setting.help, " [", setting.variable, "]"))
        ->type_name(setting.value)
        ->take_last();
  }
  std::vector<std::string> disable;
  serve->add_option("--disable", disable, "modules that are not started in this run (no variable)")
      ->type_name("NAME")
      ->expected(1, CLI::detail::expected_max_vector_size);

  CommandLine result;
  if (auto server = environment.find("BULKHEAD_SERVER"); server != environment.end() && !server->second.empty()) {
    result.client.options.server = server->second;
  }
  std::string token_file;
  MigrateArguments migrate;
  LogsArguments logs;
  JobsArguments jobs;
  RunsArguments runs;
  EventsArguments events;
  SecretsArguments secrets;
  const auto each = [&](const auto& use) { use(jobs), use(runs), use(events), use(logs), use(migrate), use(secrets); };
  each([&](auto& arguments) { arguments.Add(app, result.client.options, token_file); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::string path;
    const CLI::App& named = Named(app, path);
    result.text = named.help(path.substr(0, path.size() - std::min(path.size(), named.get_name().size() + 1)));
    return result;
  } catch (const CLI::ParseError& error) {
    return Refused(app, error);
  }
  if (version_flag || version->parsed()) {
    result.command = Command::kVersion;
    result.text = "bulkhead " BULKHEAD_VERSION "\n";
    return result;
  }
  absl::Status misread;
  each([&](const auto& arguments) {
    if (!arguments.command->parsed()) return;
    result.command = Command::kClient;
    auto read = arguments.Read();
    if (read.ok()) {
      result.client.command = *std::move(read);
    } else {
      misread = read.status();
    }
  });
  if (result.command == Command::kClient) {
    RETURN_IF_ERROR(misread);
    ApplyClientDefaults(environment, is_root, cwd, token_file, result.client.options);
    return result;
  }
  if (!serve->parsed()) {
    result.text = app.help();
    return result;
  }
  std::map<std::string, std::string> options;
  for (const Setting& setting : Settings()) {
    if (serve->count(setting.option) > 0) options[setting.option] = values[setting.option];
  }
  auto config = MakeConfig(config_file, options, std::move(disable), environment, is_root, cwd);
  if (!config.ok()) return std::move(config).status();
  result.command = Command::kServe;
  result.config = *std::move(config);
  return result;
}

}  // namespace bulkhead
