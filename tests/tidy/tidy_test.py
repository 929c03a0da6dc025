"""The shape of the source, held by a test: who includes whom, what appears only in one place, what has no place at all."""

import os
import pathlib
import re
import sys
import unittest

SOURCE = pathlib.Path(os.environ.get("BULKHEAD_SOURCE") or pathlib.Path(__file__).resolve().parents[2])

TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "CHANGELOG.md", "LICENSE", "README.md", "proto", "supervisor", "module-sdk", "modules",
             "migrations", "deploy", "tests"}
NOT_OURS = re.compile(r"^(build.*|\..*|__pycache__|compile_commands\.json)$")  # made by tools, or dot files

MAX_LINES = 600
# Longer ones, each with the reason why it is not two files.
LONG_FILES = {}

MAX_COLUMNS = 160

CODE = (".h", ".cc", ".proto")
TEXT = CODE + (".py", ".sh", ".md", ".sql", ".json", ".yaml", ".yml", ".cmake", "")

# What may appear in one place only: (pattern in code without comments and strings, where it may, why).
ONLY_THERE = [
    (r"\b(v?fork|_Fork|posix_spawnp?|clone3?|daemon|popen|system)\s*\(|\bSYS_(clone3?|fork|vfork)\b", ("supervisor/process/",),
     "processes are made by the spawner alone"),
    (r"\bPQ[a-z]\w*\s*\(|\bPGconn\b|libpq-fe\.h", ("supervisor/store/", "module-sdk/src/"), "PostgreSQL is spoken by the store alone"),
    (r"^(?!.*\b(?:set_deadline|Shutdown)\().*\b(steady_clock|system_clock|high_resolution_clock)::now\b"
     r"|\babsl::Now\b|\bclock_gettime\b|\bgettimeofday\b|\btime\((nullptr|NULL|0)\)",
     ("supervisor/base/", "supervisor/process/", "module-sdk/", "modules/"),
     "time comes from the Clock (but gRPC wants its deadlines as system time)"),
    (r"(?<![.>& ])\bs?rand\s*\(|\brandom_device\b|\bmt19937\w*|\bgetrandom\b|\bRAND_bytes\b", ("supervisor/base/random", "module-sdk/", "modules/"),
     "chance comes from Random"),
    (r"\bkill\s*\(|\bkillpg\s*\(|\bpidfd_send_signal\b", ("supervisor/process/", "module-sdk/src/"), "nobody but the spawner signals"),
    (r"grpcpp/", ("supervisor/worker/", "supervisor/admin/", "supervisor/cli/", "module-sdk/src/"), "gRPC stays at the edge"),
]

UNTIDY_NAMES = re.compile(r"\b(?:class|struct)\s+\w*(Manager|Helper|Utils?|Utility|Impl2)\b")


def ours(*suffixes):
    """Source files of the project, as paths relative to it."""
    for folder, folders, files in os.walk(SOURCE):
        here = pathlib.Path(folder).relative_to(SOURCE)
        folders[:] = sorted(name for name in folders if not NOT_OURS.match(name))
        for name in sorted(files):
            path = here / name
            if not NOT_OURS.match(name) and (not suffixes or path.suffix in suffixes):
                yield path


def read(path):
    return (SOURCE / path).read_text(encoding="utf-8")


STRIP = re.compile(r'''//[^\n]*|/\*.*?\*/|R"(?P<d>[^(\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+\'''', re.S)


def without_comments_and_strings(text):
    """The code alone, on the same lines. What an #include names is kept."""
    text = re.sub(r'#include\s+"([^"]*)"', r"#include <\1>", text)

    def blank(match):
        return "\n" * match.group(0).count("\n") + " "

    return STRIP.sub(blank, text)


def include_table():
    text = read("supervisor/README.md")
    block = re.search(r"^## Include table\n.*?```\n(.*?)```", text, re.S | re.M)
    assert block, 'supervisor/README.md has no fenced block below "## Include table"'
    table = {}
    for line in block.group(1).splitlines():
        room, _colon, allowed = line.partition(":")
        table[room.strip()] = allowed.split()
    return table


def room_of(path):
    parts = path.parts
    if parts[0] == "supervisor":
        return parts[1] if len(parts) > 2 else "daemon"
    return parts[0]


def target_of(include):
    """What an #include of ours names, in the table's terms: (room, file in it); None when it isn't ours."""
    parts = include.split("/")
    if parts[0] == "supervisor":
        return (parts[1] if len(parts) > 2 else "daemon", include[len("supervisor/"):])
    if include.startswith("opentelemetry/"):
        return ("proto/otlp", include)
    if include.startswith("google/rpc/"):
        return ("proto/admin", include)
    if parts[0] == "bulkhead" and len(parts) > 2:
        return ("proto/" + parts[1], include)
    if parts[0] in ("bulkhead", "module-sdk"):
        return ("module-sdk", include)
    return None


unittest.TestCase.maxDiff = None


