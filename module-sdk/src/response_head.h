// A response's headers as the link carries them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bulkhead/http.h"

namespace bulkhead::sdk {

struct ResponseHead {
  std::string encoded;                     // count and pairs
  std::optional<uint64_t> content_length;  // of a streamed body, as the author promised it
  std::string problem;                     // not empty: the head must not be sent, and why
};

// `whole`: the body is complete, so its length is the SDK's to say. Adds content-length when `body_size` will not fit one frame.
// `max_frame`: bytes that the peer takes in one frame; a longer head is a problem.
ResponseHead EncodeHead(int status, const Headers& headers, bool whole, size_t body_size, size_t max_frame);
// Trailers in the same form; empty when one of them must not be sent.
std::string EncodePairs(const Headers& pairs, size_t max_frame);

}  // namespace bulkhead::sdk
