#include "dispatcher.h"

#include "invoke.h"
#include "json_text.h"
#include "response_head.h"
#include "websocket_handshake.h"

namespace bulkhead::sdk {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kInlineLimit = std::chrono::milliseconds(1);
constexpr auto kStallReportEvery = std::chrono::seconds(10);

std::string RequestId(std::string_view pairs) {
  std::string id;
  link::ForEachPair(pairs, [&](std::string_view name, std::string_view value) {
    if (name == "x-request-id") id = value;
  });
  return id;
}

std::string RouteName(const LinkStream& stream) {
  return stream.route ? stream.route->method() + " " + stream.route->pattern() : std::string();
}

// Of the 101. Throws when the protocol's name is longer than the gateway's frame.
std::string AcceptingHead(const websocket::Handshake& handshake, size_t max_frame) {
  Headers headers = {{"sec-websocket-accept", handshake.accept}};
  if (!handshake.protocol.empty()) headers.emplace_back("sec-websocket-protocol", handshake.protocol);
  std::string head = EncodePairs(headers, max_frame);
  if (head.empty()) throw std::length_error("the WebSocket protocol's name is longer than the link takes");
  return head;
}

// Holds an author's stream to the length it promised.
class StreamWriter final : public ResponseWriter {
 public:
  StreamWriter(LinkStream& stream, std::optional<uint64_t> promised, bool discard)
      : stream_(stream), promised_(promised), discard_(discard) {}
  bool Write(std::string_view data) override {
    if (promised_ && written_ + data.size() > *promised_)
      throw std::length_error("more was written than content-length promised");
    written_ += data.size();
    if (discard_) return !stream_.cancelled();
    return stream_.Write(data);
  }
  bool cancelled() const override { return stream_.cancelled(); }
  void Trailer(std::string name, std::string value) override { trailers_.emplace_back(std::move(name), std::move(value)); }

  void Finish() {
    if (promised_ && written_ < *promised_ && !stream_.cancelled() && !discard_) {
      throw std::length_error("less was written than content-length promised");
    }
    std::string trailers;
    if (!trailers_.empty() && !discard_) {
      trailers = EncodePairs(trailers_, stream_.max_frame);
      if (trailers.empty()) throw std::invalid_argument("the trailers are too long or hold characters that HTTP does not allow");
    }
    stream_.End(std::move(trailers));
  }

 private:
  LinkStream& stream_;
  const std::optional<uint64_t> promised_;
  const bool discard_;  // HEAD: the body is not sent
  uint64_t written_ = 0;
  Headers trailers_;
};

}  // namespace

Dispatcher::Dispatcher(const Router& router, int threads, size_t max_waiting)
    : router_(router), pool_(threads, max_waiting, [this](const std::shared_ptr<LinkStream>& stream) { Run(stream); }) {}

bool Dispatcher::Open(LinkStream& stream, std::string_view method, std::string_view target, std::string_view pairs) {
  stream.arrived = Clock::now();
  try {
    stream.request.emplace(std::string(method), std::string(target), Headers());
    stream.request->set_encoded_headers(std::string(pairs));
    stream.request->set_arrived(stream.arrived);
    Router::Match match = router_.Find(method, target.substr(0, target.find('?')));
    if (match.route) {
      stream.route = match.route;
      stream.request->set_params(std::move(match.params));
      stream.request->set_source(&stream, match.route->max_body());
      return true;
    }
    Answer(stream, NotRouted(match, RequestId(pairs)));
  } catch (const HttpError& error) {
    Answer(stream, ErrorResponse(error, RequestId(pairs)));
  }
  return false;
}

void Dispatcher::Answer(LinkStream& stream, Response response) {
  Count(stream, response.status >= 500);
  Send(stream, std::move(response));
}

void Dispatcher::AnswerError(LinkStream& stream, int status, std::string_view code, std::string_view message) {
  Response response = ErrorResponse(status, code, message, stream.request ? stream.request->request_id() : std::string_view());
  if (status == 503) response.Header("retry-after", "1");
  Answer(stream, std::move(response));
}

void Dispatcher::Dispatch(const std::shared_ptr<LinkStream>& stream) {
  if (stream->route->is_inline()) {
    auto before = stream->gathered_charge > 0 ? Clock::now() : stream->arrived;
    Run(stream);
    // A look at the clock per request is worth saving here: what follows the count is short.
    if (stream->counted - before > kInlineLimit) ReportStall(*stream, stream->counted - before);
    return;
  }
  if (!pool_.Submit(stream))
    AnswerError(*stream, 503, "OVERLOADED", "the module has more requests waiting than it takes; try again");
}

void Dispatcher::Turn(const std::shared_ptr<LinkStream>& stream) {
  if (!stream->turn_waiting.exchange(true)) pool_.SubmitTurn(stream);
}

void Dispatcher::Run(const std::shared_ptr<LinkStream>& shared) {
  LinkStream& stream = *shared;
  if (LinkSocket* socket = stream.socket()) {
    stream.turn_waiting = false;
    if (socket->Turn(stream)) Turn(shared);
    return;
  }
  if (stream.cancelled()) {  // gone while it waited: nobody would read the answer
    Count(stream, false);
    return;
  }
  try {
    if (stream.asks_tunnel && stream.route->websocket()) {
      Accept(shared);
    } else {
      Handle(stream);
    }
  } catch (const RequestCancelled&) {
    Count(stream, false);
    stream.Abort(link::CancelCode::kClientGone);
  } catch (const std::exception& error) {  // of the SDK itself, such as no memory
    Count(stream, true);
    LogHandlerFailure(log_, *stream.route, *stream.request, TypeName(error), error.what());
    stream.Abort(link::CancelCode::kInternal);
  }
}

