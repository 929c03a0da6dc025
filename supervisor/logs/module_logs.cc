#include "supervisor/logs/module_logs.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/logs/log_follower.h"

namespace bulkhead {
namespace {

constexpr size_t kFollowPiece = 128;  // lines that a follower takes from memory at a time
constexpr int64_t kNoId = std::numeric_limits<int64_t>::max();

std::string FieldsText(const ModuleLine& line) {
  std::string text;
  for (const ModuleLine::Field& field : line.fields) {
    text += text.empty() ? '{' : ',';
    text += nlohmann::json(field.name).dump() + ":" + field.json;
  }
  return text.empty() ? text : text + "}";
}

int64_t IdOfTime(WallTime time) { return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count(); }

absl::Status TooManyReaders() { return Error("OVERLOADED", "Too many requests read logs at the moment. Try again soon."); }

}  // namespace

ModuleLogs::ModuleLogs(const Clock& clock, Options options)
    : clock_(clock),
      options_(std::move(options)),
      writer_(clock, options_.folder, options_.files),
      readers_(limits::kLogReaders, limits::kMaxQueuedLogReads) {
  mkdir(options_.folder.c_str(), 0700);  // the daemon has made it; whatever is wrong with it, the writer tells
  std::error_code error;
  for (std::filesystem::directory_iterator entry(options_.folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string module = entry->path().filename().string();
    logs_.try_emplace(module, Log{LogRing(LastOfLog(FolderOf(module))), {}});
  }
  deliverer_ = std::thread([this] { Deliver(); });
}

ModuleLogs::~ModuleLogs() { Close(); }

void ModuleLogs::Close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  news_.notify_one();
  if (deliverer_.joinable()) deliverer_.join();
  readers_.Shutdown();
  writer_.Close();
}

void ModuleLogs::Append(const Source& source, LogStream stream, ModuleLine line) {
  if (line.message.empty() && !line.structured) return;
  auto record = std::make_shared<LogRecord>();
  record->time = clock_.Wall();
  record->slot = source.slot;
  record->instance = source.instance;
  record->stream = stream;
  record->level = line.level;
  record->structured = line.structured;
  record->fields = FieldsText(line);
  record->message = std::move(line.message);
  {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    const auto log = logs_.try_emplace(std::string(source.module)).first;
    record->at = log->second.ring.Place(record->time);
    log->second.ring.Add(record);
    if (!log->second.followers.empty()) dirty_.insert(log->first);
    writer_.Add(log->first, record);
  }
  news_.notify_one();
}

// Wakes who waits for new lines: apart from whoever appends them, whose time is not theirs.
void ModuleLogs::Deliver() {
  std::unique_lock lock(mutex_);
  for (;;) {
    news_.wait(lock, [this] { return closing_ || !dirty_.empty(); });
    if (closing_) return;
    std::vector<std::shared_ptr<LogFollower>> awake;
    for (const std::string& module : std::exchange(dirty_, {})) {
      const auto log = logs_.find(module);
      if (log == logs_.end()) continue;
      std::erase_if(log->second.followers, [&](const std::weak_ptr<LogFollower>& weak) {
        auto follower = weak.lock();
        if (!follower) return true;
        if (std::exchange(follower->waiting_, false)) awake.push_back(std::move(follower));
        return false;
      });
    }
    lock.unlock();
    for (const auto& follower : awake) follower->Wake();
    awake.clear();
    lock.lock();
  }
}

void ModuleLogs::Find(LogQuery query, std::function<void(absl::StatusOr<LogPage>)> done) {
  if (!OnPool([this, query = std::move(query), done] { done(FindNow(query)); })) done(TooManyReaders());
}

LogCursor ModuleLogs::EndOf(const std::string& module) {
  std::lock_guard lock(mutex_);
  const auto log = logs_.find(module);
  return log == logs_.end() ? LogCursor() : log->second.ring.last();
}

LogPage ModuleLogs::FindNow(const LogQuery& query) {
  std::vector<RecordPtr> memory;
  int64_t older = 0;
  LogPage page;
  {
    std::lock_guard lock(mutex_);
    if (const auto log = logs_.find(query.module); log != logs_.end()) {
      memory.assign(log->second.ring.records().begin(), log->second.ring.records().end());
      older = log->second.ring.older();
      page.end = log->second.ring.last();
    }
  }
  if (query.count == 0) return page;
  const int64_t below = query.before ? query.before->id : kNoId;
  const size_t wanted = static_cast<size_t>(query.count) + 1;        // one more tells whether there are more
  const auto take = [&](RecordPtr record) {
    if (query.filter.Matches(*record)) page.lines.push_back(std::move(record));
    return page.lines.size() < wanted;
  };
  const int64_t files_below = std::min(memory.empty() ? kNoId : memory.front()->at.id, below);
  if (query.after) {
    LogFileReader files(FolderOf(query.module));
    int64_t at = query.after->id;
    bool room = true;
    if (at < older) writer_.AwaitWritten();  // what has left memory may still be on its way
    for (bool more = at < older && options_.files.files > 0; more && room;) {
      LogFileReader::Piece piece = files.Next(at);
      more = !piece.at_end;
      for (RecordPtr& record : piece.records) {
        at = record->at.id;
        if (at >= files_below) {
          more = false;
          break;
        }
        if (!(room = take(std::move(record)))) break;
      }
    }
    for (const RecordPtr& record : memory) {
      if (room && record->at.id > query.after->id && record->at.id < below) room = take(record);
    }
    page.more = page.lines.size() == wanted;
    if (page.more) page.lines.pop_back();
    return page;
  }
  // From the end on. What is older than an id can't be younger than the time in it.
  const int64_t first = query.filter.since ? IdOfTime(*query.filter.since) : 0;
  bool room = true;
  for (auto record = memory.rbegin(); record != memory.rend() && room; ++record) {
    if ((*record)->at.id < below) room = (*record)->at.id >= first && take(*record);
  }
  if (room && older > 0 && options_.files.files > 0) {
    writer_.AwaitWritten();
    ReadLogBackwards(FolderOf(query.module), files_below, [&](RecordPtr record) { return record->at.id >= first && take(std::move(record)); });
  }
  page.more = page.lines.size() == wanted;
  if (page.more) page.lines.pop_back();
  std::reverse(page.lines.begin(), page.lines.end());
  return page;
}

std::shared_ptr<LogFollower> ModuleLogs::Follow(LogFollow what, std::function<void()> wake) {
  const std::string module = what.module;
  std::shared_ptr<LogFollower> follower(new LogFollower(*this, std::move(what), std::move(wake)));
  {
    std::lock_guard lock(mutex_);
    auto& followers = logs_.try_emplace(module).first->second.followers;
    std::erase_if(followers, [](const std::weak_ptr<LogFollower>& weak) { return weak.expired(); });
    followers.push_back(follower);
  }
  follower->Begin();
  return follower;
}

ModuleLogs::InMemory ModuleLogs::After(LogFollower& follower, int64_t id) {
  std::lock_guard lock(mutex_);
  InMemory found;
  const auto log = logs_.find(follower.what_.module);
  if (log != logs_.end()) {
    found.older = log->second.ring.older();
    found.behind = id < found.older && options_.files.files > 0;
    if (!found.behind) found.records = log->second.ring.After(id, kFollowPiece);
  }
  if (!found.behind && found.records.empty()) follower.waiting_ = true;
  return found;
}

void ModuleLogs::Deleted(const std::string& module, bool purge, std::function<void(absl::Status)> done) {
  std::vector<std::shared_ptr<LogFollower>> followers;
  {
    std::lock_guard lock(mutex_);
    if (const auto log = logs_.find(module); log != logs_.end()) {
      for (const auto& weak : log->second.followers) {
        if (auto follower = weak.lock()) followers.push_back(std::move(follower));
      }
      log->second.followers.clear();
      if (purge) logs_.erase(log);
    }
  }
  for (const auto& follower : followers) follower->End(Error("MODULE_NOT_FOUND", "The module \"" + module + "\" has been deleted."));
  if (!purge) return done(absl::OkStatus());
  writer_.Remove(module, std::move(done));
}

}  // namespace bulkhead
