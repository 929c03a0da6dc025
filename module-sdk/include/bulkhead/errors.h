// What a module's code throws, and what each becomes at the edge where the SDK catches it. Anything else derived from
// std::exception is caught there too: a handler's becomes 500 INTERNAL (its text goes to the log, never to the client),
// a job's becomes the error INTERNAL, retryable.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace bulkhead::sdk {

using Json = nlohmann::json;

// The configuration is wrong and starting again would not help. From Module::Initialize or Start: the supervisor records the
// message, does not retry until something changes, and the process leaves with exit code 125.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An answer to the client in the error envelope. The only exception whose text a client sees.
class HttpError : public std::runtime_error {
 public:
  // `status` 400 to 599, `code` UPPER_SNAKE, `message` a sentence, `details` an array of objects (may be empty).
  HttpError(int status, std::string_view code, const std::string& message, Json details = Json::array())
      : std::runtime_error(message), status_(status), code_(code), details_(std::move(details)) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }
  const Json& details() const { return details_; }

 private:
  int status_;
  std::string code_;
  Json details_;
};

// Thrown out of Request::body() or Read() when the client has gone or the route's time is over. Let it pass: nobody is waiting.
class RequestCancelled : public std::runtime_error {
 public:
  RequestCancelled() : std::runtime_error("the request was cancelled") {}
};

// The supervisor refused what a module asked it for, or did not answer.
class HostError : public std::runtime_error {
 public:
  HostError(const std::string& message, bool transient) : std::runtime_error(message), transient_(transient) {}
  bool transient() const { return transient_; }  // the same may succeed later

 private:
  bool transient_;
};

// A call of another module has no answer, or (CallAnswer::data()) one that says no. Out of a handler a transient one becomes 503
// MODULE_UNAVAILABLE with Retry-After, any other 500, like anything else; the text goes to the log.
class ModuleCallError : public std::runtime_error {
 public:
  ModuleCallError(const std::string& message, bool transient, int status = 0, std::string_view code = {})
      : std::runtime_error(message), transient_(transient), status_(status), code_(code) {}
  bool transient() const { return transient_; }      // the same may succeed later; whether something was done already is not known
  int status() const { return status_; }             // of the answer; 0: there was none
  const std::string& code() const { return code_; }  // of its envelope; may be empty

 private:
  bool transient_;
  int status_;
  std::string code_;
};

// Ends a job's run as failed. With `retryable` false there is no further attempt.
class JobFailure : public std::runtime_error {
 public:
  JobFailure(std::string_view code, const std::string& message, bool retryable = true)
      : std::runtime_error(message), code_(code), retryable_(retryable) {}
  const std::string& code() const { return code_; }
  bool retryable() const { return retryable_; }

 private:
  std::string code_;
  bool retryable_;
};

// Thrown out of JobContext::ThrowIfCancelled().
class JobCancelled : public std::runtime_error {
 public:
  JobCancelled() : std::runtime_error("the run was cancelled") {}
};

}  // namespace bulkhead::sdk
