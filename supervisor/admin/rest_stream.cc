// A server stream of the admin API through the in-process channel, to a client that may take it slowly or leave.
#include "supervisor/admin/rest_events.h"
#include "supervisor/admin/rest_exchange.h"
#include "supervisor/admin/rest_file.h"
#include "supervisor/base/status.h"

namespace bulkhead {

// Asks for a message when the client has taken the one before, so that one that is not taken holds up the handler at the other end. Lives
// until the call and the client's answer have both ended; each holds it.
class Rest::EventStream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                                public std::enable_shared_from_this<Rest::EventStream> {
 public:
  explicit EventStream(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)), file_(exchange_->match.route->rest.file()) {}

  void Begin(grpc::GenericStub& stub) {
    self_ = shared_from_this();
    stub.PrepareBidiStreamingCall(&exchange_->context, exchange_->match.route->rpc_path, grpc::StubOptions(), this);
    StartWriteLast(&exchange_->sent, grpc::WriteOptions());
    StartRead(&exchange_->received);
    AddHold();  // for the reads that are asked for from outside of a reaction
    StartCall();
  }

  void OnReadDone(bool ok) override {
    std::unique_ptr<google::protobuf::Message> message(exchange_->match.route->response_prototype->New());
    if (!ok || !ReadBuffer(exchange_->received, *message)) {
      if (ok) exchange_->context.TryCancel();
      return Release();
    }
    if (file_) return ReadFile(*message);
    if (!out_) {
      HeaderList headers = {{"content-type", "text/event-stream"}, {"cache-control", "no-store"}, {"x-accel-buffering", "no"}};
      out_ = exchange_->responder->Stream(200, std::move(headers), kHeartbeatText, [self = shared_from_this()] { self->Left(); });
    }
    Give(EventText(*exchange_->match.route, *message));
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<EventStream> self = std::move(self_);
    if (!out_) return exchange_->Answer(status.ok() ? grpc::Status(grpc::StatusCode::INTERNAL, "The stream has ended before it began.") : status);
    if (!file_ && !status.ok()) out_->Write(EndText(exchange_->Failure(status), exchange_->request.request_id), nullptr);
    // A file of which a part is missing is broken off.
    if (!file_ || (status.ok() && file_left_ == 0)) out_->End();
    out_.reset();
  }

 private:
  void Give(std::string text) {
    bool left = false;
    {
      std::lock_guard lock(mutex_);
      reading_ = false;
      left = left_;
    }
    if (left) return Release();
    // Who leaves from here on finds that nothing is read, and `then` is not called or does nothing.
    out_->Write(std::move(text), [self = shared_from_this()] { self->Taken(); });
  }

  // Its head, or a part of it.
  void ReadFile(const google::protobuf::Message& message) {
    if (!out_) {
      FileHead head = FileHeadOf(message);
      file_left_ = head.bytes;
      out_ = exchange_->responder->Stream(200, std::move(head.headers), "", [self = shared_from_this()] { self->Left(); });
      return Give("");
    }
    std::string part = FilePartOf(message);
    file_left_ -= static_cast<int64_t>(part.size());
    if (file_left_ >= 0) return Give(std::move(part));
    exchange_->context.TryCancel();
    Release();
  }

  void Taken() {
    {
      std::lock_guard lock(mutex_);
      if (released_ || left_) return;
      reading_ = true;
    }
    StartRead(&exchange_->received);
  }

  void Left() {
    bool release = false;
    {
      std::lock_guard lock(mutex_);
      left_ = true;
      release = !reading_;  // else the read ends by the cancellation, and releases
    }
    exchange_->context.TryCancel();
    if (release) Release();
  }

  // No read is asked for any more.
  void Release() {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(released_, true)) return;
    }
    RemoveHold();
  }

  const std::shared_ptr<Exchange> exchange_;
  const bool file_;        // its answer is one file, not events
  int64_t file_left_ = 0;  // bytes that are still to come
  std::unique_ptr<LocalStream> out_;  // from the first message on
  std::shared_ptr<EventStream> self_;  // until the call has ended
  std::mutex mutex_;
  bool reading_ = true, left_ = false, released_ = false;
};

void Rest::BeginStream(std::shared_ptr<Exchange> exchange) {
  std::make_shared<EventStream>(std::move(exchange))->Begin(*stub_);
}

}  // namespace bulkhead
