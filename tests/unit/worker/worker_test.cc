// A module's process as the supervisor sees it, with a real spawner.
#include "supervisor/worker/worker.h"

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "tests/unit/process/spawned.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

// Both ways of tracking a tree: with a keeper the pid is known some time after the clone.
class WorkerTest : public testing::TestWithParam<bool> {
 protected:
  // A module whose program is this shell script.
  WorkerSpec Spec(const std::string& script, Millis handshake_timeout) {
    std::filesystem::create_directory(scratch.Path("bin"));
    std::ofstream(scratch.Path("bin/demo")) << "#!/bin/sh\n" << script << "\n";
    chmod(scratch.Path("bin/demo").c_str(), 0755);
    auto manifest = std::make_shared<Manifest>();
    manifest->name = "demo";
    manifest->entry = "bin/demo";
    manifest->handshake_timeout = handshake_timeout;
    WorkerSpec spec;
    spec.module = "demo";
    spec.instance = "demo.0.1";
    spec.manifest = manifest;
    spec.package_dir = scratch.Path();
    spec.instance_dir = scratch.Path("instance");
    spec.data_dir = scratch.Path("data");
    spec.uid = geteuid();
    spec.gid = getegid();
    return spec;
  }
  // Runs it until nothing of it is left.
  std::optional<WorkerExit> RunToItsEnd(WorkerSpec spec, const std::function<void()>& started = [] {}) {
    std::optional<WorkerExit> died;
    bool gone = false;
    WorkerProcess worker(on.loop, *on.spawner, Clock::Real(), std::move(spec),
                         {.ready = [] {}, .died = [&](const WorkerExit& exit) { died = exit; }, .gone = [&] { gone = true; }});
    worker.Start();
    started();
    EXPECT_TRUE(RunUntil(on.loop, [&] { return gone; })) << "it has not ended";
    return died;
  }

  Spawned on{GetParam()};
  ScratchFolder scratch;
};
INSTANTIATE_TEST_SUITE_P(Tracking, WorkerTest, testing::Bool(), [](const auto& info) { return info.param ? "Cgroup" : "Keeper"; });

TEST_P(WorkerTest, AProcessThatNeverAnswersTheHandshakeIsEnded) {
  auto died = RunToItsEnd(Spec("exec sleep 600", Millis(100)));
  ASSERT_TRUE(died.has_value());
  EXPECT_EQ(died->end, WorkerEnd::kHandshake);
  EXPECT_THAT(died->message, HasSubstr("no handshake within 100 ms"));
  EXPECT_EQ(died->signal, SIGKILL);
}

TEST_P(WorkerTest, AProcessWhoseTimeIsUpBeforeItsSpawnIsAnsweredIsEndedAllTheSame) {
  kill(on.spawner->pid(), SIGSTOP);
  auto died = RunToItsEnd(Spec("exec sleep 600", Millis(50)), [&] {
    on.loop.After(Millis(200), [&] { kill(on.spawner->pid(), SIGCONT); });
  });
  ASSERT_TRUE(died.has_value());
  EXPECT_EQ(died->end, WorkerEnd::kHandshake);
  EXPECT_EQ(died->signal, SIGKILL);
}

}  // namespace
}  // namespace bulkhead
