// For whom a flag is on, and two nodes on one database.
#include "supervisor/flags/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "supervisor/base/status.h"
#include "tests/fakes/postgres_fixture.h"
#include "tests/unit/flags/flag_vectors.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(Flag, IsOnForTheSameIdentitiesEverywhere) {
  for (const FlagVector& vector : FlagVectors()) {
    SCOPED_TRACE(vector.name + " for " + vector.identity);
    Flag flag{.name = vector.name, .enabled = true};
    const auto on = [&](int percentage) {
      flag.percentage = percentage;
      return flag.EnabledFor(vector.identity);
    };
    EXPECT_FALSE(on(0));
    EXPECT_FALSE(on(vector.bucket));
    EXPECT_TRUE(on(vector.bucket + 1));
    EXPECT_TRUE(on(100));
    flag.enabled = false;
    EXPECT_FALSE(on(100));
  }
}

TEST(Flag, NamedIdentitiesHaveItWhateverThePercentageAndAreAloneWithoutOne) {
  Flag flag{.name = "new-pricing", .enabled = true, .percentage = 0, .identities = {"bob"}};
  EXPECT_TRUE(flag.EnabledFor("bob"));
  EXPECT_FALSE(flag.EnabledFor("ann"));
  flag.percentage.reset();
  EXPECT_TRUE(flag.EnabledFor("bob"));
  EXPECT_FALSE(flag.EnabledFor("ann"));
  flag.identities.clear();
  EXPECT_TRUE(flag.EnabledFor("ann"));
  EXPECT_TRUE(flag.EnabledFor(""));
}

// A node: a loop with its thread, a pool, and the flags of a database.
class Node {
 public:
  explicit Node(const std::string& conninfo, Flags::Sources sources = {})
      : database_(conninfo, 2), flags_(loop_, pool_, database_, std::move(sources)), thread_([this] { loop_.Run(); }) {
    EXPECT_TRUE(flags_.Load().ok());
    flags_.OnChange([this](const std::shared_ptr<const FlagSet>&) { ++told_; });
  }
  ~Node() {
    pool_.Shutdown();
    loop_.Stop();
    thread_.join();
  }
  absl::Status Set(const std::string& name, FlagChange change) {
    std::promise<absl::Status> answered;
    flags_.Set(name, std::move(change), Actor(), [&](absl::StatusOr<Flag> flag) { answered.set_value(flag.status()); });
    return answered.get_future().get();
  }
  absl::Status Delete(const std::string& name) {
    std::promise<absl::Status> answered;
    flags_.Delete(name, Actor(), [&](absl::StatusOr<bool> deleted) { answered.set_value(deleted.status()); });
    return answered.get_future().get();
  }
  // What is in force after a look at the database, and how often somebody was told until now.
  std::map<std::string, bool> Followed() {
    flags_.Follow();
    std::promise<void> passed;
    loop_.Post([&] { passed.set_value(); });
    passed.get_future().wait();
    std::map<std::string, bool> values;
    const auto current = flags_.current();
    for (const auto& [variable, flag] : current->all()) values[flag.name] = flag.enabled;
    return values;
  }
  int told() const { return told_; }
  const Flag* Find(const std::string& name) { return (kept_ = flags_.current())->Find(name); }

 private:
  Loop loop_;
  BlockingPool pool_{2, 100};
  Database database_;
  std::atomic<int> told_{0};
  Flags flags_;
  std::shared_ptr<const FlagSet> kept_;
  std::thread thread_;
};

TEST(FlagsOfTwoNodes, AChangeOnOneIsFollowedByTheOtherAndToldOnce) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  Node one(conninfo), two(conninfo, {.environment = {{"fixed", true}}, .file = {{"from-file", true}}});
  EXPECT_THAT(two.Followed(), ElementsAre(Pair("fixed", true), Pair("from-file", true)));
  EXPECT_EQ(two.told(), 0);
  ASSERT_TRUE(one.Set("new-pricing", {.enabled = true, .percentage = 30, .identities = {"ann"}}).ok());
  ASSERT_TRUE(one.Set("from-file", {.enabled = false}).ok());
  EXPECT_THAT(two.Followed(), ElementsAre(Pair("fixed", true), Pair("from-file", false), Pair("new-pricing", true)));
  EXPECT_EQ(two.told(), 1);
  EXPECT_EQ(two.Find("new-pricing")->percentage, 30);
  EXPECT_THAT(two.Find("new-pricing")->identities, ElementsAre("ann"));
  two.Followed();
  EXPECT_EQ(two.told(), 1) << "what has not changed is not told";
  ASSERT_TRUE(one.Delete("from-file").ok());
  EXPECT_THAT(two.Followed(), ElementsAre(Pair("fixed", true), Pair("from-file", true), Pair("new-pricing", true)));
  EXPECT_EQ(two.told(), 2);
  // What the environment of a node fixes stays there, whatever another node sets.
  ASSERT_TRUE(one.Set("fixed", {.enabled = false}).ok());
  EXPECT_TRUE(two.Followed()["fixed"]);
  EXPECT_EQ(ErrorCode(two.Set("fixed", {.enabled = false})), "FLAG_FIXED");
  EXPECT_EQ(two.told(), 2);
}

TEST(FlagsOfTwoNodes, OfChangesAtTheSameTimeNoneIsLost) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  Node one(conninfo), two(conninfo);
  std::vector<std::thread> writers;
  for (Node* node : {&one, &two}) {
    writers.emplace_back([node, prefix = node == &one ? "a" : "b"] {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(node->Set(prefix + std::to_string(i), {.enabled = true}).ok());
    });
  }
  for (int i = 0; i < 20; ++i) two.Followed();
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(one.Followed().size(), 40u);
  EXPECT_EQ(two.Followed(), one.Followed());
}

TEST(FlagsOfANode, TogetherFitIntoAMessageToAModule) {
  Node node(TestPostgres::Instance().FreshDatabase());
  FlagChange large{.enabled = true};
  for (size_t i = 0; i < Flags::kMaxIdentities; ++i) large.identities.push_back(std::string(Flags::kMaxIdentity - 4, 'x') + std::to_string(1'000 + i));
  size_t kept = 0;
  absl::Status last;
  for (; kept < 100 && (last = node.Set("large-" + std::to_string(kept), large)).ok(); ++kept) {
  }
  EXPECT_EQ(kept, 16u);
  EXPECT_EQ(ErrorCode(last), "OVERLOADED");
  EXPECT_TRUE(node.Set("large-0", large).ok()) << "one that is there may be set again";
  EXPECT_TRUE(node.Delete("large-1").ok());
  EXPECT_TRUE(node.Set("large-17", large).ok());
}

}  // namespace
}  // namespace bulkhead
