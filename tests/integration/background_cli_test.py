"""bulkhead jobs, runs and events against the real daemon: tables, JSON, live progress, downloads, questions, errors and exit codes. With fakes/jobber,
fakes/sender and fakes/ledger."""

import contextlib
import json
import os
import pty
import re
import subprocess
import tempfile
import unittest

import harness
from artifacts_test import pattern
from events_test import OPTIONS as EVENTS
from harness import SLOW, DaemonTest, SharedDaemonTest, copies, run_serve, wait_until
from jobs_queue_test import JOBBER, begun

DONE, REFUSED, USAGE, UNREACHABLE, UNFINISHED, UNSUCCESSFUL = range(6)
WITHIN = 60 * SLOW
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class CliTest(SharedDaemonTest):
    def cli(self, *arguments, token=..., **options):
        env = {"BULKHEAD_SERVER": self.daemon.admin_address, "BULKHEAD_TOKEN": self.daemon.token if token is ... else token}
        return run_serve(*arguments, env=env, within=WITHIN, **options)

    def done(self, *arguments, **options):
        """What it prints, when nothing is wrong."""
        code, out, err = self.cli(*arguments, **options)
        self.assertEqual((code, err), (DONE, ""), f"{arguments}: {out}{err}")
        return out

    def as_json(self, *arguments):
        """The document that --json prints, which is what REST answers."""
        document = json.loads(self.done(*arguments, "--json"))
        self.assertIs(document["success"], True)
        return document

    def refused(self, *arguments, code, says=(), exit_code=REFUSED):
        got, out, err = self.cli(*arguments)
        self.assertEqual((got, out), (exit_code, ""), f"{arguments}: {err}")
        for word in (code, *says):
            self.assertIn(word, err, arguments)
        got, out, err = self.cli(*arguments, "--json")
        self.assertEqual((got, err), (exit_code, ""), arguments)
        self.assertEqual(json.loads(out)["error"]["code"], code)

    def at_a_terminal(self, *arguments, types=None):
        """(exit code, stdout, what stood on the terminal) of a person who types this when he is asked."""
        terminal, inside = pty.openpty()
        env = {**os.environ, "BULKHEAD_SERVER": self.daemon.admin_address, "BULKHEAD_TOKEN": self.daemon.token}
        process = subprocess.Popen([harness.BINARY, *arguments], env=env, stdin=inside, stdout=subprocess.PIPE, stderr=inside, text=True)
        os.close(inside)
        shown = ""
        with contextlib.suppress(OSError):  # its end
            while True:
                shown += os.read(terminal, 4096).decode()
                if types is not None and "[y/N] " in shown:
                    os.write(terminal, types.encode())
                    types = None
        os.close(terminal)
        out, _err = process.communicate(timeout=WITHIN)
        return process.returncode, out, shown


