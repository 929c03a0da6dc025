#include "supervisor/telemetry/tracer.h"

#include <curl/curl.h>

#include <algorithm>
#include <cmath>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr std::string_view kTracesPath = "/v1/traces";
constexpr Millis kComplaintInterval{60'000};  // between two lines about a collector that does not answer

std::string TracesUrl(std::string endpoint) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint.ends_with(kTracesPath) ? endpoint : endpoint + std::string(kTracesPath);
}

uint64_t Threshold(double ratio) { return ratio >= 1 ? UINT64_MAX : ratio <= 0 ? 0 : uint64_t(std::ldexp(ratio, 64)); }

}  // namespace

// One connection to the collector, kept between exports. Belongs to the thread.
class Tracer::Post {
 public:
  struct Answer {
    int status = 0;  // 0: none
    std::string body, why;
    Millis retry_after{0};
  };

  explicit Post(const OtlpSettings& settings) {
    static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    if (ready) curl_ = curl_easy_init();
    headers_ = curl_slist_append(headers_, "Content-Type: application/x-protobuf");
    headers_ = curl_slist_append(headers_, "Expect:");
    for (const auto& [name, value] : settings.headers) headers_ = curl_slist_append(headers_, (name + ": " + value).c_str());
    if (curl_ == nullptr) return;
    Set(CURLOPT_URL, TracesUrl(settings.endpoint).c_str());
    Set(CURLOPT_PROTOCOLS_STR, "http,https");
    Set(CURLOPT_HTTPHEADER, headers_);
    Set(CURLOPT_NOSIGNAL, 1L);
    Set(CURLOPT_USERAGENT, "bulkhead");
    Set(CURLOPT_WRITEFUNCTION, &Post::Receive);
    Set(CURLOPT_WRITEDATA, static_cast<void*>(this));
    Set(CURLOPT_ERRORBUFFER, static_cast<char*>(why_));
  }
  ~Post() {
    if (curl_ != nullptr) curl_easy_cleanup(curl_);
    curl_slist_free_all(headers_);
  }
  Post(const Post&) = delete;

  // `stopped` is asked about once a second, and more often while bytes move; true breaks it off.
  Answer Send(const std::string& body, Millis timeout, const std::function<bool()>& stopped) {
    if (curl_ == nullptr) return {0, "", "libcurl is not usable", Millis(0)};
    answer_.clear();
    why_[0] = '\0';
    Set(CURLOPT_POSTFIELDS, body.data());
    Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    Set(CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<int64_t>(timeout.count(), 1)));
    Set(CURLOPT_NOPROGRESS, 0L);
    Set(CURLOPT_XFERINFOFUNCTION, &Post::Ask);
    Set(CURLOPT_XFERINFODATA, const_cast<void*>(static_cast<const void*>(&stopped)));
    const CURLcode code = curl_easy_perform(curl_);
    Answer answer;
    if (code != CURLE_OK) {
      answer.why = why_[0] != '\0' ? why_ : curl_easy_strerror(code);
      return answer;
    }
    long status = 0;
    curl_off_t retry_after = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(curl_, CURLINFO_RETRY_AFTER, &retry_after);
    answer.status = static_cast<int>(status);
    answer.body = std::move(answer_);
    answer.why = "HTTP status " + std::to_string(status);
    answer.retry_after = std::min(Millis(std::min<int64_t>(retry_after, 3'600) * 1'000), limits::kMaxExportBackoff);
    return answer;
  }

 private:
  template <typename Value>
  void Set(CURLoption option, Value value) {
    curl_easy_setopt(curl_, option, value);
  }
  static size_t Receive(char* data, size_t, size_t size, void* user) {
    auto& answer = static_cast<Post*>(user)->answer_;
    answer.append(data, std::min(size, limits::kMaxExportAnswer - std::min(answer.size(), limits::kMaxExportAnswer)));
    return size;
  }
  static int Ask(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return (*static_cast<const std::function<bool()>*>(user))() ? 1 : 0; }

  CURL* curl_ = nullptr;
  curl_slist* headers_ = nullptr;
  std::string answer_;
  char why_[CURL_ERROR_SIZE] = "";
};

