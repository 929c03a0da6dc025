// Files that attempts of runs leave: kept with the run, bound to the attempt, bounded.
#include "tests/unit/jobs/jobs_harness.h"

namespace bulkhead::jobs_testing {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> NamesOf(const RunView& run) {
  std::vector<std::string> names;
  for (const Artifact& artifact : run.artifacts) names.push_back(artifact.name);
  return names;
}

class ArtifactsTest : public JobsTest {
 protected:
  absl::StatusOr<Artifact> Keep(const module::v1::RunJobRequest& run, const std::string& name, std::string data, const std::string& type = "text/plain",
                                const std::string& module = "m") {
    std::promise<absl::StatusOr<Artifact>> answer;
    node_.jobs().KeepArtifact(module, {run.run_id(), run.fence(), name, type, std::move(data)},
                              [&](absl::StatusOr<Artifact> kept) { answer.set_value(std::move(kept)); });
    return answer.get_future().get();
  }
  absl::StatusOr<Artifact> Find(const std::string& run, const std::string& name) {
    std::promise<absl::StatusOr<Artifact>> answer;
    node_.jobs().FindArtifact(run, name, [&](absl::StatusOr<Artifact> found) { answer.set_value(std::move(found)); });
    return answer.get_future().get();
  }
  absl::StatusOr<std::string> Read(const Artifact& artifact, int part) {
    std::promise<absl::StatusOr<std::string>> answer;
    node_.jobs().ReadArtifact(artifact, part, [&](absl::StatusOr<std::string> bytes) { answer.set_value(std::move(bytes)); });
    return answer.get_future().get();
  }
  // A run of "work", begun.
  std::shared_ptr<FakeRun> Begin(size_t n = 0, int retries = 0) {
    node_.Publish({Spec("work", retries)}, {{"m.0.a", port_}});
    EXPECT_TRUE(node_.Run("work", 0ms).ok());
    return port_->Await(n);
  }
  std::string Count(const std::string& table) {
    const auto rows = node_.database().Run("SELECT count(*) AS n FROM bulkhead_internal." + table);
    return rows.ok() ? rows->Text(0, "n") : std::string(rows.status().message());
  }
  Node node_{"n1", conninfo_};
};

TEST_F(ArtifactsTest, AreListedWithTheirRunAndReadInParts) {
  auto run = Begin();
  std::string big(limits::kArtifactPart + 7, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7 % 256);
  ASSERT_TRUE(Keep(run->request, "b.bin", big, "").ok());
  ASSERT_TRUE(Keep(run->request, "a.txt", "short").ok());
  ASSERT_TRUE(Keep(run->request, "empty", "").ok());
  const auto going = node_.Get(run->request.run_id());
  EXPECT_THAT(NamesOf(*going), ElementsAre("a.txt", "b.bin", "empty"));
  EXPECT_EQ(going->artifacts[1].content_type, "application/octet-stream");
  EXPECT_EQ(going->artifacts[1].bytes, static_cast<int64_t>(big.size()));
  EXPECT_LT(std::chrono::abs(Clock::Real().Wall() - going->artifacts[0].at), 60s);
  run->Result("null");
  node_.Until(run->request.run_id(), [](const RunView& r) { return r.status == RunStatus::kSucceeded; });
  EXPECT_THAT(NamesOf(node_.List("work").runs[0]), ElementsAre("a.txt", "b.bin", "empty"));
  const auto found = Find(run->request.run_id(), "b.bin");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*Read(*found, 0) + *Read(*found, 1), big);
  EXPECT_EQ(ErrorCode(Read(*found, 2).status()), "ARTIFACT_NOT_FOUND");
  EXPECT_EQ(ErrorCode(Find(run->request.run_id(), "c").status()), "ARTIFACT_NOT_FOUND");
  EXPECT_EQ(ErrorCode(Find("nothing", "a.txt").status()), "RUN_NOT_FOUND");
}

TEST_F(ArtifactsTest, WhoWaitsForTheRunIsToldOfThem) {
  node_.Publish({Spec("work")}, {{"m.0.a", port_}});
  auto waiting = node_.Async("work", 10s);
  auto run = port_->Await(0);
  ASSERT_TRUE(Keep(run->request, "report.pdf", "%PDF").ok());
  run->Result("null");
  EXPECT_THAT(NamesOf(*waiting.get()), ElementsAre("report.pdf"));
}

TEST_F(ArtifactsTest, OneOfTheSameNameIsReplaced) {
  auto run = Begin();
  const auto first = Keep(run->request, "a", "first");
  ASSERT_TRUE(Keep(run->request, "a", "second", "text/html").ok());
  const auto found = Find(run->request.run_id(), "a");
  EXPECT_EQ(found->content_type, "text/html");
  EXPECT_EQ(*Read(*found, 0), "second");
  EXPECT_EQ(ErrorCode(Read(*first, 0).status()), "ARTIFACT_NOT_FOUND") << "who reads the old one is not given a part of the new one";
  EXPECT_EQ(Count("run_artifacts"), "1");
  EXPECT_EQ(Count("run_artifact_parts"), "1");
}

