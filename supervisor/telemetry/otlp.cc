#include "supervisor/telemetry/otlp.h"

#include <algorithm>

#include "opentelemetry/trace.pb.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

namespace otlp = ::opentelemetry::proto;

std::string SpanText(std::string_view text) { return ValidUtf8(CutUtf8(text, limits::kMaxSpanText)); }

// Ids are big-endian, as their hexadecimal digits are.
void AppendBytes(std::string& out, uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) out += char(value >> shift & 0xff);
}

std::string TraceIdBytes(const TraceContext& context) {
  std::string id;
  AppendBytes(id, context.trace_high);
  AppendBytes(id, context.trace_low);
  return id;
}

std::string SpanIdBytes(uint64_t span) {
  std::string id;
  AppendBytes(id, span);
  return id;
}

void AddText(google::protobuf::RepeatedPtrField<otlp::KeyValue>& list, std::string_view key, std::string_view value) {
  otlp::KeyValue& entry = *list.Add();
  entry.set_key(std::string(key));
  entry.mutable_value()->set_string_value(SpanText(value));
}

void AddAll(const SpanAttributes& attributes, google::protobuf::RepeatedPtrField<otlp::KeyValue>& list) {
  for (const auto& [key, value] : attributes) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      AddText(list, key, *text);
    } else {
      otlp::KeyValue& entry = *list.Add();
      entry.set_key(std::string(key));
      entry.mutable_value()->set_int_value(std::get<int64_t>(value));
    }
  }
}

void Fill(const Span& span, otlp::Span& out) {
  out.set_trace_id(TraceIdBytes(span.context));
  out.set_span_id(SpanIdBytes(span.context.span));
  if (span.parent != 0) out.set_parent_span_id(SpanIdBytes(span.parent));
  out.set_trace_state(span.tracestate);
  out.set_flags(span.context.sampled ? 1 : 0);
  out.set_name(SpanText(span.name));
  out.set_kind(static_cast<otlp::Span::SpanKind>(span.kind));
  out.set_start_time_unix_nano(uint64_t(span.begin_ns));
  out.set_end_time_unix_nano(uint64_t(std::max(span.begin_ns, span.end_ns)));
  AddAll(span.attributes, *out.mutable_attributes());
  for (const SpanEvent& event : span.events) {
    otlp::Span::Event& told = *out.add_events();
    told.set_name(std::string(event.name));
    told.set_time_unix_nano(uint64_t(event.at_ns));
    AddAll(event.attributes, *told.mutable_attributes());
  }
  if (!span.failed) return;
  out.mutable_status()->set_code(otlp::Status::STATUS_CODE_ERROR);
  out.mutable_status()->set_message(SpanText(span.message));
}

}  // namespace

std::string EncodeSpans(const OtlpResource& resource, const std::vector<Span>& spans) {
  otlp::ExportTraceServiceRequest request;
  otlp::ResourceSpans& ours = *request.add_resource_spans();
  auto& facts = *ours.mutable_resource()->mutable_attributes();
  AddText(facts, "service.name", "bulkhead");
  AddText(facts, "service.version", resource.version);
  AddText(facts, "service.instance.id", resource.instance);
  otlp::ScopeSpans& scope = *ours.add_scope_spans();
  scope.mutable_scope()->set_name("bulkhead");
  scope.mutable_scope()->set_version(resource.version);
  for (const Span& span : spans) Fill(span, *scope.add_spans());
  return request.SerializeAsString();
}

Rejected ReadAnswer(const std::string& body) {
  otlp::ExportTraceServiceResponse answer;
  if (!answer.ParseFromString(body)) return {};
  const auto& partial = answer.partial_success();
  return {std::max<int64_t>(partial.rejected_spans(), 0), SpanText(partial.error_message())};
}

bool WorthAnotherTry(int http_status) {
  return http_status == 0 || http_status == 429 || http_status == 502 || http_status == 503 || http_status == 504;
}

}  // namespace bulkhead
