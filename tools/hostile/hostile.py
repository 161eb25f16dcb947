"""Sends the server everything a well-behaved client would not, and checks that it goes on serving.

Usage: hostile.py [--fuzz=N] [--seed=N] [--rounds=N], with the Python of an environment that holds
the newest client. After every attack a well-behaved raw client must get its answer at once. At the
end of all rounds the server's memory must not have grown, and an official client must work.
"""

import argparse
import pathlib
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tigerbeetle as tb  # noqa: E402

from harness import aegis, wire  # noqa: E402
from harness.checks import CheckFailed, Checks, equal, require  # noqa: E402
from harness.server import Server, format_file, remove_directory, scratch_directory  # noqa: E402

ANSWER_SECONDS = 2
MEMORY_GROWTH_MAX = 32 << 20
CONNECTIONS = 1000


class Target:
    """The server under attack and the well-behaved client that watches it."""

    def __init__(self, server):
        self.server = server
        self.port = server.port
        self.watcher = wire.RawClient(self.port, timeout_seconds=20).register()
        self.slowest_seconds = 0.0
        self.watcher.create_all(wire.CREATE_ACCOUNTS, [wire.account(1), wire.account(2)])

    def check_alive(self):
        """The watcher's next request is answered, and soon."""
        start = time.monotonic()
        try:
            found = self.watcher.call(wire.LOOKUP_ACCOUNTS, wire.ids([1, 2]))
        except OSError as error:
            raise CheckFailed(f"no answer ({error}); running: {self.server.is_running()}: "
                              + self.server.stderr_text()[-1000:]) from None
        except wire.Evicted:
            # An attack may register many sessions; then the watcher registers again.
            self.watcher.close()
            self.watcher = wire.RawClient(self.port, timeout_seconds=20).register()
            found = self.watcher.call(wire.LOOKUP_ACCOUNTS, wire.ids([1, 2]))
        equal(len(found), 256, "bytes of the answer")
        seconds = time.monotonic() - start
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        require(seconds < ANSWER_SECONDS, f"the answer took {seconds:.1f} s")

    def connect(self):
        """A plain connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def send(self, message, wait_seconds=0.0):
        """Sends bytes on a connection of their own; gives what came back, if waited for."""
        with self.connect() as connection:
            try:
                connection.sendall(message)
                if wait_seconds:
                    connection.settimeout(wait_seconds)
                    return connection.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                return b""
            return None


def one_reply(target, operation, body, wait_seconds=10):
    """Sends one request of a fresh session; gives the kind of what comes back (reply, evicted,
    closed or ignored) and the body or the reason."""
    with wire.RawClient(target.port).register() as client:
        try:
            message = client.next_message(operation, body)
            client.connection.settimeout(wait_seconds)
            return ("reply", client.exchange(message)[1])
        except wire.Evicted as eviction:
            return ("evicted", eviction.args[0])
        except TimeoutError:
            return ("ignored", None)
        except OSError:
            return ("closed", None)


def attack_commands(target, _chance):
    """Every command byte with valid checksums, alone and with a body."""
    for command in range(256):
        for body in (b"", bytes(256)):
            target.send(wire.frame(command, body))
            target.send(wire.frame(command, body, ((128, b"\x01" + bytes(15)),
                                                   (160, b"\x01" + bytes(15)))))
        if command % 16 == 0 or command in range(28):
            target.check_alive()


def attack_operations(target, chance):
    """Every operation with empty, short and garbage bodies, in a registered session."""
    for operation in range(256):
        bodies = [b"", chance.randbytes(128), b"\xff" * 128] if operation > 127 else [b""]
        for body in bodies:
            kind, value = one_reply(target, operation, body, 0.05 if operation < 137 else 10)
            if operation <= 128 or operation > 147:
                require(kind != "reply", f"operation {operation}: replied {value!r}")
            if operation > 147:
                equal((kind, value), ("evicted", 4), f"operation {operation}")
        if operation % 8 == 0:
            target.check_alive()


def attack_bodies(target, _chance):
    """Malformed multi-batch bodies: each must evict with reason 5."""
    account = wire.account(10)
    bodies = {
        "no trailer": account, "odd length": wire.encode_batches(128, [account]) + b"\x00",
        "no batches": b"\xff" * 126 + b"\x00\x00",
        "65535 batches": b"\xff" * 128,
        "trailer longer than the body": b"\xff" * 126 + struct.pack("<H", 5000),
        "counts too high": account + b"\xff" * 124 + struct.pack("<HH", 2, 1),
        "counts too low": account + b"\xff" * 124 + struct.pack("<HH", 0, 1),
        "padding": account + bytes(124) + struct.pack("<HH", 1, 1),
        "one byte": b"\x00",
    }
    for name, body in bodies.items():
        equal(one_reply(target, wire.CREATE_ACCOUNTS, body), ("evicted", 5), name)
        target.check_alive()
    two_filters = wire.encode_batches(64, [wire.query_filter(limit=8000)] * 2)
    equal(one_reply(target, wire.QUERY_TRANSFERS, two_filters), ("evicted", 5), "two large limits")
    two_in_one = wire.encode_batches(64, [wire.query_filter() * 2])
    equal(one_reply(target, wire.QUERY_TRANSFERS, two_in_one), ("evicted", 5), "two filters")
    equal(one_reply(target, wire.GET_CHANGE_EVENTS, bytes(65)), ("evicted", 5), "a long filter")
    kind, _ = one_reply(target, wire.QUERY_TRANSFERS,
                        wire.encode_batches(64, [wire.query_filter(limit=1 << 31)]))
    equal(kind, "reply", "a large limit is lowered")


def attack_sizes(target, _chance):
    """Requests above the limit of the mode, and the largest message there is."""
    limit = target.watcher.batch_size_limit
    body = wire.encode_batches(16, [bytes(limit - limit % 16)])
    kind, value = one_reply(target, wire.LOOKUP_ACCOUNTS, body)
    require((kind, value) in (("evicted", 6), ("closed", None)), f"too large: {kind} {value!r}")
    target.check_alive()
    largest = bytes(wire.MESSAGE_SIZE_MAX - wire.HEADER_SIZE)
    kind, value = one_reply(target, wire.LOOKUP_ACCOUNTS, largest, 1)
    require(kind in ("evicted", "closed", "ignored"), f"largest message: {kind} {value!r}")
    for size in (0, 1, 255, wire.MESSAGE_SIZE_MAX + 1, (1 << 32) - 1):
        target.send(wire.frame(wire.COMMAND_REQUEST, b"", size=size))
        target.check_alive()


def attack_registers(target, _chance):
    """Registers that are not as they should be."""
    nonzero = bytes(100) + b"\x01" + bytes(155)
    for body in (nonzero, b"\xff" * 256, b"", bytes(255), bytes(257), bytes(512)):
        message = wire.request_frame(2, body, client=77, session=0, number=0)
        target.send(message, 0.1)
        target.check_alive()
    for fields in ({"session": 5}, {"number": 1}, {"parent": b"\x01" * 16}):
        options = {"client": 78, "session": 0, "number": 0, **fields}
        target.send(wire.request_frame(2, bytes(256), **options), 0.05)
    target.check_alive()


def attack_zero_clients(target, _chance):
    """Requests, registers and pings of client zero; strange sessions, views and timestamps."""
    for operation in (2, 4, 5, 128, 140, 147):
        target.send(wire.request_frame(operation, b"", client=0, session=0, number=0), 0.05)
        target.send(wire.request_frame(operation, bytes(256), client=0, session=0, number=0), 0.05)
    target.check_alive()
    largest = (1 << 64) - 1
    for ping in (wire.ping_frame(0), wire.ping_frame(5, session=largest), wire.ping_frame(6, 1),
                 wire.ping_frame(7, view=(1 << 32) - 1), wire.ping_frame(8, release=0),
                 wire.ping_frame(9, release=(1 << 32) - 1)):
        target.send(ping, 0.05)
        target.check_alive()
    lookup = wire.encode_batches(16, [wire.ids([1])])
    for options in ({"session": largest}, {"number": (1 << 32) - 1}, {"view": (1 << 32) - 1},
                    {"release": 0}, {"release": (1 << 32) - 1}, {"session": 1}):
        options = {"client": 79, "session": 3, "number": 1, **options}
        target.send(wire.request_frame(wire.LOOKUP_ACCOUNTS, lookup, **options), 0.05)
        target.check_alive()


def attack_frames(target, chance):
    """Wrong checksums, wrong clusters, reserved bytes that are set, garbage."""
    lookup = wire.encode_batches(16, [wire.ids([1])])
    good = wire.request_frame(wire.LOOKUP_ACCOUNTS, lookup, client=80, session=1, number=1)
    for position in range(0, len(good), 3):
        broken = bytearray(good)
        broken[position] ^= 1 << chance.randrange(8)
        target.send(bytes(broken))
    target.check_alive()
    for cluster in (1, 1 << 127, (1 << 128) - 1):
        equal(target.send(wire.ping_frame(81, cluster=cluster), 0.5), b"", "another cluster")
    for offset in (16, 48, 64, 100, 112, 115, 116, 144, 184, 197, 204, 255):
        fields = ((128, bytes(16)), (160, b"\x05" + bytes(15)), (offset, b"\x01"))
        target.send(wire.frame(wire.COMMAND_REQUEST, bytes(256), (*fields, (196, b"\x02"))), 0.02)
    target.check_alive()
    for size in (1, 255, 256, 257, 5000, 300_000):
        target.send(chance.randbytes(size), 0.05)
        target.check_alive()


def attack_cuts(target, _chance):
    """Connections closed after every length of a header, and in the middle of a body."""
    whole = wire.request_frame(wire.OPERATION_REGISTER, bytes(256), client=82, session=0, number=0)
    for length in range(len(whole)):
        target.send(whole[:length])
    target.check_alive()


def attack_halves(target, _chance):
    """Messages that begin and never end, on connections that stay open; and slow senders."""
    whole = wire.request_frame(wire.OPERATION_REGISTER, bytes(256), client=83, session=0, number=0)
    held = []
    for length in (1, 100, 255, 256, 300, 511):
        connection = target.connect()
        connection.sendall(whole[:length])
        held.append(connection)
    target.check_alive()
    with wire.RawClient(target.port) as slow:
        message = slow.next_message(wire.OPERATION_REGISTER, bytes(256))
        for start in range(0, len(message), 7):
            slow.connection.sendall(message[start:start + 7])
            time.sleep(0.001)
        slow.receive(message)
    target.check_alive()
    for connection in held:
        connection.close()


def attack_slow_readers(target, _chance):
    """Clients that ask for much and never read the answers."""
    ids = [1] * 8000
    if target.watcher.batch_size_limit < 16 * 8001:
        ids = [1] * (target.watcher.batch_size_limit // 16 - 1)
    body = wire.encode_batches(16, [wire.ids(ids)])
    readers = []
    for _ in range(8):
        client = wire.RawClient(target.port).register()
        message = client.next_message(wire.LOOKUP_ACCOUNTS, body)
        client.connection.settimeout(0.5)
        readers.append(client)
        try:
            for _ in range(20):
                # The same bytes again: each is answered from the stored reply, if at all.
                client.connection.sendall(message)
        except OSError:
            pass
    for _ in range(5):
        target.check_alive()
        time.sleep(0.1)
    for client in readers:
        client.close()
    target.check_alive()


def attack_connections(target, _chance):
    """A thousand connections at once, some of which say something."""
    held = []
    for number in range(CONNECTIONS):
        try:
            connection = target.connect()
            if number % 3 == 0:
                connection.sendall(wire.ping_frame(1000 + number))
            held.append(connection)
        except OSError:
            break
    try:
        target.check_alive()
    except CheckFailed:
        # The watcher may lose its connection to a limit, but not the server its mind.
        require(target.server.is_running(), "the server ended: " + target.server.stderr_text())
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            target.watcher = wire.RawClient(target.port).register()
            break
        except OSError:
            require(time.monotonic() < deadline, "no connection after the flood")
            time.sleep(0.05)
    target.check_alive()


def attack_sessions(target, _chance):
    """Twice as many sessions as there is room for, from two threads."""

    def register_many():
        for _ in range(64):
            with wire.RawClient(target.port) as client:
                client.register()

    threads = [threading.Thread(target=register_many) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    target.check_alive()


def attack_requests(target, chance):
    """Requests in a session that come early, twice, late, or with a wrong parent."""
    with wire.RawClient(target.port, timeout_seconds=0.2).register() as client:
        body = wire.encode_batches(16, [wire.ids([1])])
        good = client.next_message(wire.LOOKUP_ACCOUNTS, body)
        for number in (0, 2, 3, 1 << 31):
            message = wire.request_frame(wire.LOOKUP_ACCOUNTS, body, client=client.client,
                                         session=client.session, number=number,
                                         parent=client.parent, view=client.view)
            client.connection.sendall(message)
        wrong = wire.request_frame(wire.LOOKUP_ACCOUNTS, body, client=client.client,
                                   session=client.session, number=1,
                                   parent=chance.randbytes(16), view=client.view)
        client.connection.sendall(wrong)
        client.connection.sendall(good * 3)
        header, _ = client.receive(good)
        client.adopt(header)
        equal(len(client.call(wire.LOOKUP_ACCOUNTS, wire.ids([1]))), 128, "after the mess")
    target.check_alive()


def attack_imported_post(target, _chance):
    """An imported post of a timed pending transfer, which stops the reference."""
    with wire.RawClient(target.port).register() as client:
        mark = random.SystemRandom().randrange(1 << 60, 1 << 120)
        stamps = client.create_all(wire.CREATE_ACCOUNTS, [wire.account(mark), wire.account(mark + 1)])
        time.sleep(0.005)
        client.create_all(wire.CREATE_TRANSFERS,
                          [wire.transfer(mark, mark, mark + 1, 5, flags=2, timeout=1000)])
        (pending,) = wire.split(client.call(wire.LOOKUP_TRANSFERS, wire.ids([mark])), 128)
        (timestamp,) = struct.unpack_from("<Q", pending, 120)
        require(timestamp > stamps[1][1], "time goes on")
        time.sleep(0.005)
        for flags in (256 | 4, 256 | 8):
            post = wire.transfer(mark + flags, 0, 0, 5, flags=flags, pending_id=mark, ledger=0,
                                 code=0, timestamp=timestamp + flags)
            client.create(wire.CREATE_TRANSFERS, [post])
        found = client.call(wire.LOOKUP_TRANSFERS, wire.ids([mark, mark + 260]))
        equal(len(found), 256, "bytes of the pending transfer and its post")
    target.check_alive()


def attack_fuzz(target, chance, count):
    """Random frames with valid checksums: random fields in otherwise plausible messages."""
    lookup = wire.encode_batches(16, [wire.ids([1])])
    connection = target.connect()
    for number in range(count):
        command = chance.choice((3, 5, 5, 5, 8, 18, chance.randrange(256)))
        operation = chance.choice((2, 140, 146, 147, chance.randrange(256)))
        body = chance.choice((b"", lookup, bytes(256), chance.randbytes(chance.randrange(600))))
        fields = [(128, chance.choice((bytes(16), chance.randbytes(16)))),
                  (160, chance.choice((bytes(15) + b"\x01", chance.randbytes(16)))),
                  (176, chance.choice((bytes(8), chance.randbytes(8)))),
                  (192, struct.pack("<IB", chance.choice((0, 1, chance.randrange(1 << 32))),
                                    operation))]
        for _ in range(chance.choice((0, 0, 1, 3))):
            offset = chance.choice((100, 104, 112, 115, 184, chance.randrange(116, 255)))
            fields.append((offset, chance.randbytes(1)))
        size = chance.choice((None,) * 9 + (chance.randrange(1 << 21),))
        message = wire.frame(command, body, fields, size=size,
                             release=chance.choice((wire.RELEASE,) * 5 + (chance.randrange(1 << 32),)))
        try:
            connection.sendall(message)
        except OSError:
            connection.close()
            connection = target.connect()
        if number % 25 == 0:
            connection.close()
            connection = target.connect()
            target.check_alive()
    connection.close()
    target.check_alive()


def attack_fuzz_session(target, chance, count):
    """Random bodies in registered sessions: everything a body can do to the state machine."""
    for number in range(count):
        operation = chance.choice((137, 140, 141, 142, 143, 144, 145, 146, 147))
        size = wire.EVENT_SIZE.get(operation, 64)
        events = bytearray(chance.randbytes(size * chance.choice((0, 1, 1, 2, 5))))
        for start in range(0, len(events), size):
            for _ in range(chance.randrange(6)):
                offset = start + chance.randrange(0, size, 16)
                events[offset:offset + 16] = chance.choice((bytes(16), b"\xff" * 16,
                                                            b"\x01" + bytes(15)))
        body = bytes(events)
        if operation != 137 and chance.random() < 0.9:
            body = wire.encode_batches(size, [body])
        kind, value = one_reply(target, operation, body)
        require(kind in ("reply", "evicted"), f"operation {operation}: {kind} {value!r}")
        if number % 20 == 0:
            target.check_alive()


ATTACKS = (attack_commands, attack_operations, attack_bodies, attack_sizes, attack_registers,
           attack_zero_clients, attack_frames, attack_cuts, attack_halves, attack_slow_readers,
           attack_connections, attack_sessions, attack_requests, attack_imported_post)


def check_official(server):
    """After all that, an official client works."""
    with tb.ClientSync(cluster_id=0, replica_addresses=f"127.0.0.1:{server.port}") as client:
        equal(len(client.lookup_accounts([1, 2])), 2, "accounts")
        (result,) = client.create_transfers([tb.Transfer(
            id=tb.id(), debit_account_id=1, credit_account_id=2, amount=1, ledger=1, code=1)])
        equal(result.status.name, "CREATED", "status")


def check_memory(server, before):
    """The memory of the server has not grown since `before`."""
    growth = server.memory_bytes() - before
    require(growth < MEMORY_GROWTH_MAX, f"memory has grown by {growth >> 20} MiB")


def main():
    """Runs all attacks, more than once, so that what leaks shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fuzz", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--production", action="store_true")
    options = parser.parse_args()
    checks = Checks("hostile")
    checks.run("the checksum's vectors", aegis.self_test)
    directory = scratch_directory("hostile")
    server = Server(directory / "ledger", development=not options.production)
    target = None

    def start():
        nonlocal target
        format_file(server.path, development=not options.production)
        server.start()
        target = Target(server)

    if not checks.run("start", start):
        checks.finish()
    memory = 0
    for number in range(1, options.rounds + 1):
        chance = random.Random(options.seed + number)
        for attack in ATTACKS:
            checks.run(f"round {number}: {attack.__name__}", attack, target, chance)
        checks.run(f"round {number}: fuzz", attack_fuzz, target, chance, options.fuzz)
        checks.run(f"round {number}: fuzz in sessions", attack_fuzz_session, target, chance,
                   options.fuzz // 3)
        if not server.is_running():
            break
        if number == 1:
            # The first round touches all memory that the server took at its start.
            memory = server.memory_bytes()
        else:
            checks.run(f"round {number}: memory", check_memory, server, memory)
    checks.run("an official client at the end", check_official, server)
    checks.run("an orderly end", server.stop)
    print(f"slowest answer to the watcher: {target.slowest_seconds * 1000:.0f} ms", flush=True)
    server.kill()
    if checks.failed == 0:
        remove_directory(directory)
    checks.finish()


if __name__ == "__main__":
    main()
