"""Says which tests were skipped and why: ctest itself counts a test program that skipped half of its tests as passed.

Run by ctest around all others (a fixture, see tests/CMakeLists.txt): `begin` forgets what an earlier run left, `end` prints. Every test
program leaves what it skipped in a file of BULKHEAD_SKIPS: GoogleTest its XML report, Python lines of text (integration/harness.py).
"""

import os
import pathlib
import sys
import xml.etree.ElementTree

FOLDER = pathlib.Path(os.environ["BULKHEAD_SKIPS"])


def of_googletest(path):
    """[sentence] of one XML report."""
    found = []
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        for skipped in case.findall("skipped"):
            # The message begins with a line "file:line".
            reason = " ".join(skipped.get("message", "").splitlines()[1:])
            found.append(f"{path.stem} {case.get('classname')}.{case.get('name')}: {reason}")
    return found


def end():
    lines = []
    for path in sorted(FOLDER.iterdir()):
        lines += of_googletest(path) if path.suffix == ".xml" else path.read_text().splitlines()
    report = f"{len(lines)} skipped:\n" + "".join(f"  {line}\n" for line in lines) if lines else "No test was skipped.\n"
    # ctest shows nobody what a test prints; tests/run.sh leaves its own output open for this.
    with open(int(os.environ.get("BULKHEAD_REPORT_FD", "1")), "w", closefd=False) as out:
        out.write(report)


def begin():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()


if __name__ == "__main__":
    {"begin": begin, "end": end}[sys.argv[1]]()
