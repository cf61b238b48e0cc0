"""One run of one client: what it took, and whether it did its work once on every host."""

import collections
import dataclasses
import os
import subprocess
import threading
import time
from pathlib import Path

from works import LINE, LINE_BYTES

# Often enough to see a run of a second.
SAMPLE_SECONDS = 0.02
# A client that is not done by then is ended.
LIMIT_SECONDS = 600
# The supervisors of detached jobs do what is left to do for this long, in everyone's way.
DETACHED_SECONDS = 3


@dataclasses.dataclass
class Run:
    """What a run took: seconds, and KiB. `memory` is None where it was not taken, as taking it costs time."""

    fleet: str
    work: str
    hosts: int
    client: str
    round: int
    wall: float
    cpu: float
    servers: float
    memory: int | None
    commands: float
    trouble: str


def measure(client, call, job, round_number, takes_memory):
    """Runs a client; `takes_memory` where its processes' memory is to be sampled meanwhile."""
    fleet, work = job.fleet, job.work
    log = job.folder / f"{client.replace(' ', '-')}.log"
    witness = job.folder / "witness"
    witness.write_bytes(b"")
    stdin = open(call.stdin, "rb") if call.stdin else subprocess.DEVNULL
    servers = fleet.cpu()
    started = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(word) for word in call.command],
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=os.environ | call.environment,
        )
    limit = threading.Timer(LIMIT_SECONDS, process.kill)
    limit.start()
    peak, done = [0], threading.Event()
    sampler = threading.Thread(target=sample, args=(process.pid, peak, done))
    if takes_memory:
        sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    limit.cancel()
    done.set()
    if takes_memory:
        sampler.join()
    if call.stdin:
        stdin.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if work.is_detached:
        time.sleep(DETACHED_SECONDS)
    fleet.settle()
    servers = fleet.cpu() - servers
    if work.is_detached:
        fleet.forget()
    cpu = usage.ru_utime + usage.ru_stime
    commands = fleet.commands()
    trouble = check(process.returncode, job, log, witness, commands)
    memory = peak[0] if takes_memory else None
    each = sum(commands.values()) / work.hosts
    return Run(fleet.kind, work.name, work.hosts, client, round_number, wall, cpu, servers, memory, each, trouble)


def check(status, job, log, witness, commands):
    """What is wrong with a run, or nothing."""
    work = job.work
    if status != 0:
        return f"ended with {status}: {tail(log)}"
    missing = [host for host in job.addresses if not commands[host]]
    if missing:
        return f"{len(missing)} hosts were given no command"
    if work.is_script:
        ran = collections.Counter(witness.read_text().split())
        if ran != collections.Counter(job.addresses):
            return f"the script ran {sum(ran.values())} times, on {len(ran)} hosts"
    if work.lines:
        lines = count_lines(log)
        wanted = work.hosts * work.lines
        # Clients that pass on what comes as it comes may mix two hosts' lines; no byte is lost by that.
        is_all = lines == wanted or log.stat().st_size == wanted * LINE_BYTES or log.read_bytes().strip() == bare_line(work)
        if not is_all:
            return f"{lines} lines of output instead of {wanted}"
    return ""


def bare_line(work):
    """What the bare client says, which counts and does not print."""
    return f"{work.hosts} hosts, {work.hosts * work.lines * LINE_BYTES} bytes".encode()


def count_lines(log):
    counted = subprocess.run(["grep", "-cE", LINE, log], stdout=subprocess.PIPE, env={"LC_ALL": "C"}, check=False)
    return int(counted.stdout)


def tail(log):
    return log.read_bytes()[-200:].decode(errors="replace").strip().replace("\n", " | ")


def sample(root, peak, done):
    while not done.is_set():
        peak[0] = max(peak[0], memory_of_tree(root), peak_of(root))
        done.wait(SAMPLE_SECONDS)


def peak_of(process):
    """KiB that one process has held at most so far. What `wait4` tells includes what it was forked from."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def memory_of_tree(root):
    """KiB that a process and its descendants hold now, what several share counted by shares."""
    children = collections.defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()[1]
            except OSError:
                continue
            children[int(parent)].append(int(name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children[process]
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total
