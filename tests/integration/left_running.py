"""What a daemon's modules have started, found without the daemon: by the variable that each module has in its environment and hands on, and by
cgroups with the name of the data folder."""

import hashlib
import os

from machine import process_table, read

VARIABLE = b"BULKHEAD_INSTANCE="


def instances_running(data, names=None):
    """{(pid, start time): instance} of every process with an instance of these modules (of any, when None) of the daemon on this data folder in
    its environment."""
    found = {}
    for pid, (_parent, started, state, _name) in process_table().items():
        if state in "ZX":
            continue
        environment = read(f"/proc/{pid}/environ")
        if os.fsencode(str(data)) + b"/" not in environment:
            continue
        for entry in environment.split(b"\0"):
            if entry.startswith(VARIABLE):
                instance = entry[len(VARIABLE):].decode("utf-8", "replace")
                if names is None or instance.split(".")[0] in names:
                    found[(pid, started)] = instance
    return found


def cgroups_of_data(data):
    """Folders of the cgroup file systems that belong to a daemon on this data folder."""
    name = "bulkhead-" + hashlib.sha256(os.fsencode(str(data))).hexdigest()[:8] + "."
    return [os.path.join(folder, one) for folder, folders, _files in os.walk("/sys/fs/cgroup") for one in folders if one.startswith(name)]


def members(folders):
    """Pids in these cgroups and those below."""
    found = set()
    for top in folders:
        for folder, _folders, _files in os.walk(top):
            found |= {int(pid) for pid in read(os.path.join(folder, "cgroup.procs")).split()}
    return found
