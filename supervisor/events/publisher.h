// Publishes what modules send by RPC: what comes while one transaction is committed is the next one, so that many share the wait for the disk.
// Thread-safe; answers come on its own thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/database.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxWaitingPublications = 10'000;  // beyond: OVERLOADED
inline constexpr size_t kMaxPublicationBatch = 1'000;      // events of one transaction
}  // namespace limits

struct Publication {
  std::string source, topic, key, payload_json;
};

class Publisher {
 public:
  using Done = std::function<void(absl::StatusOr<int64_t>)>;  // its number
  // `published` after each transaction.
  Publisher(std::string conninfo, std::function<void()> published);
  ~Publisher();  // what waits is answered first

  // INVALID_ARGUMENT: an undeclared topic, a payload that is no JSON or breaks its schema, a key too long; OVERLOADED, DATABASE_UNAVAILABLE.
  void Publish(Publication publication, Done done);

 private:
  struct Waiting {
    Publication publication;
    Done done;
  };
  void Run();
  void Write(std::vector<Waiting>& batch, size_t begin, size_t end);
  absl::StatusOr<std::vector<int64_t>> Append(const std::vector<Waiting>& batch, size_t begin, size_t end);

  Database database_;
  const std::function<void()> published_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> queue_;
  bool stopping_ = false;
  std::thread thread_;  // last: uses the rest
};

}  // namespace bulkhead
