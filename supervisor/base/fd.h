// Owned file descriptors and the few socket calls that several rooms need. Values here are resources: they move, never copy.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace bulkhead {

// Closes its descriptor when it goes. Thread-compatible.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// A connected pair of Unix sockets, both close-on-exec. `type` is SOCK_STREAM or SOCK_SEQPACKET, SOCK_NONBLOCK may be added.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> SocketPair(int type);
// A pipe, {read, write}, both close-on-exec; the read end is non-blocking.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakeLogPipe();
// Longest path that a Unix socket can have (sun_path without its NUL).
inline constexpr size_t kMaxSocketPath = 107;

// Whole small file as text. NOT_FOUND, PERMISSION_DENIED, or RESOURCE_EXHAUSTED beyond `limit` bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit = 16 << 20);
// Writes to a temporary name beside `path`, fsyncs and renames, so that readers see the old or the new one.
absl::Status WriteFileAtomically(const std::string& path, const std::string& content, int mode);
// The absl code that stands for an errno, with "what: strerror".
absl::Status ErrnoStatus(int error, const std::string& what);

}  // namespace bulkhead
