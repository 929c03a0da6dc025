// For whom a flag is on: as the supervisor says, and from the first moment.
#include <gtest/gtest.h>

#include "flag_watch.h"
#include "harness.h"
#include "tests/unit/flags/flag_vectors.h"

namespace bulkhead::sdk {
namespace {

TEST(SdkFlags, AreOnForTheSameIdentitiesAsInTheSupervisor) {
  for (const FlagVector& vector : FlagVectors()) {
    SCOPED_TRACE(vector.name + " for " + vector.identity);
    const auto on = [&](int percentage) { return FlagOnFor({.enabled = true, .percentage = percentage}, vector.name, vector.identity); };
    EXPECT_FALSE(on(0));
    EXPECT_FALSE(on(vector.bucket));
    EXPECT_TRUE(on(vector.bucket + 1));
    EXPECT_TRUE(on(100));
    EXPECT_FALSE(FlagOnFor({.enabled = false, .percentage = 100, .identities = {vector.identity}}, vector.name, vector.identity));
  }
}

TEST(SdkFlags, NamedIdentitiesHaveItWhateverThePercentageAndAreAloneWithoutOne) {
  FlagState flag{.enabled = true, .percentage = 0, .identities = {"bob"}};
  EXPECT_TRUE(FlagOnFor(flag, "new-pricing", "bob"));
  EXPECT_FALSE(FlagOnFor(flag, "new-pricing", "ann"));
  flag.percentage.reset();
  EXPECT_TRUE(FlagOnFor(flag, "new-pricing", "bob"));
  EXPECT_FALSE(FlagOnFor(flag, "new-pricing", "ann"));
  flag.identities.clear();
  EXPECT_TRUE(FlagOnFor(flag, "new-pricing", "ann"));
  EXPECT_TRUE(FlagOnFor(flag, "new-pricing", ""));
}

}  // namespace
}  // namespace bulkhead::sdk
