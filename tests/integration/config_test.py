"""Configurations of modules through the real daemon: every type and rule, what a merge patch does, where a secret never shows, and lost keys.
What is pushed to the running module and what it refuses is in registry_test.py."""

import json
import os
import subprocess
import uuid

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, run_serve, wait_until
from modules_test import echo_like
from own_server import postgres_tool

CONFIG = "/api/v1/modules/echo/config"
MASK = "********"
GREETING = {"greeting": {"type": "string", "label": "Greeting", "default": "hello"}}
ALL_TYPES = {
    **GREETING,
    "word": {"type": "string", "validation": {"minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"}},
    "apiKey": {"type": "password", "sensitive": True, "validation": {"minLength": 8, "pattern": "^[a-z0-9-]+$"}},
    "ratio": {"type": "number", "default": 0.5, "validation": {"min": 0, "max": 1}},
    "count": {"type": "integer", "default": 3, "validation": {"min": 1, "max": 10}},
    "loud": {"type": "boolean", "default": False},
    "mode": {"type": "select", "options": ["a", {"value": 2, "label": "Two"}], "default": "a"},
    "tags": {"type": "multiselect", "options": ["x", "y", "z"], "default": ["x"], "validation": {"maxItems": 2}},
    "extra": {"type": "json", "default": {"deep": {"one": 1, "two": 2}, "list": [1, 2]}},
    "pause": {"type": "duration", "default": "30s", "validation": {"min": 1000, "max": 60000}},
    "site": {"type": "url"},
    "port": {"type": "integer", "required": True, "dependsOn": {"loud": True}},
    "sealed": {"type": "json", "sensitive": True},
}
DEFAULTS = {"greeting": "hello", "ratio": 0.5, "count": 3, "loud": False, "mode": "a", "tags": ["x"], "extra": ALL_TYPES["extra"]["default"],
            "pause": "30s"}
# What is wrong with a value, and what is right at the edge.
WRONG = {
    "word": (["a", "abcdef", "AB", 5, ["ab"]], ["ab", "abcde"]),
    "apiKey": (["short", "NOT-LOWER-CASE", 12345678], ["k-123456"]),
    "ratio": ([-0.1, 1.1, "0.5", True], [0, 1, 0.25]),
    "count": ([0, 11, 1.5, "3"], [1, 10]),
    "loud": (["true", 1], [False]),
    "mode": (["b", "2", ["a"]], ["a", 2]),
    "tags": (["x", ["w"], ["x", "x"], ["x", "y", "z"]], [[], ["z", "y"]]),
    "pause": (["fast", "999ms", "61s", -1, True], ["1s", 60000]),
    "site": (["no url", "example.org", 5], ["https://example.org/path?q=1"]),
}


def patch(daemon, config, **options):
    return daemon.request("PATCH", CONFIG, {"config": config}, **options)


def put(daemon, config, **options):
    return daemon.put(CONFIG, {"config": config}, **options)


def value(daemon, field):
    """What the module itself has."""
    return daemon.get(f"/api/v1/m/echo/config/{field}").data["value"]


