#include "supervisor/admin/pulse.h"

#include "grpc/support/time.h"
#include "grpcpp/generic/generic_stub.h"
#include "supervisor/base/clock.h"

namespace bulkhead {
namespace {

constexpr Millis kInterval{500};       // half of the second after which they fall asleep
constexpr Millis kBeatTimeout{2'000};  // the server may be busy or gone

}  // namespace

Pulse::Pulse(std::shared_ptr<grpc::Channel> channel) : channel_(std::move(channel)), thread_([this] { Run(); }) {}

Pulse::~Pulse() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Pulse::Run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kInterval, [this] { return stopping_; })) {
    lock.unlock();
    Beat();
    lock.lock();
  }
}

void Pulse::Beat() {
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(gpr_time_from_millis(kBeatTimeout.count(), GPR_TIMESPAN));
  grpc::Slice nothing;
  grpc::ByteBuffer request(&nothing, 1), response;
  grpc::Status status;  // of no interest: the server's thread has woken either way
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
}

}  // namespace bulkhead
