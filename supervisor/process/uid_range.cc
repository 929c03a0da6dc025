#include "supervisor/process/uid_range.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/process/folders.h"

namespace bulkhead {
namespace {

constexpr Millis kClaimPoll{20};
constexpr uid_t kLeastUid = 1'000;  // below are the system's own users
constexpr size_t kMaxHolderText = 4096;
constexpr size_t kMaxRangesText = 4096;  // of <data>/uids
constexpr char kRangesFile[] = "uids", kNewRangesFile[] = "uids.new";

std::string RangeText(const UidRange& range) { return std::to_string(range.first) + "-" + std::to_string(range.last); }

// ---- the claims of all daemons

// Who holds the range that is in the way.
struct UidHolder {
  UidRange range;
  std::string text;  // what it has written about itself, as much as found room in its range
};

class UidClaims {
 public:
  UidClaims(UniqueFd file, const UidOptions& options)
      : file_(std::move(file)), me_(options.hash + " pid " + std::to_string(getpid()) + ", data folder " + options.data_dir + "\n") {}

  // An open file description's lock: shared with the spawner by fork, and with nobody who opens the file.
  bool Take(const UidRange& range) {
    struct flock lock = LockOf(range);
    if (fcntl(file_.get(), F_OFD_SETLK, &lock) != 0) return false;
    const std::string text = me_.substr(0, static_cast<size_t>(lock.l_len));
    (void)!pwrite(file_.get(), text.data(), text.size(), lock.l_start);
    return true;
  }

