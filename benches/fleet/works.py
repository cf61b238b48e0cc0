"""What the clients are to do."""

from dataclasses import dataclass

# 1 MB in lines of a hundred bytes, by one program.
LINES, LINE_BYTES = 10_000, 100
SEQ = ("seq", "-f", f"%0{LINE_BYTES - 1}.0f", "1", str(LINES))
# As `grep -E` has it; whatever a client writes before it, or, as those that had a terminal, after it.
LINE = f"0{{{LINE_BYTES - 6}}}[0-9]{{5}}\r?$"


@dataclass(frozen=True)
class Work:
    """The same command, or script, on a number of hosts."""

    name: str
    hosts: int
    concurrency: int
    words: tuple[str, ...] = ("true",)
    # Lines of output that every host is to give.
    lines: int = 0
    is_script: bool = False
    is_detached: bool = False


def of_true(hosts, concurrency=100):
    return Work(f"true-{hosts}", hosts, min(concurrency, hosts))


# One word is a line for a shell; several are a program and its arguments.
PROGRAM = Work("program-100", 100, 100, ("sh", "-c", "true"))
OUTPUT = Work("output-100", 100, 100, SEQ, lines=LINES)
SLEEP = Work("sleep-200", 200, 200, ("sleep", "1"))
SCRIPT = Work("script-100", 100, 100, (), is_script=True)
DETACHED = Work("detached-500", 500, 100, is_detached=True)

SIZES = [of_true(hosts) for hosts in (10, 100, 500, 1000)]

# Which works are done where. The cheap hosts run no programs, so neither scripts nor what outlives a channel.
MATRIX = {
    "sshd": [*SIZES, PROGRAM, OUTPUT, SLEEP, SCRIPT, DETACHED],
    "cheap": [*SIZES, of_true(10_000, 1000), OUTPUT, SLEEP],
    "far-sshd": [of_true(100)],
    "far-cheap": [of_true(100), of_true(1000)],
}

SCRIPT_BYTES = 10_000


def script(witness):
    """A script of 10 KB that notes in a file on which host it has run."""
    text = f"#!/bin/sh\nset -- $SSH_CONNECTION\necho \"$3\" >>'{witness}'\nexit 0\n"
    padding = "# What a real script would say here.\n"
    text += padding * ((SCRIPT_BYTES - len(text)) // len(padding))
    return text + "#" * (SCRIPT_BYTES - len(text) - 1) + "\n"
