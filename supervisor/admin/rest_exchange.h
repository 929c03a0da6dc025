// What Rest keeps of its requests: how many there are, and each until its answer.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "supervisor/admin/rest.h"

namespace bulkhead {

// Reads a message of gRPC's generic calls.
bool ReadBuffer(grpc::ByteBuffer& buffer, google::protobuf::Message& message);

// How many exchanges there are, and whether there may be more.
class Rest::InFlight {
 public:
  bool Enter() {
    std::lock_guard lock(mutex_);
    if (!stopping_) ++count_;
    return !stopping_;
  }
  void Leave() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  void Stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  bool stopping() const {
    std::lock_guard lock(mutex_);
    return stopping_;
  }
  void AwaitNone(Millis at_most) {
    std::unique_lock lock(mutex_);
    none_.wait_for(lock, at_most, [this] { return count_ == 0; });
  }
  void AwaitNone() {
    std::unique_lock lock(mutex_);
    none_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable none_;
  bool stopping_ = false;
  int count_ = 0;
};

// One request until its answer. Owns what gRPC needs to stay meanwhile.
struct Rest::Exchange {
  // First, so that it goes last: after the context, which holds the channel.
  struct Place {
    explicit Place(std::shared_ptr<InFlight> taken) : in_flight(std::move(taken)) {}
    Place(const Place&) = delete;
    ~Place() { in_flight->Leave(); }
    std::shared_ptr<InFlight> in_flight;
  };
  explicit Exchange(std::shared_ptr<InFlight> taken) : place(std::move(taken)) {}
  Place place;
  LocalRequest request;
  std::unique_ptr<LocalResponder> responder;
  RestRoutes::Match match;
  std::shared_ptr<RestRoutes> routes;
  grpc::ClientContext context;
  grpc::ByteBuffer sent, received;

  void Answer(const grpc::Status& status);
  // What a call that failed has to say to its client.
  absl::Status Failure(const grpc::Status& status) const;
};

}  // namespace bulkhead
