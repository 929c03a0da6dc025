"""What modules print: kept, selected, followed over SSE and gRPC, resumed over a reconnect and a restart. A reader
who does not read costs the others nothing."""

import contextlib
import http.client
import importlib
import json
import os
import queue
import re
import signal
import tempfile
import threading
import time

import grpc

import harness
from grpc_test import generate
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until
from http_test import Wire, resident
from modules_test import echo_like
from streams_test import small_buffer

LOGS = "/api/v1/modules/echo/logs"
OPTIONS = {"modules": ["echo"], "modules_dir": harness.FAKES}
PATIENCE_S = 20 * SLOW
MEGABYTE = 1 << 20
MEMORY_BOUND = 24 * MEGABYTE  # a ring of 1 MiB, a queue of files of 8 MiB, and what an allocator keeps
STREAMS_PER_CALLER = 32       # kMaxStreamsPerCaller
WINDOW_S = 1.5                # the rate of a module's lines is limited per second; a little more


def print_lines(daemon, *lines, stream="stdout", module="echo"):
    body = "".join(f"{line}\n" for line in lines).encode() if lines else b""
    answer = daemon.request("POST", f"/api/v1/m/{module}/print?stream={stream}", body)
    assert answer.status == 200, answer
    return answer.data


def print_paced(daemon, *lines):
    """So much that one second takes it, and nothing more in that second."""
    began = time.monotonic()
    print_lines(daemon, *lines)
    wait_until(lambda: time.monotonic() - began > WINDOW_S, "the next second")


def lines_of(daemon, query="", module="echo", **options):
    answer = daemon.get(f"/api/v1/modules/{module}/logs{query}", **options)
    assert answer.status == 200, answer
    return answer.data


def messages(daemon, query="", module="echo"):
    return [line["message"] for line in lines_of(daemon, query, module)]


def wait_for_line(daemon, message, module="echo"):
    return wait_until(lambda: next((line for line in lines_of(daemon, "?tail=1000", module) if line["message"] == message), None), message)


class Events:
    """One SSE connection, read event by event: {id, event, data}."""

    def __init__(self, daemon, query="follow=true", module="echo", token=None, last=None, version=11):
        host, port = daemon.address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        self.connection._http_vsn = version
        headers = {"Authorization": f"Bearer {token or daemon.token}"}
        if last:
            headers["Last-Event-ID"] = last
        self.connection.request("GET", f"/api/v1/modules/{module}/logs?{query}", headers=headers)
        self.answer = self.connection.getresponse()
        self.last, self.comments = last, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.answer.close()  # else the connection lives as long as its answer
        self.connection.close()

    def next(self):
        """The next event with data; None at the end."""
        event = {}
        while True:
            line = self.answer.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            else:
                self.last = event.get("id", self.last)
                if "data" in event:
                    return {**event, "data": json.loads(event["data"])}
                event = {}

    def take(self, count):
        return [self.next()["data"]["message"] for _ in range(count)]

    def until(self, message):
        found = []
        while not found or found[-1] != message:
            found += self.take(1)
        return found


class Follower:
    """The same over gRPC."""

    generated = None

    def __init__(self, daemon, token=None, **fields):
        if Follower.generated is None:
            Follower.generated = tempfile.TemporaryDirectory(prefix="bh-grpc-")
            generate(Follower.generated.name)
        messages_, stubs = (importlib.import_module(f"bulkhead.admin.v1.logs_{part}") for part in ("pb2", "pb2_grpc"))
        self.channel = grpc.insecure_channel(daemon.admin_address)
        self.stub = stubs.LogsStub(self.channel)
        self.get_request = messages_.GetModuleLogsRequest
        metadata = [("authorization", f"Bearer {token or daemon.token}")]
        self.metadata = metadata
        self.call = self.stub.FollowModuleLogs(messages_.FollowModuleLogsRequest(module="echo", **fields), metadata=metadata)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()
        self.channel.close()

    def take(self, count):
        taken = []
        while len(taken) < count:
            answer = next(self.call)
            if answer.HasField("line"):
                taken.append(answer.line.message)
        return taken


