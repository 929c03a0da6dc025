#include "call_response.h"

#include <algorithm>
#include <charconv>

namespace bulkhead::sdk {
namespace {

constexpr size_t kMaxResponseHead = 128 * 1024;  // the gateway's are shorter: 64 KiB of a module's and its own fields
constexpr size_t kMaxTrailers = 64 * 1024;

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool ParseDigits(std::string_view text, int base, uint64_t& value) {
  if (text.empty() || text.size() > 15) return false;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

bool ResponseReader::ParseField(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  std::string name(line.substr(0, colon));
  for (char& c : name) {
    if (c <= ' ' || c == 0x7f) return false;
    if (c >= 'A' && c <= 'Z') c = char(c + 32);
  }
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) return false;
  if (name == "content-length") {
    if (has_length_ || !ParseDigits(value, 10, left_)) return false;
    has_length_ = true;
  } else if (name == "transfer-encoding") {
    if (value != "chunked" || chunked_) return false;
    chunked_ = true;
  } else if (name == "connection") {
    if (value == "close") keep_alive_ = false;
  }
  headers_.emplace_back(std::move(name), value);
  return true;
}

// `head` ends with the CR LF of its last field.
bool ResponseReader::ParseHead(std::string_view head) {
  headers_.clear();
  has_length_ = chunked_ = false;
  left_ = 0;
  bool first = true;
  while (!head.empty()) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (!std::exchange(first, false)) {
      if (!ParseField(line)) return false;
      continue;
    }
    uint64_t status = 0;
    if (!line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ' || !ParseDigits(line.substr(9, 3), 10, status)) return false;
    if (status < 100 || (line.size() > 12 && line[12] != ' ')) return false;
    if (line[7] == '0') keep_alive_ = false;
    status_ = int(status);
  }
  if (status_ < 200) return status_ != 101;  // nobody has asked for another protocol
  if (has_length_ && chunked_) return false;
  if (head_only_ || status_ == 204 || status_ == 304) state_ = State::kDone;
  else if (chunked_) state_ = State::kSize;
  else if (has_length_) state_ = left_ > 0 ? State::kLength : State::kDone;
  else state_ = State::kUntilClose;
  return true;
}

bool ResponseReader::TakeLine(std::string_view& bytes, bool& bad) {
  const size_t lf = bytes.find('\n');
  const size_t take = lf == std::string_view::npos ? bytes.size() : lf + 1;
  line_.append(bytes.substr(0, take));
  bytes.remove_prefix(take);
  bad = line_.size() > kMaxTrailers || (lf != std::string_view::npos && !line_.ends_with("\r\n"));
  if (bad || lf == std::string_view::npos) return false;
  line_.resize(line_.size() - 2);
  return true;
}

ResponseReader::Progress ResponseReader::Take(std::string_view bytes, const std::function<bool(std::string_view)>& on_body) {
  begun_ = begun_ || !bytes.empty();
  bool bad = false;
  while (!bytes.empty() && state_ != State::kDone) {
    switch (state_) {
      case State::kHead: {
        const size_t before = line_.size();
        line_.append(bytes);
        const size_t end = line_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
        if (end == std::string::npos) return line_.size() > kMaxResponseHead ? Progress::kMalformed : Progress::kMore;
        bytes.remove_prefix(end + 4 - before);
        if (!ParseHead(std::string_view(line_).substr(0, end + 2))) return Progress::kMalformed;
        line_.clear();
        break;
      }
      case State::kLength:
      case State::kChunk:
      case State::kUntilClose: {
        const size_t take = state_ == State::kUntilClose ? bytes.size() : size_t(std::min<uint64_t>(left_, bytes.size()));
        if (!on_body(bytes.substr(0, take))) return Progress::kUnwanted;
        bytes.remove_prefix(take);
        if (state_ == State::kUntilClose) break;
        left_ -= take;
        if (left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
        break;
      }
      case State::kSize:
        if (!TakeLine(bytes, bad)) break;
        if (!ParseDigits(Trimmed(std::string_view(line_).substr(0, line_.find(';'))), 16, left_)) return Progress::kMalformed;
        line_.clear();
        state_ = left_ > 0 ? State::kChunk : State::kTrailers;
        break;
      case State::kChunkEnd:
        if (!TakeLine(bytes, bad)) break;
        if (!line_.empty()) return Progress::kMalformed;
        state_ = State::kSize;
        break;
      case State::kTrailers:  // read and dropped
        if (!TakeLine(bytes, bad)) break;
        if (line_.empty()) state_ = State::kDone;
        line_.clear();
        break;
      case State::kDone: break;
    }
    if (bad) return Progress::kMalformed;
  }
  if (state_ != State::kDone) return Progress::kMore;
  if (!bytes.empty()) keep_alive_ = false;  // nothing was asked that this could be the answer to
  return Progress::kDone;
}

ResponseReader::Progress ResponseReader::End() {
  keep_alive_ = false;
  return state_ == State::kUntilClose ? Progress::kDone : Progress::kMalformed;
}

}  // namespace bulkhead::sdk
