// A unary call of the host API whose answer comes from elsewhere. Private to this room.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace bulkhead {

inline grpc::Status ToGrpc(const absl::Status& status) {
  return status.ok() ? grpc::Status::OK : grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

// The answer may also not come before the server stops: then the cancellation ends it.
template <typename Response>
class LaterCall final : public grpc::ServerUnaryReactor {
 public:
  explicit LaterCall(Response* response) : handle_(std::make_shared<Handle>(this, response)) {}

  // Any thread; the first answer counts. `fill` is called where the response is still wanted.
  std::function<void(const absl::Status& status, const std::function<void(Response&)>& fill)> Answer() const {
    return [handle = handle_](const absl::Status& status, const std::function<void(Response&)>& fill) { handle->Finish(ToGrpc(status), fill); };
  }
  void OnCancel() override { handle_->Finish(grpc::Status::CANCELLED, [](Response&) {}); }
  void OnDone() override { delete this; }

 private:
  struct Handle {
    Handle(LaterCall* open, Response* answer) : call(open), response(answer) {}
    void Finish(grpc::Status status, const std::function<void(Response&)>& fill) {
      std::lock_guard lock(mutex);
      LaterCall* const open = std::exchange(call, nullptr);
      if (open == nullptr) return;
      if (status.ok()) fill(*response);
      open->grpc::ServerUnaryReactor::Finish(std::move(status));
    }
    std::mutex mutex;
    LaterCall* call;  // until it has its answer
    Response* response;
  };
  const std::shared_ptr<Handle> handle_;
};

}  // namespace bulkhead
