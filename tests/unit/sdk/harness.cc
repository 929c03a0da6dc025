#include "harness.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

extern char** environ;

namespace bulkhead::sdk_test {
namespace {

constexpr int kPatienceMs = 5'000;

void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // closed by the module, which the test sees when it reads
    bytes.remove_prefix(size_t(n));
  }
}

// Fills `out`; false at EOF.
bool ReadAll(int fd, char* out, size_t size) {
  while (size > 0) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, kPatienceMs) == 0) {
      ADD_FAILURE() << "nothing came within 5 s";
      return false;
    }
    ssize_t n = recv(fd, out, size, 0);
    if (n <= 0) return false;
    out += n;
    size -= size_t(n);
  }
  return true;
}

}  // namespace

std::map<std::string, std::string> Fields(std::string_view encoded) {
  std::map<std::string, std::string> out;
  link::HeadReader reader(encoded);
  uint16_t count = 0;
  EXPECT_TRUE(reader.U16(count));
  for (uint16_t i = 0; i < count; ++i) {
    std::string_view name, value;
    EXPECT_TRUE(reader.Str(name) && reader.Str(value));
    out.emplace(name, value);
  }
  EXPECT_TRUE(reader.AtEnd());
  return out;
}

std::string TestModulePath() { return TEST_MODULE; }

Link::Link(const std::string& socket_path, std::string_view token, uint32_t window, uint32_t max_frame) : max_frame_(max_frame) {
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << strerror(errno);
  std::string hello;
  link::AppendHello(hello, {.max_frame = max_frame, .window = window, .token = token});
  Raw(hello);
}

Link::~Link() { close(fd_); }

void Link::Raw(std::string_view bytes) { WriteAll(fd_, bytes); }

uint32_t Link::Send(const std::string& method, const std::string& target, const Pairs& headers, std::string_view body, bool end) {
  return SendRequest(method, target, headers, body, end ? link::kEnd : 0);
}

uint32_t Link::Upgrade(const std::string& target, Pairs headers) {
  auto add = [&](const char* name, const char* value) {
    for (const auto& [present, unused] : headers)
      if (present == name) return;
    headers.emplace_back(name, value);
  };
  add("x-bulkhead-upgrade", "websocket");
  add("sec-websocket-version", "13");
  add("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
  return SendRequest("GET", target, headers, {}, link::kUpgrade);
}

uint32_t Link::SendRequest(const std::string& method, const std::string& target, const Pairs& headers, std::string_view body,
                           uint8_t flags) {
  std::string head;
  link::HeadWriter writer(head);
  writer.Str(method);
  writer.Str(target);
  writer.U16(uint16_t(headers.size()));
  for (const auto& [name, value] : headers) writer.Pair(name, value);
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(),
                  {uint32_t(head.size() + body.size()), next_stream_, link::Type::kRequest, flags, 0, uint32_t(head.size())});
  frame += head;
  frame += body;
  Raw(frame);
  return next_stream_++;
}

void Link::Data(uint32_t stream, std::string_view data, bool end) {
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {uint32_t(data.size()), stream, link::Type::kData, uint8_t(end ? link::kEnd : 0), 0, 0});
  frame += data;
  Raw(frame);
}

void Link::Trailers(uint32_t stream, const Pairs& trailers) {
  std::string head;
  link::HeadWriter writer(head);
  writer.U16(uint16_t(trailers.size()));
  for (const auto& [name, value] : trailers) writer.Pair(name, value);
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {uint32_t(head.size()), stream, link::Type::kData, uint8_t(link::kEnd | link::kTrailers), 0,
                                 uint32_t(head.size())});
  Raw(frame + head);
}

void Link::Window(uint32_t stream, uint32_t credit) {
  std::string frame;
  link::AppendWindow(frame, stream, credit);
  Raw(frame);
}

void Link::Cancel(uint32_t stream, link::CancelCode code) {
  std::string frame;
  link::AppendCancel(frame, stream, code);
  Raw(frame);
}

std::optional<Frame> Link::Next() {
  char header[link::kHeaderSize];
  if (!ReadAll(fd_, header, sizeof header)) return std::nullopt;
  Frame frame{link::GetHeader(header), {}};
  const char* problem = link::CheckHeader(frame.header, max_frame_);
  EXPECT_EQ(problem, nullptr) << problem;
  frame.payload.resize(frame.header.length);
  if (!ReadAll(fd_, frame.payload.data(), frame.payload.size())) return std::nullopt;
  return frame;
}

bool Link::Closes() {
  while (Next()) {
  }
  return !::testing::Test::HasFailure();
}

bool Link::Readable(std::chrono::milliseconds within) {
  pollfd wait{fd_, POLLIN, 0};
  return poll(&wait, 1, int(within.count())) > 0;
}

std::optional<Frame> Link::NextOf(uint32_t stream) {
  for (auto frame = kept_.begin(); frame != kept_.end(); ++frame) {
    if (frame->header.stream != stream) continue;
    Frame one = std::move(*frame);
    kept_.erase(frame);
    return one;
  }
  while (auto frame = Next()) {
    if (frame->header.stream == stream) return frame;
    kept_.push_back(*std::move(frame));
  }
  return std::nullopt;
}

