// Answers: from a module's stream, checked before a byte of them is sent, and from the gateway itself.
#include <sys/socket.h>

#include <algorithm>
#include <charconv>

#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/client_login.h"
#include "supervisor/gateway/client_streaming.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr int64_t kMaxDiscard = 64 * 1024;  // an unread rest of a body up to here is read and dropped; beyond: the connection closes

bool HasNoBody(int status) { return status == 204 || status == 304; }

void AppendFields(std::string& out, const HeaderList& headers) {
  for (const auto& [name, value] : headers) {
    if (!http1::IsToken(name) || !http1::IsFieldValue(value)) continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
}

void AppendNumber(std::string& out, uint64_t value, int base = 10) {
  char text[24];
  auto end = std::to_chars(text, text + sizeof text, value, base).ptr;
  out.append(text, size_t(end - text));
}

}  // namespace

// Whether the connection survives this answer; said in the answer's head, so decided before it.
void Client::DecidePersistence() {
  if (thread_.draining() || peer_finished_) keep_alive_ = false;
  if (body_.done() || stream_.open()) return;  // nothing is left over, or the module takes it
  // With the expectation open the client may never send it, RFC 9110 10.1.1.
  if (expect_ || TooMuchToDiscard()) keep_alive_ = false;
}

bool Client::TooMuchToDiscard() const { return body_.remaining() < 0 || body_.remaining() > kMaxDiscard; }

void Client::AppendOwnFields(std::string& out) {
  out.append("date: ").append(thread_.Date()).append("\r\nx-request-id: ").append(request_id_).append("\r\n");
  if (!keep_alive_) out += "connection: close\r\n";
  else if (http10_) out += "connection: keep-alive\r\n";
}

// RFC 9110 15.2.2: from here on the bytes are the module's and the client's own.
bool Client::BeginTunnel(std::string_view pairs) {
  std::string& out = Out();
  response_start_ = sent_total_ + Unsent();
  response_begun_ = true;
  uncredited_ = 0;
  keep_alive_ = safe_ = false;
  AppendStatusLine(out, 101);
  ResponseFields fields;
  FieldsResult result = AppendResponseFields(pairs, out, fields);
  if (result == FieldsResult::kMalformed) return false;
  if (result == FieldsResult::kBadField || fields.content_length >= 0) {
    BreakResponse("granted an upgrade with a header that it may not send");
    return true;
  }
  out += "connection: upgrade\r\nupgrade: websocket\r\n";
  out.append("date: ").append(thread_.Date()).append("\r\nx-request-id: ").append(request_id_).append("\r\n\r\n");
  state_ = State::kTunnel;
  Measure(101);  // what follows is no answer any more
  framing_ = Framing::kNone;
  tunnel_progress_ = loop_.now();
  loop_.GiveBuffer(std::move(frame_));
  more_input_ = true;
  MarkDirty();
  loop_.Schedule(*this);  // bytes may have come behind the head
  return true;
}

bool Client::OnHead(uint16_t status, std::string_view pairs, bool whole, size_t body_length) {
  if (status == 101) return BeginTunnel(pairs);
  if (websocket_ && stream_.open()) stream_.link()->End(stream_, {});  // it was refused, and there is no body
  status_ = status;
  std::string& out = Out();
  response_start_ = sent_total_ + Unsent();
  response_begun_ = true;
  uncredited_ = 0;
  if (status >= 200 && status <= 599) AppendStatusLine(out, status);
  ResponseFields fields;
  FieldsResult result = AppendResponseFields(pairs, out, fields);
  if (result == FieldsResult::kMalformed) return false;
  bool no_body = head_only_ || HasNoBody(status);
  bool bad_length = whole && fields.content_length >= 0 && fields.content_length != int64_t(body_length) && !(no_body && body_length == 0);
  if (status < 200 || status > 599 || result == FieldsResult::kBadField || bad_length) {
    BreakResponse(bad_length                          ? "sent another number of body bytes than its content-length says"
                  : result == FieldsResult::kBadField ? "sent a response with a malformed header"
                                                      : "sent a response whose status is not from 200 to 599");
    return true;
  }
  DecidePersistence();
  if (no_body) {
    framing_ = Framing::kNone;
    bool known = fields.content_length >= 0 || (whole && (body_length > 0 || head_as_get_));
    if (known && status != 204) {
      out += "content-length: ";
      AppendNumber(out, fields.content_length >= 0 ? uint64_t(fields.content_length) : body_length);
      out += "\r\n";
    }
  } else if (whole || fields.content_length >= 0) {
    framing_ = Framing::kLength;
    response_left_ = fields.content_length >= 0 ? fields.content_length : int64_t(body_length);
    out += "content-length: ";
    AppendNumber(out, uint64_t(response_left_));
    out += "\r\n";
  } else if (!http10_) {
    framing_ = Framing::kChunked;
    out += "transfer-encoding: chunked\r\n";
  } else {
    framing_ = Framing::kUntilClose;
    keep_alive_ = false;
  }
  AppendOwnFields(out);
  out += "\r\n";
  MarkDirty();
  if (no_body && stream_.open()) {
    // The rest would be dropped anyhow, so the module is told to stop.
    stream_.link()->Cancel(stream_, link::CancelCode::kClientGone);
    FinishExchange();
  } else if (whole && body_length == 0) {
    FinishExchange();
  }
  return true;
}

