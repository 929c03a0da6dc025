// What is counted, logged and traced of an exchange. Times are those of the loop's turns, so counting looks at no clock.
#include "supervisor/base/limits.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/client_login.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr std::string_view kModulesPath = "/api/v1/m/";
constexpr int kLeftStatus = 499;  // of the access log, as nginx has it
constexpr size_t kAborted = 0, kFailed = 5;  // status classes of what has no status

int64_t UnixNanos(WallTime time) { return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count(); }

}  // namespace

void Client::BeginMeasure(const http1::RequestHead& head) {
  // A head that waited for its token comes again.
  if (!std::exchange(measuring_, true)) {
    started_ = loop_.now();
    thread_.counters().requests_begun.Add();
  }
  method_ = uint8_t(MeteredMethod(head.method));
  meter_ = thread_.NoModuleMeter(method_);
  status_ = 0;
  answer_bytes_ = 0;
  identity_known_ = false;
  TraceContext parent;
  ParseTraceparent(head.traceparent, parent);
  trace_ = thread_.tracer().Begin(parent, thread_.random());
  parent_span_ = parent.span;
  tracestate_.clear();
  if (parent.valid()) {
    std::vector<std::string_view> states;
    for (size_t i = 0; i < head.field_count; ++i) {
      if (head.fields[i].field == http1::Field::kTracestate) states.push_back(head.fields[i].value);
    }
    if (!states.empty()) tracestate_ = CombineTracestate(states);
  }
  if (!Traced()) return;
  events_.clear();
  worker_.clear();
  url_path_.assign(head.path);
}

void Client::Measure(int status) {
  if (!std::exchange(measuring_, false)) return;
  thread_.counters().requests_ended.Add();
  const int64_t micros = std::chrono::duration_cast<std::chrono::microseconds>(loop_.now() - started_).count();
  const size_t status_class = status == kClientLeft ? kAborted : status == kBrokenOff ? kFailed : size_t(status / 100);
  meter_->Record(thread_.number(), status_class, micros, answer_bytes_);
  const int logged = status == kClientLeft ? kLeftStatus : status;
  if (thread_.access_log().Wants(logged)) LogAccess(logged, micros);
  if (Traced()) PutSpan(status);
}

void Client::CountUnserved(Unserved why) { thread_.counters().unserved[size_t(why)].Add(); }

void Client::LogAccess(int status, int64_t micros) {
  AccessLine line{meter_, kMeteredMethods[method_], status, answer_bytes_, micros, trace_, request_id_, {}, origin_.address};
  if (identity_known_ && login_ && login_->identity) line.subject = login_->identity->subject;
  thread_.access_log().Put(std::move(line));
}

bool Client::Traced() const { return thread_.tracer().Records(trace_); }

void Client::NoteEvent(std::string_view name) {
  if (!measuring_ || !Traced() || events_.size() >= limits::kMaxSpanEvents) return;
  events_.push_back({name, UnixNanos(loop_.clock().Wall()), {}});
}

// As the semantic conventions of OpenTelemetry for HTTP servers name things.
void Client::PutSpan(int status) {
  const bool ours = meter_->module == kAdminLabel, routed = meter_->route.starts_with('/');
  std::string route = routed ? (ours ? "" : std::string(kModulesPath) + meter_->module) + meter_->route : "";
  Span span;
  span.name = std::string(kMeteredMethods[method_]) + (routed ? " " + route : "");
  span.context = trace_;
  span.parent = parent_span_;
  span.tracestate = tracestate_;
  span.kind = Span::Kind::kServer;
  span.end_ns = UnixNanos(loop_.clock().Wall());
  span.begin_ns = span.end_ns - std::chrono::duration_cast<std::chrono::nanoseconds>(loop_.clock().Now() - started_).count();
  auto add = [&](std::string_view name, std::string value) {
    if (!value.empty()) span.attributes.emplace_back(name, std::move(value));
  };
  add("http.request.method", std::string(kMeteredMethods[method_]));
  add("http.route", std::move(route));
  add("url.path", url_path_);
  add("url.scheme", "http");
  add("client.address", origin_.address);
  if (FromModule() && login_) add("bulkhead.caller", login_->caller->manifest->name);
  if (status > 0) span.attributes.emplace_back("http.response.status_code", int64_t(status));
  span.attributes.emplace_back("http.response.body.size", int64_t(answer_bytes_));
  if (!ours && meter_->module != kNoModule) add("bulkhead.module", meter_->module);
  add("bulkhead.worker", worker_);
  add("bulkhead.request_id", request_id_);
  span.events = std::move(events_);
  events_.clear();
  span.failed = status == kBrokenOff || status >= 500;
  if (status == kClientLeft || status == kBrokenOff) add("error.type", status == kClientLeft ? "client_left" : "broken_off");
  else if (span.failed) add("error.type", std::to_string(status));
  if (status == kBrokenOff) span.message = "the module broke off its answer";
  thread_.tracer().Put(std::move(span));
}

}  // namespace bulkhead
