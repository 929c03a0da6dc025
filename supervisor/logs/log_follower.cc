#include "supervisor/logs/log_follower.h"

#include <algorithm>

#include "supervisor/base/status.h"

namespace bulkhead {

LogFollower::LogFollower(ModuleLogs& logs, LogFollow what, std::function<void()> wake)
    : logs_(logs), what_(std::move(what)), wake_(std::move(wake)) {}

void LogFollower::Begin() {
  // Where new ones begin is known from now on: who is told that he follows misses none.
  const LogCursor end = logs_.EndOf(what_.module);
  std::unique_lock lock(mutex_);
  if (what_.after || what_.tail == 0) {
    at_ = what_.after.value_or(end);
    return;
  }
  horizon_ = end;
  reading_ = true;
  lock.unlock();
  const bool queued = logs_.OnPool([weak = weak_from_this(), &logs = logs_, end] {
    auto follower = weak.lock();
    if (!follower) return;
    const LogFollow& what = follower->what_;
    follower->Found(logs.FindNow({.module = what.module, .filter = what.filter, .count = what.tail, .before = LogCursor{end.id + 1, 0}}));
  });
  if (!queued) End(Error("OVERLOADED", "Too many requests read logs at the moment. Try again soon."));
}

void LogFollower::Found(LogPage page) {
  {
    std::lock_guard lock(mutex_);
    backlog_.assign(page.lines.begin(), page.lines.end());
    selected_ = true;
    reading_ = false;
  }
  Wake();
}

void LogFollower::Read() {
  const bool queued = logs_.OnPool([weak = weak_from_this()] {
    auto follower = weak.lock();
    if (!follower) return;
    follower->logs_.writer_.AwaitWritten();  // what has left memory may still be on its way
    LogFileReader* files;
    int64_t after;
    {
      std::lock_guard lock(follower->mutex_);
      if (!follower->files_) follower->files_ = std::make_unique<LogFileReader>(follower->logs_.FolderOf(follower->what_.module));
      files = follower->files_.get();
      after = follower->at_.id;
    }
    LogFileReader::Piece piece = files->Next(after);
    {
      std::lock_guard lock(follower->mutex_);
      follower->backlog_.assign(piece.records.begin(), piece.records.end());
      if (piece.at_end) {
        // What is not there now, and not in memory any more, is nowhere.
        follower->horizon_ = LogCursor{follower->older_, 0};
        follower->files_.reset();
      }
      follower->reading_ = false;
    }
    follower->Wake();
  });
  if (!queued) End(Error("OVERLOADED", "Too many requests read logs at the moment. Try again soon."));
}

void LogFollower::Wake() { wake_(); }

void LogFollower::End(absl::Status why) {
  {
    std::lock_guard lock(mutex_);
    if (!ended_) ended_ = std::move(why);
  }
  Wake();
}

// The next line of the backlog that is wanted, or that some are missing before it.
std::optional<LogFollower::Event> LogFollower::FromBacklog() {
  while (!backlog_.empty()) {
    const RecordPtr line = backlog_.front();
    if (line->at.id <= at_.id) {
      backlog_.pop_front();  // in the files and in memory
      continue;
    }
    const int64_t missing = at_.number > 0 && !selected_ ? line->at.number - at_.number - 1 : 0;
    if (missing > 0) {
      at_ = {line->at.id - 1, line->at.number - 1};
      return Event{.kind = Event::Kind::kMissed, .missed = missing, .cursor = at_};
    }
    backlog_.pop_front();
    at_ = line->at;
    if (what_.filter.Matches(*line)) return Event{.kind = Event::Kind::kLine, .line = line, .cursor = line->at};
  }
  if (horizon_ && !reading_) {
    at_ = horizon_->number > 0 ? *horizon_ : LogCursor{std::max(at_.id, horizon_->id), at_.number};
    horizon_.reset();
    selected_ = false;
  }
  return std::nullopt;
}

LogFollower::Event LogFollower::Next() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (ended_) return Event{.kind = Event::Kind::kEnded, .status = *ended_};
    if (auto event = FromBacklog()) return *std::move(event);
    if (reading_) return {};
    const int64_t at = at_.id;
    lock.unlock();
    ModuleLogs::InMemory found = logs_.After(*this, at);
    lock.lock();
    if (ended_) continue;
    if (found.behind) {
      older_ = found.older;
      reading_ = true;
      lock.unlock();
      Read();
      lock.lock();
      continue;
    }
    if (found.records.empty()) return {};
    files_.reset();
    backlog_.assign(found.records.begin(), found.records.end());
  }
}

}  // namespace bulkhead