TEST_F(ArtifactsTest, BelongToTheAttemptThatLeftThem) {
  auto first = Begin(0, 2);
  ASSERT_TRUE(Keep(first->request, "a", "of the first").ok());
  ASSERT_TRUE(Keep(first->request, "b", "of the first").ok());
  const std::string id = first->request.run_id();
  node_.WorkerGone("m.0.a");
  auto second = port_->Await(1);
  EXPECT_THAT(node_.Get(id)->artifacts, IsEmpty());
  const auto late = Keep(first->request, "c", "too late");
  EXPECT_EQ(late.status().code(), absl::StatusCode::kFailedPrecondition) << late.status();
  ASSERT_TRUE(Keep(second->request, "a", "of the second").ok());
  EXPECT_THAT(NamesOf(*node_.Get(id)), ElementsAre("a"));
  EXPECT_EQ(*Read(*Find(id, "a"), 0), "of the second");
  EXPECT_EQ(Count("run_artifacts"), "1");
  second->Result("null");
  node_.Until(id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; });
  EXPECT_EQ(Keep(second->request, "d", "after its end").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ArtifactsTest, AFailedAttemptThatWaitsForTheNextOneKeepsThem) {
  auto first = Begin(0, 5);
  ASSERT_TRUE(Keep(first->request, "screenshot.png", "PNG", "image/png").ok());
  node_.Publish({Spec("work", 5)}, {});
  first->Fail("X", "x", true);
  const RunView waiting = node_.Until(first->request.run_id(), [](const RunView& r) { return r.status == RunStatus::kQueued; });
  EXPECT_THAT(NamesOf(waiting), ElementsAre("screenshot.png"));
}

TEST_F(ArtifactsTest, AnotherModuleLeavesNothingWithTheRun) {
  auto run = Begin();
  EXPECT_EQ(Keep(run->request, "a", "x", "text/plain", "other").status().code(), absl::StatusCode::kFailedPrecondition);
  module::v1::RunJobRequest none;
  none.set_run_id("'; DROP TABLE runs");
  EXPECT_EQ(Keep(none, "a", "x").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Count("run_artifacts"), "0");
}

TEST_F(ArtifactsTest, AreRefusedBeyondTheirNumberAndSize) {
  auto run = Begin();
  for (int i = 0; i < limits::kMaxArtifacts; ++i) ASSERT_TRUE(Keep(run->request, "f" + std::to_string(i), "x").ok());
  const auto more = Keep(run->request, "one more", "x");
  EXPECT_EQ(more.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("16 files"));
  EXPECT_TRUE(Keep(run->request, "f3", "again").ok()) << "one that is there may be replaced";
  EXPECT_EQ(Keep(run->request, "f4", std::string(limits::kMaxArtifactBytes + 1, 'x')).status().code(), absl::StatusCode::kInvalidArgument);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Keep(run->request, "f" + std::to_string(i), std::string(limits::kMaxArtifactBytes, 'x')).ok());
  const auto large = Keep(run->request, "f9", std::string(limits::kMaxArtifactBytes, 'x'));
  EXPECT_EQ(large.status().code(), absl::StatusCode::kOutOfRange) << "13 bytes are there beside";
  EXPECT_EQ(*Read(*Find(run->request.run_id(), "f9"), 0), "x") << "a refused one replaces nothing";
}

TEST_F(ArtifactsTest, GoWithTheirRun) {
  auto run = Begin();
  ASSERT_TRUE(Keep(run->request, "a", "x").ok());
  run->Result("null");
  node_.Until(run->request.run_id(), [](const RunView& r) { return r.status == RunStatus::kSucceeded; });
  ASSERT_TRUE(node_.database().Run("DELETE FROM bulkhead_internal.runs").ok());
  EXPECT_EQ(Count("run_artifacts"), "0");
  EXPECT_EQ(Count("run_artifact_parts"), "0");
}

TEST_F(ArtifactsTest, ANameIsThatOfAFileAlone) {
  auto run = Begin();
  for (const char* name : {"", ".", "..", "a/b", "a\\b", "a\nb", "\x7f", "\xff"})
    EXPECT_EQ(Keep(run->request, name, "x").status().code(), absl::StatusCode::kInvalidArgument) << name;
  EXPECT_EQ(Keep(run->request, std::string(129, 'a'), "x").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Keep(run->request, std::string("a\0b", 3), "x").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Keep(run->request, "a", "x", "text/plain\r\nset-cookie: x").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Keep(run->request, "a", "x", std::string(129, 'a')).status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<std::string> good = {"...", "Übersicht 2026.pdf", "a\"b;c", std::string(limits::kMaxArtifactName, 'a')};
  for (const std::string& name : good) EXPECT_TRUE(Keep(run->request, name, "x").ok()) << name;
}

}  // namespace
}  // namespace bulkhead::jobs_testing