class Lines(SharedDaemonTest):
    options = OPTIONS

    def test_a_json_line_is_taken_apart_and_any_other_is_kept_whole(self):
        print_lines(self.daemon, json.dumps({"level": "warn", "message": "stock is low", "sku": "a-1", "left": 2, "at": {"shelf": [1, 2]}}))
        print_lines(self.daemon, "Traceback: it broke", stream="stderr")
        raw = wait_for_line(self.daemon, "Traceback: it broke")
        line = wait_for_line(self.daemon, "stock is low")
        worker = self.daemon.module("echo")["workers"][0]
        self.assertEqual((line["level"], line["stream"], line["slot"], line["instance"]), ("WARN", "STDOUT", 0, worker["instance"]))
        self.assertEqual(line["fields"], {"sku": "a-1", "left": 2, "at": {"shelf": [1, 2]}})
        self.assertEqual((raw["level"], raw["stream"], raw["fields"], raw["module"]), ("INFO", "STDERR", None, "echo"))
        self.assertRegex(line["time"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertIn("stock is low", self.daemon.log(), "it is in the supervisor's log, too")

    def test_they_are_selected_by_level_text_time_and_number(self):
        for level in ("debug", "info", "warn", "error"):
            print_lines(self.daemon, json.dumps({"level": level, "message": f"select {level}", "key": "NeedLe"}))
        wait_for_line(self.daemon, "select error")
        of_level = {level: messages(self.daemon, f"?search=select&level={level}") for level in ("debug", "info", "warn", "error")}
        self.assertEqual(of_level["debug"], [f"select {level}" for level in ("debug", "info", "warn", "error")])
        self.assertEqual(of_level["warn"], ["select warn", "select error"])
        self.assertEqual(of_level["error"], ["select error"])
        self.assertEqual(len(messages(self.daemon, "?search=needle")), 4, "in fields, in either case")
        self.assertEqual(messages(self.daemon, "?search=select&tail=1"), ["select error"])
        self.assertEqual(messages(self.daemon, "?slot=7"), [])
        self.assertEqual(lines_of(self.daemon, "?tail=0"), [])
        print_lines(self.daemon, "the first of two")
        wait_for_line(self.daemon, "the first of two")
        print_lines(self.daemon, "the second of two")
        second = wait_for_line(self.daemon, "the second of two")
        both = "&search=of%20two"
        self.assertEqual(messages(self.daemon, f"?since={second['time']}{both}"), ["the second of two"])
        self.assertEqual(messages(self.daemon, f"?until={second['time']}{both}"), ["the first of two"])
        self.assertEqual(len(messages(self.daemon, f"?since=10m{both}")), 2)
        self.assertEqual(messages(self.daemon, f"?until=10m{both}"), [])

    def test_pages_go_back_and_forth_by_cursors(self):
        print_lines(self.daemon, *(f"page {i}" for i in range(10)))
        wait_for_line(self.daemon, "page 9")
        answer = self.daemon.get(f"{LOGS}?search=page%20&tail=4")
        self.assertEqual([line["message"] for line in answer.data], [f"page {i}" for i in range(6, 10)])
        meta = answer.json["meta"]
        self.assertTrue(meta["more"])
        before = self.daemon.get(f"{LOGS}?search=page%20&tail=5&before={meta['before']}")
        self.assertEqual([line["message"] for line in before.data], [f"page {i}" for i in range(1, 6)])
        after = self.daemon.get(f"{LOGS}?search=page%20&tail=2&after={before.json['meta']['after']}")
        self.assertEqual([line["message"] for line in after.data], ["page 6", "page 7"])
        self.assertTrue(after.json["meta"]["more"])
        end = self.daemon.get(f"{LOGS}?after={meta['after']}").json
        self.assertEqual((end["data"], end["meta"]["more"], end["meta"]["before"]), ([], False, ""))
        print_lines(self.daemon, "page behind")
        wait_until(lambda: messages(self.daemon, f"?after={end['meta']['after']}") == ["page behind"], "what came since")

    def test_a_long_answer_is_cut_and_says_so(self):
        for piece in range(7):
            print_paced(self.daemon, *(f"long {piece} {i:2} " + "x" * 16_000 for i in range(31)))
        print_lines(self.daemon, "long enough")
        wait_for_line(self.daemon, "long enough")
        query, seen, sizes = f"{LOGS}?tail=5000&search=xxxxxxxx", [], []
        answer = self.daemon.get(query).json
        self.assertTrue(answer["meta"]["more"])
        while True:
            sizes.append(sum(len(line["message"]) for line in answer["data"]))
            seen = [line["message"][:9] for line in answer["data"]] + seen
            if not answer["meta"]["more"]:
                break
            answer = self.daemon.get(f"{query}&before={answer['meta']['before']}").json
        self.assertEqual(seen, [f"long {piece} {i:2}" for piece in range(7) for i in range(31)])
        self.assertEqual(len(sizes), 2)
        self.assertLess(max(sizes), 3 * MEGABYTE)

    def test_what_is_asked_wrongly_is_told(self):
        for query, name in (("tail=5001", "tail"), ("tail=-1", "tail"), ("level=loud", "level"), ("since=yesterday", "since"), ("until=x", "until"),
                            ("before=x", "before"), ("after=1", "after"), ("slot=x", "slot"), ("follow=maybe", "follow"), ("color=red", "color"),
                            ("search=" + "x" * 257, "search"), ("follow=true&tail=5001", "tail"), ("follow=true&until=10m", "until"),
                            ("follow=true&follow=true", "follow"), ("follow=true&after=x", "after")):
            with self.subTest(query):
                answer = self.daemon.get(f"{LOGS}?{query}")
                self.assertError(answer, 400, "INVALID_ARGUMENT")
                self.assertEqual(answer.error["details"][0]["path"], name)

    def test_who_may_not_is_refused_and_a_right_on_one_module_is_enough(self):
        other = self.daemon.make_token("logs-of-another", "module:other:logs:read", "modules:read")
        own = self.daemon.make_token("logs-of-echo", "module:echo:logs:read")
        for query in ("", "?follow=true"):
            self.assertError(self.daemon.get(LOGS + query, token=other), 403, "FORBIDDEN")
            self.assertError(self.daemon.get(LOGS + query, token=None), 401, "UNAUTHENTICATED")
            self.assertError(self.daemon.get("/api/v1/modules/nobody/logs" + query), 404, "MODULE_NOT_FOUND")
        self.assertEqual(self.daemon.get(LOGS, token=own).status, 200)
        print_lines(self.daemon, "for whom it may concern")
        with Events(self.daemon, token=own) as events:
            events.until("for whom it may concern")
        self.assertEqual([entry for entry in self.daemon.get("/api/v1/audit?pageSize=500").data if "logs" in entry["action"]], [], "reading is no change")

    def test_secrets_of_the_configuration_are_not_shown(self):
        secret = "open \"sesame\" 4711"
        self.assertEqual(self.daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": secret}}).status, 200)
        print_lines(self.daemon, f"my key is {secret}.", json.dumps({"level": "info", "message": "json key", "key": secret}))
        line = wait_for_line(self.daemon, "json key")
        self.assertEqual(line["fields"], {"key": "********"})
        wait_for_line(self.daemon, "my key is ********.")
        self.assertNotIn("sesame", self.daemon.log())
        worker = self.daemon.module("echo")["workers"][0]
        os.kill(worker["pid"], signal.SIGKILL)
        exit_ = wait_until(lambda: next(iter(self.daemon.module("echo")["exits"]), None), "the crash report")
        self.assertIn("my key is ********.", exit_["output"])
        self.assertNotIn("sesame", exit_["output"])
        self.daemon.wait_observed("echo", "RUNNING")


class Following(SharedDaemonTest):
    options = OPTIONS

    def test_sse_and_grpc_see_the_same_at_once(self):
        print_lines(self.daemon, "before them")
        wait_for_line(self.daemon, "before them")
        with Events(self.daemon, "follow=true&tail=1") as events, Follower(self.daemon, tail=1) as follower:
            self.assertEqual(events.answer.status, 200)
            self.assertEqual(events.answer.getheader("Content-Type"), "text/event-stream")
            self.assertEqual(events.answer.getheader("Transfer-Encoding"), "chunked")
            self.assertEqual(events.take(1), ["before them"])
            self.assertEqual(follower.take(1), ["before them"])
            for round_ in range(3):
                lines = [f"both {round_} {i}" for i in range(20)]
                print_lines(self.daemon, *lines)
                self.assertEqual(events.take(20), lines)
                self.assertEqual(follower.take(20), lines)

    def test_a_level_selects_what_is_followed(self):
        with Events(self.daemon, "follow=true&tail=0&level=error") as events:
            error, fatal = (json.dumps({"level": level, "message": message}) for level, message in (("error", "this"), ("fatal", "and this")))
            print_lines(self.daemon, "not this", error, "nor this", fatal)
            self.assertEqual(events.take(2), ["this", "and this"])

    def test_last_event_id_resumes_without_a_line_lost_or_twice(self):
        with Events(self.daemon, "follow=true&tail=0") as events:
            print_lines(self.daemon, *(f"resume {i}" for i in range(10)))
            self.assertEqual(events.take(4), [f"resume {i}" for i in range(4)])
            last = events.last
        print_lines(self.daemon, *(f"resume {i}" for i in range(10, 15)))
        with Events(self.daemon, "follow=true&tail=3", last=last) as events:
            self.assertEqual(events.take(11), [f"resume {i}" for i in range(4, 15)])
            print_lines(self.daemon, "resume 15")
            self.assertEqual(events.take(1), ["resume 15"])

    def test_head_gets_the_head_alone(self):
        with Wire(self.daemon) as wire:
            answer = wire.ask("HEAD", f"{LOGS}?follow=true")
            self.assertEqual((answer.status, answer.header("content-type"), answer.body), (200, "text/event-stream", b""))
            self.assertEqual(wire.ask("GET", f"{LOGS}?tail=0").status, 200, "the connection goes on")

    def test_http_1_0_gets_it_without_chunks(self):
        with Wire(self.daemon) as wire:
            wire.send(wire.head("GET", f"{LOGS}?follow=true&tail=0", version="HTTP/1.0"))
            head = wire.read_until(b"\r\n\r\n").lower()
            self.assertNotIn(b"transfer-encoding", head)
            self.assertIn(b"connection: close", head)
            print_lines(self.daemon, "for an old client")
            self.assertIn(b"for an old client", wire.read_until(b"\n\n") + wire.buffer)

    def test_who_leaves_leaves_nothing_behind(self):
        def held():
            return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

        self.daemon.get(LOGS)
        with Events(self.daemon):
            pass
        with Follower(self.daemon) as follower:
            follower.take(1)
        wait_until(lambda: held() == held(), "settled")
        before = held()
        for _ in range(5):
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    stack.enter_context(Events(self.daemon, "follow=true&tail=0"))
                    stack.enter_context(Follower(self.daemon, tail=0)).call.initial_metadata()
        wait_until(lambda: held() <= before + 2, f"about {before} descriptors, as before", PATIENCE_S)

        def all_places():
            """As many as one caller may have, at once; None when one is still taken."""
            with contextlib.ExitStack() as stack:
                streams = [stack.enter_context(Events(self.daemon, "follow=true&tail=0")) for _ in range(STREAMS_PER_CALLER)]
                if all(stream.answer.status == 200 for stream in streams):
                    return stack.pop_all()
            return None

        with wait_until(all_places, "all places are free again"):
            self.assertError(self.daemon.get(f"{LOGS}?follow=true"), 429, "TOO_MANY_STREAMS")
            self.assertEqual(self.daemon.get(LOGS).status, 200)

    def test_a_follower_who_does_not_read_costs_nothing_and_misses_nothing(self):
        wire = small_buffer(self.daemon)
        self.addCleanup(wire.close)
        head = f"GET {LOGS}?follow=true&tail=0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.daemon.token}\r\n\r\n"
        wire.sendall(head.encode())
        got = wire.recv(4096)
        self.assertIn(b" 200 ", got.split(b"\r\n")[0])
        with Events(self.daemon, "follow=true&tail=0") as other:
            pid, before = self.daemon.process.pid, resident(self.daemon.process.pid)
            for piece in range(6):
                lines = [f"piece {piece} {i} " + "y" * 1_000 for i in range(400)]
                print_paced(self.daemon, *lines)
                self.assertEqual(other.take(len(lines)), lines, "who reads is not held up")
            if harness.MEASURES_MEMORY:
                self.assertLess(resident(pid) - before, MEMORY_BOUND)
        while f"piece 5 399 y".encode() not in got[-200_000:]:
            more = wire.recv(65536)
            self.assertTrue(more, "closed")
            got += more
        self.assertEqual(len(re.findall(rb'"message":"piece \d \d+ y', got)), 2_400)
        self.assertNotIn(b"event: missed", got)

    def test_a_right_that_is_taken_away_ends_the_stream(self):
        secret = self.daemon.make_token("for-a-while", "logs:read")
        with Events(self.daemon, "follow=true&tail=0", token=secret) as events:
            print_lines(self.daemon, "still mine")
            self.assertEqual(events.take(1), ["still mine"])
            self.assertEqual(self.daemon.delete("/api/v1/tokens/for-a-while").status, 200)
            deadline = time.monotonic() + PATIENCE_S
            event = {"event": ""}
            while event and event.get("event") != "end":
                self.assertLess(time.monotonic(), deadline)
                print_lines(self.daemon, "not mine any more")
                event = events.next()
                time.sleep(harness.POLL_S)  # below the limit of lines per second
            self.assertEqual(event["data"]["error"]["code"], "UNAUTHENTICATED")
            self.assertIsNone(events.next())


class Workers(DaemonTest):
    def test_each_line_names_its_worker(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", workers=2)
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        wait_until(lambda: {line["slot"] for line in lines_of(daemon, "?search=ready")} == {0, 1}, "both have said that they are ready")
        workers = {worker["slot"]: worker["instance"] for worker in daemon.module("echo")["workers"]}
        for slot, instance in workers.items():
            self.assertEqual({line["instance"] for line in lines_of(daemon, f"?slot={slot}")}, {instance})


class Restarts(DaemonTest):
    def test_everything_is_there_again_and_a_follower_goes_on_where_he_was(self):
        daemon = self.daemon(**OPTIONS)
        print_lines(daemon, *(f"old {i}" for i in range(20)))
        with Events(daemon, "follow=true&tail=500") as events:
            events.until("old 11")
            last = events.last
        wait_for_line(daemon, "old 19")
        daemon.stop()
        daemon.start()
        self.assertEqual([m for m in messages(daemon, "?tail=500") if m.startswith("old")], [f"old {i}" for i in range(20)])
        with Events(daemon, "follow=true", last=last) as events:
            self.assertEqual(events.take(8), [f"old {i}" for i in range(12, 20)])
            print_lines(daemon, "new")
            new = events.until("new")
            self.assertEqual([m for m in new if m.startswith("old")], [])
        wait_until(lambda: any('"new"' in path.read_text() for path in (daemon.data / "logs" / "echo").glob("*.log")), "it is in the file")
        daemon.kill()
        daemon.start()
        self.assertIn("new", messages(daemon, "?tail=500"), "what is in the file outlives a kill of the daemon")

    def test_a_shutdown_ends_streams_with_a_word_and_in_time(self):
        daemon = self.daemon(**OPTIONS)
        quiet = small_buffer(daemon)
        self.addCleanup(quiet.close)
        quiet.sendall(f"GET {LOGS}?follow=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {daemon.token}\r\n\r\n".encode())
        with Events(daemon) as events, Follower(daemon) as follower:
            follower.take(1)
            ends = queue.Queue()

            def read():
                event = events.next()
                while event and event.get("event") != "end":
                    event = events.next()
                ends.put((event, events.next()))

            def read_grpc():
                try:
                    follower.take(1 << 30)
                except grpc.RpcError as error:
                    ends.put(error)

            threads = [threading.Thread(target=read), threading.Thread(target=read_grpc)]
            for thread in threads:
                thread.start()
            code, took = daemon.stop()
            for thread in threads:
                thread.join()
            told = [ends.get(), ends.get()]
        (event, after), = [one for one in told if isinstance(one, tuple)]
        error, = [one for one in told if not isinstance(one, tuple)]
        self.assertEqual(event["data"]["error"]["code"], "SHUTTING_DOWN")
        self.assertIsNone(after)
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(code, 0)
        self.assertLess(took, 15 * SLOW)
        daemon.assert_nothing_left()


class Deleted(DaemonTest):
    def test_followers_are_told_and_a_purge_removes_the_files(self):
        daemon = self.daemon(**OPTIONS)
        folder = daemon.data / "logs" / "echo"
        wait_until(lambda: lines_of(daemon), "its first lines")
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
        before = messages(daemon)
        wait_until(lambda: list(folder.glob("*.log")), "its file")
        with Events(daemon, "follow=true&tail=0") as events, Follower(daemon, tail=0) as follower:
            self.assertEqual(daemon.delete("/api/v1/modules/echo").status, 200)
            event = events.next()
            self.assertEqual((event["event"], event["data"]["error"]["code"]), ("end", "MODULE_NOT_FOUND"))
            with self.assertRaises(grpc.RpcError) as caught:
                follower.take(1)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertError(daemon.get(LOGS), 404, "MODULE_NOT_FOUND")
        self.assertTrue(list(folder.glob("*.log")), "without a purge what it printed stays")
        self.assertEqual(daemon.post("/api/v1/modules/rescan").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
        self.assertEqual(messages(daemon)[:len(before)], before)
        self.assertEqual(daemon.delete("/api/v1/modules/echo?purge=true").status, 200)
        self.assertFalse(folder.exists())


if __name__ == "__main__":
    harness.main()
