#include "supervisor/process/log_pipe.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kReadSize = 64 * 1024;       // one read of a pipe's default capacity per turn of the loop
constexpr size_t kDrainLimit = 1024 * 1024;   // Drain() against a writer that never stops
constexpr Millis kRateWindow{1'000};
// Between two reads of a flood: to read 100 MB/s only to drop them would take the processor from those who work. Its writer waits meanwhile.
constexpr Millis kFloodPause{5};

}  // namespace

void OutputTail::Append(std::string_view line) {
  text_.append(line);
  text_.push_back('\n');
  // Cut rarely: at twice the size, so that a line costs its own length.
  if (text_.size() > 2 * limits::kExitOutput) text_.erase(0, text_.size() - limits::kExitOutput);
}

std::string OutputTail::Text() const {
  std::string_view tail = text_;
  if (tail.size() > limits::kExitOutput) {
    tail.remove_prefix(tail.size() - limits::kExitOutput);
    size_t line_end = tail.find('\n');
    if (line_end + 1 < tail.size()) tail.remove_prefix(line_end + 1);  // from the start of a line
  }
  std::string text = ValidUtf8(tail);
  if (text.size() > limits::kExitOutput) {  // replacements are longer than what they replace
    size_t cut = text.size() - limits::kExitOutput;
    while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
    text.erase(0, cut);
    text.shrink_to_fit();  // it is kept with a crash report
  }
  return text;
}

LogRate::LogRate(Loop& loop, DroppedFn dropped) : loop_(loop), dropped_fn_(std::move(dropped)) {}

LogRate::~LogRate() { loop_.Cancel(window_); }

bool LogRate::Admit(size_t bytes) {
  if (window_ == 0) {
    window_ = loop_.After(kRateWindow, [this] {
      window_ = 0;
      lines_in_window_ = 0;
      bytes_in_window_ = 0;
      Flush();
    });
  }
  bytes_in_window_ += bytes;
  if (++lines_in_window_ <= limits::kLogLinesPerSecond && bytes_in_window_ <= limits::kLogBytesPerSecond) return true;
  ++dropped_;
  return false;
}

void LogRate::Flush() {
  if (uint64_t count = std::exchange(dropped_, 0); count > 0) {
    dropped_fn_(count, "[" + std::to_string(count) + " lines dropped: more than " + std::to_string(limits::kLogLinesPerSecond) +
                           " lines or " + std::to_string(limits::kLogBytesPerSecond / 1024) + " KiB in a second]");
  }
}

// Shared with the callbacks of the loop and with a call that is on its way: the line function may destroy the LogPipe.
struct LogPipe::State {
  State(Loop& l, UniqueFd f, std::shared_ptr<OutputTail> t, std::shared_ptr<LogRate> r, LineFn fn)
      : loop(l), fd(std::move(f)), tail(std::move(t)), rate(std::move(r)), line(std::move(fn)) {}

  Loop& loop;
  UniqueFd fd;
  std::shared_ptr<OutputTail> tail;
  std::shared_ptr<LogRate> rate;
  LineFn line;
  bool closed = false;
  std::string partial;
  bool skipping = false;  // the rest of a line that was cut
  bool refused = false;   // something of the last read was over the rate

  void Close() {
    if (fd) loop.Unwatch(fd.get());
    fd.Reset();
    closed = true;
  }

  void Emit(std::string_view text) {
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    if (tail) tail->Append(text);
    if (!rate->Admit(text.size())) refused = true;
    else if (!closed) line(text);
  }

  void EmitCut() {
    std::string_view kept = CutUtf8(partial, limits::kMaxLogLine);
    std::string text = std::string(kept) + " … [cut at " + std::to_string(limits::kMaxLogLine) + " bytes]";
    partial.clear();
    Emit(text);
  }

  void Consume(std::string_view bytes) {
    while (!bytes.empty() && !closed) {
      size_t end = bytes.find('\n');
      std::string_view piece = bytes.substr(0, end);
      if (!skipping) {
        // One byte more than the limit is enough to know that the line is too long.
        partial.append(piece.substr(0, limits::kMaxLogLine + 1 - partial.size()));
        if (partial.size() > limits::kMaxLogLine) {
          EmitCut();
          skipping = true;
        }
      } else {
        if (!rate->Admit(piece.size())) refused = true;  // what is skipped is a flood all the same when it is much
      }
      if (end == std::string_view::npos) return;
      if (!std::exchange(skipping, false)) Emit(std::exchange(partial, {}));
      bytes.remove_prefix(end + 1);
    }
  }

  void Flush() {
    if (!partial.empty() && !closed) Emit(std::exchange(partial, {}));
  }

  // False when nothing more is to be had now.
  bool ReadOnce(char* buffer) {
    if (closed) return false;
    ssize_t size = read(fd.get(), buffer, kReadSize);
    if (size > 0) {
      Consume({buffer, static_cast<size_t>(size)});
      return true;
    }
    if (size < 0 && errno == EINTR) return true;
    if (size < 0 && errno == EAGAIN) return false;
    Flush();
    if (closed) return false;
    EndOfStream();
    return false;
  }

  static void Watch(const std::shared_ptr<State>& state) {
    state->loop.Watch(state->fd.get(), EPOLLIN, [state](uint32_t) {
      const std::shared_ptr<State> self = state;  // Unwatch() ends what captures it
      char buffer[kReadSize];
      self->refused = false;
      self->ReadOnce(buffer);
      if (!self->refused || !self->fd) return;
      self->loop.Unwatch(self->fd.get());
      self->loop.After(kFloodPause, [self] {
        if (self->fd) Watch(self);
      });
    });
  }

  void EndOfStream() {
    loop.Unwatch(fd.get());
    fd.Reset();
  }
};

LogPipe::LogPipe(Loop& loop, UniqueFd read_end, std::shared_ptr<OutputTail> tail, std::shared_ptr<LogRate> rate, LineFn line)
    : state_(std::make_shared<State>(loop, std::move(read_end), std::move(tail), std::move(rate), std::move(line))) {
  int fd = state_->fd.get();
  if (fd < 0) return;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  State::Watch(state_);
}

LogPipe::~LogPipe() { state_->Close(); }

void LogPipe::Drain() {
  auto state = state_;
  std::string buffer(kReadSize, '\0');
  for (size_t reads = 0; state->fd && reads < kDrainLimit / kReadSize && state->ReadOnce(buffer.data()); ++reads) {
  }
  // The program has ended: what it left without a newline was its last line.
  state->Flush();
}

}  // namespace bulkhead
