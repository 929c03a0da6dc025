#include "supervisor/admin/rest_file.h"

namespace bulkhead {
namespace {

using google::protobuf::Message;

// attr-char of RFC 5987 that no reader takes for something else.
bool Plain(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'; }

}  // namespace

std::string AttachmentOf(std::string_view name) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string plain, encoded;
  for (const char c : name) {
    plain += Plain(c) ? c : '_';
    if (Plain(c)) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
    }
  }
  return "attachment; filename=\"" + plain + "\"; filename*=UTF-8''" + encoded;
}

const google::protobuf::FieldDescriptor* FileField(const google::protobuf::Descriptor& response) {
  const auto* artifact = response.FindFieldByName("artifact");
  return artifact != nullptr ? artifact : response.FindFieldByName("file");
}

FileHead FileHeadOf(const Message& response) {
  const Message& file = response.GetReflection()->GetMessage(response, FileField(*response.GetDescriptor()));
  const auto& type = *file.GetDescriptor();
  const auto& fields = *file.GetReflection();
  const auto* content_type = type.FindFieldByName("content_type");
  const std::string name = fields.GetString(file, type.FindFieldByName("name"));
  FileHead head;
  head.bytes = fields.GetInt64(file, type.FindFieldByName("bytes"));
  head.headers = {{"content-type", content_type != nullptr ? fields.GetString(file, content_type) : "application/octet-stream"},
                  {"content-length", std::to_string(head.bytes)},
                  {"content-disposition", AttachmentOf(std::string_view(name).substr(name.rfind('/') + 1))},
                  {"x-content-type-options", "nosniff"},
                  {"content-security-policy", "sandbox; default-src 'none'"},
                  {"cache-control", "no-store"}};
  return head;
}

std::string FilePartOf(const Message& response) {
  return response.GetReflection()->GetString(response, response.GetDescriptor()->FindFieldByName("data"));
}

}  // namespace bulkhead
