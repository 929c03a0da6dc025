"""Feature flags: of two nodes on one database, for shares and for named identities, and who has the say about one."""

import itertools
import json
import subprocess
import time

import harness
from harness import SLOW, DaemonTest, wait_until
from modules_test import echo_like
from own_server import OwnServer

ECHO = {"modules": ["echo"], "modules_dir": harness.FAKES}
POLL_S = 2  # limits::kStorePoll
NAME, VARIABLE = "new-pricing", "FEATURE_FLAG_NEW_PRICING"


def bucket(identity):
    """What host.proto says of `identity` for new-pricing, written from its words."""
    value = 14695981039346656037
    for byte in f"{VARIABLE}/{identity}".encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    value ^= value >> 33
    value = value * 0xff51afd7ed558ccd % 2**64
    return (value ^ value >> 33) % 100


def told(daemon, identity=""):
    """What the module echo thinks of the flag."""
    return daemon.get(f"/api/v1/m/echo/flags/{NAME}?identity={identity}").data


class TwoNodes(DaemonTest):
    def setUp(self):
        super().setUp()
        self.server = OwnServer()
        self.modules = self.temporary_folder(0o755)
        echo_like(self.modules, "echo")
        echo_like(self.modules, "flagged", featureFlag="flagged")
        self.one = self.daemon(modules=["echo", "flagged"], modules_dir=self.modules, config=f"store:\n  url: {self.server.url}\n")
        self.one.stop()
        # The other one has the same secrets and packages, as two machines of a cluster would.
        folder = self.temporary_folder()
        subprocess.run(["cp", "-a", f"{self.one.data}", f"{folder}/data"], check=True)
        (folder / "bulkhead.yaml").write_text(self.one.config_path.read_text())
        self.one.start()
        self.two = self.daemon(folder=folder, modules_dir=self.modules, env={"FEATURE_FLAG_FIXED": "true"})

    def after_explaining(self):
        super().after_explaining()
        if hasattr(self, "server"):
            self.server.remove()

    def soon(self, condition, what):
        """Within the time that README.md names, and some for the request itself."""
        return wait_until(condition, what, POLL_S + 2 * SLOW)

    def test_what_one_changes_the_other_knows_and_tells_its_modules_within_two_seconds(self):
        self.assertEqual(self.one.put(f"/api/v1/flags/{NAME}", {"enabled": True, "percentage": 40, "identities": ["ann"]}).status, 200)
        self.soon(lambda: told(self.two)["on"], "the module of the other node is told")
        shown = self.two.get(f"/api/v1/flags/{NAME}").data
        self.assertEqual({key: shown[key] for key in ("enabled", "percentage", "identities", "source", "revision")},
                         {"enabled": True, "percentage": 40, "identities": ["ann"], "source": "api", "revision": 1})
        for identity in ["ann"] + [f"user-{i}" for i in range(20)]:
            self.assertEqual(told(self.two, identity)["onFor"], told(self.one, identity)["onFor"], identity)
        # And back: the other way, with a change of the rules alone, and taken back.
        self.assertEqual(self.two.put(f"/api/v1/flags/{NAME}", {"enabled": True, "identities": ["ben"]}).status, 200)
        self.soon(lambda: told(self.one, "ben")["onFor"] and not told(self.one, "ann")["onFor"], "the rules are told")
        self.assertEqual(self.one.delete(f"/api/v1/flags/{NAME}").status, 200)
        self.soon(lambda: not told(self.two)["on"], "what is taken back is told")
        self.assertError(self.two.get(f"/api/v1/flags/{NAME}"), 404, "FLAG_NOT_FOUND")

    def test_a_module_that_waits_for_a_flag_starts_and_stops_on_both(self):
        self.assertEqual([node.module("flagged")["observed"]["state"] for node in (self.one, self.two)], ["SKIPPED"] * 2)
        for enabled, state, status in ((True, "RUNNING", 200), (False, "SKIPPED", 404)):
            began = time.monotonic()
            self.assertEqual(self.one.put("/api/v1/flags/flagged", {"enabled": enabled}).status, 200)
            for node in (self.one, self.two):
                node.wait_observed("flagged", state)
            self.assertLess(time.monotonic() - began, POLL_S + 4 * SLOW)
            self.assertEqual([node.get("/api/v1/m/flagged/echo").status for node in (self.one, self.two)], [status] * 2)

    def test_what_the_environment_of_one_fixes_the_others_may_set_for_themselves(self):
        self.assertError(self.two.put("/api/v1/flags/fixed", {"enabled": False}), 409, "FLAG_FIXED")
        self.assertEqual(self.one.put("/api/v1/flags/fixed", {"enabled": False}).data["enabled"], False)
        self.assertEqual(self.one.put(f"/api/v1/flags/{NAME}", {"enabled": True}).status, 200)
        self.soon(lambda: told(self.two)["on"], "the later change is there")
        shown = self.two.get("/api/v1/flags/fixed").data
        self.assertEqual((shown["enabled"], shown["source"]), (True, "environment"))

    def test_without_the_database_the_last_flags_count_and_changes_come_with_it(self):
        self.assertEqual(self.one.put(f"/api/v1/flags/{NAME}", {"enabled": True}).status, 200)
        self.soon(lambda: told(self.two)["on"], "the module is told")
        self.server.stop()
        self.assertTrue(told(self.two)["on"])
        self.server.start()
        self.server.sql("UPDATE bulkhead_internal.flags SET enabled = false")  # by whomever
        for node in (self.one, self.two):
            wait_until(lambda: not told(node)["on"], "the change is seen", 30 * SLOW)


