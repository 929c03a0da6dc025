// A node in simulated time: modules that depend on each other, their processes, and a Directory whose readers lag behind. It
// carries out what Step and graph.h ask for as the Reconciler does, badly, and after every event what Check() and the Require()s
// demand must hold. The first thing that is broken ends the world.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "supervisor/lifecycle/graph.h"
#include "supervisor/lifecycle/step.h"
#include "tests/sim/sim_module.h"
#include "tests/sim/tell.h"
#include "tests/sim/timeline.h"

namespace bulkhead::sim {

class Node {
 public:
  Node(uint64_t seed, bool told, Totals& totals) : random_(seed), seed_(seed), told_(told), totals_(totals) { ++totals_.worlds; }
  ~Node() { totals_.simulated += std::chrono::duration_cast<Millis>(timeline_.now() - began_); }

  SimModule& Add(std::unique_ptr<SimModule> module) {
    GraphNode& node = graph_[module->name];
    node.version = "1.0.0";
    for (const std::string& name : module->dependencies) node.dependencies.push_back({name, "^1.0.0"});
    modules_.push_back(std::move(module));
    return *modules_.back();
  }

  Random& random() { return random_; }
  Timeline& timeline() { return timeline_; }
  Instant now() const { return timeline_.now(); }
  const std::vector<std::unique_ptr<SimModule>>& modules() const { return modules_; }
  bool broken() const { return broken_; }
  void Tell(const std::string& what) const {
    if (told_) printf("%10lld ms  %s\n", static_cast<long long>(Ms(now() - began_)), what.c_str());
  }

  // What administrators command, refused where the real ones are; and what may happen at any time.
  void Enable(SimModule& m) {
    if (stopping_ || !UnsatisfiedDependencies(CurrentGraph(), m.name).empty()) return;
    bool retry = m.enabled && m.state.wanted;
    m.enabled = graph_.at(m.name).enabled = true;
    if (retry) return Retry(m);
    Want(m, true);
  }
  void Disable(SimModule& m) {
    if (stopping_ || !Dependents(CurrentGraph(), m.name, true).empty()) return;
    m.enabled = graph_.at(m.name).enabled = false;
    Want(m, false);
  }
  void Retry(SimModule& m) {
    SlateCleared(m);
    Send(m, event::Retry{});
  }
  // Some or all of its workers are to be replaced.
  void Restart(SimModule& m) {
    event::Restart restart;
    for (size_t i = 0; i < m.state.slots.size(); ++i)
      if (random_.Below(3) != 0) restart.slots.push_back(static_cast<int>(i));
    for (SimModule::Running& running : m.running) running.outdated = false;
    for (int slot : restart.slots) {
      SimModule::Running& running = m.running[static_cast<size_t>(slot)];
      running.outdated = running.process && !running.leaving;
    }
    Send(m, restart);
  }
  // Workers of another version, or of the same one after another, are to take over.
  void Replace(SimModule& m, bool at_once) {
    if (!m.state.wanted || m.skipped || stopping_ || m.state.replacement || m.state.prepare != ModuleState::Prepare::kDone) return;
    m.upgrading_to = at_once ? 1 + static_cast<int>(random_.Below(4)) : 0;
    m.upgrading_to_spare = random_.Below(3) == 0;
    if (!at_once) m.rolled = m.last_run;
    Send(m, event::Replace{at_once, m.upgrading_to});
  }
  void Scale(SimModule& m, int workers) {
    if (m.upgrading_to != 0) return;  // refused: the module is UPDATING
    m.workers = workers;
    if (m.state.wanted) Want(m, true);
  }
  void Skip(SimModule& m, bool skipped) {
    m.skipped = skipped;
    if (m.state.wanted) Want(m, true);
  }
  void CrashOne(SimModule& m) {
    if (m.running.empty()) return;
    SimModule::Running& running = m.running[random_.Below(m.running.size())];
    if (running.process) running.process->Crash();
  }
  void SetDatabaseAway(bool away) { database_away_ = away; }

  // Every module but `except` behaves from now on.
  void EndFaults(const SimModule* except) {
    database_away_ = false;
    faults_ = false;
    for (auto& m : modules_) {
      if (m.get() == except) continue;
      m->mood = Mood::kFaultless;
      for (SimModule::Running& running : m->running)
        if (running.process) running.process->Mend();
    }
  }

