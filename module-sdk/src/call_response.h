// An HTTP/1.1 response as a client reads it: incremental and strict (RFC 9112). Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "bulkhead/http.h"

namespace bulkhead::sdk {

class ResponseReader {
 public:
  // `head_only`: the answer to a HEAD.
  explicit ResponseReader(bool head_only) : head_only_(head_only) {}

  enum class Progress { kMore, kDone, kMalformed, kUnwanted };
  // Takes all of `bytes`; interim answers (1xx) are passed over. Body bytes go to `on_body`, which may not want more: kUnwanted.
  Progress Take(std::string_view bytes, const std::function<bool(std::string_view)>& on_body);
  // The peer has closed: kDone for a body that ends so, else kMalformed.
  Progress End();

  bool begun() const { return begun_; }  // a byte has come
  int status() const { return status_; }  // 0 before the head is there
  Headers& headers() { return headers_; }
  // After kDone: whether another request may follow on the connection.
  bool keeps_alive() const { return keep_alive_; }

 private:
  enum class State : uint8_t { kHead, kLength, kUntilClose, kSize, kChunk, kChunkEnd, kTrailers, kDone };
  bool ParseHead(std::string_view head);
  bool ParseField(std::string_view line);
  // A line without its CR LF, taken from the front of `bytes`; what is there of it is kept. False: not complete, or (`bad`) too long.
  bool TakeLine(std::string_view& bytes, bool& bad);

  const bool head_only_;
  State state_ = State::kHead;
  bool begun_ = false, keep_alive_ = true, chunked_ = false, has_length_ = false;
  int status_ = 0;
  uint64_t left_ = 0;  // of a body or a chunk
  std::string line_;   // the head, or a line, on its way
  Headers headers_;
};

}  // namespace bulkhead::sdk
