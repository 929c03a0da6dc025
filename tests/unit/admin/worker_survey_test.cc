#include "supervisor/admin/worker_survey.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

class TurnedClock : public Clock {
 public:
  Instant Now() const override { return now; }
  WallTime Wall() const override { return WallTime{} + std::chrono::duration_cast<WallTime::duration>(now.time_since_epoch()); }
  Instant now = Instant{} + std::chrono::hours(1);
};

// A worker that answers Metrics when the test says so.
class SurveyedPort : public ControlPort {
 public:
  void Initialize(const module::v1::InitializeRequest&, Millis, Done<module::v1::InitializeResponse>) override {}
  void Start(Millis, Done<module::v1::StartResponse>) override {}
  void Stop(Millis, Done<module::v1::StopResponse>) override {}
  void Health(Millis, Done<module::v1::HealthResponse>) override {}
  void Metrics(Millis timeout, Done<module::v1::MetricsResponse> done) override {
    EXPECT_EQ(timeout, limits::kMetricsTimeout);
    ++asked;
    waiting = std::move(done);
  }
  void Configure(const module::v1::ConfigureRequest&, Millis, Done<module::v1::ConfigureResponse>) override {}
  void DeliverEvents(const module::v1::DeliverEventsRequest&, Millis, Done<module::v1::DeliverEventsResponse>) override {}
  std::shared_ptr<JobCall> RunJob(const module::v1::RunJobRequest&, Millis, std::function<void(const module::v1::RunJobUpdate&)>,
                                  std::function<void(absl::Status)>) override {
    return nullptr;
  }
  void Answer(int64_t requests, std::map<std::string, double> custom = {}) {
    module::v1::MetricsResponse values;
    values.set_request_count(requests);
    for (const auto& [name, value] : custom) (*values.mutable_custom())[name] = value;
    std::exchange(waiting, nullptr)(absl::OkStatus(), values);
  }
  void Miss() { std::exchange(waiting, nullptr)(absl::DeadlineExceededError("too late"), {}); }
  int asked = 0;
  Done<module::v1::MetricsResponse> waiting;
};

class Survey : public testing::Test {
 protected:
  struct Listed {
    std::string module, instance;
    int slot;
    std::shared_ptr<SurveyedPort> port;
  };
  void List(const std::vector<Listed>& workers) {
    std::map<std::string, std::shared_ptr<DirectoryModule>> modules;
    for (const Listed& worker : workers) {
      auto& module = modules[worker.module];
      if (!module) module = std::make_shared<DirectoryModule>();
      module->name = worker.module;
      module->workers.push_back({worker.slot, worker.instance, "", "", worker.port, nullptr});
    }
    auto directory = std::make_shared<Directory>();
    for (const auto& [name, module] : modules) directory->modules[name] = module;
    bool adopted = false;
    survey_.Adopt(directory, [&] { adopted = true; });
    EXPECT_TRUE(adopted);
  }
  void Ask() {
    survey_.Ask([this](std::vector<WorkerSurvey::Worker> workers) {
      ++answers_;
      told_ = std::move(workers);
    });
  }
  void Pass(Millis time) { clock_.now += time; }

  TurnedClock clock_;
  WorkerSurvey survey_{clock_};
  std::shared_ptr<SurveyedPort> a_ = std::make_shared<SurveyedPort>(), b_ = std::make_shared<SurveyedPort>();
  int answers_ = 0;
  std::vector<WorkerSurvey::Worker> told_;
};

TEST_F(Survey, WithoutWorkersAnswersAtOnce) {
  Ask();
  EXPECT_EQ(answers_, 1);
  EXPECT_TRUE(told_.empty());
}

TEST_F(Survey, AsksAllAtOnceAndAnswersWhenAllHave) {
  List({{"m", "m.0", 0, a_}, {"n", "n.0", 0, b_}});
  Ask();
  Ask();  // joins the first
  EXPECT_EQ(a_->asked + b_->asked, 2);
  b_->Answer(7);
  EXPECT_EQ(answers_, 0);
  a_->Answer(5, {{"mine", 1.5}});
  EXPECT_EQ(answers_, 2);
  ASSERT_EQ(told_.size(), 2u);
  EXPECT_EQ(told_[0].module, "m");
  EXPECT_EQ(told_[0].values.request_count(), 5);
  EXPECT_EQ(told_[0].values.custom().at("mine"), 1.5);
  EXPECT_TRUE(told_[0].answered);
  EXPECT_EQ(told_[1].values.request_count(), 7);
}

