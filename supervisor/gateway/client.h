// One client's connection: reads requests, one at a time and in order, and answers each from a module's stream, from the LocalService
// or by itself. A request whose worker is about to come back waits for it (is parked), and so does one whose token has to be verified.
// Belongs to its gateway thread. What it keeps is bounded: 64 KiB of input that waits, one window of output.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/identity.h"
#include "supervisor/gateway/gateway_loop.h"
#include "supervisor/gateway/http1.h"
#include "supervisor/gateway/link.h"
#include "supervisor/gateway/local_service.h"
#include "supervisor/gateway/request_head.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/span.h"

namespace bulkhead {

class GatewayThread;
struct Manifest;
struct RouteSpec;

// Where a connection came from.
struct ClientOrigin {
  std::string address;  // "" for a module's
  uint16_t port = 0;
  std::optional<uint64_t> module_peer;  // by the modules' socket (module_call.h), and whose it is there
};

class Client final : public Pollable, private StreamSink {
 public:
  Client(GatewayThread& thread, UniqueFd fd, ClientOrigin origin);
  ~Client() override;

  absl::Status Begin();
  // The gateway is stopping: idle connections close now, the others after their answer.
  void Drain();
  void CloseNow();
  // The request that was parked is to try again, or to be told that there is nothing to wait for.
  void Unpark();
  // The token that the request at the front of the input waits for has been verified, or not.
  void LoginDecided(uint64_t id, const absl::StatusOr<std::shared_ptr<const Identity>>& verdict);
  // The LocalService has answered exchange `id`; a late answer is dropped. Status 0: it gave none.
  void AnswerLocal(uint64_t id, int status, const HeaderList& headers, std::string_view body);
  // The same for an answer that goes on. What is held by `gone` is told when it is let go of (GatewayThread).
  void BeginLocal(uint64_t id, int status, const HeaderList& headers, std::string idle, std::shared_ptr<void> gone);
  void WriteLocal(uint64_t id, std::string_view bytes, std::function<void()> then);
  void EndLocal(uint64_t id, bool whole);

  void OnEvents(uint32_t events) override;
  void Run() override;
  void Flush() override;
  void OnTimer() override;

  const ClientOrigin& origin() const { return origin_; }
  size_t index = 0;  // the thread's, in its list of connections

 private:
  enum class State : uint8_t {
    kHead,       // waits for a request
    kLogin,      // has one, still in the input; its token is being verified, then it is read again
    kModule,     // a stream answers
    kTunnel,     // after a 101: bytes both ways, until either end closes
    kLocalBody,  // collects the body for the LocalService
    kLocalWait,  // the LocalService answers
    kLocalStream,  // its answer has begun and goes on
    kDiscard,    // answered; the rest of the body is read and dropped
    kClosing,    // writes what is left, then closes
    kLinger,     // has closed its half; reads until the client does, so that no reset destroys the answer
    kClosed,
  };
  enum class Framing : uint8_t { kNone, kLength, kChunked, kUntilClose };
  struct Login;
  struct Streaming;
  enum class Known : uint8_t { kYes, kNo, kPending, kUndecided };

  // client.cc: reading, writing, time.
  void ReadOnce();
  bool WantsRead() const;
  // The request is whole and its answer under way: who hangs up now wants it no more.
  bool Answered() const;
  size_t Consume(char* data, size_t size);
  size_t ConsumeBody(std::string_view in);
  void BodyCame(size_t bytes);
  void ExpectBody();
  size_t ConsumeDiscarded(std::string_view in);
  size_t ConsumeTunnel(std::string_view in);
  void TakeBuffered();
  void PeerFinished();
  void PeerGone();
  void StartLinger();
  void Close();
  void AwaitWritable();
  void UpdateDeadline();
  Instant ComputeDeadline() const;
  void OnDeadline();
  void GiveCredit();
  std::string& Out();
  size_t Unsent() const { return out_.size() - out_at_; }
  void MarkDirty();

  // client_request.cc: from a head to whoever answers.
  size_t StartRequest(const http1::RequestHead& head, std::string_view rest);
  size_t RouteToModule(const http1::RequestHead& head, std::string_view rest);
  bool MayPass(const http1::RequestHead& head, const RouteSpec& route, std::string_view module);
  Known KnowCaller(std::string_view authorization);
  void AwaitLogin(std::string_view authorization);
  void RefuseLogin(std::string_view authorization);
  size_t SendRequest(const http1::RequestHead& head, std::string_view method, std::string_view path, std::string_view rest);
  void Dispatch();
  void SendAgain();
  void Unavailable(Unserved why, std::string_view message);
  void SendContinue();
  void StartLocal(const http1::RequestHead& head);
  void HandToLocal();
  void ForwardBody(std::string_view piece);
  void BodyDone();
  void BodyRefused(const char* code, const char* message);
  void OpenStream(Link& link);
  void HandleLoss();

