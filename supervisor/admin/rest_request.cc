#include "supervisor/admin/rest_request.h"

#include <algorithm>
#include <set>

#include "google/protobuf/struct.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/store/idempotency.h"

namespace bulkhead {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kGenerationField[] = "ifGeneration";  // filled by If-Match, never by a query parameter

bool IsJson(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  constexpr std::string_view kJson = "application/json";
  return type.size() == kJson.size() && std::equal(type.begin(), type.end(), kJson.begin(), [](char got, char want) {
           return (got >= 'A' && got <= 'Z' ? got + 32 : got) == want;
         });
}

absl::Status ReadBody(const RestRoute& route, const LocalRequest& request, std::set<std::string> bound, Message& message) {
  if (route.rest.body().empty() || request.body.empty()) return absl::OkStatus();
  if (!IsJson(request.content_type)) {
    return Error("UNSUPPORTED_MEDIA_TYPE",
                 "The body must be JSON: send Content-Type: application/json" +
                     (request.content_type.empty() ? "." : std::string(", not ") + request.content_type + "."));
  }
  ASSIGN_OR_RETURN(nlohmann::json body, ParseJson(request.body));
  if (route.rest.body() == "*") return ReadMessage(body, message, bound);
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(route.rest.body());
  const nlohmann::json wrapped = {{field->json_name(), std::move(body)}};
  return ReadMessage(wrapped, message);
}

// What a query parameter may set: scalars that neither the path nor a header gives.
bool Queryable(const FieldDescriptor& field, const PathValues& values) {
  return IsScalar(field) && !values.contains(field.json_name()) && field.json_name() != kGenerationField;
}

absl::Status UnknownParameter(const Descriptor& type, const PathValues& values, const std::string& name) {
  std::string known;
  for (int i = 0; i < type.field_count(); ++i) {
    if (Queryable(*type.field(i), values)) known += (known.empty() ? "" : ", ") + type.field(i)->json_name();
  }
  return BadParameter(name,
                      known.empty() ? "is not known; this call takes none in the query" : "is not known; known are " + known);
}

absl::Status ReadQuery(std::string_view query, const PathValues& values, Message& message, std::set<std::string>& given) {
  const Descriptor& type = *message.GetDescriptor();
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    const auto name = PercentDecodeUtf8(pair.substr(0, equals), true);
    const auto value = PercentDecodeUtf8(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1), true);
    if (!name) return BadParameter(ValidUtf8(pair.substr(0, equals)), "has a name that is not percent-encoded UTF-8");
    if (!value) return BadParameter(*name, "is not percent-encoded UTF-8");
    const FieldDescriptor* field = type.FindFieldByCamelcaseName(*name);
    if (field == nullptr || !Queryable(*field, values)) return UnknownParameter(type, values, *name);
    if (!given.insert(*name).second && !field->is_repeated()) return BadParameter(*name, "is given twice");
    if (absl::Status read = ReadScalar(*value, *field, message); !read.ok()) {
      return BadParameter(*name, std::string(read.message()) + ", not \"" + *value + "\"");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadIfMatch(std::string_view header, Message& message) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByCamelcaseName(kGenerationField);
  if (header.empty() || header == "*" || field == nullptr) return absl::OkStatus();
  if (header.size() >= 2 && header.starts_with('"') && header.ends_with('"')) header = header.substr(1, header.size() - 2);
  if (!ReadScalar(header, *field, message).ok()) {
    return Error("PRECONDITION_FAILED",
                 "If-Match holds no generation of this module: send the number in desired.generation, such as \"7\".");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Message>> ReadRequest(const RestRoute& route, const PathValues& values,
                                                     const LocalRequest& request) {
  // Before it becomes metadata of a call: gRPC ends the process for bytes that it does not take there.
  if (!request.idempotency_key.empty()) RETURN_IF_ERROR(CheckIdempotencyKey(request.idempotency_key));
  std::unique_ptr<Message> message(route.request_prototype->New());
  const Descriptor& type = *message->GetDescriptor();
  // The query is read into a message of its own, so that what the body gives, too, is noticed.
  std::unique_ptr<Message> from_query(route.request_prototype->New());
  std::set<std::string> given;
  RETURN_IF_ERROR(ReadQuery(request.query, values, *from_query, given));
  std::set<std::string> bound;
  for (const auto& [name, value] : values) bound.insert(name);
  bound.insert(kGenerationField);
  RETURN_IF_ERROR(ReadBody(route, request, bound, *message));
  for (const std::string& name : given) {
    const FieldDescriptor* field = type.FindFieldByCamelcaseName(name);
    const bool twice = field->is_repeated() ? message->GetReflection()->FieldSize(*message, field) > 0
                                            : message->GetReflection()->HasField(*message, field);
    if (twice) return BadParameter(name, "is given in the query and in the body");
  }
  message->MergeFrom(*from_query);
  RETURN_IF_ERROR(ReadIfMatch(request.if_match, *message));
  // A browser that connects again sends the same query as at first.
  const FieldDescriptor* after = route.rest.stream() && !request.last_event_id.empty() ? type.FindFieldByName("after") : nullptr;
  if (after != nullptr) message->GetReflection()->SetString(message.get(), after, request.last_event_id);
  for (const auto& [name, value] : values) {
    if (absl::Status read = ReadScalar(value, *type.FindFieldByCamelcaseName(name), *message); !read.ok()) {
      return BadParameter(name, "in the path " + std::string(read.message()));
    }
  }
  return message;
}

}  // namespace bulkhead
