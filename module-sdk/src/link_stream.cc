#include "link_stream.h"

#include <algorithm>

namespace bulkhead::sdk {
namespace {
constexpr size_t kWriterBuffer = 64 * 1024;          // what Write() may be ahead of the credit
constexpr uint32_t kCreditStep = link::kWindow / 2;  // consumed bytes that are worth a WINDOW
constexpr size_t kReadPrefix = 64 * 1024;            // read bytes that are worth moving the rest
}  // namespace

size_t LinkStream::Read(char* out, size_t size) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return cancelled() || in_at_ < in_.size() || in_ended_; });
  if (cancelled()) throw RequestCancelled();
  size_t n = std::min(size, in_.size() - in_at_);
  std::copy_n(in_.data() + in_at_, n, out);
  in_at_ += n;
  if (in_at_ == in_.size()) {
    in_.clear();
    in_at_ = 0;
  }
  consumed_ += uint32_t(n);
  bool credit = consumed_ >= kCreditStep;
  lock.unlock();
  if (credit) NotifyLoop();
  return n;
}

void LinkStream::Respond(int status, std::string head, std::string body, bool end) {
  {
    std::lock_guard lock(mutex_);
    status_ = status;
    head_ = std::move(head);
    out_ = std::move(body);
    out_at_ = 0;
    head_ready_ = true;
    out_ended_ = end;
  }
  NotifyLoop();
}

bool LinkStream::Write(std::string_view data) {
  while (!data.empty()) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return cancelled() || out_.size() - out_at_ < kWriterBuffer; });
      if (cancelled()) return false;
      if (out_at_ > 0) {
        out_.erase(0, out_at_);
        out_at_ = 0;
      }
      size_t n = std::min(data.size(), kWriterBuffer - out_.size());
      out_.append(data.substr(0, n));
      data.remove_prefix(n);
    }
    NotifyLoop();
  }
  return !cancelled();
}

void LinkStream::End(std::string trailers) {
  {
    std::lock_guard lock(mutex_);
    trailers_ = std::move(trailers);
    out_ended_ = true;
  }
  NotifyLoop();
}

void LinkStream::Abort(link::CancelCode code) {
  {
    std::lock_guard lock(mutex_);
    abort_ = code;
  }
  NotifyLoop();
}

void LinkStream::PushBody(std::string_view data, bool end) {
  {
    std::lock_guard lock(mutex_);
    if (in_at_ >= kReadPrefix) {
      in_.erase(0, in_at_);
      in_at_ = 0;
    }
    in_.append(data);
    in_ended_ |= end;
  }
  wake_.notify_all();
}

uint32_t LinkStream::TakeConsumed() {
  std::lock_guard lock(mutex_);
  return consumed_ >= kCreditStep ? std::exchange(consumed_, 0) : 0;
}

void LinkStream::Cancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_.store(true, std::memory_order_release);
  }
  wake_.notify_all();
}

LinkStream::Emitted LinkStream::Emit(std::string& out, uint32_t max_frame) {
  std::unique_lock lock(mutex_);
  if (abort_) {
    link::AppendCancel(out, id, *abort_);
    return Emitted::kDone;
  }
  if (!head_ready_) return Emitted::kNothing;
  size_t waiting = out_.size() - out_at_;
  size_t room = max_frame - (head_sent_ ? 0 : head_.size());
  size_t n = size_t(std::min<int64_t>({int64_t(waiting), int64_t(room), send_credit}));
  bool last_byte = out_ended_ && n == waiting;
  bool end = last_byte && trailers_.empty();
  if (head_sent_ && n == 0 && !last_byte) return Emitted::kNothing;

  char header[link::kHeaderSize];
  if (head_sent_ && n == 0 && last_byte && !trailers_.empty()) {
    link::PutHeader(header, {uint32_t(trailers_.size()), id, link::Type::kData, uint8_t(link::kEnd | link::kTrailers), 0,
                             uint32_t(trailers_.size())});
    out.append(header, sizeof header).append(trailers_);
    return Emitted::kDone;
  }
  uint8_t flags = end ? uint8_t(link::kEnd) : uint8_t(0);
  if (!head_sent_) {
    link::PutHeader(header,
                    {uint32_t(head_.size() + n), id, link::Type::kResponse, flags, uint16_t(status_), uint32_t(head_.size())});
    out.append(header, sizeof header).append(head_);
    head_sent_ = true;
  } else {
    link::PutHeader(header, {uint32_t(n), id, link::Type::kData, flags, 0, 0});
    out.append(header, sizeof header);
  }
  out.append(out_, out_at_, n);
  out_at_ += n;
  send_credit -= int64_t(n);
  if (end) return Emitted::kDone;
  bool room_again = out_.size() - out_at_ < kWriterBuffer;
  bool more = (out_at_ < out_.size() && send_credit > 0) || (last_byte && !trailers_.empty());
  lock.unlock();
  if (room_again && n > 0) wake_.notify_all();
  return more ? Emitted::kMore : Emitted::kNothing;
}

}  // namespace bulkhead::sdk
