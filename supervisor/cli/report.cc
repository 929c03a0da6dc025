#include "supervisor/cli/report.h"

#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

// What a person does next, where the sentence of the error does not say it.
std::string NextStep(const std::string& code) {
  if (code == "SERVER_UNREACHABLE") return "Is `bulkhead serve` running there? Another one is named by --server HOST:PORT or BULKHEAD_SERVER.";
  if (code == "UNAUTHENTICATED") return "Give a token with --token-file FILE or in BULKHEAD_TOKEN.";
  if (code == "FORBIDDEN") return "Ask an administrator for a token with that permission.";
  if (code == "MODULE_NOT_FOUND") return "`bulkhead migrate status` lists the modules.";
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
