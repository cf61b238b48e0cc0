"""The command on all hosts by asyncssh, as its documentation's example of many clients has it, on uvloop."""

import asyncio
import sys

import asyncssh
import uvloop


async def main():
    hosts, port, user, key, known_hosts, concurrency, file, command = sys.argv[1:]
    given = None
    if file != "-":
        with open(file, encoding="utf-8") as opened:
            given = opened.read()
    turns = asyncio.Semaphore(int(concurrency))
    options = asyncssh.SSHClientConnectionOptions(
        username=user,
        client_keys=[asyncssh.read_private_key(key)],
        known_hosts=asyncssh.read_known_hosts(known_hosts),
        agent_path=None,
        config=None,
        preferred_auth="publickey",
        compression_algs=None,
        kex_algs=["curve25519-sha256"],
        encryption_algs=["aes128-gcm@openssh.com"],
        server_host_key_algs=["ssh-ed25519"],
    )

    async def visit(host):
        async with turns, asyncssh.connect(host, int(port), options=options) as connection:
            result = await connection.run(command, input=given, encoding=None if given is None else "utf-8")
            if result.exit_status != 0:
                raise RuntimeError(f"{host}: exit status {result.exit_status}")
            if isinstance(result.stdout, bytes):
                sys.stdout.buffer.write(result.stdout)

    with open(hosts, encoding="utf-8") as opened:
        await asyncio.gather(*(visit(host) for host in opened.read().split()))


uvloop.run(main())
