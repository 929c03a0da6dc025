// The data path: HTTP/1.1 from clients, routed by the Directory to workers over the link. Some threads, each with its own
// epoll loop, listening socket (SO_REUSEPORT) and links; they share nothing but the snapshots they are handed.
// It never blocks, never reads the database, and never decides about a module's life.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/base/fd.h"
#include "supervisor/gateway/local_service.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/telemetry/access_log.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/tracer.h"

namespace bulkhead {

struct GatewayOptions {
  std::string listen;  // "127.0.0.1:4000", "[::1]:0"; port 0 picks one
  int threads = 2;
  UniqueFd given = {};  // a listening socket that somebody else has bound and keeps: all threads accept from it, and `listen` is not used
};

// Where requests are told of, beside the meters; null: nowhere. Both outlive the gateway's threads.
struct GatewayTelemetry {
  Tracer* tracer = nullptr;
  AccessLog* access_log = nullptr;
};

class Gateway : public DirectoryReader {
 public:
  // Binds at once, so that a port in use is known before anything else is started: LISTEN_FAILED names address and reason.
  static absl::StatusOr<std::unique_ptr<Gateway>> Listen(GatewayOptions options, const Clock& clock);
  ~Gateway() override;

  // "127.0.0.1:4000" with the real port.
  virtual std::string address() const = 0;
  // Modules call each other over this Unix socket (module_call.h), which every user may connect to: a token says who it is. Before Start(), and
  // as the user that the daemon stays. LISTEN_FAILED.
  virtual absl::Status ListenForModules(const std::string& socket) = 0;
  // An instance has been started with this token, and runs the version that the manifest describes; or it is gone (null). Control loop.
  virtual void SetInstance(const std::string& token, std::shared_ptr<const Manifest> manifest) = 0;
  // Starts the threads. `local` answers what is not under /api/v1/m/; both outlive the gateway's threads.
  virtual void Start(const Authenticator& authenticator, LocalService& local, GatewayTelemetry telemetry = {}) = 0;
  // What it has counted; any thread.
  virtual const GatewayMeters& meters() const = 0;
  // Stops accepting, lets what is in flight end within `drain`, closes, joins. Blocking; any thread but its own.
  virtual void Stop(Millis drain) = 0;
  // Calls `turned` once each thread has turned since; at once when none runs. For a watchdog.
  virtual void Turn(std::function<void()> turned) = 0;
};

}  // namespace bulkhead
