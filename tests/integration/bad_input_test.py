"""What cannot work says so in a sentence, ends with another code than 0, and leaves nothing half-done."""

import os
import socket
import unittest

import harness
from harness import DaemonTest, run_serve, wait_until


class BadInput(DaemonTest):
    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder()
        self.data = self.folder / "data"

    def options(self, config=None, data=None, **other):
        """Arguments of serve on free ports, with what the test wants to be different."""
        arguments = ["serve", "--data", data or self.data, "--modules", self.folder / "modules"]
        if config is not None:
            path = self.folder / "bulkhead.yaml"
            path.write_bytes(config if isinstance(config, bytes) else config.encode())
            arguments += ["--config", path]
        for name, value in {"listen": f"127.0.0.1:{harness.free_port()}", "admin-listen": f"127.0.0.1:{harness.free_port()}", **other}.items():
            arguments += [f"--{name}", value]
        return arguments

    def assert_refused(self, arguments, *words, env=None):
        code, out, err = run_serve(*arguments, env=env)
        self.assertNotIn(code, (0, -6, -11), err)
        self.assertGreater(code, 0, err)
        for word in words:
            self.assertIn(str(word).lower(), err.lower())
        self.assertNotIn("bulkhead ready", out)
        self.assertEqual(harness.processes_that_mention(self.folder), set())
        return err

    def test_an_unknown_option_is_named_with_the_nearest_one(self):
        err = self.assert_refused(["serve", "--lisen", "127.0.0.1:1"], "--lisen", "--listen")
        self.assertFalse(self.data.exists(), err)

    def test_an_unknown_command_is_named(self):
        self.assert_refused(["sreve"], "sreve", "serve")

    def test_an_option_without_its_value_is_named(self):
        self.assert_refused(["serve", "--listen"], "--listen")

    def test_an_address_that_is_none_is_named(self):
        for address in ("nonsense", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", ":"):
            with self.subTest(address):
                self.assert_refused(self.options(listen=address), "listen")

    def test_an_address_of_another_machine_is_named(self):
        self.assert_refused(self.options(listen="192.0.2.1:4000"), "192.0.2.1:4000")

    def test_a_configuration_that_cannot_be_read_is_named(self):
        self.assert_refused(["serve", "--config", self.folder / "nowhere.yaml", "--data", self.data], "nowhere.yaml")
        self.assert_refused(["serve", "--config", self.folder, "--data", self.data], self.folder)
        self.assertFalse(self.data.exists())

    def test_a_wrong_configuration_is_told_with_file_line_and_key(self):
        cases = {
            "listen: 127.0.0.1:4000\nlisten_on: x\n": ("bulkhead.yaml:2", "listen_on"),
            "log:\n  level: loud\n": ("bulkhead.yaml:2", "log.level"),
            "log:\n  colour: red\n": ("bulkhead.yaml:2", "colour"),
            "boot:\n  onCriticalFailure: cry\n": ("bulkhead.yaml:2", "onCriticalFailure"),
            "discovery:\n  development: perhaps\n": ("bulkhead.yaml:2", "development"),
            "modules:\n  echo:\n    enable: true\n": ("bulkhead.yaml:3", "enable"),
            "modules:\n  Not A Name:\n    enabled: true\n": ("bulkhead.yaml:2",),
            "modules: [a, b]\n": ("bulkhead.yaml:1", "modules"),
            "listen: [\n": ("bulkhead.yaml:",),
            "listen: a\n\tdata: b\n": ("bulkhead.yaml:2",),
            "listen: a\nlisten: b\n": ("bulkhead.yaml:2", "listen"),
            "- a\n- b\n": ("bulkhead.yaml:1",),
        }
        for text, words in cases.items():
            with self.subTest(text):
                self.assert_refused(self.options(text), *words)
        self.assertFalse(self.data.exists(), "nothing was made before the configuration was known to be right")

    def test_a_wrong_environment_variable_is_named(self):
        self.assert_refused(self.options(), "BULKHEAD_LOG_LEVEL", env={"BULKHEAD_LOG_LEVEL": "loud"})

    def test_a_port_in_use_is_named(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", harness.free_port()))
            other.listen()
            address = f"127.0.0.1:{other.getsockname()[1]}"
            self.assert_refused(self.options(listen=address), address, "in use")
            self.assert_refused(self.options(**{"admin-listen": address}), address, "in use")
        self.assertFalse(self.data.exists(), "nothing was made before the ports were known to be free")

    def test_the_ports_of_another_supervisor_are_not_shared(self):
        daemon = self.daemon()
        self.assert_refused(self.options(listen=daemon.address), daemon.address, "in use")
        self.assert_refused(self.options(**{"admin-listen": daemon.admin_address}), daemon.admin_address, "in use")
        for _ in range(10):
            self.assertEqual(daemon.get("/healthz", token=None).status, 200)

    def test_a_data_folder_held_by_another_supervisor_is_refused_and_the_other_unharmed(self):
        daemon = self.daemon()
        code, out, err = run_serve(*self.options(data=daemon.data))
        self.assertGreater(code, 0)
        self.assertIn(str(daemon.data), err)
        self.assertNotIn("bulkhead ready", out)
        self.assertEqual(daemon.get("/api/v1/modules").status, 200)
        self.assertTrue(daemon.running())

    def test_a_data_folder_that_cannot_be_made_is_named(self):
        (self.folder / "file").write_text("in the way")
        self.assert_refused(self.options(data=self.folder / "file" / "data"), self.folder / "file")
        self.assert_refused(self.options(data=self.folder / "file"), self.folder / "file")

    @unittest.skipIf(harness.IS_ROOT, "root may write everywhere")
    def test_a_data_folder_without_the_right_to_write_is_named(self):
        closed = self.folder / "closed"
        closed.mkdir(mode=0o555)
        self.assert_refused(self.options(data=closed / "data"), closed)

    @unittest.skipUnless(harness.IS_ROOT, "only as root do modules have users of their own")
    def test_a_data_folder_that_the_modules_cannot_reach_names_the_folder_in_the_way(self):
        closed = self.folder / "closed"
        closed.mkdir()
        closed.chmod(0o700)
        self.assert_refused(self.options(data=closed / "data"), closed, "/var/lib/bulkhead")

    def test_a_store_url_that_leads_nowhere_is_told_without_its_password(self):
        port = harness.free_port()
        err = self.assert_refused(self.options(f"store:\n  url: postgresql://bulkhead:s3cr3t@127.0.0.1:{port}/bulkhead\n"), str(port))
        self.assertNotIn("s3cr3t", err)
        self.assert_refused(self.options("store:\n  url: mysql://nowhere\n"), "store")

    def test_a_postgresql_folder_of_something_else_is_left_alone(self):
        (self.data / "postgres").mkdir(parents=True)
        (self.data / "postgres" / "precious").write_text("mine")
        self.assert_refused(self.options(), "postgres")
        self.assertEqual((self.data / "postgres" / "precious").read_text(), "mine")

    def test_an_admin_token_that_is_none_is_refused(self):
        self.data.mkdir()
        (self.data / "admin.token").write_text("")
        self.assert_refused(self.options(), "admin.token")

    def test_a_modules_folder_that_does_not_exist_is_told_and_the_rest_runs(self):
        daemon = self.daemon(modules_dir=self.folder / "nowhere")
        self.assertEqual(daemon.get("/api/v1/modules").data, [])
        self.assertIn("nowhere", daemon.log())

    def test_a_module_named_in_the_configuration_that_nobody_ships_is_told(self):
        daemon = self.daemon(modules=["nobody-ships-this"])
        self.assertIn("nobody-ships-this", daemon.log())

    def test_help_and_version_are_answered_on_stdout_with_0(self):
        for arguments, word in ((["--help"], "serve"), (["serve", "--help"], "--admin-listen"), (["--version"], "0.")):
            with self.subTest(arguments):
                code, out, err = run_serve(*arguments)
                self.assertEqual((code, err), (0, ""))
                self.assertIn(word, out)


if __name__ == "__main__":
    harness.main()
