"""An asyncssh server that runs commands by /bin/sh: asyncssh_server.py ADDRESS PORT HOST_KEY AUTHORIZED_KEYS."""

import asyncio
import signal
import subprocess
import sys

import asyncssh


async def serve(process):
    pipe = subprocess.PIPE
    child = subprocess.Popen(["/bin/sh", "-c", process.command], stdin=pipe, stdout=pipe, stderr=pipe)
    await process.redirect(child.stdin, child.stdout, child.stderr)
    status = await asyncio.get_running_loop().run_in_executor(None, child.wait)
    # Output may still be on its way.
    await process.stdout.drain()
    await process.stderr.drain()
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def main(address, port, host_key, authorized_keys):
    keys = {"server_host_keys": [host_key], "authorized_client_keys": authorized_keys}
    server = await asyncssh.create_server(
        asyncssh.SSHServer, address, int(port), process_factory=serve, encoding=None, **keys
    )
    print("listening", flush=True)
    await server.wait_closed()


asyncio.run(main(*sys.argv[1:]))
