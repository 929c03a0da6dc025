"""The commands of the checkout: deploy/packages.sh, deploy/quickstart.sh and tests/run.sh say what they do and refuse what they don't know."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import unittest

import harness
from harness import SLOW, Daemon, DaemonTest


def sh(script, *arguments, env=None, cwd=None):
    done = subprocess.run(["sh", str(harness.SOURCE / script), *arguments], capture_output=True, text=True, env=env, cwd=cwd or "/", timeout=60 * SLOW)
    return done.returncode, done.stdout, done.stderr


class Packages(unittest.TestCase):
    def test_when_nothing_is_missing_it_is_done_at_once_and_says_nothing(self):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, out, err = sh("deploy/packages.sh")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertEqual((code, out, err), (0, "", ""))
        # What it cost and not how long it took, because other tests run beside this one: apt alone would take seconds.
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 0.5)

    def test_it_prints_its_list_and_refuses_other_options(self):
        code, out, _err = sh("deploy/packages.sh", "--list")
        names = out.split()
        self.assertEqual(code, 0)
        self.assertEqual(len(names), len(set(names)), "a package stands there twice")
        self.assertIn("postgresql-15", names)
        code, _out, err = sh("deploy/packages.sh", "--remove-everything")
        self.assertEqual(code, 1)
        self.assertIn("--remove-everything", err)

    def test_without_root_and_sudo_it_names_what_is_missing_and_how_to_get_it(self):
        with harness.tempfile.TemporaryDirectory(prefix="bh-", dir="/tmp") as folder:
            folder = pathlib.Path(folder)
            folder.chmod(0o755)
            # A machine where nothing is installed and nobody has sudo, made of a PATH.
            script = (harness.SOURCE / "deploy/packages.sh").read_text().replace("PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH", "PATH=" + str(folder))
            for tool in ("id", "awk", "tr", "sed", "sh", "apt-get", "printf"):
                if shutil.which(tool):
                    (folder / tool).symlink_to(shutil.which(tool))
            (folder / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
            (folder / "dpkg-query").chmod(0o755)
            (folder / "packages.sh").write_text(script)
            (folder / "packages.sh").chmod(0o644)
            command = ["/bin/sh", str(folder / "packages.sh")]
            if harness.IS_ROOT:
                command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
            done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn("postgresql-15", done.stderr)
            self.assertIn("apt-get install --no-install-recommends", done.stderr)


class Run(unittest.TestCase):
    def test_options_that_it_does_not_know_are_refused(self):
        for arguments, word in ((["--presets"], "--presets"), (["--preset", "fast"], "fast"), (["--preset"], "--preset"), (["-R", "x"], "-R"),
                                (["--store"], "--store"), (["--store", "mysql://x"], "mysql")):
            with self.subTest(arguments):
                code, _out, err = sh("tests/run.sh", *arguments)
                self.assertEqual(code, 2)
                self.assertIn(word, err)

    def test_what_a_program_of_tests_skips_is_told(self):
        with harness.tempfile.TemporaryDirectory(prefix="bh-", dir="/tmp") as folder:
            # One of the two needs root, the other one needs not to be root.
            program = subprocess.run([str(harness.BUILD / "tests/process_tests"), "--gtest_filter=Isolation.*Uid*"], capture_output=True, text=True,
                                     cwd="/", env={**os.environ, "GTEST_OUTPUT": f"xml:{folder}/isolation_test.xml"}, timeout=60 * SLOW)
            self.assertEqual(program.returncode, 0, program.stdout)
            script = pathlib.Path(folder) / "some_test.py"
            script.write_text(f"import sys, unittest\nsys.path.insert(0, {str(harness.SOURCE / 'tests/integration')!r})\nimport harness\n"
                              "class Some(unittest.TestCase):\n    @unittest.skip('no reason at all')\n    def test_it(self): pass\nharness.main()\n")
            environment = {**os.environ, "BULKHEAD_SKIPS": folder, "BULKHEAD_BUILD": str(harness.BUILD), "BULKHEAD_SOURCE": str(harness.SOURCE)}
            environment.pop("BULKHEAD_REPORT_FD", None)
            python = subprocess.run([sys.executable, "-B", str(script)], capture_output=True, text=True, env=environment, timeout=60 * SLOW)
            self.assertEqual(python.returncode, 0, python.stderr)
            script.unlink()
            tell = [sys.executable, "-B", str(harness.SOURCE / "tests/skips.py")]
            told = subprocess.run([*tell, "end"], capture_output=True, text=True, env=environment, check=True).stdout
            self.assertRegex(told, r"(?m)^  isolation_test Isolation\.\w+: \w+")
            self.assertIn("\n  some_test Some.test_it: no reason at all\n", told)
            subprocess.run([*tell, "begin"], env=environment, check=True)
            told = subprocess.run([*tell, "end"], capture_output=True, text=True, env=environment, check=True).stdout
            self.assertEqual(told, "No test was skipped.\n")

    def test_every_preset_is_known_to_cmake(self):
        presets = {preset["name"] for preset in harness.json.loads((harness.SOURCE / "CMakePresets.json").read_text())["configurePresets"]
                   if not preset.get("hidden")}
        self.assertEqual(presets, {"release", "debug", "asan", "tsan", "fuzz"})

    def test_continuous_integration_runs_it(self):
        self.assertIn("tests/run.sh", (harness.SOURCE / ".ci/run").read_text())
        self.assertTrue(os.access(harness.SOURCE / ".ci/run", os.X_OK))


class QuickDaemon(Daemon):
    """The daemon as deploy/quickstart.sh starts it, from a checkout whose build folder is that of the tests."""

    def __init__(self, **options):
        super().__init__(**options)
        self.checkout = self.folder / "checkout"
        shutil.copytree(harness.SOURCE / "deploy", self.checkout / "deploy")
        (self.checkout / "build").symlink_to(harness.BUILD)
        # All is built, and a build amid the tests would change it under them. So ninja is asked whether it knows what is to be built.
        tools = self.folder / "tools"
        tools.mkdir()
        (tools / "ninja").write_text(f"""#!/bin/sh
