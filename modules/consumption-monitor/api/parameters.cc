#include "api/parameters.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace consumption {
namespace {

constexpr size_t kMaxEcho = 64;  // bytes of what a client sent that come back in a message

// What a client sent, fit for a JSON document: the rest may be no UTF-8.
std::string Printable(std::string_view text) {
  std::string out(text.substr(0, kMaxEcho));
  std::replace_if(out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
  return out;
}

std::string Joined(std::initializer_list<std::string_view> words) {
  std::string out;
  for (std::string_view word : words) out.append(out.empty() ? "" : ", ").append(word);
  return out;
}

}  // namespace

Parameters::Parameters(const bulkhead::sdk::Request& request, std::initializer_list<std::string_view> known)
    : request_(request) {
  std::set<std::string> seen;
  for (const auto& [name, value] : request.query()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      Refuse(Printable(name), "UNKNOWN_PARAMETER", known.size() == 0 ? "There are no parameters here." : "Known are " + Joined(known) + ".");
    } else if (!seen.insert(name).second) {
      Refuse(name, "REPEATED_PARAMETER", "Give this once.");
    }
  }
}

int64_t Parameters::Integer(std::string_view name, int64_t fallback, int64_t min, int64_t max) {
  const auto text = request_.query(name);
  if (!text) return fallback;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  const bool number = !text->empty() && end == text->data() + text->size();
  if (!number || error == std::errc::invalid_argument) {
    Refuse(name, "NOT_AN_INTEGER", "\"" + Printable(*text) + "\" is not a whole number.");
    return fallback;
  }
  if (error == std::errc::result_out_of_range || value < min || value > max) {
    Refuse(name, "OUT_OF_RANGE", "This must be from " + std::to_string(min) + " to " + std::to_string(max) + ".");
    return fallback;
  }
  return value;
}

std::optional<Timestamp> Parameters::Time(std::string_view name) {
  auto text = request_.query(name);
  if (!text) return std::nullopt;
  // A '+' that was not written as %2B arrives as a space; before an offset nothing else can be meant.
  constexpr size_t kOffset = 6;
  if (text->size() > kOffset && (*text)[text->size() - kOffset] == ' ') (*text)[text->size() - kOffset] = '+';
  const auto at = ParseTimestamp(*text);
  if (!at) {
    Refuse(name, "NOT_A_TIME", "\"" + Printable(*text) + "\" is not a time of RFC 3339, such as 2026-01-31T12:00:00Z.");
  }
  return at;
}

std::optional<std::string> Parameters::Name(std::string_view name) {
  auto text = request_.query(name);
  if (text && !IsName(*text)) {
    Refuse(name, "NOT_A_NAME",
           "This must be 1 to " + std::to_string(kMaxName) + " letters, digits, dots, underscores or hyphens.");
    return std::nullopt;
  }
  return text;
}

std::string Parameters::OneOf(std::string_view name, std::string_view fallback,
                              std::initializer_list<std::string_view> allowed) {
  const auto text = request_.query(name);
  if (!text) return std::string(fallback);
  if (std::find(allowed.begin(), allowed.end(), *text) == allowed.end()) {
    Refuse(name, "NOT_ALLOWED", "\"" + Printable(*text) + "\" is not one of " + Joined(allowed) + ".");
    return std::string(fallback);
  }
  return *text;
}

void Parameters::Refuse(std::string_view name, std::string_view code, const std::string& message) {
  problems_.push_back({{"path", "query." + std::string(name)}, {"code", code}, {"message", message}});
}

void Parameters::Check() const {
  if (problems_.empty()) return;
  const size_t count = problems_.size();
  throw bulkhead::sdk::HttpError(400, "INVALID_ARGUMENT",
                                 count == 1 ? "A query parameter is wrong; see details."
                                            : std::to_string(count) + " query parameters are wrong; see details.",
                                 problems_);
}

bool Parameters::IsName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxName && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace consumption
