"""Workers that are killed under load: a short run of tests/chaos/worker_kills.py, whose table is for a longer one."""

import pathlib
import sys

import harness

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))

import worker_kills  # noqa: E402

SECONDS = 6
INTERVAL_S = 0.5
CONNECTIONS = 12
SEED = 5


class Kills(harness.DaemonTest):
    def kill(self, workers):
        result = worker_kills.kill_workers(workers, SECONDS, INTERVAL_S, CONNECTIONS, SEED)
        self.assertEqual(worker_kills.forbidden(result), {}, result)
        self.assertGreater(result["kills"], 2, result)
        self.assertEqual(result["causes"], {"SIGNAL": result["kills"]})
        return result

    def test_while_one_of_two_workers_is_killed_again_and_again_no_get_fails(self):
        self.assertEqual(set(self.kill(workers=2)["outcomes"]), {"200"})

    def test_while_the_only_worker_is_killed_again_and_again_what_fails_is_a_503_with_retry_after(self):
        result = self.kill(workers=1)
        self.assertGreater(result["outcomes"]["200"], result["outcomes"].get("503", 0))


if __name__ == "__main__":
    harness.main()
