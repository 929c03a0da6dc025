// Where a connection string leads: over a Unix socket or TCP, to which ports, by an address or a name.
#include "supervisor/store/store_reach.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(StoreReach, UnixSocketsAreNoNetwork) {
  for (const char* conninfo : {"host=/var/lib/bulkhead/run/pg user=a dbname=b", "dbname=b", "postgresql:///b",
                               "postgresql://%2Frun%2Fpostgresql/b", "host=@abstract", "no conninfo at all"}) {
    const StoreReach reach = ReachOf(conninfo);
    EXPECT_FALSE(reach.tcp) << conninfo;
    EXPECT_THAT(reach.ports, IsEmpty()) << conninfo;
    EXPECT_FALSE(reach.by_name) << conninfo;
  }
  EXPECT_THAT(ReachOf("postgresql://%2Frun%2Fpostgresql/b").socket_folders, ElementsAre("/run/postgresql"));
}

TEST(StoreReach, HostsAndPortsAreTold) {
  const StoreReach named = ReachOf("postgresql://u:p@db.example.org/b");
  EXPECT_TRUE(named.tcp && named.by_name && !named.loopback);
  EXPECT_THAT(named.ports, ElementsAre(5432));
  const StoreReach address = ReachOf("host=192.0.2.7 port=6000");
  EXPECT_TRUE(address.tcp && !address.by_name && !address.loopback);
  EXPECT_THAT(address.ports, ElementsAre(6000));
  for (const char* conninfo : {"postgresql://127.0.0.1:5433/b", "postgresql://localhost:5433/b", "postgresql://[::1]:5433/b",
                               "host=db.example.org hostaddr=127.0.0.1 port=5433"}) {
    const StoreReach reach = ReachOf(conninfo);
    EXPECT_TRUE(reach.tcp && !reach.by_name && reach.loopback) << conninfo;
    EXPECT_THAT(reach.ports, ElementsAre(5433)) << conninfo;
  }
}

TEST(StoreReach, SeveralHostsAreSeveralPlaces) {
  const StoreReach reach = ReachOf("postgresql://127.0.0.1:5433,db.example.org,%2Frun%2Fpostgresql/b");
  EXPECT_TRUE(reach.tcp && reach.by_name && !reach.loopback);
  EXPECT_THAT(reach.ports, ElementsAre(5432, 5433));
  EXPECT_THAT(reach.socket_folders, ElementsAre("/run/postgresql"));
  EXPECT_THAT(ReachOf("host=10.0.0.1,10.0.0.2 port=6000").ports, ElementsAre(6000));
}

}  // namespace
}  // namespace bulkhead
