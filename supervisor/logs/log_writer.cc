#include "supervisor/logs/log_writer.h"

#include <utility>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"

namespace bulkhead {

LogWriter::LogWriter(const Clock& clock, std::string folder, LogFileLimits limits)
    : clock_(clock), folder_(std::move(folder)), limits_(limits), thread_([this] { Work(); }) {}

LogWriter::~LogWriter() { Close(); }

void LogWriter::Add(const std::string& module, RecordPtr record) {
  if (limits_.files == 0) return;
  {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    const size_t bytes = record->Bytes();
    if (queued_bytes_ + bytes > limits::kMaxUnwrittenLogs) {
      ++overflowed_;
      return;
    }
    queued_bytes_ += bytes;
    queue_.push_back({module, std::move(record), {}});
    ++added_;
  }
  wake_.notify_one();
}

void LogWriter::Remove(const std::string& module, std::function<void(absl::Status)> done) {
  {
    std::lock_guard lock(mutex_);
    if (!closing_) {
      queue_.push_back({module, nullptr, std::exchange(done, nullptr)});
      ++added_;
    }
  }
  if (done) return done(RemoveLogFiles(folder_ + "/" + module));
  wake_.notify_one();
}

void LogWriter::AwaitWritten() {
  std::unique_lock lock(mutex_);
  written_.wait_for(lock, limits::kLogWriteWait, [this, wanted = added_] { return done_ >= wanted; });
}

void LogWriter::Close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void LogWriter::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::deque<Item> batch = std::exchange(queue_, {});
    const size_t items = batch.size(), bytes = queued_bytes_, overflowed = std::exchange(overflowed_, 0);
    lock.unlock();
    WriteBatch(std::move(batch), overflowed);
    lock.lock();
    done_ += items;
    written_.notify_all();
    queued_bytes_ -= bytes;  // they count until they are written: a disk that hangs holds no more than the limit
  }
}

void LogWriter::WriteBatch(std::deque<Item> batch, size_t overflowed) {
  if (overflowed > 0)
    LogWarn("logs", "the disk is too slow for what modules print: lines are not in the files", {{"lines", std::to_string(overflowed)}});
  std::map<std::string, std::vector<RecordPtr>> by_module;
  const auto write = [&] {
    for (const auto& [module, records] : by_module) Write(module, records);
    by_module.clear();
  };
  for (Item& item : batch) {
    if (item.record) {
      by_module[item.module].push_back(std::move(item.record));
      continue;
    }
    by_module.erase(item.module);
    write();  // who hears of the removal may rely on all that came before it
    if (const auto target = targets_.find(item.module); target != targets_.end()) {
      if (target->second.failing) --failing_;
      targets_.erase(target);
    }
    item.removed(RemoveLogFiles(folder_ + "/" + item.module));
  }
  write();
}

void LogWriter::Write(const std::string& module, const std::vector<RecordPtr>& records) {
  Target& target = targets_.try_emplace(module, LogFileWriter(folder_ + "/" + module, limits_)).first->second;
  size_t written = 0;
  if (!target.failing || clock_.Now() >= target.retry_at) {
    const absl::Status status = target.files.Append(records, written);
    if (!status.ok()) {
      Failed(module, target, status);
    } else if (std::exchange(target.failing, false) && --failing_ == 0) {
      LogInfo("logs", "the logs of modules are written to files again", {{"lines_left_out", std::to_string(std::exchange(lost_, 0))}});
    }
  }
  lost_ += records.size() - written;
}

void LogWriter::Failed(const std::string& module, Target& target, const absl::Status& why) {
  target.retry_at = clock_.Now() + limits::kLogFileRetry;
  if (std::exchange(target.failing, true)) return;
  // One disk has one fault: it is told once, however many modules it concerns.
  if (failing_++ > 0) return;
  LogWarn("logs", "the log of a module can't be written to its file; new lines are in memory alone, and it is tried again",
          {{"module", module}, {"reason", std::string(why.message())}});
}

}  // namespace bulkhead