class Includes(unittest.TestCase):
    def test_every_file_includes_only_what_the_table_allows(self):
        table = include_table()
        wrong = []
        for path in ours(".h", ".cc"):
            if path.parts[0] not in ("supervisor", "module-sdk", "modules"):
                continue
            room = room_of(path)
            for number, line in enumerate(read(path).splitlines(), 1):
                match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
                target = target_of(match.group(1)) if match else None
                if target is None or target[0] == room:
                    continue
                if target[0] not in table.get(room, []) and target[1] not in table.get(room, []):
                    wrong.append(f"{path}:{number}: {room} may not include {match.group(1)}")
        self.assertEqual(wrong, [])

    def test_the_table_knows_every_room_and_no_other(self):
        rooms = {path.parts[1] for path in ours(".h", ".cc") if path.parts[0] == "supervisor" and len(path.parts) > 2}
        self.assertEqual(set(include_table()), rooms | {"daemon", "module-sdk", "modules"})

    def test_the_table_has_no_cycle(self):
        table = {room: {name.split("/")[0] for name in allowed if not name.startswith("proto/")} for room, allowed in include_table().items()}
        done = set()
        while len(done) < len(table):
            ready = {room for room, allowed in table.items() if room not in done and allowed <= done}
            self.assertTrue(ready, f"these include each other: {sorted(set(table) - done)}")
            done |= ready

    def test_gateway_and_jobs_do_not_know_each_other(self):
        table = include_table()
        equals = {"gateway", "jobs", "events", "cache", "flags"} & set(table)
        for room in equals:
            self.assertEqual({name.split("/")[0] for name in table[room]} & equals, set(), room)


class OneDoor(unittest.TestCase):
    def test_what_belongs_to_one_room_appears_in_no_other(self):
        wrong = []
        for path in ours(".h", ".cc"):
            if path.parts[0] not in ("supervisor", "module-sdk", "modules"):
                continue
            code = without_comments_and_strings(read(path)).splitlines()
            for pattern, where, why in ONLY_THERE:
                if str(path).startswith(where):
                    continue
                wrong += [f"{path}:{number}: {line.strip()}   ({why})" for number, line in enumerate(code, 1) if re.search(pattern, line)]
        self.assertEqual(wrong, [])

    def test_no_type_is_defined_twice(self):
        """Two types of one name in one namespace are merged silently by the linker: the C++ rule of one definition."""
        seen, wrong = {}, []
        for path in ours(".h", ".cc"):
            if path.parts[0] != "supervisor":
                continue
            scopes = []
            raw = read(path).splitlines()
            for number, line in enumerate(without_comments_and_strings(read(path)).splitlines(), 1):
                if opened := re.match(r"namespace ?([\w:]*) \{\s*$", line):
                    scopes.append(opened.group(1) or str(path))
                elif scopes and re.match(r"\}\s*// namespace", raw[number - 1]):
                    scopes.pop()
                match = re.match(r"(?:class|struct|enum class|enum) ((?:\w+::)*\w+)(?: final)?\s*(?:: .*)?\{", line)
                if match:
                    name, here = "::".join([*scopes, match.group(1)]), f"{path}:{number}"
                    if name in seen:
                        wrong.append(f"{name}: {seen[name]} and {here}")
                    seen.setdefault(name, here)
        self.assertEqual(wrong, [])

    def test_handlers_of_the_admin_api_borrow_nothing_of_their_caller(self):
        """Serve() may run them after the handler has returned (admin/call.h)."""
        wrong = [str(path) for path in ours(".cc") if path.parts[:2] == ("supervisor", "admin")
                 and re.search(r"return Serve\([^;{]*\[[&=]\]", read(path))]
        self.assertEqual(wrong, [])

    def test_modules_know_the_sdk_only(self):
        wrong = [f"{path}: {line}" for path in ours(".h", ".cc") if path.parts[0] == "modules"
                 for line in read(path).splitlines() if re.match(r'\s*#\s*include\s*[<"](supervisor/|grpc|google/|libpq)', line)]
        self.assertEqual(wrong, [])