class Rules(DaemonTest):
    def test_who_has_it_is_the_same_in_the_module_and_by_the_documented_sum_and_grows_with_the_percentage(self):
        daemon = self.daemon(**ECHO)
        identities = [f"user-{i}" for i in range(60)]
        before = set()
        for percentage in (0, 10, 50, 99, 100):
            answer = daemon.put(f"/api/v1/flags/{NAME}", {"enabled": True, "percentage": percentage})
            self.assertEqual((answer.status, answer.data["percentage"]), (200, percentage))
            expected = {one for one in identities if bucket(one) < percentage}
            wait_until(lambda: told(daemon, identities[0])["on"], "the module is told")
            wait_until(lambda: {one for one in identities if told(daemon, one)["onFor"]} == expected, f"those of {percentage} %")
            self.assertLessEqual(before, expected)
            before = expected
        self.assertEqual(before, set(identities))

    def test_a_worker_has_the_rules_from_its_first_moment(self):
        daemon = self.daemon(**ECHO)
        for identities, expected in ((["ann"], False), (["ann", "ben"], True)):
            self.assertEqual(daemon.put(f"/api/v1/flags/{NAME}", {"enabled": True, "percentage": 0, "identities": identities}).status, 200)
            self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
            self.assertEqual(daemon.post("/api/v1/modules/echo/enable").status, 200)
            self.assertEqual((told(daemon)["benAtFirst"], told(daemon, "ben")["onFor"], told(daemon, "ann")["onFor"]), (expected, expected, True))

    def test_spellings_of_a_name_are_one_flag(self):
        daemon = self.daemon(**ECHO)
        self.assertEqual(daemon.put("/api/v1/flags/New.Pricing", {"enabled": True}).data["name"], "New.Pricing")
        self.assertEqual(daemon.put(f"/api/v1/flags/{NAME}", {"enabled": False}).data["name"], "New.Pricing")
        self.assertEqual([flag["name"] for flag in daemon.get("/api/v1/flags").data], ["New.Pricing"])
        self.assertEqual(daemon.delete("/api/v1/flags/NEW_PRICING").status, 200)
        self.assertEqual(daemon.get("/api/v1/flags").data, [])