void Client::OnBody(std::string_view bytes, bool end) {
  if (lost_) return;
  if (state_ == State::kTunnel) {
    Out().append(bytes);
    uncredited_ += bytes.size();
    tunnel_progress_ = loop_.now();
    MarkDirty();
    if (end) state_ = State::kClosing;
    return;
  }
  if (state_ != State::kModule) return;
  if (framing_ == Framing::kLength) {
    response_left_ -= int64_t(bytes.size());
    if (response_left_ < 0 || (end && response_left_ > 0)) return BreakResponse("sent another number of body bytes than its content-length says");
  }
  AppendBody(bytes, end);
  uncredited_ += bytes.size();
  if (end) FinishExchange();
}

// In the framing of the answer.
void Client::AppendBody(std::string_view bytes, bool end) {
  std::string& out = Out();
  answer_bytes_ += bytes.size();
  if (framing_ == Framing::kChunked) {
    if (!bytes.empty()) {
      AppendNumber(out, bytes.size(), 16);
      out.append("\r\n").append(bytes).append("\r\n");
    }
    if (end) {
      out.append("0\r\n").append(trailers_).append("\r\n");
      trailers_.clear();
    }
  } else if (framing_ != Framing::kNone) {
    out.append(bytes);
  }
  MarkDirty();
}

// Kept for the end of a chunked answer; where the framing has no place for them they are dropped, RFC 9110 6.5.1.
bool Client::OnTrailers(std::string_view pairs) {
  trailers_.clear();
  ResponseFields fields;
  FieldsResult result = AppendResponseFields(pairs, trailers_, fields);
  if (result == FieldsResult::kMalformed) return false;
  if (result == FieldsResult::kBadField || fields.content_length >= 0) BreakResponse("sent a malformed trailer");
  return true;
}

void Client::OnRoom() {
  blocked_ = false;
  ExpectBody();
  loop_.ScheduleNextTurn(*this);
}

void Client::OnLost(StreamLoss loss) {
  if (state_ != State::kModule && state_ != State::kTunnel) return;
  lost_ = true;
  loss_ = loss;
  loop_.Schedule(*this);  // acted upon at the top: the link is in the middle of something
}

// The module's answer breaks HTTP: it ends here, whatever of it came.
void Client::BreakResponse(std::string_view why) {
  last_link_->Blame(why);
  if (stream_.open()) stream_.link()->Cancel(stream_, link::CancelCode::kProtocol);
  OnLost(StreamLoss::kProtocol);
}

// Takes an answer back when none of it has been sent yet.
bool Client::RollBackResponse() {
  if (sent_total_ > response_start_) return false;
  out_.resize(out_at_ + size_t(response_start_ - sent_total_));
  response_begun_ = false;
  uncredited_ = 0;
  answer_bytes_ = 0;
  return true;
}

// Ends an answer that can't be completed, so that the client sees that it is not whole.
void Client::Abort() {
  Measure(kBrokenOff);
  if (framing_ == Framing::kUntilClose) {
    linger reset{1, 0};  // a plain close would look like the end of the body
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }
  Close();
}