Answer Link::Await(uint32_t stream) {
  Answer answer;
  auto take = [&](const Frame& frame) {
    if (frame.header.type == link::Type::kCancel) {
      answer.cancel_code = frame.header.status;
      return true;
    }
    if (frame.header.type == link::Type::kResponse) {
      answer.status = frame.header.status;
      answer.headers = Fields(frame.head());
    }
    if (frame.header.flags & link::kTrailers) answer.trailers = Fields(frame.head());
    if (frame.header.type == link::Type::kResponse || frame.header.type == link::Type::kData) {
      answer.body += frame.body();
      if (!frame.body().empty() && !frame.end()) Window(stream, uint32_t(frame.body().size()));
      return frame.end();
    }
    return false;
  };
  while (auto frame = NextOf(stream)) {
    if (take(*frame)) return answer;
  }
  ADD_FAILURE() << "the link closed before stream " << stream << " was answered";
  return answer;
}

Answer Link::Ask(const std::string& method, const std::string& target, const Pairs& headers, std::string_view body) {
  return Await(Send(method, target, headers, body));
}

ModuleProcess::ModuleProcess() : ModuleProcess(Options{}) {}

ModuleProcess::ModuleProcess(Options options) {
  char name[] = "/tmp/bulkhead-sdk-XXXXXX";
  folder_ = mkdtemp(name);
  Spawn(options.program);
  Json line = {{"protocolMin", 1},
               {"protocolMax", 1},
               {"module", "test-module"},
               {"instance", "test-module-0-1"},
               {"token", kToken},
               {"controlSocket", control_socket()},
               {"dataSocket", data_socket()},
               {"hostSocket", folder_ + "/host.sock"},
               {"callSocket", folder_ + "/calls.sock"},
               {"transport", "link"}};
  line.update(options.handshake);
  WriteAll(handshake_, line.dump() + "\n");
  std::string text;
  char c;
  while (ReadAll(handshake_, &c, 1) && c != '\n') text += c;
  answer = Json::parse(text, nullptr, false);
  if (!answer.is_object() || answer.contains("error")) return;
  stub_ = pb::Module::NewStub(grpc::CreateChannel("unix:" + control_socket(), grpc::InsecureChannelCredentials()));
  if (!options.initialize) return;
  if (!Initialize(options).ok() || !options.start) return;
  grpc::Status started = Start();
  EXPECT_TRUE(started.ok()) << started.error_message();
}

ModuleProcess::~ModuleProcess() {
  if (pid_ > 0) {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  CloseHandshake();
  if (pidfd_ >= 0) close(pidfd_);
  std::filesystem::remove_all(folder_);
}

void ModuleProcess::Spawn(std::string program) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  handshake_ = pair[0];
  std::string log = folder_ + "/log";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_adddup2(&actions, pair[1], 3);
  char* argv[] = {program.data(), const_cast<char*>("--color=blue"), nullptr};
  ASSERT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(pair[1]);
  pidfd_ = int(syscall(SYS_pidfd_open, pid_, 0));
  ASSERT_GE(pidfd_, 0);
}

std::unique_ptr<grpc::ClientContext> ModuleProcess::Call(std::chrono::milliseconds timeout, const char* token) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->AddMetadata("x-bulkhead-token", token);
  context->set_deadline(std::chrono::system_clock::now() + timeout);
  return context;
}

grpc::Status ModuleProcess::Initialize(const Options& options) {
  pb::InitializeRequest request;
  request.set_module("test-module");
  request.set_version("1.2.3");
  request.set_slot(3);
  request.set_config_json(options.config.dump());
  request.set_config_revision(5);
  request.set_conninfo(options.conninfo);
  request.set_schema(options.schema);
  request.set_data_dir(folder_);
  (*request.mutable_flags())["fast"] = true;
  if (options.prepare) options.prepare(request);
  pb::InitializeResponse response;
  return stub_->Initialize(Call().get(), request, &response);
}

grpc::Status ModuleProcess::Start() {
  pb::StartResponse response;
  return stub_->Start(Call().get(), {}, &response);
}

grpc::Status ModuleProcess::Stop(int64_t deadline_ms) {
  pb::StopRequest request;
  request.set_deadline_ms(deadline_ms);
  pb::StopResponse response;
  return stub_->Stop(Call().get(), request, &response);
}

void ModuleProcess::CloseHandshake() {
  if (handshake_ >= 0) close(std::exchange(handshake_, -1));
}

void ModuleProcess::Signal(int signal) { syscall(SYS_pidfd_send_signal, pidfd_, signal, nullptr, 0); }

int ModuleProcess::AwaitExit(std::chrono::milliseconds within) {
  pollfd wait{pidfd_, POLLIN, 0};
  if (poll(&wait, 1, int(within.count())) <= 0) {
    ADD_FAILURE() << "the module did not end; its log:\n" << Log();
    return -1;
  }
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

std::string ModuleProcess::Log() const {
  std::ifstream file(folder_ + "/log");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool ModuleProcess::Logged(std::string_view text, std::chrono::milliseconds within) const {
  return Eventually([&] { return Log().find(text) != std::string::npos; }, within);
}

}  // namespace bulkhead::sdk_test
