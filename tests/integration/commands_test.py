"""The commands of the checkout: deploy/packages.sh, deploy/quickstart.sh and tests/run.sh say what they do and refuse what they don't know."""

import os
import pathlib
import shutil
import subprocess
import time
import unittest

import harness
from harness import SLOW


def sh(script, *arguments, env=None, cwd=None):
    done = subprocess.run(["sh", str(harness.SOURCE / script), *arguments], capture_output=True, text=True, env=env, cwd=cwd or "/", timeout=60 * SLOW)
    return done.returncode, done.stdout, done.stderr


class Packages(unittest.TestCase):
    def test_when_nothing_is_missing_it_is_done_at_once_and_says_nothing(self):
        began = time.monotonic()
        code, out, err = sh("deploy/packages.sh")
        self.assertEqual((code, out, err), (0, "", ""))
        self.assertLess(time.monotonic() - began, 0.3 * SLOW)

    def test_it_prints_its_list_and_refuses_other_options(self):
        code, out, _err = sh("deploy/packages.sh", "--list")
        names = out.split()
        self.assertEqual(code, 0)
        self.assertEqual(len(names), len(set(names)), "a package stands there twice")
        self.assertIn("postgresql-15", names)
        code, _out, err = sh("deploy/packages.sh", "--remove-everything")
        self.assertEqual(code, 1)
        self.assertIn("--remove-everything", err)

    @unittest.skipIf(harness.IS_ROOT and not shutil.which("setpriv"), "setpriv is not installed")
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
        for arguments, word in ((["--presets"], "--presets"), (["--preset", "fast"], "fast"), (["--preset"], "--preset"), (["-R", "x"], "-R")):
            with self.subTest(arguments):
                code, _out, err = sh("tests/run.sh", *arguments)
                self.assertEqual(code, 2)
                self.assertIn(word, err)

    def test_every_preset_is_known_to_cmake(self):
        presets = {preset["name"] for preset in harness.json.loads((harness.SOURCE / "CMakePresets.json").read_text())["configurePresets"]
                   if not preset.get("hidden")}
        self.assertEqual(presets, {"release", "debug", "asan", "tsan"})

    def test_continuous_integration_runs_it(self):
        self.assertIn("tests/run.sh", (harness.SOURCE / ".ci/run").read_text())
        self.assertTrue(os.access(harness.SOURCE / ".ci/run", os.X_OK))


class Quickstart(unittest.TestCase):
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
