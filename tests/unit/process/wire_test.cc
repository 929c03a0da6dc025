#include "supervisor/process/wire.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tuple>

#include "supervisor/base/random.h"

namespace bulkhead::wire {
namespace {

Request FullSpawn() {
  Request request;
  request.serial = 7;
  request.spec.id = "orders.0.ab12";
  request.spec.executable = "/x/bin/orders";
  request.spec.args = {"--a", ""};
  request.spec.env = {{"A", "1"}, {"B", ""}};
  request.spec.cwd = "/x";
  request.spec.change_user = true;
  request.spec.uid = 4'000'000'000u;
  request.spec.gid = 12;
  request.spec.sandbox = true;
  request.spec.strict = true;
  request.spec.kin = "orders";
  request.spec.reach = {{"/x/package"}, {"/x/data"}, {"/opt/a"}, {"/opt/b", "/opt/c"}, "/x/tmp", NetworkAccess::kPorts, {443, 65535}, true, "why"};
  request.spec.limits = {int64_t{1} << 40, 1500, 64, 1024, int64_t{1} << 34};
  request.spec.graceful_signal = 2;
  return request;
}

TEST(Wire, ASpawnRequestComesBackAsItWas) {
  Request sent = FullSpawn();
  std::vector<UniqueFd> fds;
  sent.spec.err.Reset(open("/dev/null", O_WRONLY | O_CLOEXEC));
  std::string packet = Encode(sent, fds);
  ASSERT_EQ(fds.size(), 1u);
  Request got;
  ASSERT_TRUE(Decode(packet, fds, got));
  EXPECT_EQ(got.serial, 7u);
  EXPECT_EQ(got.spec.args, sent.spec.args);
  EXPECT_EQ(got.spec.env, sent.spec.env);
  EXPECT_EQ(got.spec.uid, 4'000'000'000u);
  EXPECT_TRUE(got.spec.strict);
  EXPECT_EQ(got.spec.kin, "orders");
  const ReachSpec &reach = got.spec.reach, &asked = sent.spec.reach;
  EXPECT_EQ(std::tie(reach.readable, reach.writable, reach.foreign_readable, reach.foreign_writable, reach.tmp),
            std::tie(asked.readable, asked.writable, asked.foreign_readable, asked.foreign_writable, asked.tmp));
  EXPECT_EQ(std::tie(reach.network, reach.ports, reach.lookups, reach.why_network),
            std::tie(asked.network, asked.ports, asked.lookups, asked.why_network));
  EXPECT_EQ(got.spec.limits.memory_bytes, int64_t{1} << 40);
  EXPECT_EQ(got.spec.limits.nofile, 1024);
  EXPECT_EQ(got.spec.limits.file_bytes, int64_t{1} << 34);
  EXPECT_EQ(got.spec.graceful_signal, 2);
  EXPECT_TRUE(got.spec.err);
  EXPECT_FALSE(got.spec.control);
  EXPECT_FALSE(got.spec.out);
}

TEST(Wire, EveryCutOfAPacketIsRefused) {
  Request sent = FullSpawn();
  std::vector<UniqueFd> fds;
  std::string packet = Encode(sent, fds);
  for (size_t size = 0; size < packet.size(); ++size) {
    Request got;
    EXPECT_FALSE(Decode(packet.substr(0, size), fds, got)) << size;
  }
  Request got;
  EXPECT_FALSE(Decode(packet + "x", fds, got));
}

TEST(Wire, AMissingDescriptorIsRefused) {
  Request sent = FullSpawn();
  sent.spec.control.Reset(open("/dev/null", O_RDWR | O_CLOEXEC));
  std::vector<UniqueFd> fds;
  std::string packet = Encode(sent, fds);
  fds.clear();
  Request got;
  EXPECT_FALSE(Decode(packet, fds, got));
}

TEST(Wire, DamagedPacketsNeverCrashTheDecoder) {
  Request sent = FullSpawn();
  std::vector<UniqueFd> fds;
  std::string packet = Encode(sent, fds);
  Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string damaged = packet;
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) damaged[random.Below(damaged.size())] = static_cast<char>(random.Next());
    Request got;
    (void)Decode(damaged, fds, got);
    Reply reply;
    (void)Decode(damaged, reply);
  }
}

TEST(Wire, AReplyComesBackAsItWas) {
  Reply sent;
  sent.kind = Reply::Kind::kSpawned;
  sent.serial = 9;
  sent.code = 13;
  sent.text = "execve /x: Permission denied";
  sent.process = {1234, {{"uid", IsolationItem::State::kActive, "uid 5"}, {"seccomp", IsolationItem::State::kOff, "not asked for"}},
                  "/sys/fs/cgroup/x/cpu.stat"};
  sent.exit = {3, 9, true, true, 7};
  Reply got;
  ASSERT_TRUE(Decode(Encode(sent), got));
  EXPECT_EQ(got.process.pid, 1234);
  ASSERT_EQ(got.process.isolation.size(), 2u);
  EXPECT_EQ(got.process.isolation[1].why, "not asked for");
  EXPECT_EQ(got.process.isolation[1].state, IsolationItem::State::kOff);
  EXPECT_EQ(got.text, sent.text);
  EXPECT_EQ(got.process.cpu_stat, sent.process.cpu_stat);
  EXPECT_TRUE(got.exit.oom_killed);
  EXPECT_EQ(got.exit.forks_refused, 7);
  EXPECT_EQ(got.exit.signal, 9);
}

TEST(Wire, WhatTheSocketDoesNotTakeIsQueuedInOrder) {
  auto ends = SocketPair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  ASSERT_TRUE(ends.ok());
  Loop loop;
  constexpr int kPackets = 200;  // of 8 KiB: several times what the socket holds
  PacketSocket sender(std::move(ends->first));
  PacketSocket receiver(std::move(ends->second));
  int received = 0;
  bool ended = false;
  sender.Attach(loop, [](std::string_view, std::vector<UniqueFd>&) {}, [] {});
  for (int i = 0; i < kPackets; ++i) sender.Send(std::string(8192, static_cast<char>(i)));
  receiver.Attach(loop, [&](std::string_view packet, std::vector<UniqueFd>&) {
    EXPECT_EQ(packet, std::string(8192, static_cast<char>(received)));
    if (++received == kPackets) loop.Stop();
  }, [&] { ended = true; });
  loop.Run();
  EXPECT_EQ(received, kPackets);
  EXPECT_FALSE(ended);
}

}  // namespace
}  // namespace bulkhead::wire