  // client_module.cc: a module calls another one.
  bool FromModule() const { return origin_.module_peer.has_value(); }
  bool KnowModule(const http1::RequestHead& head);
  bool MayCallModule(std::string_view called, const std::shared_ptr<const Manifest>& manifest);

  // client_measure.cc: what is counted, logged and traced of an exchange.
  void BeginMeasure(const http1::RequestHead& head);
  static constexpr int kClientLeft = -1, kBrokenOff = 0;  // instead of a status: the answer is not whole, because of the client or of the module
  void Measure(int status);  // it has ended. Once, whoever is first
  void LogAccess(int status, int64_t micros);
  void PutSpan(int status);
  bool Traced() const;
  void NoteEvent(std::string_view name);  // of the span, when there is one
  void CountUnserved(Unserved why);

  // client_response.cc: answers.
  bool OnHead(uint16_t status, std::string_view pairs, bool whole, size_t body_length) override;
  void OnBody(std::string_view bytes, bool end) override;
  bool OnTrailers(std::string_view pairs) override;
  void OnRoom() override;
  void OnLost(StreamLoss loss) override;
  bool BeginTunnel(std::string_view pairs);
  void AppendBody(std::string_view bytes, bool end);
  void BreakResponse(std::string_view why);
  bool RollBackResponse();
  void AppendOwnFields(std::string& out);
  void RespondWhole(int status, const HeaderList& headers, std::string_view body);
  void RespondError(const char* code, std::string_view message, const HeaderList& headers = {});
  void DecidePersistence();
  bool TooMuchToDiscard() const;
  void FinishExchange();
  void Abort();

  GatewayThread& thread_;
  GatewayLoop& loop_;
  UniqueFd fd_;
  const ClientOrigin origin_;

  State state_ = State::kHead;
  bool readable_ = false, writable_ = true, more_to_send_ = false, hangup_ = false, peer_finished_ = false, more_input_ = true;
  http1::HeadParser parser_;
  http1::BodyReader body_;
  std::string in_;  // received and not consumed
  std::string out_;
  size_t out_at_ = 0;
  uint64_t sent_total_ = 0;

  // The exchange.
  std::string request_id_;
  std::string module_;
  std::string frame_;  // the REQUEST, kept while it may have to be sent again
  std::string trailers_;  // of the answer, as field lines
  Stream stream_;
  Link* last_link_ = nullptr;  // alive while it calls us
  const LinkWorker* last_worker_ = nullptr;  // to compare only
  std::unique_ptr<LocalRequest> local_;
  std::unique_ptr<Streaming> streaming_;  // of an answer of the LocalService that goes on
  uint64_t local_id_ = 0, login_id_ = 0;
  std::unique_ptr<Login> login_;
  int64_t body_limit_ = 0, body_seen_ = 0;
  int64_t response_left_ = 0;
  uint64_t response_start_ = 0;  // in terms of sent_total_
  size_t uncredited_ = 0;        // body bytes in out_ that the module has no credit for yet
  Millis timeout_{0};
  Framing framing_ = Framing::kNone;
  uint8_t unopened_ = 0;  // connections that ended before they were open
  StreamLoss loss_ = StreamLoss::kClosed;
  bool head_only_ = false, http10_ = false, keep_alive_ = false, safe_ = false, whole_request_ = false, replayable_ = false;
  bool expect_ = false, blocked_ = false, response_begun_ = false, retried_ = false, lost_ = false, head_as_get_ = false;
  bool identity_known_ = false, first_request_ = true;
  bool parked_ = false, unparked_ = false, websocket_ = false, told_timeout_ = false;
  uint8_t hops_ = 0;  // calls behind a module's
  std::shared_ptr<const Manifest> parked_for_;  // whose routes let the request in

  // What is measured of it.
  RouteMeter* meter_ = nullptr;
  Instant started_{};
  TraceContext trace_;
  uint64_t parent_span_ = 0, answer_bytes_ = 0;
  int status_ = 0;
  uint8_t method_ = 0;  // of kMeteredMethods
  bool measuring_ = false;
  std::string tracestate_, url_path_, worker_;  // the last two of a traced one
  std::vector<SpanEvent> events_;

  // Time.
  Instant deadline_{};
  Instant idle_since_{}, head_since_{}, body_until_{}, write_progress_{}, route_deadline_{}, linger_until_{}, parked_until_{},
      tunnel_progress_{};
  Instant call_deadline_ = Instant::max();  // of a module's call: what that has left for it
};

}  // namespace bulkhead