void Client::RespondWhole(int status, const HeaderList& headers, std::string_view body) {
  if (request_id_.empty()) {
    AppendHex(request_id_, thread_.random().Next());
    AppendHex(request_id_, thread_.random().Next());
  }
  DecidePersistence();
  status_ = status;
  answer_bytes_ = HasNoBody(status) || head_only_ ? 0 : body.size();
  std::string& out = Out();
  AppendStatusLine(out, status);
  AppendFields(out, headers);
  if (!HasNoBody(status)) {
    out += "content-length: ";
    AppendNumber(out, body.size());
    out += "\r\n";
  }
  AppendOwnFields(out);
  out += "\r\n";
  if (!HasNoBody(status) && !head_only_) out.append(body);
  FinishExchange();
}

void Client::RespondError(const char* code, std::string_view message, const HeaderList& headers) {
  if (request_id_.empty()) {
    AppendHex(request_id_, thread_.random().Next());
    AppendHex(request_id_, thread_.random().Next());
  }
  HeaderList all = headers;
  all.emplace_back("content-type", "application/json");
  RespondWhole(HttpStatus(code), all, ErrorBody(Error(code, message), request_id_));
}

void Client::AnswerLocal(uint64_t id, int status, const HeaderList& headers, std::string_view body) {
  if (state_ != State::kLocalWait || local_id_ != id) return;
  local_id_ = 0;
  if (status == 0) return RespondError("INTERNAL", "The service gave no answer.");
  bool valid = status >= 200 && status <= 599;
  RespondWhole(valid ? status : 500, headers, body);
}

void Client::BeginLocal(uint64_t id, int status, const HeaderList& headers, std::string idle, std::shared_ptr<void> gone) {
  if (state_ != State::kLocalWait || local_id_ != id) return;
  if (hangup_) return PeerGone();  // as with a module's answer that has begun
  DecidePersistence();
  const bool known = std::any_of(headers.begin(), headers.end(), [](const auto& header) { return header.first == "content-length"; });
  framing_ = head_only_ ? Framing::kNone : known ? Framing::kLength : http10_ ? Framing::kUntilClose : Framing::kChunked;
  if (framing_ == Framing::kUntilClose) keep_alive_ = false;
  std::string& out = Out();
  AppendStatusLine(out, status);
  AppendFields(out, headers);
  if (framing_ == Framing::kChunked) out += "transfer-encoding: chunked\r\n";
  AppendOwnFields(out);
  out += "\r\n";
  response_begun_ = true;
  if (head_only_) {
    local_id_ = 0;
    thread_.ForgetLocal(id);
    return FinishExchange();
  }
  state_ = State::kLocalStream;
  streaming_ = std::make_unique<Streaming>(Streaming{std::move(gone), std::move(idle), nullptr, loop_.now()});
  MarkDirty();
  UpdateDeadline();
}

void Client::WriteLocal(uint64_t id, std::string_view bytes, std::function<void()> then) {
  if (state_ != State::kLocalStream || local_id_ != id) return;
  streaming_->wrote = loop_.now();
  streaming_->then = std::move(then);  // after the turn's write, which tells how much the client takes
  if (!bytes.empty()) AppendBody(bytes, false);
  MarkDirty();
}

void Client::EndLocal(uint64_t id, bool whole) {
  if (state_ != State::kLocalStream || local_id_ != id) return;
  if (!whole) return Abort();
  local_id_ = 0;
  thread_.ForgetLocal(id);
  streaming_.reset();
  AppendBody({}, true);
  FinishExchange();
}

void Client::FinishExchange() {
  Measure(status_);
  MarkDirty();
  loop_.GiveBuffer(std::move(frame_));
  local_.reset();
  head_since_ = Instant{};
  idle_since_ = loop_.now();
  write_progress_ = loop_.now();
  trailers_.clear();
  if (!keep_alive_ || (!body_.done() && TooMuchToDiscard())) {
    state_ = State::kClosing;
  } else if (!body_.done()) {
    state_ = State::kDiscard;
    ExpectBody();
  } else {
    state_ = State::kHead;
  }
  // More of the client may wait: taken at the top, not from within whoever called.
  more_input_ = true;
  if (!in_.empty() || readable_) loop_.Schedule(*this);
}

}  // namespace bulkhead
