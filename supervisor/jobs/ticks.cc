// What comes of time, of the Directory and of the database: ticks, heartbeats.
#include <set>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/jobs_on_loop.h"

namespace bulkhead {
namespace {

constexpr Millis kPoll{1'000};            // looks for runs that have become due, and that another node queued or gave up
constexpr Millis kClockCheck{60'000};     // the longest sleep towards a tick: the wall clock may have been set meanwhile
constexpr Millis kTickRetry{1'000};       // between two tries to write a tick, or to begin, while the database is away
constexpr Millis kHousekeeping{10'000};   // between two counts of what waits, and looks at the history of a job

}  // namespace

void JobsOnLoop::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  directory_ = std::move(directory);
  const auto catching_up = schedule_.Adopt(*directory_, clock_.Wall());
  // A claim that is under way is checked against this directory when it comes back.
  adopted();
  Place();
  if (!begun_ || stopping_) return;
  for (const JobKey& key : catching_up) CatchUp(key);
  ArmTicks();
  Claim();
}

void JobsOnLoop::Begin() {
  store_.Call(
      [](RunStore& store) { return store.ReleaseOwn(); },
      [this](absl::StatusOr<int> released) {
        if (stopping_) return;
        if (!released.ok()) {
          LogWarn("jobs", "jobs wait for the database", {{"error", std::string(released.status().message())}});
          tick_timer_ = loop_.After(kTickRetry, [this] { Begin(); });
          return;
        }
        if (*released > 0)
          LogWarn("jobs", "runs that an earlier life of this node left were released", {{"runs", std::to_string(*released)}});
        begun_ = true;
        for (const auto& [key, job] : schedule_.jobs()) CatchUp(key);
        Listen();
        Heartbeat();
        ArmTicks();
        Poll();
      });
}

void JobsOnLoop::ArmTicks() {
  loop_.Cancel(std::exchange(tick_timer_, 0));
  if (!begun_ || stopping_) return;
  Millis delay = kClockCheck;
  if (auto due = schedule_.NextDue()) {
    delay = std::clamp(std::chrono::ceil<Millis>(*due - clock_.Wall()), Millis(0), kClockCheck);
  } else if (unwritten_ticks_.empty()) {
    return;
  }
  if (!unwritten_ticks_.empty()) delay = std::min(delay, kTickRetry);
  tick_timer_ = loop_.After(delay, [this] {
    tick_timer_ = 0;
    TickNow();
  });
}

void JobsOnLoop::TickNow() {
  for (const auto& [key, tick] : std::exchange(unwritten_ticks_, {})) InsertTick(tick);
  std::map<JobKey, std::shared_ptr<std::vector<Tick>>> due;
  for (Tick& tick : schedule_.TakeDue(clock_.Wall())) {
    auto& ticks = due[tick.key];
    if (!ticks) ticks = std::make_shared<std::vector<Tick>>();
    ticks->push_back(std::move(tick));
  }
  for (const auto& [key, ticks] : due) InsertTicks(ticks, 0);
  ArmTicks();
}

void JobsOnLoop::InsertTick(const Tick& tick, std::function<void()> then) {
  store_.Call([tick](RunStore& store) { return store.InsertTick(tick.key.first, tick.spec, tick.slot, tick.made_up_for); },
              [this, tick, then = std::move(then)](absl::StatusOr<std::optional<RunView>> inserted) {
                if (inserted.ok()) {
                  if (*inserted && (*inserted)->status == RunStatus::kSkipped) RunEnded(**inserted);
                  Queued(tick.key, *inserted && !tick.made_up_for ? tick.spec.overlap : Overlap::kSkip);
                  if (then) then();
                  return;
                }
                LogWarn(
                    "jobs", "a tick is not written yet",
                    {{"module", tick.key.first}, {"job", tick.key.second}, {"error", std::string(inserted.status().message())}});
                if (tick.made_up_for) {  // all are wanted, so none stands for another
                  loop_.After(kTickRetry, store_.GuardedWith<>([this, tick, then] { InsertTick(tick, then); }));
                  return;
                }
                auto [kept, fresh] = unwritten_ticks_.try_emplace(tick.key, tick);
                if (!fresh && kept->second.slot < tick.slot) kept->second = tick;
                ArmTicks();
              });
}

// One after another, so that they wait in their order.
void JobsOnLoop::InsertTicks(std::shared_ptr<std::vector<Tick>> ticks, size_t next) {
  if (next >= ticks->size() || stopping_) return;
  const Tick tick = (*ticks)[next];
  InsertTick(tick, [this, ticks = std::move(ticks), next] { InsertTicks(ticks, next + 1); });
}

void JobsOnLoop::CatchUp(const JobKey& key) {
  const Schedule::Job* job = schedule_.Find(key);
  if (job == nullptr || job->spec->catch_up == "none") return;
  store_.Call([key](RunStore& store) { return store.LastSlot(key.first, key.second); },
              [this, key](absl::StatusOr<std::optional<WallTime>> last) {
                if (!last.ok() || !*last) return;  // never ran: nothing was missed
                InsertTicks(std::make_shared<std::vector<Tick>>(schedule_.Missed(key, **last, clock_.Wall())), 0);
              });
}

// A run of the job was queued.
void JobsOnLoop::Queued(const JobKey& key, Overlap overlap) {
  if (overlap == Overlap::kReplace) {
    runner_.CutJob(key, CutShort::kReplaced);
    GiveBack(ahead_.TakeJob(key));
  }
  Claim();
}

void JobsOnLoop::Poll() {
  poll_timer_ = 0;
  if (stopping_) return;
  Claim();
  CheckWaiters();
  CheckFollowed();
  poll_timer_ = loop_.After(kPoll, [this] { Poll(); });
}

void JobsOnLoop::Heartbeat() {
  loop_.Cancel(heartbeat_timer_);
  heartbeat_timer_ = loop_.After(limits::kRunHeartbeat, [this] { Heartbeat(); });
  runner_.Heartbeat([this] {
    if (stopping_) return;
    store_.Call([](RunStore& store) { return store.ReleaseExpired(); },
                [this](absl::StatusOr<int> released) {
                  if (!released.ok() || *released == 0) return;
                  LogInfo("jobs", "runs without an executor were released", {{"runs", std::to_string(*released)}});
                  Claim();
                });
  });
  if (!stopping_ && clock_.Now() - housekept_ >= kHousekeeping) Housekeep();
}

void JobsOnLoop::Housekeep() {
  housekept_ = clock_.Now();
  std::set<std::string> modules;
  for (const auto& [key, job] : schedule_.jobs()) modules.insert(key.first);
  if (modules.empty()) return;
  store_.Call([modules = std::vector<std::string>(modules.begin(), modules.end())](RunStore& store) { return store.CountBacklog(modules); },
              [](absl::Status) {});
  // What has grown too old, of one job after another.
  const size_t turn = static_cast<size_t>(housekept_.time_since_epoch() / kHousekeeping) % schedule_.jobs().size();
  const auto job = std::next(schedule_.jobs().begin(), static_cast<std::ptrdiff_t>(turn));
  store_.Call([module = job->first.first, spec = *job->second.spec](RunStore& store) { return store.Trim(module, spec); }, [](absl::Status) {});
}

// Others queue and cancel runs, too: modules in SQL, and other nodes.
void JobsOnLoop::Listen() {
  auto notified = store_.GuardedWith<bool>([this](bool cancelled) { Notified(cancelled); });
  const auto tell = [this, notified](bool cancelled) {
    // Any role may send one, as many as it likes: one at a time is on its way.
    if (!(cancelled ? told_cancelled_ : told_).exchange(true)) loop_.Post([notified, cancelled] { notified(cancelled); });
  };
  const auto connected = [tell] {
    tell(false);
    tell(true);
  };
  listener_ = std::make_unique<Notifications>(conninfo_, "bulkhead_runs", connected, [tell](const std::string& payload) { tell(payload == "cancel"); });
}

void JobsOnLoop::Notified(bool cancelled) {
  (cancelled ? told_cancelled_ : told_) = false;
  if (stopping_) return;
  if (!cancelled) return Claim();
  // The rows say whose runs are meant.
  if (runner_.size() > 0) runner_.Heartbeat([] {});
  // Those that wait here have begun by then, or are given back.
  if (ahead_.size() > 0) loop_.After(limits::kAheadPatience, store_.GuardedWith<>([this] { runner_.Heartbeat([] {}); }));
}

}  // namespace bulkhead
