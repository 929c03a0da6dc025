// Invalidations between nodes on one database: they arrive, in pieces where they are long, late where the database was away; and nobody else can
// read or make one.
#include "supervisor/cache/peers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>

#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

constexpr std::chrono::seconds kPeerPatience{30};  // about hanging, not about speed

class PeerNode {
 public:
  explicit PeerNode(const std::string& conninfo, const std::string& key = std::string(64, 'a'))
      : box_(*SecretBox::Load("", key)),
        peers_(conninfo, *box_,
               {[this](const std::string& module, const cache::Names& names, bool missed) {
                  std::lock_guard lock(mutex_);
                  if (missed) heard_.push_back(module + " lacks Redis");
                  for (const std::string& name : names.keys) heard_.push_back(module + " key " + name);
                  for (const std::string& name : names.tags) heard_.push_back(module + " tag " + name);
                  if (names.all) heard_.push_back(module + " all");
                  changed_.notify_all();
                },
                [this] {
                  std::lock_guard lock(mutex_);
                  ++connected_;
                  changed_.notify_all();
                }}) {}
  void Tell(const std::string& module, const cache::Names& names, bool missed = false) { peers_.Tell(module, names, missed); }
  bool Hears(const std::string& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPeerPatience, [&] { return std::find(heard_.begin(), heard_.end(), what) != heard_.end(); });
  }
  bool Connects(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPeerPatience, [&] { return connected_ >= times; });
  }
  std::vector<std::string> heard() {
    std::lock_guard lock(mutex_);
    return heard_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> heard_;
  int connected_ = 0;
  std::unique_ptr<SecretBox> box_;
  CachePeers peers_;  // last: its threads use the rest
};

TEST(CachePeers, OneNodeHearsWhatTheOtherInvalidatesAndNotWhatItDoesItself) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  PeerNode one(conninfo), two(conninfo);
  ASSERT_TRUE(one.Connects(1) && two.Connects(1));
  one.Tell("orders", {.keys = {"a", "b"}, .tags = {"t"}});
  one.Tell("prices", {.all = true});
  for (const char* what : {"orders key a", "orders key b", "orders tag t", "prices all"}) EXPECT_TRUE(two.Hears(what)) << what;
  two.Tell("orders", {.keys = {"back"}});
  EXPECT_TRUE(one.Hears("orders key back"));
  EXPECT_EQ(one.heard(), std::vector<std::string>{"orders key back"});
  two.Tell("orders", {.keys = {"late"}}, true);
  EXPECT_TRUE(one.Hears("orders key late"));
  EXPECT_EQ(one.heard(), (std::vector<std::string>{"orders key back", "orders lacks Redis", "orders key late"}));
}

TEST(CachePeers, ManyLongNamesTravelInPiecesThatPostgresqlTakes) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  PeerNode one(conninfo), two(conninfo);
  ASSERT_TRUE(two.Connects(1));
  cache::Names names;
  for (int i = 0; i < 300; ++i) names.keys.push_back(std::to_string(i) + std::string(cache::kMaxKey - 4, '\x01'));
  one.Tell("orders", names);
  for (const std::string& key : {names.keys.front(), names.keys.back()}) EXPECT_TRUE(two.Hears("orders key " + key));
  EXPECT_EQ(two.heard().size(), 300u);
  const auto box = *SecretBox::Load("", std::string(64, 'a'));
  for (const std::string& text : CacheNotifications(*box, "origin", "orders", names, false)) EXPECT_LT(text.size(), 8'000u);
}

TEST(CachePeers, WhatWaitsTooLongIsEverythingOfTheModule) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  PeerNode one(conninfo), two(conninfo);
  ASSERT_TRUE(two.Connects(1));
  one.Tell("orders", {.keys = std::vector<std::string>(limits::kMaxWaitingCacheNames + 1, "k")});
  EXPECT_TRUE(two.Hears("orders all"));
}

TEST(CachePeers, WithoutTheNodesKeyANotificationSaysNothingAndDoesNothing) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  PeerNode one(conninfo), stranger(conninfo, std::string(64, 'b'));
  ASSERT_TRUE(one.Connects(1) && stranger.Connects(1));
  const auto box = *SecretBox::Load("", std::string(64, 'a'));
  for (const std::string& text : CacheNotifications(*box, "origin", "secret-module", {.keys = {"secret-key"}}, false)) {
    EXPECT_EQ(text.find("secret"), std::string::npos);
  }
  Database database(conninfo, 1);
  for (const char* forged : {"{\"module\":\"orders\",\"all\":true}", "v1.aaaaaaaa.AAAA", "junk"})
    ASSERT_TRUE(database.Run("SELECT pg_notify('bulkhead_cache', $1)", {forged}).ok());
  stranger.Tell("orders", {.all = true});
  // Behind all these comes one that counts.
  PeerNode two(conninfo);
  two.Tell("orders", {.keys = {"real"}});
  EXPECT_TRUE(one.Hears("orders key real"));
  EXPECT_EQ(one.heard(), std::vector<std::string>{"orders key real"});
}

TEST(CachePeers, WhatCouldNotBeSentIsSentWhenTheDatabaseIsBackAndWhatMayHaveBeenMissedIsTold) {
  TestPostgres& postgres = TestPostgres::Instance();
  const std::string conninfo = postgres.FreshDatabase();
  PeerNode one(conninfo), two(conninfo);
  ASSERT_TRUE(one.Connects(1) && two.Connects(1));
  postgres.Stop();
  one.Tell("orders", {.keys = {"meanwhile"}});
  postgres.Start();
  EXPECT_TRUE(two.Connects(2)) << "it forgets everything";
  EXPECT_TRUE(one.Connects(2));
  one.Tell("orders", {.keys = {"afterwards"}});
  EXPECT_TRUE(two.Hears("orders key afterwards"));
}

}  // namespace
}  // namespace bulkhead
