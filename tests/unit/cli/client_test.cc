// What a command does when it comes to no answer: no token, nobody there.
#include "supervisor/cli/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "nlohmann/json.hpp"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;

class Client : public ::testing::Test {
 protected:
  Client() {
    char name[] = "/tmp/bh-client-XXXXXX";
    folder_ = mkdtemp(name);
    request_.options.server = "127.0.0.1:1";  // nobody listens there
    request_.options.token_file = folder_ + "/token";
    request_.command = MigrateCommand{.module = "orders"};
  }
  ~Client() override { std::filesystem::remove_all(folder_); }

  Outcome Run() {
    FILE *out = tmpfile(), *err = tmpfile();
    Terminal terminal(out, err, 0, false);
    const Outcome outcome = RunClient(request_, terminal);
    out_ = Contents(out);
    err_ = Contents(err);
    return outcome;
  }
  static std::string Contents(FILE* file) {
    std::string text(static_cast<size_t>(ftell(file)), '\0');
    rewind(file);
    text.resize(fread(text.data(), 1, text.size(), file));
    fclose(file);
    return text;
  }

  std::string folder_, out_, err_;
  ClientRequest request_;
};

TEST_F(Client, WithoutATokenItSaysWhereItLookedAndHowToGiveOne) {
  EXPECT_EQ(Run(), Outcome::kUsage);
  EXPECT_THAT(err_, HasSubstr(folder_ + "/token"));
  EXPECT_THAT(err_, HasSubstr("--token-file"));
  for (const char* none : {"", "two words", "line\nline", "\x01"}) {
    std::ofstream(request_.options.token_file) << none;
    EXPECT_EQ(Run(), Outcome::kUsage) << none;
  }
}

TEST_F(Client, WithoutASupervisorItSaysSoAndWhatToTry) {
  request_.options.token = "secret";
  EXPECT_EQ(Run(), Outcome::kUnreachable);
  EXPECT_EQ(out_, "");
  EXPECT_THAT(err_, HasSubstr("SERVER_UNREACHABLE: There is no supervisor to talk to at 127.0.0.1:1"));
  EXPECT_THAT(err_, HasSubstr("--server"));
  EXPECT_THAT(err_, ::testing::Not(HasSubstr("secret")));
}

TEST_F(Client, AnErrorIsJsonOnStdoutForMachines) {
  request_.options.token = "secret";
  request_.options.json = true;
  EXPECT_EQ(Run(), Outcome::kUnreachable);
  EXPECT_EQ(err_, "");
  const auto answer = nlohmann::json::parse(out_);
  EXPECT_EQ(answer["success"], false);
  EXPECT_EQ(answer["error"]["code"], "SERVER_UNREACHABLE");
}

TEST_F(Client, WhatChangesMuchIsNotDoneWhereNobodyCanBeAsked) {
  request_.options.token = "secret";
  request_.command = DropDeadLettersCommand{.ids = {"7"}};
  EXPECT_EQ(Run(), Outcome::kUsage);
  EXPECT_THAT(err_, HasSubstr("Dead letter 7 is given up for good. Nobody is there to be asked: say --yes"));
  request_.command = DropDeadLettersCommand{.ids = {"7"}, .yes = true};
  EXPECT_EQ(Run(), Outcome::kUnreachable);
}

TEST_F(Client, APayloadThatIsNoneIsToldBeforeAnythingIsAsked) {
  request_.options.token = "secret";
  for (const char* none : {"{", "@/nowhere/at/all"}) {
    request_.command = RunJobCommand{.module = "orders", .job = "sum", .payload = none};
    EXPECT_EQ(Run(), Outcome::kUsage) << none;
    EXPECT_THAT(err_, HasSubstr("The payload")) << none;
  }
  std::ofstream(folder_ + "/payload") << "{\"n\": 1}";
  request_.command = RunJobCommand{.module = "orders", .job = "sum", .payload = "@" + folder_ + "/payload"};
  EXPECT_EQ(Run(), Outcome::kUnreachable) << err_;
}

TEST_F(Client, AFileThatIsThereIsNotOverwrittenUnasked) {
  request_.options.token = "secret";
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  std::ofstream("report.txt") << "mine";
  request_.command = ArtifactCommand{.id = "1", .name = "report.txt"};
  EXPECT_EQ(Run(), Outcome::kUsage);
  EXPECT_THAT(err_, HasSubstr("report.txt is there already"));
  request_.command = ArtifactCommand{.id = "1", .name = "../report.txt"};
  EXPECT_EQ(Run(), Outcome::kUsage);
  request_.command = ArtifactCommand{.id = "1", .name = "other.txt"};
  EXPECT_EQ(Run(), Outcome::kUnreachable);
  std::filesystem::current_path(before);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/other.txt"));
}

}  // namespace
}  // namespace bulkhead
