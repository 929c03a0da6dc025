"""The cache of modules the whole way: two workers of fakes/cacher share what they set, an invalidation reaches both before it is answered, another
module sees nothing of it, and the metrics tell. Once with the cache of one node alone, and once with a real Redis behind it, which two nodes share and
which is killed, hangs and comes back empty."""

import concurrent.futures
import os
import signal
import subprocess
import time

import harness
import own_redis
from harness import SLOW, DaemonTest, SharedDaemonTest, copies, wait_until
from own_server import OwnServer

MODULES = harness.BUILD / "tests" / "cache" / "modules"
LEASE_S = 2  # limits::kCacheLease
GRACE_S = 10 * SLOW  # for a machine with other work; a worker that hangs is killed only later
HAMMER_MS = 1500
REDIS_WAIT_S = 1.0  # for any call while Redis is away: twice limits::kCacheRedisPatience, a request, and a machine with other work


class Cacher:
    """A module of the test's, whose answers name their worker."""

    def __init__(self, daemon, name="cacher"):
        self.daemon, self.name, self.path = daemon, name, f"/api/v1/m/{name}"

    def ask(self, method, path, body=None):
        answer = self.daemon.request(method, f"{self.path}/{path}", body)
        if answer.status != 200:
            raise AssertionError(f"{method} {path}: {answer}")
        return answer.data

    def on(self, slot, method, path, body=None):
        """The same, asked until that worker has answered. For what may be asked more than once."""
        return wait_until(lambda: (lambda data: data if data["slot"] == slot else None)(self.ask(method, path, body)), f"an answer of worker {slot}")

    def get(self, key, slot=None):
        data = self.ask("GET", f"get/{key}") if slot is None else self.on(slot, "GET", f"get/{key}")
        return data["value"] if data["known"] else "(miss)"

    def set(self, key, value, slot=None, **options):
        body = {"value": value, **options}
        return self.ask("PUT", f"set/{key}", body) if slot is None else self.on(slot, "PUT", f"set/{key}", body)

    def load(self, key, value, **options):
        return self.ask("POST", f"load/{key}", {"value": value, **options})

    def invalidate(self, **names):
        return self.ask("POST", "invalidate", names)

    def everywhere(self, key):
        return [self.get(key, slot) for slot in (0, 1)]

    def metrics(self):
        return self.daemon.get("/api/v1/system/metrics").json["modules"][self.name]


class TwoWorkers(SharedDaemonTest):
    options = {"modules": ["cacher"], "modules_dir": MODULES}

    @property
    def cacher(self):
        return Cacher(self.daemon)

    def test_what_one_worker_sets_the_other_gets(self):
        self.cacher.set("shared", "by the first", slot=0)
        self.assertEqual(self.cacher.everywhere("shared"), ["by the first"] * 2)
        self.cacher.set("shared", "by the second", slot=1)
        self.assertEqual(self.cacher.everywhere("shared"), ["by the second"] * 2)

    def test_an_invalidation_reaches_the_memory_of_both_workers_before_it_is_answered(self):
        for names in ({"keys": ["a"]}, {"tags": ["red"]}, {"all": True}):
            self.cacher.set("a", "value", tags=["red", "round"])
            for _ in range(3):
                self.assertEqual(self.cacher.everywhere("a"), ["value"] * 2)
            self.cacher.invalidate(**names)
            self.assertEqual(self.cacher.everywhere("a"), ["(miss)"] * 2, names)

    def test_a_loader_runs_once_for_all_and_what_it_throws_is_not_remembered(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.cacher.load("once", "loaded", ms=300), range(8)))
        self.assertEqual({answer["value"] for answer in answers}, {"loaded"})
        self.assertLessEqual(sum(answer["loads"] for answer in answers), 2, "one for each worker")
        failed = self.daemon.post("/api/v1/m/cacher/load/failing", {"fail": True})
        self.assertEqual((failed.status, failed.error["code"]), (502, "SOURCE_AWAY"))
        again = self.cacher.load("failing", "well again")
        self.assertEqual((again["loads"], again["value"]), (1, "well again"))

    def test_that_there_is_nothing_is_remembered_for_its_own_time(self):
        self.assertEqual(self.cacher.load("absent", None, negativeTtl=60_000)["loads"], 1)
        self.assertEqual({self.cacher.load("absent", "there now")["value"] for _ in range(6)}, {None})
        self.cacher.set("brief", None, negativeTtl=200)
        wait_until(lambda: self.cacher.get("brief") == "(miss)", "the end of what was not there")

    def test_nobody_is_told_what_was_invalidated_before_he_asked(self):
        """Both workers read as fast as they can while one of them changes the truth and invalidates it."""
        key = f"hammer-{time.monotonic_ns()}"
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(self.cacher.ask, "POST", "hammer", {"key": key, "ms": HAMMER_MS * SLOW, "write": n == 0}) for n in range(4)]
            answers = [run.result() for run in runs]
        self.assertEqual({answer["slot"] for answer in answers}, {0, 1}, "both were to be asked")
        self.assertEqual([answer["stale"] for answer in answers], [0] * 4, answers)
        self.assertGreater(sum(answer["writes"] for answer in answers), 20, answers)

    def test_the_metrics_tell_hits_and_misses_of_each_level(self):
        self.cacher.set("counted", "value")
        for _ in range(40):
            self.cacher.get("counted")
        self.cacher.get("missing")

        def told():
            cache = self.cacher.metrics()["cache"]
            return cache if cache["levelOne"]["hits"] > 10 and cache["levelTwo"]["misses"] > 0 else None

        cache = wait_until(told, "the workers' counts", 20 * SLOW)
        self.assertGreater(self.cacher.metrics()["cacheHitRate"], 0)
        self.assertTrue(0 < cache["levelOne"]["hitRate"] <= 100 and cache["levelOne"]["bytes"] > 0 and cache["levelOne"]["entries"] > 0, cache)
        self.assertTrue(cache["levelTwo"]["bytes"] > 0 and cache["levelTwo"]["entries"] > 0, cache)
        page = self.daemon.get("/metrics").body.decode()
        for sample in ('bulkhead_cache_lookups_total{module="cacher",result="hit"}', 'bulkhead_cache_lookups_total{module="cacher",result="miss"}',
                       'bulkhead_cache_sets_total{module="cacher",outcome="stored"}', 'bulkhead_cache_bytes{module="cacher"}',
                       'bulkhead_worker_cache_lookups_total{module="cacher",worker="0",result="memory"}', "bulkhead_cache_limit_bytes"):
            self.assertIn(sample, page)


