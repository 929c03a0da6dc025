#include "supervisor/cli/report.h"

#include <utility>

#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr std::pair<const char*, const char*> kNextSteps[] = {
    {"SERVER_UNREACHABLE", "Is `bulkhead serve` running there? Another one is named by --server HOST:PORT or BULKHEAD_SERVER."},
    {"SHUTTING_DOWN", "What was begun goes on when a supervisor is there again; ask again then."},
    {"UNAUTHENTICATED", "Give a token with --token-file FILE or in BULKHEAD_TOKEN."},
    {"FORBIDDEN", "Ask an administrator for a token with that permission."},
    {"MODULE_NOT_FOUND", "`bulkhead migrate status` lists the modules."},
    {"JOB_NOT_FOUND", "`bulkhead jobs NAME` lists the jobs of a module."},
    {"RUN_NOT_FOUND", "`bulkhead runs` lists the runs that are kept."},
    {"RUN_ENDED", "`bulkhead runs ID` shows what came of it."},
    {"ARTIFACT_NOT_FOUND", "`bulkhead runs ID` lists the files of a run."},
    {"SUBSCRIPTION_NOT_FOUND", "`bulkhead events subscriptions` lists the subscribers."},
    {"DEAD_LETTER_NOT_FOUND", "`bulkhead events dead-letters` lists them."},
};

// What a person does next, where the sentence of the error does not say it.
std::string NextStep(const std::string& code) {
  for (const auto& [of, step] : kNextSteps) {
    if (code == of) return step;
  }
  if (code.starts_with("MIGRATION_")) return "`bulkhead migrate status NAME` shows what is applied.";
  return "";
}

void PrintErrorJson(const absl::Status& status, const std::string& request_id, Terminal& terminal) {
  std::string body = "{\"success\":false,\"error\":{\"code\":";
  PrintString(ErrorCode(status), body);
  body += ",\"message\":";
  PrintString(std::string_view(status.message().data(), status.message().size()), body);
  body += ",\"details\":[";
  bool first = true;
  for (const ErrorDetail& detail : ErrorDetails(status)) {
    body += first ? "{\"path\":" : ",{\"path\":";
    first = false;
    PrintString(detail.path, body);
    body += ",\"code\":";
    PrintString(detail.code, body);
    body += ",\"message\":";
    PrintString(detail.message, body);
    if (detail.line > 0) body += ",\"line\":" + std::to_string(detail.line);
    body += '}';
  }
  body += "],\"requestId\":";
  PrintString(request_id, body);
  terminal.Out(body + "}}\n");
}

}  // namespace

Outcome ReportError(const absl::Status& status, const std::string& request_id, const ClientOptions& options, Terminal& terminal) {
  const std::string code = ErrorCode(status);
  const Outcome outcome = code == "SERVER_UNREACHABLE" ? Outcome::kUnreachable : Outcome::kRefused;
  if (options.json) {
    PrintErrorJson(status, request_id, terminal);
    return outcome;
  }
  const std::string sentence(status.message());
  std::string text = "bulkhead: " + code + ": " + sentence + "\n";
  for (const ErrorDetail& detail : ErrorDetails(status)) {
    if (detail.message.empty() || sentence.find(detail.message) != std::string::npos) continue;
    text += "  " + detail.path + (detail.line > 0 ? ":" + std::to_string(detail.line) : "") + ": " + detail.message + "\n";
  }
  if (const std::string next = NextStep(code); !next.empty()) text += next + "\n";
  if (!request_id.empty()) text += "(request " + request_id + ")\n";
  terminal.Err(text);
  return outcome;
}

void PrintJson(const google::protobuf::Message& response, const std::string& data, Terminal& terminal) {
  terminal.Out(SuccessBody(response, data) + "\n");
}

}  // namespace bulkhead
