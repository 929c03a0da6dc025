#include "supervisor/jobs/mailbox.h"

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxProgressMessage = 1'024;
constexpr size_t kMaxErrorCode = 64;
constexpr size_t kMaxErrorStack = 64 * 1'024;
constexpr int64_t kSeqPerAttempt = 2'000;
static_assert(limits::kMaxRunLogLines + 1 < kSeqPerAttempt);

std::string_view RunLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarn: return "warn";
    case LogLevel::kError: return "error";
  }
  return "info";
}

}  // namespace

std::string Clip(std::string_view text, size_t max_bytes) {
  constexpr size_t kLongestCharacter = 4;  // cut before the rest is looked at: a hostile text may have megabytes
  return std::string(CutUtf8(ValidUtf8(text.substr(0, max_bytes + kLongestCharacter)), max_bytes));
}

RunMailbox::RunMailbox(const Clock& clock, std::string module, std::string job, std::string run_id, int64_t fence,
                       std::function<void()> wake)
    : clock_(clock), component_("module/" + module), job_(std::move(job)), run_id_(std::move(run_id)), fence_(fence), wake_(std::move(wake)) {}

void RunMailbox::Put(const module::v1::RunJobUpdate& update) {
  if (update.has_log()) return WriteLog(update.log());
  const bool wake = state_.With([&](State& state) {
    if (state.ended) return false;
    switch (update.update_case()) {
      case module::v1::RunJobUpdate::kProgress:
        state.news.progress = update.progress();
        state.news.progress->set_message(Clip(update.progress().message(), kMaxProgressMessage));
        break;
      case module::v1::RunJobUpdate::kResult:
        state.ended = true;
        state.news.result_too_large = update.result().result_json().size() > limits::kMaxJobPayload;
        state.news.result_json = state.news.result_too_large ? "" : update.result().result_json();
        break;
      case module::v1::RunJobUpdate::kError:
        state.ended = true;
        state.news.error = update.error();
        state.news.error->set_code(Clip(update.error().code(), kMaxErrorCode));
        state.news.error->set_message(Clip(update.error().message(), limits::kMaxErrorMessage));
        state.news.error->set_stack(Clip(update.error().stack(), kMaxErrorStack));
        break;
      case module::v1::RunJobUpdate::kLog:
      case module::v1::RunJobUpdate::UPDATE_NOT_SET: return false;
    }
    // The end of the call follows its last word at once, and wakes.
    return !state.ended && !std::exchange(state.woken, true);
  });
  if (wake) wake_();
}

RunMailbox::News RunMailbox::Take() {
  return state_.With([](State& state) {
    state.woken = false;
    News news = state.news;
    state.news.progress.reset();
    state.news.lines.clear();
    return news;
  });
}

void RunMailbox::WriteLog(const module::v1::JobLog& log) {
  const Instant now = clock_.Now();
  int64_t dropped = 0;
  const bool write = state_.With([&](State& state) {
    if (now - state.second >= std::chrono::seconds(1)) {
      state.second = now;
      state.lines = 0;
      dropped = std::exchange(state.dropped, 0);
    }
    if (state.lines >= limits::kLogLinesPerSecond) {
      ++state.dropped;
      return false;
    }
    ++state.lines;
    return true;
  });
  if (dropped > 0)
    LogWarn(component_, "log lines of a job were left out", {{"run", run_id_}, {"lines", std::to_string(dropped)}});
  LogLevel level = LogLevel::kInfo;
  ParseLogLevel(log.level(), level);  // an unknown one is logged as info
  const std::string message = Clip(log.message(), limits::kMaxLogLine);
  if (write) Log(level, component_, message, {{"job", job_}, {"run", run_id_}});
  if (Keep(level, message)) wake_();
}

bool RunMailbox::Keep(LogLevel level, const std::string& message) {
  return state_.With([&](State& state) {
    if (state.ended || state.kept > limits::kMaxRunLogLines) return false;
    const bool last = ++state.kept > limits::kMaxRunLogLines;
    state.news.lines.push_back({fence_ * kSeqPerAttempt + state.kept, clock_.Wall(), std::string(last ? "warn" : RunLevelName(level)),
                                last ? "What the run says beyond this is not kept." : message});
    return !std::exchange(state.woken, true);
  });
}

void RunMailbox::Close() {
  const int64_t dropped = state_.With([](State& state) { return std::exchange(state.dropped, 0); });
  if (dropped > 0)
    LogWarn(component_, "log lines of a job were left out", {{"run", run_id_}, {"lines", std::to_string(dropped)}});
}

}  // namespace bulkhead
