// The load: keep-alive connections in a closed loop on one epoll thread. Each answer's status and length is checked.
//
//   bench_load --to HOST:PORT [--header 'Name: value'] [--warm-up S] [--seconds S] [--until-eof] [--cpu PID]... CONNECTIONS:LENGTH:PATH...
//     prints one JSON object: for each group {requests, total, errors, p50_us, p99_us, max_us}, where `total` counts the requests
//     before and behind the measurement, too; the seconds measured, and the CPU seconds that each PID and this process took meanwhile.
//     With --until-eof it says "measuring" when the warm-up is over, and ends with its input, after --seconds at the latest
//   bench_load --to HOST:PORT [--header …] --idle CONNECTIONS:LENGTH:PATH
//     one request on each connection, one after the other; prints "ready" and keeps them open until its input ends
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr int kEventsPerTurn = 512;
constexpr size_t kReadBuffer = 256 * 1024;
constexpr size_t kMaxHead = 16 * 1024;
constexpr uint64_t kMaxErrors = 100;  // beyond: there is nothing to measure
constexpr uint64_t kDrainNs = 5'000'000'000;  // for the last answers; beyond: they are errors
constexpr int kTurnMs = 100;          // so that the end is seen when nothing answers any more
constexpr uint64_t kLookNs = 10'000'000;  // how often the end of the input is looked for

[[noreturn]] void Die(const std::string& why) {
  fprintf(stderr, "bench_load: %s\n", why.c_str());
  exit(2);
}

uint64_t Nanoseconds(clockid_t clock) {
  timespec time;
  if (clock_gettime(clock, &time) != 0) return 0;
  return uint64_t(time.tv_sec) * 1'000'000'000 + uint64_t(time.tv_nsec);
}
uint64_t Now() { return Nanoseconds(CLOCK_MONOTONIC); }

// What utime and stime of all threads add up to, without their steps of 10 ms.
uint64_t CpuOf(pid_t pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) Die("no process " + std::to_string(pid));
  return Nanoseconds(clock);
}

// Counts per value with 7 significant bits, as HdrHistogram keeps them: an answer is wrong by less than 1 %.
class Histogram {
 public:
  void Add(uint64_t value) {
    int shift = std::max(0, int(std::bit_width(value)) - 7);
    ++counts_[(size_t(shift) << 6) + (value >> shift)];
    ++total_;
    max_ = std::max(max_, value);
  }
  uint64_t Quantile(double q) const {
    uint64_t rank = uint64_t(q * double(total_)), seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen <= rank) continue;
      size_t shift = i < 128 ? 0 : (i >> 6) - 1;
      return ((i - (shift << 6)) << shift) + ((uint64_t{1} << shift) >> 1);
    }
    return 0;
  }
  uint64_t total() const { return total_; }
  uint64_t max() const { return max_; }

 private:
  std::array<uint64_t, (57 << 6) + 128> counts_{};
  uint64_t total_ = 0, max_ = 0;
};

struct Group {
  int connections = 0;
  size_t length = 0;
  std::string request;
  Histogram latency;
  uint64_t total = 0, errors = 0;
};

struct Connection {
  int fd = -1;
  Group* group = nullptr;
  std::string head;  // the beginning of one
  size_t body_left = 0;
  bool in_body = false, waits = false;
  uint64_t sent_at = 0;
};

