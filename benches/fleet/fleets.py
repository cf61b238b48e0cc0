"""Hosts on loopback addresses: real sshd, or one cheap process; near, or at the other end of a slow line."""

import collections
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

# OpenSSH's own limit of listening sockets per daemon (MAX_LISTEN_SOCKS in sshd.c).
ADDRESSES_PER_DAEMON = 16
TICK = os.sysconf("SC_CLK_TCK")

# VERBOSE tells at which address a client came in, and when a command starts: the witness of every run.
SSHD_CONFIG = """
AuthorizedKeysFile {folder}/key.pub
HostKey {folder}/host_key
KbdInteractiveAuthentication no
LogLevel VERBOSE
MaxStartups 10000
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
StrictModes no
UseDNS no
UsePAM no
"""
CAME = re.compile(r"Connection from \S+ port (\d+) on (\S+) port")
STARTED = re.compile(r"Starting session: command .* port (\d+) id")


class Fleet:
    """Hosts, and what is known of them. Addresses are taken from the front."""

    def __init__(self, folder, addresses, port):
        self.folder, self.addresses, self.port = folder, addresses, port
        self.user_key, self.host_key = folder / "key", folder / "host_key.pub"
        kind, key = self.host_key.read_text().split()[:2]
        # One line with a wildcard for who understands that, a line per host for the others.
        (folder / "known_hosts").write_text(f"[127.*]:{port} {kind} {key}\n")
        (folder / "known_hosts.each").write_text("".join(f"[{it}]:{port} {kind} {key}\n" for it in addresses))
        self.known_hosts, self.known_hosts_each = folder / "known_hosts", folder / "known_hosts.each"


class Account:
    """A control group for what the hosts do: it counts their orphans, too, which in no process's account are."""

    def __init__(self):
        # Version 1, where accounting has a hierarchy of its own, or 2.
        for root, usage, unit in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e-9), ("/sys/fs/cgroup", "cpu.stat", 1e-6)):
            self.folder, self.usage, self.unit = Path(root) / f"sshjob-bench-{os.getpid()}", usage, unit
            with contextlib.suppress(OSError):
                self.folder.mkdir()
                if (self.folder / usage).exists():
                    return
                self.folder.rmdir()
        self.folder = None

    def add(self, pid):
        (self.folder / "cgroup.procs").write_text(str(pid))

    def cpu(self):
        """CPU seconds of all that was ever in it."""
        words = (self.folder / self.usage).read_text().split()
        return int(words[0] if len(words) == 1 else words[1]) * self.unit

    def members(self):
        return len((self.folder / "cgroup.procs").read_text().split())

    def close(self):
        wait_until(lambda: not self.members())
        self.folder.rmdir()


class Sshd(Fleet):
    """OpenSSH's daemons."""

    def __init__(self, folder, addresses, port, daemons, log, account):
        super().__init__(folder, addresses, port)
        self.daemons, self.log, self.read, self.account = daemons, log, 0, account

    def cpu(self):
        """CPU seconds of all that the hosts have done; without an account, of the daemons and the connections that are over."""
        if self.account:
            return self.account.cpu()
        fields = [stat_fields(daemon.pid) or ["0"] * 20 for daemon in self.daemons]
        return sum(int(ticks) for it in fields for ticks in it[11:15]) / TICK

    def settle(self):
        """Waits until nothing but the daemons is left."""
        pids = {str(daemon.pid) for daemon in self.daemons}

        def is_over():
            if self.account:
                return self.account.members() <= len(pids)
            parents = (stat_fields(name) for name in os.listdir("/proc") if name.isdigit())
            return not any(fields and fields[1] in pids for fields in parents)

        wait_until(is_over)

    def forget(self):
        """Removes what detached jobs have left, as who collects it does: the next ones meet hosts as these did."""
        for left in self.folder.glob("home.*/.sshjob/*/"):
            # What an orphan that nobody counts has just written stays for the next time.
            shutil.rmtree(left, ignore_errors=True)

    def commands(self):
        """How many commands every host was given since the last question."""
        with open(self.log, "rb") as log:
            log.seek(self.read)
            text = log.read().decode(errors="replace")
        self.read += len(text.encode())
        # The same port may lead to several hosts at a time.
        came, started = collections.defaultdict(collections.deque), collections.Counter()
        for line in text.splitlines():
            if match := CAME.search(line):
                came[match[1]].append(match[2])
            elif (match := STARTED.search(line)) and came[match[1]]:
                started[came[match[1]].popleft()] += 1
        return started


