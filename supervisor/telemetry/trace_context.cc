#include "supervisor/telemetry/trace_context.h"

#include <algorithm>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

constexpr size_t kLongMember = 128;  // 3.3.1.5: what is longer goes first
constexpr size_t kMaxKey = 256, kMaxValue = 256;

// Lower-case digits alone, as the spec wants them.
bool ReadHex(std::string_view digits, uint64_t& value) {
  value = 0;
  for (char c : digits) {
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    value = value << 4 | uint64_t(digit);
  }
  return true;
}

bool LowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool ValidMember(std::string_view member) {
  const size_t equals = member.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view key = member.substr(0, equals), value = member.substr(equals + 1);
  if (key.empty() || key.size() > kMaxKey || !LowerOrDigit(key[0])) return false;
  for (char c : key) {
    if (!LowerOrDigit(c) && std::string_view("_-*/@").find(c) == std::string_view::npos) return false;
  }
  if (value.empty() || value.size() > kMaxValue || value.back() == ' ') return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7e && c != '=' && c != ','; });
}

std::string_view Stripped(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

}  // namespace

bool ParseTraceparent(std::string_view v, TraceContext& context) {
  if (v.size() < kTraceparentSize || v[2] != '-' || v[35] != '-' || v[52] != '-') return false;
  uint64_t version, flags;
  TraceContext read;
  if (!ReadHex(v.substr(0, 2), version) || version == 0xff) return false;
  if (!ReadHex(v.substr(3, 16), read.trace_high) || !ReadHex(v.substr(19, 16), read.trace_low) || !ReadHex(v.substr(36, 16), read.span)) return false;
  if (!ReadHex(v.substr(53, 2), flags)) return false;
  if (v.size() > kTraceparentSize && (version == 0 || v[kTraceparentSize] != '-')) return false;
  if (!read.valid()) return false;
  read.sampled = flags & 1;
  context = read;
  return true;
}

void AppendHex(std::string& out, uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  char text[16];
  for (int i = 15; i >= 0; --i, value >>= 4) text[i] = kDigits[value & 15];
  out.append(text, sizeof text);
}

void AppendTraceparent(std::string& out, const TraceContext& context) {
  out += "00-";
  AppendHex(out, context.trace_high);
  AppendHex(out, context.trace_low);
  out += '-';
  AppendHex(out, context.span);
  out += context.sampled ? "-01" : "-00";
}

std::string FormatTraceparent(const TraceContext& context) {
  std::string text;
  AppendTraceparent(text, context);
  return text;
}

std::string TraceId(const TraceContext& context) {
  std::string text;
  AppendHex(text, context.trace_high);
  AppendHex(text, context.trace_low);
  return text;
}

TraceContext ChildOf(const TraceContext& parent, Random& random) {
  TraceContext child = parent;
  if (!parent.valid()) child = {random.Next(), random.Next() | 1, 0, false};  // never all zero
  child.span = random.Next() | 1;
  return child;
}

std::string CombineTracestate(const std::vector<std::string_view>& fields) {
  std::vector<std::string_view> members;
  size_t size = 0;
  for (std::string_view field : fields) {
    while (!field.empty()) {
      const size_t comma = field.find(',');
      const std::string_view member = Stripped(field.substr(0, comma));
      field = comma == std::string_view::npos ? std::string_view() : field.substr(comma + 1);
      if (member.empty()) continue;  // allowed, and nothing
      if (!ValidMember(member) || members.size() == limits::kMaxTracestateMembers) return "";
      members.push_back(member);
      size += member.size() + 1;
    }
  }
  auto drop = [&](std::vector<std::string_view>::iterator which) {
    size -= which->size() + 1;
    members.erase(which);
  };
  while (size > limits::kMaxTracestate + 1) {
    auto longest = std::find_if(members.rbegin(), members.rend(), [](std::string_view member) { return member.size() > kLongMember; });
    drop(longest == members.rend() ? std::prev(members.end()) : std::prev(longest.base()));
  }
  std::string combined;
  for (std::string_view member : members) combined.append(combined.empty() ? "" : ",").append(member);
  return combined;
}

}  // namespace bulkhead
