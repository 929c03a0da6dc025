// What daemon and spawner say to each other over their SOCK_SEQPACKET pair: one message per packet, descriptors beside it.
// Both ends are the same binary, so there is no version; lengths are checked all the same, because the daemon's end belongs
// to the process that parses hostile HTTP.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/process/spawner.h"

namespace bulkhead::wire {

// One packet. Beyond it a Spawn is refused; the kernel's default send buffer holds 208 KiB.
inline constexpr size_t kMaxPacket = 128 * 1024;
inline constexpr size_t kMaxPacketFds = 8;

struct Request {
  enum class Kind : uint8_t { kSpawn = 1, kSignal, kKillTree, kMakeFolder, kRemoveFolder, kInspect };
  Kind kind = Kind::kSpawn;
  uint64_t serial = 0;   // names the answer
  SpawnSpec spec;        // kSpawn, kInspect
  std::string id;        // kSignal, kKillTree
  int32_t signal = 0;    // kSignal
  std::string path;      // the folder requests
  uid_t uid = 0;         // kMakeFolder
  gid_t gid = 0;
  uint32_t mode = 0;
};

// Of a Spawn that was refused because a measure of a strict child's isolation is missing; no errno and no other refusal has it.
inline constexpr absl::StatusCode kIsolationIncomplete = absl::StatusCode::kUnauthenticated;

struct Reply {
  enum class Kind : uint8_t { kSpawned = 1, kExited, kEmpty, kFolder, kInspected };
  Kind kind = Kind::kSpawned;
  uint64_t serial = 0;       // of the request it answers; kExited: of the Spawn
  int32_t code = 0;          // absl::StatusCode of kSpawned and kFolder
  std::string text;          // its sentence
  SpawnedProcess process;    // kSpawned; of kInspected its isolation
  ProcessExit exit;          // kExited
  std::vector<KilledProcess> killed;  // kEmpty
};

// The descriptors of a request go into `fds` (and leave the spec).
std::string Encode(Request& request, std::vector<UniqueFd>& fds);
std::string Encode(const Reply& reply);
// False for anything that is not exactly one well-formed message.
bool Decode(std::string_view packet, std::vector<UniqueFd>& fds, Request& request);
bool Decode(std::string_view packet, Reply& reply);

// 0 or an errno. Never blocks when the socket is non-blocking, never raises SIGPIPE.
int SendPacket(int socket, std::string_view packet, const std::vector<UniqueFd>& fds);
enum class Received { kPacket, kNothing, kEnd };
Received ReceivePacket(int socket, std::string& packet, std::vector<UniqueFd>& fds);

// One end of the pair on a loop. Sends at once, and queues what the socket does not take. Lives on the loop's thread.
class PacketSocket {
 public:
  using PacketFn = std::function<void(std::string_view packet, std::vector<UniqueFd>& fds)>;
  explicit PacketSocket(UniqueFd socket) : socket_(std::move(socket)) {}
  ~PacketSocket();
  // `end` comes once, when the other side is gone.
  void Attach(Loop& loop, PacketFn packet, std::function<void()> end);
  void Send(std::string packet, std::vector<UniqueFd> fds = {});

 private:
  void OnEvents(uint32_t events);
  void Flush();
  void Rewatch();
  void End();

  struct Queued {
    std::string packet;
    std::vector<UniqueFd> fds;
  };
  UniqueFd socket_;
  Loop* loop_ = nullptr;
  PacketFn packet_;
  std::function<void()> end_;
  std::deque<Queued> queue_;
  bool writing_ = false;  // EPOLLOUT is being watched
};

}  // namespace bulkhead::wire