TEST_F(Survey, AsksAtMostOnceInItsPeriod) {
  List({{"m", "m.0", 0, a_}});
  Ask();
  a_->Answer(1);
  Pass(limits::kMetricsCache - Millis(1));
  Ask();
  EXPECT_EQ(a_->asked, 1);
  EXPECT_EQ(answers_, 2);
  EXPECT_EQ(told_[0].age, limits::kMetricsCache - Millis(1));
  Pass(Millis(1));
  Ask();
  EXPECT_EQ(a_->asked, 2);
  EXPECT_EQ(answers_, 2) << "it waits for the new values";
  a_->Answer(2);
  EXPECT_EQ(told_[0].values.request_count(), 2);
  EXPECT_EQ(told_[0].age, Millis(0));
}

TEST_F(Survey, WhoDoesNotAnswerShowsItsLastValuesWithTheirAgeAndIsNotWaitedForAgain) {
  List({{"m", "m.0", 0, a_}, {"n", "n.0", 0, b_}});
  Ask();
  a_->Answer(1);
  b_->Answer(1);
  Pass(limits::kMetricsCache);
  Ask();
  b_->Answer(2);
  EXPECT_EQ(answers_, 1);
  a_->Miss();
  EXPECT_EQ(answers_, 2);
  EXPECT_FALSE(told_[0].answered);
  EXPECT_EQ(told_[0].values.request_count(), 1);
  EXPECT_EQ(told_[0].age, limits::kMetricsCache);
  Pass(limits::kMetricsCache);
  Ask();
  EXPECT_EQ(a_->asked, 3) << "it is asked";
  b_->Answer(3);
  EXPECT_EQ(answers_, 3) << "and not waited for";
  a_->Answer(9);
  Ask();
  EXPECT_TRUE(told_[0].answered);
  EXPECT_EQ(told_[0].values.request_count(), 9);
}

TEST_F(Survey, WhoNeverAnsweredHasNoValues) {
  List({{"m", "m.0", 0, a_}});
  Ask();
  a_->Miss();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_FALSE(told_[0].at.has_value());
}

TEST_F(Survey, AnAnswerOfOneThatHasLeftIsDropped) {
  List({{"m", "m.0", 0, a_}});
  Ask();
  List({{"m", "m.1", 0, b_}});
  a_->Answer(1);
  EXPECT_EQ(answers_, 1);
  Pass(limits::kMetricsCache);
  Ask();
  b_->Answer(2);
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].instance, "m.1");
}

TEST_F(Survey, OfTwoWorkersInOneSlotTheNewerIsShown) {
  List({{"m", "m.old", 0, a_}, {"m", "m.new", 0, b_}});
  Ask();
  a_->Answer(100);
  b_->Answer(1);
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].instance, "m.new");
}

TEST_F(Survey, InstrumentsBeyondTheLimitsOrTheContractAreLeftOut) {
  std::map<std::string, double> custom = {{"", 1}, {"1st", 1}, {"a b", 1}, {"a\"b", 1}, {std::string(limits::kMaxInstrumentName + 1, 'a'), 1}};
  for (size_t i = 0; i < limits::kMaxInstruments + 3; ++i) custom["i" + std::to_string(i)] = 1;
  List({{"m", "m.0", 0, a_}});
  Ask();
  a_->Answer(1, custom);
  EXPECT_EQ(told_[0].values.custom().size(), limits::kMaxInstruments);
  EXPECT_EQ(told_[0].left_out, 8);
}

TEST_F(Survey, AnAnswerAfterItsEndHarmsNobody) {
  auto survey = std::make_unique<WorkerSurvey>(clock_);
  auto directory = std::make_shared<Directory>();
  auto module = std::make_shared<DirectoryModule>();
  module->workers.push_back({0, "m.0", "", "", a_, nullptr});
  directory->modules["m"] = module;
  survey->Adopt(directory, [] {});
  survey->Ask([this](auto) { ++answers_; });
  survey.reset();
  a_->Answer(1);
  EXPECT_EQ(answers_, 1);
}

}  // namespace
}  // namespace bulkhead
