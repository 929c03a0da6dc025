"""The tour of README.md, run as it is written: each ```sh block in order, in one shell, against a daemon of its own.

A block that sets up (quickstart, tests, git) is what this test has done already and is left out. Where a ```json block follows a ```sh
block, what the commands print must have its shape: the same keys with values of the same kind. Not run is what stands in blocks of
another kind (```text, ```console). Addresses and the data folder are those of this daemon.
"""

import json
import re
import subprocess
import unittest

import harness
from harness import SLOW, DaemonTest

MODULE = "consumption-monitor"
SETS_UP = re.compile(r"quickstart\.sh|tests/run\.sh|tests/bench|git clone|\bcmake\b|\bninja\b")


def blocks(text):
    """[(kind, content)] of the fenced blocks."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.S | re.M)


def shape_differs(expected, got, where="answer"):
    """A sentence about the first difference between two JSON documents' shapes; None when there is none."""
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"{where} should be an object and is {got!r}"
        for key in expected:
            if key not in got:
                return f"{where} lacks {key}"
            difference = shape_differs(expected[key], got[key], f"{where}.{key}")
            if difference:
                return difference
        return None
    if isinstance(expected, list):
        if not isinstance(got, list):
            return f"{where} should be a list and is {got!r}"
        if expected and not got:
            return f"{where} is empty"
        return shape_differs(expected[0], got[0], f"{where}[0]") if expected else None
    if expected is None or got is None:
        return None
    number = (int, float)
    same = isinstance(got, number) if isinstance(expected, number) and not isinstance(expected, bool) else isinstance(got, type(expected))
    return None if same else f"{where} should be like {expected!r} and is {got!r}"


class Readme(DaemonTest):
    maxDiff = None

    def test_every_command_works_and_answers_as_written(self):
        readme = harness.SOURCE / "README.md"
        found = [(kind, text) for kind, text in blocks(readme.read_text()) if not (kind == "sh" and SETS_UP.search(text))]
        self.assertTrue(any(kind == "sh" for kind, _text in found), "README.md has no ```sh block to run")
        daemon = self.daemon(modules=[MODULE], start=False)
        daemon.cwd = daemon.folder
        daemon.start()
        script, expectations = ["set -eu"], []
        for number, (kind, text) in enumerate(found):
            if kind == "sh":
                script += [f"printf '\\n=== {number}\\n'", text]
            elif kind == "json" and number and found[number - 1][0] == "sh":
                expectations.append((number - 1, json.loads(text)))
        whole = "\n".join(script)
        for written, real in (("127.0.0.1:4000", daemon.address), ("localhost:4000", daemon.address), ("127.0.0.1:4001", daemon.admin_address),
                              ("/var/lib/bulkhead", str(daemon.data)), ("sudo ", "")):
            whole = whole.replace(written, real)
        whole = re.sub(r"(?<![\w/])\.bulkhead\b", str(daemon.data), whole)
        whole = re.sub(r"(?<![\w/])build/bin/", f"{harness.BUILD}/bin/", whole)
        done = subprocess.run(["sh", "-c", whole], capture_output=True, text=True, timeout=120 * SLOW, cwd=harness.SOURCE)
        self.assertEqual(done.returncode, 0, f"{whole}\n--\n{done.stdout}\n{done.stderr}")
        printed = {int(number): text for number, text in re.findall(r"^=== (\d+)\n(.*?)(?=^=== |\Z)", done.stdout, re.S | re.M)}
        for number, expected in expectations:
            with self.subTest(found[number][1].strip()):
                self.assertIsNone(shape_differs(expected, json.loads(printed[number])), printed[number])


if __name__ == "__main__":
    harness.main()