class Jobs(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="bh-", dir="/tmp")
        os.chmod(cls.folder.name, 0o755)
        jobber = JOBBER["modules_dir"] / "jobber"
        capabilities = json.loads((jobber / "manifest.json").read_text())["capabilities"]
        yearly = {"name": "yearly", "schedule": "0 5 1 1 *", "timeZone": "Europe/Berlin", "timeout": 1000}
        handlers = [yearly if job["name"] == "stamp" else job for job in capabilities["jobs"]["handlers"]]
        copies(jobber, ["jobber"], cls.folder.name, capabilities={**capabilities, "jobs": {"handlers": handlers}})
        cls.options = {"modules": ["jobber"], "modules_dir": cls.folder.name}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.folder.cleanup()

    def run_job(self, job, payload, *more):
        return self.as_json("jobs", "run", "jobber", job, "--payload", json.dumps(payload), *more)["data"]

    def test_jobs_are_listed_with_schedule_next_run_and_last_result(self):
        run = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run?wait=30s", {"payload": {}}).data
        lines = self.done("jobs", "jobber").splitlines()
        self.assertRegex(lines[0], r"^MODULE +JOB +SCHEDULE +TIME ZONE +NEXT RUN +LAST RUN +RESULT$")
        rows = {line.split()[1]: line for line in lines[1:]}
        self.assertRegex(rows["yearly"], rf"^jobber +yearly +0 5 1 1 \* +Europe/Berlin +\d{{4}}-01-01T04:00:00Z +never$")
        self.assertRegex(rows["talk"], rf"^jobber +talk +manual +- +- +{re.escape(run['queuedAt'][:19])}Z +SUCCEEDED$")
        self.assertEqual(len({line.index("SCHEDULE") if n == 0 else re.search(r"manual|0 5", line).start() for n, line in enumerate(lines)}), 1, lines)
        self.assertEqual(self.done("jobs"), "\n".join(lines) + "\n", "of all modules")
        self.assertEqual(self.as_json("jobs", "jobber"), self.daemon.get("/api/v1/modules/jobber/jobs").json)
        self.refused("jobs", "nobody", code="MODULE_NOT_FOUND", says=["bulkhead migrate status"])

    def test_a_job_is_run_with_a_payload_from_anywhere(self):
        out = self.done("jobs", "run", "jobber", "talk", "--payload", "{}")
        run_id = re.fullmatch(r"Queued as (\S+)\. `bulkhead runs \1 --follow` shows how it goes on\.\n", out).group(1)
        self.assertIn("  result     3\n", self.done("runs", run_id, "--follow"))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('{"lines": 4}')
            file.flush()
            run = self.as_json("jobs", "run", "jobber", "talk", "--payload", f"@{file.name}")["data"]
            self.assertEqual((run["payload"], run["trigger"]), ({"lines": 4}, "manual"))
        env = {**os.environ, "BULKHEAD_SERVER": self.daemon.admin_address, "BULKHEAD_TOKEN": self.daemon.token}
        piped = subprocess.run([harness.BINARY, "jobs", "run", "jobber", "talk", "--payload", "-", "--json"], input='{"lines": 5}', env=env, text=True,
                               capture_output=True, timeout=WITHIN, check=True)
        self.assertEqual(json.loads(piped.stdout)["data"]["payload"], {"lines": 5})
        for wrong in ("{", "@/nowhere", "@/dev/null"):
            self.refused("jobs", "run", "jobber", "talk", "--payload", wrong, code="CONFIG_INVALID", says=["payload"], exit_code=USAGE)
        self.refused("jobs", "run", "jobber", "nothing", code="JOB_NOT_FOUND", says=["bulkhead jobs NAME"])
        self.assertEqual(self.cli("jobs", "run", "jobber")[0], USAGE)

    def test_a_run_is_followed_to_its_end_and_the_exit_code_is_its_result(self):
        code, out, err = self.cli("jobs", "run", "jobber", "talk", "--payload", '{"lines": 3, "ms": 200}', "--follow")
        self.assertEqual(code, DONE, err)
        self.assertEqual(re.findall(r"(?m)^\S+Z (INFO |WARN ) (line \d)$", out), [("INFO ", "line 1"), ("WARN ", "line 2"), ("INFO ", "line 3")])
        self.assertRegex(out, r"(?m)^Run \S+ of jobber/talk: SUCCEEDED$")
        self.assertRegex(out, r"(?m)^  result     3$")
        self.assertRegex(err, r"^Run \S+\n$")
        code, out, err = self.cli("jobs", "run", "jobber", "leave", "--payload", '{"files": [], "fails": true}', "--follow")
        self.assertEqual(code, UNSUCCESSFUL, err)
        self.assertRegex(out, r"(?m)^  error      AS_TOLD: the run was told to fail$")
        self.assertRegex(out, r"(?m)^  attempt    3 of 3$")
        for attempt in (1, 2):
            self.assertIn(f"Attempt {attempt} of 3 has failed: AS_TOLD: the run was told to fail", err)
        self.assertEqual(self.cli("jobs", "run", "jobber", "late", "--follow")[0], UNSUCCESSFUL, "out of time")

    def test_for_machines_each_change_and_each_line_is_a_line_of_json(self):
        code, out, err = self.cli("jobs", "run", "jobber", "talk", "--payload", '{"lines": 3, "ms": 100}', "--follow", "--json")
        self.assertEqual((code, err), (DONE, ""))
        told = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["message"] for line in told if "seq" in line], ["line 1", "line 2", "line 3"])
        self.assertEqual([run for run in told if "status" in run][-1], self.daemon.get(f"/api/v1/runs/{told[-1]['id']}").data)

    def test_who_watches_sees_progress_that_goes_before_what_follows(self):
        code, out, shown = self.at_a_terminal("jobs", "run", "jobber", "talk", "--payload", '{"lines": 4, "ms": 300}', "--follow")
        self.assertEqual(code, DONE, shown)
        self.assertIn("jobber/talk RUNNING 50 % said 2", shown)
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown[-200:]))
        self.assertNotIn("\x1b", out)

    def test_runs_are_listed_and_filtered_and_one_is_shown_with_its_log_and_files(self):
        files = [{"name": "report.txt", "type": "text/plain", "text": "hello"}, {"name": "all.bin", "size": 700_001}]
        run = self.daemon.post("/api/v1/modules/jobber/jobs/leave/run?wait=30s", {"payload": {"files": files}}).data
        talk = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run?wait=30s", {"payload": {"lines": 2}}).data
        lines = self.done("runs", "--module", "jobber", "--job", "leave", "--status", "succeeded", "--limit", "500").splitlines()
        self.assertRegex(lines[0], r"^RUN +MODULE +JOB +STATUS +ATTEMPT +QUEUED +TOOK +NOTE$")
        self.assertTrue(any(re.match(rf"{run['id']} +jobber +leave +SUCCEEDED +1 of 3 +{MOMENT} +\d+ m?s$", line) for line in lines), lines)
        self.assertFalse(any(talk["id"] in line for line in lines))
        code, out, err = self.cli("runs", "--limit", "1")
        self.assertEqual((code, out.count("\n")), (DONE, 2))
        self.assertRegex(err, r"^1 of \d+ are shown; --limit N shows up to 500\.\n$")
        query = "module=jobber&status=SUCCEEDED&pageSize=3"
        self.assertEqual(self.as_json("runs", "--module", "jobber", "--status", "SUCCEEDED", "--limit", "3"), self.daemon.get(f"/api/v1/runs?{query}").json)
        self.assertEqual(self.done("runs", "--module", "nobody"), "There are no such runs.\n")
        shown = self.done("runs", talk["id"])
        for part in (f"Run {talk['id']} of jobber/talk: SUCCEEDED\n", "  attempt    1 of 1\n", "  trigger    manual\n", '  payload    {"lines":2}\n',
                     "  result     2\n", f"  worker     {talk['worker']}\n", "It has said:\n", " INFO  line 1\n", " WARN  line 2\n"):
            self.assertIn(part, shown)
        shown = self.done("runs", run["id"])
        self.assertRegex(shown, r"(?m)^NAME +TYPE +BYTES\nall\.bin +application/octet-stream +700001\nreport\.txt +text/plain +5$")
        self.assertEqual(self.as_json("runs", run["id"]), self.daemon.get(f"/api/v1/runs/{run['id']}").json)
        self.refused("runs", "00000000-0000-0000-0000-000000000000", code="RUN_NOT_FOUND", says=["`bulkhead runs`"])
        self.refused("runs", "--status", "HAPPY", code="INVALID_ARGUMENT", says=["SUCCEEDED"])
        for wrong in (("--follow",), (run["id"], "--module", "jobber")):
            self.assertEqual(self.cli("runs", *wrong)[0], USAGE, wrong)

    def test_a_file_of_a_run_is_downloaded_whole_and_overwrites_nothing_unasked(self):
        files = [{"name": "all.bin", "size": 700_001}, {"name": "empty"}, {"name": "größe.txt", "text": "grün"}]
        run = self.daemon.post("/api/v1/modules/jobber/jobs/leave/run?wait=30s", {"payload": {"files": files}}).data
        with tempfile.TemporaryDirectory(prefix="bh-", dir="/tmp") as folder:
            get = ("runs", "artifact", run["id"])
            self.assertEqual(self.done(*get, "all.bin", cwd=folder), "all.bin: 700001 bytes, application/octet-stream\n")
            with open(f"{folder}/all.bin", "rb") as file:
                self.assertEqual(file.read(), pattern(700_001))
            code, _out, err = self.cli(*get, "all.bin", cwd=folder)
            self.assertEqual(code, USAGE)
            self.assertIn("all.bin is there already: -o all.bin replaces it", err)
            self.done(*get, "all.bin", "-o", f"{folder}/all.bin")
            os.mkdir(f"{folder}/into")
            meta = self.as_json(*get, "größe.txt", "-o", f"{folder}/into")["data"]
            self.assertEqual(meta, next(a for a in run["artifacts"] if a["name"] == "größe.txt"))
            self.done(*get, "empty", "-o", f"{folder}/into/nothing")
            self.assertEqual(self.done(*get, "größe.txt", "-o", "-"), "grün")
            self.refused(*get, "other", "-o", f"{folder}/other", code="ARTIFACT_NOT_FOUND", says=["`bulkhead runs ID`"])
            self.refused(*get, "empty", "-o", f"{folder}/no/such/folder", code="CONFIG_INVALID", says=["-o"], exit_code=USAGE)
            self.assertEqual(sorted(os.listdir(folder)), ["all.bin", "into"], "nothing half-done")
            self.assertEqual(sorted(os.listdir(f"{folder}/into")), ["größe.txt", "nothing"])
            self.assertEqual(os.path.getsize(f"{folder}/into/nothing"), 0)

    def test_a_run_is_cancelled(self):
        run = self.run_job("talk", {"lines": 1000, "ms": 100})
        begun(self.daemon, run["id"])
        self.assertEqual(self.done("runs", "cancel", run["id"]), f"Run {run['id']} of jobber/talk: CANCELLED\n")
        self.assertEqual(self.done("runs", "cancel", run["id"]), f"Run {run['id']} of jobber/talk: CANCELLED\n", "again")
        self.assertEqual(self.cli("runs", run["id"], "--follow")[0], UNSUCCESSFUL)
        over = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run?wait=30s").data
        self.refused("runs", "cancel", over["id"], code="RUN_ENDED", says=["bulkhead runs ID"])

    def test_a_token_without_the_permission_is_told_which(self):
        reader = self.daemon.make_token("background-reader", "jobs:read")
        self.assertEqual(self.cli("runs", token=reader)[0], DONE)
        code, _out, err = self.cli("jobs", "run", "jobber", "talk", token=reader)
        self.assertEqual(code, REFUSED)
        for word in ("FORBIDDEN", "jobs:run", "Ask an administrator"):
            self.assertIn(word, err)
        code, _out, err = run_serve("runs", env={"BULKHEAD_SERVER": "127.0.0.1:1", "BULKHEAD_TOKEN": "x"})
        self.assertEqual(code, UNREACHABLE)
        self.assertIn("bulkhead serve", err)