  void ShutDown(Millis budget) {
    Tell("shutdown within " + std::to_string(budget.count()) + " ms");
    ++totals_.shutdowns;
    stopping_ = true;
    time_left_.end = now() + budget;
    timeline_.At(*time_left_.end, [this] {
      for (auto& m : modules_) {
        if (m->state.wanted) Want(*m, false);
        for (SimModule::Running& running : m->running)
          if (running.process) running.process->Stop(Millis(0));
      }
    });
    for (auto& m : modules_) Send(*m, event::Close{});
    StopEligible();
  }
  bool stopping() const { return stopping_; }
  bool stopped() const { return stopped_; }

  // What a worker may report at any time, and news of a process that is long gone.
  void SendOddity(SimModule& m) {
    int slot = static_cast<int>(random_.Below(m.state.slots.size() + 1));
    uint64_t run = static_cast<size_t>(slot) < m.running.size() ? m.running[static_cast<size_t>(slot)].run : 1;
    switch (random_.Below(8)) {
      case 7:
        timeline_.After(m.times.health_interval, [this, &m, slot, run] { Send(m, event::WorkerReadiness{slot, run, true, ""}); });
        return Send(m, event::WorkerReadiness{slot, run, random_.Below(4) == 0, "simulated"});
      case 6: return Send(m, event::WorkerFloods{slot, run, "simulated"});
      case 0: return Send(m, event::WorkerAtFault{slot, run, "simulated"});
      case 1:
        timeline_.After(m.times.health_interval, [this, &m, slot, run] {
          Send(m, event::WorkerHealthChanged{slot, run, WorkerHealth::kHealthy, ""});
        });
        return Send(m, event::WorkerHealthChanged{slot, run, static_cast<WorkerHealth>(random_.Below(3)), "simulated"});
      case 2: return Send(m, event::WorkerReady{slot, random_.Below(run)});
      case 3: return Send(m, event::WorkerGone{slot, random_.Below(run)});
      case 4: return Send(m, event::WorkerDied{slot, random_.Below(run), ExitCause::kConfig, "simulated"});
      default: return Send(m, event::Tick{});
    }
  }

  void RunNext() {
    if (timeline_.idle()) CheckIdle();
    timeline_.RunNext();
  }
  void RunFor(Millis time) {
    Instant end = now() + time;
    while (!broken_ && timeline_.next() && *timeline_.next() <= end) RunNext();
    timeline_.AdvanceTo(end);
  }

  bool DependsOn(const SimModule& m, const SimModule& other) const {
    for (const std::string& name : m.dependencies) {
      if (name == other.name || DependsOn(Find(name), other)) return true;
    }
    return false;
  }

 private:
  static int64_t Ms(Instant::duration time) { return std::chrono::duration_cast<Millis>(time).count(); }
  SimModule& Find(const std::string& name) const {
    for (auto& m : modules_)
      if (m->name == name) return *m;
    abort();
  }

  void Require(const SimModule& m, bool holds, const char* what) {
    if (holds || broken_) return;
    broken_ = true;
    ADD_FAILURE() << what << ": module " << m.name << " at " << Ms(now() - began_) << " ms of world " << seed_
                  << "; replay it with --seed=" << seed_;
  }

  // --- As the Reconciler does ---

  const Graph& CurrentGraph() {
    for (auto& m : modules_) {
      Standing& standing = graph_.at(m->name).standing;
      standing = StandingOf(m->state);
      standing.present = standing.present || m->publishing > 0;
    }
    return graph_;
  }

  void Want(SimModule& m, bool enabled) {
    event::Want want{enabled, m.skipped, ++generation_, m.workers, m.warm_spare};
    if (want.enabled && !want.skipped && !(m.state.wanted && !m.state.skipped)) {
      SlateCleared(m);
      m.prepared = false;
      m.overtaken = m.preparing;
    }
    Send(m, want);
  }
  // A place for each seat that Step may speak of.
  static void MakeRoom(SimModule& m) {
    if (m.running.size() < m.state.slots.size()) m.running.resize(m.state.slots.size());
    while (m.laws.size() < m.running.size()) m.laws.emplace_back(m.state.policy);
  }