printf '%s\\n' "$*" >"{tools}/asked"
[ "$1 $2 $3" = '-C build -j' ] || exit 1
shift 4
for target in "$@"; do {shutil.which("ninja")} -C build -t targets all | grep -q "^$target: " || exit 1; done
""")
        (tools / "ninja").chmod(0o755)
        self.env["PATH"] = f"{tools}:{os.environ['PATH']}"

    def command(self):
        return ["sh", str(self.checkout / "deploy/quickstart.sh"), "--data", str(self.data), "--listen", self.address,
                "--admin-listen", self.admin_address]


class Quickstart(DaemonTest):
    def test_it_becomes_a_daemon_whose_printed_commands_work_and_which_ctrl_c_ends(self):
        daemon = QuickDaemon(cwd="/")
        self._daemons.append(daemon)
        daemon.start()
        self.assertEqual((daemon.folder / "tools/asked").read_text().split()[4:], ["bulkhead", "modules"])
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{daemon.address}")
        self.assertEqual(os.readlink(f"/proc/{daemon.process.pid}/exe"), str(harness.BINARY.resolve()), "the shell is still there")
        last = f"{daemon.address}/api/v1/m/consumption-monitor/live"
        harness.wait_until(lambda: any(line.endswith(last) for line in daemon.stdout_lines), "the printed commands")
        token, *commands = [line.strip().replace("sudo ", "") for line in daemon.stdout_lines if line.startswith("  ")]
        self.assertEqual(token, f"TOKEN=$(cat {daemon.data}/admin.token)")
        self.assertEqual(len(commands), 3)
        for command in commands:
            with self.subTest(command):
                done = subprocess.run(["sh", "-euc", f"{token}\n{command}"], capture_output=True, text=True, timeout=60 * SLOW)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIs(json.loads(done.stdout)["success"], True, done.stdout)
        code, _took = daemon.stop(signal.SIGINT)
        self.assertEqual(code, 0)
        daemon.assert_nothing_left()

    def test_it_ends_in_exec_with_the_sample_configuration_and_the_callers_options(self):
        text = (harness.SOURCE / "deploy/quickstart.sh").read_text().strip().splitlines()
        self.assertEqual(text[-1], 'exec build/bin/bulkhead serve --config deploy/bulkhead.yaml "$@"')

    def test_the_scripts_are_posix_shell(self):
        for script in ("deploy/packages.sh", "deploy/quickstart.sh", "tests/run.sh"):
            with self.subTest(script):
                done = subprocess.run(["sh", "-n", str(harness.SOURCE / script)], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    harness.main()
