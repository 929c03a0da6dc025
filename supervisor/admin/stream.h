// One server-streaming call of the admin API, from its guard to its end: a source is asked for a message whenever the client has taken the
// one before, so that a client who is slow costs one message. For calls that only read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "supervisor/admin/guard.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class StreamCallBase;

// The streams of a node: how many there may be, and their common end. Thread-safe.
class Streams {
 public:
  // Takes a place for `stream` until Leave(): OVERLOADED beyond limits::kMaxStreams, TOO_MANY_STREAMS beyond kMaxStreamsPerCaller,
  // SHUTTING_DOWN after EndAll().
  absl::Status Enter(const std::shared_ptr<StreamCallBase>& stream, const std::string& caller);
  void Leave(const StreamCallBase* stream);
  // Ends each with SHUTTING_DOWN; its client is told.
  void EndAll();

 private:
  std::mutex mutex_;
  std::map<const StreamCallBase*, std::pair<std::weak_ptr<StreamCallBase>, std::string>> entered_;
  std::map<std::string, size_t> by_caller_;
  bool ended_ = false;
};

// Thread-safe. Everything but the type of the response.
class StreamCallBase : public std::enable_shared_from_this<StreamCallBase> {
 public:
  StreamCallBase(const Guard& guard, Streams& streams, const Clock& clock, std::string_view method);
  virtual ~StreamCallBase();
  StreamCallBase(const StreamCallBase&) = delete;

  // Ends it, behind the message that is under way. The first one counts.
  void End(absl::Status status);
  // The source has found nothing, and may now find something.
  void Wake();
  bool live() const;

 protected:
  enum class Found { kMessage, kNothing, kEnd };
  // From the source into what Send() sends. `why` of an end, OK or an error.
  virtual Found Next(absl::Status& why) = 0;
  virtual void Send() = 0;
  virtual void Finish(const grpc::Status& status) = 0;
  virtual void DropSource() = 0;

  // The first message may be sent: there is a source.
  void Start();
  // For the reactor.
  void Sent(bool ok);
  // Asks the guard; `open` is called once it has admitted the call, at once or later.
  void Begin(grpc::CallbackServerContext* context, const google::protobuf::Message& request, std::function<void()> open);

 private:
  void Admit(Guard::Decision decision, const std::function<void()>& open);
  // Whether the caller still may; false: that is being found out, or it has ended.
  bool StillMay(std::unique_lock<std::mutex>& lock);

  const Guard& guard_;
  Streams& streams_;
  const Clock& clock_;
  const std::string method_;
  Caller caller_;
  std::string module_, authorization_;
  absl::Status text_;
  mutable std::mutex mutex_;
  std::optional<absl::Status> end_;  // under mutex_, as what follows
  bool started_ = false;             // there is a source
  bool sending_ = false, pumping_ = false, again_ = false, checking_ = false, finished_ = false;
  Instant check_at_{};
};

template <typename Response>
class StreamCall : public StreamCallBase {
 public:
  using StreamCallBase::StreamCallBase;
  // What comes next: a message, nothing (then Wake() is called when there may be one), or the end. One call at a time, on any thread; must
  // not block. Destroyed when the stream ends.
  class Source {
   public:
    virtual ~Source() = default;
    virtual std::optional<Response> Next(std::optional<absl::Status>& end) = 0;
  };
  // Once, after the guard's admission.
  void Open(std::unique_ptr<Source> source) {
    source_ = std::move(source);
    Start();
  }

  template <typename Request, typename OpenFn>
  static grpc::ServerWriteReactor<Response>* Serve(const Guard& guard, Streams& streams, const Clock& clock, grpc::CallbackServerContext* context,
                                                   std::string_view method, const Request* request, OpenFn open) {
    auto stream = std::make_shared<StreamCall>(guard, streams, clock, method);
    auto* reactor = new Reactor(stream);
    stream->reactor_ = reactor;
    stream->Begin(context, *request, [stream = stream.get(), open, copy = *request] {
      open(std::static_pointer_cast<StreamCall>(stream->shared_from_this()), copy);
    });
    return reactor;
  }

 private:
  // Lives until gRPC says that it is done, and keeps the stream meanwhile.
  class Reactor : public grpc::ServerWriteReactor<Response> {
   public:
    explicit Reactor(std::shared_ptr<StreamCall> stream) : stream_(std::move(stream)) {}
    void OnWriteDone(bool ok) override { stream_->Sent(ok); }
    void OnCancel() override { stream_->End(absl::CancelledError("The client has left.")); }
    void OnDone() override { delete this; }

   private:
    const std::shared_ptr<StreamCall> stream_;
  };

  Found Next(absl::Status& why) override {
    std::optional<absl::Status> end;
    std::optional<Response> found = source_->Next(end);
    if (end) {
      why = *std::move(end);
      return Found::kEnd;
    }
    if (!found) return Found::kNothing;
    message_.Swap(&*found);
    return Found::kMessage;
  }
  void Send() override { reactor_->StartWrite(&message_); }
  void Finish(const grpc::Status& status) override { reactor_->Finish(status); }
  void DropSource() override { source_.reset(); }

  Reactor* reactor_ = nullptr;  // alive until Finish()
  std::unique_ptr<Source> source_;
  Response message_;
};

}  // namespace bulkhead
