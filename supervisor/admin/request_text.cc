#include "supervisor/admin/request_text.h"

#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/struct.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::ListValue;
using google::protobuf::Message;
using google::protobuf::Struct;
using google::protobuf::Value;

class TextCheck {
 public:
  absl::Status Run(const Message& request) {
    Look(request, "");
    if (wrong_.empty()) return absl::OkStatus();
    const std::string message = wrong_.front().message;
    return Error("INVALID_ARGUMENT", message, std::move(wrong_));
  }

 private:
  void Text(const std::string& text, const std::string& pointer) {
    if (IsValidUtf8(text) || wrong_.size() >= kMaxTextFindings) return;
    const bool nul = text.find('\0') != std::string::npos;
    wrong_.push_back({pointer, "INVALID_ARGUMENT", "The field " + pointer + (nul ? " holds the character U+0000, which no text may." : " is not UTF-8.")});
  }

  // A member's name stands in the pointer as it can be shown.
  std::string Below(const std::string& pointer, const std::string& name) {
    const std::string below = pointer + PointerToken(ValidUtf8(name));
    Text(name, below);
    return below;
  }

  void Json(const Value& value, const std::string& pointer) {
    if (value.kind_case() == Value::kStringValue) Text(value.string_value(), pointer);
    if (value.kind_case() == Value::kStructValue) Json(value.struct_value(), pointer);
    if (value.kind_case() == Value::kListValue) Json(value.list_value(), pointer);
  }
  void Json(const Struct& object, const std::string& pointer) {
    for (const auto& [name, value] : object.fields()) Json(value, Below(pointer, name));
  }
  void Json(const ListValue& list, const std::string& pointer) {
    for (int i = 0; i < list.values_size(); ++i) Json(list.values(i), pointer + "/" + std::to_string(i));
  }

  void Look(const Message& message, const std::string& pointer) {
    // As the JSON that they stand for, not as the messages that they are.
    if (const auto* object = dynamic_cast<const Struct*>(&message)) return Json(*object, pointer);
    if (const auto* value = dynamic_cast<const Value*>(&message)) return Json(*value, pointer);
    if (const auto* list = dynamic_cast<const ListValue*>(&message)) return Json(*list, pointer);
    const auto& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> set;
    reflection.ListFields(message, &set);
    for (const FieldDescriptor* field : set) {
      const std::string here = pointer + PointerToken(field->json_name());
      const bool text = field->type() == FieldDescriptor::TYPE_STRING, nested = field->message_type() != nullptr;
      if (field->is_repeated()) {
        for (int i = 0; (text || nested) && i < reflection.FieldSize(message, field); ++i) {
          const std::string item = here + "/" + std::to_string(i);
          text ? Text(reflection.GetRepeatedString(message, field, i), item) : Look(reflection.GetRepeatedMessage(message, field, i), item);
        }
      } else if (text) {
        Text(reflection.GetString(message, field), here);
      } else if (nested) {
        Look(reflection.GetMessage(message, field), here);
      }
    }
  }

  std::vector<ErrorDetail> wrong_;
};

}  // namespace

absl::Status CheckRequestText(const Message& request) { return TextCheck().Run(request); }

}  // namespace bulkhead
