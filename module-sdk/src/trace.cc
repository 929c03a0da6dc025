#include "bulkhead/trace.h"

#include <random>

#include "bulkhead/http.h"

namespace bulkhead::sdk {
namespace {

constexpr size_t kTraceparent = 55;  // bytes, of version 00

bool IsHex(std::string_view digits) {
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
bool IsId(std::string_view digits) { return IsHex(digits) && digits.find_first_not_of('0') != std::string_view::npos; }

}  // namespace

TraceContext TraceContext::Parse(std::string_view v, std::string_view tracestate) {
  TraceContext context;
  if (v.size() < kTraceparent || v[2] != '-' || v[35] != '-' || v[52] != '-') return context;
  const std::string_view version = v.substr(0, 2), flags = v.substr(53, 2);
  if (!IsHex(version) || version == "ff" || !IsHex(flags) || !IsId(v.substr(3, 32)) || !IsId(v.substr(36, 16))) return context;
  if (v.size() > kTraceparent && (version == "00" || v[kTraceparent] != '-')) return context;
  context.trace_id_ = v.substr(3, 32);
  context.span_id_ = v.substr(36, 16);
  context.sampled_ = std::string_view("13579bdf").find(flags[1]) != std::string_view::npos;
  context.tracestate_ = tracestate;
  return context;
}

TraceContext TraceContext::Child() const {
  static thread_local std::mt19937_64 chance(std::random_device{}());
  TraceContext child = *this;
  if (!valid()) return child;
  uint64_t id = chance() | 1;  // never all zero
  for (char& digit : child.span_id_) {
    digit = "0123456789abcdef"[id >> 60];
    id <<= 4;
  }
  return child;
}

std::string TraceContext::traceparent() const {
  return valid() ? "00-" + trace_id_ + "-" + span_id_ + (sampled_ ? "-01" : "-00") : std::string();
}

std::vector<std::pair<std::string, std::string>> TraceContext::Headers() const {
  std::vector<std::pair<std::string, std::string>> headers;
  if (!valid()) return headers;
  headers.emplace_back("traceparent", traceparent());
  if (!tracestate_.empty()) headers.emplace_back("tracestate", tracestate_);
  return headers;
}

thread_local CurrentTrace::Scope* CurrentTrace::current_ = nullptr;

const TraceContext& CurrentTrace::Get() {
  static const TraceContext none;
  if (!current_) return none;
  if (const Request* request = std::exchange(current_->request_, nullptr)) current_->context_ = request->trace();
  return current_->context_;
}

CurrentTrace::Scope::Scope(TraceContext context) : context_(std::move(context)), before_(current_) { current_ = this; }
CurrentTrace::Scope::Scope(const Request& request) : request_(&request), before_(current_) { current_ = this; }
CurrentTrace::Scope::~Scope() { current_ = before_; }

}  // namespace bulkhead::sdk
