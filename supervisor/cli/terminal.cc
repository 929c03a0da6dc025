#include "supervisor/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

namespace bulkhead {
namespace {

constexpr int kGap = 2;            // between two columns
constexpr int kLeastLast = 12;     // a last column is never cut below this
constexpr int kMostOfOne = 40;     // what any other column takes at most
constexpr char kClearLine[] = "\r\x1b[K";

// The character at the start of `text`: its code and length. What is no UTF-8 is one character per byte.
char32_t Decode(std::string_view text, size_t& length) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  length = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : byte(0) >= 0xC0 ? 2 : 1;
  if (length > text.size()) length = 1;
  if (length == 1) return byte(0);
  char32_t code = byte(0) & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3F);
  return code;
}

// East Asian wide forms and emoji take two columns, combining marks none (Unicode TR 11, its large blocks).
int WidthOf(char32_t c) {
  if ((c >= 0x300 && c <= 0x36F) || (c >= 0x200B && c <= 0x200F) || (c >= 0xFE00 && c <= 0xFE0F)) return 0;
  const bool wide = (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
                    (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
                    (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
  return wide ? 2 : 1;
}

std::string Cut(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  std::string cut;
  int used = 1;  // of the ellipsis
  while (!text.empty()) {
    size_t length = 1;
    const int next = WidthOf(Decode(text, length));
    if (used + next > width) break;
    cut += text.substr(0, length);
    used += next;
    text.remove_prefix(length);
  }
  return cut + "…";
}

// One line, and nothing that a terminal would obey: what is shown may come from a module.
std::string Harmless(std::string_view text) {
  std::string line;
  for (const char c : text) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
  return line;
}

}  // namespace

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    size_t length = 1;
    width += WidthOf(Decode(text, length));
    text.remove_prefix(length);
  }
  return width;
}

Terminal Terminal::Standard() {
  winsize size{};
  const bool out = isatty(STDOUT_FILENO), known = out && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  return Terminal(stdout, stderr, known ? size.ws_col : 0, isatty(STDERR_FILENO), isatty(STDIN_FILENO) && isatty(STDERR_FILENO) ? stdin : nullptr);
}

void Terminal::Clear() {
  if (progress_) fputs(kClearLine, err_);
  progress_ = false;
}

void Terminal::Out(std::string_view text) {
  Clear();
  fwrite(text.data(), 1, text.size(), out_);
}

void Terminal::Err(std::string_view text) {
  Clear();
  fflush(out_);
  fwrite(text.data(), 1, text.size(), err_);
}

void Terminal::Progress(std::string_view text) {
  if (!watched_) return;
  Clear();
  const std::string line = columns_ > 0 ? Cut(Harmless(text), columns_ - 1) : Harmless(text);
  fputs(line.c_str(), err_);
  fflush(err_);
  progress_ = true;
}

std::optional<bool> Terminal::Ask(std::string_view question) {
  if (in_ == nullptr) return std::nullopt;
  Err(std::string(question) + " [y/N] ");
  fflush(err_);
  char line[64] = "";
  if (fgets(line, sizeof line, in_) == nullptr) return false;
  std::string answer(line);
  answer.erase(answer.find_last_not_of(" \n") + 1);
  return answer == "y" || answer == "Y" || answer == "yes";
}

std::string Table::Text(int columns) const {
  std::vector<std::vector<std::string>> rows = rows_;
  std::vector<int> widths(rows_[0].size());
  for (auto& row : rows) {
    row.resize(widths.size());
    for (size_t c = 0; c < row.size(); ++c) {
      row[c] = Harmless(row[c]);
      widths[c] = std::max(widths[c], DisplayWidth(row[c]));
    }
  }
  if (columns > 0) {
    for (size_t c = 0; c + 1 < widths.size(); ++c) widths[c] = std::min(widths[c], kMostOfOne);
  }
  int before_last = 0;
  for (size_t c = 0; c + 1 < widths.size(); ++c) before_last += widths[c] + kGap;
  if (columns > 0) widths.back() = std::min(widths.back(), std::max(columns - before_last, kLeastLast));
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string cell = Cut(row[c], widths[c]);
      line += cell + std::string(static_cast<size_t>(widths[c] - DisplayWidth(cell) + kGap), ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace bulkhead
