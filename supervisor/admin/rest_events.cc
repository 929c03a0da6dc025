#include "supervisor/admin/rest_events.h"

#include "supervisor/admin/json.h"
#include "supervisor/gateway/local_service.h"

namespace bulkhead {

std::string EventText(const RestRoute& route, const google::protobuf::Message& response) {
  const auto& type = *response.GetDescriptor();
  const auto& reflection = *response.GetReflection();
  std::string text;
  if (const auto* cursor = type.FindFieldByName("cursor")) {
    const std::string id = reflection.GetString(response, cursor);
    if (!id.empty()) text += "id: " + id + "\n";
  }
  const auto* event = type.real_oneof_decl_count() > 0 ? reflection.GetOneofFieldDescriptor(response, type.oneof_decl(0)) : nullptr;
  if (event != nullptr) {
    if (event->name() != route.rest.data()) text += "event: " + event->json_name() + "\n";
    text += "data: ";
    PrintField(response, *event, text);  // on one line: control characters are escaped
    text += "\n";
  }
  if (!text.empty()) text += "\n";
  return text;
}

std::string EndText(const absl::Status& status, const std::string& request_id) {
  return "event: end\ndata: " + ErrorBody(status, request_id) + "\n\n";
}

}  // namespace bulkhead
