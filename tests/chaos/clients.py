"""The load: clients that keep their connection and ask all modules, each answer held against what may be answered."""

import http.client
import json
import threading
import time

from harness import SLOW
from plan import client_chance
from record import DOCUMENTED

PAUSE_S = 0.004
TIMEOUT_S = 60 * SLOW      # no answer at all; routes have a timeout of their own, far below
STREAM_BYTES = 300_000     # more than a stream's window
# What a module that is interfered with may answer, or the gateway in its place. A 404 only while it may be switched off.
EXCUSED = {(502, "BAD_GATEWAY"), (503, "MODULE_UNAVAILABLE"), (503, "OVERLOADED"), (504, "GATEWAY_TIMEOUT")}
DATABASE = (503, "DATABASE_UNAVAILABLE")
AWAY = (404, "ROUTE_NOT_FOUND")
CUT_OFF = "cut off behind the head"


class Clients:
    """`count` threads. steady: names that nobody touches; shaken: {name: Presence}. `stored` has the marks that a module has confirmed to keep."""

    def __init__(self, record, seed, count, address, token, steady, shaken):
        self.record, self.address, self.steady, self.shaken = record, address, steady, shaken
        self.headers = {"Authorization": f"Bearer {token}"}
        self.stored = {name: set() for name in shaken}
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number, client_chance(seed, number)), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number, chance):
        connection, names, count = self._connect(), list(self.shaken), 0
        while not self._done.wait(PAUSE_S):
            count += 1
            mark = f"{number}-{count}"
            dice = chance.random()
            if dice < 0.4:
                kind, name = chance.choice(("who", "work", "stream")), chance.choice(self.steady)
            else:
                kind, name = chance.choice(("who", "who", "work", "work", "stream", "echo", "entries")), chance.choice(names)
            connection = self._ask(connection, kind, name, mark)
        connection.close()

    def _connect(self):
        host, port = self.address.rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)

    def _ask(self, connection, kind, name, mark):
        """One request; answers the connection for the next one."""
        method = "POST" if kind in ("echo", "entries") else "GET"
        body = mark.encode() * 50 if kind == "echo" else None
        query = f"&bytes={STREAM_BYTES}" if kind == "stream" else ""
        status, headers, data, failure = 0, {}, b"", None
        began = time.monotonic()
        try:
            connection.request(method, f"/api/v1/m/{name}/{kind}?n={mark}{query}", body, self.headers)
            answer = connection.getresponse()
            status, headers = answer.status, {key.lower(): value for key, value in answer.getheaders()}
            data = answer.read()
        except http.client.IncompleteRead as error:
            data, failure = error.partial, CUT_OFF
        except (OSError, http.client.HTTPException) as error:
            failure = CUT_OFF if status else type(error).__name__
        ended = time.monotonic()
        if failure:
            connection.close()
            connection = self._connect()
        self._judge(kind, name, mark, status, headers, data, failure, began, ended)
        return connection

    def _judge(self, kind, name, mark, status, headers, data, failure, began, ended):
        touched = name in self.shaken
        group = f"{'touched' if touched else 'untouched'} {'POST' if kind in ('echo', 'entries') else 'GET'}"
        who = f"{kind} {mark} of {name}"
        if status == 200 and (not failure or (failure == CUT_OFF and kind == "stream")):
            self._check_whose(kind, name, mark, data, whole=not failure, who=who)
        code = "" if failure or status == 200 else error_code(data)
        retry = ", Retry-After" if "retry-after" in headers else ""
        served = status == 200 and not failure
        self.record.outcome(group, failure or f"{status} {code}".strip() + retry, ended - began)
        sentence = f"{who}: {failure or ''} {status} {data[:300]}"
        if not touched:
            self.record.check("an untouched module answers every GET", served, sentence)
            return
        phases = self.shaken[name].during(began, ended)
        if phases == {"away"}:
            self.record.check("of a module that is switched off nothing answers", (status, code) == AWAY, sentence)
        if served and kind == "entries":
            self.stored[name].add(mark)
        if not served:
            self._check_failure(kind, status, code, failure, retry, phases, sentence)

    def _check_whose(self, kind, name, mark, data, whole, who):
        """That the answer is this module's, to this request."""
        if kind == "stream":
            line = f"{name} {mark}\n".encode()
            lines = data.split(b"\n")
            wrong = [piece for piece in lines[:-1] if piece + b"\n" != line] + ([lines[-1]] if not line.startswith(lines[-1]) else [])
            right = not wrong and (not whole or len(data) >= STREAM_BYTES)
            said = wrong[:1] or len(data)
        else:
            said = parsed(data).get("data", {})
            right = said.get("module") == name and said.get("n") == mark and (kind != "echo" or said.get("body") == mark * 50)
        self.record.check("an answer is the asked module's, to this request", right, f"{who} was answered {str(said)[:300]}")

    def _check_failure(self, kind, status, code, failure, retry, phases, sentence):
        if failure:
            # A stream's head is with the client when its worker dies; nothing else may break off.
            self.record.check("a failure is of a documented kind", failure == CUT_OFF and kind == "stream", sentence)
            return
        excused = (status, code) in EXCUSED or (kind == "entries" and (status, code) == DATABASE) or ((status, code) == AWAY and phases != {"there"})
        self.record.check("a failure is of a documented kind", excused and (status, code) in DOCUMENTED, sentence)
        if status == 503:
            self.record.check("a 503 says when to come again", bool(retry), sentence)


def parsed(data):
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def error_code(data):
    error = parsed(data).get("error")
    return error.get("code", "") if isinstance(error, dict) else ""
