// A module is one class and one line:
//
//   class Greeter : public bulkhead::sdk::Module {
//    public:
//     void Initialize(bulkhead::sdk::Context& context) override {
//       context.router().Get("/hello/:name", [](bulkhead::sdk::Request& request) {
//         return bulkhead::sdk::Ok({{"hello", request.param("name")}});
//       });
//     }
//   };
//   int main(int argc, char** argv) { return bulkhead::sdk::Run<Greeter>(argc, argv); }
//
// The supervisor starts the process and calls Initialize, Start, … Stop, in this order, once each and never two at a time, on
// one control thread; a long call delays no request, job or health check.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bulkhead/context.h"

namespace bulkhead::sdk {

class Module {
 public:
  virtual ~Module() = default;

  // Registers routes, jobs, checks; checks the configuration. The database may be used; nothing is served yet. Throwing ends the
  // start: ConfigError as "configuration is wrong" (not retried), anything else as a failed attempt.
  virtual void Initialize(Context& context) = 0;
  // Starts what the module runs by itself (threads, caches). When it returns, requests and jobs come. May throw as Initialize.
  virtual void Start() {}
  // Requests and jobs are over (or given up). Joins the module's own threads before `deadline`, after which the process is
  // killed. The database is still open. Not called when Initialize failed.
  virtual void Stop(std::chrono::steady_clock::time_point deadline) {}

  // After the registered checks, with their worst status: a module that knows better may return another. Bounded like a check.
  virtual HealthResult Health(HealthStatus worst) { return {worst, ""}; }
  // Adds to `custom` beyond counters and gauges. Any thread; must not block.
  virtual void Metrics(std::map<std::string, double>& custom) {}

  // A changed configuration while running. nullopt: applied, and Context::config() answers the new one from then on. A sentence:
  // refused, and the old one stays in force, here and in the registry. At most 10 s. Not called when the manifest says
  // `configReload: restart`: then the module is started anew with it.
  virtual std::optional<std::string> OnConfigure(const Json& config, int64_t revision) {
    return "this module takes a new configuration only when it is started";
  }

  // Feature flags have changed, by name of their environment variables (FEATURE_FLAG_…); Context::flag() answers the new ones. Between
  // Start and Stop, on a thread of its own; never two at a time. What is thrown is logged.
  virtual void OnFlags(const std::vector<std::string>& changed) {}
};

// Runs a module until the supervisor lets it go; what main returns: 0 after a stop, 125 for a wrong configuration, 2 when not
// started by a supervisor, 1 for any other failure. SIGTERM stops as Stop does, SIGINT is left to the supervisor.
int RunModule(std::unique_ptr<Module> module, int argc, char** argv);

template <class M>
int Run(int argc, char** argv) {
  return RunModule(std::make_unique<M>(), argc, argv);
}

}  // namespace bulkhead::sdk