class Cheap(Fleet):
    """A process of ours that runs nothing: what is left is the client's own cost."""

    def __init__(self, folder, addresses, port, process):
        super().__init__(folder, addresses, port)
        self.process = process

    def cpu(self):
        fields = stat_fields(self.process.pid) or ["0"] * 20
        return sum(int(ticks) for ticks in fields[11:13]) / TICK

    def settle(self):
        time.sleep(0.2)

    def forget(self):
        pass

    def commands(self):
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.folder / "tally"))
            text = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
        return collections.Counter({host: int(count) for host, count in (line.split() for line in text.splitlines())})


def stat_fields(pid):
    """The fields of proc(5)'s stat from the third on; none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


@contextlib.contextmanager
def start(kind, count, folder, hosts_program, round_trip):
    """Starts a fleet of `count` hosts; yields it."""
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    first = random.randrange(256, 254 * 256 - count)
    addresses = [f"127.0.{n // 256}.{n % 256}" for n in range(first, first + count)]
    with contextlib.ExitStack() as stack:
        port = free_port()
        if kind.endswith("sshd"):
            account = Account()
            account = account if account.folder else None
            if account:
                stack.callback(account.close)
            daemons, log = start_daemons(addresses, port, folder, stack, account)
            fleet = Sshd(folder, addresses, port, daemons, log, account)
        else:
            socket_path = str(folder / "tally")
            serve = ["serve", str(port), folder / "host_key", folder / "key.pub", socket_path]
            fleet = Cheap(folder, addresses, port, spawn([hosts_program, *serve], stack))
        for address in addresses if kind.endswith("sshd") else addresses[:1]:
            wait_for(address, port)
        if kind.startswith("far"):
            # From now on whoever asks the fleet for its port is told that of the line.
            near, fleet_port = fleet, free_port()
            spawn([hosts_program, "line", str(fleet_port), str(port), str(round_trip)], stack)
            wait_for(addresses[0], fleet_port)
            Fleet.__init__(near, folder, addresses, fleet_port)
        # Whoever has only looked whether they are there is gone then.
        fleet.settle()
        fleet.commands()
        yield fleet


def start_daemons(addresses, port, folder, stack, account):
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or sys.exit("error: there is no sshd")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    config = SSHD_CONFIG
    # OpenSSH 9.8 and later slow down sources that come too often.
    penalties = [sshd, "-t", "-f", "/dev/null", "-h", folder / "host_key", "-o", "PerSourcePenalties=no"]
    if subprocess.run(penalties, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        config += "PerSourcePenalties no\n"
    log = folder / "sshd.log"
    daemons = []
    for start in range(0, len(addresses), ADDRESSES_PER_DAEMON):
        part = addresses[start : start + ADDRESSES_PER_DAEMON]
        path = folder / f"sshd_config.{start}"
        listens = "".join(f"ListenAddress {it}:{port}\n" for it in part)
        # Hosts have homes of their own; in one for all, every detached job would meet those of all the others.
        homes = {it: folder / f"home.{it}" for it in part}
        for home in homes.values():
            home.mkdir()
        lives = "".join(f"Match LocalAddress {it}\nSetEnv HOME={home}\n" for it, home in homes.items())
        path.write_text(config.format(folder=folder) + listens + lives)
        daemons.append(spawn([sshd, "-D", "-e", "-f", path], stack, log))
        if account:
            account.add(daemons[-1].pid)
    return daemons, log


def spawn(command, stack, log=None):
    """Starts a process that is ended when `stack` is."""
    with open(log or os.devnull, "ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=output if log else None)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def wait_until(condition, seconds=10):
    """Waits for `condition`, not longer than that."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def free_port():
    with socket.create_server(("0.0.0.0", 0)) as probe:
        return probe.getsockname()[1]


def wait_for(address, port):
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"error: nothing listens at {address}:{port}")
            time.sleep(0.01)
