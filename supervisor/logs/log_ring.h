// The last lines of one module in memory, at most limits::kLogRingLines of limits::kLogRingBytes; and the places that lines get. Not
// thread-safe.
#pragma once

#include <deque>
#include <vector>

#include "supervisor/logs/log_record.h"

namespace bulkhead {

class LogRing {
 public:
  // `last`: the place of the last line that there was before; {} for none.
  explicit LogRing(LogCursor last = {}) : last_(last), older_(last.id) {}

  // The place for a line of that time. Each call is a line.
  LogCursor Place(WallTime time);
  void Add(RecordPtr record);

  LogCursor last() const { return last_; }
  // The id of the newest line that is not here any more, or was not here yet; 0: there is none.
  int64_t older() const { return older_; }
  const std::deque<RecordPtr>& records() const { return records_; }
  // Those behind `id`, the oldest ones when there are more than `at_most`.
  std::vector<RecordPtr> After(int64_t id, size_t at_most) const;

 private:
  std::deque<RecordPtr> records_;
  size_t bytes_ = 0;
  LogCursor last_;
  int64_t older_;
};

}  // namespace bulkhead
