// Which runs this node claims, and which of them begins where.
#include <algorithm>
#include <set>
#include <utility>

#include "supervisor/base/log.h"
#include "supervisor/jobs/jobs_on_loop.h"

namespace bulkhead {
namespace {

template <typename Counts, typename Key>
int Count(const Counts& counts, const Key& key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0 : found->second;
}

int CountOfModule(const std::map<JobKey, int>& counts, const std::string& module) {
  int sum = 0;
  for (auto at = counts.lower_bound({module, ""}); at != counts.end() && at->first.first == module; ++at) sum += at->second;
  return sum;
}

struct Places {
  int all = 0, free = 0;
  std::vector<std::pair<int, std::string>> workers;  // the less loaded first
};

Places PlacesOf(const DirectoryModule& module, const std::map<std::string, int>& instances) {
  Places places;
  for (const DirectoryWorker& worker : module.workers) {
    const int busy = Count(instances, worker.instance);
    places.all += limits::kMaxRunsPerWorker;
    places.free += std::max(limits::kMaxRunsPerWorker - busy, 0);
    places.workers.emplace_back(busy, worker.instance);
  }
  std::sort(places.workers.begin(), places.workers.end());
  return places;
}

// One entry for each free place, so that nobody is given more than he takes; without one, the workers in turns.
std::vector<std::string> Plan(Places places, int runs) {
  std::vector<std::string> instances;
  for (bool more = true; std::exchange(more, false);) {
    for (auto& [busy, instance] : places.workers) {
      if (busy >= limits::kMaxRunsPerWorker || static_cast<int>(instances.size()) >= runs) continue;
      ++busy;
      instances.push_back(instance);
      more = true;
    }
  }
  if (instances.empty()) {
    for (const auto& [busy, instance] : places.workers) instances.push_back(instance);
  }
  return instances;
}

}  // namespace

std::vector<RunClaim> JobsOnLoop::Claimable(bool ahead_too) {
  const Runner::Load load = runner_.load(limits::kAheadTime);
  const int left = limits::kMaxRunsPerNode - runner_.Executing();
  std::vector<RunClaim> claims;
  for (const auto& [key, job] : schedule_.jobs()) {
    const Places places = PlacesOf(*job.module, load.instances);
    if (places.all == 0) continue;
    const Ahead::Queue& queue = ahead_.queue(key);
    const int waiting = static_cast<int>(queue.runs.size()), of_module = ahead_.WaitingOf(key.first);
    RunClaim claim{key.first, key.second, job.spec->concurrency};
    claim.capacity = std::min(places.all, claim.concurrency);
    claim.busy = Count(load.executing, key) + waiting;
    // A job that runs one at a time is RUNNING once at a time: what follows waits for the outcome to be written.
    if (claim.concurrency == 1) claim.busy += Count(load.unwritten, key);
    const int free = std::max(std::min({places.free - of_module, claim.capacity - claim.busy, left}), 0);
    if (ahead_too) {
      const int unheld = places.all - CountOfModule(load.slow, key.first);
      if (claim.concurrency > 1)
        claim.ahead = ahead_.Allowance(key, std::min(std::min(claim.capacity, queue.slots) - Count(load.slow, key), unheld));
      // Places that another job's runs take one after another would never be free for this one's.
      if (claim.ahead == 0 && free == 0 && of_module > 0 && waiting == 0 && unheld > 0 && claim.busy < claim.capacity) claim.ahead = 1;
    }
    if (free == 0 && waiting * 2 > claim.ahead) continue;  // enough for a while
    claim.wanted = free + std::max(claim.ahead - waiting, 0);
    if (claim.wanted == 0) continue;
    claim.instances = Plan(places, claim.wanted);
    claims.push_back(std::move(claim));
  }
  if (claims.size() > 1) std::rotate(claims.begin(), claims.begin() + static_cast<std::ptrdiff_t>(first_claim_++ % claims.size()), claims.end());
  return claims;
}

void JobsOnLoop::Claim() {
  if (!begun_ || stopping_) return;
  if (claiming_) {
    claim_again_ = true;
    return;
  }
  const int most = limits::kMaxClaimedRuns - static_cast<int>(runner_.size()) - ahead_.size();
  if (most <= 0) return;  // the next one to leave looks again
  std::vector<RunClaim> claims = Claimable(true);
  if (claims.empty()) return;
  claiming_ = true;
  claim_again_ = false;
  store_.Call([claims, most](RunStore& store) { return store.Claim(claims, most); },
              [this, claims, asked = clock_.Now()](absl::StatusOr<std::vector<ClaimedRun>> runs) { Claimed(std::move(runs), claims, asked); });
}

void JobsOnLoop::Claimed(absl::StatusOr<std::vector<ClaimedRun>> runs, const std::vector<RunClaim>& claims, Instant asked) {
  claiming_ = false;
  if (!runs.ok()) {
    if (!std::exchange(database_away_, true))
      LogWarn("jobs", "runs can't be claimed", {{"error", std::string(runs.status().message())}});
    return MaybeStopped();  // the next poll tries again
  }
  database_away_ = false;
  std::map<JobKey, int> claimed;
  for (ClaimedRun& run : *runs) {
    ++claimed[{run.view.module, run.view.job}];
    ahead_.Put(std::move(run), asked);
  }
  for (const RunClaim& claim : claims) ahead_.queue({claim.module, claim.job}).more = Count(claimed, JobKey(claim.module, claim.job)) >= claim.wanted;
  Place();
  if (claim_again_) Claim();
  MaybeStopped();
}

// A run has left its worker; many may have, before the loop comes round again.
void JobsOnLoop::Left(const JobKey& key, Instant::duration took) {
  ahead_.Took(key, took);
  if (std::exchange(placing_, true)) return;
  loop_.Post(store_.GuardedWith<>([this] {
    placing_ = false;
    Place();
    const auto& queues = ahead_.queues();
    if (std::any_of(queues.begin(), queues.end(), [](const auto& entry) { return entry.second.more; })) Claim();
  }));
}

// Begins what waits wherever a place is free, one of each job in turns, and gives back what nobody here can begin any more: the world may have moved
// on since it was claimed.
void JobsOnLoop::Place() {
  if (stopping_) return GiveBack(ahead_.TakeAll());
  std::vector<JobKey> orphans;
  std::set<std::shared_ptr<ControlPort>> begun;
  int places = runner_.Unwritten() < limits::kMaxUnwritten ? limits::kMaxRunsPerNode - runner_.Executing() : 0;
  for (bool more = true; std::exchange(more, false);) {
    for (const auto& [key, queue] : ahead_.queues()) {
      if (queue.runs.empty()) continue;
      const Schedule::Job* job = schedule_.Find(key);
      if (job == nullptr || job->module->workers.empty()) {
        orphans.push_back(key);
        continue;
      }
      if (places <= 0 || runner_.Executing(key) >= queue.slots) continue;
      const DirectoryWorker* worker = LeastLoaded(*job->module, queue.runs.front().run.view.worker);
      if (worker == nullptr) continue;
      Ahead::Waiting next = ahead_.Take(key);
      runner_.Launch(std::move(next.run), *job, *worker, next.leased);
      begun.insert(worker->control);
      --places;
      more = true;
    }
  }
  for (const auto& port : begun) port->Flush();
  for (const JobKey& key : orphans) GiveBack(ahead_.TakeJob(key));
  if (ahead_.size() > 0 && late_timer_ == 0) late_timer_ = loop_.After(limits::kAheadPatience, [this] { Late(); });
}

// One with a free place, `planned` where it is no worse than another.
const DirectoryWorker* JobsOnLoop::LeastLoaded(const DirectoryModule& module, const std::string& planned) const {
  const DirectoryWorker* best = nullptr;
  int least = limits::kMaxRunsPerWorker;
  for (const DirectoryWorker& worker : module.workers) {
    const int load = runner_.LoadOf(worker.instance);
    if (load > least || load >= limits::kMaxRunsPerWorker || (load == least && worker.instance != planned)) continue;
    best = &worker;
    least = load;
  }
  return best;
}

void JobsOnLoop::Late() {
  late_timer_ = 0;
  GiveBack(ahead_.TakeLate());
  if (ahead_.size() > 0) late_timer_ = loop_.After(limits::kAheadTime, [this] { Late(); });
}

void JobsOnLoop::GiveBack(const std::vector<ClaimedRun>& runs) {
  for (const ClaimedRun& run : runs) runner_.Return(run);
}

void JobsOnLoop::Vacated(Millis delay) {
  if (delay > Millis(0) && !stopping_) {
    loop_.After(delay, store_.GuardedWith<>([this] { Claim(); }));
  }
  Place();
  Claim();
  MaybeStopped();
}

}  // namespace bulkhead
