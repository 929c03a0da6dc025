// Where a command writes: answers to `out`, everything else to `err`. Knows whether somebody looks at it. Not thread-safe.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

class Terminal {
 public:
  // columns 0: as wide as it gets, for files and pipes. `in`: where somebody answers; null when nobody does.
  Terminal(FILE* out, FILE* err, int columns, bool watched, FILE* in = nullptr) : out_(out), err_(err), in_(in), columns_(columns), watched_(watched) {}
  static Terminal Standard();

  void Out(std::string_view text);
  void Err(std::string_view text);
  void Flush() { fflush(out_); }  // for who reads it as it comes
  // A line on stderr that the next one replaces, and any other output removes; nothing unless somebody watches.
  void Progress(std::string_view text);
  // Asks on stderr; anything but "y" and "yes" is a no. nullopt: there is nobody to be asked.
  std::optional<bool> Ask(std::string_view question);
  bool watched() const { return watched_; }
  int columns() const { return columns_; }

 private:
  void Clear();
  FILE* out_;
  FILE* err_;
  FILE* in_;
  const int columns_;
  const bool watched_;
  bool progress_ = false;
};

// Rows under headings, each column as wide as its widest cell; on a terminal no column but the last is wider than 40, and the last is cut to what is left
// of the line.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : rows_{std::move(headings)} {}
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Text(int columns) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Columns that a text takes on a terminal: of its characters, wide and combining ones as such.
int DisplayWidth(std::string_view text);

}  // namespace bulkhead
