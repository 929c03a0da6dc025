// Measuring a host whose /proc and /sys are folders of the test's own, and this one.
#include "infrastructure/host.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include <fstream>
#include <map>

namespace consumption {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class HostTest : public testing::Test {
 protected:
  HostTest() {
    char folder[] = "/tmp/consumption-host-XXXXXX";
    root_ = mkdtemp(folder);
    Write("proc/sys/kernel/random/boot_id", "0f3c\n");
    Write("proc/stat", "cpu 100 0 0 0 0 0 0\n");
    Write("proc/meminfo", "MemTotal: 10 kB\nMemAvailable: 4 kB\n");
    Disk("vda", 100, 10);
    Disk("vda1", 90, 9);
    Interface("lo", 5, 5);
    Interface("eth0", 1000, 100);
  }
  ~HostTest() override { fs::remove_all(root_); }

  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void Folder(const fs::path& path) { fs::create_directories(root_ / path); }
  void Disk(const std::string& name, int read, int written) {
    diskstats_ += "8 0 " + name + " 1 1 " + std::to_string(read) + " 1 1 1 " + std::to_string(written) + " 1 0 1 1\n";
    Write("proc/diskstats", diskstats_);
  }
  void Interface(const std::string& name, int received, int sent) {
    net_dev_ += name + ": " + std::to_string(received) + " 0 0 0 0 0 0 0 " + std::to_string(sent) + " 0 0 0 0 0 0 0\n";
    Write("proc/net/dev", net_dev_);
  }
  std::map<std::string, double> Values(const HostOptions& options = {}) {
    std::map<std::string, double> values;
    for (const auto& value : MeasureHost(options, root_).values) values[value.metric] = value.value;
    return values;
  }

  fs::path root_;
  std::string diskstats_;
  std::string net_dev_ = "Inter-| Receive | Transmit\n face |bytes |bytes\n";
};

TEST_F(HostTest, MeasuresEverythingAndNamesTheBoot) {
  const Measurement measured = MeasureHost({}, root_);
  EXPECT_THAT(measured.problems, IsEmpty());
  EXPECT_EQ(measured.epoch, "0f3c");
  ASSERT_EQ(measured.values.size(), 6u);
  EXPECT_DOUBLE_EQ(Values()["cpu_seconds"], 1.0);
  EXPECT_DOUBLE_EQ(Values()["memory_bytes"], 6 * 1024);
  EXPECT_DOUBLE_EQ(Values()["disk_read_bytes"], 100 * 512);
  EXPECT_DOUBLE_EQ(Values()["network_transmit_bytes"], 100);
}

TEST_F(HostTest, WithoutSysPartitionsAndVirtualDisksAreToldByTheirNames) {
  for (const char* name : {"loop0", "ram1", "zram0", "sr0", "fd0", "dm-0", "md127", "nvme0n1p1", "mmcblk0p2"}) Disk(name, 7, 7);
  Disk("nvme0n1", 20, 2);
  Disk("mmcblk0", 3, 3);
  Disk("xvdb1", 4, 4);  // a whole disk on some clouds: there is no xvdb
  EXPECT_DOUBLE_EQ(Values()["disk_read_bytes"], (100 + 20 + 3 + 4) * 512);
  EXPECT_DOUBLE_EQ(Values()["disk_write_bytes"], (10 + 2 + 3 + 4) * 512);
}

TEST_F(HostTest, WithSysDisksThatStandOnOthersAreNotCountedAgain) {
  Disk("dm-0", 95, 9);
  Disk("cciss/c0d0", 50, 5);
  Disk("odd", 1000, 1000);
  Folder("sys/block/vda/slaves");
  Folder("sys/block/dm-0/slaves/vda");
  Folder("sys/block/cciss!c0d0");
  EXPECT_DOUBLE_EQ(Values()["disk_read_bytes"], (100 + 50) * 512);  // "odd" is not a whole device for sysfs
}

TEST_F(HostTest, PhysicalInterfacesAreCountedAndWhatRunsOverThemIsNot) {
  Interface("docker0", 500, 50);
  Interface("veth1", 500, 50);
  Interface("eth1", 30, 3);
  Folder("sys/class/net/eth0/device");
  Folder("sys/class/net/eth1/device");
  Folder("sys/class/net/docker0");
  EXPECT_DOUBLE_EQ(Values()["network_receive_bytes"], 1030);
  fs::create_directory_symlink("../eth0", root_ / "sys/class/net/eth1/master");  // a virtual function under its synthetic device
  EXPECT_DOUBLE_EQ(Values()["network_receive_bytes"], 1000);
}

TEST_F(HostTest, APortOfABridgeStillCounts) {
  Folder("sys/class/net/eth0/device");
  Folder("sys/class/net/br0");
  Interface("br0", 900, 90);
  fs::create_directory_symlink("../br0", root_ / "sys/class/net/eth0/master");
  EXPECT_DOUBLE_EQ(Values()["network_receive_bytes"], 1000);
}

TEST_F(HostTest, InAContainerAllInterfacesButTheLoopbackCount) {
  Interface("net1", 1, 1);
  EXPECT_DOUBLE_EQ(Values()["network_receive_bytes"], 1001);
}

TEST_F(HostTest, ConfiguredNamesReplaceTheChoiceAndAreTheScope) {
  const HostOptions options{.disks = "vda1, sd*", .interfaces = "l?"};
  EXPECT_DOUBLE_EQ(Values(options)["disk_read_bytes"], 90 * 512);
  EXPECT_DOUBLE_EQ(Values(options)["network_receive_bytes"], 5);
  const Measurement measured = MeasureHost(options, root_);
  EXPECT_EQ(measured.values[0].scope, "");
  EXPECT_EQ(measured.values[2].scope, "vda1, sd*");
  EXPECT_EQ(measured.values[5].scope, "l?");
}

TEST_F(HostTest, AFileThatCantBeReadCostsItsMetricsOnly) {
  fs::remove(root_ / "proc/diskstats");
  Write("proc/meminfo", "nonsense\n");
  fs::remove(root_ / "proc/sys/kernel/random/boot_id");
  const Measurement measured = MeasureHost({}, root_);
  EXPECT_THAT(measured.problems, ElementsAre(HasSubstr("meminfo"), HasSubstr("diskstats can't be read: No such file")));
  EXPECT_EQ(measured.epoch, "");
  EXPECT_EQ(measured.values.size(), 3u);
}

TEST_F(HostTest, AHostWithNothingToReadGivesNothing) {
  fs::remove_all(root_ / "proc");
  const Measurement measured = MeasureHost({}, root_);
  EXPECT_THAT(measured.values, IsEmpty());
  EXPECT_EQ(measured.problems.size(), 4u);
}

TEST(ThisHost, IsMeasuredAndItsCpuTimeGrows) {
  const Measurement first = MeasureHost({});
  EXPECT_THAT(first.problems, IsEmpty());
  ASSERT_EQ(first.values.size(), 6u);
  EXPECT_GT(first.values[0].value, 0);  // it has run this test
  EXPECT_GT(first.values[1].value, 0);
  const Measurement second = MeasureHost({});
  EXPECT_GE(second.values[0].value, first.values[0].value);
  EXPECT_EQ(second.epoch, first.epoch);
  EXPECT_GE(second.at, first.at);
}

}  // namespace
}  // namespace consumption
