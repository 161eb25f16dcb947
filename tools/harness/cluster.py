"""A cluster under test: replicas of one ledger on loopback, killed, stopped and continued one by one.

Which replica leads is asked of the replicas themselves, as a client would.
"""

import random
import signal
import socket
import subprocess
import time

from . import wire
from .server import BINARY, TIMEOUT_SECONDS, Server, ServerFailed, free_port


class Replica(Server):
    """One of the replicas; `addresses` are those of all."""

    def __init__(self, path, index, addresses, development):
        super().__init__(path, development, port=int(addresses[index].rsplit(":", 1)[1]))
        self.index = index
        self.addresses = addresses

    def format(self, replica_count, cluster=0):
        """Makes the data file."""
        self.make_file("format", replica_count, cluster)

    def recover(self, replica_count, cluster=0):
        """Makes the data file anew that was lost."""
        self.make_file("recover", replica_count, cluster)

    def make_file(self, how, replica_count, cluster):
        """Makes the data file by this subcommand."""
        role = "replica" if self.index < replica_count else "standby"
        mode = ["--development"] if self.development else []
        command = [str(BINARY), how, f"--cluster={cluster}", f"--{role}={self.index}",
                   f"--replica-count={replica_count}", *mode, str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                              check=False)
        if done.returncode != 0:
            raise ServerFailed(f"{how} ended with {done.returncode}: {done.stderr.strip()}")

    def command(self):
        """The command line that serves the data file."""
        mode = ["--development"] if self.development else []
        return [str(BINARY), "start", f"--addresses={','.join(self.addresses)}", *mode,
                *self.options, str(self.path)]

    def view(self):
        """The view the replica is in; `None` if it does not say."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.3) as connection:
                connection.sendall(wire.ping_frame(random.randrange(1, 1 << 100)))
                header, _ = wire.read_message(connection)
        except (OSError, wire.ProtocolError):
            return None
        if header[114] != wire.COMMAND_PONG_CLIENT:
            return None
        return int.from_bytes(header[104:108], "little")

    def pause(self):
        """Stops the process where it stands; its connections stay."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Lets the process go on."""
        self.process.send_signal(signal.SIGCONT)


class Cluster:
    """All replicas of a cluster, with data files in a directory."""

    def __init__(self, directory, replica_count, development=True):
        ports = []
        while len(ports) < replica_count:
            port = free_port()
            if port not in ports:
                ports.append(port)
        self.addresses = [f"127.0.0.1:{port}" for port in ports]
        self.replicas = [Replica(directory / f"{index}.florin", index, self.addresses, development)
                         for index in range(replica_count)]
        for replica in self.replicas:
            replica.format(replica_count)

    def start(self):
        """Starts all replicas and waits until one of them leads."""
        for replica in self.replicas:
            replica.spawn()
        self.primary()
        return self

    def primary(self, seconds=TIMEOUT_SECONDS):
        """The replica that leads the newest view that a replica tells of, once that is agreed by a
        majority and itself."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            views = [replica.view() if replica.is_running() else None
                     for replica in self.replicas]
            known = [view for view in views if view is not None]
            if known:
                newest = max(known)
                leader = newest % len(self.replicas)
                if (known.count(newest) * 2 > len(self.replicas) and views[leader] == newest):
                    return self.replicas[leader]
            time.sleep(0.01)
        raise ServerFailed(f"no primary within {seconds} s; views {views}")

    def stop(self):
        """Ends all replicas in good order."""
        for replica in self.replicas:
            if replica.is_running():
                replica.stop()

    def kill(self):
        """Kills all replicas."""
        for replica in self.replicas:
            replica.kill()
