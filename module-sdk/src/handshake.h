// The first words between supervisor and module, on fd 3 (proto/README.md, "Handshake").
#pragma once

#include <optional>
#include <string>

namespace bulkhead::sdk {

inline constexpr int kProtocol = 1;  // of the contract, which this SDK speaks
inline constexpr int kHandshakeFd = 3;
inline constexpr const char* kSdkName = "cpp/0.1.0";

struct Handshake {
  std::string module, instance, token, control_socket, data_socket, host_socket, call_socket;
};

// True when fd 3 is a socket, which only a supervisor provides.
bool StartedBySupervisor();
// Reads the supervisor's line. Throws std::runtime_error with a sentence: no line within 10 s, not JSON, a missing field, or a
// protocol that this SDK does not speak.
Handshake ReadHandshake();
void AnswerHandshake();
void AnswerHandshakeError(const std::string& sentence);

}  // namespace bulkhead::sdk