  void Send(SimModule& m, const Event& event) {
    if (broken_) return;
    ++totals_.events;
    Note(m, event);
    std::vector<Action> actions = Step(m.state, event, now());
    Record(m, event, actions);
    MakeRoom(m);
    bool publish = false, report = false;
    std::vector<Action> replaced;
    std::vector<action::DrainWorker> drains;
    for (const Action& action : actions) {
      if (std::holds_alternative<action::Prepare>(action)) {
        bool at_once = m.preparation_failed && now() < *m.preparation_failed + Millis(100);
        Require(m, !at_once, "a preparation is tried again at once");
        m.preparation_failed.reset();
        m.preparation_law.Started(now());
        AskToPrepare(m);
      } else if (auto* start = std::get_if<action::StartWorker>(&action)) {
        StartWorker(m, *start);
      } else if (auto* stop = std::get_if<action::StopWorker>(&action)) {
        StopWorker(m, stop->slot, stop->run);
      } else if (std::holds_alternative<action::Publish>(action)) {
        publish = true;
      } else if (auto* drain = std::get_if<action::DrainWorker>(&action)) {
        Require(m, publish, "a drain without a publication before it");
        Require(m, m.MayLeave(drain->slot), "a worker is drained that nobody wants to leave");
        const auto drained = static_cast<size_t>(drain->slot);
        if (m.state.wanted && !m.skipped && (m.IsMember(drained) || (m.IsSpare(drained) && m.running[drained].outdated)))
          Require(m, m.OthersServeOrWait(drain->slot), "a worker is replaced while another one is on its way");
        m.running[static_cast<size_t>(drain->slot)].leaving = true;
        drains.push_back(*drain);
      } else if (auto* wake = std::get_if<action::Wake>(&action)) {
        Require(m, wake->at > now(), "a wake-up in the past would spin");
        timeline_.At(wake->at, [this, &m, id = ++m.wake] {
          if (id == m.wake) Send(m, event::Tick{});
        });
      } else if (std::holds_alternative<action::Report>(action)) {
        report = true;
      } else {
        replaced.push_back(action);
        if (std::holds_alternative<action::ReplaceDone>(action) && m.upgrading_to != 0) {
          // Before anything is looked at: from now on it is that version.
          ++totals_.upgrades;
          m.workers = std::exchange(m.upgrading_to, 0);
          m.warm_spare = m.upgrading_to_spare;
          ++m.versions;
          m.prepared = true;
          m.overtaken = m.awaiting = false;
          m.preparation_failed.reset();
          m.preparation_law.SlateCleared();
          for (size_t i = 0; i < m.state.slots.size(); ++i) {
            m.running[i].incoming = false;
            if (m.IsMember(i)) Require(m, SimModule::Serves(m.running[i]), "a version takes over before all its workers are ready");
          }
        }
      }
    }
    for (size_t i = 0; i < m.state.slots.size(); ++i) {
      if (m.IsMember(i) || m.IsSpare(i)) m.running[i].incoming = false;
    }
    if (publish) Publish(m, std::move(drains));
    if (report) timeline_.Post([this] { LookAround(); });
    Check(m);
    for (const Action& action : replaced) Replaced(m, action);
  }

