#include "supervisor/logs/log_ring.h"

#include <algorithm>

#include "supervisor/base/limits.h"

namespace bulkhead {

LogCursor LogRing::Place(WallTime time) {
  const int64_t now = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  last_ = {std::max(last_.id + 1, now), last_.number + 1};
  return last_;
}

void LogRing::Add(RecordPtr record) {
  bytes_ += record->Bytes();
  records_.push_back(std::move(record));
  // The newest stays, however long it is.
  while (records_.size() > 1 && (records_.size() > limits::kLogRingLines || bytes_ > limits::kLogRingBytes)) {
    bytes_ -= records_.front()->Bytes();
    older_ = records_.front()->at.id;
    records_.pop_front();
  }
}

std::vector<RecordPtr> LogRing::After(int64_t id, size_t at_most) const {
  auto first = std::upper_bound(records_.begin(), records_.end(), id, [](int64_t wanted, const RecordPtr& record) { return wanted < record->at.id; });
  const auto count = std::min(at_most, static_cast<size_t>(records_.end() - first));
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace bulkhead
