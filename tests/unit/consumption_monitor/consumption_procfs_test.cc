// What /proc says, from text to numbers, with the texts of real kernels and broken ones.
#include "infrastructure/procfs.h"

#include <gmock/gmock.h>

namespace consumption {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr long kTicks = 100;

TEST(Procfs, BusyTimeIsEveryStateButIdleWaitingStolenAndGuest) {
  //                     user nice system idle iowait irq softirq steal guest guest_nice
  const char* text = "cpu  1000 200 300 99999 888 40 50 777 600 66\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
  EXPECT_DOUBLE_EQ(ParseBusySeconds(text, kTicks), 15.9);
}

TEST(Procfs, BusyTimeIsReadFromTheSumAndNotFromTheFirstCpu) {
  EXPECT_DOUBLE_EQ(ParseBusySeconds("cpu0 9 9 9 9 9 9 9\ncpu 100 0 0 0 0 0 0\n", kTicks), 1.0);
}

TEST(Procfs, BrokenStatIsRefusedWithAReason) {
  EXPECT_THAT([] { ParseBusySeconds("", kTicks); }, ThrowsMessage<ProcfsError>(HasSubstr("no line \"cpu\"")));
  EXPECT_THAT([] { ParseBusySeconds("cpu 1 2", kTicks); }, ThrowsMessage<ProcfsError>(HasSubstr("system should be a number")));
  EXPECT_THAT([] { ParseBusySeconds("cpu 1 2 3 4 5 x 7", kTicks); }, ThrowsMessage<ProcfsError>(HasSubstr("irq")));
  EXPECT_THAT([] { ParseBusySeconds("cpu 1 -2 3 4 5 6 7", kTicks); }, ThrowsMessage<ProcfsError>(HasSubstr("\"-2\"")));
  EXPECT_THAT([] { ParseBusySeconds("cpu 1 2 3 4 5 6 7", 0); }, ThrowsMessage<ProcfsError>(HasSubstr("clock tick")));
  EXPECT_THAT([] { ParseBusySeconds("cpu 99999999999999999999999 2 3 4 5 6 7", kTicks); }, ThrowsMessage<ProcfsError>(HasSubstr("user")));
}

TEST(Procfs, UsedMemoryIsWhatIsNotAvailable) {
  EXPECT_DOUBLE_EQ(ParseUsedMemory("MemTotal:       24684092 kB\nMemFree:        24457912 kB\nMemAvailable:   24395948 kB\n"),
                   (24684092.0 - 24395948.0) * 1024);
}

TEST(Procfs, MoreMemoryAvailableThanThereIsCountsAsNoneUsed) {
  EXPECT_DOUBLE_EQ(ParseUsedMemory("MemTotal: 10 kB\nMemAvailable: 20 kB\n"), 0);
}

TEST(Procfs, BrokenMeminfoIsRefusedWithAReason) {
  EXPECT_THAT([] { ParseUsedMemory("MemTotal: 10 kB\nMemFree: 5 kB\n"); }, ThrowsMessage<ProcfsError>(HasSubstr("missing")));
  EXPECT_THAT([] { ParseUsedMemory("MemTotal: 10 MB\nMemAvailable: 5 kB\n"); }, ThrowsMessage<ProcfsError>(HasSubstr("kB")));
  EXPECT_THAT([] { ParseUsedMemory("MemTotal: ten kB\nMemAvailable: 5 kB\n"); }, ThrowsMessage<ProcfsError>(HasSubstr("\"ten\"")));
}

TEST(Procfs, DiskstatsCountSectorsOf512Bytes) {
  const auto disks = ParseDiskstats(
      "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
      " 254       0 vda 31707 8915 3125002 7112 19309 7427 1156600 3047 0 5392 10650 7156 8 485072 404 2330 85\n");
  ASSERT_EQ(disks.size(), 2u);
  EXPECT_EQ(disks[1].name, "vda");
  EXPECT_DOUBLE_EQ(disks[1].read_bytes, 3125002.0 * 512);
  EXPECT_DOUBLE_EQ(disks[1].write_bytes, 1156600.0 * 512);
}

TEST(Procfs, DiskstatsOfAnOldKernelHaveFewerColumns) {
  const auto disks = ParseDiskstats("8 0 sda 1 2 3 4 5 6 7 8 9 10 11");
  ASSERT_EQ(disks.size(), 1u);
  EXPECT_DOUBLE_EQ(disks[0].write_bytes, 7 * 512);
}

TEST(Procfs, BrokenDiskstatsAreRefusedWithTheDevice) {
  EXPECT_TRUE(ParseDiskstats("").empty());
  EXPECT_THAT([] { ParseDiskstats("8 0 sda 1 2"); }, ThrowsMessage<ProcfsError>(HasSubstr("sectors read of sda")));
  EXPECT_THAT([] { ParseDiskstats("8 0 sda 1 2 3 4 5 6 seven 8"); }, ThrowsMessage<ProcfsError>(HasSubstr("sectors written of sda")));
}

constexpr const char* kNetHeader =
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";

TEST(Procfs, NetDevGivesBytesPerInterface) {
  const auto interfaces = ParseNetDev(
      std::string(kNetHeader) +
      "    lo:    3267      29    0    0    0     0          0         0     3268      29    0    0    0     0       0          0\n"
      "  eth0: 57396418    1256    0    0    0     0          0         0    55641     661    0    0    0     0       0          0\n");
  ASSERT_EQ(interfaces.size(), 2u);
  EXPECT_EQ(interfaces[1].name, "eth0");
  EXPECT_DOUBLE_EQ(interfaces[1].receive_bytes, 57396418);
  EXPECT_DOUBLE_EQ(interfaces[1].transmit_bytes, 55641);
}

TEST(Procfs, NetDevCounterMayTouchTheColonAndANameMayHoldOne) {
  const auto interfaces = ParseNetDev(std::string(kNetHeader) + "eth0:1:123 0 0 0 0 0 0 0 456 0 0 0 0 0 0 0\n");
  ASSERT_EQ(interfaces.size(), 1u);
  EXPECT_EQ(interfaces[0].name, "eth0:1");
  EXPECT_DOUBLE_EQ(interfaces[0].receive_bytes, 123);
  EXPECT_DOUBLE_EQ(interfaces[0].transmit_bytes, 456);
}

TEST(Procfs, BrokenNetDevIsRefusedWithAReason) {
  EXPECT_THAT([] { ParseNetDev(""); }, ThrowsMessage<ProcfsError>(HasSubstr("header")));
  EXPECT_THAT([] { ParseNetDev("eth0: 1 2 3 4 5 6 7 8 9\n"); }, ThrowsMessage<ProcfsError>(HasSubstr("header")));
  EXPECT_THAT([] { ParseNetDev(std::string(kNetHeader) + "eth0 1 2 3\n"); }, ThrowsMessage<ProcfsError>(HasSubstr("name")));
  EXPECT_THAT([] { ParseNetDev(std::string(kNetHeader) + "eth0: 1 2 3\n"); },
              ThrowsMessage<ProcfsError>(HasSubstr("bytes sent by eth0")));
}

}  // namespace
}  // namespace consumption
