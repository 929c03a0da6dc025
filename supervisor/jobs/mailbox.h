// What a module says during one run, on its way from gRPC's threads to the control loop: bounded, coalesced, and woken at
// most once at a time, however fast the module talks. Log lines go to the supervisor's log from here, limited per second, and are kept for the run,
// limits::kMaxRunLogLines of an attempt.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/module/v1/module.pb.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/log.h"
#include "supervisor/jobs/run_store.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxErrorMessage = 8 * 1'024;  // bytes of it that are kept
}  // namespace limits

class RunMailbox {
 public:
  struct News {
    std::optional<module::v1::JobProgress> progress;  // the latest
    std::optional<std::string> result_json;           // the first of result and error counts
    std::optional<module::v1::JobError> error;
    bool result_too_large = false;
    std::vector<RunLogLine> lines;  // since the last Take()
    bool ended() const { return result_json || error; }
  };

  // `wake` is called (any thread) when there is news after Take(); it must not call back.
  RunMailbox(const Clock& clock, std::string module, std::string job, std::string run_id, int64_t fence, std::function<void()> wake);

  void Put(const module::v1::RunJobUpdate& update);  // any thread
  News Take();                                       // any thread
  void Close();                                      // says how many log lines were left out

 private:
  struct State {
    News news;
    bool woken = false;
    bool ended = false;  // result or error came; what follows is ignored
    Instant second{};    // in which lines_ were logged
    int lines = 0;
    int64_t dropped = 0;
    int kept = 0;            // lines of the run
  };
  void WriteLog(const module::v1::JobLog& log);
  bool Keep(LogLevel level, const std::string& message);  // whether to wake

  const Clock& clock_;
  const std::string component_, job_, run_id_;
  const int64_t fence_;
  const std::function<void()> wake_;
  Guarded<State> state_;
};

// At most `max_bytes` of `text` as UTF-8 without NUL, which is all that PostgreSQL's text holds.
std::string Clip(std::string_view text, size_t max_bytes);

}  // namespace bulkhead
