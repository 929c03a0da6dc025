"""Modules that do what the contract forbids, as real processes under the real daemon (tests/fakes/misbehaving). Of each: its status says
what it did; a healthy module beside it answers all the time; and when it is gone, nothing of it is left, neither a process, a folder
or a cgroup, nor a descriptor or memory in the daemon and its spawner."""

import concurrent.futures
import contextlib
import http.client
import re
import signal
import threading
import time

import harness
from harness import SLOW, wait_until
from misbehaving import LATE_TIMEOUT_MS, MEMORY_BOUND_KB, ROUTE_TIMEOUT_MS, BesideAHealthyModule, cpu_seconds, processes_of, raw_exchange

UPLOAD = 2 * 1024 * 1024              # more than a stream's window and what waits in the gateway beside it
MEMORY_LIMIT = 64 * 1024 * 1024       # of the one that eats it
PING_GIVES_UP_WITHIN_S = 30 * SLOW    # 10 s of silence, 10 s for the answer, checks every 2 s, and the end of the process

# What is not looked at has time on a busy machine.
PATIENT = {"lifecycle": {"handshakeTimeout": 10000, "startTimeout": 10000, "stopTimeout": 5000, "drainTimeout": 200},
           "health": {"interval": 500, "timeout": 5000}}
SHORT_HANDSHAKE = {**PATIENT, "lifecycle": {**PATIENT["lifecycle"], "handshakeTimeout": 1000 * SLOW}}
SHORT_START = {**PATIENT, "lifecycle": {**PATIENT["lifecycle"], "startTimeout": 1500 * SLOW}}
SHORT_STOP = {**PATIENT, "lifecycle": {**PATIENT["lifecycle"], "stopTimeout": 300}}
SHORT_HEALTH = {**PATIENT, "health": {"interval": 100, "timeout": 50}}


def at_once(call, names):
    """call(name) of all of them side by side; their results in order, or the first exception."""
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(call, names))


