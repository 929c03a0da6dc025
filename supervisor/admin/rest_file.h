// The answer of a route whose stream is a file: its head from the first message, its parts from the others. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "supervisor/gateway/local_service.h"

namespace bulkhead {

struct FileHead {
  HeaderList headers;
  int64_t bytes = 0;
};
// The field that names the file: `artifact` or `file`; null: neither is there.
const google::protobuf::FieldDescriptor* FileField(const google::protobuf::Descriptor& response);
// From that field. Headers that let no browser show the file as a page of the supervisor's: a module has made it.
FileHead FileHeadOf(const google::protobuf::Message& response);
// The field `data`.
std::string FilePartOf(const google::protobuf::Message& response);

// RFC 6266: for old readers the name's letters, digits, "." and "-", for others all of it in UTF-8.
std::string AttachmentOf(std::string_view name);

}  // namespace bulkhead
