"""Where what modules print is kept and how much of it, and how it is read in a terminal. A module that prints all it can, and a disk that takes
nothing, do nothing to the others."""

import contextlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import threading
import time

import harness
from harness import DaemonTest, SharedDaemonTest, wait_until
from http_test import Wire, resident
from logs_test import MEGABYTE, MEMORY_BOUND, OPTIONS, PATIENCE_S, Events, lines_of, messages, print_lines, print_paced, wait_for_line
from modules_test import echo_like

FILE_SIZE, FILES = 256 * 1024, 3
TORRENT_MS = 4_000


class Files(DaemonTest):
    def size(self, folder):
        """(bytes, files) of what is there at the moment."""
        sizes = []
        for path in folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sum(sizes), len(sizes)

    def test_the_cap_holds_on_the_disk_and_what_is_kept_is_the_newest(self):
        daemon = self.daemon(config=f"log:\n  moduleFiles: {FILES}\n  moduleFileSize: 256KiB\n", **OPTIONS)
        folder, seen, done = daemon.data / "logs" / "echo", [], threading.Event()

        def watch():
            while not done.is_set():
                seen.append(self.size(folder))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for piece in range(6):
                print_paced(daemon, *(f"piece {piece} {i} " + "z" * 1_000 for i in range(250)))
                wait_for_line(daemon, f"piece {piece} 249 " + "z" * 1_000)
        finally:
            done.set()
            watcher.join()
        largest = max(size for size, _count in seen), max(count for _size, count in seen)
        self.assertLessEqual(largest[0], FILES * FILE_SIZE)
        self.assertLessEqual(largest[1], FILES)
        self.assertGreater(largest[0], (FILES - 1) * FILE_SIZE, "there was more than fits")
        for path in folder.glob("*"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        daemon.stop()
        daemon.start()
        kept = [m.split(" ")[1:3] for m in messages(daemon, "?tail=5000&search=piece") if m.startswith("piece")]
        self.assertGreater(len(kept), 300)
        self.assertEqual(kept[-1], ["5", "249"])
        numbers = [int(piece) * 250 + int(i) for piece, i in kept]
        self.assertEqual(numbers, list(range(numbers[0], 1500)))
        # Who was further back is told how many lines are nowhere any more.
        with Events(daemon, "follow=true", last="1-1") as events:
            event = events.next()
            self.assertEqual(event["event"], "missed")
            self.assertGreater(event["data"]["lines"], 500)

    def test_a_folder_that_cannot_be_written_is_told_once_and_everything_else_goes_on(self):
        daemon = self.daemon(**OPTIONS)
        wait_until(lambda: lines_of(daemon), "its first lines")
        daemon.stop()
        # What makes a file in the folder of any module impossible, for root too.
        logs = daemon.data / "logs"
        shutil.rmtree(logs / "echo")
        (logs / "echo").write_text("no folder")
        daemon.start()
        with Events(daemon, "follow=true&tail=0") as events:
            for i in range(5):
                print_lines(daemon, f"in memory {i}")
            self.assertEqual(events.take(5), [f"in memory {i}" for i in range(5)])
        self.assertEqual(messages(daemon, "?search=in%20memory"), [f"in memory {i}" for i in range(5)])
        self.assertEqual(daemon.module("echo")["observed"]["state"], "RUNNING")
        wait_until(lambda: "can't be written to its file" in daemon.log(), "a word in the log")
        self.assertEqual(daemon.log().count("can't be written to its file"), 1)
        (logs / "echo").unlink()

    def test_without_files_the_last_lines_are_in_memory(self):
        daemon = self.daemon(config="log:\n  moduleFiles: 0\n", **OPTIONS)
        print_lines(daemon, "here today")
        wait_for_line(daemon, "here today")
        self.assertEqual(list((daemon.data / "logs").iterdir()), [])

    def test_wrong_settings_are_told(self):
        folder = self.temporary_folder()
        for key, value in (("moduleFiles", "-1"), ("moduleFiles", "1001"), ("moduleFileSize", "1KiB"), ("moduleFileSize", "2GiB"), ("moduleFileSize", "big")):
            with self.subTest(f"{key}: {value}"):
                (folder / "bulkhead.yaml").write_text(f"log:\n  {key}: {value}\n")
                code, _out, err = harness.run_serve("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data")
                self.assertNotEqual(code, 0)
                self.assertIn(f"log.{key}", err)


class CommandLine(SharedDaemonTest):
    options = OPTIONS

    def environment(self, token=None):
        return {"BULKHEAD_SERVER": self.daemon.admin_address, "BULKHEAD_TOKEN": token or self.daemon.token}

    def test_it_shows_lines_for_people_and_for_programs(self):
        print_lines(self.daemon, json.dumps({"level": "warn", "message": "seen\u001b[31m by a person", "left": 2}), "no warning")
        wait_for_line(self.daemon, "no warning")
        code, out, err = harness.run_serve("logs", "echo", "--level", "warn", "--search", "by a person", env=self.environment())
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r'^\d{4}-\S+Z WARN  0 seen\\x1b\[31m by a person  \{"left":2\}\n$')
        code, out, err = harness.run_serve("logs", "echo", "--tail", "1", "--since", "10m", "--slot", "0", "--json", env=self.environment())
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out)["data"], lines_of(self.daemon, "?tail=1"))
        code, _out, err = harness.run_serve("logs", "nobody", env=self.environment())
        self.assertEqual(code, 1)
        self.assertIn("MODULE_NOT_FOUND", err)
        code, _out, err = harness.run_serve("logs", "echo", "-f", env=self.environment(self.daemon.make_token("reads-no-logs", "modules:read")))
        self.assertEqual(code, 1)
        self.assertIn("logs:read", err)

    def test_it_follows_until_it_is_told_to_stop(self):
        command = [str(harness.BINARY), "logs", "echo", "-f", "--tail", "0", "--json"]
        process = subprocess.Popen(command, env={**os.environ, **self.environment()}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        harness.awaited_pids.add(process.pid)
        try:
            seen = []

            def asked():
                print_lines(self.daemon, "are you there?")  # until the stream has begun nobody hears it
                return select.select([process.stdout], [], [], 0.2)[0]

            wait_until(asked, "its first line")
            print_lines(self.daemon, "followed")
            while not seen or seen[-1]["message"] != "followed":
                seen.append(json.loads(process.stdout.readline()))
            self.assertEqual(seen[-1]["stream"], "STDOUT")
        finally:
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE_S), -signal.SIGTERM)
            harness.awaited_pids.discard(process.pid)
            process.stdout.close()