class Ends(DaemonTest):
    def test_who_follows_a_run_while_the_supervisor_stops_is_told_so(self):
        daemon = self.daemon(**JOBBER)
        run = daemon.post("/api/v1/modules/jobber/jobs/talk/run", {"payload": {"lines": 1000, "ms": 100}}).data
        env = {**os.environ, "BULKHEAD_SERVER": daemon.admin_address, "BULKHEAD_TOKEN": daemon.token}
        follower = subprocess.Popen([harness.BINARY, "runs", run["id"], "--follow"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertIn("line 1", follower.stdout.readline())
        daemon.stop()
        _out, err = follower.communicate(timeout=WITHIN)
        self.assertEqual(follower.returncode, REFUSED, err)
        self.assertIn("SHUTTING_DOWN", err)
        self.assertIn("goes on when a supervisor is there again", err)


class Events(CliTest):
    options = EVENTS

    def publish(self, key, **payload):
        answer = self.daemon.post("/api/v1/m/sender/publish", {"topic": "ledger.entry", "key": key, "payload": payload})
        self.assertEqual(answer.status, 200, answer)
        return answer.data["id"]

    def mode(self, does):
        self.assertEqual(self.daemon.put("/api/v1/m/ledger/mode", {"does": does}).status, 200)

    def entries(self, key):
        return self.daemon.get(f"/api/v1/m/ledger/keys/{key}").data

    def letters(self, key, count):
        """Numbers of as many dead letters of that key, the oldest first."""
        self.mode("trouble")
        for n in range(1, count + 1):
            self.publish(key, n=n, trouble="refuse")
        query = "/api/v1/events/dead-letters?module=ledger&pageSize=500"
        found = wait_until(lambda: (lambda f: f if len(f) == count else None)([x for x in self.daemon.get(query).data if x["event"]["key"] == key]),
                           f"{count} dead letters")
        self.mode("work")
        return [letter["id"] for letter in reversed(found)]

    def test_events_are_listed_by_topic_time_and_key(self):
        first, second = self.publish("listed", n=1), self.publish("listed", n=2)
        lines = self.done("events", "--topic", "ledger.*", "--key", "listed", "--since", "1h").splitlines()
        self.assertRegex(lines[0], r"^EVENT +PUBLISHED +TOPIC +KEY +SOURCE +PAYLOAD$")
        self.assertEqual([line.split()[0] for line in lines[1:]], [second, first])
        self.assertRegex(lines[2], rf'^{first} +{MOMENT} +ledger\.entry +listed +sender +{{"n":1}}$')
        listed = self.as_json("events", "--key", "listed", "--limit", "1")
        self.assertEqual(listed, self.daemon.get("/api/v1/events?key=listed&pageSize=1").json)
        self.assertEqual(self.done("events", "--key", "listed", "--since", "2099-01-01T00:00:00Z"), "There are no such events.\n")
        self.refused("events", "--since", "yesterday", code="CONFIG_INVALID", says=["10m"], exit_code=USAGE)

    def test_subscriptions_tell_the_lag_and_the_transaction_that_others_wait_for(self):
        holder = subprocess.Popen(["curl", "-s", "-X", "POST", "-H", f"Authorization: Bearer {self.daemon.token}",
                                   f"{self.daemon.url}/api/v1/m/sender/hold?ms=4000"], stdout=subprocess.DEVNULL)
        transaction = wait_until(lambda: self.daemon.get("/api/v1/events/subscriptions").data["openTransactions"], "the open transaction")[0]
        out = self.done("events", "subscriptions")
        self.assertRegex(out, r"(?m)^MODULE +LAG +OLDEST +RETRYING +DEAD +LAST SETTLED +NODE +TOPICS$")
        self.assertRegex(out, r"(?m)^ledger +\d+ .* ledger\.\*$")
        self.assertIn("Open transactions in PostgreSQL", out)
        self.assertRegex(out, rf"(?m)^{transaction['pid']} +sender +{MOMENT} ")
        self.assertEqual(self.as_json("events", "subscriptions")["data"]["engine"]["name"], "postgres")
        holder.wait(WITHIN)
        wait_until(lambda: "Open transactions" not in self.done("events", "subscriptions"), "its end")

    def test_a_dead_letter_is_looked_at_and_delivered_again(self):
        numbers = self.letters("dead", 3)
        lines = self.done("events", "dead-letters", "--module", "ledger", "--topic", "ledger.entry").splitlines()
        self.assertRegex(lines[0], r"^LETTER +MODULE +TOPIC +KEY +DIED +ATTEMPTS +ERROR$")
        self.assertTrue(any(re.match(rf"{numbers[0]} +ledger +ledger\.entry +dead +{MOMENT} +1 +told to refuse$", line) for line in lines), lines)
        one = self.done("events", "dead-letters", numbers[0])
        for part in (f"Dead letter {numbers[0]} for ledger\n", "  key        dead\n", "  error      told to refuse\n", "  attempts   1\n",
                     '"trouble":"refuse"'):
            self.assertIn(part, one)
        self.assertEqual(self.as_json("events", "dead-letters", numbers[0]), self.daemon.get(f"/api/v1/events/dead-letters/{numbers[0]}").json)
        self.assertEqual(self.done("events", "dead-letters", "replay", *numbers[:2]),
                         "".join(f"Dead letter {number} for ledger is being delivered again\n" for number in numbers[:2]))
        wait_until(lambda: len(self.entries("dead")) == 2, "the two")
        self.refused("events", "dead-letters", "replay", numbers[0], code="DEAD_LETTER_NOT_FOUND", says=["bulkhead events dead-letters"])
        code, _out, err = self.at_a_terminal("events", "dead-letters", "drop", numbers[2], types="n\n")
        self.assertEqual(code, REFUSED)
        self.assertIn("Nothing was changed.", err)
        self.refused("events", "dead-letters", "drop", numbers[2], code="CONFIG_INVALID", says=["--yes"], exit_code=USAGE)
        self.assertEqual(self.done("events", "dead-letters", "drop", numbers[2], "--yes"), f"Dead letter {numbers[2]} for ledger was dropped\n")
        self.refused("events", "dead-letters", numbers[2], code="DEAD_LETTER_NOT_FOUND")

    def test_all_dead_letters_of_a_module_are_delivered_again_after_a_question(self):
        self.letters("many", 3)
        many = ("events", "dead-letters", "replay", "--module", "ledger", "--topic", "ledger.*")
        self.refused(*many, code="CONFIG_INVALID", says=["3 dead letters of ledger", "--yes"], exit_code=USAGE)
        self.assertEqual(self.entries("many"), [])
        code, out, shown = self.at_a_terminal(*many, types="y\n")
        self.assertEqual((code, out), (DONE, "3 dead letters are being delivered again.\n"), shown)
        self.assertIn("3 dead letters of ledger with the topic ledger.* are delivered again. Go on? [y/N] ", shown)
        wait_until(lambda: len(self.entries("many")) == 3, "the three")
        self.assertEqual(json.loads(self.done(*many, "--yes", "--json"))["data"], {"deadLetters": 0})
        for wrong in ((), ("7", "--all")):
            self.assertEqual(self.cli("events", "dead-letters", "replay", *wrong)[0], USAGE, wrong)

    def test_a_replay_from_a_time_tells_how_much_it_is_before_it_is_done(self):
        self.publish("again", n=1)
        wait_until(lambda: self.entries("again"), "the entry")
        at = self.daemon.get("/api/v1/events?key=again").data[0]["at"]
        replay = ("events", "replay", "ledger", "--since", at)
        total = self.daemon.get(f"/api/v1/events?topic=ledger.*&since={at}").json["meta"]["total"]
        self.refused(*replay, code="CONFIG_INVALID", says=[f"({total} event", "once()", "--yes"], exit_code=USAGE)
        out = self.done(*replay, "--yes")
        self.assertRegex(out, r"^\d+ events are being delivered again\. `bulkhead events subscriptions` shows how far they are\.\n$")
        self.publish("behind", n=1)
        wait_until(lambda: self.entries("behind"), "what was published behind it")
        self.assertEqual(len(self.entries("again")), 1, "once() keeps the effect from being had twice")
        code, _out, shown = self.at_a_terminal(*replay, "--forget", types="yes\n")
        self.assertEqual(code, DONE, shown)
        self.assertIn("the effects of all of them are had again. Go on? [y/N] ", shown)
        wait_until(lambda: len(self.entries("again")) == 2, "the effect, once more")
        self.refused("events", "replay", "sender", "--since", at, "--yes", code="SUBSCRIPTION_NOT_FOUND", says=["bulkhead events subscriptions"])
        self.assertEqual(self.cli("events", "replay", "ledger", "--yes")[0], USAGE, "since when is missing")


if __name__ == "__main__":
    harness.main()
