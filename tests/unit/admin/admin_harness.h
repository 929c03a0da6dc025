// A real Admin over modules and jobs in memory and a real registry, for tests that call it as REST or as gRPC.
#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/admin.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/status.h"
#include "tests/fakes/fake_jobs.h"
#include "tests/fakes/fake_modules.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {

struct Reply {
  int status = 0;
  HeaderList headers;
  std::string body;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
  nlohmann::json data() const { return json()["data"]; }
  std::string code() const { return json()["error"]["code"]; }
  std::string header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return "";
  }
};

class AdminTest : public testing::Test {
 protected:
  using json = nlohmann::json;

  AdminTest() {
    EXPECT_TRUE(registry_.Open().ok());
    EXPECT_TRUE(authenticator_.LoadAdminToken(folder_ + "/admin.token").ok());
    admin_token_ = ReadFile(folder_ + "/admin.token")->substr(0, 64);
    node_.started_at = Clock::Real().Wall();
    node_.environment = "test";
    auto admin = Admin::Serve("127.0.0.1:0", parts());
    EXPECT_TRUE(admin.ok()) << admin.status();
    admin_ = *std::move(admin);
  }
  ~AdminTest() override {
    admin_->Stop(Millis(0));
    // What the loop and the pool still do for a call, they do with parts of the server.
    std::promise<void> passed;
    loop_.Post([&] { passed.set_value(); });
    passed.get_future().wait();
    pool_.Shutdown();
    admin_.reset();
    loop_.Stop();
    loop_thread_.join();
    std::filesystem::remove_all(folder_);
  }

  Admin::Parts parts() { return {authenticator_, accounts_, modules_, jobs_, pool_, Clock::Real(), node_, migrations_, flags_, records_, logs_, events_}; }

  struct Responder : LocalResponder {
    explicit Responder(std::promise<Reply> promise) : promise(std::move(promise)) {}
    void Respond(int status, HeaderList headers, std::string body) override {
      promise.set_value({status, std::move(headers), std::move(body)});
    }
    std::unique_ptr<LocalStream> Stream(int, HeaderList, std::string, std::function<void()> gone) override {
      ADD_FAILURE() << "an answer that goes on";
      gone();
      return nullptr;
    }
    std::promise<Reply> promise;
  };

  LocalRequest Request(std::string method, std::string target, std::string body = "") {
    LocalRequest request;
    const size_t question = target.find('?');
    request.method = std::move(method);
    request.path = target.substr(0, question);
    request.query = question == std::string::npos ? "" : target.substr(question + 1);
    request.authorization = "Bearer " + admin_token_;
    if (!body.empty()) request.content_type = "application/json";
    request.body = std::move(body);
    request.remote_address = "192.0.2.7:1234";
    request.request_id = "request-1";
    return request;
  }
  std::future<Reply> Begin(LocalRequest request) {
    std::promise<Reply> promise;
    auto reply = promise.get_future();
    admin_->Handle(std::move(request), std::make_unique<Responder>(std::move(promise)));
    return reply;
  }
  Reply Send(LocalRequest request) {
    auto reply = Begin(std::move(request));
    if (reply.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
      ADD_FAILURE() << "no answer";
      return {};
    }
    return reply.get();
  }
  Reply Get(const std::string& target) { return Send(Request("GET", target)); }
  Reply Post(const std::string& target, const json& body = nullptr) {
    return Send(Request("POST", target, body.is_null() ? "" : body.dump()));
  }
  Reply As(const std::string& secret, LocalRequest request) {
    request.authorization = "Bearer " + secret;
    return Send(std::move(request));
  }
  std::string MakeToken(const std::string& name, std::vector<std::string> permissions) {
    return authenticator_.Create({"admin", {}, {"*"}}, name, "", permissions, std::nullopt)->secret;
  }

  static json ManifestOf(const std::string& name) {
    return {{"name", name},
            {"version", "1.2.3"},
            {"displayName", "Display " + name},
            {"description", "made by a test"},
            {"author", "tests"},
            {"capabilities",
             {{"jobs",
               {{"handlers", {{{"name", "collect"}, {"schedule", "*/5 * * * *"}, {"timeout", 30000}}, {{"name", "other"}}}}}}}},
            {"config",
             {{"schema",
               {{"password", {{"type", "password"}, {"label", "Password"}}}, {"host", {{"type", "string"}, {"label", "Host"}}}}},
              {"defaults", {{"host", "localhost"}}}}},
            {"metadata", {{"tags", {"metering"}}}}};
  }
  void Register(const std::string& name) {
    const Reply reply =
        Post("/api/v1/modules", {{"manifest", ManifestOf(name)}, {"path", "/opt/" + name}, {"config", {{"password", "geheim"}}}});
    ASSERT_EQ(reply.status, 201) << reply.body;
  }
  // Registered, enabled, and reachable for jobs.
  void Run(const std::string& name) {
    Register(name);
    ASSERT_EQ(Post("/api/v1/modules/" + name + "/enable").status, 200);
    auto module = std::make_shared<DirectoryModule>();
    module->name = name;
    module->manifest = std::make_shared<const Manifest>(*ParseManifest(ManifestOf(name).dump(), false).manifest);
    module->workers.push_back({0, name + ".0.fake", "", "", nullptr});
    auto directory = std::make_shared<Directory>();
    directory->modules[name] = module;
    std::promise<void> adopted;
    jobs_.Adopt(directory, [&] { adopted.set_value(); });
    adopted.get_future().wait();
  }

  static std::string MakeFolder() {
    char folder[] = "/tmp/bh-admin-XXXXXX";
    return mkdtemp(folder);
  }

  std::string folder_ = MakeFolder(), admin_token_;
  Loop loop_;
  std::thread loop_thread_{[this] { loop_.Run(); }};
  Database database_{TestPostgres::Instance().FreshDatabase(), 4};
  Registry registry_{database_, std::string(32, 'k')};
  CredentialStore credentials_{database_};
  Authenticator authenticator_{Clock::Real(), credentials_, {{}, {}, AccessKey("master")}};
  Accounts accounts_{Clock::Real(), credentials_, authenticator_, AccessKey("master")};
  ModuleMigrations migrations_{database_, registry_, folder_, {.lock_wait = Millis(300)}};
  std::unique_ptr<SecretBox> secrets_ = *SecretBox::Load(folder_ + "/config.keys", "");
  BlockingPool pool_{2, 256};
  FakeModules modules_{loop_, Clock::Real()};
  FakeJobs jobs_{loop_, Clock::Real()};
  Flags flags_{loop_, pool_, database_, {}};
  Records records_{database_, *secrets_, pool_, "node"};
  EventQueries events_{database_};
  ModuleLogs logs_{Clock::Real(), {folder_ + "/logs", {2, 1 << 20}}};
  NodeStatus node_;
  std::unique_ptr<Admin> admin_;
};

}  // namespace bulkhead