class Lives(DaemonTest):
    options = {}

    def test_modules_do_not_see_each_others_and_a_bound_of_the_configuration_holds(self):
        folder = self.temporary_folder() / "modules"
        names = copies(MODULES / "cacher", ["left", "right"], folder)
        daemon = self.daemon(modules=names, modules_dir=folder, config="cache:\n  maxBytes: 4MiB\n  maxBytesPerModule: 1MiB\n", **self.options)
        left, right = Cacher(daemon, "left"), Cacher(daemon, "right")
        left.set("key", "of the left")
        self.assertEqual(right.everywhere("key"), ["(miss)"] * 2)
        right.set("key", "of the right")
        right.invalidate(all=True)
        self.assertEqual(left.everywhere("key"), ["of the left"] * 2)
        for number in range(20):
            left.set(f"large-{number}", "x" * 100_000)
        level = left.metrics()["cache"]["levelTwo"]
        self.assertLessEqual(level["bytes"], 1 << 20)
        self.assertGreater(level["evictions"], 5)

    def test_a_module_that_is_enabled_again_finds_nothing_and_one_whose_worker_crashed_finds_all(self):
        daemon = self.daemon(modules=["cacher"], modules_dir=MODULES, **self.options)
        cacher = Cacher(daemon)
        cacher.set("key", "value")
        self.assertEqual(cacher.everywhere("key"), ["value"] * 2)
        for worker in daemon.module("cacher")["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda: [w["restarts"] for w in daemon.module("cacher")["workers"]] == [1, 1], "both workers anew")
        daemon.wait_observed("cacher", "RUNNING")
        self.assertEqual(cacher.everywhere("key"), ["value"] * 2)
        self.assertEqual(daemon.post("/api/v1/modules/cacher/disable").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/cacher/enable").status, 200)
        self.assertEqual(cacher.everywhere("key"), ["(miss)"] * 2)

    def test_an_invalidation_waits_for_a_worker_that_hangs_no_longer_than_for_its_lease(self):
        daemon = self.daemon(modules=["cacher"], modules_dir=MODULES, **self.options)
        cacher = Cacher(daemon)
        cacher.set("key", "old")
        for _ in range(5):
            self.assertEqual(cacher.everywhere("key"), ["old"] * 2)
        pid = next(worker["pid"] for worker in daemon.module("cacher")["workers"] if worker["slot"] == 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                # Some go to the worker that hangs, and are answered when it goes on.
                runs = [pool.submit(cacher.invalidate, keys=["key"]) for _ in range(4)]
                done = concurrent.futures.wait(runs, timeout=LEASE_S + GRACE_S, return_when=concurrent.futures.FIRST_COMPLETED).done
                os.kill(pid, signal.SIGCONT)
                for run in runs:
                    run.result()
            self.assertTrue(done, "no invalidation was answered while the worker hung")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(cacher.everywhere("key"), ["(miss)"] * 2)


class TwoNodes(DaemonTest):
    options = {}

    def setUp(self):
        super().setUp()
        self.server = OwnServer()
        self.one = self.daemon(modules=["cacher"], modules_dir=MODULES, config=f"store:\n  url: {self.server.url}\n", **self.options)
        self.one.stop()
        # The other one has the same secrets and packages, as two machines of a cluster would.
        folder = self.temporary_folder()
        subprocess.run(["cp", "-a", f"{self.one.data}", f"{folder}/data"], check=True)
        (folder / "bulkhead.yaml").write_text(self.one.config_path.read_text())
        self.one.start()
        self.two = self.daemon(folder=folder, modules_dir=MODULES, **self.options)

    def after_explaining(self):
        super().after_explaining()
        if hasattr(self, "server"):
            self.server.remove()


class TwoNodesAlone(TwoNodes):
    def test_each_node_has_a_cache_of_its_own_and_an_invalidation_reaches_both(self):
        one, two = Cacher(self.one), Cacher(self.two)
        for names in ({"keys": ["key"]}, {"tags": ["tag"]}, {"all": True}):
            one.load("key", "of the first", tags=["tag"])
            two.load("key", "of the second", tags=["tag"])
            self.assertEqual(one.everywhere("key"), ["of the first"] * 2)
            self.assertEqual(two.everywhere("key"), ["of the second"] * 2)
            one.invalidate(**names)
            self.assertEqual(one.everywhere("key"), ["(miss)"] * 2)
            wait_until(lambda: two.everywhere("key") == ["(miss)"] * 2, f"the other node hears of {names}")
        two.load("key", "old")
        one.set("key", "new")
        wait_until(lambda: two.everywhere("key") == ["(miss)"] * 2, "the other node drops what was set anew here")
        self.assertEqual(one.everywhere("key"), ["new"] * 2)


class TwoWorkersByRedis(own_redis.ByRedis, TwoWorkers):
    part = "cache"

    def test_what_is_set_is_in_redis_and_what_is_invalidated_is_not(self):
        values = lambda: self.redis.cli("KEYS", "bulkhead:cache:*in-redis")  # noqa: E731
        wait_until(lambda: self.cacher.set("in-redis", "value", tags=["tag"]) and values() == "*1", "the value in Redis")
        wait_until(lambda: self.cacher.invalidate(keys=["in-redis"]) and values() == "*0", "no value in Redis")


class LivesByRedis(own_redis.ByRedis, Lives):
    part = "cache"

    def cache_health(self, daemon):
        return daemon.get("/api/v1/system/modules").json["details"]["cache"]["status"]

    def test_a_supervisor_that_starts_again_finds_what_was_there(self):
        daemon = self.daemon(modules=["cacher"], modules_dir=MODULES, **self.options)
        cacher = Cacher(daemon)
        # Anew, since a Redis that is slow on a busy machine may be left out for a moment.
        wait_until(lambda: cacher.set("kept", "value") and self.redis.cli("KEYS", "bulkhead:cache:*kept") == "*1", "the value in Redis")
        daemon.stop()
        daemon.start()
        wait_until(lambda: self.cache_health(daemon) == "up", "Redis to be used")
        wait_until(lambda: cacher.everywhere("kept") == ["value"] * 2, "the value of the last life")
        cache = wait_until(lambda: (lambda c: c if c["redis"]["hits"] > 0 else None)(cacher.metrics()["cache"]), "a hit in Redis")
        self.assertGreater(cache["redis"]["hitRate"], 0)
        page = daemon.get("/metrics").body.decode()
        for sample in ("bulkhead_cache_redis_up 1", 'bulkhead_cache_lookups_total{module="cacher",result="redis"}', "bulkhead_cache_redis_commands_total",
                       "bulkhead_cache_redis_seconds_total", "bulkhead_cache_redis_failures_total", "bulkhead_cache_redis_left_out_total"):
            self.assertIn(sample, page)

    def test_a_redis_that_is_killed_or_hangs_holds_up_nobody_and_brings_nothing_old_back(self):
        daemon = self.daemon(modules=["cacher"], modules_dir=MODULES, **self.options)
        cacher = Cacher(daemon)
        wait_until(lambda: self.cache_health(daemon) == "up", "Redis to be used")
        for fault, back in ((self.redis.kill, self.redis.start), (self.redis.hang, self.redis.go_on)):
            cacher.set("key", "old")
            cacher.set("left", "old")
            fault()
            took = []
            try:
                for n in range(20):
                    for call in (lambda: cacher.get(f"unknown-{n}"), lambda: cacher.load(f"loaded-{n}", "v"), lambda: cacher.set("left", f"new-{n}"),
                                 lambda: cacher.invalidate(keys=["key"])):
                        begun = time.monotonic()
                        call()
                        took.append(time.monotonic() - begun)
                self.assertEqual(cacher.everywhere("key"), ["(miss)"] * 2)
                self.assertEqual(cacher.everywhere("left"), ["new-19"] * 2)
                wait_until(lambda: self.cache_health(daemon) == "degraded", "the loss to be shown")
                self.assertEqual(daemon.get("/api/v1/system/modules").json["status"], "degraded")
                self.assertIn("bulkhead_cache_redis_up 0", daemon.get("/metrics").body.decode())
            finally:
                back()
            took.sort()
            self.assertLess(took[-1], REDIS_WAIT_S * SLOW, took)
            wait_until(lambda: self.cache_health(daemon) == "up", "Redis to be back")
            self.assertEqual(cacher.everywhere("key"), ["(miss)"] * 2)
            self.assertEqual(cacher.everywhere("left"), ["new-19"] * 2)
        self.assertGreaterEqual(daemon.log().count("Redis is back"), 2)
        self.assertNotIn(own_redis.PASSWORD, daemon.log())

    def test_a_supervisor_that_dies_while_redis_lacks_something_finds_nothing_old(self):
        daemon = self.daemon(modules=["cacher"], modules_dir=MODULES, **self.options)
        cacher = Cacher(daemon)
        wait_until(lambda: self.cache_health(daemon) == "up", "Redis to be used")
        cacher.set("key", "old")
        self.redis.hang()
        try:
            cacher.invalidate(keys=["key"])
            daemon.kill()
        finally:
            self.redis.go_on()
        daemon.start()
        wait_until(lambda: self.cache_health(daemon) == "up", "Redis to be used")
        self.assertEqual(cacher.everywhere("key"), ["(miss)"] * 2)


class TwoNodesByRedis(own_redis.ByRedis, TwoNodes):
    part = "cache"

    def up(self):
        for daemon in (self.one, self.two):
            wait_until(lambda: daemon.get("/api/v1/system/modules").json["details"]["cache"]["status"] == "up", "Redis to be used")  # noqa: B023

    def shared(self, puts, looks, expected):
        """Put anew until it is found, since a Redis that is slow on a busy machine may be left out for a moment."""
        def found():
            puts()
            return looks() == expected
        wait_until(found, f"{expected} on the other node")

    def test_what_one_node_sets_the_other_finds_and_what_it_invalidates_is_gone_there(self):
        one, two = Cacher(self.one), Cacher(self.two)
        self.up()
        for names in ({"keys": ["key"]}, {"tags": ["tag"]}, {"all": True}):
            self.shared(lambda: one.set("key", "of the first", tags=["tag"]), lambda: two.everywhere("key"), ["of the first"] * 2)
            two.invalidate(**names)
            self.assertEqual(two.everywhere("key"), ["(miss)"] * 2)
            wait_until(lambda: one.everywhere("key") == ["(miss)"] * 2, f"the first node hears of {names}")
        keys = (f"loaded-{n}" for n in range(10_000))
        key = [""]

        def load():
            key[0] = next(keys)
            two.load(key[0], "by the second")

        self.shared(load, lambda: one.get(key[0]), "by the second")
        self.shared(lambda: two.set("nothing", None, negativeTtl=60_000), lambda: one.everywhere("nothing"), [None] * 2)

    def test_nothing_old_comes_back_from_a_redis_that_was_killed_or_has_hung(self):
        one, two = Cacher(self.one), Cacher(self.two)
        for fault, back in ((self.redis.hang, self.redis.go_on), (self.redis.kill, self.redis.start)):
            self.up()
            self.shared(lambda: (one.set("key", "old"), one.set("gone", "old")), lambda: two.everywhere("key") + two.everywhere("gone"), ["old"] * 4)
            fault()
            try:
                one.set("key", "new")
                one.invalidate(keys=["gone"])
                self.assertEqual(one.everywhere("key") + one.everywhere("gone"), ["new"] * 2 + ["(miss)"] * 2)
                wait_until(lambda: "old" not in two.everywhere("key") + two.everywhere("gone"), "the other node to hear of it")
            finally:
                back()
            self.up()
            for _ in range(10):
                found = [*one.everywhere("key"), *two.everywhere("key"), *one.everywhere("gone"), *two.everywhere("gone")]
                self.assertNotIn("old", found)
            self.shared(lambda: two.set("key", "newest"), lambda: one.everywhere("key"), ["newest"] * 2)


if __name__ == "__main__":
    harness.main()
