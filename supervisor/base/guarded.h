// A value that can be touched only under its lock.
//   Guarded<std::map<…>> rows;
//   rows.With([&](auto& r) { r[name] = row; });
#pragma once

#include <mutex>
#include <utility>

namespace bulkhead {

template <typename T>
class Guarded {
 public:
  Guarded() = default;
  explicit Guarded(T value) : value_(std::move(value)) {}
  // Calls `fn` with the value while the lock is held. `fn` must not block and must not come back here.
  template <typename F>
  auto With(F&& fn) {
    std::lock_guard lock(mutex_);
    return fn(value_);
  }
  template <typename F>
  auto With(F&& fn) const {
    std::lock_guard lock(mutex_);
    return fn(value_);
  }

 private:
  mutable std::mutex mutex_;
  T value_;
};

}  // namespace bulkhead
