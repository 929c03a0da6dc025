// One worker with a real process (tests/fakes/misbehaving) under a real spawner: which sentence each way of not behaving becomes.
#include "supervisor/worker/worker.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <set>

#include "tests/unit/process/spawned.h"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// The spawner is forked once, before gRPC has made a thread.
Spawned& Children() {
  static auto* children = new Spawned;
  return *children;
}

class MisbehavingWorker : public ::testing::Test {
 protected:
  void SetUp() override { Children(); }

  Manifest& manifest() { return *manifest_; }

  void Begin(const std::string& mode) {
    std::filesystem::path program = MISBEHAVING;
    manifest_->entry = program.filename();
    manifest_->args = {mode};
    WorkerSpec spec;
    spec.module = "misbehaving";
    spec.instance = "misbehaving." + std::to_string(next_++);
    spec.manifest = manifest_;
    spec.package_dir = program.parent_path();
    spec.instance_dir = folder_.Path("i" + std::to_string(next_));  // its own: the last one is still being removed
    spec.data_dir = folder_.Path("d");
    spec.uid = getuid();
    spec.gid = getgid();
    ready_ = gone_ = false;
    end_.reset();
    worker_ = std::make_unique<WorkerProcess>(
        Children().loop, *Children().spawner, Clock::Real(), spec,
        WorkerProcess::Callbacks{.ready = [this] { ready_ = true; },
                                 .died = [this](const WorkerExit& exit) { end_ = exit; },
                                 .gone = [this] { gone_ = true; },
                                 .health = [this](const absl::Status& status, const module::v1::HealthResponse&) { healths_.push_back(status); },
                                 .floods = [this](const std::string& message) { floods_.push_back(message); }});
    worker_->Start();
  }
  bool Ready() {
    return RunUntil(Children().loop, [this] { return ready_; });
  }
  WorkerExit End() {
    EXPECT_TRUE(RunUntil(Children().loop, [this] { return gone_; })) << "it did not end";
    worker_.reset();
    return end_.value_or(WorkerExit{});
  }

 private:
  static inline int next_ = 0;
  ScratchFolder folder_;
  std::shared_ptr<Manifest> manifest_ = std::make_shared<Manifest>();
  std::unique_ptr<WorkerProcess> worker_;
  bool ready_ = false, gone_ = false;
  std::optional<WorkerExit> end_;

 protected:
  std::vector<std::string> floods_;
  std::vector<absl::Status> healths_;

  WorkerProcess& worker() { return *worker_; }
};

TEST_F(MisbehavingWorker, AnExitBeforeTheHandshakeIsToldByItsCode) {
  Begin("exit-at-once");
  WorkerExit exit = End();
  EXPECT_EQ(exit.end, WorkerEnd::kHandshake);
  EXPECT_EQ(exit.exit_code, 3);
  EXPECT_EQ(exit.message, "exited with code 3 before the handshake");
  EXPECT_EQ(exit.code, "HANDSHAKE_EXIT");
  EXPECT_THAT(exit.output, HasSubstr("free lunch"));
}

TEST_F(MisbehavingWorker, AnExitIsToldByItsCodeAlsoWhenTheOfferOfTheHandshakeFindsFd3Closed) {
  Begin("exit-125-at-once");
  std::this_thread::sleep_for(
      std::chrono::milliseconds(300));  // the loop stands still: it has ended before its start is heard of
  WorkerExit exit = End();
  EXPECT_EQ(exit.end, WorkerEnd::kConfig) << exit.message;
  EXPECT_EQ(exit.exit_code, 125);
}

