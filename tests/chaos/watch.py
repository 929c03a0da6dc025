"""Looks at the daemon while it is troubled: what its API says of the modules is what /proc shows, and it answers at all."""

import http.client
import threading
import time

import harness
from faults import programs, state
from harness import SLOW

LOOK_S = 0.5
AGREES_WITHIN_S = 5 * SLOW      # of a change, in a process, what the API says of it
ENDED_WITHIN_S = 30 * SLOW      # a stopped process is continued by its fault, or ended for liveness: Health misses thrice, Stop, SIGTERM, the kill
ANSWERS_WITHIN_S = 20 * SLOW    # the API, whatever goes on; it is told from memory, so the database may hang meanwhile
LISTED = {200, 503}
HEAL = {"QUARANTINED", "FAILED", "STOPPED"}
HEAL_AFTER_S = 3.0


class Watch:
    """A thread of its own. heal(name) is called for a module that has been out of order for a while."""

    def __init__(self, daemon, record, touched, heal):
        self.daemon, self.record, self.touched, self.heal = daemon, record, touched, heal
        self._suspect = {}   # (what, module, pid): since when
        self._sick = {}      # module: since when
        self._done = threading.Event()
        self._healers = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self):
        self._done.set()
        self._thread.join()
        for healer in self._healers:
            healer.join()

    def _run(self):
        while not self._done.wait(LOOK_S):
            try:
                self._look()
            except (OSError, http.client.HTTPException) as error:
                self.record.check("the API answers", False, repr(error))

    def _look(self):
        health = self.daemon.get("/healthz", token=None, timeout=ANSWERS_WITHIN_S)
        self.record.check("/healthz is 200", health.status == 200, str(health))
        answer = self.daemon.get("/api/v1/modules?pageSize=100", timeout=ANSWERS_WITHIN_S)
        self.record.check("the API answers", answer.status in LISTED, str(answer))
        self.record.check("the daemon runs", self.daemon.running(), "it has ended")
        if answer.status != 200:
            return
        running, now = programs(self.daemon), time.monotonic()
        found = {}
        for module in answer.data:
            found.update(self._disagreements(module, running.get(module["name"], set())))
        # What is no longer so is forgotten; what goes on for too long is broken, and told once.
        self._suspect = {key: self._suspect.get(key, now) for key in found}
        for key, since in self._suspect.items():
            within, sentence = found[key]
            if since is not None and now - since > within:
                self.record.check("the API says what /proc shows", False, sentence)
                self._suspect[key] = None
        self.record.check("the API says what /proc shows", True)
        self._heal_what_is_sick(answer.data, now)

    @staticmethod
    def _disagreements(module, pids):
        """{(what, module, pid): (for how long that may be, sentence)} as of now."""
        name, observed, found = module["name"], module["observed"]["state"], {}
        ready = [worker for worker in module["workers"] if worker["state"] in ("RUNNING", "DEGRADED")]
        for worker in ready:
            if worker["pid"] not in pids:
                found["gone", name, worker["pid"]] = (AGREES_WITHIN_S, f"{name}: {worker} is no process of its program; those are {sorted(pids)}")
        if observed in ("RUNNING", "DEGRADED") and not ready:
            found["none", name, 0] = (AGREES_WITHIN_S, f"{name} is {observed} without a worker: {module['workers']}")
        if observed in ("STOPPED", "SKIPPED"):
            for pid in pids:
                found["left", name, pid] = (AGREES_WITHIN_S, f"{name} is {observed} and {harness.describe((pid, 0))} runs")
        for pid in pids:
            if state(pid) == "T":
                found["stopped", name, pid] = (ENDED_WITHIN_S, f"{name}: {harness.describe((pid, 0))} has been stopped all the time and nobody ends it")
        return found

    def _heal_what_is_sick(self, modules, now):
        sick = {module["name"] for module in modules if module["name"] in self.touched and module["observed"]["state"] in HEAL}
        self._sick = {name: self._sick.get(name, now) for name in sick}
        for name, since in list(self._sick.items()):
            if now - since > HEAL_AFTER_S:
                self._sick[name] = now
                self._healers.append(threading.Thread(target=self._try_to_heal, args=(name,), daemon=True))
                self._healers[-1].start()

    def _try_to_heal(self, name):
        try:
            self.heal(name)
        except (OSError, http.client.HTTPException) as error:
            self.record.check("the API answers", False, f"healing {name}: {error!r}")