void Dispatcher::Handle(LinkStream& stream) {
  Response response = Invoke(*stream.route, *stream.request, log_);
  if (!response.stream) Count(stream, response.status >= 500);
  Send(stream, std::move(response));
}

// Runs the handler of a WebSocket route; what it returns becomes the stream's socket.
void Dispatcher::Accept(const std::shared_ptr<LinkStream>& stream) {
  const WebSocketRoute& route = *stream->route->websocket();
  websocket::Handshake handshake;
  std::string head;
  WebSocketEvents events;
  bool counted = false;
  auto accept = [&](Request& request) {
    if (auto refusal = websocket::RefuseOther(request, true)) return *std::move(refusal);
    handshake = websocket::ReadHandshake(request, route.protocols());
    counted = sockets_.open.fetch_add(1) < kMaxWebSockets;
    if (!counted) sockets_.open.fetch_sub(1);
    if (!counted || sockets_.refused) {
      return ErrorResponse(503, "OVERLOADED",
                           counted ? "the module is stopping" : "the module has as many WebSockets open as it takes",
                           request.request_id())
          .Header("retry-after", "1");
    }
    events = route.handler()(request);
    Response response;
    response.status = 101;
    head = AcceptingHead(handshake, stream->max_frame);
    return response;
  };
  Response response;
  try {
    response = Invoke(*stream->route, accept, *stream->request, log_);
  } catch (...) {
    if (counted) sockets_.open.fetch_sub(1);
    throw;
  }
  Count(*stream, response.status >= 500);
  if (response.status != 101) {
    if (counted) sockets_.open.fetch_sub(1);
    return Send(*stream, std::move(response));
  }
  auto socket = std::make_shared<LinkSocket>(
      stream, route, std::move(events),
      LinkSocket::Names{RouteName(*stream), std::string(stream->request->request_id()), handshake.protocol}, sockets_);
  stream->Upgrade(std::move(head), socket);
  stream->request.reset();  // a socket may be open for days
  Turn(stream);
}

void Dispatcher::Send(LinkStream& stream, Response response) {
  bool head_only = stream.request && stream.request->method() == "HEAD";
  bool whole = !response.stream;
  if (whole && (head_only || response.status == 204 || response.status == 304)) response.body.clear();
  ResponseHead head = EncodeHead(response.status, response.headers, whole, response.body.size(), stream.max_frame);
  if (!whole && stream.route && stream.route->is_inline()) head.problem = "an inline handler can't stream its answer";
  if (!head.problem.empty()) {
    log_.Error("response refused", {{"route", RouteName(stream)},
                                    {"requestId", stream.request ? stream.request->request_id() : ""},
                                    {"error", head.problem}});
    counts_.errors += whole && response.status >= 500 ? 0 : 1;
    if (!whole) counts_.requests += 1;
    response = ErrorResponse(500, "INTERNAL",
                             "the module made an answer that can't be sent; its log has the reason under this request id",
                             stream.request ? stream.request->request_id() : std::string_view());
    head = EncodeHead(response.status, response.headers, true, response.body.size(), stream.max_frame);
    if (head_only) response.body.clear();
    whole = true;
  }
  if (whole) {
    stream.Respond(response.status, std::move(head.encoded), std::move(response.body), true);
    return;
  }
  bool discard = head_only || response.status == 204 || response.status == 304;
  stream.Respond(response.status, std::move(head.encoded), {}, false);
  StreamWriter writer(stream, head.content_length, discard);
  try {
    response.stream(writer);
    writer.Finish();
    Count(stream, response.status >= 500);
  } catch (const RequestCancelled&) {
    Count(stream, false);
    stream.Abort(link::CancelCode::kClientGone);
  } catch (const std::exception& error) {
    Count(stream, true);
    LogHandlerFailure(log_, *stream.route, *stream.request, TypeName(error), error.what());
    stream.Abort(link::CancelCode::kInternal);
  } catch (...) {
    Count(stream, true);
    LogHandlerFailure(log_, *stream.route, *stream.request, "unknown", "something that is no std::exception was thrown");
    stream.Abort(link::CancelCode::kInternal);
  }
}

void Dispatcher::Count(LinkStream& stream, bool failed) {
  stream.counted = Clock::now();
  auto took = std::chrono::duration_cast<std::chrono::microseconds>(stream.counted - stream.arrived).count();
  counts_.requests.fetch_add(1, std::memory_order_relaxed);
  if (failed) counts_.errors.fetch_add(1, std::memory_order_relaxed);
  counts_.microseconds.fetch_add(took, std::memory_order_relaxed);
}

void Dispatcher::ReportStall(const LinkStream& stream, Clock::duration took) {
  auto now = Clock::now();
  if (now - last_stall_report_ < kStallReportEvery) {
    ++stalls_unreported_;
    return;
  }
  last_stall_report_ = now;
  log_.Warn("an inline handler stalled the link; move it to the worker pool",
            {{"route", RouteName(stream)},
             {"ms", std::chrono::duration<double, std::milli>(took).count()},
             {"moreSinceLastReport", std::exchange(stalls_unreported_, 0)}});
}

}  // namespace bulkhead::sdk
