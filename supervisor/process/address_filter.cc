#include "supervisor/process/address_filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr char kLicense[] = "Apache-2.0";
constexpr uint8_t kContext = BPF_REG_1, kWord = BPF_REG_2, kVerdict = BPF_REG_0;
constexpr int32_t kFirstByte = 0xff;  // of an address, as a little-endian machine loads it
constexpr int32_t kLoopbackNet = 127;

bpf_insn LoadWord(size_t offset) { return {BPF_LDX | BPF_W | BPF_MEM, kWord, kContext, static_cast<int16_t>(offset), 0}; }
bpf_insn And(int32_t mask) { return {BPF_ALU | BPF_AND | BPF_K, kWord, 0, 0, mask}; }
bpf_insn Set(int32_t verdict) { return {BPF_ALU64 | BPF_MOV | BPF_K, kVerdict, 0, 0, verdict}; }
bpf_insn Exit() { return {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}; }
// Of 32 bits, so that the constant is not extended by its sign.
bpf_insn SkipUnless(int32_t value, int16_t instructions) { return {BPF_JMP32 | BPF_JNE | BPF_K, kWord, 0, instructions, value}; }

std::vector<bpf_insn> OfIpv4() {
  return {Set(1), LoadWord(offsetof(bpf_sock_addr, user_ip4)), And(kFirstByte), SkipUnless(kLoopbackNet, 1), Exit(), Set(0), Exit()};
}

// ::1, and ::ffff:127.0.0.0/104, which are the IPv4 ones on a socket of IPv6.
std::vector<bpf_insn> OfIpv6() {
  auto word = [](size_t index) { return LoadWord(offsetof(bpf_sock_addr, user_ip6) + index * sizeof(uint32_t)); };
  constexpr int16_t kMapped = 10, kDeny = 15;
  std::vector<bpf_insn> code;
  auto unless = [&](int32_t value, int16_t target) { code.push_back(SkipUnless(value, static_cast<int16_t>(target - 1 - static_cast<int16_t>(code.size())))); };
  code = {Set(1), word(0)};
  unless(0, kDeny);
  code.push_back(word(1));
  unless(0, kDeny);
  code.push_back(word(2));
  unless(0, kMapped);
  code.push_back(word(3));
  unless(static_cast<int32_t>(htonl(1)), kDeny);
  code.push_back(Exit());
  unless(static_cast<int32_t>(htonl(0xffff)), kDeny);  // kMapped
  code.push_back(word(3));
  code.push_back(And(kFirstByte));
  unless(kLoopbackNet, kDeny);
  code.push_back(Exit());
  code.push_back(Set(0));  // kDeny
  code.push_back(Exit());
  return code;
}

absl::StatusOr<UniqueFd> Load(const std::vector<bpf_insn>& code, bpf_attach_type where) {
  bpf_attr attr{};
  attr.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
  attr.expected_attach_type = where;
  attr.insns = reinterpret_cast<uint64_t>(code.data());
  attr.insn_cnt = static_cast<uint32_t>(code.size());
  attr.license = reinterpret_cast<uint64_t>(kLicense);
  UniqueFd program(static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr)));
  if (!program) return ErrnoStatus(errno, "the kernel takes no BPF program for addresses");
  return program;
}

absl::StatusOr<std::vector<std::pair<bpf_attach_type, UniqueFd>>> LoadAll() {
  std::vector<std::pair<bpf_attach_type, UniqueFd>> programs;
  for (bpf_attach_type where : {BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG}) {
    const bool ipv4 = where == BPF_CGROUP_INET4_CONNECT || where == BPF_CGROUP_UDP4_SENDMSG;
    ASSIGN_OR_RETURN(UniqueFd program, Load(ipv4 ? OfIpv4() : OfIpv6(), where));
    programs.emplace_back(where, std::move(program));
  }
  return programs;
}

}  // namespace

absl::Status AllowLoopbackOnly(int folder) {
  static const auto programs = LoadAll();
  if (!programs.ok()) return programs.status();
  for (const auto& [where, program] : *programs) {
    bpf_attr attr{};
    attr.target_fd = static_cast<uint32_t>(folder);
    attr.attach_bpf_fd = static_cast<uint32_t>(program.get());
    attr.attach_type = where;
    attr.attach_flags = BPF_F_ALLOW_MULTI;  // beside those that a service manager may have above
    if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr) != 0) return ErrnoStatus(errno, "the kernel attaches no BPF program to the cgroup");
  }
  return absl::OkStatus();
}

}  // namespace bulkhead
