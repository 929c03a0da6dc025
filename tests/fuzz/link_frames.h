// Frames of the data link, put together for seeds.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bulkhead/link/frame.h"

namespace bulkhead::link {

inline std::string Frame(uint32_t stream, Type type, uint8_t flags, uint16_t status, const std::string& head, const std::string& body) {
  char header[kHeaderSize];
  PutHeader(header, {uint32_t(head.size() + body.size()), stream, type, flags, status, uint32_t(head.size())});
  return std::string(header, sizeof header) + head + body;
}

inline std::string Pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string head;
  HeadWriter writer(head);
  writer.U16(uint16_t(pairs.size()));
  for (const auto& [name, value] : pairs) writer.Pair(name, value);
  return head;
}

inline std::string RequestHead(const std::string& method, const std::string& target,
                               const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string head;
  HeadWriter writer(head);
  writer.Str(method);
  writer.Str(target);
  return head + Pairs(pairs);
}

inline std::string HelloFrame(const std::string& token) {
  std::string frame;
  Hello hello;
  hello.token = token;
  AppendHello(frame, hello);
  return frame;
}
inline std::string WindowFrame(uint32_t stream, uint32_t credit) {
  std::string frame;
  AppendWindow(frame, stream, credit);
  return frame;
}
inline std::string CancelFrame(uint32_t stream, CancelCode code) {
  std::string frame;
  AppendCancel(frame, stream, code);
  return frame;
}

}  // namespace bulkhead::link
