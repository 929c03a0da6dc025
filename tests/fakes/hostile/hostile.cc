// A module that has been taken over: it serves as it should, and does whatever it is told to with the rights that a module has. The attempts
// themselves are attempts.py, a program beside it that it starts as any module starts programs; tests/integration/isolation_test.py tells which.
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatience{90'000};
constexpr size_t kPrinted = 100;  // bytes of a line

std::string program_folder;

// What the program printed, and how it ended: {"exit": 0, "signal": 0, "output": "…"}.
Json RunProgram(const std::vector<std::string>& argv) {
  int ends[2];
  if (pipe(ends) != 0) return {{"exit", -1}, {"signal", 0}, {"output", "no pipe"}};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::vector<char*> pointers;
  for (const std::string& one : argv) pointers.push_back(const_cast<char*>(one.c_str()));
  pointers.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0].c_str(), &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  const auto until = steady_clock::now() + kPatience;
  for (char buffer[4096]; error == 0;) {
    pollfd readable{ends[0], POLLIN, 0};
    const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now()).count();
    if (left <= 0 || poll(&readable, 1, int(left)) == 0) {
      kill(pid, SIGKILL);
      output += "not within its time";
      break;
    }
    const ssize_t n = read(ends[0], buffer, sizeof buffer);
    if (n <= 0) break;
    output.append(buffer, size_t(n));
  }
  close(ends[0]);
  int status = 0;
  if (error == 0) waitpid(pid, &status, 0);
  const int exit_code = error != 0 ? -error : WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return {{"exit", exit_code}, {"signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0}, {"output", output}};
}

class Hostile : public Module {
 public:
  void Initialize(Context& context) override {
    Router& router = context.router();
    // {"attempt": "connect_tcp", "with": {…}}
    router.Post("/attempt", [](Request& request) {
      const Json what = request.json();
      return Ok(RunProgram({"/usr/bin/python3", "-B", program_folder + "/attempts.py", what.at("attempt").get<std::string>(), what.at("with").dump()}));
    });
    // {"sql": "SET ROLE other"}, as the module's own role
    router.Post("/sql", [&context](Request& request) {
      try {
        context.database().Query(request.json().at("sql").get<std::string>());
        return Ok({{"done", true}, {"how", ""}});
      } catch (const DatabaseError& error) {
        return Ok({{"done", false}, {"how", error.sqlstate() + " " + error.what()}});
      }
    });
    // {"module": "other", "path": "/x"}, with its own token
    router.Post("/call", [&context](Request& request) {
      const Json told = request.json();
      const CallAnswer answer = context.modules(told.at("module").get<std::string>()).Get(told.at("path").get<std::string>());
      return Ok({{"done", answer.status < 400}, {"how", "HTTP " + std::to_string(answer.status) + " " + answer.body.substr(0, 200)}});
    });
    // {"lines": 100000}
    router.Post("/print", [](Request& request) {
      const std::string line = "hostile " + std::string(kPrinted, 'x') + "\n";
      for (int64_t left = request.json().at("lines").get<int64_t>(); left > 0; --left) fputs(line.c_str(), stdout);
      fflush(stdout);
      return Ok({{"done", true}, {"how", ""}});
    });
  }
};

}  // namespace

int main(int argc, char** argv) {
  program_folder = std::filesystem::path(argv[0]).parent_path().string();
  return Run<Hostile>(argc, argv);
}
