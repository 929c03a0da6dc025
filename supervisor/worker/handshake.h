// The handshake on fd 3: one line of JSON each way (proto/README.md, "Handshake"). The text only; the socket is worker.cc's.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/manifest/manifest.h"
#include "supervisor/worker/worker.h"

namespace bulkhead {

inline constexpr size_t kMaxHandshakeLine = 4096;  // the module's answer; more is a handshake failure

struct HandshakeTerms {
  std::string module, instance, token;
  std::string control_socket, data_socket, host_socket, call_socket;  // absolute paths
  Transport transport = Transport::kLink;
};

// The supervisor's line, with its newline.
std::string HandshakeOffer(const HandshakeTerms& terms);
// What is wrong with the module's line (without its newline); nothing: it may be called.
std::optional<WorkerExit> CheckHandshakeAnswer(std::string_view line);
// What is wrong with a handshake, by a code of its own.
WorkerExit HandshakeFault(const char* code, std::string message);

}  // namespace bulkhead
