// A module's end of the data link, in a thread of the test: answers requests as the test says, also wrongly. It keeps the rules of
// LINK.md unless told otherwise. The handlers run on its thread, and so must everything but what is marked thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bulkhead/link/frame.h"
#include "supervisor/base/fd.h"

namespace bulkhead {

using FakeHeaders = std::vector<std::pair<std::string, std::string>>;

struct FakeRequest {
  uint64_t connection = 0;
  uint32_t stream = 0;
  std::string method, target, body;
  FakeHeaders headers, trailers;
  uint8_t flags = 0;  // of the REQUEST
  bool ended = false;
  std::string Header(const std::string& name) const;  // "" when absent; values of equal names joined by '|'
};

class FakeLinkModule {
 public:
  using Handler = std::function<void(FakeLinkModule&, FakeRequest&)>;
  static constexpr size_t kMaxFramesNoted = 1'000;

  // Listens on `socket`. `on_end` is called for each request that came whole.
  FakeLinkModule(std::string socket, std::string token, Handler on_end);
  ~FakeLinkModule();

  // Set before the first request.
  Handler on_head;                        // a request's head has come
  Handler on_body;                        // some of its body has come (in request.body)
  bool keep_bodies = true;                // false: count only
  std::atomic<bool> give_credit{true};
  std::atomic<bool> answer_pings{true};
  std::atomic<bool> reads{true};          // false: leaves everything in its sockets
  link::Hello hello;                      // what it says of itself
  std::atomic<int> drop_connections{0};   // so many of the next are closed as soon as they are made

  // On the module's thread.
  void Respond(FakeRequest& request, int status, const FakeHeaders& headers, const std::string& body, bool end = true);
  void Upgrade(FakeRequest& request, const FakeHeaders& headers);  // 101; then Send()
  void Send(FakeRequest& request, std::string bytes, bool end);  // as credit allows
  void SendZeros(FakeRequest& request, size_t count);            // and END
  void Raw(FakeRequest& request, const std::string& bytes);      // past all rules
  void Cancel(FakeRequest& request, link::CancelCode code);
  void GoAway(FakeRequest& request, uint32_t last);  // on its connection, on which it should answer no stream above `last`
  void Credit(const std::vector<FakeRequest>& requests, uint32_t bytes);  // for all of them in one write; give_credit is false
  void CloseConnection(FakeRequest& request);
  void CloseAll() { peers_.clear(); }  // from within Do() only

  // Thread-safe.
  void Do(std::function<void(FakeLinkModule&)> task);  // on the module's thread
  // Waits until `done` is true of what was counted; false after 5 s.
  struct Counts {
    int connections = 0, requests = 0, cancels = 0, goaways = 0, pings = 0, pongs = 0, closed = 0;
    uint16_t last_cancel = 0;
    size_t body_bytes = 0;
    std::vector<std::pair<uint32_t, size_t>> bodies;  // stream and size of each body frame, in order; up to kMaxFramesNoted
    std::string last_pong;
    FakeRequest last;
  };
  bool WaitFor(const std::function<bool(const Counts&)>& done);
  Counts counts();
  // Closes the listener and all connections at once, as a killed process does.
  void Kill();

 private:
  struct Outgoing {
    int64_t credit = link::kWindow;
    std::string pending;
    size_t zeros = 0;
    bool end = false, ended = false;
  };
  struct Peer {
    UniqueFd fd;
    std::string in, out;
    bool hello = false;
    uint32_t window = link::kWindow;
    std::map<uint32_t, FakeRequest> requests;
    std::map<uint32_t, Outgoing> outgoing;
  };
  void Run();
  void Read(uint64_t id);
  bool TakeFrames(uint64_t id);
  bool TakeFrame(uint64_t id, const link::Header& header, const std::string& payload);
  void Pump(Peer& peer);
  void Note(const std::function<void(Counts&)>& change);

  const std::string token_;
  const Handler on_end_;
  UniqueFd listener_, wake_;
  std::map<uint64_t, Peer> peers_;
  uint64_t next_peer_ = 1;
  bool stop_ = false, killed_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  Counts counts_;
  std::vector<std::function<void(FakeLinkModule&)>> tasks_;
  std::thread thread_;
};

}  // namespace bulkhead
