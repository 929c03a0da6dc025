// The WebSockets of the module under test.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "bulkhead/router.h"

namespace bulkhead::sdk_test {

// Blocks whoever calls Wait() until Open().
class Gate {
 public:
  void Wait() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    open_changed_.wait(lock, [&] { return open_; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    open_changed_.notify_all();
  }
  int waiting() {
    std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable open_changed_;
  bool open_ = false;
  int waiting_ = 0;
};

class TestSockets {
 public:
  explicit TestSockets(Gate& gate) : gate_(gate) {}
  // Each route takes `?as=NAME`, under which GET /ws-story/NAME tells what its callbacks saw.
  void Register(sdk::Router& router);

 private:
  sdk::WebSocketEvents Echo(sdk::Request& request);
  sdk::WebSocketEvents Told(sdk::Request& request);
  sdk::WebSocketEvents Throws(sdk::Request& request);
  sdk::WebSocketEvents Gated(sdk::Request& request);
  sdk::WebSocketEvents Room(sdk::Request& request);
  void Tell(const std::string& name, const std::string& what);

  Gate& gate_;
  std::mutex mutex_;
  std::map<std::string, std::string> stories_;
  std::set<sdk::WebSocketPtr> room_;
};

}  // namespace bulkhead::sdk_test
