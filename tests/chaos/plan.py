"""What will be done to whom and when, as a pure function of a seed: the same seed and length give the same plan on every machine."""

import collections
import random

# One thing that is done: `at` seconds after the begin, to the module of that number (of those that may be touched) and its worker of that
# number (modulo those that there are then), for `seconds` where it has a length.
Fault = collections.namedtuple("Fault", "at kind module worker seconds")

# kind: (seconds from one to the next on average, shortest and longest duration)
KINDS = {
    "kill": (2.0, (0, 0)),              # SIGKILL
    "term": (6.0, (0, 0)),              # SIGTERM, from nobody
    "stop": (6.0, (0.1, 6.0)),          # SIGSTOP, and SIGCONT when it is still there
    "exit": (8.0, (0, 0)),
    "abort": (10.0, (0, 0)),
    "hang": (6.0, (0.1, 5.0)),          # the loop that answers requests is blocked
    "unwell": (20.0, (0.5, 4.0)),       # Health says unhealthy
    "slow": (10.0, (0.5, 5.0)),
    "leak": (8.0, (0, 0)),              # memory, towards the module's limit
    "flood": (12.0, (0.2, 2.0)),        # of its log
    "fork": (8.0, (0, 0)),              # children that heed no signal
    "files": (20.0, (0.2, 2.0)),        # no descriptor is left
    "stubborn": (20.0, (2.0, 8.0)),     # the next Stop takes so long, and SIGTERM is ignored
    "switch": (5.0, (0.0, 2.0)),        # disable, and enable behind a while
    "configure": (4.0, (0, 0)),
    "restart": (10.0, (0, 0)),          # rolling; this and the next two where the daemon offers them
    "reload": (25.0, (0, 0)),
    "scale": (15.0, (0, 0)),            # to another number of workers
    "backend": (15.0, (0, 0)),          # SIGKILL to one server process of PostgreSQL, after which it restarts all of them
    "postmaster": (40.0, (0, 0)),       # SIGKILL to PostgreSQL itself
    "freeze": (35.0, (0.5, 4.0)),       # SIGSTOP to all of PostgreSQL
    "disk": (60.0, (3.0, 8.0)),         # slow writes
}
QUIET_END = 0.9  # of the time: behind it nothing new is begun, so that the last has an effect, too


def plan(seed, seconds, modules):
    """[Fault] in order of time; each kind at least once."""
    faults = []
    for kind, (mean_s, (shortest, longest)) in KINDS.items():
        chance = random.Random(f"{seed} {kind}")  # of its own, so that a new kind changes no other's times
        at = chance.uniform(0, min(mean_s, 0.8 * QUIET_END * seconds))
        while at < QUIET_END * seconds:
            faults.append(Fault(round(at, 3), kind, chance.randrange(modules), chance.randrange(64), round(chance.uniform(shortest, longest), 3)))
            at += chance.expovariate(1 / mean_s)
    return sorted(faults)


def client_chance(seed, number):
    """The dice of one client."""
    return random.Random(f"{seed} client {number}")
