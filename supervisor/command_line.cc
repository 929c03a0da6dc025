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
    "with --development true, else production).\n"
    "Ctrl-C or SIGTERM stops the modules in order, then the supervisor, within 30 seconds.\n";

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back("--" + option->get_single_name());
  return names;
}

// CLI11's complaint as a sentence, with the nearest option or command for something that it did not expect.
absl::Status Refused(const CLI::App& app, const CLI::App& serve, const CLI::ParseError& error) {
  const bool in_serve = serve.parsed();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    std::vector<std::string> extras = app.remaining(true);
    const std::string extra = extras.empty() ? "" : extras.front().substr(0, extras.front().find('='));
    const bool option = !extra.empty() && extra[0] == '-';
    const std::string hint = option     ? DidYouMean(extra, OptionNames(in_serve ? serve : app))
                             : in_serve ? ""
                                        : DidYouMean(extra, {"serve", "version"});
    return Error("CONFIG_INVALID", absl::StrCat(option     ? "Unknown option "
                                                : in_serve ? "Unexpected argument "
                                                           : "Unknown command ",
                                                extra, ".", hint,
                                                in_serve ? " `bulkhead serve --help` lists the options."
                                                         : " `bulkhead --help` lists the commands."));
  }
  return Error("CONFIG_INVALID",
               absl::StrCat(error.what(), ". `bulkhead ", in_serve ? "serve " : "", "--help` says what is expected."));
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv,
                                             const std::map<std::string, std::string>& environment, bool is_root,
                                             const std::string& cwd) {
  CLI::App app("Bulkhead runs an application as modules, each in a process of its own.", "bulkhead");
  app.require_subcommand(0, 1);
  app.set_help_flag("-h,--help", "what there is");
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.text = serve->parsed() ? serve->help("bulkhead") : version->parsed() ? version->help("bulkhead") : app.help();
    return result;
  } catch (const CLI::ParseError& error) {
    return Refused(app, *serve, error);
  }
  if (version_flag || version->parsed()) {
    result.command = Command::kVersion;
    result.text = "bulkhead " BULKHEAD_VERSION "\n";
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