  void Replaced(SimModule& m, const Action& action) {
    if (std::holds_alternative<action::SuccessorsReady>(action)) {
      // It is stored first, which may fail.
      timeline_.After(Between(random_, Millis(1), Millis(500)), [this, &m] {
        if (random_.Below(8) == 0) return Send(m, event::KeepOld{{"DATABASE_UNAVAILABLE", "simulated"}});
        Send(m, event::TakeOver{Millis(random_.Below(2) * 30'000), m.upgrading_to_spare});
      });
    } else if (std::holds_alternative<action::ReplaceFailed>(action)) {
      totals_.upgrades_failed += m.upgrading_to != 0;
      m.upgrading_to = 0;
    } else if (std::holds_alternative<action::SoakFailed>(action)) {
      ++totals_.rollbacks;
      timeline_.Post([this, &m] { Replace(m, true); });
    }
  }

  // What is said of a worker that serves.
  void Note(SimModule& m, const Event& event) {
    auto serving = [&m](int slot, uint64_t run) -> SimModule::Running* {
      if (static_cast<size_t>(slot) >= m.running.size()) return nullptr;
      SimModule::Running& running = m.running[static_cast<size_t>(slot)];
      return running.run == run && SimModule::Serves(running) ? &running : nullptr;
    };
    if (auto* health = std::get_if<event::WorkerHealthChanged>(&event)) {
      if (auto* running = serving(health->slot, health->run)) running->well = health->health == WorkerHealth::kHealthy;
    } else if (auto* readiness = std::get_if<event::WorkerReadiness>(&event)) {
      if (auto* running = serving(readiness->slot, readiness->run)) running->unready = !readiness->ready;
    } else if (auto* fault = std::get_if<event::WorkerAtFault>(&event)) {
      if (auto* running = serving(fault->slot, fault->run)) running->at_fault = now();
    } else if (auto* flood = std::get_if<event::WorkerFloods>(&event)) {
      if (auto* running = serving(flood->slot, flood->run)) running->flooded = now();
    }
  }

  void AskToPrepare(SimModule& m) {
    m.awaiting = true;
    m.prepared = false;
    DependencyVerdict verdict = JudgeDependencies(CurrentGraph(), m.name);
    if (verdict.what == DependencyVerdict::What::kWait) return;
    m.awaiting = false;
    if (verdict.what == DependencyVerdict::What::kStart) return Prepare(m);
    ++totals_.blocked;
    timeline_.Post([this, &m, reason = verdict.reason] { Send(m, event::Prepared{false, false, reason}); });
  }

  void Prepare(SimModule& m) {
    Require(m, !m.preparing, "two preparations at once");
    Require(m, m.state.wanted && !m.skipped && !stopping_, "a preparation of what nobody wants");
    for (const std::string& name : m.dependencies) {
      ObservedState observed = Find(name).state.observed;
      Require(m, observed == ObservedState::kRunning || observed == ObservedState::kDegraded,
              "a preparation before what it depends on runs");
    }
    m.preparing = true;
    bool slow = faults_ && random_.Below(20) == 0;
    timeline_.After(Between(random_, Millis(2), slow ? Millis(300'000) : Millis(500)), [this, &m, version = m.versions] {
      m.preparing = false;
      if (m.versions != version) return Send(m, event::Prepared{true});  // of one that has been replaced
      bool overtaken = std::exchange(m.overtaken, false);
      if (database_away_) {
        ++totals_.database_away;
        m.preparation_failed = now();
        m.preparation_law.Exited(now(), ExitCause::kExit, Millis(0));
        return Send(m, event::Prepared{false, true, {"DATABASE_UNAVAILABLE", "simulated"}});
      }
      if (faults_ && random_.Below(20) == 0) return Send(m, event::Prepared{false, false, {"MIGRATION_FAILED", "simulated"}});
      m.prepared = !overtaken;
      if (m.prepared) m.preparation_law.SlateCleared();
      Send(m, event::Prepared{true});
    });
  }

  void StartWorker(SimModule& m, const action::StartWorker& start) {
    const int slot = start.slot;
    const uint64_t run = start.run;
    SimModule::Running& running = m.running[static_cast<size_t>(slot)];
    const bool spare = m.IsSpare(static_cast<size_t>(slot)), member = m.IsMember(static_cast<size_t>(slot)) || spare;
    Require(m, !running.process, "a second process in one slot");
    const int numbers = m.workers + m.warm_spare;
    Require(m, m.state.wanted && !m.skipped && (member ? start.number < numbers : m.state.replacement.has_value()), "a worker is started that nobody wants");
    Require(m, !spare || m.SpareMayStart(static_cast<size_t>(slot)), "a spare is started before or instead of a worker, or beside one of its number");
    totals_.spares += spare;
    Require(m, m.prepared || start.incoming, "a worker is started before the preparation is done");
    Require(m, start.incoming == (!member && m.upgrading_to != 0), "a worker is started of the wrong version");
    if (!member) m.laws[static_cast<size_t>(slot)].SlateCleared();
    Require(m, !stopping_, "a worker is started during the shutdown");
    Require(m, run > m.last_run, "a run number is used twice");
    const char* wrong = m.laws[static_cast<size_t>(slot)].Started(now());
    Require(m, *wrong == 0, wrong);
    m.last_run = run;
    ++m.starts;
    ++totals_.starts;
    Process::Callbacks callbacks;
    callbacks.ready = [this, &m, slot, run] {
      m.running[static_cast<size_t>(slot)].ready_since = now();
      Send(m, event::WorkerReady{slot, run});
    };
    callbacks.died = [this, &m, slot, run](ExitCause cause) { Died(m, slot, run, cause); };
    callbacks.gone = [this, &m, slot, run] {
      m.running[static_cast<size_t>(slot)].process.reset();
      Send(m, event::WorkerGone{slot, run});
    };
    callbacks.health = [this, &m, slot, run](WorkerHealth health) {
      Send(m, event::WorkerHealthChanged{slot, run, health, "simulated"});
    };
    running = {run, std::make_shared<Process>(timeline_, m.times, Fate::Draw(m.mood, random_), std::move(callbacks))};
    running.incoming = !member;
    running.process->Start();
  }

  void Died(SimModule& m, int slot, uint64_t run, ExitCause cause) {
    SimModule::Running& running = m.running[static_cast<size_t>(slot)];
    RestartLaw& law = m.laws[static_cast<size_t>(slot)];
    auto is_quarantined = [&m, slot] { return m.state.slots[static_cast<size_t>(slot)].backoff.quarantined(); };
    bool quarantined = is_quarantined();
    const bool orderly = cause == ExitCause::kExit && random_.Below(3) == 0;
    const bool incoming = running.incoming;
    if (!running.leaving && !incoming) {
      ++totals_.exits;
      bool was_ready = running.ready_since != Instant();
      law.Exited(now(), cause, was_ready ? std::chrono::duration_cast<Millis>(now() - running.ready_since) : Millis(0), orderly);
      totals_.parked += law.parked();
    } else {
      totals_.killed += cause == ExitCause::kSignal;
    }
    const uint64_t standby = m.listed.contains(run) ? m.Standby() : 0;
    Send(m, event::WorkerDied{slot, run, cause, "simulated", "", "", orderly});
    Require(m, standby == 0 || m.listed.contains(standby), "a worker is lost, and the spare that is ready does not serve at once");
    totals_.taken_over += standby != 0;
    Require(m, is_quarantined() || !quarantined || law.after_healthy_spell(), "a quarantine ends without a healthy spell");
    if (!is_quarantined() || quarantined) return;
    ++totals_.quarantines;
    Require(m, law.MayBeQuarantined(now()), "a quarantine comes too early");
  }

  void Publish(SimModule& m, std::vector<action::DrainWorker> drains) {
    m.routed = Routed(m.state);
    m.told_to_wait = StartsNow(m.state);
    m.listed.clear();
    m.standby.clear();
    for (size_t i = 0; m.routed && i < m.state.slots.size(); ++i) {
      if (Listed(m.state.slots[i])) m.listed.insert(m.running[i].run);
      if (StandsBy(m.state.slots[i])) m.standby.insert(m.running[i].run);
    }
    ++m.publishing;
    // Readers adopt one Directory after the other.
    adopted_at_ = std::max(adopted_at_, now() + Millis(random_.Below(4)));
    timeline_.At(adopted_at_, [this, &m, listed = m.listed, standby = m.standby, drains = std::move(drains)] {
      m.adopted = listed;
      m.adopted.insert(standby.begin(), standby.end());
      --m.publishing;
      for (const action::DrainWorker& drain : drains) Drain(m, drain);
      StopEligible();
    });
  }

  void Drain(SimModule& m, const action::DrainWorker& drain) {
    const SimModule::Running& running = m.running[static_cast<size_t>(drain.slot)];
    if (!running.process || running.run != drain.run) return;
    Require(m, !m.adopted.contains(drain.run), "a worker is drained that readers still list");
    Millis limit = time_left_.ToDrain(m.times.drain, now());
    Millis takes = random_.Below(4) == 0 ? Between(random_, Millis(1), Millis(60'000)) : Millis(1);
    auto drained = [this, &m, drain] { Send(m, event::WorkerDrained{drain.slot, drain.run}); };
    timeline_.After(std::min(takes, limit), drained);
    if (takes > limit) timeline_.After(takes, drained);  // too late
  }

  void StopWorker(SimModule& m, int slot, uint64_t run) {
    SimModule::Running& running = m.running[static_cast<size_t>(slot)];
    Require(m, running.process && running.run == run, "a stop of what is not there");
    Require(m, !running.stop_asked, "a worker is stopped twice");
    Require(m, !m.listed.contains(run) && !m.standby.contains(run) && !m.adopted.contains(run), "a worker is stopped that readers still list");
    Require(m, running.leaving || m.MayLeave(slot), "a worker is stopped that nobody wants to leave");
    if (broken_) return;
    running.leaving = running.stop_asked = true;
    running.process->Stop(time_left_.ToStop(m.times.stop + limits::kTermGrace, now()));
  }

  // After a report: those that wait for others look again.
  void LookAround() {
    if (broken_) return;
    for (auto& m : modules_)
      if (m->awaiting) AskToPrepare(*m);
    for (const std::string& name : Unblocked(CurrentGraph())) Retry(Find(name));
    StopEligible();
  }

  void StopEligible() {
    if (!stopping_ || stopped_) return;
    for (const std::string& name : StopNext(CurrentGraph())) {
      const SimModule& m = Find(name);
      for (auto& other : modules_)
        Require(m, !DependsOn(*other, m) || !other->AnyProcess(), "a module is stopped before those that depend on it");
      Want(Find(name), false);
    }
    stopped_ = NothingLeft(CurrentGraph());
    for (auto& m : modules_)
      Require(*m, !stopped_ || (!m->AnyProcess() && m->adopted.empty()), "the shutdown ends before all is gone");
  }

  // --- What must hold ---

  void SlateCleared(SimModule& m) {
    m.preparation_failed.reset();
    m.preparation_law.SlateCleared();
    for (RestartLaw& law : m.laws) law.SlateCleared();
  }

  // After every event.
  void Check(SimModule& m) {
    for (size_t i = 0; i < m.running.size(); ++i) {
      const SimModule::Running& running = m.running[i];
      const bool ready = SimModule::Serves(running) && !running.unready;
      if (m.listed.contains(running.run)) Require(m, ready, "the Directory lists a worker that is not ready");
      else Require(m, !ready || !m.routed || !m.IsMember(i), "the Directory lacks a worker that is ready");
      Require(m, m.standby.contains(running.run) == (ready && m.routed && m.IsSpare(i)), "the Directory does not say rightly who stands by");
    }
    const std::vector<size_t> members = m.Members();
    if (m.state.wanted && !m.skipped) {
      std::set<int> numbers;
      for (size_t i : members) numbers.insert(m.state.slots[i].number);
      const std::vector<size_t> spares = m.Spares();
      for (size_t i : spares) numbers.insert(m.state.slots[i].number);
      const size_t seats = static_cast<size_t>(m.workers) + m.warm_spare;
      Require(m, members.size() == static_cast<size_t>(m.workers), "there is not one member for each worker that is wanted");
      Require(m, spares.size() == m.warm_spare, "there is not one spare where one is wanted");
      Require(m, numbers.size() == seats && *numbers.begin() == 0 && *numbers.rbegin() == static_cast<int>(seats) - 1, "a number is missing or is there twice");
      Require(m, m.Standby() == 0 || m.AllServe(), "a spare is ready while a worker is missing");
    }
    bool complete = m.state.wanted && !m.skipped && m.state.prepare != ModuleState::Prepare::kFailed;
    for (size_t n = 0; complete && n < members.size(); ++n) {
      const SimModule::Running& running = m.running[members[n]];
      bool at_fault = running.at_fault && now() < *running.at_fault + limits::kFaultMemory;
      bool flooded = running.flooded && now() < *running.flooded + limits::kFloodMemory;
      complete = SimModule::Serves(running) && running.well && !running.unready && !at_fault && !flooded;
    }
    Require(m, complete == (m.state.observed == ObservedState::kRunning),
            complete ? "it is not RUNNING although every worker is ready and well"
                     : "it is RUNNING although a worker is not ready, unwell or at fault");
    CheckWaiting(m);
    if (!m.state.wanted || m.skipped) Require(m, !m.routed, "routes of a module that nobody wants");
    Require(m, m.told_to_wait == StartsNow(m.state), "requests wait, or are refused, by what was true before");
    for (size_t i = 0; i < m.laws.size(); ++i) {
      if (i >= m.state.slots.size() || m.state.slots[i].role == SlotState::Role::kFree) m.laws[i].SlateCleared();
    }
  }

  // QUARANTINED and BACKOFF are observed when nothing serves or starts, and only a wait beyond the burst is why: of a slot, the slow one of a
  // quarantine first, or of the preparation.
  void CheckWaiting(const SimModule& m) {
    int serving = 0, starting = 0, waiting = 0, quarantined = 0, parked = 0;
    for (size_t i : m.Members()) {
      if (!m.state.wanted) break;
      const SimModule::Running& running = m.running[i];
      serving += SimModule::Serves(running);
      starting += running.process && running.process->starting();
      parked += m.laws[i].parked();
      waiting += m.laws[i].waits();
      quarantined += m.laws[i].waits() && m.state.slots[i].backoff.quarantined();
    }
    const bool wants = m.state.wanted && !m.skipped && !m.state.closing && m.state.prepare != ModuleState::Prepare::kFailed && serving == 0;
    const bool idle = wants && starting + parked == 0;
    const bool unprepared = wants && m.preparation_law.waits();
    const bool slow = idle && quarantined > 0 && !unprepared, backs_off = unprepared || (idle && waiting > 0 && quarantined == 0);
    const ObservedState observed = m.state.observed;
    Require(m, slow == (observed == ObservedState::kQuarantined),
            slow ? "it is not QUARANTINED although nothing else is left of it" : "it is QUARANTINED although no slot is, or something serves or starts");
    Require(m, backs_off == (observed == ObservedState::kBackoff),
            backs_off ? "it is not in BACKOFF although all waits" : "it is in BACKOFF although nothing waits beyond the burst, or something serves or starts");
    totals_.quarantined += slow;
    totals_.backed_off += backs_off;
  }

  // Before time advances: all that is due has happened.
  void CheckIdle() {
    if (stopping_) return;
    for (auto& m : modules_) {
      Require(*m, !m->awaiting || JudgeDependencies(CurrentGraph(), m->name).what == DependencyVerdict::What::kWait,
              "it waits for what it depends on, although that is settled");
      if (!m->state.wanted || m->skipped || m->preparing || m->awaiting) continue;
      const RestartPolicy& policy = m->state.policy;
      if (m->preparation_failed) {
        Require(*m, now() < *m->preparation_failed + policy.cap, "a preparation is not tried again");
      }
      if (!m->prepared) continue;
      for (size_t i : m->Members()) {
        if (m->running[i].process) continue;
        Require(*m, now() < m->laws[i].DueBy(m->state.slots[i].backoff.quarantined()), "a slot stays empty");
      }
      for (size_t i : m->Spares()) {
        if (m->running[i].process || !m->SpareMayStart(i)) continue;
        Require(*m, now() < m->laws[i].DueBy(m->state.slots[i].backoff.quarantined()), "there is no spare although nothing stands against it");
      }
    }
  }

  void Record(const SimModule& m, const Event& event, const std::vector<Action>& actions) {
    for (uint64_t part : {static_cast<uint64_t>(Ms(now() - began_)), static_cast<uint64_t>(event.index()),
                          static_cast<uint64_t>(m.name[0]), static_cast<uint64_t>(m.state.observed), actions.size()}) {
      totals_.fingerprint = (totals_.fingerprint ^ part) * 1099511628211u;
    }
    if (told_)
      Tell(m.name + "  " + Describe(event) + "  ->  " + std::string(ObservedStateName(m.state.observed)) + Describe(actions));
  }

  Random random_;
  const uint64_t seed_;
  const bool told_;
  Totals& totals_;
  Timeline timeline_;
  const Instant began_ = timeline_.now();
  std::vector<std::unique_ptr<SimModule>> modules_;
  Graph graph_;
  int64_t generation_ = 0;
  Instant adopted_at_{};
  bool database_away_ = false, faults_ = true, stopping_ = false, stopped_ = false, broken_ = false;
  TimeLeft time_left_;
};

}  // namespace bulkhead::sim
