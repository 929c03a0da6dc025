// The text of requests: what every call of the admin API is looked at for, in one place, before its handler sees it. Pure.
#pragma once

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace bulkhead {

// INVALID_ARGUMENT with the JSON pointer of each text of the message (keys of maps and what stands in a Struct included) that holds NUL or is
// no UTF-8, at most kMaxTextFindings of them. PostgreSQL keeps neither, and C's strings end at the one: a name would become another name.
absl::Status CheckRequestText(const google::protobuf::Message& request);

inline constexpr size_t kMaxTextFindings = 16;

}  // namespace bulkhead
