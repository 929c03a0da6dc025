#include "supervisor/worker/handshake.h"

#include <cstdint>
#include <utility>

#include "nlohmann/json.hpp"

namespace bulkhead {
namespace {

constexpr int kProtocol = 1;  // the only one so far

}  // namespace

WorkerExit HandshakeFault(const char* code, std::string message) { return {WorkerEnd::kHandshake, std::move(message), code}; }

std::string HandshakeOffer(const HandshakeTerms& terms) {
  const nlohmann::json offer = {{"protocolMin", kProtocol},
                                {"protocolMax", kProtocol},
                                {"module", terms.module},
                                {"instance", terms.instance},
                                {"token", terms.token},
                                {"controlSocket", terms.control_socket},
                                {"dataSocket", terms.data_socket},
                                {"hostSocket", terms.host_socket},
                                {"callSocket", terms.call_socket},
                                {"transport", terms.transport == Transport::kLink ? "link" : "http"}};
  return offer.dump() + "\n";
}

std::optional<WorkerExit> CheckHandshakeAnswer(std::string_view line) {
  const auto answer = nlohmann::json::parse(line, nullptr, false);
  if (!answer.is_object()) return HandshakeFault("HANDSHAKE_MALFORMED", "its handshake is not a JSON object");
  if (auto error = answer.find("error"); error != answer.end()) {
    return HandshakeFault("HANDSHAKE_REFUSED", "it refused the handshake: " + (error->is_string() ? error->get<std::string>() : error->dump()));
  }
  const auto protocol = answer.find("protocol");
  if (protocol == answer.end() || !protocol->is_number_integer()) return HandshakeFault("HANDSHAKE_MALFORMED", "its handshake names no protocol");
  if (protocol->get<int64_t>() == kProtocol) return std::nullopt;
  return HandshakeFault("PROTOCOL_MISMATCH", "it speaks protocol " + protocol->dump() +
                                                 ", this supervisor speaks 1 to 1: build it with an SDK of this supervisor");
}

}  // namespace bulkhead