class Torrent(DaemonTest):
    def test_a_module_that_prints_all_it_can_slows_nobody(self):
        modules = self.temporary_folder()
        for name in ("echo", "loud"):
            echo_like(modules, name)
        daemon = self.daemon(modules=["echo", "loud"], modules_dir=modules)

        def load(until):
            """Requests to the other module until then: their seconds, and what went wrong."""
            took, wrong = [], []
            with Wire(daemon) as wire:
                while not until():
                    began = time.monotonic()
                    answer = wire.ask("GET", "/api/v1/m/echo/inline")
                    took.append(time.monotonic() - began)
                    if answer.status != 200:
                        wrong.append(answer)
            return took, wrong

        began = time.monotonic()
        alone, wrong_alone = load(lambda: time.monotonic() - began > TORRENT_MS / 1000)
        before, result = resident(daemon.process.pid), []
        flood = threading.Thread(target=lambda: result.append(daemon.request("POST", f"/api/v1/m/loud/torrent?ms={TORRENT_MS}", b"")))
        with Events(daemon, "follow=true&tail=0", module="loud") as events:
            flood.start()
            beside, wrong = load(lambda: not flood.is_alive())
            after = resident(daemon.process.pid)
            flood.join()
            got = events.take(1)
        printed = result[0].data["bytes"]
        print(f"\n  printed {printed / TORRENT_MS / 1000:.0f} MB/s; requests to another module, median {statistics.median(alone) * 1000:.2f} ms alone "
              f"({len(alone)}), {statistics.median(beside) * 1000:.2f} ms beside it ({len(beside)}); the daemon grew by {(after - before) / MEGABYTE:.1f} MiB",
              flush=True)
        self.assertEqual((wrong_alone, wrong), ([], []))
        self.assertEqual(got[0], "t" * 99)
        self.assertGreater(printed, 10 * MEGABYTE)
        if harness.MEASURES_MEMORY:
            self.assertLess(after - before, MEMORY_BOUND)
        told = wait_until(lambda: [line for line in lines_of(daemon, "?tail=5000&search=lines%20dropped", module="loud") if line["stream"] == "SUPERVISOR"],
                          "how many lines were dropped")
        self.assertRegex(told[0]["message"], r"\[\d+ lines dropped")
        self.assertEqual(told[0]["level"], "WARN")


if __name__ == "__main__":
    harness.main()
