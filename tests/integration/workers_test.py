"""How many workers a module has: set while it runs, kept, and followed by its database role."""

import os
import pathlib
import shutil
import signal
import threading
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, DaemonTest, SharedDaemonTest, wait_until
from modules_test import echo_like
from upgrade_test import Load

MODULE = "many"
PATH = f"/api/v1/modules/{MODULE}/workers"
CONFIG = {"config": {"schema": {"greeting": {"type": "string", "default": "first"}}}}


class Workers(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()
        echo_like(self.modules, MODULE, workers=2)

    def begin(self, **options):
        return self.daemon(modules=[MODULE], modules_dir=self.modules, **options)

    def scale(self, daemon, workers, **options):
        answer = daemon.put(PATH, {"workers": workers}, **options)
        self.assertEqual(answer.status, 200, answer)
        return answer.data

    @staticmethod
    def pids(module):
        return [worker["pid"] for worker in module["workers"]]

    def test_more_are_started_and_fewer_drained_without_a_lost_request(self):
        daemon = self.begin()
        first = daemon.module(MODULE)
        self.assertEqual(first["desired"] | {"generation": 0}, {"state": "ENABLED", "generation": 0, "workers": 2, "workersOverride": None})
        statuses, done = set(), threading.Event()

        def ask(path):
            while not done.is_set():
                statuses.add(daemon.get(f"/api/v1/m/{MODULE}{path}").status)

        clients = [threading.Thread(target=ask, args=(path,)) for path in ("/echo", "/echo", "/slow?ms=50", "/slow?ms=200")]
        for client in clients:
            client.start()
        try:
            four = self.scale(daemon, 4)
            self.assertEqual((len(four["workers"]), four["observed"]["state"], four["desired"]["workersOverride"]), (4, "RUNNING", 4))
            self.assertEqual(self.pids(four)[:2], self.pids(first), "those that served are left alone")
            self.assertEqual(four["desired"]["generation"], first["desired"]["generation"] + 1)
            one = self.scale(daemon, 1)
            self.assertEqual(self.pids(one), self.pids(first)[:1])
            two = self.scale(daemon, None)
            self.assertEqual((len(two["workers"]), two["desired"]["workers"], two["desired"]["workersOverride"]), (2, 2, None))
        finally:
            done.set()
            for client in clients:
                client.join()
        self.assertEqual(statuses, {200})
        self.assertEqual(daemon.module(MODULE)["exitCounts"], {}, "an end that was asked for is no crash")

    def test_it_is_kept_over_a_restart_and_while_the_module_is_disabled(self):
        daemon = self.begin()
        self.scale(daemon, 3)
        daemon.stop()
        daemon.start()
        self.assertEqual(len(daemon.module(MODULE)["workers"]), 3)
        self.assertEqual(daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
        self.assertEqual(self.scale(daemon, 1)["desired"]["workers"], 1)
        self.assertEqual(daemon.post(f"/api/v1/modules/{MODULE}/enable").status, 200)
        self.assertEqual(len(daemon.module(MODULE)["workers"]), 1)

    def test_one_that_does_not_come_up_does_not_stop_the_others_and_the_wait_tells_that_it_goes_on(self):
        daemon = self.begin()
        pids = self.pids(daemon.module(MODULE))
        program = next(pathlib.Path(daemon.data / "versions" / MODULE).glob("*/bin/" + MODULE))
        text = program.read_bytes()
        program.chmod(0o755)
        os.rename(program, str(program) + ".kept")
        program.write_text("#!/bin/sh\nexit 3\n")
        program.chmod(0o755)
        try:
            answer = daemon.put(f"{PATH}?wait=500ms", {"workers": 3})
            self.assertEqual((answer.status, answer.json["meta"]["converged"]), (202, False), answer)
            module = wait_until(lambda: (lambda m: m if m["exitCounts"].get("HANDSHAKE", 0) > 2 else None)(daemon.module(MODULE)), "some failed starts")
            self.assertEqual((module["observed"]["state"], self.pids(module)[:2]), ("DEGRADED", pids))
            self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/echo").status, 200)
        finally:
            os.replace(str(program) + ".kept", program)
        self.assertEqual(program.read_bytes(), text)
        answer = daemon.post(f"/api/v1/modules/{MODULE}/reset")
        self.assertEqual(answer.status, 200, answer)
        wait_until(lambda: daemon.module(MODULE)["observed"]["state"] == "RUNNING", "three workers", CONVERGE_TIMEOUT_S)

    def test_its_database_role_may_have_as_many_connections_as_its_workers_need(self):
        echo_like(self.modules, "stored", database={})
        (self.modules / "stored" / "migrations").mkdir()
        daemon = self.daemon(modules=["stored"], modules_dir=self.modules)

        def limit():
            return int(daemon.sql("SELECT rolconnlimit FROM pg_roles JOIN bulkhead_internal.module_roles ON role = rolname WHERE module = 'stored'")[0][0])

        self.assertEqual(limit(), 4)
        self.assertEqual(daemon.put("/api/v1/modules/stored/workers", {"workers": 3}).status, 200)
        self.assertEqual(limit(), 12)
        self.assertEqual(daemon.put("/api/v1/modules/stored/workers", {"workers": 2}).status, 200)
        wait_until(lambda: limit() == 8, "the limit for two workers")


class WarmSpare(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()

    def begin(self, **manifest):
        folder = echo_like(self.modules, MODULE, warmSpare=True, **CONFIG, **manifest)
        if "database" in manifest:
            (folder / "migrations").mkdir()
        return self.daemon(modules=[MODULE], modules_dir=self.modules)

    @staticmethod
    def wait_for_spare(daemon, workers=1, other_than=()):
        """(pids of those that serve, pid of the spare), when all are as they should be."""
        def ready():
            module = daemon.module(MODULE)
            serving = [worker for worker in module["workers"] if not worker["spare"]]
            spares = [worker for worker in module["workers"] if worker["spare"]]
            well = all(worker["state"] == "RUNNING" for worker in module["workers"]) and all(worker["ready"] for worker in serving)
            if (len(serving), len(spares)) != (workers, 1) or not well or spares[0]["pid"] in other_than:
                return None
            return [worker["pid"] for worker in serving], spares[0]["pid"]
        return wait_until(ready, "a spare", CONVERGE_TIMEOUT_S)

    def wait_gone(self, pids):
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the end of the others")

    def test_takes_the_place_of_the_only_worker_under_load_and_is_followed_by_another(self):
        daemon = self.begin()
        module = daemon.module(MODULE)
        self.assertEqual((module["desired"]["workers"], module["observed"]["state"]), (1, "RUNNING"))
        (serving,), spare = self.wait_for_spare(daemon)
        self.assertEqual([worker["ready"] for worker in daemon.module(MODULE)["workers"]], [True, False], "it is sent nothing")
        page = daemon.get("/metrics").body.decode().splitlines()
        for line in (f'bulkhead_worker_spare{{module="{MODULE}",worker="0"}} 0', f'bulkhead_worker_spare{{module="{MODULE}",worker="1"}} 1',
                     f'bulkhead_module_workers{{module="{MODULE}",state="RUNNING"}} 1'):
            self.assertIn(line, page)
        self.assertEqual(daemon.get("/api/v1/system/metrics").json["modules"][MODULE]["readyWorkers"], 1)
        seen = {serving, spare}
        with Load(daemon, f"/api/v1/m/{MODULE}/config/greeting") as load:
            for _ in range(3):
                before = load.answered
                os.kill(serving, signal.SIGKILL)
                (now_serving,), next_spare = self.wait_for_spare(daemon, other_than=seen)
                self.assertEqual(now_serving, spare, "who was the spare serves")
                wait_until(lambda: load.answered > before + 100, "answers")
                serving, spare = now_serving, next_spare
                seen.add(spare)
        self.assertEqual(load.failures, [])
        module = daemon.module(MODULE)
        self.assertEqual((module["observed"]["state"], module["exitCounts"]), ("RUNNING", {"SIGNAL": 3}))
        self.assertEqual(sorted(worker["slot"] for worker in module["workers"]), [0, 1])
        self.assertNotIn(f"DEGRADED  module={MODULE}", daemon.log())
        daemon.stop()
        daemon.assert_nothing_left()

    def test_a_frozen_worker_is_ended_for_it_and_the_spare_serves(self):
        daemon = self.begin(health={"interval": 100, "timeout": 200, "liveness": {"failureThreshold": 2}})
        (serving,), spare = self.wait_for_spare(daemon)
        os.kill(serving, signal.SIGSTOP)
        (now_serving,), _next = self.wait_for_spare(daemon, other_than={serving, spare})
        self.assertEqual(now_serving, spare)
        self.assertEqual(daemon.module(MODULE)["exitCounts"], {"LIVENESS": 1})

    def test_that_is_killed_is_replaced_and_nobody_notices(self):
        daemon = self.begin()
        (serving,), spare = self.wait_for_spare(daemon)
        since = daemon.module(MODULE)["observed"]["since"]
        with Load(daemon, f"/api/v1/m/{MODULE}/config/greeting") as load:
            os.kill(spare, signal.SIGKILL)
            self.assertEqual(self.wait_for_spare(daemon, other_than={spare})[0], [serving])
        self.assertEqual(load.failures, [])
        self.assertEqual(daemon.module(MODULE)["observed"]["since"], since)

    def test_is_there_beside_more_and_fewer_workers_and_its_role_may_have_its_connections(self):
        daemon = self.begin(database={})

        def limit():
            return int(daemon.sql(f"SELECT rolconnlimit FROM pg_roles JOIN bulkhead_internal.module_roles ON role = rolname WHERE module = '{MODULE}'")[0][0])

        first = self.wait_for_spare(daemon)
        self.assertEqual(limit(), 8)
        with Load(daemon, f"/api/v1/m/{MODULE}/config/greeting") as load:
            answer = daemon.put(PATH, {"workers": 3})
            self.assertEqual(answer.status, 200, answer)
            three, spare = self.wait_for_spare(daemon, 3)
            self.assertLessEqual({first[0][0], first[1]}, set(three), "the spare serves at once")
            self.assertEqual(limit(), 16)
            os.kill(three[0], signal.SIGKILL)
            self.wait_for_spare(daemon, 3, other_than={spare})
            self.assertEqual(daemon.put(PATH, {"workers": 1}).status, 200)
            one, spare = self.wait_for_spare(daemon)
            wait_until(lambda: limit() == 8, "the limit for one and its spare")
            os.kill(one[0], signal.SIGKILL)
            self.assertEqual(self.wait_for_spare(daemon, other_than={spare})[0], [spare])
        self.assertEqual(load.failures, [])

    def test_goes_with_its_version_and_a_restart_and_a_reload_replace_it_as_well(self):
        daemon = self.begin(version="1.0.0", lifecycle={"soakTime": 0})
        old = self.wait_for_spare(daemon)
        elsewhere = self.temporary_folder()
        config = {"config": {"schema": {"greeting": {"type": "string", "default": "second"}}}}
        echo_like(elsewhere, MODULE, version="2.0.0", warmSpare=True, **config)
        with Load(daemon, f"/api/v1/m/{MODULE}/config/greeting") as load:
            answer = daemon.post(f"/api/v1/modules/{MODULE}/upgrade", {"path": str(elsewhere / MODULE)})
            self.assertEqual(answer.status, 200, answer)
            gone = {old[0][0], old[1]}
            new = self.wait_for_spare(daemon, other_than=gone)
            self.wait_gone(gone)
            self.assertEqual({worker["version"] for worker in daemon.module(MODULE)["workers"]}, {"2.0.0"})
            for action in ("restart", "reload"):
                answer = daemon.post(f"/api/v1/modules/{MODULE}/{action}")
                self.assertEqual(answer.status, 200, answer)
                gone = {new[0][0], new[1]}
                self.wait_gone(gone)
                new = self.wait_for_spare(daemon, other_than=gone)
                self.assertFalse(gone & {new[0][0], new[1]})
        self.assertEqual(load.failures, [])
        self.assertEqual(load.versions[-1], "second")
        self.assertEqual(daemon.module(MODULE)["exitCounts"], {})

    def test_has_the_configuration_of_the_one_whose_place_it_takes(self):
        for reload in ("push", "restart"):
            with self.subTest(reload):
                shutil.rmtree(self.modules / MODULE, ignore_errors=True)
                daemon = self.begin(configReload=reload)
                first = self.wait_for_spare(daemon)
                answer = daemon.put(f"/api/v1/modules/{MODULE}/config", {"config": {"greeting": "hello"}})
                self.assertEqual(answer.status, 200, answer)
                (serving,), spare = self.wait_for_spare(daemon, other_than=() if reload == "push" else {first[0][0], first[1]})
                os.kill(serving, signal.SIGKILL)
                self.assertEqual(self.wait_for_spare(daemon, other_than={spare})[0], [spare])
                self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/config/greeting").data["value"], "hello")
                daemon.stop()


class Input(SharedDaemonTest):
    options = {"modules": ["echo"], "modules_dir": harness.FAKES}
    path = "/api/v1/modules/echo/workers"

    def test_what_is_no_number_of_workers_is_refused_with_its_place(self):
        before = self.daemon.module("echo")["desired"]
        for body, place in (({"workers": 0}, "/workers"), ({"workers": 33}, "/workers"), ({"workers": -1}, "/workers"), ({"workers": 1.5}, "/workers"),
                            ({"workers": "two"}, "/workers"), ({"workers": 1 << 40}, "/workers")):
            with self.subTest(body):
                answer = self.daemon.put(self.path, body)
                self.assertError(answer, 400, "INVALID_ARGUMENT")
                self.assertEqual(answer.error["details"][0]["path"], place)
        self.assertEqual(self.daemon.module("echo")["desired"], before)

    def test_who_has_read_another_generation_or_may_not_write_is_refused(self):
        self.assertError(self.daemon.put(self.path, {"workers": 2}, headers={"If-Match": '"999"'}), 412, "PRECONDITION_FAILED")
        reader = self.daemon.make_token("reader", "modules:read")
        self.assertError(self.daemon.put(self.path, {"workers": 2}, token=reader), 403, "FORBIDDEN")
        self.assertError(self.daemon.put("/api/v1/modules/nobody/workers", {"workers": 2}), 404, "MODULE_NOT_FOUND")

    def test_what_is_changed_is_in_the_audit_with_before_and_after_and_the_same_again_changes_nothing(self):
        generation = self.daemon.module("echo")["desired"]["generation"]
        for _ in range(2):
            answer = self.daemon.put(self.path, {"workers": 2})
            self.assertEqual((answer.status, answer.data["desired"]["generation"]), (200, generation + 1))

        def told():
            return [(entry["outcome"], entry["before"], entry["after"]) for entry in self.daemon.get("/api/v1/audit?action=modules.scale&module=echo").data
                    if entry["outcome"] in ("ACCEPTED", "OK")]

        rows = wait_until(lambda: (lambda rows: rows if len(rows) == 3 else None)(told()), "the rows of the audit")
        self.assertEqual([outcome for outcome, _before, _after in rows], ["OK", "OK", "ACCEPTED"])
        self.assertEqual((rows[2][1]["workers"], rows[2][2]["workers"]), (None, 2))


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    harness.main()