class Shape(unittest.TestCase):
    def test_the_top_level_is_what_it_is_said_to_be(self):
        found = {entry.name for entry in SOURCE.iterdir() if not NOT_OURS.match(entry.name)}
        self.assertEqual(found - TOP_LEVEL, set())

    def test_no_file_is_long_without_a_reason(self):
        long = {str(path): read(path).count("\n") for path in ours(*CODE, ".py", ".sh", ".sql")}
        self.assertEqual({path: lines for path, lines in long.items() if lines > MAX_LINES and path not in LONG_FILES}, {})
        self.assertEqual([path for path in LONG_FILES if long.get(path, 0) <= MAX_LINES], [], "no longer long: take it off the list")

    def test_no_line_is_too_long_to_read(self):
        wrong = [f"{path}:{number}" for path in ours(*CODE, ".py", ".sh", ".sql")
                 for number, line in enumerate(read(path).splitlines(), 1) if len(line) > MAX_COLUMNS]
        self.assertEqual(wrong, [])

    def test_no_line_ends_in_blanks_and_every_file_in_a_newline(self):
        wrong = []
        for path in ours(*TEXT):
            text = read(path)
            if text and not text.endswith("\n"):
                wrong.append(f"{path}: no newline at the end")
            wrong += [f"{path}:{number}: blanks at the end" for number, line in enumerate(text.split("\n"), 1) if line != line.rstrip(" \t\r")]
        self.assertEqual(wrong, [])

    def test_headers_are_included_once(self):
        self.assertEqual([str(path) for path in ours(".h") if "#pragma once" not in read(path)], [])

    def test_every_source_file_says_what_it_is(self):
        wrong = []
        for path in ours(".h", ".sh", ".py"):
            first = next((line for line in read(path).splitlines() if not line.startswith("#!")), "")
            if not first.startswith(("//", "#", '"""')):
                wrong.append(str(path))
        self.assertEqual(wrong, [])

    def test_nothing_is_called_manager_or_helper(self):
        wrong = [f"{path}: {match.group(0)}" for path in ours(".h", ".cc") for match in UNTIDY_NAMES.finditer(without_comments_and_strings(read(path)))]
        wrong += [str(path) for path in ours(".h", ".cc") if re.search(r"(^|_)(manager|helpers?|utils?)(_|\.)", path.name)]
        self.assertEqual(wrong, [])

    def test_nothing_is_put_off(self):
        words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
        wrong = [f"{path}:{number}: {line.strip()}" for path in ours(*TEXT)
                 for number, line in enumerate(read(path).splitlines(), 1) if words.search(line)]
        self.assertEqual(wrong, [])

    def test_no_path_of_one_machine_is_written_down(self):
        paths = re.compile(r"(?<![\w.}])/(work|home|root|mnt|srv|Users)/")
        wrong = [f"{path}:{number}: {line.strip()}" for path in ours(*TEXT) if path.name != "tidy_test.py"
                 for number, line in enumerate(read(path).splitlines(), 1) if paths.search(line)]
        self.assertEqual(wrong, [])

    def test_migrations_are_numbered_without_a_gap(self):
        numbers = [int(path.name[:4]) for path in ours(".sql") if path.parts[0] == "migrations"]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))


class Tests(unittest.TestCase):
    def test_no_cc_test_can_vanish(self):
        self.assertIn("BULKHEAD_LISTED_TESTS", read("tests/CMakeLists.txt"))
        self.assertIn("FATAL_ERROR", read("tests/CMakeLists.txt"))
        for path in ours(".cc"):
            if path.parts[0] == "tests" and path.name.endswith("_test.cc"):
                with self.subTest(str(path)):
                    self.assertRegex(read(path.parent / "CMakeLists.txt"), rf"\b{path.stem}\b")

    def test_no_python_test_can_vanish(self):
        for path in ours(".py"):
            if path.parts[0] == "tests" and path.name.endswith("_test.py"):
                with self.subTest(str(path)):
                    self.assertRegex(read(path.parent / "CMakeLists.txt"), rf"\b{path.stem}\b")

    def test_tests_wait_for_events(self):
        """A sleep of a second or more in a test is a guess about somebody else's machine."""
        wrong = [f"{path}:{number}: {line.strip()}" for path in ours(".py", ".cc") if path.parts[0] == "tests"
                 for number, line in enumerate(read(path).splitlines(), 1)
                 if re.search(r"\btime\.sleep\([1-9]|sleep_for\((std::chrono::)?seconds|\b[us]?sleep\([1-9]\d{6,}|\bsleep\([1-9]", line)]
        self.assertEqual(wrong, [])


class Documents(unittest.TestCase):
    def documents(self):
        return list(ours(".md"))

    def test_links_lead_somewhere(self):
        wrong = []
        for path in self.documents():
            for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", read(path), flags=re.S)):
                if not re.match(r"[a-z]+:", link) and not (SOURCE / path.parent / link).exists():
                    wrong.append(f"{path}: {link}")
        self.assertEqual(wrong, [])

    def test_commands_name_files_that_exist(self):
        wrong = []
        for path in self.documents():
            for block in re.findall(r"^```sh\b[^\n]*\n(.*?)^```", read(path), re.S | re.M):
                for name in re.findall(r"(?<![\w/.-])((?:deploy|tests|modules|module-sdk|proto|supervisor|migrations)/[\w./-]+)", block):
                    if not (SOURCE / name).exists():
                        wrong.append(f"{path}: {name}")
        self.assertEqual(wrong, [])

    def test_every_folder_of_the_top_level_has_its_document(self):
        for folder in ("proto", "supervisor", "module-sdk", "modules", "deploy", "tests"):
            with self.subTest(folder):
                self.assertTrue((SOURCE / folder / "README.md").is_file())

    def test_the_list_of_packages_stands_in_one_place(self):
        wrong = [str(path) for path in ours(*TEXT) if path != pathlib.Path("deploy/packages.sh") and path.suffix != ".py"
                 and re.search(r"apt(-get)? (-\S+ )*install", read(path))]
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[1:])
