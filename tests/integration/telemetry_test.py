"""Health, metrics, traces and the access log, through the real daemon: what is told is what was done, and nobody who hangs holds it up."""

import json
import os
import signal
import time

import collector as collecting
import exposition
import harness
from harness import MEASURES_MEMORY, SLOW, DaemonTest, SharedDaemonTest, wait_until
from http_test import ECHO, Wire

OPTIONS = {"modules": ["echo"], "modules_dir": harness.FAKES}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
CACHE_S = 5            # limits::kMetricsCache
ANSWER_S = 3 * SLOW    # kMetricsTimeout is 1 s
MEGABYTE = 1 << 20
# As seed 004 has them; more may join.
SEED = {"": {"totalRequests", "totalErrors", "avgResponseTime", "modules", "collectedAt"},
        "module": {"requestCount", "errorCount", "avgResponseTime", "activeWorkers", "cacheHitRate", "eventCount"},
        "eventCount": {"published", "received"},
        "health": {"status", "modules", "checkedAt"},
        "health.module": {"status", "lastChecked"}}
REQUESTS = "bulkhead_gateway_requests_total"


def page(daemon, **options):
    answer = daemon.get("/metrics", **options)
    assert answer.status == 200, answer
    return exposition.parse(answer.body.decode())


def timed(ask):
    began = time.monotonic()
    return ask(), time.monotonic() - began


