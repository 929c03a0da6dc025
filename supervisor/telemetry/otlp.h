// Spans in the words of OTLP (https://opentelemetry.io/docs/specs/otlp/): what is sent to a collector, and what it answers. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/telemetry/span.h"

namespace bulkhead {

// Who sends.
struct OtlpResource {
  std::string version;   // service.version
  std::string instance;  // service.instance.id: the node
};

// An ExportTraceServiceRequest as protobuf. Texts that are not UTF-8 are made so, and cut at limits::kMaxSpanText.
std::string EncodeSpans(const OtlpResource& resource, const std::vector<Span>& spans);

// Spans that the collector says, in the ExportTraceServiceResponse of a 200, that it did not take, and why. 0 for what can't be read.
struct Rejected {
  int64_t spans = 0;
  std::string message;
};
Rejected ReadAnswer(const std::string& body);

// Whether an export that was answered so is to be tried again, as the specification lists them; 0 stands for no answer.
bool WorthAnotherTry(int http_status);

}  // namespace bulkhead