struct Options {
  sockaddr_in to{};
  std::string host, header;
  double warm_up = 0.5, seconds = 2;
  bool idle = false, until_eof = false;
  std::vector<pid_t> watched;
  std::vector<std::string> groups;
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options), epoll_(epoll_create1(EPOLL_CLOEXEC)), buffer_(new char[kReadBuffer]) {
    for (const std::string& text : options.groups) {
      char path[512];
      auto group = std::make_unique<Group>();
      if (sscanf(text.c_str(), "%d:%zu:%511s", &group->connections, &group->length, path) != 3) Die("not CONNECTIONS:LENGTH:PATH: " + text);
      group->request = "GET " + std::string(path) + " HTTP/1.1\r\nHost: " + options.host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n" +
                       (options.header.empty() ? "" : options.header + "\r\n") + "\r\n";
      groups_.push_back(std::move(group));
    }
  }

  int RunIdle() {
    for (auto& group : groups_) {
      for (int i = 0; i < group->connections; ++i) {
        Connection& connection = Open(*group);
        Send(connection);
        while (group->total + group->errors <= uint64_t(i)) Turn();
      }
      if (group->errors > 0) Die(std::to_string(group->errors) + " answers were wrong");
    }
    printf("ready\n");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
  }

  int RunClosedLoop() {
    looping_ = true;
    for (auto& group : groups_) {
      for (int i = 0; i < group->connections; ++i) Send(Open(*group));
    }
    uint64_t begin = Now() + uint64_t(options_.warm_up * 1e9);
    while (Now() < begin) Turn();
    for (auto& group : groups_) group->latency = Histogram();
    std::vector<uint64_t> cpu;
    for (pid_t pid : options_.watched) cpu.push_back(CpuOf(pid));
    uint64_t own = Nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    begin = Now();
    const uint64_t end = begin + uint64_t(options_.seconds * 1e9);
    if (options_.until_eof) {
      printf("measuring\n");
      fflush(stdout);
    }
    while (Now() < end && !InputEnded()) Turn();
    double seconds = double(Now() - begin) / 1e9;
    own = Nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own;
    for (size_t i = 0; i < cpu.size(); ++i) cpu[i] = CpuOf(options_.watched[i]) - cpu[i];
    const std::vector<Histogram> measured = Drain();
    Print(seconds, cpu, own, measured);
    return 0;
  }

 private:
  // The last answers come, too: a connection that waits without end is an error that no latency shows.
  std::vector<Histogram> Drain() {
    std::vector<Histogram> measured;
    for (auto& group : groups_) measured.push_back(group->latency);
    looping_ = false;
    const uint64_t until = Now() + kDrainNs;
    while (waiting_ > 0 && Now() < until) Turn();
    for (auto& connection : connections_) connection->group->errors += connection->waits;
    return measured;
  }

  bool InputEnded() {
    if (!options_.until_eof || Now() < next_look_) return false;
    next_look_ = Now() + kLookNs;
    pollfd input{STDIN_FILENO, POLLIN, 0};
    char byte;
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
  }

  Connection& Open(Group& group) {
    connections_.push_back(std::make_unique<Connection>());
    Connection& connection = *connections_.back();
    connection.group = &group;
    Connect(connection);
    return connection;
  }

  void Connect(Connection& connection) {
    connection.head.clear();
    connection.in_body = false;
    connection.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection.fd < 0 || connect(connection.fd, reinterpret_cast<const sockaddr*>(&options_.to), sizeof options_.to) != 0) {
      Die(std::string("can't connect: ") + strerror(errno));
    }
    epoll_event event{EPOLLIN, {.ptr = &connection}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event);
  }

  // A request is one small write into an empty socket: it does not block.
  void Send(Connection& connection) {
    const std::string& request = connection.group->request;
    connection.sent_at = Now();
    waiting_ += !std::exchange(connection.waits, true);
    if (send(connection.fd, request.data(), request.size(), MSG_NOSIGNAL) != ssize_t(request.size())) Wrong(connection);
  }

  void Wrong(Connection& connection) {
    Group& group = *connection.group;
    if (++group.errors > kMaxErrors) Die("more than 100 wrong answers; the last began: " + connection.head.substr(0, 200));
    close(connection.fd);
    waiting_ -= std::exchange(connection.waits, false);
    Connect(connection);
    if (looping_) Send(connection);
  }

  void Turn() {
    epoll_event events[kEventsPerTurn];
    int n = epoll_wait(epoll_, events, kEventsPerTurn, kTurnMs);
    for (int i = 0; i < n; ++i) Receive(*static_cast<Connection*>(events[i].data.ptr));
  }

  void Receive(Connection& connection) {
    ssize_t n = recv(connection.fd, buffer_.get(), kReadBuffer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return Wrong(connection);
    std::string_view data(buffer_.get(), size_t(n));
    if (!connection.in_body) {
      if (!connection.head.empty()) data = connection.head.append(data);
      size_t end = data.find("\r\n\r\n");
      if (end == std::string_view::npos) {
        if (connection.head.empty()) connection.head = data;
        return connection.head.size() > kMaxHead ? Wrong(connection) : void();
      }
      if (!data.starts_with("HTTP/1.1 200 ") || ContentLength(data.substr(0, end + 2)) != connection.group->length) {
        connection.head = data;
        return Wrong(connection);
      }
      connection.in_body = true;
      connection.body_left = connection.group->length;
      data.remove_prefix(end + 4);
    }
    if (data.size() > connection.body_left) return Wrong(connection);
    connection.body_left -= data.size();
    if (connection.body_left > 0) return connection.head.clear();
    connection.head.clear();
    connection.in_body = false;
    waiting_ -= std::exchange(connection.waits, false);
    ++connection.group->total;
    connection.group->latency.Add(Now() - connection.sent_at);
    if (looping_) Send(connection);
  }

  // Of a head's lines, each with its CR LF; npos when there is none.
  static size_t ContentLength(std::string_view lines) {
    constexpr std::string_view kName = "content-length:";
    for (size_t at = 0; at < lines.size(); at = lines.find('\n', at) + 1) {
      if (lines.size() - at > kName.size() && strncasecmp(lines.data() + at, kName.data(), kName.size()) == 0) {
        return strtoull(lines.data() + at + kName.size(), nullptr, 10);
      }
    }
    return std::string_view::npos;
  }

  void Print(double seconds, const std::vector<uint64_t>& cpu, uint64_t own, const std::vector<Histogram>& measured) const {
    printf("{\"seconds\": %.6f, \"own_cpu_s\": %.6f, \"cpu_s\": [", seconds, double(own) / 1e9);
    for (size_t i = 0; i < cpu.size(); ++i) printf("%s%.6f", i ? ", " : "", double(cpu[i]) / 1e9);
    printf("], \"groups\": [");
    for (size_t i = 0; i < measured.size(); ++i) {
      const Histogram& latency = measured[i];
      printf("%s{\"requests\": %lu, \"total\": %lu, \"errors\": %lu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}", i ? ", " : "",
             latency.total(), groups_[i]->total, groups_[i]->errors, double(latency.Quantile(0.5)) / 1e3, double(latency.Quantile(0.99)) / 1e3,
             double(latency.max()) / 1e3);
    }
    printf("]}\n");
  }

  const Options& options_;
  const int epoll_;
  const std::unique_ptr<char[]> buffer_;
  bool looping_ = false;
  uint64_t next_look_ = 0;  // at the input
  size_t waiting_ = 0;  // connections for an answer
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    auto value = [&] { return ++i < argc ? argv[i] : (Die(std::string(name).append(" wants a value")), nullptr); };
    if (name == "--to") {
      options.host = value();
      size_t colon = options.host.rfind(':');
      options.to.sin_family = AF_INET;
      options.to.sin_port = htons(uint16_t(atoi(options.host.c_str() + colon + 1)));
      if (colon == std::string::npos || inet_pton(AF_INET, options.host.substr(0, colon).c_str(), &options.to.sin_addr) != 1) {
        Die("--to wants an IPv4 address and a port");
      }
    } else if (name == "--header") {
      options.header = value();
    } else if (name == "--warm-up") {
      options.warm_up = atof(value());
    } else if (name == "--seconds") {
      options.seconds = atof(value());
    } else if (name == "--cpu") {
      options.watched.push_back(atoi(value()));
    } else if (name == "--idle") {
      options.idle = true;
    } else if (name == "--until-eof") {
      options.until_eof = true;
    } else {
      options.groups.push_back(argv[i]);
    }
  }
  if (options.host.empty() || options.groups.empty()) Die("--to and at least one CONNECTIONS:LENGTH:PATH are needed");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  Load load(options);
  return options.idle ? load.RunIdle() : load.RunClosedLoop();
}
