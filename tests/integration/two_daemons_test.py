"""Two daemons at once on one machine are apart: ports, users, cgroups and roles of the database are each one's own, also when both ask for
the same, when one is killed, and when the users that one had are taken."""

import hashlib
import os
import unittest

import harness
from harness import DaemonTest, run_serve
from machine import read
from misbehaving import cgroups_of, processes_of, spawner_of

MODULE = "consumption-monitor"
UIDS_PER_DAEMON = 1000
AS_ROOT = unittest.skipUnless(harness.IS_ROOT, "only root gives modules users of their own")


def uids_of(processes):
    """The users and groups, of all four kinds, that these processes have."""
    found = set()
    for pid in processes:
        for line in read(f"/proc/{pid}/status").decode().splitlines():
            if line.startswith(("Uid:", "Gid:")):
                found |= set(map(int, line.split()[1:]))
    return found


def listeners_of(pid):
    """The addresses, as the kernel writes them, that a process listens on over TCP."""
    inodes = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            continue  # closed meanwhile
    lines = (read("/proc/net/tcp") + read("/proc/net/tcp6")).decode().splitlines()
    fields = [line.split() for line in lines if ":" in line.split()[1]]
    return {field[1] for field in fields if field[3] == "0A" and f"socket:[{field[9]}]" in inodes}


class TwoDaemons(DaemonTest):
    def asking_for(self, uids):
        """A daemon, not yet started, whose data folder had these users."""
        daemon = self.daemon(start=False, modules=[MODULE])
        daemon.data.mkdir(mode=0o711)
        (daemon.data / "uids").write_text(uids)
        return daemon

    @staticmethod
    def uids(daemon):
        return (daemon.data / "uids").read_text()

    @staticmethod
    def wished_by_name(daemon):
        number = int(hashlib.sha256(str(daemon.data).encode()).hexdigest()[:8], 16)
        first = 200000 + number % 20000 * UIDS_PER_DAEMON
        return f"{first}-{first + UIDS_PER_DAEMON - 1}\n"

    def assert_serves(self, daemon):
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)

    def test_two_that_start_at_once_and_ask_for_the_same_users_share_nothing(self):
        one = self.daemon(start=False, modules=[MODULE])
        two = self.asking_for(self.wished_by_name(one))
        one.launch()
        two.launch()
        processes, cgroups, listeners, roles = [], [], [], []
        for daemon in (one, two):
            daemon.wait_ready()
            self.assert_serves(daemon)
            processes.append(processes_of(daemon, MODULE))
            cgroups.append(cgroups_of(spawner_of(daemon)))
            listeners.append(listeners_of(daemon.process.pid))
            owners = daemon.sql("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE pg_get_userbyid(nspowner) LIKE 'bh\\_%'")
            roles.append({owner for (owner,) in owners})
        self.assertEqual((len(listeners[0]), len(listeners[1])), (2, 2), listeners)
        for what, (ones, twos) in {"processes": processes, "listeners": listeners, "roles": roles}.items():
            self.assertTrue(ones and twos, f"{what}: {ones} {twos}")
            self.assertEqual(ones & twos, set(), what)
        self.assertEqual(cgroups[0] & cgroups[1], set())
        if any(item["name"] == "cgroup.pids" and item["state"] == "active" and not item["why"] for item in one.module(MODULE)["isolation"]):
            for own in cgroups:
                self.assertTrue(own, "its modules have cgroups, of which none was found")
        if harness.IS_ROOT:
            ones, twos = uids_of(processes[0]), uids_of(processes[1])
            self.assertEqual(ones & twos, set(), "users and groups of the modules")
            self.assertEqual((len(ones), len(twos)), (1, 1), "one each, a user and the group of the same number")
            self.assertNotIn(0, ones | twos)
            self.assertNotEqual(self.uids(one), self.uids(two))
            self.assertIn(self.wished_by_name(one), (self.uids(one), self.uids(two)), "one of them has what both asked for")
        for daemon, other in ((one, two), (two, one)):
            self.assertEqual(daemon.get("/api/v1/modules", token=other.token).status, 401)
        one.stop()
        one.assert_nothing_left()
        self.assert_serves(two)
        self.assertEqual(two.module(MODULE)["exits"], [])

    @AS_ROOT
    def test_the_users_are_the_same_after_a_stop_and_after_kill_9(self):
        daemon = self.daemon(modules=[MODULE])
        before, owner = self.uids(daemon), (daemon.data / "modules" / MODULE).stat().st_uid
        daemon.stop()
        daemon.start()
        self.assertEqual(self.uids(daemon), before)
        daemon.kill()
        daemon.start()  # while what the other one left may still end
        self.assertEqual((self.uids(daemon), (daemon.data / "modules" / MODULE).stat().st_uid), (before, owner))
        self.assert_serves(daemon)

    @AS_ROOT
    def test_when_its_users_are_taken_a_daemon_gives_its_modules_files_to_others(self):
        daemon = self.daemon(modules=[MODULE])
        had = self.uids(daemon)
        folder = daemon.data / "modules" / MODULE
        old = folder.stat().st_uid
        (folder / "kept").mkdir()
        (folder / "kept" / "file").write_text("x")
        (folder / "kept" / "of-root").write_text("x")
        for path in (folder / "kept", folder / "kept" / "file"):
            os.chown(path, old, old)
        daemon.stop()
        other = self.asking_for(had).start()
        self.assertEqual(self.uids(other), had)
        daemon.start()
        self.assertNotEqual(self.uids(daemon), had)
        self.assert_serves(daemon)
        new = folder.stat().st_uid
        self.assertEqual(uids_of(processes_of(daemon, MODULE)), {new})
        self.assertNotEqual(new, old)
        self.assertEqual([path.stat().st_uid for path in (folder / "kept", folder / "kept" / "file", folder / "kept" / "of-root")], [new, new, 0])
        self.assertIn("its files were given to it", daemon.log())
        self.assert_serves(other)

    @AS_ROOT
    def test_configured_users_that_another_daemon_has_are_refused_and_the_daemon_is_named(self):
        first = 1_500_000_000 + os.getpid() * 10  # of nobody else's
        daemon = self.daemon(modules=[MODULE], args=["--uids", f"{first}-{first + 5}"])
        self.assertEqual(uids_of(processes_of(daemon, MODULE)), {first})
        folder = self.temporary_folder()
        code, _out, error = run_serve("serve", "--data", folder / "data", "--uids", f"{first + 5}-{first + 9}", "--listen", f"127.0.0.1:{harness.free_port()}",
                                      "--admin-listen", f"127.0.0.1:{harness.free_port()}")
        self.assertEqual(code, 1, error)
        self.assertRegex(error, rf"isolation.uids {first + 5}-{first + 9} overlaps {first}-{first + 5} of another supervisor: give each of them a range")
        self.assert_serves(daemon)
        # Freed with its daemon, at once.
        daemon.stop()
        again = self.daemon(modules=[MODULE], args=["--uids", f"{first + 5}-{first + 9}"])
        self.assertEqual(uids_of(processes_of(again, MODULE)), {first + 5})


if __name__ == "__main__":
    harness.main()