  std::optional<UidHolder> HolderOf(const UidRange& range) const {
    struct flock lock = LockOf(range);
    if (fcntl(file_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return std::nullopt;
    const size_t size = lock.l_len == 0 ? kMaxHolderText : std::min(kMaxHolderText, static_cast<size_t>(lock.l_len));
    std::string text(size, '\0');
    ssize_t read = pread(file_.get(), text.data(), text.size(), lock.l_start);
    text.resize(read > 0 ? static_cast<size_t>(read) : 0);
    text.resize(std::min(text.find('\n'), text.size()));
    const auto first = static_cast<uid_t>(lock.l_start);
    return UidHolder{{first, static_cast<uid_t>(first + std::max<off_t>(lock.l_len, 1) - 1)}, text};
  }

  // Whether the holder may be what is left of a daemon on our data folder, which we hold, so that it is about to end. Who had no
  // room to say who he is may be it, too.
  bool MayBePredecessor(const UidHolder& holder, const std::string& hash) const {
    return hash.starts_with(holder.text.substr(0, hash.size()));
  }

  UniqueFd Release() { return std::move(file_); }

 private:
  static struct flock LockOf(const UidRange& range) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = range.first;
    lock.l_len = static_cast<off_t>(range.last) - range.first + 1;
    return lock;
  }

  UniqueFd file_;
  const std::string me_;
};

absl::StatusOr<UniqueFd> OpenClaims(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  if (mkdir(folder.c_str(), 0711) == 0) chmod(folder.c_str(), 0711);  // sockets of daemons with a long path are there, too
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) {
    return Error("DATA_UNUSABLE", "the user ids of this machine's supervisors are kept apart in " + path + ", which can't be opened: " +
                                      strerror(errno) + "; make " + folder + " a folder that root can write");
  }
  return file;
}

// Takes the range, or says who has it.
std::optional<UidHolder> TakeOrWait(UidClaims& claims, const UidRange& range, const UidOptions& options) {
  const Clock& clock = Clock::Real();
  const Instant deadline = clock.Now() + options.wait;
  for (;;) {
    if (claims.Take(range)) return std::nullopt;
    auto holder = claims.HolderOf(range);
    if (!holder) continue;  // gone meanwhile
    if (!claims.MayBePredecessor(*holder, options.hash) || clock.Now() >= deadline) return holder;
    std::this_thread::sleep_for(kClaimPoll);
  }
}

absl::StatusOr<UidRange> TakeConfigured(UidClaims& claims, const UidRange& range, const UidOptions& options) {
  auto holder = TakeOrWait(claims, range, options);
  if (!holder) return range;
  const bool whole = holder->text.find("data folder") != std::string::npos;
  return Error("UIDS_TAKEN", "isolation.uids " + RangeText(range) + " overlaps " + RangeText(holder->range) + " of another supervisor" +
                                 (whole ? " (" + holder->text + ")" : "") + ": give each of them a range of its own, or leave it out");
}

UidRange RangeOf(const UidOptions& options, uid_t number) {
  const uid_t first = options.base + number % options.ranges * options.size;
  return {first, first + options.size - 1};
}

absl::StatusOr<UidRange> TakeAny(UidClaims& claims, const UidRange& preferred, const UidOptions& options) {
  if (!TakeOrWait(claims, preferred, options)) return preferred;
  const uid_t from = (preferred.first - options.base) / options.size;
  for (uid_t i = 1; i < options.ranges; ++i) {
    const UidRange range = RangeOf(options, from + i);
    if (claims.Take(range)) return range;
  }
  return Error("UIDS_TAKEN", "all " + std::to_string(options.ranges) + " ranges of user ids for modules, from " + std::to_string(options.base) +
                                 " on, are held by other supervisors: stop one, or set isolation.uids to a free range");
}

// ---- the data folder

// The ranges that the files of the modules may be in, one a line: more than one after a change that was interrupted.
std::vector<UidRange> ReadRanges(int data) {
  UniqueFd file(openat(data, kRangesFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info;
  if (!file || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  std::string text(kMaxRangesText, '\0');
  ssize_t size = read(file.get(), text.data(), text.size());
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  std::vector<UidRange> ranges;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> ends = absl::StrSplit(line, absl::MaxSplits('-', 1));
    UidRange range;
    if (!absl::SimpleAtoi(ends.first, &range.first) || !absl::SimpleAtoi(ends.second, &range.last)) continue;
    if (range.first >= kLeastUid && range.first <= range.last) ranges.push_back(range);
  }
  return ranges;
}

absl::Status WriteRanges(int data, const std::vector<UidRange>& ranges) {
  std::string text;
  for (const UidRange& range : ranges) text += RangeText(range) + "\n";
  unlinkat(data, kNewRangesFile, 0);  // of a start that was killed
  UniqueFd file(openat(data, kNewRangesFile, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  const bool written = file && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(file.get()) == 0;
  if (written && renameat(data, kNewRangesFile, data, kRangesFile) == 0) return absl::OkStatus();
  return Error("DATA_UNUSABLE", std::string("the data folder's file uids can't be written: ") + strerror(errno));
}

// The same place in `to` for a uid in one of `from`.
std::optional<uid_t> Moved(uid_t uid, const std::vector<UidRange>& from, const UidRange& to) {
  for (const UidRange& range : from) {
    if (uid < range.first || uid > range.last) continue;
    if (uid - range.first > to.last - to.first) return std::nullopt;
    return to.first + (uid - range.first);
  }
  return std::nullopt;
}

// What belonged to a module's old uid belongs to its new one: in each module's folder only what has the place of its owner, so that no
// module can have somebody else's file given to it. What can't be changed is told; the folder that it is in is its owner's alone. Whether
// all of them have their place.
bool GiveToNewOwners(int data, const std::string& data_dir, const std::vector<UidRange>& from, const UidRange& to) {
  UniqueFd modules(openat(data, "modules", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  bool all = true;
  if (!modules) return all;  // not made yet
  for (const std::string& name : folders::Names(modules.get())) {
    struct stat info;
    if (fstatat(modules.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(info.st_mode)) continue;
    const std::optional<uid_t> owner = Moved(info.st_uid, from, to);
    all = all && owner;
    absl::Status changed = absl::OutOfRangeError("there is no place for uid " + std::to_string(info.st_uid) + " in " + RangeText(to));
    if (owner) changed = folders::ChangeOwner(modules.get(), name, *owner, [&](id_t id) { return Moved(id, from, to) == owner; });
    const std::vector<LogField> fields = {{"folder", data_dir + "/modules/" + name}, {"uids", RangeText(to)}};
    if (changed.ok()) {
      LogInfo("uids", "a module has another user id than before: its files were given to it", {fields[0], fields[1]});
    } else {
      LogWarn("uids", "a module has another user id than before, and not all of its files", {fields[0], {"reason", std::string(changed.message())}});
    }
  }
  return all;
}

}  // namespace

absl::StatusOr<UidClaim> ClaimUids(const UidOptions& options) {
  UniqueFd data(open(options.data_dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!data) return Error("DATA_UNUSABLE", "data folder " + options.data_dir + ": " + strerror(errno));
  ASSIGN_OR_RETURN(UniqueFd file, OpenClaims(options.claims));
  UidClaims claims(std::move(file), options);
  const UidRange by_name = RangeOf(options, static_cast<uid_t>(std::stoul(options.hash, nullptr, 16)));
  const std::vector<UidRange> known = ReadRanges(data.get());
  // The folder belongs to the user that we drop to, so what stands there is a wish: no other range than one of ours is taken for it.
  const bool above = !known.empty() && known.back().first >= options.base;
  const bool usable = above && known.back() == RangeOf(options, (known.back().first - options.base) / options.size);
  const UidRange preferred = usable ? known.back() : by_name;
  UidClaim claim;
  ASSIGN_OR_RETURN(claim.range, options.configured ? TakeConfigured(claims, *options.configured, options) : TakeAny(claims, preferred, options));
  if (known != std::vector<UidRange>{claim.range}) {
    std::vector<UidRange> all = known.empty() ? std::vector<UidRange>{by_name} : known;  // by the name: what earlier versions took
    std::erase(all, claim.range);
    all.push_back(claim.range);
    if (all.size() > 1) RETURN_IF_ERROR(WriteRanges(data.get(), all));
    // Who has found no place is looked at again by the next start, which may have a wider range.
    if (GiveToNewOwners(data.get(), options.data_dir, all, claim.range)) RETURN_IF_ERROR(WriteRanges(data.get(), {claim.range}));
  }
  claim.held = claims.Release();
  return claim;
}

}  // namespace bulkhead
