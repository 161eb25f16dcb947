"""Addresses as people write them: names, wildcards, some of all, in any order, some of them dead."""

import contextlib
import http.server
import itertools
import socket
import threading

import tigerbeetle as tb

from harness.checks import equal, require
from harness.cluster import Cluster
from harness.commands import florin, florin_json
from harness.server import Server, format_file, free_port, remove_directory, scratch_directory

from .world import account, connect, transfer


@contextlib.contextmanager
def three():
    """Serves three replicas."""
    directory = scratch_directory("practice-addresses")
    cluster = Cluster(directory, 3)
    try:
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        cluster.kill()
    remove_directory(directory)


class AnyAddress(Server):
    """A server that listens where its list says."""

    def __init__(self, path, host):
        super().__init__(path, port=free_port())
        self.host = host

    def command(self):
        command = super().command()
        command[2] = f"--addresses={self.host}:{self.port}"
        return command


class SilentHandler(http.server.BaseHTTPRequestHandler):
    """Answers as a web server does, and logs nothing."""

    def log_message(self, format, *_):  # noqa: A002 (the library's name)
        """Leaves out what would be a line of bytes for each frame."""


def check_names_and_wildcards(_options):
    """A server started with a name, and with 0.0.0.0, is reached by address, port and name."""
    for host in ("localhost", "0.0.0.0", "127.0.0.1"):
        directory = scratch_directory("practice-names")
        server = AnyAddress(directory / "ledger.florin", host)
        format_file(server.path)
        try:
            server.start()
            with connect(f"127.0.0.1:{server.port}") as client:
                client.create_accounts([account(1), account(2)])
                client.create_transfers([transfer(1, 2, 5)])
            with connect(str(server.port)) as client:
                equal(client.lookup_accounts([1])[0].debits_posted, 5, "by the port alone")
            for address in (f"localhost:{server.port}", str(server.port),
                            f"127.0.0.1:{server.port}"):
                (found,) = florin_json("balance", "--account=1", "--format=json",
                                       f"--addresses={address}")
                equal(int(found["debits_posted"]), 5, f"balance from {address}")
            server.stop()
        finally:
            server.kill()
        remove_directory(directory)


def check_replicas_by_name(_options):
    """Three replicas that know each other by the name localhost form a cluster."""
    directory = scratch_directory("practice-by-name")
    cluster = Cluster(directory, 3)
    for replica in cluster.replicas:
        replica.addresses = [address.replace("127.0.0.1", "localhost")
                             for address in cluster.addresses]
    try:
        cluster.start()
        with connect(",".join(cluster.addresses)) as client:
            client.create_accounts([account(1)])
            equal(len(client.lookup_accounts([1])), 1, "accounts")
        named = ",".join(cluster.replicas[0].addresses)
        equal(len(florin_json("balance", "--account=1", "--format=json",
                              f"--addresses={named}")), 1, "balance by name")
        cluster.stop()
    finally:
        cluster.kill()
    remove_directory(directory)


def check_clients_with_some_or_all_in_any_order(_options):
    """Official clients and florin with one address of three, and with all in every order."""
    with three() as cluster:
        with connect(",".join(cluster.addresses)) as client:
            client.create_accounts([account(1), account(2)])
        total = 0
        lists = [[address] for address in cluster.addresses]
        lists += [list(order) for order in itertools.permutations(cluster.addresses)]
        for addresses in lists:
            total += 1
            with connect(",".join(addresses)) as client:
                (result,) = client.create_transfers([transfer(1, 2, 1)])
                equal(result.status, tb.CreateTransferStatus.CREATED, f"with {addresses}")
            (found,) = florin_json("balance", "--account=1", "--format=json",
                                   f"--addresses={','.join(addresses)}")
            equal(int(found["debits_posted"]), total, f"balance from {addresses}")


def check_dead_first_address(_options):
    """The first address is dead, by a refusal or by silence: the others serve."""
    with three() as cluster:
        with connect(",".join(cluster.addresses)) as client:
            client.create_accounts([account(1), account(2)])
        for fault in ("killed", "stopped"):
            first = cluster.replicas[0]
            first.kill() if fault == "killed" else first.pause()
            cluster_addresses = ",".join(cluster.addresses)
            with connect(cluster_addresses) as client:
                client.create_transfers([transfer(1, 2, 1)])
            florin("balance", "--account=1", f"--addresses={cluster_addresses}")
            florin("repl", "--command=lookup_accounts id=1;", f"--addresses={cluster_addresses}")
            florin("export", f"--addresses={cluster_addresses}")
            equal(florin("status", f"--addresses={cluster_addresses}", codes=(0, 10, 7)).returncode,
                  10, f"exit code of status with the first replica {fault}")
            if fault == "killed":
                first.start()
            else:
                first.resume()
            cluster.primary()


def check_status_in_a_wrong_order(_options):
    """`status` with the addresses in a wrong order says the right one; clients are served."""
    with three() as cluster:
        with connect(",".join(cluster.addresses)) as client:
            client.create_accounts([account(1)])
        for order in itertools.permutations(cluster.addresses):
            wanted = 0 if list(order) == cluster.addresses else 10
            done = florin("status", f"--addresses={','.join(order)}", codes=(0, 7, 10))
            equal(done.returncode, wanted, f"exit code with {order}: {done.stdout[-400:]}")
            if wanted:
                ports = [address.rsplit(":", 1)[1] for address in cluster.addresses]
                text = done.stdout + done.stderr
                require(",".join(cluster.addresses) in text or ",".join(ports) in text,
                        f"the right order is not said: {text[-400:]}")


def check_addresses_that_serve_no_florin(_options):
    """Nobody listens, or somebody never answers, or talks HTTP: code 7, the address is named."""
    silent = socket.create_server(("127.0.0.1", 0))
    web = http.server.HTTPServer(("127.0.0.1", 0), SilentHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    ports = {"nobody": free_port(), "silent": silent.getsockname()[1], "web": web.server_port}
    try:
        for who, port in ports.items():
            for words in (("balance", "--account=1"), ("export",), ("cdc", "--until=now"),
                          ("repl", "--command=lookup_accounts id=1;")):
                done = florin(*words, f"--addresses={port}", "--deadline=1", codes=(7,))
                require(str(port) in done.stderr, f"{who}: {words}: the address is not named: "
                        f"{done.stderr.strip()}")
    finally:
        web.shutdown()
        web.server_close()
        silent.close()
