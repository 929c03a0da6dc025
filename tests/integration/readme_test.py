"""The documents, run as they are written: every ```sh block of each, in order, in one shell.

The tour of README.md has a daemon of its own, the first module of module-sdk/README.md is built and asked, and the commands of the other
documents run in a copy of the checkout. What is not to be run has the reason above it, `<!-- not run: … -->`, or stands in a block of
another kind (```text, ```console). Where a ```json block follows a ```sh block, what the commands print must have its shape: the same keys
with values of the same kind. Addresses, the data folder and the build folder are those of this test.
"""

import json
import os
import re
import shutil
import subprocess
import unittest

import harness
from harness import SLOW, DaemonTest

MODULE = "consumption-monitor"
TOP = "README.md"


def documents():
    """Every document of the checkout, relative to it."""
    found = [path.relative_to(harness.SOURCE) for path in harness.SOURCE.rglob("*.md")]
    return sorted(path for path in found if not path.parts[0].startswith((".", "build")))


def blocks(document):
    """[(kind, content)] of the fenced blocks that are not marked as not to be run."""
    text = (harness.SOURCE / document).read_text()
    found = re.findall(r"(?:^<!-- (not run): \S.*? -->\n)?^```(\w*)[^\n]*\n(.*?)^```", text, re.S | re.M)
    return [(kind, content) for mark, kind, content in found if not mark]


def shape_differs(expected, got, where="answer"):
    """A sentence about the first difference between two JSON documents' shapes; None when there is none."""
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"{where} should be an object and is {got!r}"
        if set(expected) != set(got):
            return f"{where} should have {sorted(expected)} and has {sorted(got)}"
        for key in expected:
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


class Tour(DaemonTest):
    maxDiff = None

    def test_every_command_works_and_answers_as_written(self):
        found = blocks(TOP)
        daemon = self.daemon(modules=[MODULE], start=False)
        daemon.cwd = daemon.folder
        daemon.start()
        script, expectations = ["set -eu"], []
        for number, (kind, text) in enumerate(found):
            if kind == "sh":
                script += [f"printf '\\n=== {number}\\n'", text]
            elif kind == "json" and number and found[number - 1][0] == "sh":
                expectations.append((number - 1, json.loads(text)))
        self.assertGreaterEqual(len(script), 9, f"{TOP} has lost its ```sh blocks")
        self.assertTrue(expectations, f"{TOP} shows no answer any more")
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

    def test_a_difference_of_shapes_is_seen(self):
        written = {"data": [{"id": 1, "name": "a", "rate": None}]}
        for answer in ({"data": [{"id": 1, "name": "a"}]}, {"data": [{"id": 1, "name": "a", "rate": 2, "new": 3}]},
                       {"data": [{"id": "1", "name": "a", "rate": 2}]}, {"data": []}, {"data": {}}, {"data": [5]}, {}):
            self.assertIsNotNone(shape_differs(written, answer), answer)
        for answer in ({"data": [{"id": 7.5, "name": "", "rate": None}]}, {"data": [{"id": 7, "name": "", "rate": {}}, {}]}):
            self.assertIsNone(shape_differs(written, answer), answer)


class FirstModule(DaemonTest):
    """module-sdk/README.md, "From nothing to a module", done: built beside the modules of a checkout, discovered, enabled, asked."""

    def test_the_first_module_of_the_sdk_is_built_and_answers_as_written(self):
        checkout = self.temporary_folder()
        greeter = checkout / "modules/greeter"
        greeter.mkdir(parents=True)
        text = (harness.SOURCE / "module-sdk/README.md").read_text()
        chapter = text[text.index("## From nothing to a module"):text.index("## What there is")]
        found = blocks("module-sdk/README.md")[:5]
        self.assertEqual([kind for kind, _content in found], ["cpp", "json", "cmake", "cmake", "json"])
        source, manifest, cmake, line, answer = (content for _kind, content in found)
        for name, content in (("greeter.cc", source), ("manifest.json", manifest), ("CMakeLists.txt", cmake)):
            self.assertIn(f"`modules/greeter/{name}`", chapter)
            (greeter / name).write_text(content)
        # The checkout's own build files; what they would build of the supervisor and the SDK is taken from the build of the tests.
        top = (harness.SOURCE / "CMakeLists.txt").read_text()
        top = top[:top.index("# Warnings and include root")] + f"include({harness.BUILD}/tests/sdk.cmake)\nadd_subdirectory(modules module-build)\n"
        (checkout / "CMakeLists.txt").write_text(top)
        modules = (harness.SOURCE / "modules/CMakeLists.txt").read_text()
        shipped = re.findall(r"(?m)^add_subdirectory\(.*\n", modules)
        self.assertTrue(shipped)
        for other in shipped:
            modules = modules.replace(other, "")
        (checkout / "modules/CMakeLists.txt").write_text(modules + line)
        shutil.copy(harness.SOURCE / "modules/stage.cmake", checkout / "modules")
        cache = (harness.BUILD / "CMakeCache.txt").read_text()
        same = [f"-D{name}={re.search(rf'(?m)^{name}:[^=]*=(.*)$', cache).group(1)}" for name in ("CMAKE_BUILD_TYPE", "BULKHEAD_SANITIZE")]
        for command in (["cmake", "-S", checkout, "-B", checkout / "build", "-G", "Ninja", *same], ["ninja", "-C", checkout / "build", "modules"]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300 * SLOW)
            self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
        daemon = self.daemon(modules_dir=checkout / "build/modules")
        self.assertIn("`POST /api/v1/modules/greeter/enable`", chapter)
        enabled = daemon.post("/api/v1/modules/greeter/enable")
        self.assertEqual(enabled.status, 200, enabled)
        self.assertIn("`GET /api/v1/m/greeter/hello/you`", chapter)
        self.assertEqual(daemon.get("/api/v1/m/greeter/hello/you").json, json.loads(answer))
        self.assertError(daemon.get("/api/v1/m/greeter/hello/you", token=daemon.make_token("other", "modules:read")), 403, "FORBIDDEN")


class Documents(DaemonTest):
    def test_every_command_of_the_other_documents_works(self):
        copy = self.temporary_folder() / "checkout"
        shutil.copytree(harness.SOURCE, copy, ignore=shutil.ignore_patterns("build*", ".*", "__pycache__"))
        environment = {name: value for name, value in os.environ.items() if name not in ("BULKHEAD_SOURCE", "BULKHEAD_SKIPS")}
        ran = []
        for document in documents():
            for kind, text in blocks(document):
                if str(document) == TOP or kind != "sh":
                    continue
                with self.subTest(f"{document}: {text.strip()}"):
                    ran.append(str(document))
                    done = subprocess.run(["sh", "-euc", text], capture_output=True, text=True, timeout=120 * SLOW, cwd=copy,
                                          env={**environment, "BULKHEAD_BUILD": str(harness.BUILD)})
                    self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
        self.assertEqual(set(ran), {"deploy/README.md", "tests/README.md"}, "the documents that have commands to run")
        # Recording what is recorded already changes nothing.
        for golden in (harness.SOURCE / "tests/interface").glob("*.json"):
            self.assertEqual((copy / "tests/interface" / golden.name).read_text(), golden.read_text(), golden.name)


if __name__ == "__main__":
    harness.main()
