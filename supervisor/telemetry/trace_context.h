// W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a request or a run belongs to, and which span it is. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/random.h"

namespace bulkhead {

struct TraceContext {
  uint64_t trace_high = 0, trace_low = 0;  // one of them is not 0
  uint64_t span = 0;                       // not 0
  bool sampled = false;                    // whoever made it may have recorded it
  bool valid() const { return (trace_high | trace_low) != 0 && span != 0; }
};

// 3.2.2: false for what is malformed. Of versions that are not known yet what is known of 00 is read.
bool ParseTraceparent(std::string_view text, TraceContext& context);

// Version 00, with no flag but `sampled`: what follows the spec must not pass on others.
inline constexpr size_t kTraceparentSize = 55;
void AppendTraceparent(std::string& out, const TraceContext& context);
std::string FormatTraceparent(const TraceContext& context);
void AppendHex(std::string& out, uint64_t value);  // 16 digits
std::string TraceId(const TraceContext& context);  // 32 digits

// A span below `parent`; of a trace of its own, and not sampled, where that is not valid.
TraceContext ChildOf(const TraceContext& parent, Random& random);

// 3.3: the fields of one request as one, within limits::kMaxTracestate and kMaxTracestateMembers. "" when a member is malformed or there
// are too many; where it is too long, long members go first, then the last ones.
std::string CombineTracestate(const std::vector<std::string_view>& fields);

}  // namespace bulkhead
