// W3C Trace Context (https://www.w3.org/TR/trace-context/): the trace that a request or a run of a job belongs to. A value; what a handler calls
// gets the headers of it, so that the whole is one trace:
//   for (const auto& [name, value] : CurrentTrace::Get().Headers()) call.SetHeader(name, value);
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bulkhead::sdk {

class Request;

class TraceContext {
 public:
  TraceContext() = default;  // not valid
  // Not valid when `traceparent` is malformed; then `tracestate` counts for nothing.
  static TraceContext Parse(std::string_view traceparent, std::string_view tracestate = {});

  bool valid() const { return !trace_id_.empty(); }
  const std::string& trace_id() const { return trace_id_; }  // 32 lower-case hexadecimal digits; empty when not valid
  const std::string& span_id() const { return span_id_; }    // 16 of them: of the supervisor's span, the parent of the module's
  bool sampled() const { return sampled_; }
  const std::string& tracestate() const { return tracestate_; }

  // A span of the module's own below this one: the same trace with a new random span_id. Not valid stays not valid.
  TraceContext Child() const;
  // As the header's value; "" when not valid.
  std::string traceparent() const;
  // `traceparent` and, when there is one, `tracestate`, for a call that belongs to it. None when not valid.
  std::vector<std::pair<std::string, std::string>> Headers() const;

 private:
  std::string trace_id_, span_id_, tracestate_;
  bool sampled_ = false;
};

// The context of the handler that this thread runs: a request's, or a job's. Other threads, and streams and sockets behind their handler, have none.
class CurrentTrace {
 public:
  static const TraceContext& Get();  // not valid where there is none

  // Makes `context` the thread's for the life of the scope. The SDK does so around each handler; an author does it on a thread of his own.
  class Scope {
   public:
    explicit Scope(TraceContext context);
    explicit Scope(const Request& request);  // read when it is asked for; `request` outlives the scope
    ~Scope();
    Scope(const Scope&) = delete;

   private:
    friend class CurrentTrace;
    const Request* request_ = nullptr;  // not read yet
    TraceContext context_;
    Scope* const before_;
  };

 private:
  static thread_local Scope* current_;
};

}  // namespace bulkhead::sdk
