"""The fixed names of the interface against the real thing: protos, link, error codes, options, keys, variables, paths, fields, and the
answers of a daemon.

A golden file only grows: `python3 tests/interface/golden.py --update` records what is new; a change of what is there is a break of the
interface and belongs into CHANGELOG.md.
"""

import http.client
import json
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import errors  # noqa: E402
import golden  # noqa: E402
import harness  # noqa: E402
from harness import DaemonTest, SharedDaemonTest, run_serve, wait_until, write_module  # noqa: E402

MODULE = "consumption-monitor"


class Source(unittest.TestCase):
    maxDiff = None

    def test_nothing_recorded_has_changed(self):
        for name, read in golden.FROM_SOURCE.items():
            with self.subTest(name):
                self.assertEqual(golden.missing_and_changed(golden.stored(name), read()), [])

    def test_everything_new_is_recorded(self):
        for name, read in golden.FROM_SOURCE.items():
            with self.subTest(name):
                self.assertEqual(golden.unrecorded(golden.stored(name), read()), [],
                                 "record it with: python3 tests/interface/golden.py --update")

    def test_every_rpc_of_the_admin_api_has_a_rest_route_and_says_who_may(self):
        for name, rpc in golden.protos()["rpcs"].items():
            if name.startswith("bulkhead.admin."):
                with self.subTest(name):
                    self.assertTrue(rpc.get("rest"))
                    self.assertNotEqual("permission" in rpc, "access" in rpc)

    def test_no_field_number_is_used_twice(self):
        for name, fields in golden.protos()["messages"].items():
            numbers = [field[0] for field in fields.values()]
            self.assertEqual(len(numbers), len(set(numbers)), name)

    def test_the_documented_error_codes_are_those_of_the_table(self):
        clients, processes = errors.table()
        self.assertEqual([code.code for code in clients + processes], list(golden.errors()), "an entry can't be read")
        self.assertEqual([code.http for code in clients], sorted(code.http for code in clients))
        for code in clients + processes:
            self.assertRegex(code.meaning, r"^[A-Z].*[.]$", code.code)
            self.assertNotIn("|", code.meaning, code.code)
        self.assertEqual(errors.DOCUMENT.read_text(), errors.document(), "write it with: python3 tests/interface/errors.py --update")

    def test_every_recorded_shape_and_part_of_the_handshake_is_looked_at(self):
        here = pathlib.Path(__file__).read_text()
        unused = [name for file in ("rest.json", "handshake.json") for name in golden.stored(file) if f'"{name}"' not in here]
        self.assertEqual(unused, [])


class CommandLine(DaemonTest):
    def test_the_commands_and_their_options_are_these(self):
        recorded = golden.stored("cli.json")
        for command in recorded:
            _code, out, _err = run_serve(*command.split(), "--help")
            options, _, commands = out.partition("Subcommands:")
            found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", options.partition("Options:")[2].partition("\n\n")[0]))
            found |= set(re.findall(r"^  ([\w-]+)", commands, re.M))
            self.assertEqual(sorted(found), recorded[command], command)
        commands = {f"{command} {name}".strip() for command in recorded for name in recorded[command] if not name.startswith("-")}
        self.assertEqual(set(recorded), {""} | commands)

    def test_version_tells_the_version(self):
        for arguments in (["version"], ["--version"]):
            code, out, err = run_serve(*arguments)
            self.assertEqual((code, err), (0, ""))
            self.assertRegex(out, r"^bulkhead \d+\.\d+\.\d+\n$")

    def test_the_help_names_the_variable_of_each_option(self):
        _code, out, _err = run_serve("serve", "--help")
        told = dict(re.findall(r"(?s)^  (--[\w-]+) (?:(?!\n  -).)*?\[(BULKHEAD_\w+)\]$", out, re.M))
        recorded = {names[-1]: variable for variable, names in golden.stored("variables.json").items() if names and names[-1].startswith("--")}
        self.assertEqual(told, recorded)
        for variable in golden.stored("variables.json"):
            self.assertIn(variable, out)

    def test_the_keys_of_the_configuration_file_are_these(self):
        opaque = ("clients.<name>.headers", "modules.<name>.config", "notifications.webhooks.<name>.headers", "notifications.webhooks.<name>.headerFiles")

        def flat(document, prefix=""):
            for key, value in document.items():
                name = f"{prefix}{key}"
                if prefix in ("flags.", "clients.", "modules.", "notifications.webhooks."):
                    name = f"{prefix}<name>"
                if isinstance(value, dict) and name not in opaque:
                    yield from flat(value, f"{name}.")
                elif isinstance(value, list) and isinstance(value[0], dict):
                    yield from {f"{name}.{member}" for entry in value for member in entry}
                else:
                    yield name

        self.assertEqual(set(flat(golden.stored("config_keys.json"))), golden.config_keys())

    def test_the_sample_configuration_has_every_key(self):
        sample = (golden.SOURCE / "deploy/bulkhead.yaml").read_text()
        for key in golden.config_keys():
            for name in key.replace(".<name>", "").split("."):
                self.assertRegex(sample, rf"(?m)^[# ]*{name}:", key)

    def test_every_key_of_the_configuration_file_is_known(self):
        folder = self.temporary_folder()
        path = folder / "bulkhead.yaml"
        text = yaml(golden.stored("config_keys.json"))
        path.write_text(text + "isThisKey: unknown\n")
        code, _out, err = run_serve("serve", "--config", path, "--data", folder / "data")
        self.assertGreater(code, 0)
        line = text.count("\n") + 1
        self.assertIn(f"bulkhead.yaml:{line}", err)
        self.assertIn("isThisKey", err)
        others = [number for number in re.findall(r"bulkhead\.yaml:(\d+)", err) if int(number) != line]
        self.assertEqual(others, [], err)


