"""proto/ERRORS.md, made from the one table of error codes in supervisor/base/status.cc.

    python3 tests/interface/errors.py --update     writes it anew
"""

import os
import pathlib
import re
import sys
from typing import NamedTuple

SOURCE = pathlib.Path(os.environ.get("BULKHEAD_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
TABLE = SOURCE / "supervisor/base/status.cc"
DOCUMENT = SOURCE / "proto/ERRORS.md"

ENTRY = re.compile(r'\{"([A-Z_]+)", Code::k(\w+), (\d+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\}')
PROCESS = "// These end the process"  # the comment in the table behind which no code reaches a client

TOP = """# Error codes

Made by `tests/interface/errors.py` from the one table in `supervisor/base/status.cc`; `tests/integration/errors_test.py` provokes each of them.

A code and its HTTP status never change; new ones are added. A program decides by the code, a person reads the message, and `requestId` leads to
the line in the log.
- **REST and the gateway**: `{"success": false, "error": {"code", "message", "details": [{"path", "line", "code", "message"}], "requestId"}}`.
- **gRPC**: the status code below, and in the status details a `google.rpc.ErrorInfo` with the code as `reason`, the domain `bulkhead` and
  `metadata.requestId`; with details a `google.rpc.BadRequest`, with a wait a `google.rpc.RetryInfo`, which is `Retry-After` in HTTP.

"""

BOTTOM = """
## Codes that end a process
No client gets these: they stand in the last line of `bulkhead serve` or of a command before it ends with another exit code than 0, or in the log.

"""


class Code(NamedTuple):
    code: str
    grpc: str  # the name of its gRPC status
    http: int
    meaning: str


def parse(text):
    codes = []
    for code, absl, http, meaning in ENTRY.findall(text):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", absl).upper()
        codes.append(Code(code, name, int(http), "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', meaning)).replace('\\"', '"')))
    return codes


def table():
    """(codes that reach a client, codes that end a process), in their order."""
    text = TABLE.read_text()
    body = text[text.index("kErrorCodes[] = {"):]
    clients, mark, processes = body[:body.index("\n};")].partition(PROCESS)
    assert mark, f"{TABLE} has no line {PROCESS!r} any more"
    return parse(clients), parse(processes)


def rows(codes, columns):
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in codes]) + "\n"


def document():
    clients, processes = table()
    return (TOP + rows([(f"`{c.code}`", str(c.http), c.grpc, c.meaning) for c in clients], ("code", "HTTP", "gRPC", "meaning"))
            + BOTTOM + rows([(f"`{c.code}`", c.meaning) for c in processes], ("code", "meaning")))


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    DOCUMENT.write_text(document())