class Misbehaving(BesideAHealthyModule):
    modules = {
        "exits-at-once": ("exit-at-once", PATIENT),
        "exits-125-at-once": ("exit-125-at-once", PATIENT),
        "closes-fd3": ("close-fd3", PATIENT),
        "speaks-protocol-99": ("other-protocol", PATIENT),
        "answers-garbage": ("garbage-handshake", PATIENT),
        "answers-without-end": ("endless-handshake", PATIENT),
        "says-nothing": ("silent", SHORT_HANDSHAKE),
        "hangs-in-initialize": ("hang-initialize", SHORT_START),
        "hangs-in-start": ("hang-start", SHORT_START),
        "closes-fd3-later": ("close-fd3-later", PATIENT),
        "chats-on-fd3": ("chatty-fd3", PATIENT),
        "exits": ("exit", PATIENT),
        "exits-125": ("exit-125", PATIENT),
        "hangs-in-health": ("hang-health", SHORT_HEALTH),
        "stops-itself": ("stop-itself", SHORT_HEALTH),
        "eats-memory": ("eat-memory", {**PATIENT, "limits": {"memory": MEMORY_LIMIT}}),
        "prints-binary": ("binary", PATIENT),
        "prints-binary-on": ("binary-on", PATIENT),
        "prints-much": ("flood", PATIENT),
        "prints-long-lines": ("flood-long-lines", PATIENT),
        "prints-much-for-a-while": ("flood-a-while", PATIENT),
        "hangs-in-stop": ("hang-stop", SHORT_STOP),
        "ignores-sigterm-1": ("ignore-sigterm", PATIENT),
        "ignores-sigterm-2": ("ignore-sigterm", PATIENT),
        "ignores-sigterm-3": ("ignore-sigterm", PATIENT),
        "forks": ("fork", PATIENT),
        "breaks-the-link": ("link", PATIENT),
        "gives-no-credit": ("no-credit", PATIENT),
        "never-reads": ("never-reads", PATIENT),
        "never-says-hello": ("no-hello", PATIENT),
        "uses-up-its-files": ("exhaust-files", PATIENT),
    }

    # -- it does not come up

    def cannot_start(self, cases, runs=3):
        """cases: name → (cause, code of the reason, sentence). All at once, each in a process per run that never becomes ready; answers the last
        one's status."""
        def once():
            for (_cause, code, sentence), answer in zip(cases.values(), at_once(lambda name: self.enable(name, 502), cases)):
                self.assertError(answer, 502, "MODULE_START_FAILED")
                self.assertRegex(answer.error["message"], sentence)
                self.assertEqual(answer.error["details"][0]["code"], code, answer)

        self.several_times(cases, once, runs)
        for name, (cause, code, sentence) in cases.items():
            module = self.daemon.module(name)
            self.assert_status(module, cause, sentence, code)
            self.assertEqual((module["desired"]["state"], module["observed"]["state"]), ("DISABLED", "STOPPED"))
            self.assertEqual([exit_["cause"] for exit_ in module["exits"]], [cause] * (runs + 1), "one process per enable")
            self.assertEqual(module["exitCounts"], {cause: runs + 1})
        return module

    def test_one_that_exits_before_the_handshake(self):
        module = self.cannot_start({"exits-at-once": ("HANDSHAKE", "HANDSHAKE_EXIT", "exited with code 3 before the handshake")}, runs=5)
        self.assertEqual((module["exits"][0]["exitCode"], module["exits"][0]["signal"]), (3, 0))
        self.assertIn("free lunch", module["exits"][0]["output"])

    def test_one_that_exits_with_125_before_the_handshake_says_that_its_configuration_is_wrong(self):
        self.cannot_start({"exits-125-at-once": ("CONFIG", "CONFIG", "exited with code 125.* configuration is wrong")}, runs=5)

    def test_one_that_speaks_another_protocol(self):
        self.cannot_start({"speaks-protocol-99": ("HANDSHAKE", "PROTOCOL_MISMATCH", "it speaks protocol 99, this supervisor speaks 1 to 1: build it")})

    def test_one_that_answers_the_handshake_with_garbage(self):
        self.cannot_start({"answers-garbage": ("HANDSHAKE", "HANDSHAKE_MALFORMED", "its handshake is not a JSON object")})

    def test_one_that_answers_the_handshake_with_10_kib_and_no_newline(self):
        self.cannot_start({"answers-without-end": ("HANDSHAKE", "HANDSHAKE_MALFORMED", "its handshake is longer than 4096 bytes")})

    def test_ones_that_close_fd_3_or_hang_in_the_handshake_in_initialize_or_in_start(self):
        self.cannot_start({"closes-fd3": ("HANDSHAKE", "HANDSHAKE_CLOSED", "it closed fd 3 without answering the handshake"),
                           "says-nothing": ("HANDSHAKE", "HANDSHAKE_TIMEOUT", "no handshake within [0-9]+ ms"),
                           "hangs-in-initialize": ("START_TIMEOUT", "START_TIMEOUT", "Initialize did not answer: Initialize and Start have [0-9]+ ms together"),
                           "hangs-in-start": ("START_TIMEOUT", "START_TIMEOUT", "Start did not answer: Initialize and Start have [0-9]+ ms together")}, runs=2)

    # -- it dies

    def dies(self, names, cause, sentence, state="BACKOFF"):
        """They run, and end by their own fault each time, until they are not restarted at once any more. One run is six processes of each."""
        def once():
            at_once(self.enable, names)
            told = set()
            for name in names:
                # As it was seen then: it may run again, with nothing to say, before it is asked once more.
                module = self.daemon.wait_observed(name, state, within=60 * SLOW)
                self.assert_status(module, cause, sentence)
                self.assertEqual({exit_["cause"] for exit_ in module["exits"]}, {cause})
                reason = self.disable(name)["observed"]["reason"]
                if reason:  # none when its backoff was over, so that it ran well once more
                    told.add(reason["code"])
            self.assertLessEqual(told, {cause}, "what was wrong is still told when it is disabled")

        self.several_times(names, once, runs=1)
        return self.daemon.module(names[-1])

    def test_one_that_exits_while_it_serves(self):
        self.assertEqual(self.dies(["exits"], "EXIT", "exited with code 3")["exits"][0]["exitCode"], 3)

    def test_one_that_exits_with_125_while_it_serves_is_not_started_again(self):
        module = self.dies(["exits-125"], "CONFIG", "exited with code 125.* configuration is wrong", state="FAILED")
        self.assertEqual(len(module["exits"]), 2, "one process per enable")

    def test_ones_that_hang_in_health_or_send_themselves_sigstop(self):
        self.dies(["hangs-in-health", "stops-itself"], "LIVENESS", "Health did not answer 3 times in a row")

    def test_one_that_allocates_beyond_its_memory_limit(self):
        self.enable("eats-memory")
        item = next(item for item in self.daemon.module("eats-memory")["isolation"] if item["name"] == "cgroup.memory")
        self.disable("eats-memory")
        if item["state"] != "active":
            self.skipTest(f"there is no memory limit here: {item}")
        module = self.dies(["eats-memory"], "OOM", f"killed by the kernel for lack of memory: its limit of {MEMORY_LIMIT} bytes was reached")
        self.assertEqual(module["exits"][0]["signal"], signal.SIGKILL)

    def test_one_that_prints_binary(self):
        module = self.dies(["prints-binary"], "EXIT", "exited with code 7")
        self.assertIn("\ufffd", module["exits"][0]["output"])
        self.assertNotIn("\0", module["exits"][0]["output"])
        (self.daemon.log_path).read_bytes().decode("utf-8")  # strict

    # -- it serves, and is a nuisance

    def assert_flooding(self, name):
        observed = self.daemon.wait_observed(name, "DEGRADED")["observed"]
        self.assertEqual(observed["reason"]["code"], "LOG_FLOOD", observed)
        self.assertRegex(observed["reason"]["message"], "^it prints more than 1000 lines or 512 KiB a second, so [0-9]+ lines or more were dropped: let it")
        return int(re.search("so ([0-9]+) lines", observed["reason"]["message"])[1])

    def floods(self, names, bytes_per_second):
        """Some that print a megabyte a second without end: what of it is not in the log, their status tells; all else they do."""
        def once():
            at_once(self.enable, names)
            first = {name: self.assert_flooding(name) for name in names}
            since = {name: self.daemon.module(name)["observed"]["since"] for name in names}
            logged, began = self.daemon.log_path.stat().st_size, time.monotonic()
            for name in names:
                for _ in range(20):
                    self.assertEqual(self.ask(name, "/ok").body, b"ok")
                wait_until(lambda: self.assert_flooding(name) > first[name], "that more was dropped")
                self.assertEqual(self.daemon.module(name)["observed"]["since"], since[name], "it is one state all the time")
            self.assertEqual(self.daemon.get("/readyz", token=None).status, 200)
            seconds, size = time.monotonic() - began, self.daemon.log_path.stat().st_size - logged
            for name in names:
                module = self.disable(name)
                self.assertEqual((module["exits"], module["exitCounts"]), ([], {}))
            self.assertLess(size, (seconds + 1) * bytes_per_second * len(names), f"bytes of log in {seconds:.1f} s")

        self.several_times(names, once, runs=1)

    def test_one_that_prints_a_megabyte_a_second(self):
        self.floods(["prints-much"], 1000 * 250)  # the limit of lines, of 100 bytes and what the log puts before them

    def test_one_that_prints_a_megabyte_a_second_in_long_lines(self):
        self.floods(["prints-long-lines"], 512 * 1024 * 1.1)

    def test_one_that_prints_a_megabyte_of_binary_a_second(self):
        self.floods(["prints-binary-on"], 1000 * 256 * 6)  # what is no character is escaped
        self.daemon.log_path.read_bytes().decode("utf-8")  # strict

    def test_one_that_stops_printing_that_much_is_well_again(self):
        def once():
            self.enable("prints-much-for-a-while")
            self.assert_flooding("prints-much-for-a-while")
            module = self.daemon.wait_observed("prints-much-for-a-while", "RUNNING")
            self.assertIsNone(module["observed"]["reason"])
            self.assertEqual(module["workers"][0]["restarts"], 0)
            self.disable("prints-much-for-a-while")

        self.several_times("prints-much-for-a-while", once, runs=1)

    def test_one_that_closes_fd_3_after_the_handshake_serves_on(self):
        def once():
            self.enable("closes-fd3-later")
            self.assertEqual(self.ask("closes-fd3-later", "/ok").body, b"ok")
            self.disable("closes-fd3-later")

        self.several_times("closes-fd3-later", once)

    def test_one_that_writes_to_fd_3_without_end_costs_no_processor_time(self):
        def once():
            self.enable("chats-on-fd3")
            before, began = cpu_seconds(self.daemon.process.pid), time.monotonic()
            while time.monotonic() - began < 0.5:
                self.assertEqual(self.ask("chats-on-fd3", "/ok").body, b"ok")
                time.sleep(0.05)
            share = (cpu_seconds(self.daemon.process.pid) - before) / (time.monotonic() - began)
            self.disable("chats-on-fd3")
            self.assertLess(share, 0.5 * SLOW, "of a processor, while it writes")

        self.several_times("chats-on-fd3", once, runs=2)

    def test_one_that_hangs_in_stop(self):
        def once():
            self.enable("hangs-in-stop")
            reason = self.disable("hangs-in-stop")["observed"]["reason"]
            self.assertEqual((reason["code"], reason["message"]), ("STOP_FAILED", "Stop did not answer within 300 ms"))

        self.several_times("hangs-in-stop", once)
        self.assertEqual(self.daemon.module("hangs-in-stop")["exits"], [], "an end that was asked for is no crash")

    def test_one_that_ignores_sigterm_is_killed_and_told(self):
        names = [name for name in self.modules if name.startswith("ignores-sigterm")]

        def once():
            at_once(self.enable, names)
            for module in at_once(self.disable, names):
                observed = module["observed"]
                self.assertEqual((observed["state"], observed["reason"]["code"]), ("STOPPED", "STOP_FAILED"), observed)
                self.assertRegex(observed["reason"]["message"], "^it did not end within [0-9]+ ms of SIGTERM and was killed$")

        self.several_times(names, once, runs=1)

    def test_one_whose_children_call_setsid(self):
        def once():
            self.enable("forks")
            first = wait_until(lambda: [p for p in [processes_of(self.daemon, "forks")] if len(p) >= 5], "the module and its children")[0]
            crashed = self.ask("forks", "/crash")
            # Sanitized, the restart may take longer than the request's route has.
            self.assertIn(crashed.status, (502, 503) if SLOW == 1 else (502, 503, 504), crashed)
            # The tree is dead before the successor is there; only what changes its pid all the time can't be named by it.
            self.daemon.wait_observed("forks", "RUNNING")
            wait_until(lambda: self.ask("forks", "/ok").status == 200, "the successor")
            self.assertEqual(first & processes_of(self.daemon, "forks"), set())
            wait_until(lambda: len(processes_of(self.daemon, "forks")) >= 5, "the successor's children")
            self.assertLessEqual(len(processes_of(self.daemon, "forks")), 8, "of one tree")
            self.disable("forks")
            self.assertEqual(processes_of(self.daemon, "forks"), set(), "a disable answers when all are gone")

        self.several_times("forks", once, runs=2)
        exit_ = self.daemon.module("forks")["exits"][0]
        self.assertEqual((exit_["cause"], exit_["message"]), ("EXIT", "exited with code 9"))

    # -- it breaks the link

    def breaks_the_link(self, paths, check, runs=2):
        """Each of `paths` once per run, each in a process of its own that answers rightly afterwards. The value of a path is what the status
        then says that it did, None for what is dropped and nobody's fault."""
        name = "breaks-the-link"

        def once_with(path, sentence):
            self.enable(name)
            pid = self.daemon.module(name)["workers"][0]["pid"]
            check(name, path)
            wait_until(lambda: self.ask(name, "/ok").body == b"ok", f"a right answer after {path}")
            self.assert_blamed(name, sentence)
            self.assertEqual(self.daemon.module(name)["workers"][0]["pid"], pid, "none of it is a reason to end the process")
            self.disable(name)

        def once():
            for path, sentence in paths.items():
                with self.subTest(path):
                    once_with(path, sentence)

        self.several_times(name, once, runs)

    def assert_blamed(self, name, sentence):
        if sentence is None:
            observed = self.daemon.module(name)["observed"]
            self.assertEqual((observed["state"], observed["reason"]), ("RUNNING", None))
        else:
            observed = self.daemon.wait_observed(name, "DEGRADED")["observed"]
            self.assertEqual(observed["reason"]["code"], "LINK_FAULT", observed)
            self.assertRegex(observed["reason"]["message"], f"^it {sentence}")

    def test_frames_that_are_none_or_may_not_be_sent(self):
        def check(name, path):
            try:
                self.assertError(self.ask(name, path), 502, "BAD_GATEWAY")
            except http.client.IncompleteRead:  # the client had a part of the body already, and sees that it is not whole
                self.assertEqual(path, "/truncated")

        self.breaks_the_link({"/garbage": "sent a malformed frame: ", "/oversized": "sent a malformed frame: frame longer than the agreed maximum",
                              "/truncated": "closed its data link within a frame", "/unknown-type": "sent a malformed frame: unknown frame type",
                              "/unknown-stream": "sent a frame for a stream that was never opened", "/request": "sent a REQUEST",
                              "/second-hello": "sent a second HELLO", "/window-overflow": "gave more than 2.31-1 bytes of credit"}, check)

    def test_what_it_sends_for_streams_that_have_ended_is_dropped(self):
        def check(name, path):
            if path == "/late":
                self.assertError(self.ask(name, path), 504, "GATEWAY_TIMEOUT")
                with self.assertRaises(TimeoutError):
                    self.ask(name, path, timeout=LATE_TIMEOUT_MS / 3000)  # and where the client has left
            else:
                self.assertEqual(self.ask(name, path).body, b"ok")

        self.breaks_the_link({"/ended-stream": None, "/late": None}, check)

    def test_heads_that_no_client_may_see(self):
        def check(name, path):
            came = raw_exchange(self.daemon, name, path)
            self.assertNotIn(b"x-injected", came)
            self.assertRegex(came, rb"^HTTP/1.1 502 ")
            self.assertEqual(came.count(b"HTTP/1.1 "), 1, came)

        header = "sent a response with a malformed header"
        self.breaks_the_link({"/crlf-value": header, "/crlf-name": header, "/nul-value": header,
                              "/head-that-lies": "sent a response head that does not parse",
                              "/status-99": "sent a response whose status is not from 200 to 599"}, check, runs=1)

    def test_bodies_that_are_other_than_was_said(self):
        def check(name, path):
            came = raw_exchange(self.daemon, name, path)
            self.assertNotIn(b"x-injected", came)
            self.assertEqual(came.count(b"HTTP/1.1 "), 1, came)
            head, _, body = came.partition(b"\r\n\r\n")
            if path.endswith("-later"):  # the first bytes were with the client already
                self.assertEqual((head.split(b" ")[1], body), (b"200", b"12345"))
            else:
                self.assertEqual(head.split(b" ")[1], b"502", came)

        other = "sent another number of body bytes than its content-length says"
        self.breaks_the_link({"/short": other, "/long": other, "/short-later": other, "/long-later": other,
                              "/no-head": "sent DATA before a RESPONSE"}, check, runs=1)

    def test_a_second_answer_to_a_request(self):
        def check(name, path):
            came = raw_exchange(self.daemon, name, path)
            self.assertEqual(came.count(b"HTTP/1.1 "), 1, came)
            whole = came.endswith(b"\r\n\r\nok") and came.startswith(b"HTTP/1.1 200 ")
            self.assertEqual(whole, path == "/twice", came)
            self.assertNotIn(b"once more", came)

        self.breaks_the_link({"/twice": None, "/two-heads": "answered a request twice", "/crlf-trailer": "sent a malformed trailer"}, check)

    def test_more_than_its_credit(self):
        def check(name, path):
            came = raw_exchange(self.daemon, name, path, read_after_s=0.3)
            self.assertLess(len(came), 12 * 1024 * 1024, "it was cut off")
            self.assertFalse(came.endswith(b"\r\n0\r\n\r\n"), "a client must see that it is not whole")

        self.breaks_the_link({"/past-credit": "sent more than its credit"}, check)

    def test_ones_that_take_nothing_hold_up_only_their_own_requests(self):
        names = ["gives-no-credit", "never-reads", "never-says-hello", "uses-up-its-files"]

        def once():
            at_once(self.enable, names)
            began = time.monotonic()
            for came in at_once(lambda name: raw_exchange(self.daemon, name, "/upload", "POST", b"x" * UPLOAD), names):
                self.assertRegex(came, rb"^HTTP/1.1 504 ")
            self.assertLess(time.monotonic() - began, 4 * ROUTE_TIMEOUT_MS / 1000 + 1 * SLOW)
            answers = at_once(lambda name: self.ask(name, "/ok").status, names)
            self.assertEqual(dict(zip(names, answers)), {**dict.fromkeys(names, 504), "gives-no-credit": 200})
            for name in names:
                self.assert_blamed(name, "took no more of a request's body within the route's timeout")
            at_once(self.disable, names)

        self.several_times(names, once)


