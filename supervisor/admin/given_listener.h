// Accepts on a listening socket that a service manager has opened and keeps, and hands each connection on. gRPC 1.51 can serve an accepted
// connection (ExternalConnectionAcceptor), but can't listen on a socket that it has not bound itself. Owns one thread.
#pragma once

#include <functional>
#include <thread>

#include "supervisor/base/fd.h"
#include "supervisor/base/loop.h"

namespace bulkhead {

class GivenListener {
 public:
  // `accepted` is called on its thread, with a connection that is non-blocking and close-on-exec.
  GivenListener(UniqueFd socket, std::function<void(UniqueFd)> accepted);
  GivenListener(const GivenListener&) = delete;
  ~GivenListener();  // joins; what waits in the socket stays there for whoever serves it next

 private:
  void AcceptSome();

  const UniqueFd socket_;
  const std::function<void(UniqueFd)> accepted_;
  Loop loop_;
  std::thread thread_;
};

}  // namespace bulkhead
