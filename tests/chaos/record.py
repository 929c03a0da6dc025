"""What was seen: outcomes of requests, faults that were done, and invariants that were broken. Any thread may tell it."""

import collections
import pathlib
import re
import threading
import time

MAX_BROKEN = 100  # sentences that are kept; beyond they are counted

_ERRORS = pathlib.Path(__file__).resolve().parents[2] / "proto" / "ERRORS.md"
# {(status, code)} of the table that every client is promised.
DOCUMENTED = {(int(status), code) for code, status in re.findall(r"^\| `([A-Z_]+)` \| (\d{3}) \|", _ERRORS.read_text(), re.M)}


class Record:
    def __init__(self):
        self._lock = threading.Lock()
        self.outcomes = collections.Counter()  # (group, outcome)
        self.faults = collections.Counter()    # (kind, outcome)
        self.slowest_s = collections.Counter()  # of a group
        self.checks = collections.Counter()    # invariant: how often it was looked at
        self.broken, self.broken_count = [], 0
        self.began = time.monotonic()

    def outcome(self, group, outcome, took_s):
        with self._lock:
            self.outcomes[group, outcome] += 1
            self.slowest_s[group] = max(self.slowest_s[group], took_s)

    def fault(self, kind, outcome):
        with self._lock:
            self.faults[kind, outcome] += 1

    def check(self, invariant, holds, sentence=""):
        """Counts a look at an invariant; keeps the sentence when it does not hold. Answers whether it does."""
        with self._lock:
            self.checks[invariant] += 1
            if not holds:
                self.broken_count += 1
                if len(self.broken) < MAX_BROKEN:
                    self.broken.append(f"{time.monotonic() - self.began:7.2f} s  {invariant}: {sentence}")
        return holds


class Presence:
    """When a module may be away, as far as whoever switches it can know: there, changing, away."""

    def __init__(self):
        self._lock = threading.Lock()
        self._phases = [(time.monotonic(), "changing")]

    def set(self, phase):
        with self._lock:
            self._phases.append((time.monotonic(), phase))

    def during(self, begin, end):
        """{phase} of that time."""
        found = set()
        with self._lock:
            for at, phase in reversed(self._phases):
                if at <= end:
                    found.add(phase)
                if at <= begin:
                    break
        return found