class Unanswered(BesideAHealthyModule):
    """What never answers a PING on its link (rule 9 of proto/LINK.md), although it answers Health: the gateway takes its time to find
    out, so all of it is begun before the other tests, and looked at behind them."""

    held_open = {
        "never-answers-ping": ("no-pong", PATIENT),
        "stuck-in-a-frame": ("link", PATIENT),
        "blocks-its-loop": ("link", PATIENT),
        "never-reads": ("never-reads", PATIENT),
        "never-says-hello": ("no-hello", PATIENT),
        "uses-up-its-files": ("exhaust-files", PATIENT),
    }
    # The same, but asked only what is given up on before a PING is due.
    shortly = {"never-answers-in-time": ("no-hello", PATIENT)}
    modules = {**held_open, **shortly}
    begun = False

    @classmethod
    def begin(cls):
        """Enables each, and sends it a request that only the end of its link can answer."""
        super().setUpClass()
        cls.begun, cls.held, cls.answered = True, {}, threading.Condition()
        # Once for what is opened for good, with a request that is given up on; then what is held is counted.
        cls.all_at_once("enable")
        at_once(lambda name: cls.daemon.get(f"/api/v1/m/{name}/ok"), cls.modules)
        cls.all_at_once("disable")
        cls.wait_gone(cls.modules)
        cls.before = cls.held_when_quiet()
        cls.all_at_once("enable")
        cls.began = time.monotonic()
        for name in cls.held_open:
            threading.Thread(target=cls._hold, args=(name,), daemon=True).start()
        for name in cls.shortly:
            threading.Thread(target=cls._ask_again_and_again, args=(name,), daemon=True).start()

    @classmethod
    def all_at_once(cls, action):
        for name, answer in zip(cls.modules, at_once(lambda name: cls.daemon.post(f"/api/v1/modules/{name}/{action}?wait=30s"), cls.modules)):
            if answer.status != 200:
                raise AssertionError(f"{action} {name}: {answer}")

    @classmethod
    def _ask_again_and_again(cls, name):
        with contextlib.suppress(OSError, http.client.HTTPException):  # the daemon ends with the tests
            while time.monotonic() < cls.began + PING_GIVES_UP_WITHIN_S and not cls.daemon.module(name)["exits"]:
                cls.daemon.get(f"/api/v1/m/{name}/ok")
                time.sleep(0.5)

    @classmethod
    def _hold(cls, name):
        connection = http.client.HTTPConnection(*cls.daemon.address.rsplit(":", 1), timeout=2 * PING_GIVES_UP_WITHIN_S)
        method, path = {"stuck-in-a-frame": ("GET", "/half"), "blocks-its-loop": ("POST", "/block")}.get(name, ("POST", "/hold"))
        try:
            connection.request(method, f"/api/v1/m/{name}{path}", headers={"Authorization": f"Bearer {cls.daemon.token}"})
            answer = connection.getresponse()
            answer.read()
            outcome = answer.status
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
        connection.close()
        with cls.answered:
            cls.held[name] = (outcome, time.monotonic() - cls.began)
            cls.answered.notify_all()

    @classmethod
    def setUpClass(cls):
        if not cls.begun:
            cls.begin()

    @classmethod
    def tearDownClass(cls):
        cls.begun = False
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.failures_before = 0  # since it was begun

    def test_the_request_ends_with_an_error_in_bounded_time(self):
        left = self.began + PING_GIVES_UP_WITHIN_S - time.monotonic()
        with self.answered:
            self.answered.wait_for(lambda: len(self.held) == len(self.held_open), max(left, 1))
            self.assertEqual(set(self.held), set(self.held_open), "not answered")
        for name, (outcome, after_s) in self.held.items():
            with self.subTest(name):
                self.assertIn(outcome, ("IncompleteRead",) if name == "stuck-in-a-frame" else (502, 503))
                self.assertLess(after_s, PING_GIVES_UP_WITHIN_S)

    def ends_for_liveness(self, name):
        """By whichever way the supervisor finds it out."""
        left = self.began + PING_GIVES_UP_WITHIN_S - time.monotonic()
        exits = wait_until(lambda: self.daemon.module(name)["exits"], f"an exit of {name}", max(left, 0))
        self.assertEqual(exits[-1]["cause"], "LIVENESS", exits)
        self.assertRegex(exits[-1]["message"], "^(it|Health) .*answer", exits)
        self.assertGreaterEqual(self.daemon.module(name)["exitCounts"]["LIVENESS"], 1)

    def test_one_that_never_answers_a_ping_is_ended_for_liveness(self):
        self.ends_for_liveness("never-answers-ping")

    def test_one_that_is_stuck_in_a_frame_is_ended_for_liveness(self):
        self.ends_for_liveness("stuck-in-a-frame")

    def test_one_that_blocks_its_event_loop_is_ended_for_liveness(self):
        self.ends_for_liveness("blocks-its-loop")

    def test_one_that_never_reads_is_ended_for_liveness(self):
        self.ends_for_liveness("never-reads")

    def test_one_that_never_says_hello_is_ended_for_liveness(self):
        self.ends_for_liveness("never-says-hello")

    def test_one_that_has_no_descriptor_left_is_ended_for_liveness(self):
        self.ends_for_liveness("uses-up-its-files")

    def test_one_that_answers_no_short_request_is_ended_for_liveness(self):
        self.ends_for_liveness("never-answers-in-time")

    def test_when_all_have_ended_nothing_of_them_is_held(self):
        for name in self.modules:
            self.ends_for_liveness(name)
        self.all_at_once("disable")
        grown = self.assert_nothing_held(self.modules, self.before, "the end of all that did not answer")
        self.growth_kb["all that did not answer"] = grown
        if harness.MEASURES_MEMORY:
            self.assertLess(grown, MEMORY_BOUND_KB, "KiB that daemon and spawner have grown by")


def setUpModule():
    Unanswered.begin()


def tearDownModule():
    if Unanswered.begun:  # none of its tests was asked for
        Unanswered.tearDownClass()


if __name__ == "__main__":
    harness.main()
