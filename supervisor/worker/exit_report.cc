#include "supervisor/worker/exit_report.h"

#include <signal.h>

#include <cstring>
#include <string>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

constexpr int kConfigExitCode = 125;  // EX of the contract: configuration, do not retry

bool AsksForAnEnd(int signal) { return signal == SIGHUP || signal == SIGINT || signal == SIGTERM || signal == SIGPIPE; }
bool TellsOfALimit(int signal) { return signal == SIGXCPU || signal == SIGXFSZ; }

WorkerExit OfMemory(int64_t limit) {
  return {WorkerEnd::kOom, "killed by the kernel for lack of memory" +
                               (limit > 0 ? ": its limit of " + std::to_string(limit) + " bytes was reached" : std::string())};
}

WorkerExit OfSignal(const ProcessExit& exit) {
  WorkerExit report{TellsOfALimit(exit.signal) ? WorkerEnd::kLimit : WorkerEnd::kSignal,
                    "ended by signal " + std::to_string(exit.signal) + " (" + strsignal(exit.signal) + ")" + (exit.core_dumped ? ", core dumped" : "")};
  report.orderly = AsksForAnEnd(exit.signal);
  return report;
}

WorkerExit OfCode(int code, bool after_handshake) {
  WorkerExit report{WorkerEnd::kExit, "exited with code " + std::to_string(code) + (after_handshake ? "" : " before the handshake")};
  report.orderly = code == 0;
  if (code == kConfigExitCode) {
    report.end = WorkerEnd::kConfig;
    report.message += ", which says that its configuration is wrong: it is not started again before something changes";
  } else if (!after_handshake) {
    report.end = WorkerEnd::kHandshake;
    report.code = "HANDSHAKE_EXIT";
  }
  return report;
}

// One that failed after the kernel had refused it a process or a thread: whatever it says, that is the likely reason.
void BlameForkLimit(const ProcessExit& exit, int64_t limit, WorkerExit& report) {
  const bool by_itself = report.end == WorkerEnd::kExit || report.end == WorkerEnd::kSignal || report.end == WorkerEnd::kHandshake;
  if (exit.forks_refused == 0 || !by_itself || report.orderly) return;
  report.end = WorkerEnd::kLimit;
  report.code.clear();
  report.message += " after the kernel had refused it a process or thread " + std::to_string(exit.forks_refused) + " times: its limit of " +
                    std::to_string(limit) + " (limits.pids) was reached";
}

}  // namespace

WorkerExit ExitOf(const ProcessExit& exit, const Manifest& manifest, bool after_handshake) {
  WorkerExit report = exit.oom_killed    ? OfMemory(manifest.limit_memory)
                      : exit.signal != 0 ? OfSignal(exit)
                                         : OfCode(exit.exit_code, after_handshake);
  BlameForkLimit(exit, manifest.limit_pids > 0 ? manifest.limit_pids : limits::kModulePids, report);
  return report;
}

}  // namespace bulkhead
