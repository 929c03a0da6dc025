"""The fixed names of the interface against the real thing: protos, link, error codes, options, keys, fields, and the answers of a daemon.

A golden file only grows: `python3 tests/interface/golden.py --update` records what is new; a change of what is there is a break of the
interface and belongs into CHANGELOG.md.
"""

import json
import pathlib
import re
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

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

    def test_every_rpc_of_the_admin_api_has_a_rest_route_and_a_permission(self):
        for name, rpc in golden.protos()["rpcs"].items():
            if name.startswith("bulkhead.admin."):
                with self.subTest(name):
                    self.assertTrue(rpc.get("rest") and rpc.get("permission"))

    def test_no_field_number_is_used_twice(self):
        for name, fields in golden.protos()["messages"].items():
            numbers = [field[0] for field in fields.values()]
            self.assertEqual(len(numbers), len(set(numbers)), name)


class CommandLine(DaemonTest):
    def test_the_options_of_serve_are_these(self):
        _code, out, _err = run_serve("serve", "--help")
        self.assertEqual(sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", out))), golden.stored("cli.json")["serve"])

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
        write_module(modules, "teller", {"args": ["one", "two words"]}, entry="""#!/bin/sh
read -r line <&3
echo "line=$line"
echo "argv=$0|$1|$2|$#"
echo "fds=$(ls /proc/self/fd | tr '\\n' ' ')"
env | sed 's/^/env=/'
echo '{"error":"done"}' >&3
""")
        daemon = self.daemon(modules_dir=modules)
        self.assertError(daemon.post("/api/v1/modules/teller/enable"), 502, "MODULE_START_FAILED")
        output = daemon.module("teller")["exits"][0]["output"]
        told = dict(line.split("=", 1) for line in output.splitlines() if line.startswith(("line=", "argv=", "fds=")))
        handshake, recorded = json.loads(told["line"]), golden.stored("handshake.json")
        self.assertEqual(sorted(handshake), recorded["daemon"])
        self.assertLessEqual(handshake["protocolMin"], recorded["protocol"])
        self.assertGreaterEqual(handshake["protocolMax"], recorded["protocol"])
        self.assertEqual((handshake["module"], handshake["transport"]), ("teller", "link"))
        for name in ("controlSocket", "dataSocket", "hostSocket"):
            self.assertTrue(handshake[name].startswith("/"), handshake)
            self.assertLessEqual(len(handshake[name]), 107)
        argv = told["argv"].split("|")
        self.assertTrue(argv[0].startswith("/") and argv[0].endswith("/bin/teller"), argv)
        self.assertEqual(argv[1:], ["one", "two words", "2"])
        self.assertLessEqual(set(told["fds"].split()), {"0", "1", "2", "3", "4"}, "descriptors of the daemon leaked (4 is ls itself)")
        environment = "\n".join(line for line in output.splitlines() if line.startswith("env="))
        self.assertNotIn(handshake["token"], environment)
        self.assertNotIn("BULKHEAD_", environment)


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
        self.assertShape("Module.exits", module["exits"][0])
        self.assertShape("Module.isolation", module["isolation"][0])
        self.assertIn(module["status"], ("REGISTERED", "INSTALLING", "ENABLED", "DISABLED", "UPDATING", "REMOVING"))
        for number in (module["desired"]["generation"], module["observed"]["generation"], module["configRevision"], module["exits"][0]["ranMs"]):
            self.assertIsInstance(number, int)
        self.assertIsNone(module["lastUpgrade"])
        self.assertIsNone(module["observed"]["reason"])
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

    def test_raw_answers(self):
        self.assertShape("Health", self.daemon.get("/health", token=None).json)
        system = self.daemon.get("/api/v1/system/modules").json
        self.assertShape("SystemHealth", system)
        self.assertShape("SystemHealth.modules", system["modules"]["echo"])

    def test_a_deletion(self):
        self.daemon.post("/api/v1/modules", {"manifest": {"name": "short-stay", "version": "1.0.0"}})
        self.assertShape("Deleted", self.daemon.delete("/api/v1/modules/short-stay").data)


def yaml(document, indent=""):
    """A nested dict as block YAML; what stands at the leaves is written as JSON, which YAML reads."""
    text = ""
    for key, value in document.items():
        text += f"{indent}{key}:\n{yaml(value, indent + '  ')}" if isinstance(value, dict) and value else f"{indent}{key}: {json.dumps(value)}\n"
    return text


if __name__ == "__main__":
    harness.main()
