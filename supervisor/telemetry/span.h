// One span of a trace, as it is exported. A value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "supervisor/telemetry/trace_context.h"

namespace bulkhead {

using SpanValue = std::variant<std::string, int64_t>;
using SpanAttributes = std::vector<std::pair<std::string_view, SpanValue>>;  // names are literals

struct SpanEvent {
  std::string_view name;  // a literal
  int64_t at_ns = 0;
  SpanAttributes attributes;
};

struct Span {
  enum class Kind { kInternal = 1, kServer = 2 };  // numbers of OTLP
  std::string name;
  TraceContext context;
  uint64_t parent = 0;  // 0: none
  std::string tracestate;
  Kind kind = Kind::kInternal;
  int64_t begin_ns = 0, end_ns = 0;  // Unix time
  SpanAttributes attributes;
  std::vector<SpanEvent> events;  // at most limits::kMaxSpanEvents
  bool failed = false;
  std::string message;  // of a failed one
};

}  // namespace bulkhead