class Pages(SharedDaemonTest):
    options = OPTIONS

    def test_health_has_the_shape_of_the_seed(self):
        wait_until(lambda: self.daemon.get("/api/v1/system/modules").json["modules"]["echo"]["lastChecked"], "a health check")
        answer = self.daemon.get("/api/v1/system/modules")
        self.assertEqual(answer.header("Content-Type"), "application/json")
        self.assertLessEqual(SEED["health"], set(answer.json))
        self.assertLessEqual(SEED["health.module"], set(answer.json["modules"]["echo"]))
        self.assertEqual((answer.json["status"], answer.json["modules"]["echo"]["status"]), ("healthy", "healthy"))
        for moment in (answer.json["checkedAt"], answer.json["modules"]["echo"]["lastChecked"]):
            self.assertRegex(moment, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")

    def test_metrics_have_the_shape_of_the_seed(self):
        self.daemon.get(f"{ECHO}/echo")
        answer = self.daemon.get("/api/v1/system/metrics")
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/json"))
        told, echo = answer.json, answer.json["modules"]["echo"]
        self.assertLessEqual(SEED[""], set(told))
        self.assertLessEqual(SEED["module"], set(echo))
        self.assertEqual(set(echo["eventCount"]), SEED["eventCount"])
        self.assertRegex(told["collectedAt"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        for number in (told["totalRequests"], told["totalErrors"], echo["requestCount"], echo["errorCount"], echo["activeWorkers"],
                       *echo["eventCount"].values()):
            self.assertIsInstance(number, int)
        for number in (told["avgResponseTime"], echo["avgResponseTime"], echo["cacheHitRate"], *echo["responseTimes"].values()):
            self.assertIsInstance(number, (int, float))
        self.assertGreater(echo["requestCount"], 0)
        times = echo["responseTimes"]
        self.assertEqual(sorted(times.values()), [times["p50"], times["p90"], times["p95"], times["p99"]])
        worker = echo["workers"][0]
        self.assertEqual((worker["slot"], worker["answered"], worker["custom"]["answer"]), (0, True, 42))
        self.assertEqual(echo["readyWorkers"], 1)

    def test_what_was_sent_is_what_is_counted(self):
        sent = {"200": 11, "204": 2, "404": 5, "500": 3, "503": 4}
        before, was = page(self.daemon)[REQUESTS], self.daemon.get("/api/v1/system/metrics").json["modules"]["echo"]
        with Wire(self.daemon) as wire:
            for status, times in sent.items():
                for _ in range(times):
                    self.assertEqual(wire.ask("GET", f"{ECHO}/status/{status}").status, int(status))
            for _ in range(6):
                self.assertEqual(wire.ask("GET", f"{ECHO}/nowhere").status, 404)
            self.assertEqual(wire.ask("DELETE", f"{ECHO}/inline").status, 405)
            self.assertEqual(wire.ask("HEAD", f"{ECHO}/status/200").status, 200)
        after, now = page(self.daemon), self.daemon.get("/api/v1/system/metrics").json["modules"]["echo"]

        def grew(**labels):
            return after[REQUESTS].sum(**labels) - before.sum(**labels)

        route = {"module": "echo", "route": "/status/:code", "method": "GET"}
        self.assertEqual([grew(**route, status=status) for status in ("2xx", "4xx", "5xx", "aborted")], [14, 5, 7, 0])
        self.assertEqual(grew(module="echo", route="_unmatched", method="GET", status="4xx"), 6)
        self.assertEqual(grew(module="echo", route="_unmatched", method="DELETE", status="4xx"), 1)
        self.assertEqual(now["requestCount"] - was["requestCount"], 33)
        self.assertEqual(now["errorCount"] - was["errorCount"], 7)
        durations = after["bulkhead_gateway_request_duration_seconds"]
        self.assertEqual(durations.value("_count", **route), after[REQUESTS].sum(**route))
        self.assertGreater(durations.value("_sum", **route), 0)

    def test_a_client_that_leaves_is_counted_as_aborted(self):
        route = {"module": "echo", "route": "/slow", "status": "aborted"}
        before = page(self.daemon)[REQUESTS].sum(**route)
        wire = Wire(self.daemon)
        wire.send(wire.head("GET", f"{ECHO}/slow?ms=900"))
        wait_until(lambda: page(self.daemon)["bulkhead_gateway_requests_in_flight"].value() > 1, "the request is under way")  # beside our own
        wire.socket.close()
        wait_until(lambda: page(self.daemon)[REQUESTS].sum(**route) == before + 1, "it is counted")

    def test_the_page_is_what_prometheus_and_promtool_want(self):
        self.daemon.post("/api/v1/modules/echo/jobs/work/run?wait=20s", {"payload": {"fail": "ON_PURPOSE", "retryable": False}})
        answer = self.daemon.get("/metrics")
        self.assertEqual(answer.header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
        families = exposition.parse(answer.body.decode())
        self.assertIn(exposition.promtool(answer.body.decode()), ("", None))
        self.assertEqual(families["bulkhead_module_state"].value(module="echo", state="RUNNING"), 1)
        self.assertEqual(families["bulkhead_module_state"].sum(module="echo"), 1)
        self.assertEqual(families["bulkhead_worker_custom"].value(module="echo", worker="0", name="answer"), 42)
        self.assertGreaterEqual(families["bulkhead_job_attempts_total"].value(module="echo", job="work", outcome="FAILED"), 1)
        self.assertEqual(families["bulkhead_worker_metrics_answered"].value(module="echo", worker="0"), 1)
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds", "bulkhead_gateway_links",
                     "bulkhead_database_connections_limit", "bulkhead_gateway_connections"):
            self.assertGreater(families[name].sum(), 0, name)
        for name in ("bulkhead_control_loop_lag_seconds", "bulkhead_pool_queued_tasks", "bulkhead_gateway_retries_total",
                     "bulkhead_gateway_unavailable_total", "bulkhead_module_log_lines_dropped_total", "bulkhead_spans_total",
                     "bulkhead_worker_restarts_total", "bulkhead_build_info"):
            self.assertIn(name, families)

    def test_both_pages_want_a_token_with_the_permission(self):
        reader, other = self.daemon.make_token("scraper", "metrics:read"), self.daemon.make_token("no-scraper", "modules:read")
        for path in ("/metrics", "/api/v1/system/metrics"):
            self.assertError(self.daemon.get(path, token=None), 401, "UNAUTHENTICATED")
            self.assertError(self.daemon.get(path, token="rubbish"), 401, "UNAUTHENTICATED")
            self.assertError(self.daemon.get(path, token=other), 403, "FORBIDDEN")
            self.assertEqual(self.daemon.get(path, token=reader).status, 200)
        self.assertError(self.daemon.post("/metrics"), 405, "METHOD_NOT_ALLOWED")

    def test_paths_and_methods_that_somebody_makes_up_make_no_series(self):
        def series(families):
            return {key for family in families.values() for key in family.samples}

        def make_up(number):
            for path in (f"{ECHO}/made-up-{number}", f"/api/v1/m/nobody-{number}/x", f"/api/v1/made-up/{number}", f"{ECHO}/echo/{number}", f"/{number}"):
                for method in ("GET", f"MADEUP{number}"):
                    wire.ask(method, path)

        with Wire(self.daemon) as wire:
            make_up(0)
            before = series(page(self.daemon))
            for number in range(1, 40):
                make_up(number)
        new = {key for key in series(page(self.daemon)) - before if key[0].startswith("bulkhead_gateway_re")}
        self.assertEqual({dict(labels).get("route") for _name, labels in new} - {None, "/metrics"}, set())
        self.assertFalse([key for key in before if "made" in str(key).lower()])

    def test_admin_calls_are_counted_by_their_pattern(self):
        self.daemon.get("/api/v1/modules/echo")
        self.daemon.get("/healthz", token=None)
        requests = page(self.daemon)[REQUESTS]
        for route in ("/api/v1/modules/:name", "/healthz"):
            self.assertGreater(requests.value(module="_admin", route=route, method="GET", status="2xx"), 0)


class Hung(DaemonTest):
    def test_a_module_that_hangs_holds_up_neither_page(self):
        daemon = self.daemon(**OPTIONS)
        worker = daemon.module("echo")["workers"][0]
        told = daemon.get("/api/v1/system/metrics").json["modules"]["echo"]["workers"][0]
        self.assertTrue(told["answered"])
        os.kill(worker["pid"], signal.SIGSTOP)
        try:
            # Every request of these is an answer in time; after the cache has run out, one of them is the first that asks the hung worker.
            def asked():
                for path in ("/api/v1/system/metrics", "/metrics", "/api/v1/system/modules"):
                    answer, took = timed(lambda path=path: daemon.get(path))
                    self.assertEqual(answer.status, 200)
                    self.assertLess(took, ANSWER_S, path)
                return not daemon.get("/api/v1/system/metrics").json["modules"]["echo"]["workers"][0]["answered"]

            wait_until(asked, "that it did not answer is told", within=3 * CACHE_S * SLOW)
            now = daemon.get("/api/v1/system/metrics").json["modules"]["echo"]["workers"][0]
            self.assertEqual((now["instance"], now["custom"], now["at"]), (told["instance"], told["custom"], told["at"]), "the last values")
            self.assertGreater(now["ageMs"], 0)
            families = page(daemon)
            self.assertEqual(families["bulkhead_worker_metrics_answered"].value(module="echo", worker="0"), 0)
            self.assertGreater(families["bulkhead_worker_metrics_age_seconds"].value(module="echo", worker="0"), 1)
        finally:
            os.kill(worker["pid"], signal.SIGCONT)
        wait_until(lambda: daemon.get("/api/v1/system/metrics").json["modules"]["echo"]["workers"][0]["answered"], "it answers again",
                   within=4 * CACHE_S * SLOW)

    def test_refusals_for_lack_of_a_worker_are_counted_by_reason(self):
        daemon = self.daemon(**OPTIONS)

        def crash():
            """Beyond those crashes that are forgiven at once nothing waits for the next start."""
            answer = daemon.post(f"{ECHO}/crash", {})
            return answer.status == 503 and "no ready worker" in answer.error["message"]

        self.assertTrue(any(crash() for _ in range(30)))
        families = page(daemon)
        self.assertEqual(families["bulkhead_gateway_unavailable_total"].value(reason="no_worker"), 1)
        self.assertGreaterEqual(families["bulkhead_module_exits_total"].value(module="echo", cause="SIGNAL"), 5)
        self.assertGreaterEqual(families["bulkhead_worker_restarts_total"].value(module="echo", worker="0"), 5)


    def test_an_answer_that_a_module_breaks_off_is_an_error_of_the_module(self):
        daemon = self.daemon(**OPTIONS)
        with Wire(daemon) as wire, self.assertRaises((EOFError, ConnectionError)):
            wire.ask("GET", f"{ECHO}/crash-midway", "X-Request-Id: broken")
        route = {"module": "echo", "route": "/crash-midway"}
        wait_until(lambda: page(daemon)[REQUESTS].sum(**route, status="5xx") == 1, "it is counted")
        self.assertEqual(page(daemon)[REQUESTS].sum(**route), 1)
        wait_until(lambda: "request broken off" in daemon.log() and "request=broken" in daemon.log(), "its line in the log")


class Traces(SharedDaemonTest):
    options = OPTIONS

    def seen(self, *headers, path="/echo"):
        with Wire(self.daemon) as wire:
            answer = wire.ask("GET", ECHO + path, *headers)
        return answer.data

    def header(self, name, *headers):
        return [value for key, value in self.seen(*headers)["headers"] if key == name]

    def test_a_trace_goes_from_the_client_through_the_gateway_to_the_module(self):
        for path in ("/trace", "/trace/inline"):
            told = self.seen(f"traceparent: {TRACEPARENT}", "tracestate: a=1, b=2", "tracestate: c=3", path=path)
            self.assertEqual((told["traceId"], told["sampled"]), (TRACE, True))
            self.assertNotEqual(told["spanId"], SPAN)
            self.assertEqual(told["current"], f"00-{TRACE}-{told['spanId']}-01")
            self.assertRegex(told["headers"]["traceparent"], rf"^00-{TRACE}-[0-9a-f]{{16}}-01$")
            self.assertNotIn(told["spanId"], told["headers"]["traceparent"])
            self.assertEqual(told["headers"]["tracestate"], "a=1,b=2,c=3")

    def test_an_unsampled_trace_stays_unsampled(self):
        self.assertRegex(self.header("traceparent", f"traceparent: 00-{TRACE}-{SPAN}-00")[0], rf"^00-{TRACE}-[0-9a-f]{{16}}-00$")

    def test_without_a_trace_each_request_begins_one(self):
        first, second = self.header("traceparent"), self.header("traceparent")
        for told in (first, second):
            self.assertRegex(told[0], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
        self.assertNotEqual(first[0][3:35], second[0][3:35])

    def test_what_is_malformed_begins_a_new_trace(self):
        for bad in ("rubbish", TRACEPARENT[:-1], TRACEPARENT + "0", TRACEPARENT.upper(), f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
                    f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-0x", f"00_{TRACE}_{SPAN}_01", f"{TRACEPARENT}-more"):
            with self.subTest(bad):
                told = self.header("traceparent", f"traceparent: {bad}", "tracestate: a=1")
                self.assertEqual(len(told), 1)
                self.assertRegex(told[0], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
                self.assertNotIn(TRACE, told[0])
                self.assertEqual(self.header("tracestate", f"traceparent: {bad}", "tracestate: a=1"), [])
        twice = self.header("traceparent", f"traceparent: {TRACEPARENT}", f"traceparent: {TRACEPARENT}")
        self.assertEqual(len(twice), 1)
        self.assertNotIn(TRACE, twice[0])

    def test_a_version_to_come_is_understood_and_answered_in_ours(self):
        self.assertRegex(self.header("traceparent", f"traceparent: cc-{TRACE}-{SPAN}-03-more")[0], rf"^00-{TRACE}-[0-9a-f]{{16}}-01$")

    def test_a_tracestate_beyond_its_limits_is_cut_or_dropped(self):
        many = ",".join(f"k{number}=1" for number in range(33))
        self.assertEqual(self.header("tracestate", f"traceparent: {TRACEPARENT}", f"tracestate: {many}"), [])
        long = ",".join(f"k{number}={'v' * 90}" for number in range(8))
        self.assertEqual(self.header("tracestate", f"traceparent: {TRACEPARENT}", f"tracestate: {long}"), [",".join(long.split(",")[:5])])

    def test_a_run_of_a_job_has_a_trace_of_its_own(self):
        results = [self.daemon.post("/api/v1/modules/echo/jobs/work/run?wait=20s", {"payload": {"trace": True}}).data["result"] for _ in range(2)]
        for result in results:
            self.assertRegex(result["trace"], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
            self.assertEqual(result["current"], result["trace"])
        self.assertNotEqual(results[0]["trace"][3:35], results[1]["trace"][3:35])


class Export(DaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.pb = collecting.descriptors()

    def collected(self, **options):
        collector = collecting.Collector(self.pb)
        self.addCleanup(collector.stop)
        config = options.pop("config", "")
        daemon = self.daemon(**{**OPTIONS, **options}, config=f"telemetry:\n  otlp:\n    endpoint: {collector.url}\n{config}")
        return daemon, collector

    def test_a_collector_gets_the_spans_of_requests(self):
        daemon, collector = self.collected(config="    headers: [x-tenant=blue, authorization=Bearer a-secret]\n")
        with Wire(daemon) as wire:
            answer = wire.ask("GET", f"{ECHO}/items/one/parts/two?secret=no", f"traceparent: {TRACEPARENT}", "tracestate: a=1", "X-Request-Id: order-4711")
            self.assertEqual(answer.status, 200)
            told = wire.ask("GET", f"{ECHO}/trace", f"traceparent: {TRACEPARENT}").data
            wire.ask("GET", f"{ECHO}/status/503")
            wire.ask("GET", f"{ECHO}/nowhere/at-all")
        name = "GET /api/v1/m/echo/items/:item/parts/:part"
        span = collector.span(name)
        self.assertEqual((span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state), (TRACE, SPAN, "a=1"))
        self.assertEqual((len(span.span_id), span.kind, span.status.code), (8, self.pb.Span.SPAN_KIND_SERVER, 0))
        self.assertLessEqual(span.start_time_unix_nano, span.end_time_unix_nano)
        self.assertLess(abs(time.time() - span.end_time_unix_nano / 1e9), 120 * SLOW)
        worker = daemon.module("echo")["workers"][0]["instance"]
        wanted = {"http.request.method": "GET", "http.route": "/api/v1/m/echo/items/:item/parts/:part", "url.path": f"{ECHO}/items/one/parts/two",
                  "url.scheme": "http", "http.response.status_code": 200, "client.address": "127.0.0.1", "bulkhead.module": "echo",
                  "bulkhead.worker": worker, "bulkhead.request_id": "order-4711"}
        has = collecting.attributes(span)
        self.assertEqual({key: has.get(key) for key in wanted}, wanted)
        self.assertNotIn("secret", str(has))
        # The module's parent is this very span.
        self.assertEqual(collector.span("GET /api/v1/m/echo/trace").span_id.hex(), told["spanId"])
        failed = collector.span("GET /api/v1/m/echo/status/:code")
        self.assertEqual((failed.status.code, collecting.attributes(failed)["error.type"]), (self.pb.Status.STATUS_CODE_ERROR, "503"))
        self.assertEqual(failed.parent_span_id, b"")
        unmatched = collector.span("GET")
        self.assertEqual((unmatched.status.code, collecting.attributes(unmatched)["http.response.status_code"]), (0, 404))
        path, headers, _status = collector.requests[0]
        self.assertEqual((path, headers["content-type"], headers["x-tenant"], headers["authorization"]),
                         ("/v1/traces", "application/x-protobuf", "blue", "Bearer a-secret"))
        self.assertEqual(collector.resources[0]["service.name"], "bulkhead")
        self.assertTrue(collector.resources[0]["service.version"] and collector.resources[0]["service.instance.id"])
        self.assertNotIn("a-secret", daemon.log())

    def test_a_collector_gets_the_spans_of_runs(self):
        daemon, collector = self.collected()
        good = daemon.post("/api/v1/modules/echo/jobs/work/run?wait=20s", {"payload": {"trace": True}}).data
        bad = daemon.post("/api/v1/modules/echo/jobs/work/run?wait=20s", {"payload": {"fail": "ON_PURPOSE", "retryable": False}}).data
        span = collector.span("job work", bulkhead__run_id=good["id"])
        self.assertEqual(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01", good["result"]["trace"])
        self.assertEqual((span.parent_span_id, span.kind, span.status.code), (b"", self.pb.Span.SPAN_KIND_INTERNAL, 0))
        has = collecting.attributes(span)
        self.assertEqual((has["bulkhead.module"], has["bulkhead.attempt"], has["bulkhead.outcome"], has["bulkhead.worker"]),
                         ("echo", 1, "SUCCEEDED", good["worker"]))
        span = collector.span("job work", bulkhead__run_id=bad["id"])
        self.assertEqual((span.status.code, collecting.attributes(span)["error.type"]), (self.pb.Status.STATUS_CODE_ERROR, "ON_PURPOSE"))

    def test_a_request_that_waited_for_its_worker_tells_so(self):
        daemon, collector = self.collected()
        with Wire(daemon) as crashing, Wire(daemon) as waiting:
            crashing.ask("POST", f"{ECHO}/crash", "Content-Length: 0")
            self.assertEqual(waiting.ask("GET", f"{ECHO}/echo").status, 200)
        span = collector.span("GET /api/v1/m/echo/echo")
        events = [event.name for event in span.events]
        # Retried more than once where a link was lost before the request was on it.
        self.assertRegex(" ".join(events), r"^((retried|parked unparked)( |$))*$")
        families = page(daemon)
        self.assertEqual(families["bulkhead_gateway_parked_total"].value(), events.count("parked"))
        for event in span.events:
            self.assertTrue(span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano)

    def test_who_is_not_sampled_by_the_caller_or_the_ratio_is_not_exported(self):
        daemon, collector = self.collected(config="    sampleRatio: 0\n")
        with Wire(daemon) as wire:
            for _ in range(20):
                wire.ask("GET", f"{ECHO}/inline")
            wire.ask("GET", f"{ECHO}/inline", f"traceparent: 00-{TRACE}-{SPAN}-00")
            wire.ask("GET", f"{ECHO}/public", f"traceparent: {TRACEPARENT}")
        collector.span("GET /api/v1/m/echo/public")
        self.assertEqual([span.name for span in collector.spans], ["GET /api/v1/m/echo/public"])

    def test_a_collector_that_is_busy_gets_them_later(self):
        daemon, collector = self.collected()
        collector.answers, collector.retry_after = [503, 429, 502, 504], 0
        daemon.get(f"{ECHO}/special")
        collector.span("GET /api/v1/m/echo/special")
        self.assertEqual([status for _path, _headers, status in collector.requests[:5]], [503, 429, 502, 504, 200])
        families = page(daemon)
        self.assertEqual(families["bulkhead_spans_total"].value(outcome="dropped"), 0)
        self.assertGreaterEqual(families["bulkhead_span_export_failures_total"].value(), 4)

    def test_what_a_collector_refuses_is_given_up_and_counted(self):
        daemon, collector = self.collected()
        collector.answers = [400]
        daemon.get(f"{ECHO}/special")
        wait_until(lambda: page(daemon)["bulkhead_spans_total"].value(outcome="dropped") >= 1, "the refused spans are counted")
        self.assertEqual([span.name for span in collector.spans if span.name.endswith("/special")], [])
        collector.rejected = 1
        wait_until(lambda: page(daemon)["bulkhead_spans_total"].value(outcome="rejected") >= 1, "what a collector did not take is counted")

    def test_a_shutdown_exports_what_waits(self):
        daemon, collector = self.collected()
        daemon.get(f"{ECHO}/special")
        code, _took = daemon.stop()
        self.assertEqual(code, 0)
        self.assertIn("GET /api/v1/m/echo/special", [span.name for span in collector.spans])

    def load(self, daemon, requests):
        """So many requests, pipelined in part; every answer is a 200."""
        with Wire(daemon, timeout=60 * SLOW) as wire:
            head, batch = wire.head("GET", f"{ECHO}/inline"), 50
            for _ in range(requests // batch):
                wire.send(head * batch)
                for _ in range(batch):
                    self.assertEqual(wire.answer().status, 200)

    def resident(self, daemon):
        return page(daemon)["process_resident_memory_bytes"].value()

    def test_a_collector_that_is_away_costs_spans_and_nothing_else(self):
        daemon = self.daemon(**OPTIONS, config="telemetry:\n  otlp:\n    endpoint: http://127.0.0.1:1\n")
        self.load(daemon, 10_000)  # more than the queue holds
        spans = page(daemon)["bulkhead_spans_total"]
        self.assertEqual(spans.value(outcome="exported"), 0)
        self.assertGreater(spans.value(outcome="dropped"), 0)
        before = self.resident(daemon)
        self.load(daemon, 10_000)
        if MEASURES_MEMORY:
            self.assertLess(self.resident(daemon) - before, 16 * MEGABYTE)
        self.assertEqual(page(daemon)[REQUESTS].value(module="echo", route="/inline", method="GET", status="2xx"), 20_000)
        code, took = daemon.stop()
        self.assertEqual(code, 0)

    def test_a_collector_that_does_not_answer_holds_up_nobody(self):
        daemon, collector = self.collected()
        collector.hold.set()
        daemon.get(f"{ECHO}/echo")
        _none, took = timed(lambda: self.load(daemon, 1_000))
        self.assertLess(took, 30 * SLOW)
        code, took = daemon.stop()
        self.assertEqual(code, 0)
        self.assertLess(took, 20 * SLOW)


class AccessLogs(DaemonTest):
    def lines(self, daemon):
        told = []
        for line in daemon.log().splitlines():
            if line.startswith("{") and '"component":"access"' in line:
                told.append(json.loads(line))
        return told

    def traffic(self, access):
        daemon = self.daemon(**OPTIONS, config=f"log:\n  format: json\n{access}")
        with Wire(daemon) as wire:
            wire.ask("GET", f"{ECHO}/status/200", f"traceparent: {TRACEPARENT}", "X-Request-Id: good")
            wire.ask("GET", f"{ECHO}/status/404", "X-Request-Id: lost")
            wire.ask("GET", f"{ECHO}/status/500", "X-Request-Id: bad")
            wire.ask("GET", "/api/v1/modules/echo", "X-Request-Id: admin")
            wire.ask("GET", f"{ECHO}/public", "X-Request-Id: public")
        with Wire(daemon) as wire:
            wire.ask("GET", f"{ECHO}/status/503", "X-Request-Id: end")
        return daemon

    def test_all_has_a_line_for_each_request(self):
        daemon = self.traffic("  access: all\n")
        wait_until(lambda: "end" in [line["request"] for line in self.lines(daemon)], "the last line")
        lines = {line["request"]: line for line in self.lines(daemon)}
        good = lines["good"]
        self.assertEqual({name: good[name] for name in ("module", "route", "method", "status", "trace", "subject", "address", "level")},
                         {"module": "echo", "route": "/status/:code", "method": "GET", "status": "200", "trace": TRACE, "subject": "admin",
                          "address": "127.0.0.1", "level": "info"})
        self.assertEqual(good["bytes"], str(len("as you wish")))
        self.assertRegex(good["ms"], r"^\d+\.\d{3}$")
        self.assertEqual((lines["bad"]["status"], lines["bad"]["level"]), ("500", "warn"))
        self.assertEqual((lines["admin"]["module"], lines["admin"]["route"], lines["admin"]["subject"]), ("_admin", "/api/v1/modules/:name", "admin"))
        self.assertEqual([line["request"] for line in self.lines(daemon) if line["request"] in ("good", "lost", "bad", "admin", "end")],
                         ["good", "lost", "bad", "admin", "end"])

    def test_without_a_setting_only_errors_have_one(self):
        daemon = self.traffic("")
        wait_until(lambda: "end" in [line["request"] for line in self.lines(daemon)], "the last line")
        self.assertEqual([line["request"] for line in self.lines(daemon)], ["bad", "end"])

    def test_off_has_none(self):
        daemon = self.traffic("  access: off\n")
        self.assertEqual(daemon.stop()[0], 0)
        self.assertEqual(self.lines(daemon), [])


if __name__ == "__main__":
    harness.main()
