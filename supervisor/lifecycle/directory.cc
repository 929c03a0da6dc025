#include "supervisor/lifecycle/directory.h"

#include <atomic>

namespace bulkhead {
namespace {

// Calls `done` on `loop` once all readers have said so. Shared by their callbacks; the count is its only state.
struct Countdown {
  Countdown(Loop& loop, size_t count, std::function<void()> done) : loop(loop), left(count), done(std::move(done)) {}
  void One() {
    if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) loop.Post(std::move(done));
  }
  Loop& loop;
  std::atomic<size_t> left;
  std::function<void()> done;
};

}  // namespace

void DirectoryPublisher::Publish(std::shared_ptr<const Directory> directory, std::function<void()> done) {
  current_ = directory;
  // One more than the readers, so that it also ends when there are none.
  auto countdown = std::make_shared<Countdown>(loop_, readers_.size() + 1, std::move(done));
  for (DirectoryReader* reader : readers_) reader->Adopt(directory, [countdown] { countdown->One(); });
  countdown->One();
}

void DirectoryPublisher::Drain(const std::string& instance, std::function<void()> done) {
  auto countdown = std::make_shared<Countdown>(loop_, readers_.size() + 1, std::move(done));
  for (DirectoryReader* reader : readers_) reader->Drain(instance, [countdown] { countdown->One(); });
  countdown->One();
}

void DirectoryPublisher::EndTunnels(const std::string& instance) {
  for (DirectoryReader* reader : readers_) reader->EndTunnels(instance);
}

}  // namespace bulkhead