class Types(SharedDaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.modules = harness.pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        echo_like(cls.modules, "echo", config={"schema": ALL_TYPES})
        cls.modules.chmod(0o755)
        cls.options = {"modules": ["echo"], "modules_dir": cls.modules}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        harness.shutil.rmtree(cls.modules)

    def setUp(self):
        self.assertEqual(put(self.daemon, {}).status, 200)

    def test_defaults_show_through_whatever_is_not_set(self):
        self.assertEqual(self.daemon.module("echo")["config"], DEFAULTS)
        for field, expected in DEFAULTS.items():
            self.assertEqual(value(self.daemon, field), expected)
        answer = put(self.daemon, {"count": 7, "ratio": None})
        self.assertEqual(answer.data["config"], {**DEFAULTS, "count": 7})
        self.assertEqual((value(self.daemon, "count"), value(self.daemon, "ratio"), value(self.daemon, "word")), (7, 0.5, None))
        self.assertEqual(put(self.daemon, {"loud": False, "word": "abc"}).data["config"], {**DEFAULTS, "word": "abc"}, "a PUT is the whole of it")

    def test_each_type_takes_what_it_says_and_nothing_else(self):
        for field, (wrong, right) in WRONG.items():
            for one in wrong:
                with self.subTest(f"{field} {one!r}"):
                    revision = self.daemon.module("echo")["configRevision"]
                    answer = put(self.daemon, {field: one})
                    self.assertError(answer, 400, "CONFIG_INVALID")
                    self.assertTrue(all(detail["path"].startswith(f"/{field}") for detail in answer.error["details"]), answer)
                    self.assertEqual(self.daemon.module("echo")["configRevision"], revision)
            for one in right:
                with self.subTest(f"{field} {one!r}"):
                    self.assertEqual(put(self.daemon, {field: one}).status, 200)
                    self.assertEqual(value(self.daemon, field), one)

    def test_all_that_is_wrong_is_told_at_once_with_codes_and_no_value(self):
        wrong = {"word": "TOO-LONG-hunter2", "apiKey": "hunter2", "ratio": 7, "count": 2.5, "loud": "hunter2", "mode": "hunter2",
                 "tags": ["hunter2"], "pause": "hunter2", "site": "hunter2", "hunter3": 1, "greeting": 5}
        answer = put(self.daemon, wrong)
        self.assertError(answer, 400, "CONFIG_INVALID")
        told = {detail["path"]: detail["code"] for detail in answer.error["details"]}
        self.assertEqual(set(told), {f"/{name}" for name in wrong if name != "tags"} | {"/tags/0"})
        self.assertEqual((told["/ratio"], told["/count"], told["/mode"], told["/pause"], told["/site"], told["/hunter3"], told["/greeting"]),
                         ("TOO_LARGE", "NOT_INTEGER", "NOT_AN_OPTION", "INVALID_DURATION", "INVALID_URL", "UNKNOWN_FIELD", "WRONG_TYPE"))
        self.assertNotIn("hunter2", answer.body.decode())
        self.assertNotIn("hunter2", self.daemon.log())

    def test_a_field_that_depends_on_another_counts_while_that_is_set(self):
        answer = put(self.daemon, {"loud": True})
        self.assertError(answer, 400, "CONFIG_INVALID")
        self.assertEqual([(d["path"], d["code"]) for d in answer.error["details"]], [("/port", "REQUIRED")])
        self.assertEqual(put(self.daemon, {"loud": True, "port": 80}).status, 200)
        self.assertError(put(self.daemon, {"loud": True, "port": "eighty"}), 400, "CONFIG_INVALID")
        self.assertError(patch(self.daemon, {"port": None}), 400, "CONFIG_INVALID")
        self.assertEqual(patch(self.daemon, {"port": None, "loud": False}).status, 200)

    def test_a_patch_is_a_json_merge_patch_over_what_is_stored(self):
        """RFC 7396: objects are merged in depth, lists are replaced, null removes."""
        put(self.daemon, {"count": 5, "word": "abc", "tags": ["y"], "extra": {"a": {"b": 1, "c": 2}, "list": [1, 2, 3]}})
        answer = patch(self.daemon, {"count": None, "extra": {"a": {"b": None, "d": 4}, "list": [9]}, "loud": False})
        self.assertEqual(answer.status, 200, answer)
        merged = {"a": {"c": 2, "d": 4}, "list": [9]}
        self.assertEqual(answer.data["config"], {**DEFAULTS, "word": "abc", "tags": ["y"], "extra": merged})
        self.assertEqual((value(self.daemon, "extra"), value(self.daemon, "count")), (merged, 3))
        self.assertError(patch(self.daemon, {"count": 99}), 400, "CONFIG_INVALID")
        self.assertEqual(value(self.daemon, "extra"), merged)
        revision = self.daemon.module("echo")["configRevision"]
        self.assertEqual(patch(self.daemon, {}).data["configRevision"], revision, "an empty patch changes nothing")

    def test_a_secret_is_kept_replaced_and_taken_away_by_a_patch(self):
        put(self.daemon, {"apiKey": "first-key-1", "sealed": {"user": "u", "pass": "p"}})
        self.assertEqual(patch(self.daemon, {"word": "abc"}).data["config"], {**DEFAULTS, "word": "abc", "apiKey": MASK, "sealed": MASK})
        self.assertEqual((value(self.daemon, "apiKey"), value(self.daemon, "sealed")), ("first-key-1", {"user": "u", "pass": "p"}))
        self.assertEqual(patch(self.daemon, {"apiKey": MASK, "word": "abcd"}).status, 200)
        self.assertEqual(value(self.daemon, "apiKey"), "first-key-1")
        self.assertEqual(patch(self.daemon, {"apiKey": "other-key-2", "sealed": {"pass": "q"}}).status, 200)
        self.assertEqual((value(self.daemon, "apiKey"), value(self.daemon, "sealed")), ("other-key-2", {"user": "u", "pass": "q"}))
        shown = patch(self.daemon, {"apiKey": None}).data["config"]
        self.assertNotIn("apiKey", shown)
        self.assertIsNone(value(self.daemon, "apiKey"))


class Secrets(DaemonTest):
    private_store = True

    def dump(self, daemon):
        done = subprocess.run([postgres_tool("pg_dump"), f"host={daemon.data}/run/pg user=bulkhead dbname=bulkhead"], capture_output=True, text=True,
                              env={**os.environ, "PGPASSWORD": harness._read(daemon.data / "secrets" / "postgres.password").decode().strip()})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("$sealed", done.stdout)
        return done.stdout

    def shown(self, daemon):
        """Every place that an operator, or a thief of a disk, might look into."""
        places = {path: daemon.get(path).body.decode() for path in (
            "/api/v1/modules", "/api/v1/modules/echo", "/api/v1/audit?pageSize=500", "/api/v1/system/modules", "/api/v1/system/metrics", "/metrics",
            *(f"/api/v1/modules/echo/plan?action={action}" for action in ("enable", "disable", "configure", "delete")))}
        places["the log"] = daemon.log()
        places["pg_dump"] = self.dump(daemon)
        for pid in {worker["pid"] for worker in daemon.module("echo")["workers"] if worker["pid"]} | {daemon.process.pid}:
            places[f"the command line of {pid}"] = harness._read(f"/proc/{pid}/cmdline").decode("utf-8", "replace")
            places[f"the environment of {pid}"] = harness._read(f"/proc/{pid}/environ").decode("utf-8", "replace")
        return places

    def test_the_plain_text_is_nowhere_but_in_the_module(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", config={"schema": ALL_TYPES})
        daemon = self.daemon(modules=["echo"], modules_dir=modules, config="log:\n  level: debug\n")
        first, second, deep, wrong = (f"{name}-{uuid.uuid4()}" for name in ("first", "second", "deep", "WRONG"))
        secrets = (first, second, deep, wrong)
        key = {"Idempotency-Key": str(uuid.uuid4())}
        config = {"apiKey": first, "sealed": {"deep": [deep]}}
        answers = [put(daemon, config, headers=key), put(daemon, config, headers=key),
                   patch(daemon, {"apiKey": second}), put(daemon, {"apiKey": wrong}),
                   put(daemon, {"apiKey": second, "greeting": "nonsense"}),  # the module refuses
                   daemon.post("/api/v1/modules/validate", {"manifest": daemon.module("echo")["manifest"], "config": {"apiKey": wrong}})]
        self.assertEqual([answer.status for answer in answers[:5]], [200, 200, 200, 400, 409], answers)
        self.assertEqual(put(daemon, {"apiKey": second, "sealed": MASK}).status, 200)
        self.assertEqual((value(daemon, "apiKey"), value(daemon, "sealed")), (second, {"deep": [deep]}))
        places = {**self.shown(daemon), **{f"answer {i}": answer.body.decode() for i, answer in enumerate(answers)}}
        # A crash, whose report has what the process has written.
        pid = daemon.module("echo")["workers"][0]["pid"]
        daemon.post("/api/v1/m/echo/crash")
        wait_until(lambda: daemon.module("echo")["exits"] and daemon.module("echo")["workers"][0]["pid"] not in (None, pid), "the crash is reported")
        places["after a crash"] = json.dumps(daemon.module("echo"))
        self.assertEqual(daemon.post("/api/v1/system/secrets/rotate").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
        places.update({f"{name} at the end": text for name, text in self.shown(daemon).items()})
        for name, text in places.items():
            for secret in secrets:
                self.assertNotIn(secret, text, name)
        # The files of the database, its log and its write-ahead log among them.
        daemon.stop()
        files = [path for path in daemon.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        self.assertGreater(len(files), 500)
        for path in files:
            content = path.read_bytes()
            for secret in secrets:
                self.assertNotIn(secret.encode(), content, path)

    def test_a_secret_that_is_a_default_of_the_manifest_is_masked_in_the_configuration(self):
        modules = self.temporary_folder()
        secret = f"default-{uuid.uuid4()}"
        echo_like(modules, "echo", config={"schema": {**GREETING, "apiKey": {"type": "password", "sensitive": True, "default": secret}}})
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        self.assertEqual(daemon.module("echo")["config"], {"greeting": "hello", "apiKey": MASK})
        self.assertEqual(value(daemon, "apiKey"), secret)
        # Sent back as it is shown it stays the default, and is not stored.
        self.assertEqual(put(daemon, {"greeting": "hi", "apiKey": MASK}).status, 200)
        self.assertEqual(value(daemon, "apiKey"), secret)
        self.assertEqual(json.loads(daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'")[0][0]), {"greeting": "hi"})
        self.assertNotIn(secret, daemon.log())

    def test_what_a_changed_manifest_calls_a_secret_is_sealed_when_it_is_taken(self):
        modules = self.temporary_folder()
        plain = f"plain-{uuid.uuid4()}"
        schema = {**GREETING, "apiKey": {"type": "password"}, "note": {"type": "string"}}
        folder = echo_like(modules, "echo", config={"schema": schema})
        daemon = self.daemon(modules=["echo"], modules_dir=modules, config="discovery:\n  development: true\n")
        self.assertEqual(put(daemon, {"note": plain, "apiKey": "top secret"}).status, 200)
        stored = "SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'"
        self.assertIn(plain, str(daemon.sql(stored)))
        before = json.loads(daemon.sql(stored)[0][0])
        daemon.stop()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["config"]["schema"]["note"]["sensitive"] = True
        (folder / "manifest.json").write_text(json.dumps(manifest))
        daemon.start()
        after = json.loads(daemon.sql(stored)[0][0])
        self.assertEqual((list(after["note"]), after["apiKey"]), (["$sealed"], before["apiKey"]))
        self.assertNotIn(plain, str(after))
        self.assertEqual(daemon.module("echo")["config"], {"greeting": "hello", "note": MASK, "apiKey": MASK})
        self.assertEqual((value(daemon, "note"), value(daemon, "apiKey")), (plain, "top secret"))

    def test_a_secret_of_the_first_registration_is_sealed_from_the_start(self):
        secret = f"first-{uuid.uuid4()}"
        config = f"modules:\n  echo:\n    enabled: true\n    config:\n      apiKey: {secret}\n"
        daemon = self.daemon(config=config, modules_dir=harness.FAKES)
        self.assertEqual(value(daemon, "apiKey"), secret)
        self.assertEqual(daemon.module("echo")["config"]["apiKey"], MASK)
        for name, text in self.shown(daemon).items():
            self.assertNotIn(secret, text, name)


class Keys(DaemonTest):
    def lose(self, daemon, other):
        """Stops the daemon and takes its keys away; answers what puts them back. `other` is a wrong key, or None."""
        daemon.stop()
        keys = daemon.data / "secrets" / "config.keys"
        lost = keys.read_bytes()
        if other:
            keys.write_text(other + "\n")
        else:
            keys.unlink()
        daemon.start()

        def put_back():
            daemon.stop()
            keys.write_bytes(lost)
            daemon.start()

        return put_back

    def stored(self, daemon):
        return daemon.sql("SELECT config, config_revision FROM bulkhead_internal.modules WHERE name = 'echo'")

    def test_with_a_lost_or_a_wrong_key_nothing_is_lost_and_everything_is_back_with_it(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", config={"schema": ALL_TYPES})
        echo_like(modules, "other")
        daemon = self.daemon(modules=["echo", "other"], modules_dir=modules)
        self.assertEqual(put(daemon, {"apiKey": "top-secret-1", "sealed": [1, 2], "word": "abc"}).status, 200)
        before = self.stored(daemon)
        for other in (None, "22" * 32):
            with self.subTest(other):
                put_back = self.lose(daemon, other)
                self.assertEqual(daemon.get("/api/v1/m/other/echo").status, 200, "the others run")
                view = daemon.wait_observed("echo", "FAILED", "BACKOFF")
                self.assertEqual(view["observed"]["reason"]["code"], "SECRET_UNREADABLE")
                self.assertIn("apiKey", view["observed"]["reason"]["message"])
                self.assertEqual((view["config"]["apiKey"], view["config"]["word"]), (MASK, "abc"))
                for answer in (patch(daemon, {"word": "abcd"}), patch(daemon, {"apiKey": "new-secret-2"}), put(daemon, {**view["config"], "word": "abcd"}),
                               put(daemon, {"apiKey": "new-secret-2", "sealed": MASK}), daemon.post("/api/v1/system/secrets/rotate")):
                    self.assertEqual((answer.status, answer.error["code"]), (500, "SECRET_UNREADABLE"), answer)
                    self.assertNotIn("top-secret-1", answer.body.decode())
                self.assertEqual(self.stored(daemon), before)
                put_back()
                daemon.wait_observed("echo", "RUNNING")
                self.assertEqual((value(daemon, "apiKey"), value(daemon, "sealed"), value(daemon, "word")), ("top-secret-1", [1, 2], "abc"))
                self.assertEqual(self.stored(daemon), before)
        # Lost for good: a whole configuration, with all secrets set anew, is taken.
        self.lose(daemon, None)
        self.assertEqual(put(daemon, {"apiKey": "new-secret-2", "word": "abc"}).status, 200)
        daemon.wait_observed("echo", "RUNNING")
        self.assertEqual((value(daemon, "apiKey"), value(daemon, "sealed")), ("new-secret-2", None))

    def test_a_key_that_is_none_ends_the_start_and_is_not_repeated(self):
        folder = self.temporary_folder()
        (folder / "bulkhead.yaml").write_text("")
        for keys in ("11" * 31, "zz" * 32, "11" * 32 + ",short", ",".join(["11" * 32] * 9)):
            with self.subTest(keys):
                code, out, err = run_serve("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data", "--modules", harness.FAKES,
                                           "--listen", f"127.0.0.1:{harness.free_port()}", "--admin-listen", f"127.0.0.1:{harness.free_port()}",
                                           env={"BULKHEAD_SECRETS_KEYS": keys}, within=60 * SLOW)
                self.assertEqual(code, 1, err)
                self.assertNotIn(keys.split(",")[-1], out + err)
                self.assertNotIn("11" * 31, out + err)

    def test_a_wrong_key_of_the_environment_reads_nothing_and_the_right_one_everything(self):
        daemon = self.daemon(modules=["echo"], modules_dir=harness.FAKES, env={"BULKHEAD_SECRETS_KEYS": "11" * 32})
        self.assertEqual(put(daemon, {"apiKey": "top secret"}).status, 200)
        before = self.stored(daemon)
        daemon.stop()
        daemon.env["BULKHEAD_SECRETS_KEYS"] = "22" * 32
        daemon.start()
        self.assertEqual(daemon.wait_observed("echo", "FAILED", "BACKOFF")["observed"]["reason"]["code"], "SECRET_UNREADABLE")
        self.assertEqual(self.stored(daemon), before)
        daemon.stop()
        daemon.env["BULKHEAD_SECRETS_KEYS"] = "22" * 32 + "," + "11" * 32
        daemon.start()
        self.assertEqual(value(daemon, "apiKey"), "top secret")
        self.assertEqual(daemon.post("/api/v1/system/secrets/rotate").json["modules"], 1)
        self.assertNotEqual(self.stored(daemon), before)


class Extensions(DaemonTest):
    def module(self, modules, name, *extensions):
        echo_like(modules, name, database={"extensions": list(extensions)})

    def test_the_operator_says_which_extensions_modules_may_have(self):
        modules = self.temporary_folder()
        self.module(modules, "wants-hstore", "hstore")
        self.module(modules, "wants-citext", "citext")
        daemon = self.daemon(modules_dir=modules)
        answer = daemon.post("/api/v1/modules/wants-hstore/enable")
        self.assertError(answer, 400, "EXTENSION_NOT_ALLOWED")
        self.assertIn('"hstore"; allowed are pg_trgm, pgcrypto, citext, uuid-ossp, btree_gin, btree_gist, timescaledb', answer.error["message"])
        self.assertIn("store.extensions", answer.error["message"])
        self.assertEqual(daemon.post("/api/v1/modules/wants-citext/enable").status, 200)
        daemon.stop()
        daemon.env["BULKHEAD_STORE_EXTENSIONS"] = "hstore, no-such-extension"
        self.module(modules, "wants-more", "hstore", "no-such-extension")
        daemon.start()
        self.assertEqual(daemon.post("/api/v1/modules/wants-hstore/enable").status, 200)
        self.assertEqual(daemon.sql("SELECT count(*) FROM pg_extension WHERE extname = 'hstore'"), [["1"]])
        # What was allowed before is not any more, and only its module is told so.
        view = daemon.wait_observed("wants-citext", "FAILED", "BACKOFF")
        self.assertEqual(view["observed"]["reason"]["code"], "EXTENSION_NOT_ALLOWED")
        answer = daemon.post("/api/v1/modules/wants-more/enable")
        self.assertError(answer, 409, "EXTENSION_UNAVAILABLE")
        self.assertIn('has no extension "no-such-extension"', answer.error["message"])


if __name__ == "__main__":
    harness.main()