class Precedence(DaemonTest):
    def test_of_each_two_who_say_something_the_higher_one_counts_and_delete_brings_the_lower_one_back(self):
        """Every subset of the three, each saying the opposite of the one below it."""
        layers = ("file", "api", "environment")
        said = {}  # flag → layer → value
        for size in range(len(layers) + 1):
            for chosen in itertools.combinations(layers, size):
                for first in (True, False):
                    said["-".join(("f", *chosen, str(first).lower()))] = {layer: first == (i % 2 == 0) for i, layer in enumerate(chosen)}
        file = "flags:\n" + "".join(f"  {name}: {json.dumps(values['file'])}\n" for name, values in said.items() if "file" in values)
        environment = {"FEATURE_FLAG_" + name.upper().replace("-", "_"): json.dumps(values["environment"])
                       for name, values in said.items() if "environment" in values}
        # What the API says beside the environment was said when that did not speak.
        daemon = self.daemon(config=file)
        for name, values in said.items():
            if "api" in values:
                self.assertEqual(daemon.put(f"/api/v1/flags/{name}", {"enabled": values["api"]}).status, 200, name)
        daemon.stop()
        daemon.env = environment
        daemon.start()
        shown = {flag["name"]: (flag["enabled"], flag["source"]) for flag in daemon.get("/api/v1/flags").data}
        for name, values in said.items():
            with self.subTest(name):
                if not values:
                    self.assertNotIn(name, shown)
                    self.assertError(daemon.get(f"/api/v1/flags/{name}"), 404, "FLAG_NOT_FOUND")
                    continue
                top = [layer for layer in layers if layer in values][-1]
                self.assertEqual(daemon.get(f"/api/v1/flags/{name}").data["source"], top)
                self.assertEqual(daemon.get(f"/api/v1/flags/{name}").data["enabled"], values[top])
                if "environment" in values:
                    self.assertError(daemon.put(f"/api/v1/flags/{name}", {"enabled": True}), 409, "FLAG_FIXED")
                if "api" not in values:
                    self.assertError(daemon.delete(f"/api/v1/flags/{name}"), 404, "FLAG_NOT_FOUND")
                    continue
                self.assertEqual(daemon.delete(f"/api/v1/flags/{name}").status, 200)
                left = [layer for layer in layers if layer in values and layer != "api"]
                answer = daemon.get(f"/api/v1/flags/{name}")
                if left:
                    self.assertEqual((answer.data["enabled"], answer.data["source"]), (values[left[-1]], left[-1]))
                else:
                    self.assertError(answer, 404, "FLAG_NOT_FOUND")

    def test_environment_and_file_are_for_everybody(self):
        daemon = self.daemon(env={VARIABLE: "true"}, **ECHO)
        self.assertEqual((told(daemon, "ann")["onFor"], told(daemon, "")["onFor"]), (True, True))
        shown = daemon.get(f"/api/v1/flags/{NAME}").data
        self.assertEqual((shown["percentage"], shown["identities"], shown["revision"]), (None, [], 0))


class BadInput(DaemonTest):
    def test_each_mistake_is_named_with_its_path_and_changes_nothing(self):
        daemon = self.daemon()
        on = {"enabled": True}
        for body, paths in (({**on, "percentage": 101}, {"/percentage"}), ({**on, "percentage": -1}, {"/percentage"}),
                            ({**on, "percentage": 2.5}, {"/percentage"}), ({**on, "percentage": "many"}, {"/percentage"}),
                            ({**on, "percentge": 5}, {"/percentge"}), ({"enabled": "yes"}, {"/enabled"}), ({"enabled": 1}, {"/enabled"}), ({}, {"enabled"}),
                            ({**on, "identities": "ann"}, {"/identities"}), ({**on, "identities": ["a", ""]}, {"/identities/1"}),
                            ({**on, "identities": ["x" * 129]}, {"/identities/0"}), ({**on, "identities": ["x"] * 1001}, {"/identities"}),
                            ({**on, "description": "d" * 501}, {"/description"}),
                            ({**on, "percentage": 200, "identities": [""], "description": "d" * 501}, {"/percentage", "/identities/0", "/description"})):
            with self.subTest(str(body)[:80]):
                answer = daemon.put("/api/v1/flags/x", body)
                self.assertError(answer, 400, "INVALID_ARGUMENT")
                self.assertEqual({detail["path"] for detail in answer.error["details"]}, paths, answer)
        for name in ("n" * 129, "a%20b", "a%3Bb", "%C3%A4"):
            with self.subTest(name):
                answer = daemon.put(f"/api/v1/flags/{name}", on)
                self.assertError(answer, 400, "INVALID_ARGUMENT")
                self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/name"], answer)
        self.assertEqual(daemon.get("/api/v1/flags").data, [])

    def test_a_variable_or_a_line_of_the_file_that_is_neither_true_nor_false_is_refused_at_the_start(self):
        folder = self.temporary_folder()
        (folder / "bulkhead.yaml").write_text("flags:\n  fine: on\n  bad: 50\n")
        serve = ("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data")
        code, _out, err = harness.run_serve(*serve, env={VARIABLE: "maybe"})
        self.assertNotEqual(code, 0)
        self.assertIn(f"{VARIABLE}: \"maybe\" is neither true nor false.", err)
        self.assertIn("bulkhead.yaml:3: flags.bad: A flag is true or false.", err)


if __name__ == "__main__":
    harness.main()