class Handshake(DaemonTest):
    """What a program started as a module finds, told by a program that is none."""

    def test_fd_3_argv_and_environment_are_as_written(self):
        modules = self.temporary_folder()
        recorded = golden.stored("handshake.json")
        write_module(modules, "teller", {"args": ["one", "two words"]}, entry=f"""#!/bin/sh
read -r line <&{recorded["fd"]}
echo "line=$line"
echo "argv=$0|$1|$2|$#"
echo "fds=$(ls /proc/self/fd | tr '\\n' ' ')"
env | sed 's/^/env=/'
echo '{json.dumps({name: "not today" for name in recorded["refusal"]})}' >&{recorded["fd"]}
""")
        daemon = self.daemon(modules_dir=modules)
        self.assertError(daemon.post("/api/v1/modules/teller/enable"), 502, "MODULE_START_FAILED")
        module = daemon.module("teller")
        self.assertEqual(sorted(module["observed"]["reason"]), golden.stored("rest.json")["Module.observed.reason"])
        self.assertIn("not today", module["observed"]["reason"]["message"])
        output = module["exits"][0]["output"]
        told = dict(line.split("=", 1) for line in output.splitlines() if line.startswith(("line=", "argv=", "fds=")))
        handshake = json.loads(told["line"])
        self.assertEqual(sorted(handshake), recorded["daemon"])
        self.assertLessEqual(handshake["protocolMin"], recorded["protocol"])
        self.assertGreaterEqual(handshake["protocolMax"], recorded["protocol"])
        self.assertEqual((handshake["module"], handshake["transport"]), ("teller", "link"))
        for name in ("controlSocket", "dataSocket", "hostSocket", "callSocket"):
            self.assertTrue(handshake[name].startswith("/"), handshake)
            self.assertLessEqual(len(handshake[name]), 107)
        argv = told["argv"].split("|")
        self.assertTrue(argv[0].startswith("/") and argv[0].endswith("/bin/teller"), argv)
        self.assertEqual(argv[1:], ["one", "two words", "2"])
        self.assertLessEqual(set(told["fds"].split()), {"0", "1", "2", "3", "4"}, "descriptors of the daemon leaked (4 is ls itself)")
        environment = "\n".join(line for line in output.splitlines() if line.startswith("env="))
        self.assertNotIn(handshake["token"], environment)
        self.assertEqual([line for line in environment.splitlines() if "BULKHEAD_" in line], [f"env=BULKHEAD_INSTANCE={handshake['instance']}"])

    def answer_of_the_sdk(self, **offer):
        """What a module of the C++ SDK answers to a handshake, as the supervisor would read it."""
        folder, recorded = self.temporary_folder(), golden.stored("handshake.json")
        ours, theirs = socket.socketpair()
        start = "import os, sys; os.dup2(int(sys.argv[1]), int(sys.argv[2])); os.execv(sys.argv[3], sys.argv[3:])"
        with ours, theirs:
            process = subprocess.Popen([sys.executable, "-c", start, str(theirs.fileno()), str(recorded["fd"]), str(harness.FAKES / "echo/bin/echo")],
                                       pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            theirs.close()
            line = {"protocolMin": recorded["protocol"], "protocolMax": recorded["protocol"], "module": "echo", "instance": "echo-0-1",
                    "token": "secret", "controlSocket": f"{folder}/control", "dataSocket": f"{folder}/data", "hostSocket": f"{folder}/host",
                    "callSocket": f"{folder}/calls",
                    "transport": "link", **offer}
            self.assertEqual(sorted(line), recorded["daemon"])
            ours.settimeout(20 * harness.SLOW)
            try:
                ours.sendall(json.dumps(line).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    answer += ours.recv(4096) or self.fail(f"closed after {answer!r}")
            finally:
                ours.close()  # means: leave
                process.wait(20 * harness.SLOW)
        return json.loads(answer)

    def test_the_sdk_answers_with_these_names(self):
        recorded = golden.stored("handshake.json")
        answer = self.answer_of_the_sdk()
        self.assertEqual(sorted(answer), recorded["module"])
        self.assertEqual(answer["protocol"], recorded["protocol"])
        refusal = self.answer_of_the_sdk(protocolMin=recorded["protocol"] + 1, protocolMax=recorded["protocol"] + 1)
        self.assertEqual(sorted(refusal), recorded["refusal"])


class Paths(DaemonTest):
    def layout(self, data):
        """{path in the data folder: kind and, where it is the same for all users, mode}."""
        def name(path):
            parts = list(path.relative_to(data).parts)
            if parts[0] in ("modules", "versions") and len(parts) > 1:
                parts[1] = "<name>"
            if parts[0] == "versions" and len(parts) > 2:
                parts[2] = re.sub(r"^\d+\.\d+\.\d+-[0-9a-f]{8}$", "<version>-<sha8>", parts[2])
            if parts[:2] == ["run", "w"] and len(parts) > 2:
                parts[2] = "<instance>"
            return "/".join(parts)

        found = {}
        # What is inside is PostgreSQL's, the daemon's or the module's own.
        for pattern in ("*", "modules/*", "run/*", "run/w/**/*", "versions/*", "versions/*/*"):
            for path in data.glob(pattern):
                mode = path.lstat().st_mode
                kind = "folder" if stat.S_ISDIR(mode) else "socket" if stat.S_ISSOCK(mode) else "file"
                found[name(path)] = f"{kind} {stat.S_IMODE(mode):04o}"
        return found

    def test_the_data_folder_is_laid_out_as_recorded(self):
        daemon = self.daemon(modules=["echo"], modules_dir=harness.FAKES, private_store=True)
        recorded, found = golden.stored("paths.json"), self.layout(daemon.data)
        if not harness.IS_ROOT:
            del recorded["uids"]  # of the modules, who have users of their own only as root
        self.assertEqual({path: what if " " in recorded.get(path, " ") else what.split()[0] for path, what in found.items()}, recorded)

    def test_a_staged_module_holds_what_is_recorded(self):
        recorded = golden.stored("module_folder.json")
        staged = list(harness.MODULES.iterdir()) + list(harness.FAKES.iterdir())
        self.assertIn(MODULE, [folder.name for folder in staged])
        for folder in staged:
            with self.subTest(folder.name):
                self.assertEqual(len([name for name in recorded["manifest"] if (folder / name).is_file()]), 1)
                self.assertTrue((folder / recorded["entry"].replace("<name>", folder.name)).is_file())
        self.assertTrue(list((harness.MODULES / MODULE / recorded["migrations"]).glob("*.sql")))


class Manifests(SharedDaemonTest):
    options = {}

    def test_every_field_is_known(self):
        answer = self.daemon.post("/api/v1/modules/validate", {"manifest": golden.stored("manifest_full.json")})
        self.assertEqual((answer.data["valid"], answer.data["errors"]), (True, []))
        # A field may be known and not do anything yet, which is said; none is unknown.
        self.assertEqual([warning for warning in answer.data["warnings"] if warning["code"] != "NOT_APPLIED"], [])

    def test_the_example_is_valid_as_it_stands(self):
        answer = self.daemon.post("/api/v1/modules/validate", {"manifest": golden.stored("manifest_example.json")})
        self.assertEqual((answer.data["valid"], answer.data["errors"]), (True, []))


class Rest(SharedDaemonTest):
    options = {"modules": ["echo"], "modules_dir": harness.FAKES}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shapes = golden.stored("rest.json")
        pid = cls.daemon.module("echo")["workers"][0]["pid"]
        harness.os.kill(pid, signal.SIGKILL)  # so that there is an exit to look at
        wait_until(lambda: cls.daemon.module("echo")["exits"] and cls.daemon.module("echo")["observed"]["state"] == "RUNNING", "a crash and a restart")

    def assertShape(self, name, document):
        self.assertEqual(sorted(document), self.shapes[name], name)

    def test_a_module(self):
        answer = self.daemon.get("/api/v1/modules/echo")
        self.assertShape("Success", answer.json)
        module = answer.data
        self.assertShape("Module", module)
        self.assertShape("Module.desired", module["desired"])
        self.assertShape("Module.observed", module["observed"])
        self.assertShape("Module.workers", module["workers"][0])
        self.assertShape("Module.files", module["files"])
        self.assertShape("Module.restartPolicy", module["restartPolicy"])
        self.assertShape("Module.restartPolicy.backoff", module["restartPolicy"]["backoff"])
        self.assertShape("Module.restartPolicy.quarantine", module["restartPolicy"]["quarantine"])
        self.assertShape("Module.healthPolicy", module["healthPolicy"])
        self.assertShape("Module.healthPolicy.readiness", module["healthPolicy"]["readiness"])
        self.assertShape("Module.exits", module["exits"][0])
        self.assertShape("Module.isolation", module["isolation"][0])
        self.assertIn(module["status"], ("REGISTERED", "INSTALLING", "ENABLED", "DISABLED", "UPDATING", "REMOVING"))
        for number in (module["desired"]["generation"], module["observed"]["generation"], module["configRevision"], module["exits"][0]["ranMs"]):
            self.assertIsInstance(number, int)
        self.assertEqual(module["exitCounts"], {module["exits"][0]["cause"]: len(module["exits"])})
        self.assertIsNone(module["lastUpgrade"])
        self.assertIsNone(module["observed"]["reason"])  # its shape is looked at where there is one, in Handshake
        self.assertIsInstance(module["manifest"], dict)
        for moment in (module["createdAt"], module["updatedAt"], module["enabledAt"], module["observed"]["since"], module["exits"][0]["at"]):
            self.assertRegex(moment, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_a_list(self):
        answer = self.daemon.get("/api/v1/modules")
        self.assertEqual(sorted(answer.json), ["data", "meta", "success"])
        self.assertShape("ListMeta", answer.json["meta"])

    def test_an_action(self):
        answer = self.daemon.post("/api/v1/modules/echo/enable")
        self.assertShape("ActionMeta", answer.json["meta"])

    def test_an_error(self):
        answer = self.daemon.get("/api/v1/modules/nobody")
        self.assertShape("Error", answer.json)
        self.assertShape("Error.error", answer.error)
        self.assertEqual(answer.header("Content-Type", "").split(";")[0], "application/json")

    def test_a_validation(self):
        answer = self.daemon.post("/api/v1/modules/validate", {"manifest": {"name": "?"}})
        self.assertShape("Validation", answer.data)
        self.assertShape("Validation.errors", answer.data["errors"][0])

    def test_runs_and_jobs(self):
        run = self.daemon.post("/api/v1/modules/echo/jobs/work/run?wait=20s", {"payload": {"fail": "ON_PURPOSE", "retryable": False}}).data
        self.assertShape("Run", run)
        self.assertShape("Run.error", run["error"])
        self.assertShape("Run.progress", run["progress"])
        self.assertShape("Run", self.daemon.get("/api/v1/modules/echo/jobs/work/runs").data[0])
        self.assertShape("Run", self.daemon.get(f"/api/v1/runs/{run['id']}").data)
        self.assertShape("Job", self.daemon.get("/api/v1/modules/echo/jobs").data[0])

    def test_tokens(self):
        self.assertShape("Token", self.daemon.post("/api/v1/tokens", {"name": "shape", "permissions": ["modules:read"]}).data)
        self.assertShape("Token", self.daemon.get("/api/v1/tokens").data[0])

    def test_users_roles_and_logins(self):
        self.assertShape("User", self.daemon.post("/api/v1/users", {"name": "shape", "password": "a long enough one", "roles": ["viewer"]}).data)
        self.assertShape("User", self.daemon.get("/api/v1/users").data[0])
        self.assertShape("Role", self.daemon.get("/api/v1/roles").data[0])
        login = self.daemon.post("/api/v1/auth/login", {"username": "shape", "password": "a long enough one"}, token=None).data
        self.assertShape("Login", login)
        me = self.daemon.get("/api/v1/auth/me", token=login["accessToken"]).data
        self.assertShape("Me", me)
        self.assertShape("Me.credential", me["credential"])

    def test_plans(self):
        refused = self.daemon.get("/api/v1/modules/echo/plan?action=delete").data
        allowed = self.daemon.get("/api/v1/modules/echo/plan?action=disable").data
        for plan in (refused, allowed):
            self.assertShape("Plan", plan)
        self.assertShape("Plan.refusals", refused["refusals"][0])
        self.assertShape("Plan.steps", allowed["steps"][0])
        self.assertEqual((refused["allowed"], refused["steps"], allowed["allowed"], allowed["refusals"]), (False, [], True, []))

    def test_flags(self):
        flag = self.daemon.put("/api/v1/flags/shape", {"enabled": True}).data
        self.assertShape("Flag", flag)
        self.assertIsNone(flag["percentage"])
        self.assertIsInstance(flag["revision"], int)
        for answer in (self.daemon.get("/api/v1/flags/shape").data, self.daemon.get("/api/v1/flags").data[0]):
            self.assertShape("Flag", answer)

    def test_the_audit(self):
        self.daemon.put("/api/v1/flags/audited", {"enabled": True})
        answer = self.daemon.get("/api/v1/audit?action=flags.*")
        self.assertShape("ListMeta", answer.json["meta"])
        entry = answer.data[0]
        self.assertShape("AuditEntry", entry)
        self.assertShape("AuditEntry.actor", entry["actor"])
        self.assertIsInstance(entry["id"], int)
        self.assertRegex(entry["at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_logs_and_a_stream_of_them(self):
        for text in (b"one\n", b"two\n", b"three\n"):
            self.assertEqual(self.daemon.request("POST", "/api/v1/m/echo/print", text).status, 200)
        answer = wait_until(lambda: (asked := self.daemon.get("/api/v1/modules/echo/logs?tail=3")).data[-1:]
                            and asked.data[-1]["message"] == "three" and asked, "the last line")
        self.assertShape("LogsMeta", answer.json["meta"])
        for line in answer.data:
            self.assertShape("LogLine", line)
        # A place whose count is one too low: as if a line were missing behind it.
        place, _, number = answer.data[0]["cursor"].partition("-")
        connection = http.client.HTTPConnection(*self.daemon.address.rsplit(":", 1), timeout=20 * harness.SLOW)
        self.addCleanup(connection.close)
        connection.request("GET", "/api/v1/modules/echo/logs?follow=true", headers={
            "Authorization": f"Bearer {self.daemon.token}", "Last-Event-ID": f"{place}-{int(number) - 1}"})
        events = connection.getresponse()
        self.addCleanup(events.close)
        got = [events.readline().decode().rstrip("\n") for _ in range(9)]
        self.assertEqual(got[:2], [f"id: {place}-{int(number) - 1}", ""])
        self.assertRegex(got[2], r"^id: \d+-\d+$")
        self.assertEqual(got[3], "event: missed")
        self.assertShape("LogGap", json.loads(got[4].removeprefix("data: ")))
        self.assertEqual([got[5], got[6]], ["", f"id: {answer.data[1]['cursor']}"])
        self.assertEqual(json.loads(got[7].removeprefix("data: ")), answer.data[1])
        self.assertEqual(got[8], "")

    def test_rotated_secrets(self):
        rotated = self.daemon.post("/api/v1/system/secrets/rotate").json  # without the envelope
        self.assertShape("RotatedSecrets", rotated)
        self.assertIsInstance(rotated["modules"], int)

    def test_raw_answers(self):
        self.assertShape("Health", self.daemon.get("/health", token=None).json)
        system = self.daemon.get("/api/v1/system/modules").json
        self.assertShape("SystemHealth", system)
        self.assertShape("SystemHealth.modules", system["modules"]["echo"])
        metrics = self.daemon.get("/api/v1/system/metrics").json
        self.assertShape("SystemMetrics", metrics)
        self.assertShape("SystemMetrics.modules.responseTimes", metrics["responseTimes"])
        echo = metrics["modules"]["echo"]
        self.assertShape("SystemMetrics.modules", echo)
        self.assertShape("SystemMetrics.modules.eventCount", echo["eventCount"])
        self.assertShape("SystemMetrics.modules.cache", echo["cache"])
        for level in ("levelOne", "levelTwo"):
            self.assertShape("SystemMetrics.modules.cache.levelOne", echo["cache"][level])
        self.assertShape("SystemMetrics.modules.responseTimes", echo["responseTimes"])
        self.assertShape("SystemMetrics.modules.workers", echo["workers"][0])

    def test_a_deletion(self):
        self.daemon.post("/api/v1/modules", {"manifest": {"name": "short-stay", "version": "1.0.0"}})
        self.assertShape("Deleted", self.daemon.delete("/api/v1/modules/short-stay").data)


class Rescans(DaemonTest):
    def test_scanned_folders_and_an_offer(self):
        shapes, modules = golden.stored("rest.json"), self.temporary_folder()
        folder = write_module(modules, "one", entry="#!/bin/sh\n")
        daemon = self.daemon(modules_dir=modules)
        self.assertIsNone(daemon.module("one")["offer"])
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("1.0.0", "1.1.0"))
        write_module(modules, "wrong", text='{"name": "?"}')
        answer = daemon.post("/api/v1/modules/rescan")
        self.assertEqual(sorted(answer.json["meta"]), shapes["ListMeta"])
        one, wrong = answer.data
        for found in (one, wrong):
            self.assertEqual(sorted(found), shapes["ScannedFolder"])
        self.assertEqual((one["outcome"], wrong["outcome"]), ("offered", "broken"))
        self.assertEqual(sorted(wrong["details"][0]), shapes["ScannedFolder.details"])
        self.assertEqual(sorted(daemon.module("one")["offer"]), shapes["Module.offer"])


class Migrations(SharedDaemonTest):
    options = {"modules_dir": harness.MODULES}

    def test_status_plan_and_result(self):
        shapes = golden.stored("rest.json")
        self.daemon.post(f"/api/v1/modules/{MODULE}/install")
        status = self.daemon.get(f"/api/v1/modules/{MODULE}/migrations").data
        self.assertEqual(sorted(status), shapes["Migrations"])
        self.assertEqual(sorted(status["files"][0]), shapes["Migration"])
        plan = self.daemon.post(f"/api/v1/modules/{MODULE}/migrations/plan").data
        self.assertEqual(sorted(plan), shapes["MigrationPlan"])
        self.assertEqual(sorted(plan["steps"][0]), shapes["Migration"])
        result = self.daemon.post(f"/api/v1/modules/{MODULE}/migrations/up").data
        self.assertEqual(sorted(result), shapes["MigrationResult"])
        self.assertEqual(sorted(result["steps"][0]), shapes["MigrationResult.steps"])


def yaml(document, indent=""):
    """A nested dict as block YAML; what stands at the leaves is written as JSON, which YAML reads."""
    text = ""
    for key, value in document.items():
        text += f"{indent}{key}:\n{yaml(value, indent + '  ')}" if isinstance(value, dict) and value else f"{indent}{key}: {json.dumps(value)}\n"
    return text


if __name__ == "__main__":
    harness.main()
