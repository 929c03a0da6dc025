// The files of one module's log: lines of JSON in <folder>/<id of the first line, 16 digits>.log, so that their names are in the order of
// time. One writer; any number of readers, who take what is there at the moment, and skip what is no whole line of ours. Everything blocks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/base/fd.h"
#include "supervisor/logs/log_record.h"

namespace bulkhead {

struct LogFileLimits {
  int files = 0;
  int64_t bytes = 0;  // of each
};

class LogFileWriter {
 public:
  // Nothing is made before the first line.
  LogFileWriter(std::string folder, LogFileLimits limits) : folder_(std::move(folder)), limits_(limits) {}
  // Appends what fits and begins a new file for the rest; the oldest goes first. Of what it could not write nothing is left in the file, and
  // the next call tries anew. `written` counts whole lines, whatever the status is.
  absl::Status Append(const std::vector<RecordPtr>& records, size_t& written);

 private:
  absl::Status OpenFor(const LogRecord& record, size_t size);
  absl::Status Begin(int64_t id);
  absl::Status Write(std::string_view lines);
  const std::string folder_;
  const LogFileLimits limits_;
  UniqueFd fd_;
  int64_t size_ = 0;
};

// Reads on from a place, piece by piece, while lines are appended and files come and go.
class LogFileReader {
 public:
  explicit LogFileReader(std::string folder) : folder_(std::move(folder)) {}
  struct Piece {
    std::vector<RecordPtr> records;
    bool at_end = false;  // there are no more now
  };
  // The next lines whose ids are above `after`; about 256 KiB of them. `after` grows from call to call.
  Piece Next(int64_t after);

 private:
  bool Open(int64_t after);
  const std::string folder_;
  UniqueFd fd_;
  int64_t file_ = -1;  // the id in its name
  int64_t at_ = 0;     // offset of the next line
  std::string rest_;   // read, and no whole line yet
  bool last_look_ = false;  // a file behind this one was there before it was read to its end
};

// From the newest line whose id is below `before` backwards, until `take` answers false or there are no more.
void ReadLogBackwards(const std::string& folder, int64_t before, const std::function<bool(RecordPtr)>& take);
// The last line of all; {} when there is none.
LogCursor LastOfLog(const std::string& folder);
// Ids in the names of the files, in order.
std::vector<int64_t> ListLogFiles(const std::string& folder);
// Removes the folder with all that is in it.
absl::Status RemoveLogFiles(const std::string& folder);

}  // namespace bulkhead
