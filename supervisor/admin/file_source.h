// The stream of a file: what it is, then its parts. The next part is fetched while the client takes one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "supervisor/admin/stream.h"
#include "supervisor/base/status.h"

namespace bulkhead {

// `Response` has a field `data`.
template <typename Response>
class FileSource : public StreamCall<Response>::Source {
 public:
  using Fetched = std::function<void(absl::StatusOr<std::string> part)>;  // any thread
  // `head` is sent first, `fetch` gets the parts in order, one at a time, `bytes` in all. `stream` is woken when there is one.
  FileSource(Response head, int64_t bytes, std::function<void(Fetched done)> fetch, const std::shared_ptr<StreamCallBase>& stream)
      : head_(std::move(head)), left_(bytes), fetch_(std::move(fetch)), mailbox_(std::make_shared<Mailbox>(stream)) {}

  std::optional<Response> Next(std::optional<absl::Status>& end) override {
    Response response;
    if (!std::exchange(begun_, true)) {
      Fetch();
      return std::move(head_);
    }
    if (left_ == 0) {
      end = absl::OkStatus();
      return std::nullopt;
    }
    std::optional<absl::StatusOr<std::string>> part = mailbox_->Take();
    if (!part) return std::nullopt;
    const bool whole = part->ok() && !(*part)->empty() && static_cast<int64_t>((*part)->size()) <= left_;
    if (!whole) {
      end = part->ok() ? Error("INTERNAL", "The file is damaged: it has another length than it should.") : part->status();
      return std::nullopt;
    }
    left_ -= static_cast<int64_t>((*part)->size());
    response.set_data(**std::move(part));
    Fetch();
    return response;
  }

 private:
  struct Mailbox {
    explicit Mailbox(const std::shared_ptr<StreamCallBase>& call) : stream(call) {}
    std::optional<absl::StatusOr<std::string>> Take() {
      std::lock_guard lock(mutex);
      return std::exchange(part, std::nullopt);
    }
    const std::weak_ptr<StreamCallBase> stream;
    std::mutex mutex;
    std::optional<absl::StatusOr<std::string>> part;
  };
  void Fetch() {
    if (left_ == 0) return;
    fetch_([mailbox = mailbox_](absl::StatusOr<std::string> part) {
      {
        std::lock_guard lock(mailbox->mutex);
        mailbox->part = std::move(part);
      }
      if (const auto stream = mailbox->stream.lock()) stream->Wake();
    });
  }

  Response head_;
  int64_t left_;
  const std::function<void(Fetched done)> fetch_;
  const std::shared_ptr<Mailbox> mailbox_;
  bool begun_ = false;
};

}  // namespace bulkhead
