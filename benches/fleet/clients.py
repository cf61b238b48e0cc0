"""The clients, each with its best settings: `README.md` says which, and why."""

import dataclasses
import getpass
import os
import shlex
import shutil
from pathlib import Path

from works import Work

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = ROOT / "target" / "peers"
VENV = PEERS / "venv"
USER = getpass.getuser()


@dataclasses.dataclass
class Call:
    """A command line, what it needs around it, and whether all hosts are its own processes' business."""

    command: list
    environment: dict = dataclasses.field(default_factory=dict)
    stdin: Path | None = None


class Job:
    """A work on the first hosts of a fleet, with the files that clients read."""

    def __init__(self, work: Work, fleet, folder, programs):
        self.work, self.fleet, self.folder, self.programs = work, fleet, folder, programs
        self.addresses = fleet.addresses[: work.hosts]
        self.port, self.key = str(fleet.port), str(fleet.user_key)
        self.concurrency = str(work.concurrency)
        self.hosts = self.write("hosts", "".join(f"{it}\n" for it in self.addresses))
        self.script = str(folder / "script")

    def write(self, name, text):
        path = self.folder / f"{self.work.name}.{name}"
        path.write_text(text)
        return str(path)

    @property
    def line(self):
        """What a login shell is given: a script comes by standard input."""
        if self.work.is_script:
            return "sh -s"
        line = shlex.join(self.work.words)
        return f"setsid -f {line} </dev/null >/dev/null 2>&1" if self.work.is_detached else line

    @property
    def stdin(self):
        return Path(self.script) if self.work.is_script else None

    def ssh_options(self, known_hosts=None):
        options = {
            "AddressFamily": "inet",
            "BatchMode": "yes",
            "Compression": "no",
            "ControlMaster": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "GSSAPIAuthentication": "no",
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "KexAlgorithms": "curve25519-sha256",
            "Ciphers": "aes128-gcm@openssh.com",
            "HostKeyAlgorithms": "ssh-ed25519",
            "LogLevel": "ERROR",
            "PreferredAuthentications": "publickey",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": str(known_hosts or self.fleet.known_hosts),
        }
        return [f"{name}={value}" for name, value in options.items()]

    def ssh_words(self):
        options = [word for option in self.ssh_options() for word in ("-o", option)]
        return ["-F", "none", *options, "-i", self.key, "-p", self.port]


def sshjob(job):
    work = job.work
    hosts = "".join(
        f"  - {{ id: host-{n}, address: {it}, port: {job.port}, tags: {{ Role: same }} }}\n"
        for n, it in enumerate(job.addresses)
    )
    inventory = job.write("yaml", "instances:\n" + hosts)
    command = [job.programs / "sshjob", "run", "--store", job.folder / "store", "-q", "-t", "Role=same"]
    command += ["-f", job.concurrency, "-u", USER, "-i", job.key, "--inventory", inventory]
    command += ["-d"] if work.is_detached else []
    return Call([*command, "--script", job.script] if work.is_script else [*command, "--", *work.words])


def bare(job):
    command = [job.programs / "bench-bare", job.hosts, job.port, USER, job.key, job.fleet.host_key, job.concurrency]
    return Call([*command, *(["--input", job.script] if job.work.is_script else []), job.line])


def xargs(job):
    ssh = ["ssh", *job.ssh_words(), "-l", USER]
    # `xargs` keeps standard input for itself.
    start = ["sh", "-c", f"exec {shlex.join(ssh)} \"$1\" {shlex.quote(job.line)} <{job.script}", "sh", "{}"]
    each = start if job.work.is_script else [*ssh, "{}", job.line]
    return Call(["xargs", "-a", job.hosts, "-P", job.concurrency, "-I", "{}", *each])


def pssh(job):
    program = shutil.which("parallel-ssh") or shutil.which("pssh")
    hosts = job.write("pssh", "".join(f"{it}:{job.port}\n" for it in job.addresses))
    options = [word for option in job.ssh_options() for word in ("-O", option)]
    flags = ["-h", hosts, "-l", USER, "-p", job.concurrency, "-t", "0", *options, "-x", f"-F none -i {job.key}"]
    flags += ["-i"] if job.work.lines else []
    flags += ["-I"] if job.work.is_script else []
    return Call([program, *flags, job.line], stdin=job.stdin)


