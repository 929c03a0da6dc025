#include "supervisor/logs/log_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLogSuffix = ".log";
constexpr size_t kIdDigits = 16;
constexpr size_t kLogBlock = 256 * 1024;      // of one read
constexpr size_t kMaxFileLine = 1 << 20;      // longer than any that we write; what is longer is not ours

std::string LogFileName(int64_t id) {
  char name[32];
  snprintf(name, sizeof name, "%016lld.log", static_cast<long long>(id));
  return name;
}

std::string PathOf(const std::string& folder, int64_t id) { return folder + "/" + LogFileName(id); }

UniqueFd OpenToRead(const std::string& folder, int64_t id) {
  return UniqueFd(open(PathOf(folder, id).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

// Reads until the block is full or the file ends.
size_t ReadBlock(int fd, char* into, size_t size, int64_t at) {
  size_t got = 0;
  while (got < size) {
    const ssize_t n = pread(fd, into + got, size - got, at + static_cast<int64_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  return got;
}

RecordPtr ParseRecord(std::string_view line) {
  auto record = FromFileLine(line);
  return record ? std::make_shared<const LogRecord>(*std::move(record)) : nullptr;
}

// Lines of one file from its end; false: enough.
bool ReadFileBackwards(int fd, int64_t before, const std::function<bool(RecordPtr)>& take) {
  struct stat info;
  if (fstat(fd, &info) != 0) return true;
  int64_t end = info.st_size;
  std::string tail, block;  // `tail`: the beginning of what follows, whose first line is not whole yet
  while (end > 0) {
    const size_t size = static_cast<size_t>(std::min<int64_t>(kLogBlock, end));
    block.resize(size);
    if (ReadBlock(fd, block.data(), size, end - static_cast<int64_t>(size)) != size) return true;
    end -= static_cast<int64_t>(size);
    block += tail;
    size_t stop = block.size();  // behind the line that is looked at
    if (end + static_cast<int64_t>(size) == info.st_size) stop = block.rfind('\n') == std::string::npos ? 0 : block.rfind('\n') + 1;
    while (stop > 0) {
      const size_t start = stop < 2 ? std::string::npos : block.rfind('\n', stop - 2);
      if (start == std::string::npos && end > 0) break;  // its beginning is in the block before
      const size_t from = start == std::string::npos ? 0 : start + 1;
      const std::string_view line(block.data() + from, stop - 1 - from);
      const auto id = IdOfFileLine(line);
      if (id && *id < before) {
        if (RecordPtr record = ParseRecord(line); record && !take(std::move(record))) return false;
      }
      stop = from;
    }
    tail = block.substr(0, stop);
    if (tail.size() > kMaxFileLine) tail.clear();
  }
  return true;
}

}  // namespace

std::vector<int64_t> ListLogFiles(const std::string& folder) {
  std::vector<int64_t> ids;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    int64_t id = 0;
    if (name.size() < kIdDigits + kLogSuffix.size() || !name.ends_with(kLogSuffix)) continue;
    const char* stop = name.data() + name.size() - kLogSuffix.size();
    if (const auto [read, wrong] = std::from_chars(name.data(), stop, id); wrong == std::errc() && read == stop && id >= 0) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::Status LogFileWriter::Append(const std::vector<RecordPtr>& records, size_t& written) {
  written = 0;
  std::string pending;
  size_t lines = 0;
  const auto flush = [&]() -> absl::Status {
    if (absl::Status status = Write(pending); !status.ok()) return status;
    written += std::exchange(lines, 0);
    pending.clear();
    return absl::OkStatus();
  };
  for (const RecordPtr& record : records) {
    std::string line = ToFileLine(*record);
    if (fd_ && size_ + static_cast<int64_t>(pending.size() + line.size()) > limits_.bytes) {
      if (absl::Status status = flush(); !status.ok()) return status;
    }
    if (absl::Status status = OpenFor(*record, pending.size() + line.size()); !status.ok()) return status;
    pending += line;
    ++lines;
  }
  return flush();
}

// Leaves a file open that has room for so many bytes.
absl::Status LogFileWriter::OpenFor(const LogRecord& record, size_t size) {
  if (!fd_) {
    if (mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, folder_);
    const std::vector<int64_t> files = ListLogFiles(folder_);
    if (files.empty()) return Begin(record.at.id);
    const std::string path = PathOf(folder_, files.back());
    fd_.Reset(open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW));
    struct stat info;
    if (!fd_ || fstat(fd_.get(), &info) != 0) return ErrnoStatus(errno, path);
    size_ = info.st_size;
    // A line that was cut off, by the end of the daemon or of the disk, stays a line of its own, which nobody reads.
    char last = '\n';
    if (size_ > 0 && pread(fd_.get(), &last, 1, size_ - 1) == 1 && last != '\n') {
      if (absl::Status status = Write("\n"); !status.ok()) return status;
    }
  }
  return size_ > 0 && size_ + static_cast<int64_t>(size) > limits_.bytes ? Begin(record.at.id) : absl::OkStatus();
}

absl::Status LogFileWriter::Begin(int64_t id) {
  std::vector<int64_t> files = ListLogFiles(folder_);
  // Room first: at no time there are more than may be.
  for (size_t i = 0; i + static_cast<size_t>(limits_.files) <= files.size(); ++i) {
    const std::string path = PathOf(folder_, files[i]);
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, path);
  }
  const std::string path = PathOf(folder_, id);
  fd_.Reset(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  size_ = 0;
  return fd_ ? absl::OkStatus() : ErrnoStatus(errno, path);
}

absl::Status LogFileWriter::Write(std::string_view lines) {
  size_t done = 0;
  while (done < lines.size()) {
    const ssize_t n = write(fd_.get(), lines.data() + done, lines.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const absl::Status status = ErrnoStatus(n < 0 ? errno : ENOSPC, folder_);
      if (ftruncate(fd_.get(), size_) != 0) {
        // The rest of a line stays, and the next file is opened behind it.
      }
      fd_.Reset();
      return status;
    }
    done += static_cast<size_t>(n);
  }
  size_ += static_cast<int64_t>(lines.size());
  return absl::OkStatus();
}

// The file in which the line behind `after` is, when none is open: the last one that begins at or before it, else the first. Then the ones
// that follow.
bool LogFileReader::Open(int64_t after) {
  const std::vector<int64_t> files = ListLogFiles(folder_);
  auto next = std::upper_bound(files.begin(), files.end(), file_ < 0 ? after : file_);
  if (file_ < 0 && next != files.begin()) --next;
  for (; next != files.end(); ++next) {
    UniqueFd opened = OpenToRead(folder_, *next);
    if (!opened) continue;  // removed meanwhile
    fd_ = std::move(opened);
    file_ = *next;
    at_ = 0;
    rest_.clear();
    last_look_ = false;
    return true;
  }
  return false;
}

LogFileReader::Piece LogFileReader::Next(int64_t after) {
  Piece piece;
  std::string block(kLogBlock, '\0');
  while (fd_ || Open(after)) {
    const size_t got = ReadBlock(fd_.get(), block.data(), block.size(), at_);
    at_ += static_cast<int64_t>(got);
    rest_.append(block, 0, got);
    size_t from = 0;
    for (size_t end; (end = rest_.find('\n', from)) != std::string::npos; from = end + 1) {
      const std::string_view line(rest_.data() + from, end - from);
      const auto id = IdOfFileLine(line);
      if (!id || *id <= after) continue;
      if (RecordPtr record = ParseRecord(line)) piece.records.push_back(std::move(record));
    }
    rest_.erase(0, from);
    if (rest_.size() > kMaxFileLine) rest_.clear();
    if (!piece.records.empty()) return piece;
    if (got == block.size()) continue;
    // Its end. While there is none behind it, it may still grow; where there is one, it may have grown before that was begun: a last look.
    const std::vector<int64_t> files = ListLogFiles(folder_);
    if (files.empty() || files.back() <= file_) break;
    if (std::exchange(last_look_, true) && !Open(after)) break;
  }
  piece.at_end = piece.records.empty();
  return piece;
}

void ReadLogBackwards(const std::string& folder, int64_t before, const std::function<bool(RecordPtr)>& take) {
  std::vector<int64_t> files = ListLogFiles(folder);
  for (auto id = files.rbegin(); id != files.rend(); ++id) {
    if (*id >= before) continue;
    const UniqueFd fd = OpenToRead(folder, *id);
    if (fd && !ReadFileBackwards(fd.get(), before, take)) return;
  }
}

LogCursor LastOfLog(const std::string& folder) {
  LogCursor last;
  ReadLogBackwards(folder, std::numeric_limits<int64_t>::max(), [&](const RecordPtr& record) {
    last = record->at;
    return false;
  });
  return last;
}

absl::Status RemoveLogFiles(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  return error ? ErrnoStatus(error.value(), folder) : absl::OkStatus();
}

}  // namespace bulkhead
