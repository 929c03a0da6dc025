// The call RunJobs of one worker: many runs by one stream, each with its own updates, end and cancelling, as if it were a call of its own. What is
// begun or cancelled while a message is being written is in the next one. Thread-safe; callbacks come on a gRPC thread, the last of a run that is
// cancelled on that of Cancel().
#pragma once

#include <functional>
#include <memory>

#include "bulkhead/module/v1/module.grpc.pb.h"
#include "supervisor/worker/control.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxRunsMessage = 1 << 20;  // bytes of runs to begin in one message, but for the one that goes beyond it
}  // namespace limits

class RunStream {
 public:
  static std::shared_ptr<RunStream> Open(module::v1::Module::Stub& stub, const std::string& token);
  virtual ~RunStream() = default;

  // As ControlPort::RunJob, without its timeout; sent with the next Flush(). Null once the stream has ended: then another one is needed.
  virtual std::shared_ptr<JobCall> Begin(const module::v1::RunJobRequest& request, std::function<void(const module::v1::RunJobUpdate&)> update,
                                         std::function<void(absl::Status)> done) = 0;
  virtual void Flush() = 0;
  // Ends the stream, and with UNAVAILABLE the runs in it.
  virtual void Close() = 0;
};

}  // namespace bulkhead