Tracer::Tracer(OtlpSettings settings, OtlpResource resource, const Clock& clock)
    : settings_(std::move(settings)),
      resource_(std::move(resource)),
      clock_(clock),
      exports_(!settings_.endpoint.empty()),
      all_(settings_.sample_ratio >= 1),
      threshold_(Threshold(settings_.sample_ratio)) {
  if (exports_) thread_ = std::thread([this] { Run(); });
}

Tracer::~Tracer() { Stop(Millis(0)); }

TraceContext Tracer::Begin(const TraceContext& parent, Random& random) const {
  TraceContext context = ChildOf(parent, random);
  if (!parent.valid()) context.sampled = !exports_ || all_ || context.trace_low < threshold_;
  return context;
}

void Tracer::Put(Span span) {
  std::lock_guard lock(mutex_);
  if (stopping_ || queue_.size() >= limits::kMaxQueuedSpans) {
    ++totals_.dropped;
    return;
  }
  queue_.push_back(std::move(span));
  if (queue_.size() == 1 || queue_.size() == limits::kMaxSpanBatch) wake_.notify_one();
}

void Tracer::Stop(Millis budget) {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    stop_at_ = clock_.Now() + budget;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Tracer::Totals Tracer::totals() const {
  std::lock_guard lock(mutex_);
  Totals totals = totals_;
  totals.waiting = queue_.size();
  return totals;
}

// A batch, as soon as it is full or its first span has waited long enough. Empty: it is time to end.
std::vector<Span> Tracer::Take() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
  wake_.wait_for(lock, limits::kSpanDelay, [this] { return stopping_ || queue_.size() >= limits::kMaxSpanBatch; });
  std::vector<Span> batch;
  while (!queue_.empty() && batch.size() < limits::kMaxSpanBatch) {
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

Millis Tracer::TimeLeft() const {
  std::lock_guard lock(mutex_);
  if (!stopping_) return limits::kExportTimeout;
  return std::clamp(std::chrono::duration_cast<Millis>(stop_at_ - clock_.Now()), Millis(0), limits::kExportTimeout);
}

void Tracer::Pause(Millis time) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, time, [this] { return stopping_; });
}

void Tracer::Run() {
  Post post(settings_);
  for (;;) {
    const std::vector<Span> batch = Take();
    if (batch.empty()) return;
    Export(post, batch);
  }
}

void Tracer::Export(Post& post, const std::vector<Span>& spans) {
  const std::string body = EncodeSpans(resource_, spans);
  auto count = [this](uint64_t Totals::*what, uint64_t by) {
    std::lock_guard lock(mutex_);
    totals_.*what += by;
  };
  std::string why = "the supervisor stops";
  for (int attempt = 1; TimeLeft() > Millis(0); ++attempt) {
    const Post::Answer answer = post.Send(body, TimeLeft(), [this] { return TimeLeft() <= Millis(0); });
    if (answer.status >= 200 && answer.status < 300) {
      const Rejected rejected = ReadAnswer(answer.body);
      const uint64_t refused = std::min<uint64_t>(uint64_t(rejected.spans), spans.size());
      count(&Totals::rejected, refused);
      return count(&Totals::exported, spans.size() - refused);
    }
    count(&Totals::failures, 1);
    why = answer.why;
    if (!WorthAnotherTry(answer.status) || attempt == limits::kMaxExportTries) break;
    const int64_t most = std::min((limits::kExportBackoff.count() << (attempt - 1)), limits::kMaxExportBackoff.count());
    Pause(answer.retry_after > Millis(0) ? answer.retry_after : Millis(int64_t(jitter_.Below(uint64_t(most) + 1))));
  }
  count(&Totals::dropped, spans.size());
  const Instant now = clock_.Now();
  if (complained_ != Instant{} && now - complained_ < kComplaintInterval) return;
  complained_ = now;
  LogWarn("telemetry", "spans are not exported", {{"reason", why}, {"spans", std::to_string(spans.size())}});
}

}  // namespace bulkhead
