"""A paramiko server that runs commands by /bin/sh: paramiko_server.py ADDRESS PORT HOST_KEY AUTHORIZED_KEYS."""

import signal
import socket
import subprocess
import sys
import threading

import paramiko

BLOCK = 32768


class Server(paramiko.ServerInterface):
    def __init__(self, authorized):
        self.authorized = authorized

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        accepted = key.get_base64() in self.authorized
        return paramiko.AUTH_SUCCESSFUL if accepted else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=execute, args=(channel, command), daemon=True).start()
        return True


def execute(channel, command):
    pipe = subprocess.PIPE
    child = subprocess.Popen(["/bin/sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    pumps = [
        threading.Thread(target=pump, args=(lambda: child.stdout.read(BLOCK), channel.sendall), daemon=True),
        threading.Thread(target=pump, args=(lambda: child.stderr.read(BLOCK), channel.sendall_stderr), daemon=True),
    ]
    feeder = threading.Thread(target=feed, args=(channel, child.stdin), daemon=True)
    for thread in [*pumps, feeder]:
        thread.start()
    for thread in pumps:
        thread.join()
    status = child.wait()
    if status < 0:
        send_exit_signal(channel, signal.Signals(-status).name.removeprefix("SIG"))
    else:
        channel.send_exit_status(status)
    channel.close()


def pump(read, write):
    try:
        while block := read():
            write(block)
    except OSError:
        pass


def feed(channel, stdin):
    pump(lambda: channel.recv(BLOCK), stdin.write)
    stdin.close()


def send_exit_signal(channel, name):
    """Paramiko itself only knows exit statuses (RFC 4254, section 6.10)."""
    message = paramiko.Message()
    message.add_byte(bytes([98]))
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(name)
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    channel.transport._send_user_message(message)


def main(address, port, host_key, authorized_keys):
    key = paramiko.Ed25519Key(filename=host_key)
    with open(authorized_keys) as lines:
        authorized = {line.split()[1] for line in lines}
    listener = socket.create_server((address, int(port)), backlog=100)
    print("listening", flush=True)
    transports = []
    while True:
        connection, _ = listener.accept()
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        try:
            transport.start_server(server=Server(authorized), event=threading.Event())
            transports.append(transport)
        except paramiko.SSHException:
            transport.close()


main(*sys.argv[1:])
