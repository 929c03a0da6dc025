#include "supervisor/admin/rest.h"

#include "grpc/support/time.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/rest_exchange.h"
#include "supervisor/admin/rest_request.h"
#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::string_view kApiPrefix = "/api/";
constexpr std::string_view kMetricsPath = "/metrics";  // where Prometheus looks
constexpr Millis kCallMargin{30'000};  // beyond the longest wait, so that no call stays for ever

grpc::ByteBuffer ToBuffer(const Message& message) {
  grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// The response's `meta.converged`, true where there is none.
bool Converged(const Message& response) {
  const FieldDescriptor* meta = response.GetDescriptor()->FindFieldByName("meta");
  if (meta == nullptr) return true;
  const FieldDescriptor* converged = meta->message_type()->FindFieldByName("converged");
  if (converged == nullptr) return true;
  const Message& value = response.GetReflection()->GetMessage(response, meta);
  return value.GetReflection()->GetBool(value, converged);
}

std::string Envelope(const RestRoute& route, const Message& response) {
  if (!route.rest.raw()) return SuccessBody(response, route.rest.data());
  std::string body;
  if (!route.rest.data().empty()) {  // a text that is the whole answer
    return response.GetReflection()->GetString(response, response.GetDescriptor()->FindFieldByName(route.rest.data()));
  }
  PrintMessage(response, body);
  return body;
}

// The number at the dotted path of fields that the route names, below its data.
std::string Etag(const RestRoute& route, const Message& response) {
  const Message* at = &response.GetReflection()->GetMessage(response, response.GetDescriptor()->FindFieldByName(route.rest.data()));
  std::string_view path = route.rest.etag();
  for (size_t dot = path.find('.'); dot != path.npos; dot = path.find('.')) {
    at = &at->GetReflection()->GetMessage(*at, at->GetDescriptor()->FindFieldByName(std::string(path.substr(0, dot))));
    path.remove_prefix(dot + 1);
  }
  return std::to_string(at->GetReflection()->GetInt64(*at, at->GetDescriptor()->FindFieldByName(std::string(path))));
}

std::string Location(const RestRoute& route, const Message& response) {
  const FieldDescriptor* field = response.GetDescriptor()->FindFieldByName(route.rest.data());
  const Message& data = response.GetReflection()->GetMessage(response, field);
  std::string location;
  for (const std::string& segment : PathSegments(route.rest.location())) {
    location += '/';
    if (!segment.starts_with(':')) {
      location += segment;
      continue;
    }
    const FieldDescriptor* bound = data.GetDescriptor()->FindFieldByCamelcaseName(segment.substr(1));
    location += data.GetReflection()->GetString(data, bound);  // names and ids need no encoding
  }
  return location;
}

}  // namespace

bool ReadBuffer(grpc::ByteBuffer& buffer, Message& message) {
  grpc::Slice slice;
  if (!buffer.Valid()) return message.ParseFromArray("", 0);  // an empty message may come as none
  if (!buffer.DumpToSingleSlice(&slice).ok()) return false;
  return message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

void RespondJson(LocalResponder& responder, int status, std::string body, HeaderList more) {
  HeaderList headers = {{"content-type", "application/json"}, {"cache-control", "no-store"}};
  for (auto& header : more) headers.push_back(std::move(header));
  responder.Respond(status, std::move(headers), std::move(body));
}

void RespondError(LocalResponder& responder, const absl::Status& status, const std::string& request_id, HeaderList more) {
  const int http = HttpStatus(ErrorCode(status));
  if (http == 401) more.emplace_back("www-authenticate", "Bearer");
  if (const int seconds = RetryAfter(status); http == 503 || seconds > 0)
    more.emplace_back("retry-after", std::to_string(seconds > 0 ? seconds : limits::kRetryAfterSeconds));
  if (http == 500)
    LogError("admin",
             status.message().empty() ? "a call failed" : std::string_view(status.message().data(), status.message().size()),
             {{"request", request_id}});
  RespondJson(responder, http, ErrorBody(status, request_id), std::move(more));
}

absl::Status Rest::Exchange::Failure(const grpc::Status& status) const {
  const bool ours = !status.error_details().empty();
  if (!ours && place.in_flight->stopping()) return Error("SHUTTING_DOWN", "The supervisor stops.");
  return FromGrpcStatus(status);
}

void Rest::Exchange::Answer(const grpc::Status& status) {
  const RestRoute* route = match.route;
  if (!status.ok()) return RespondError(*responder, Failure(status), request.request_id);
  std::unique_ptr<Message> response(route->response_prototype->New());
  if (!ReadBuffer(received, *response)) {
    return RespondError(*responder, Error("INTERNAL", "The answer of " + route->rpc_path + " could not be read."),
                        request.request_id);
  }
  int http = route->rest.success() == 0 ? 200 : route->rest.success();
  if (!Converged(*response)) http = 202;
  HeaderList headers;
  if (!route->rest.location().empty() && (http == 201 || http == 202))
    headers.emplace_back("location", Location(*route, *response));
  if (!route->rest.etag().empty()) headers.emplace_back("etag", "\"" + Etag(*route, *response) + "\"");
  if (!route->rest.content_type().empty()) {
    headers.emplace_back("content-type", route->rest.content_type());
    headers.emplace_back("cache-control", "no-store");
    return responder->Respond(http, std::move(headers), Envelope(*route, *response));
  }
  RespondJson(*responder, http, Envelope(*route, *response), std::move(headers));
}

Rest::Rest(const Guard& guard, const std::vector<const google::protobuf::ServiceDescriptor*>& services)
    : guard_(guard), in_flight_(std::make_shared<InFlight>()) {
  for (const auto* service : services) routes_->Add(*service);
}

Rest::~Rest() = default;

void Rest::Stop() { in_flight_->Stop(); }

void Rest::AwaitEnd(Millis at_most) { in_flight_->AwaitNone(at_most); }

void Rest::AwaitEnd() { in_flight_->AwaitNone(); }

void Rest::Connect(std::shared_ptr<grpc::Channel> channel) { stub_ = std::make_unique<grpc::GenericStub>(std::move(channel)); }

int64_t Rest::AnonymousBody(std::string_view method, std::string_view path) const {
  const RestRoutes::Match match = routes_->Find(method, path);
  return match.route != nullptr && guard_.ForAnybody(match.route->method->full_name()) ? limits::kLoginBodyLimit : 0;
}

std::string_view Rest::RouteOf(std::string_view method, std::string_view path) const {
  const RestRoutes::Match match = routes_->Find(method, path);
  return match.route == nullptr ? std::string_view() : std::string_view(match.route->rest.path());
}

void Rest::Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder) {
  if (!request.path.starts_with(kApiPrefix) && request.path != kMetricsPath) {
    return RespondError(*responder, Error("ROUTE_NOT_FOUND", "There is nothing at " + request.path + "."), request.request_id);
  }
  if (!in_flight_->Enter()) return RespondError(*responder, Error("SHUTTING_DOWN", "The supervisor stops."), request.request_id);
  auto exchange = std::make_shared<Exchange>(in_flight_);
  exchange->routes = routes_;
  exchange->match = routes_->Find(request.method, request.path, request.query);
  exchange->request = std::move(request);
  exchange->responder = std::move(responder);
  const RestRoute* route = exchange->match.route;
  if (route != nullptr && guard_.ForAnybody(route->method->full_name())) return Go(exchange, {});
  Guard::Decision decision = guard_.Authenticate(exchange->request.authorization, exchange->request.remote_address);
  if (decision.pending.empty()) return Go(exchange, std::move(decision));
  guard_.AwaitIdentity(decision.pending, exchange->request.remote_address,
                       [this, exchange](Guard::Decision verdict) { Go(exchange, std::move(verdict)); });
}

absl::Status Rest::Check(const Exchange& exchange, const Identity* identity) const {
  const RestRoutes::Match& match = exchange.match;
  const LocalRequest& request = exchange.request;
  if (match.allow.empty()) return Error("ROUTE_NOT_FOUND", "There is nothing at " + request.path + ".");
  if (match.route == nullptr)
    return Error("METHOD_NOT_ALLOWED",
                 request.method + " is not possible at " + request.path + ". Possible: " + match.allow + ".");
  if (identity == nullptr) return absl::OkStatus();  // anybody may
  // The handler's guard decides; this one is before the body is looked at. Where the module stands in the body, only that one can.
  const std::string method = match.route->method->full_name();
  const std::string field(guard_.ModuleField(method));
  const auto module = match.values.find(field);
  if (!field.empty() && module == match.values.end()) return absl::OkStatus();
  return guard_.Authorize(*identity, method, field.empty() ? std::string_view() : std::string_view(module->second));
}

AuditedCall Rest::Audited(const Exchange& exchange, const Identity* identity) const {
  const LocalRequest& request = exchange.request;
  const RestRoutes::Match& match = exchange.match;
  const std::string method = match.route->method->full_name();
  AuditedCall call{guard_.Action(method), guard_.records().ActorOf(identity, request.remote_address, request.request_id), "", ""};
  const auto module = match.values.find(std::string(guard_.ModuleField(method)));
  if (module != match.values.end()) call.module = module->second;
  if (identity == nullptr) return call;  // in the log alone
  // What is refused for its body may have its target in the path; what is refused for its caller, in a body that nobody has looked at.
  auto message = ReadRequest(*match.route, match.values, request);
  if (!message.ok()) {
    LocalRequest without = request;
    without.body = without.query = "";
    message = ReadRequest(*match.route, match.values, without);
  }
  if (message.ok()) call.target = Guard::TargetOf(**message);
  if (guard_.AboutCaller(method)) call.target = identity->subject;
  return call;
}

void Rest::Go(const std::shared_ptr<Exchange>& exchange, Guard::Decision decision) {
  const LocalRequest& request = exchange->request;
  const RestRoutes::Match& match = exchange->match;
  const auto refuse = [&](const absl::Status& why) {
    HeaderList headers;
    if (ErrorCode(why) == "METHOD_NOT_ALLOWED") headers.emplace_back("allow", match.allow);
    // What is refused here never comes to its handler, which tells the audit otherwise.
    if (match.route != nullptr && guard_.Writes(match.route->method->full_name())) guard_.records().Ended(Audited(*exchange, decision.identity.get()), why);
    RespondError(*exchange->responder, why, request.request_id, std::move(headers));
  };
  if (in_flight_->stopping()) return refuse(Error("SHUTTING_DOWN", "The supervisor stops."));
  // Nobody learns without a token which paths exist.
  if (!decision.status.ok()) return refuse(decision.status);
  if (absl::Status checked = Check(*exchange, decision.identity.get()); !checked.ok()) return refuse(checked);
  auto message = ReadRequest(*match.route, match.values, request);
  if (!message.ok()) return refuse(message.status());
  exchange->request.body.clear();
  Call(exchange, **message);
}

void Rest::Call(std::shared_ptr<Exchange> exchange, const Message& message) {
  exchange->sent = ToBuffer(message);
  auto& context = exchange->context;
  const bool stream = exchange->match.route->rest.stream();
  if (!stream) context.set_deadline(gpr_time_from_millis((limits::kMaxWait + kCallMargin).count(), GPR_TIMESPAN));
  // What anybody may call has no use for one, and nobody has looked at it: gRPC ends the process for bytes that it does not take.
  const bool for_anybody = guard_.ForAnybody(exchange->match.route->method->full_name());
  if (!for_anybody && !exchange->request.authorization.empty()) context.AddMetadata("authorization", exchange->request.authorization);
  if (!exchange->request.idempotency_key.empty()) context.AddMetadata("idempotency-key", exchange->request.idempotency_key);
  for (auto& [key, value] :
       guard_.SignOrigin(exchange->request.remote_address, exchange->request.request_id, exchange->match.route->method->full_name())) {
    context.AddMetadata(key, value);
  }
  if (stream) return BeginStream(std::move(exchange));
  stub_->UnaryCall(&context, exchange->match.route->rpc_path, grpc::StubOptions(), &exchange->sent, &exchange->received,
                   [exchange](grpc::Status status) { exchange->Answer(status); });
}

}  // namespace bulkhead
