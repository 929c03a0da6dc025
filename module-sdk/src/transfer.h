// One attempt of a call by libcurl, and the connections that are kept between them. Thread-safe; a transfer blocks the thread that asked for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "bulkhead/client.h"
#include "current_work.h"
#include "retry.h"

namespace bulkhead::sdk {

struct Transfer {
  using Time = std::chrono::steady_clock::time_point;
  std::string method, url;
  std::vector<std::string> lines;  // of the head: "name: value"
  std::string_view body;
  bool repeatable = false;  // libcurl may send it once more when a kept connection turns out to be dead
  Time until{};
  const CurrentWork* scope = nullptr;
};

struct TransferResult {
  AttemptEnd end = AttemptEnd::kAnswered;
  std::string code, why;  // of all but kAnswered and kCancelled: ClientError's, and half a sentence
  ClientResponse response;
};

class Transfers {
 public:
  explicit Transfers(const ClientSettings& settings);
  Transfers(const Transfers&) = delete;
  ~Transfers();
  // Throws ClientError CLIENT_UNAVAILABLE.
  TransferResult Run(const Transfer& transfer);

 private:
  struct Handle;  // one CURL with its connection
  class Lent;
  std::unique_ptr<Handle> Open() const;

  const ClientSettings& settings_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Handle>> idle_;  // the last one returned is taken first, so that those that are not needed fall silent
  int lent_ = 0;
};

}  // namespace bulkhead::sdk
