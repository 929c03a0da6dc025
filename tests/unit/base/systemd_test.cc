// What a service manager hands over, and what it is told, over real sockets.
#include "supervisor/base/systemd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kVariables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"};

// The manager's end of NOTIFY_SOCKET.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = 0;
    const size_t size = offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '@' ? 0 : 1);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(size)), 0) << strerror(errno);
  }
  std::string Next() {
    char text[4096];
    const ssize_t size = recv(fd_.get(), text, sizeof text, 0);
    return size < 0 ? "" : std::string(text, static_cast<size_t>(size));
  }

 private:
  UniqueFd fd_;
};

class SystemdTest : public testing::Test {
 protected:
  void SetUp() override { Clear(); }
  void TearDown() override { Clear(); }
  static void Clear() {
    for (const char* name : kVariables) unsetenv(name);
  }
  static std::string Self() { return std::to_string(getpid()); }
};

TEST_F(SystemdTest, ANotificationArrivesAtASocketWithAPath) {
  const std::string path = "/tmp/bulkhead-notify-" + Self();
  NotifySocket manager(path);
  ServiceNotifier notifier(path);
  EXPECT_TRUE(notifier.wanted());
  EXPECT_TRUE(notifier.Send("READY=1\nSTATUS=it works"));
  EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=it works");
  std::filesystem::remove(path);
}

TEST_F(SystemdTest, ANotificationArrivesAtAnAbstractSocket) {
  const std::string name = "@bulkhead-notify-" + Self();
  NotifySocket manager(name);
  EXPECT_TRUE(ServiceNotifier(name).Send("WATCHDOG=1"));
  EXPECT_EQ(manager.Next(), "WATCHDOG=1");
}

TEST_F(SystemdTest, WithoutAManagerNothingIsSentAndNothingHappens) {
  EXPECT_FALSE(ServiceNotifier("").wanted());
  EXPECT_FALSE(ServiceNotifier("relative").wanted());
  EXPECT_FALSE(ServiceNotifier("/" + std::string(200, 'x')).wanted());
  EXPECT_FALSE(ServiceNotifier("/tmp/bulkhead-nobody-listens-here").Send("READY=1"));
}

TEST_F(SystemdTest, TheMomentOfAReloadIsInMicrosecondsOfTheMonotonicClock) {
  const std::string line = ServiceNotifier::MonotonicLine();
  ASSERT_THAT(line, StartsWith("MONOTONIC_USEC="));
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t told = std::stoll(line.substr(line.find('=') + 1)), micros = int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000;
  EXPECT_LE(told, micros);
  EXPECT_GT(told, micros - 10'000'000);
}

TEST_F(SystemdTest, TheVariablesAreReadAndThenGone) {
  setenv("NOTIFY_SOCKET", "@x", 1);
  setenv("WATCHDOG_USEC", "30000000", 1);
  setenv("WATCHDOG_PID", Self().c_str(), 1);
  setenv("LISTEN_FDS", "2", 1);
  setenv("LISTEN_PID", Self().c_str(), 1);
  setenv("LISTEN_FDNAMES", "http:grpc", 1);
  const ServiceEnvironment taken = ServiceEnvironment::Take();
  EXPECT_EQ(taken.notify_socket, "@x");
  EXPECT_EQ(taken.watchdog, Millis(30'000));
  EXPECT_EQ(taken.sockets, 2);
  EXPECT_EQ(taken.socket_names, "http:grpc");
  for (const char* name : kVariables) EXPECT_EQ(getenv(name), nullptr) << name;
}

TEST_F(SystemdTest, WhatIsMeantForAnotherProcessIsNotTaken) {
  setenv("WATCHDOG_USEC", "30000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  setenv("LISTEN_FDS", "1", 1);
  setenv("LISTEN_PID", "1", 1);
  const ServiceEnvironment taken = ServiceEnvironment::Take();
  EXPECT_EQ(taken.watchdog, std::nullopt);
  EXPECT_EQ(taken.sockets, 0);
}

TEST_F(SystemdTest, AWatchdogWithoutAPidIsForWhoeverReadsIt) {
  setenv("WATCHDOG_USEC", "3000000", 1);
  EXPECT_EQ(ServiceEnvironment::Take().watchdog, Millis(3'000));
}

TEST_F(SystemdTest, TheAddressOfABoundSocketIsText) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(AddressOf(fd.get()), StartsWith("127.0.0.1:"));
  EXPECT_EQ(AddressOf(-1), "");
}

TEST_F(SystemdTest, ANonsensicalNumberOfSocketsIsRefused) {
  ServiceEnvironment environment;
  environment.sockets = 1'000'000;
  EXPECT_EQ(ErrorCode(TakeSockets(environment).status()), "LISTEN_FAILED");
  EXPECT_THAT(std::string(TakeSockets(environment).status().message()), HasSubstr("1000000"));
}

}  // namespace
}  // namespace bulkhead
