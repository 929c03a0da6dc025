// The service Logs: what modules have printed, and what they print.
#include <algorithm>

#include "bulkhead/admin/v1/logs.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/stream.h"
#include "supervisor/base/duration.h"
#include "supervisor/logs/log_follower.h"

namespace bulkhead {
namespace {

using admin::v1::FollowModuleLogsRequest;
using admin::v1::FollowModuleLogsResponse;
using admin::v1::GetModuleLogsRequest;
using admin::v1::GetModuleLogsResponse;

#define METHOD(name) "bulkhead.admin.v1.Logs." name

constexpr size_t kMaxLogSearch = 256;  // bytes

admin::v1::LogLevel::Enum LevelMessage(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return admin::v1::LogLevel::DEBUG;
    case LogLevel::kInfo: return admin::v1::LogLevel::INFO;
    case LogLevel::kWarn: return admin::v1::LogLevel::WARN;
    case LogLevel::kError: return admin::v1::LogLevel::ERROR;
  }
  return admin::v1::LogLevel::UNSPECIFIED;
}

admin::v1::LogStream::Enum StreamMessage(LogStream stream) {
  switch (stream) {
    case LogStream::kStdout: return admin::v1::LogStream::STDOUT;
    case LogStream::kStderr: return admin::v1::LogStream::STDERR;
    case LogStream::kSupervisor: return admin::v1::LogStream::SUPERVISOR;
  }
  return admin::v1::LogStream::UNSPECIFIED;
}

admin::v1::LogLine LineMessage(const std::string& module, const LogRecord& record) {
  admin::v1::LogLine line;
  line.set_cursor(record.at.Text());
  *line.mutable_time() = ToTimestamp(record.time);
  line.set_module(module);
  line.set_slot(record.slot);
  line.set_instance(record.instance);
  line.set_stream(StreamMessage(record.stream));
  line.set_level(LevelMessage(record.level));
  line.set_message(record.message);
  if (record.structured) {
    const auto fields = nlohmann::json::parse(record.fields, nullptr, false);
    FromJson(fields.is_object() ? fields : nlohmann::json::object(), *line.mutable_fields());
  }
  return line;
}

// A time, or how long before now.
absl::StatusOr<std::optional<WallTime>> ParseSince(const std::string& text, const char* parameter, WallTime now) {
  if (text.empty()) return std::nullopt;
  if (const auto ago = ParseDuration(text)) return std::optional(now - *ago);
  if (const auto time = ParseWall(text)) return std::optional(*time);
  return BadParameter(parameter, "must be a time such as 2026-01-31T09:30:00Z, or a duration back from now such as 10m");
}

absl::StatusOr<std::optional<LogCursor>> ParseCursor(const std::string& text, const char* parameter) {
  if (text.empty()) return std::nullopt;
  const auto cursor = LogCursor::Parse(text);
  if (!cursor) return BadParameter(parameter, "must be a cursor, as a line or the meta of an answer has it");
  return cursor;
}

absl::StatusOr<int> ParseTail(std::optional<int> tail) {
  if (!tail) return limits::kLogTail;
  if (*tail < 0 || *tail > limits::kMaxLogTail) return BadParameter("tail", "must be from 0 to " + std::to_string(limits::kMaxLogTail));
  return *tail;
}

// What both requests have.
template <typename Request>
absl::StatusOr<LogFilter> ParseFilter(const Request& request, WallTime now) {
  LogFilter filter;
  ASSIGN_OR_RETURN(filter.since, ParseSince(request.since(), "since", now));
  if (!request.level().empty() && !ParseLogLevel(request.level(), filter.level))
    return BadParameter("level", "must be one of debug, info, warn, error");
  if (request.has_slot()) filter.slot = request.slot();
  filter.search = request.search();
  if (filter.search.size() > kMaxLogSearch) return BadParameter("search", "has at most " + std::to_string(kMaxLogSearch) + " bytes");
  for (char& c : filter.search) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return filter;
}

absl::StatusOr<LogQuery> ParseLogQuery(const GetModuleLogsRequest& request, WallTime now) {
  if (request.follow()) return BadParameter("follow", "is for REST, where it asks for FollowModuleLogs");
  LogQuery query{.module = request.module()};
  ASSIGN_OR_RETURN(query.filter, ParseFilter(request, now));
  ASSIGN_OR_RETURN(query.filter.until, ParseSince(request.until(), "until", now));
  ASSIGN_OR_RETURN(query.count, ParseTail(request.has_tail() ? std::optional(request.tail()) : std::nullopt));
  ASSIGN_OR_RETURN(query.before, ParseCursor(request.before(), "before"));
  ASSIGN_OR_RETURN(query.after, ParseCursor(request.after(), "after"));
  return query;
}

absl::StatusOr<LogFollow> ParseFollow(const FollowModuleLogsRequest& request, WallTime now) {
  LogFollow what{.module = request.module()};
  ASSIGN_OR_RETURN(what.filter, ParseFilter(request, now));
  ASSIGN_OR_RETURN(what.tail, ParseTail(request.has_tail() ? std::optional(request.tail()) : std::nullopt));
  ASSIGN_OR_RETURN(what.after, ParseCursor(request.after(), "after"));
  return what;
}

// As many lines as fit, from the end that the request began at.
GetModuleLogsResponse PageMessage(const LogQuery& query, const LogPage& page) {
  std::vector<admin::v1::LogLine> lines;
  size_t bytes = 0;
  const size_t count = page.lines.size();
  for (size_t i = 0; i < count; ++i) {
    lines.push_back(LineMessage(query.module, *page.lines[query.after ? i : count - 1 - i]));
    bytes += lines.back().ByteSizeLong();
    if (bytes > limits::kMaxLogAnswer && lines.size() > 1) {
      lines.pop_back();
      break;
    }
  }
  const bool cut = lines.size() < count;
  if (!query.after) std::reverse(lines.begin(), lines.end());
  GetModuleLogsResponse answer;
  auto* meta = answer.mutable_meta();
  meta->set_more(page.more || cut);
  // Without lines: the place from which new ones come.
  const std::string end = query.after && query.after->id > page.end.id ? query.after->Text() : page.end.Text();
  meta->set_before(lines.empty() ? "" : lines.front().cursor());
  meta->set_after(lines.empty() ? end : lines.back().cursor());
  for (auto& line : lines) answer.add_lines()->Swap(&line);
  return answer;
}

// Asks a follower, and wakes the stream when he has something.
class LogSource : public StreamCall<FollowModuleLogsResponse>::Source {
 public:
  LogSource(ModuleLogs& logs, LogFollow what, const std::shared_ptr<StreamCall<FollowModuleLogsResponse>>& stream) : module_(what.module) {
    if (what.after) from_ = what.after->Text();
    follower_ = logs.Follow(std::move(what), [weak = std::weak_ptr(stream)] {
      if (auto stream = weak.lock()) stream->Wake();
    });
  }
  std::optional<FollowModuleLogsResponse> Next(std::optional<absl::Status>& end) override {
    FollowModuleLogsResponse response;
    if (!std::exchange(begun_, true)) {
      response.set_cursor(from_);
      return response;
    }
    LogFollower::Event event = follower_->Next();
    response.set_cursor(event.cursor.Text());
    switch (event.kind) {
      case LogFollower::Event::Kind::kNothing: return std::nullopt;
      case LogFollower::Event::Kind::kEnded: end = event.status; return std::nullopt;
      case LogFollower::Event::Kind::kMissed: response.mutable_missed()->set_lines(event.missed); return response;
      case LogFollower::Event::Kind::kLine: *response.mutable_line() = LineMessage(module_, *event.line); return response;
    }
    return std::nullopt;
  }

