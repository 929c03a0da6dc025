// What modules may call on the supervisor, over the real socket.
#include "supervisor/worker/host.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "supervisor/base/fd.h"

namespace bulkhead {
namespace {

namespace v1 = host::v1;

class HostTest : public testing::Test {
 protected:
  HostTest() {
    char folder[] = "/tmp/bh-host-XXXXXX";
    EXPECT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    auto server = HostServer::Listen(folder_ + "/host", {{"new-prices", true}});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->SetInstance("the-token", "orders", true);
    stub_ = v1::Host::NewStub(grpc::CreateChannel("unix:" + folder_ + "/host", grpc::InsecureChannelCredentials()));
  }
  ~HostTest() override {
    server_.reset();
    unlink((folder_ + "/host").c_str());
    rmdir(folder_.c_str());
  }

  // The first flags, or how the stream ended without any.
  grpc::StatusCode Watch(v1::Host::Stub& stub, const char* token, v1::Flags* flags = nullptr) {
    grpc::ClientContext context;
    if (token) context.AddMetadata("x-bulkhead-token", token);
    auto stream = stub.WatchFlags(&context, {});
    v1::Flags first;
    if (!stream->Read(&first)) return stream->Finish().error_code();
    if (flags) *flags = first;
    context.TryCancel();
    stream->Finish();
    return grpc::StatusCode::OK;
  }

  std::string folder_;
  std::unique_ptr<HostServer> server_;
  std::unique_ptr<v1::Host::Stub> stub_;
};

TEST_F(HostTest, AnInstanceIsToldTheFlags) {
  v1::Flags flags;
  EXPECT_EQ(Watch(*stub_, "the-token", &flags), grpc::StatusCode::OK);
  EXPECT_EQ(flags.flags().at("new-prices"), true);
}

TEST_F(HostTest, WithoutTheTokenOfARunningInstanceEveryCallIsRefused) {
  EXPECT_EQ(Watch(*stub_, nullptr), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Watch(*stub_, "guessed"), grpc::StatusCode::UNAUTHENTICATED);
  server_->SetInstance("the-token", "orders", false);
  EXPECT_EQ(Watch(*stub_, "the-token"), grpc::StatusCode::UNAUTHENTICATED);
}

// HTTP/2 by hand, because only so call and cancellation arrive together: the answer and the caller's leaving meet in the server.
std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
  std::string frame;
  for (int shift : {16, 8, 0}) frame += static_cast<char>(payload.size() >> shift & 0xff);
  frame += {static_cast<char>(type), static_cast<char>(flags)};
  for (int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift & 0xff);
  return frame + payload;
}

std::string Call(uint32_t stream, bool known) {
  std::string headers;
  auto add = [&](const std::string& name, const std::string& value) {
    headers += std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
  };
  add(":method", "POST");
  add(":scheme", "http");
  add(":path", "/bulkhead.host.v1.Host/WatchFlags");
  add(":authority", "host");
  add("te", "trailers");
  add("content-type", "application/grpc");
  if (known) add("x-bulkhead-token", "the-token");
  constexpr uint8_t kData = 0, kHeaders = 1, kEndStream = 1, kEndHeaders = 4;
  return Frame(kHeaders, kEndHeaders, stream, headers) + Frame(kData, kEndStream, stream, std::string(5, '\0'));
}

std::string Cancellation(uint32_t stream) { return Frame(3, 0, stream, std::string("\0\0\0\x08", 4)); }

// A caller that reads nothing: its answers pile up in the server, and then it cancels all of the calls.
TEST_F(HostTest, CallersThatLeaveBeforeTheirAnswerDoNoHarm) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  strncpy(address.sun_path, (folder_ + "/host").c_str(), sizeof address.sun_path - 1);
  for (bool known : {false, true}) {
    UniqueFd connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    auto send_all = [&](const std::string& bytes) {
      return send(connection.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
    };
    constexpr uint32_t kCalls = 4'000;
    std::string calls = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(4, 0, 0, ""), cancellations;
    for (uint32_t call = 0; call < kCalls; ++call) {
      calls += Call(2 * call + 1, known);
      cancellations += Cancellation(2 * call + 1);
    }
    ASSERT_TRUE(send_all(calls));
    EXPECT_EQ(Watch(*stub_, "the-token"), grpc::StatusCode::OK);
    ASSERT_TRUE(send_all(cancellations));
    EXPECT_EQ(Watch(*stub_, "the-token"), grpc::StatusCode::OK);
  }
  EXPECT_EQ(Watch(*stub_, "the-token"), grpc::StatusCode::OK);
}

}  // namespace
}  // namespace bulkhead