def clush(job):
    flags = ["--hostfile", job.hosts, "-f", job.concurrency, "-l", USER, "-S", "-o", shlex.join(job.ssh_words())]
    flags += [] if job.work.is_script else ["-n"]
    return Call(["clush", *flags, job.line], stdin=job.stdin)


def pdsh(job):
    if job.work.is_script:
        return None  # Its hosts would need pdcp.
    arguments = shlex.join([*job.ssh_words(), "-a", "-x"]) + " -l%u %h"
    command = ["pdsh", "-R", "ssh", "-S", "-f", job.concurrency, "-l", USER, "-w", "^" + job.hosts, job.line]
    return Call(command, {"PDSH_SSH_ARGS": arguments})


def ansible(job):
    hosts = "".join(f"{it} ansible_port={job.port}\n" for it in job.addresses)
    inventory = job.write("ini", hosts)
    environment = {
        "ANSIBLE_CONFIG": job.write("cfg", ""),
        "ANSIBLE_FORKS": job.concurrency,
        "ANSIBLE_HOME": str(job.folder / "ansible"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCAL_TEMP": str(job.folder / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "True",
        # One command for each host: a connection that is shared would be started for one use.
        "ANSIBLE_SSH_ARGS": shlex.join([word for it in job.ssh_options() for word in ("-o", it)] + ["-F", "none"]),
        "ANSIBLE_SSH_USETTY": "False",
    }
    module = ["-m", "script", "-a", job.script] if job.work.is_script else ["-m", "raw", "-a", job.line]
    command = ["ansible", "all", "-i", inventory, "-f", job.concurrency, "-u", USER, "--private-key", job.key, *module]
    return Call(command, environment)


def with_asyncssh(job):
    return library(job, "with_asyncssh.py", job.fleet.known_hosts)


def parallel_ssh(job):
    return library(job, "with_parallel_ssh.py", job.fleet.known_hosts)


def library(job, program, known_hosts):
    words = [job.hosts, job.port, USER, job.key, known_hosts, job.concurrency, job.stdin or "-", job.line]
    return Call([VENV / "bin" / "python", HERE / "peers" / program, *words])


def pyinfra(job):
    if job.work.is_script or job.work.lines:
        return None  # `exec` has no input, and prints through its log.
    settings = {
        "ssh_user": USER,
        "ssh_port": int(job.port),
        "ssh_key": job.key,
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "ssh_config_file": "/dev/null",
        "ssh_known_hosts_file": str(job.fleet.known_hosts_each),
        "ssh_strict_host_key_checking": "yes",
    }
    inventory = job.write("py", f"hosts = ({job.addresses!r}, {settings!r})\n")
    flags = ["-y", "--parallel", job.concurrency, inventory, "exec", "--", job.line]
    return Call([VENV / "bin" / "pyinfra", *flags])


def bssh(job):
    if job.work.is_script:
        return None
    home = job.folder / "bssh"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "known_hosts").write_text(job.fleet.known_hosts_each.read_text())
    flags = ["-H", ",".join(f"{it}:{job.port}" for it in job.addresses), "-l", USER, "-i", job.key, "--parallel", job.concurrency]
    flags += ["--strict-host-key-checking", "yes"]
    return Call([PEERS / "bin" / "bssh", *flags, job.line], {"HOME": str(home)})


# Name, function, the program or file without which it is left out.
CLIENTS = {
    "sshjob": (sshjob, None),
    "bare": (bare, None),
    "xargs ssh": (xargs, "ssh"),
    "pssh": (pssh, "parallel-ssh"),
    "clush": (clush, "clush"),
    "pdsh": (pdsh, "pdsh"),
    "ansible": (ansible, "ansible"),
    "asyncssh": (with_asyncssh, VENV / "bin" / "python"),
    "parallel-ssh": (parallel_ssh, VENV / "bin" / "python"),
    "pyinfra": (pyinfra, VENV / "bin" / "pyinfra"),
    "bssh": (bssh, PEERS / "bin" / "bssh"),
}


def is_there(name):
    needs = CLIENTS[name][1]
    return needs is None or (os.path.exists(needs) if isinstance(needs, Path) else shutil.which(needs) is not None)