 private:
  const std::string module_;
  std::string from_;
  bool begun_ = false;
  std::shared_ptr<LogFollower> follower_;
};

class LogsService : public admin::v1::Logs::CallbackService {
 public:
  LogsService(const Guard& guard, Modules& modules, ModuleLogs& logs, Streams& streams, const Clock& clock)
      : guard_(guard), modules_(modules), logs_(logs), streams_(streams), clock_(clock) {}

  grpc::ServerUnaryReactor* GetModuleLogs(grpc::CallbackServerContext* context, const GetModuleLogsRequest* request,
                                          GetModuleLogsResponse* response) override {
    return Serve(guard_, context, METHOD("GetModuleLogs"), request, response,
                 [this](CallPtr<GetModuleLogsResponse> call, const GetModuleLogsRequest* request) {
      auto query = ParseLogQuery(*request, clock_.Wall());
      if (!query.ok()) return call->Fail(query.status());
      modules_.Get(request->module(), [call, query = *query, &logs = logs_](absl::StatusOr<ModuleView> view) {
        if (!view.ok()) return call->Fail(view.status());
        if (!call->GoesOn()) return;
        logs.Find(query, [call, query](absl::StatusOr<LogPage> page) {
          page.ok() ? call->Answer(PageMessage(query, *page)) : call->Fail(page.status());
        });
      });
    });
  }

  grpc::ServerWriteReactor<FollowModuleLogsResponse>* FollowModuleLogs(grpc::CallbackServerContext* context,
                                                                       const FollowModuleLogsRequest* request) override {
    using Follow = StreamCall<FollowModuleLogsResponse>;
    return Follow::Serve(guard_, streams_, clock_, context, METHOD("FollowModuleLogs"), request,
                         [this](std::shared_ptr<Follow> stream, const FollowModuleLogsRequest& request) {
      auto what = ParseFollow(request, clock_.Wall());
      if (!what.ok()) return stream->End(what.status());
      modules_.Get(request.module(), [stream, what = *what, &logs = logs_](absl::StatusOr<ModuleView> view) {
        if (!view.ok()) return stream->End(view.status());
        if (stream->live()) stream->Open(std::make_unique<LogSource>(logs, what, stream));
      });
    });
  }

 private:
  const Guard& guard_;
  Modules& modules_;
  ModuleLogs& logs_;
  Streams& streams_;
  const Clock& clock_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeLogsService(const Guard& guard, Modules& modules, ModuleLogs& logs, Streams& streams, const Clock& clock) {
  return std::make_unique<LogsService>(guard, modules, logs, streams, clock);
}

#undef METHOD

}  // namespace bulkhead
