// The service Files on the host socket, as a module in any language finds it: the real server and the real store, asked by a plain gRPC client.
#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bulkhead/host/v1/files.grpc.pb.h"
#include "supervisor/files/file_store.h"
#include "supervisor/worker/file_calls.h"
#include "supervisor/worker/host.h"

namespace bulkhead {
namespace {

namespace files_pb = host::v1;
using grpc::StatusCode;

const bool files_kept_alive = (grpc_init(), true);  // see host_test.cc

constexpr std::chrono::seconds kFilesLimit{60};

class HostFilesTest : public testing::Test {
 protected:
  HostFilesTest() {
    char name[] = "/tmp/bulkhead-files-XXXXXX";
    folder_ = mkdtemp(name);
    std::filesystem::create_directory(folder_ + "/files");
    store_ = *FileStore::Open(folder_ + "/files", int64_t{1} << 30);
    store_->SetInstance("orders' token", "orders", {100'000, 10}, true);
    store_->SetInstance("stock's token", "stock", {100'000, 10}, true);
    server_ = *HostServer::Listen(folder_ + "/host", {});
    server_->ServeFiles(*store_);
    server_->SetInstance("orders' token", "orders", true);
    server_->SetInstance("stock's token", "stock", true);
    stub_ = files_pb::Files::NewStub(grpc::CreateChannel("unix:" + folder_ + "/host", grpc::InsecureChannelCredentials()));
  }
  ~HostFilesTest() override {
    server_->Stop();
    store_->Close();
    std::filesystem::remove_all(folder_);
  }

  struct Call {
    explicit Call(const std::string& token = "orders' token") {
      if (!token.empty()) context.AddMetadata("x-bulkhead-token", token);
      context.set_deadline(std::chrono::system_clock::now() + kFilesLimit);
    }
    grpc::ClientContext context;
  };
  static files_pb::PutFileRequest Head(const std::string& name, int64_t bytes = 0) {
    files_pb::PutFileRequest part;
    part.mutable_head()->set_name(name);
    part.mutable_head()->set_bytes(bytes);
    return part;
  }
  static files_pb::PutFileRequest Data(const std::string& bytes) {
    files_pb::PutFileRequest part;
    part.set_data(bytes);
    return part;
  }
  static files_pb::PutFileRequest End(int64_t bytes) {
    files_pb::PutFileRequest part;
    part.mutable_end()->set_bytes(bytes);
    return part;
  }
  grpc::Status Put(const std::vector<files_pb::PutFileRequest>& parts, const std::string& token = "orders' token") {
    Call call(token);
    files_pb::PutFileResponse response;
    auto writer = stub_->PutFile(&call.context, &response);
    for (const auto& part : parts) {
      if (!writer->Write(part)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }
  grpc::Status Store(const std::string& name, const std::string& bytes, const std::string& token = "orders' token") {
    return Put({Head(name), Data(bytes), End(static_cast<int64_t>(bytes.size()))}, token);
  }
  std::string Get(const std::string& name, const std::string& token = "orders' token") {
    Call call(token);
    files_pb::GetFileRequest request;
    request.set_name(name);
    auto reader = stub_->GetFile(&call.context, request);
    std::string all;
    files_pb::GetFileResponse part;
    while (reader->Read(&part)) all += part.data();
    const grpc::Status status = reader->Finish();
    return status.ok() ? all : "(" + std::to_string(status.error_code()) + ")";
  }

  std::string folder_;
  std::unique_ptr<FileStore> store_;
  std::unique_ptr<HostServer> server_;
  std::unique_ptr<files_pb::Files::Stub> stub_;
};

TEST_F(HostFilesTest, WhoIsNoRunningInstanceIsToldSoByEachCall) {
  for (const char* token : {"", "another", "orders"}) {
    EXPECT_EQ(Store("a", "x", token).error_code(), StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(Get("a", token), "(16)");
    Call stat(token), list(token), remove(token), rename(token);
    files_pb::StatFileResponse found;
    EXPECT_EQ(stub_->StatFile(&stat.context, {}, &found).error_code(), StatusCode::UNAUTHENTICATED);
    files_pb::ListFilesResponse listed;
    EXPECT_EQ(stub_->ListFiles(&list.context, {}, &listed).error_code(), StatusCode::UNAUTHENTICATED);
    files_pb::RemoveFileResponse removed;
    EXPECT_EQ(stub_->RemoveFile(&remove.context, {}, &removed).error_code(), StatusCode::UNAUTHENTICATED);
    files_pb::RenameFileResponse renamed;
    EXPECT_EQ(stub_->RenameFile(&rename.context, {}, &renamed).error_code(), StatusCode::UNAUTHENTICATED);
  }
}

TEST_F(HostFilesTest, AModuleReachesItsOwnFilesAndNoOthers) {
  ASSERT_TRUE(Store("a", "of orders").ok());
  EXPECT_EQ(Get("a"), "of orders");
  EXPECT_EQ(Get("a", "stock's token"), "(5)");
  EXPECT_EQ(Get("../orders/a", "stock's token"), "(3)");
  ASSERT_TRUE(Store("a", "of stock", "stock's token").ok());
  EXPECT_EQ(Get("a"), "of orders");
}

TEST_F(HostFilesTest, AStreamThatIsNotAsTheContractSaysStoresNothing) {
  ASSERT_TRUE(Store("a", "old").ok());
  EXPECT_EQ(Put({}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Data("x")}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({End(0)}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Head("a"), Head("a")}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Head("a"), Data("new")}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Head("a"), Data("new"), End(4)}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Head("a", -1)}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put({Head("a", 100'001)}).error_code(), StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(Put({Head("b"), Data(std::string(99'998, 'x')), End(99'998)}).error_code(), StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(Get("a"), "old");
  EXPECT_TRUE(Put({Head("a"), End(0)}).ok());
  EXPECT_EQ(Get("a"), "");
}

TEST_F(HostFilesTest, WhoSendsNoEndAndLeavesGivesBackPlaceAndRoom) {
  for (int round = 0; round < limits::kMaxFilePuts * 2; ++round) {
    Call call;
    files_pb::PutFileResponse response;
    auto writer = stub_->PutFile(&call.context, &response);
    writer->Write(Head("a", 100'000));
    call.context.TryCancel();
    EXPECT_FALSE(writer->Finish().ok());
  }
  // The last ones may still be on their way out.
  const auto until = std::chrono::steady_clock::now() + kFilesLimit;
  grpc::Status stored;
  do {
    stored = Store("b", std::string(100'000, 'x'));
  } while (!stored.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_TRUE(stored.ok()) << stored.error_message();
}

TEST_F(HostFilesTest, MorePutsAtOnceThanMayBeAreToldThatItMayPass) {
  struct Open {
    Call call;
    files_pb::PutFileResponse response;
    std::unique_ptr<grpc::ClientWriter<files_pb::PutFileRequest>> writer;
  };
  std::vector<std::unique_ptr<Open>> open;
  for (int i = 0; i < limits::kMaxFilePuts; ++i) {
    open.push_back(std::make_unique<Open>());
    open.back()->writer = stub_->PutFile(&open.back()->call.context, &open.back()->response);
    ASSERT_TRUE(open.back()->writer->Write(Head("one of many")));
  }
  const auto under_way = [&] {
    const std::filesystem::directory_iterator all(folder_ + "/files/.new");
    return std::distance(begin(all), end(all));
  };
  const auto until = std::chrono::steady_clock::now() + kFilesLimit;
  while (under_way() < limits::kMaxFilePuts && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_EQ(Store("a", "x").error_code(), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Store("a", "x", "stock's token").ok()) << "another module has places of its own";
  for (const auto& each : open) each->call.context.TryCancel();
  for (const auto& each : open) each->writer->Finish();
}

TEST_F(HostFilesTest, WithoutAStoreThereAreNoFiles) {
  auto server = *HostServer::Listen(folder_ + "/other", {});
  server->SetInstance("orders' token", "orders", true);
  auto stub = files_pb::Files::NewStub(grpc::CreateChannel("unix:" + folder_ + "/other", grpc::InsecureChannelCredentials()));
  Call call;
  files_pb::ListFilesResponse listed;
  EXPECT_EQ(stub->ListFiles(&call.context, {}, &listed).error_code(), StatusCode::UNIMPLEMENTED);
  server->Stop();
}

}  // namespace
}  // namespace bulkhead
