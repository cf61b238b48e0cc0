"""Hosts: daemons of OpenSSH at addresses of this machine's loopback network."""

import os
import shutil
import socket
import subprocess

from cloud import eventually, require

PORT = 2222


class Host:
    """A daemon on some addresses."""

    def __init__(self, folder, addresses, name="host"):
        self.folder = folder / f"{name}-{addresses[0]}"
        self.folder.mkdir()
        self.addresses = addresses
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key"], check=True)
        lines = [f"ListenAddress {address}:{PORT}" for address in addresses]
        lines += [f"HostKey {self.folder}/key", f"AuthorizedKeysFile {folder}/dev.pem.pub", "StrictModes no", "UsePAM no"]
        # What the user's own start-up files do would be done at every login, at once on all hosts.
        (self.folder / "home").mkdir()
        lines += [f"SetEnv HOME={self.folder}/home"]
        lines += ["PidFile none", "PasswordAuthentication no", "MaxStartups 500", "MaxSessions 500", "LogLevel ERROR"]
        (self.folder / "config").write_text("\n".join(lines) + "\n")
        sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        with open(self.folder / "log", "wb") as log:
            command = [sshd, "-D", "-e", "-f", self.folder / "config"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for address in addresses:
            eventually(f"sshd listens at {address}", lambda address=address: self.answers(address), 30)

    def answers(self, address):
        require(self.process.poll() is None, f"sshd has ended: {(self.folder / 'log').read_text()}")
        with socket.socket() as one:
            return one.connect_ex((address, PORT)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait()
