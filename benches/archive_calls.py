"""Calls an archive_command as PostgreSQL's archiver does, one segment after another, and measures it.

    archive_calls.py drain DATA FIRST COUNT AGENT_PID|- WORD...   a backlog: all become .ready at once; wall and CPU seconds
    archive_calls.py again DATA FIRST COUNT CALLS WORD...         segments that are archived already: each call's time

WORD... is the command with its arguments, without a shell; %p is appended. FIRST is a line number in DATA.segments.
CPU is that of everything the command starts, daemons included, and with a pid that of the agent. Run as the user that
owns the data directory.
"""

import ctypes
import os
import resource
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def call(words, path):
    """The status of one call and how long it took."""
    begun = time.perf_counter()
    pid = os.posix_spawn(words[0], [*words, path], os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, time.perf_counter() - begun


def agent_cpu(pid):
    if pid == "-":
        return 0.0
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def drain(data, names, agent, words):
    status = os.path.join(data, "pg_wal/archive_status")
    ready = lambda name: os.path.join(status, name + ".ready")
    for name in names:
        open(ready(name) + ".tmp", "w").close()
    before, begun, failures = agent_cpu(agent), time.perf_counter(), 0
    for name in names:
        os.rename(ready(name) + ".tmp", ready(name))
    for name in names:
        while call(words, "pg_wal/" + name)[0] != 0:
            failures += 1
            if failures > 20:
                sys.exit(f"{' '.join(words)} fails")
            time.sleep(1)
        os.rename(ready(name), os.path.join(status, name + ".done"))
    wall = time.perf_counter() - begun
    # Daemons of the command are ours when it has ended, and end when they have nothing more to do.
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    calls, service = children_cpu(), agent_cpu(agent) - before
    print(f"{wall:.3f} {calls + service:.3f} {calls:.3f} {failures}")


def again(names, calls, words):
    times = []
    for i in range(calls):
        status, took = call(words, "pg_wal/" + names[i % len(names)])
        if status != 0:
            sys.exit(f"{' '.join(words)} fails on a segment that is archived")
        times.append(took)
    times.sort()
    print(f"{times[len(times) // 2] * 1e3:.2f} {times[int(len(times) * 0.99)] * 1e3:.2f} {times[-1] * 1e3:.2f}")


def main():
    what, data, first, count, extra, *words = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(data + ".segments") as file:
        names = file.read().split()[int(first) : int(first) + int(count)]
    os.chdir(data)
    if what == "drain":
        drain(data, names, extra, words)
    else:
        again(names, int(extra), words)


main()
