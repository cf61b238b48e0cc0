"""The command on all hosts by parallel-ssh's native client."""

import sys

from pssh.clients import ParallelSSHClient


def main():
    hosts, port, user, key, _, concurrency, file, command = sys.argv[1:]
    with open(hosts, encoding="utf-8") as opened:
        addresses = opened.read().split()
    client = ParallelSSHClient(
        addresses,
        user=user,
        port=int(port),
        pkey=key,
        pool_size=int(concurrency),
        num_retries=1,
        allow_agent=False,
        identity_auth=False,
    )
    outputs = client.run_command(command, read_timeout=None)
    for output in outputs:
        if file != "-":
            with open(file, "rb") as opened:
                output.stdin.write(opened.read())
            output.stdin.flush()
            output.client.eof(output.channel) if hasattr(output.client, "eof") else output.channel.send_eof()
    client.join(outputs)
    failed = 0
    for output in outputs:
        for line in output.stdout:
            print(line)
        failed += output.exit_code != 0
    sys.exit(1 if failed else 0)


main()
