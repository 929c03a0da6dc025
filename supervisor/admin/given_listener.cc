#include "supervisor/admin/given_listener.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr int kGivenAcceptsPerTurn = 64;
constexpr Millis kGivenAcceptPause{100};  // after EMFILE and the like, instead of a hot loop

}  // namespace

GivenListener::GivenListener(UniqueFd socket, std::function<void(UniqueFd)> accepted)
    : socket_(std::move(socket)), accepted_(std::move(accepted)), thread_([this] {
        prctl(PR_SET_NAME, "grpc-accept");
        loop_.Watch(socket_.get(), EPOLLIN, [this](uint32_t) { AcceptSome(); });
        loop_.Run();
      }) {}

GivenListener::~GivenListener() {
  loop_.Stop();
  thread_.join();
}

void GivenListener::AcceptSome() {
  for (int i = 0; i < kGivenAcceptsPerTurn; ++i) {
    UniqueFd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      accepted_(std::move(fd));
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    LogWarn("admin", "accepting connections pauses", {{"reason", strerror(errno)}});
    loop_.Unwatch(socket_.get());
    loop_.After(kGivenAcceptPause, [this] { loop_.Watch(socket_.get(), EPOLLIN, [this](uint32_t) { AcceptSome(); }); });
    return;
  }
}

}  // namespace bulkhead