TEST_F(MisbehavingWorker, EachFaultOfAHandshakeHasACodeOfItsOwn) {
  manifest().handshake_timeout = Millis(1'000);
  for (auto [mode, code, sentence] : {std::tuple{"close-fd3", "HANDSHAKE_CLOSED", "closed fd 3"},
                                      {"other-protocol", "PROTOCOL_MISMATCH", "it speaks protocol 99"},
                                      {"garbage-handshake", "HANDSHAKE_MALFORMED", "not a JSON object"},
                                      {"endless-handshake", "HANDSHAKE_MALFORMED", "longer than 4096 bytes"},
                                      {"silent", "HANDSHAKE_TIMEOUT", "no handshake within 1000 ms"}}) {
    Begin(mode);
    const WorkerExit exit = End();
    EXPECT_EQ(exit.end, WorkerEnd::kHandshake) << mode;
    EXPECT_EQ(exit.code, code) << mode;
    EXPECT_THAT(exit.message, HasSubstr(sentence)) << mode;
  }
}

TEST_F(MisbehavingWorker, AFloodIsToldEachSecondWithANumberThatDoublesAndNotAtTheEnd) {
  Begin("flood");
  ASSERT_TRUE(Ready());
  ASSERT_TRUE(RunUntil(Children().loop, [this] { return floods_.size() >= 4; }));
  EXPECT_THAT(floods_[0], MatchesRegex("it prints more than 1000 lines or 512 KiB a second, so [0-9]+ lines or more were dropped: .*"));
  EXPECT_LT(std::set<std::string>(floods_.begin(), floods_.begin() + 4).size(), 4u) << "what has not doubled is told with the same number";
  const size_t told = floods_.size();
  worker().Stop(Millis(5'000));
  End();
  EXPECT_EQ(floods_.size(), told) << "who ends does not flood any more";
}

TEST_F(MisbehavingWorker, AStartThatHangsNamesTheCallThatDid) {
#ifdef BULKHEAD_SANITIZED
  constexpr Millis kTimeout{5'000};  // the program alone takes hundreds of milliseconds to start
#else
  constexpr Millis kTimeout{500};
#endif
  manifest().start_timeout = kTimeout;
  for (const char* call : {"Initialize", "Start"}) {
    Begin(call == std::string("Start") ? "hang-start" : "hang-initialize");
    WorkerExit exit = End();
    EXPECT_EQ(exit.end, WorkerEnd::kStartTimeout);
    EXPECT_EQ(exit.message, std::string(call) + " did not answer: Initialize and Start have " + std::to_string(kTimeout.count()) + " ms together");
    EXPECT_FALSE(exit.asked);
  }
}

TEST_F(MisbehavingWorker, ASignalThatTellsOfALimitIsToldAsOne) {
  Begin("file-size");
  WorkerExit exit = End();
  EXPECT_EQ(exit.end, WorkerEnd::kLimit);
  EXPECT_EQ(exit.signal, SIGXFSZ);
  EXPECT_THAT(exit.message, HasSubstr("File size limit exceeded"));
  EXPECT_FALSE(exit.orderly);
}

TEST_F(MisbehavingWorker, ExitCode0IsAnOrderlyEndAndAnyOtherIsNone) {
  Begin("exit-0");
  EXPECT_TRUE(End().orderly);
  Begin("exit");
  EXPECT_FALSE(End().orderly);
}

TEST_F(MisbehavingWorker, AStopInOrderLeavesNothingToSay) {
  Begin("");
  ASSERT_TRUE(Ready());
  worker().Stop(Millis(5'000));
  WorkerExit exit = End();
  EXPECT_TRUE(exit.asked);
  EXPECT_EQ(exit.stop_notes, "");
}

TEST_F(MisbehavingWorker, AStopThatIsNotAnsweredIsNoted) {
  manifest().stop_timeout = Millis(200);
  Begin("hang-stop");
  ASSERT_TRUE(Ready());
  worker().Stop(Millis(5'000));
  WorkerExit exit = End();
  EXPECT_TRUE(exit.asked);
  EXPECT_EQ(exit.stop_notes, "Stop did not answer within 200 ms");
}

TEST_F(MisbehavingWorker, AProcessThatIgnoresSigtermIsKilledWhenItsTimeIsUpAndThatIsNoted) {
  Begin("ignore-sigterm");
  ASSERT_TRUE(Ready());
  worker().Stop(Millis(400));
  WorkerExit exit = End();
  EXPECT_TRUE(exit.asked);
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_THAT(exit.stop_notes, MatchesRegex("it did not end within [0-9]+ ms of SIGTERM and was killed"));
}

TEST_F(MisbehavingWorker, HealthThatIsNeverAnsweredEndsIt) {
  manifest().health.readiness = manifest().health.liveness = {Millis(100), Millis(50)};
  Begin("hang-health");
  ASSERT_TRUE(Ready());
  WorkerExit exit = End();
  EXPECT_EQ(exit.end, WorkerEnd::kLiveness);
  EXPECT_THAT(exit.message, HasSubstr("Health did not answer 3 times in a row"));
  EXPECT_FALSE(exit.asked);
}

// Its sockets close before its exit is told: of the two, only the exit is.
TEST_F(MisbehavingWorker, ADeathDuringHealthIsNoAnswerToIt) {
  manifest().health.readiness = manifest().health.liveness = {Millis(100), Millis(60'000)};
  Begin("hang-health");
  ASSERT_TRUE(Ready());
  bool asked = false;
  Children().loop.After(Millis(500), [&] { asked = true; });
  ASSERT_TRUE(RunUntil(Children().loop, [&] { return asked; }));
  ASSERT_EQ(kill(worker().pid(), SIGKILL), 0);
  EXPECT_EQ(End().signal, SIGKILL);
  EXPECT_THAT(healths_, ::testing::IsEmpty());
}

}  // namespace
}  // namespace bulkhead
