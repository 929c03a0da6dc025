// What a file may be called, and its name on the disk.
#include "supervisor/files/file_name.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

TEST(FileName, PathsOfAnyScriptAreNames) {
  for (const std::string name : {"a", "a/b", "reports/2026/11.csv", ".hidden", "..a", "a..", "...", "Übersicht 2026; 100%.pdf", "名前/x", "-", "a b",
                                 "C:*?\"<>|"}) {
    EXPECT_TRUE(CheckFileName(name).ok()) << name;
    EXPECT_EQ(NameFromDisk(NameOnDisk(name)), name);
    EXPECT_EQ(NameOnDisk(name).find('/'), std::string::npos);
    EXPECT_EQ(NameOnDisk(name).size(), name.size());
  }
  EXPECT_TRUE(CheckFileName(std::string(limits::kMaxFileName, 'n')).ok());
}

TEST(FileName, WhatCouldLeaveTheFolderOrBeTwoThingsIsNone) {
  for (const std::string& name : {std::string(), std::string("/"), std::string("/etc/passwd"), std::string("a/"), std::string("a//b"), std::string("."),
                                 std::string(".."), std::string("../a"), std::string("a/../b"), std::string("a/.."), std::string("a/./b"),
                                 std::string("a\\b"), std::string("a\0b", 3), std::string("a\nb"), std::string("a\x7f"), std::string("\xff"),
                                 std::string("\xc0\xae\xc0\xae/a"), std::string("\xed\xa0\x80"), std::string(limits::kMaxFileName + 1, 'n')}) {
    const absl::Status status = CheckFileName(name);
    EXPECT_EQ(ErrorCode(status), "INVALID_ARGUMENT") << name;
    EXPECT_THAT(std::string(status.message()), testing::EndsWith(".")) << "a sentence";
  }
}

TEST(FileName, WhatSomebodyElsePutThereIsNoFileOfAModule) {
  for (const std::string on_disk : {"\\", "a\\", "..\\a", "a\\\\b", "\xff"}) EXPECT_EQ(NameFromDisk(on_disk), std::nullopt) << on_disk;
}

}  // namespace
}  // namespace bulkhead
