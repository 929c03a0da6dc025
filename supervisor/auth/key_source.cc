#include "supervisor/auth/key_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>

#include "supervisor/auth/http_get.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxKeyFile = 64 * 1024;
constexpr size_t kMaxWaiting = 4'096;     // beyond: answered at once, so the token is refused
constexpr Millis kFailedRetry{10'000};    // after a failed fetch, unless the interval is shorter

// Of "http://127.0.0.1:8080/keys" the host, without brackets and in lower case; "" when there is none, or somebody's name before it.
std::string HostOf(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return "";
  url.remove_prefix(scheme + 3);
  url = url.substr(0, url.find_first_of("/?#\\"));
  if (url.find('@') != std::string_view::npos) return "";
  std::string host(url.starts_with('[') ? url.substr(1, url.find(']') - 1) : url.substr(0, url.find(':')));
  std::transform(host.begin(), host.end(), host.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return host;
}

bool IsPlain(std::string_view url) { return url.starts_with("http://"); }

}  // namespace

std::string JwksUrlFault(const std::string& url) {
  const std::string host = HostOf(url);
  if (host.empty() || (!url.starts_with("https://") && !IsPlain(url))) return "This must be an https URL without a user name.";
  const bool visible = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 127 && c != '\\'; });
  if (!visible || url.size() > 2048) return "This is no URL.";
  const bool four = host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
  if (IsPlain(url) && !four && host != "::1" && host != "localhost") {
    return "Keys are fetched with https, or with http from this host only: whoever can change them on the way can be anybody.";
  }
  return "";
}

absl::StatusOr<std::vector<VerificationKey>> ReadKeyFiles(const JwtSettings& settings) {
  std::vector<VerificationKey> keys;
  for (const JwtKeyFile& file : settings.keys) {
    const auto algorithm = ParseJwtAlgorithm(file.algorithm);
    if (!algorithm) return Error("CONFIG_INVALID", "auth.jwt.keys: the algorithm of \"" + file.id + "\" is none of HS256, RS256, ES256, EdDSA.");
    auto content = ReadFile(file.file, kMaxKeyFile);
    if (!content.ok()) {
      return Error("CONFIG_INVALID", "auth.jwt.keys: the file " + file.file + " of the key \"" + file.id +
                                         "\" can't be read: " + std::string(content.status().message()) + ".");
    }
    const bool secret = *algorithm == JwtAlgorithm::kHs256;
    struct stat info;
    if (secret && stat(file.file.c_str(), &info) == 0 && (info.st_mode & 007) != 0)
      LogWarn("auth", "everybody on this host can read the secret of a key; run chmod o-rwx on it", {{"file", file.file}});
    if (secret && content->ends_with('\n')) content->pop_back();
    auto key = secret ? VerificationKey::FromSecret(file.id, *std::move(content)) : VerificationKey::FromPem(file.id, *algorithm, *content);
    if (!key.ok()) return Error("CONFIG_INVALID", "auth.jwt.keys: " + file.file + ": " + std::string(key.status().message()));
    keys.push_back(*std::move(key));
  }
  return keys;
}

KeySource::KeySource(const Clock& clock, std::string jwks_url, Millis refresh, std::vector<VerificationKey> configured,
                     std::function<void()> changed)
    : clock_(clock),
      changed_(std::move(changed)),
      url_(std::move(jwks_url)),
      refresh_(refresh),
      configured_(std::move(configured)),
      current_(std::make_shared<const KeySet>(configured_)) {}

KeySource::~KeySource() { Stop(); }

void KeySource::Start() {
  std::lock_guard lock(mutex_);
  started_ = true;
  RunWhereWanted();
}

void KeySource::RunWhereWanted() {
  if (!started_ || url_.empty() || running_ || stopping_) return;
  running_ = true;
  thread_ = std::thread([this] { Run(); });
}

void KeySource::Configure(std::string jwks_url, Millis refresh, std::vector<VerificationKey> configured) {
  {
    std::lock_guard lock(mutex_);
    if (url_ != jwks_url) {
      fetched_keys_.clear();
      fetched_ = false;
    }
    if (url_ != jwks_url || refresh_ != refresh) wanted_ = running_;
    url_ = std::move(jwks_url);
    refresh_ = refresh;
    configured_ = std::move(configured);
    Merge();
    RunWhereWanted();
  }
  wake_.notify_all();
}

bool KeySource::Merge() {
  std::vector<VerificationKey> keys = configured_;
  const KeySet own(configured_);
  for (const VerificationKey& key : fetched_keys_) {
    if (own.Find(key.id()) == nullptr) keys.push_back(key);
  }
  auto merged = std::make_shared<const KeySet>(std::move(keys));
  if (*merged == *current_) return false;
  current_ = std::move(merged);
  return true;
}

void KeySource::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const KeySet> KeySource::Current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

void KeySource::Refresh(std::function<void()> then) {
  {
    std::lock_guard lock(mutex_);
    // A fetch that is under way may have been answered before the key was published; the next one is allowed soon enough.
    const bool soon = last_begun_ != Instant{} && clock_.Now() - last_begun_ < limits::kJwksPause;
    if (running_ && !stopping_ && waiting_.size() < kMaxWaiting && (fetching_ || wanted_ || !soon)) {
      waiting_.push_back(std::move(then));
      wanted_ = !fetching_;
      then = nullptr;
    }
  }
  wake_.notify_all();
  if (then) then();
}

void KeySource::Run() {
  for (;;) {
    std::vector<std::function<void()>> waiting;
    FetchOnce();
    {
      std::unique_lock lock(mutex_);
      fetching_ = false;
      waiting.swap(waiting_);
    }
    for (auto& then : waiting) then();
    std::unique_lock lock(mutex_);
    const Millis pause = fetched_ ? refresh_ : std::min(refresh_, kFailedRetry);
    wake_.wait_for(lock, pause, [this] { return stopping_ || wanted_; });
    if (!stopping_) continue;
    running_ = false;
    waiting.swap(waiting_);
    lock.unlock();
    for (auto& then : waiting) then();
    return;
  }
}

void KeySource::FetchOnce() {
  std::string url;
  {
    std::lock_guard lock(mutex_);
    wanted_ = false;
    if (stopping_ || url_.empty()) return;
    fetching_ = true;
    last_begun_ = clock_.Now();
    url = url_;
  }
  const auto stopped = [this] {
    std::lock_guard lock(mutex_);
    return stopping_;
  };
  absl::StatusOr<KeySet> set = absl::UnknownError("");
  std::vector<std::string> passed_over;
  if (auto body = Fetch({url, IsPlain(url), limits::kMaxJwks, limits::kJwksTimeout}, stopped); body.ok()) {
    set = ParseJwks(*body, &passed_over);
  } else {
    set = body.status();
  }
  if (!set.ok()) {
    const std::string why(set.status().message());
    if (!stopped()) LogWarn("auth", "the key set could not be fetched; the last good one stays", {{"url", url}, {"reason", why}});
    return;
  }
  {
    std::lock_guard lock(mutex_);
    if (url_ != url) return;  // configured anew meanwhile
    fetched_ = true;
    fetched_keys_ = set->keys();
    if (!Merge()) return;
  }
  LogInfo("auth", "took a new key set", {{"url", url}, {"keys", std::to_string(set->keys().size())}});
  for (const std::string& why : passed_over) LogInfo("auth", "passed over a key of the set", {{"url", url}, {"reason", why}});
  changed_();
}

}  // namespace bulkhead
