#include "link_stream.h"

#include <algorithm>

namespace bulkhead::sdk {
namespace {
constexpr size_t kFrameBytes = 32 * 1024;            // of a body that one frame does not hold, in its turn
constexpr size_t kWriterBuffer = 64 * 1024;          // what Write() may be ahead of the credit
constexpr uint32_t kCreditStep = link::kWindow / 2;  // consumed bytes that are worth a WINDOW
constexpr size_t kReadPrefix = 64 * 1024;            // read bytes that are worth moving the rest
constexpr size_t kSentPrefix = 64 * 1024;            // the same of a tunnel's sent bytes
constexpr size_t kKeptBuffer = 16 * 1024;            // what an empty buffer of a tunnel may keep
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

Headers LinkStream::TakeTrailers() {
  std::lock_guard lock(mutex_);
  return std::exchange(in_trailers_, {});
}

void LinkStream::SetTrailers(Headers trailers) {
  std::lock_guard lock(mutex_);
  in_trailers_ = std::move(trailers);
}

void LinkStream::Upgrade(std::string head, std::shared_ptr<LinkSocket> socket) {
  {
    std::lock_guard lock(mutex_);
    socket_ = std::move(socket);
    upgraded_.store(true, std::memory_order_release);
    status_ = 101;
    head_ = std::move(head);
    tunnel_ = head_ready_ = true;
  }
  NotifyLoop();
}

std::string LinkStream::TakeInput(bool& ended) {
  std::lock_guard lock(mutex_);
  ended = in_ended_;
  in_at_ = 0;
  return std::exchange(in_, {});
}

bool LinkStream::HasInput() {
  std::lock_guard lock(mutex_);
  return !in_.empty();
}

void LinkStream::Consumed(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    consumed_ += uint32_t(bytes);
    if (consumed_ < kCreditStep) return;
  }
  NotifyLoop();
}

bool LinkStream::Push(std::string_view header, std::string_view payload, size_t limit) {
  {
    std::lock_guard lock(mutex_);
    if (cancelled() || out_ended_ || out_.size() - out_at_ + header.size() + payload.size() > limit) return false;
    if (out_at_ >= kSentPrefix && out_at_ >= out_.size() / 2) {
      out_.erase(0, out_at_);
      out_at_ = 0;
    }
    out_.append(header).append(payload);
  }
  NotifyLoop();
  return true;
}

size_t LinkStream::unsent() {
  std::lock_guard lock(mutex_);
  return out_.size() - out_at_;
}

bool LinkStream::AwaitRoom(size_t mark) {
  std::lock_guard lock(mutex_);
  if (out_.size() - out_at_ <= mark) return false;
  room_mark_ = mark;
  return true;
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

LinkStream::Emitted LinkStream::Emit(std::string& out) {
  std::unique_lock lock(mutex_);
  if (abort_) {
    link::AppendCancel(out, id, *abort_);
    return Emitted::kDone;
  }
  if (!head_ready_) return Emitted::kNothing;
  if (tunnel_ && !head_sent_) {
    char frame[link::kHeaderSize];
    link::PutHeader(
        frame, {uint32_t(head_.size()), id, link::Type::kResponse, link::kUpgrade, uint16_t(status_), uint32_t(head_.size())});
    out.append(frame, sizeof frame).append(head_);
    head_sent_ = true;
    return Emitted::kMore;
  }
  size_t waiting = out_.size() - out_at_;
  size_t room = max_frame - (head_sent_ ? 0 : head_.size());  // EncodeHead() has seen that it fits
  if (head_sent_ || waiting > room) room = std::min(room, kFrameBytes);
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
  if (tunnel_) {
    if (room_mark_ && out_.size() - out_at_ <= *room_mark_) {
      room_mark_.reset();
      room_again = true;
    }
    if (out_at_ == out_.size()) {
      out_.clear();
      out_at_ = 0;
      if (out_.capacity() > kKeptBuffer) out_ = std::string();
    }
  }
  bool writable = out_.size() - out_at_ < kWriterBuffer;
  bool more = (out_at_ < out_.size() && send_credit > 0) || (last_byte && !trailers_.empty());
  lock.unlock();
  if (writable && n > 0) wake_.notify_all();
  return more ? Emitted::kMore : Emitted::kNothing;
}

}  // namespace bulkhead::sdk
