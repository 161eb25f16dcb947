"""Kills the server at random moments under load and checks that nothing acknowledged is lost.

Usage: crash.py [--kills=N] [--seed=N], with the Python of an environment that holds the newest
client. Every writer keeps a journal of the requests it sent and the answers it got. After every
kill, and completely from time to time and at the end:

* every acknowledged transfer is there, once, with the fields and the timestamp acknowledged;
* a request that was in flight is there wholly or not at all;
* the balances of all accounts are the sums over all transfers;
* the client's own retry completes with the original answer: `created`, never `exists`;
* a request that was answered, sent again byte for byte, gets the same bytes as answer.

Writers are official clients, and raw ones that reconnect without the official client's pauses, so
that a server is under load from its first millisecond. Kills also hit recovery, and `format`.
"""

import argparse
import logging
import os
import pathlib
import random
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tigerbeetle as tb  # noqa: E402

from harness import wire  # noqa: E402
from harness.checks import CheckFailed, Checks, equal, require  # noqa: E402
from harness.server import (Server, ServerFailed, format_command, format_file,  # noqa: E402
                            free_port, remove_directory, scratch_directory)

ACCOUNTS = 24
PENDING, POST, VOID = 2, 4, 8
KILLS_PER_FULL_CHECK = 10
LOOKUP_MAX = 8000


class Journal:
    """What one writer sent and what it was answered; transfers as the 128 bytes to create."""

    def __init__(self, number):
        self.chance = random.Random(number)
        self.next_id = (1 + number) << 64
        self.acknowledged = {}
        self.in_flight = []
        self.open_pending = []
        self.lock = threading.Lock()

    def next_batch(self, account_ids):
        """Makes the next batch and notes it as in flight."""
        chance = self.chance
        batch = []
        for _ in range(chance.choice((1, 2, 10, 30, 60))):
            debit, credit = chance.sample(account_ids, 2)
            self.next_id += 1
            user_data = (self.next_id * 7, 0, chance.randrange(1, 50))
            if self.open_pending and chance.random() < 0.3:
                pending_id, amount = self.open_pending.pop()
                flags = POST if chance.random() < 0.6 else VOID
                amount = chance.randrange(amount + 1) if flags == POST else amount
                batch.append(wire.transfer(self.next_id, 0, 0, amount, flags=flags, ledger=0,
                                           code=0, pending_id=pending_id, user_data=user_data))
            else:
                flags = PENDING if chance.random() < 0.25 else 0
                batch.append(wire.transfer(self.next_id, debit, credit, chance.randrange(1, 1000),
                                           flags=flags, user_data=user_data))
        with self.lock:
            self.in_flight = batch
        return batch

    def acknowledge(self, batch, answers):
        """Notes the answers to a batch; each must be `created`, in order of time."""
        equal(len(answers), len(batch), "answers to a batch")
        for status, _ in answers:
            equal(status, wire.CREATED, "status of a transfer that is new")
        stamps = [timestamp for _, timestamp in answers]
        equal(stamps, list(range(stamps[0], stamps[0] + len(batch))), "timestamps of a batch")
        with self.lock:
            for record, timestamp in zip(batch, stamps):
                self.acknowledged[identifier(record)] = (record, timestamp)
                if flags_of(record) & PENDING:
                    self.open_pending.append((identifier(record), amount_of(record)))
            self.in_flight = []

    def snapshot(self, recent=None):
        """Acknowledged transfers, all or the most recent, and the batch in flight."""
        with self.lock:
            items = list(self.acknowledged.items())
            return items[-recent:] if recent else items, list(self.in_flight)


def identifier(record):
    """Id of a transfer or account."""
    return int.from_bytes(record[0:16], "little")


def amount_of(record):
    """Amount of a transfer."""
    return int.from_bytes(record[48:64], "little")


def flags_of(record):
    """Flags of a transfer."""
    return int.from_bytes(record[118:120], "little")


class Writers:
    """Threads that create transfers until told to stop; errors are kept for the main thread."""

    def __init__(self, server, account_ids, official, raw):
        self.server = server
        self.account_ids = account_ids
        self.journals = [Journal(number) for number in range(official + raw)]
        self.failures = []
        self.running = threading.Event()
        self.running.set()
        self.stopping = False
        self.idle = [threading.Event() for _ in self.journals]
        works = [self.work_official] * official + [self.work_raw] * raw
        self.threads = [threading.Thread(target=self.guard, args=(work, number), daemon=True)
                        for number, work in enumerate(works)]
        for thread in self.threads:
            thread.start()

    def guard(self, work, number):
        """Runs a writer; keeps what it raises."""
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 (reported by the main thread)
            self.failures.append(f"writer {number}: {type(error).__name__}: {error}")
        self.idle[number].set()

    def rest(self, number):
        """Waits while writers are paused; gives whether to go on."""
        while not self.running.is_set():
            self.idle[number].set()
            if self.stopping:
                return False
            self.running.wait(0.05)
        self.idle[number].clear()
        return not self.stopping

    def work_official(self, number):
        """A writer through the official client, whose calls wait out every restart."""
        journal = self.journals[number]
        client = tb.ClientSync(cluster_id=0, replica_addresses=f"127.0.0.1:{self.server.port}")
        while self.rest(number):
            batch = journal.next_batch(self.account_ids)
            results = client.create_transfers([from_bytes(record) for record in batch])
            journal.acknowledge(batch, [(int(result.status), result.timestamp)
                                        for result in results])
        client.close()

    def work_raw(self, number):
        """A writer over a raw socket, which resends the same bytes on a new connection."""
        journal = self.journals[number]
        client = patient(lambda: wire.RawClient(self.server.port))
        retry(client, client.next_message(wire.OPERATION_REGISTER, bytes(256)), self.adopt_session)
        while self.rest(number):
            batch = journal.next_batch(self.account_ids)
            body = wire.encode_batches(128, [b"".join(batch)])
            message = client.next_message(wire.CREATE_TRANSFERS, body)
            reply = retry(client, message, lambda client, header, _: client.adopt(header))
            (answers,) = wire.decode_batches(16, reply)
            journal.acknowledge(batch, wire.results(answers))
        client.close()

    @staticmethod
    def adopt_session(client, header, body):
        """Takes over a session from the reply to a register."""
        client.adopt(header)
        (client.session,) = struct.unpack_from("<Q", header, 216)
        (client.batch_size_limit,) = struct.unpack_from("<I", body, 0)

    def pause(self):
        """Waits until no writer has a request in flight."""
        self.running.clear()
        for number, idle in enumerate(self.idle):
            require(idle.wait(60) or self.failures,
                    f"writer {number}: a call did not complete within 60 s of the restart")
        self.raise_failures()

    def resume(self):
        """Lets the writers go on."""
        for idle in self.idle:
            idle.clear()
        self.running.set()

    def stop(self):
        """Ends the writers, in good order if they are paused."""
        self.stopping = True
        self.running.set()
        for thread in self.threads:
            thread.join(timeout=20)

    def raise_failures(self):
        """Fails if any writer did."""
        require(not self.failures, "; ".join(self.failures))


def from_bytes(record):
    """A transfer for the official client."""
    wide = [int.from_bytes(record[start:start + 16], "little") for start in range(0, 96, 16)]
    rest = struct.unpack_from("<QIIIHH", record, 96)
    return tb.Transfer(id=wide[0], debit_account_id=wide[1], credit_account_id=wide[2],
                       amount=wide[3], pending_id=wide[4], user_data_128=wide[5],
                       user_data_64=rest[0], user_data_32=rest[1], timeout=rest[2], ledger=rest[3],
                       code=rest[4], flags=tb.TransferFlags(rest[5]))


def to_bytes(found):
    """A transfer of the official client as bytes."""
    return wire.transfer(found.id, found.debit_account_id, found.credit_account_id, found.amount,
                         ledger=found.ledger, code=found.code, flags=int(found.flags),
                         pending_id=found.pending_id, timeout=found.timeout,
                         user_data=(found.user_data_128, found.user_data_64, found.user_data_32),
                         timestamp=found.timestamp)


def patient(connect):
    """Connects, however long the server is down."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return connect()
        except OSError:
            require(time.monotonic() < deadline, "the server was down for a minute")
            time.sleep(0.002)


def retry(client, message, adopt):
    """Sends a request, on new connections if need be, until it is answered."""
    while True:
        try:
            header, body = client.exchange(message)
        except TimeoutError:
            raise CheckFailed("no answer within the time limit") from None
        except OSError:
            patient(client.connect)
            continue
        adopt(client, header, body)
        return body


def check_record(record, found, timestamp):
    """The transfer found is the one sent. A post or void takes over what it left zero."""
    expected = bytearray(record)
    expected[120:128] = struct.pack("<Q", timestamp)
    if flags_of(record) & (POST | VOID):
        expected[16:48] = found[16:48]
        expected[108:118] = found[108:118]
        require(any(found[16:48]), "a post without accounts")
    equal(found, bytes(expected), "a transfer")


def check_recent(client, writers):
    """A quick check after a restart, over a raw session."""
    for journal in writers.journals:
        acknowledged, in_flight = journal.snapshot(recent=300)
        wanted = [number for number, _ in acknowledged]
        found = wire.split(client.call(wire.LOOKUP_TRANSFERS, wire.ids(wanted)), 128)
        equal([identifier(record) for record in found], wanted, "acknowledged transfers")
        for (_, (record, timestamp)), each in zip(acknowledged, found):
            check_record(record, each, timestamp)
        wanted = [identifier(record) for record in in_flight]
        found = wire.split(client.call(wire.LOOKUP_TRANSFERS, wire.ids(wanted)), 128)
        require(len(found) in (0, len(wanted)),
                f"{len(found)} of {len(wanted)} transfers of one request")


def check_everything(client, writers):
    """With writers at rest: all transfers ever acknowledged, and all balances, through the
    official client."""
    sums = {number: [0, 0, 0, 0] for number in writers.account_ids}
    transfers = {}
    for journal in writers.journals:
        acknowledged, in_flight = journal.snapshot()
        equal(in_flight, [], "requests in flight")
        for start in range(0, len(acknowledged), LOOKUP_MAX):
            part = acknowledged[start:start + LOOKUP_MAX]
            found = client.lookup_transfers([number for number, _ in part])
            equal(len(found), len(part), "acknowledged transfers found")
            for (number, (record, timestamp)), each in zip(part, found):
                equal(each.id, number, "id")
                check_record(record, to_bytes(each), timestamp)
                transfers[number] = each
    stamps = [each.timestamp for each in transfers.values()]
    equal(len(set(stamps)), len(stamps), "timestamps that differ")
    for each in transfers.values():
        debit, credit = sums[each.debit_account_id], sums[each.credit_account_id]
        posted = 0 if each.flags & (PENDING | VOID) else each.amount
        pending = each.amount if each.flags & PENDING else 0
        if each.flags & (POST | VOID):
            pending = -transfers[each.pending_id].amount
        debit[0] += pending
        debit[1] += posted
        credit[2] += pending
        credit[3] += posted
    for account in client.lookup_accounts(writers.account_ids):
        found = [account.debits_pending, account.debits_posted, account.credits_pending,
                 account.credits_posted]
        equal(found, sums[account.id], f"balances of account {account.id}")
    return len(transfers)


class Repeater:
    """Sends a request, notes the answer, and after a restart sends the same bytes again."""

    def __init__(self, port, account_ids):
        self.client = wire.RawClient(port).register()
        self.account_ids = account_ids
        self.next_id = 1 << 120
        self.message = None
        self.answer = None

    def before(self):
        """A new request and its answer."""
        self.next_id += 2
        one, two = self.account_ids[:2]
        events = [wire.transfer(self.next_id, one, two, 0), wire.transfer(self.next_id + 1, one,
                                                                           one, 1)]
        body = wire.encode_batches(128, [b"".join(events)])
        self.message = self.client.next_message(wire.CREATE_TRANSFERS, body)
        self.answer = self.client.exchange(self.message)

    def after(self):
        """The answer to the same bytes must be the same, twice."""
        patient(self.client.connect)
        for _ in range(2):
            answer = self.client.exchange(self.message)
            equal(answer[0].hex(), self.answer[0].hex(), "header of a repeated answer")
            equal(answer[1], self.answer[1], "body of a repeated answer")
        self.client.adopt(self.answer[0])


def kill_and_restart(server, chance):
    """Kills the server under load; some restarts are killed too, during recovery."""
    server.kill()
    again = chance.choice((0, 0, 0, 1, 1, 3))
    for _ in range(again):
        server.spawn()
        time.sleep(chance.choice((0.001, 0.01, 0.05, 0.2)) * chance.random() * 2)
        require(server.is_running(), server.describe_end() if server.process else "not running")
        server.kill()
    time.sleep(chance.random() * 0.05)
    server.start()
    return 1 + again


def check_kills(directory, development, kills, seed):
    """The main check: load, kills, and checks, until `kills` kills are done."""
    chance = random.Random(seed)
    server = Server(directory / f"ledger-{'development' if development else 'production'}",
                    development, free_port())
    format_file(server.path, development)
    server.start()
    address = f"127.0.0.1:{server.port}"
    checker = tb.ClientSync(cluster_id=0, replica_addresses=address)
    account_ids = list(range(1, ACCOUNTS + 1))
    accounts = [tb.Account(id=number, ledger=1, code=1) for number in account_ids]
    results = checker.create_accounts(accounts)
    require(all(int(result.status) == wire.CREATED for result in results), "accounts created")
    repeater = Repeater(server.port, account_ids)
    quick = wire.RawClient(server.port).register()
    writers = Writers(server, account_ids, official=3, raw=3)
    try:
        done = rounds = 0
        while done < kills:
            time.sleep(chance.choice((0.05, 0.3, 1.2)) * chance.random() * 2)
            repeater.before()
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.1)
            done += kill_and_restart(server, chance)
            rounds += 1
            repeater.after()
            patient(quick.connect)
            check_recent(quick, writers)
            writers.raise_failures()
            if rounds % KILLS_PER_FULL_CHECK == 0:
                writers.pause()
                check_everything(checker, writers)
                writers.resume()
        writers.pause()
        count = check_everything(checker, writers)
        server.stop()
        server.start()
        equal(check_everything(checker, writers), count, "transfers after an orderly restart")
        print(f"{done} kills, {count} transfers acknowledged and found", flush=True)
        require(count > 20 * done, f"too little load: {count} transfers")
        writers.stop()
        checker.close()
        server.stop()
    except BaseException:
        print(f"server: running {server.is_running()}: {server.stderr_text()[-2000:]}", flush=True)
        raise
    finally:
        server.kill()


def check_format_kills(directory, development, kills, seed):
    """Kills `format`: what is left either serves or is refused, and is never overwritten."""
    chance = random.Random(seed)
    path = directory / "format"
    start = time.monotonic()
    format_file(path, development)
    duration = time.monotonic() - start
    finished = 0
    for _ in range(kills):
        remove_leftovers(directory, path)
        process = subprocess.Popen(format_command(path, development), stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        time.sleep(chance.random() * duration * 1.2)
        process.kill()
        process.wait()
        existed = path.exists()
        server = Server(path, development)
        try:
            server.start()
            finished += 1
            with wire.RawClient(server.port) as client:
                client.register()
            server.stop()
        except ServerFailed as failure:
            code = server.reap()
            require(code not in (0, 101) and code > 0, f"start ended with {code}")
            text = server.stderr_text()
            require("panicked" not in text and text.strip(), f"no clear error: {failure}")
        again = subprocess.run(format_command(path, development), capture_output=True, text=True,
                               timeout=60, check=False)
        if existed:
            require(again.returncode > 0 and again.stderr.strip(),
                    f"format of an existing path ended with {again.returncode}: {again.stderr}")
        else:
            equal(again.returncode, 0, f"format of a free path: {again.stderr}")
    remove_leftovers(directory, path)
    format_file(path, development)
    server = Server(path, development).start()
    server.stop()
    refused = subprocess.run(format_command(path, development), capture_output=True, text=True,
                             timeout=60, check=False)
    require(refused.returncode > 0 and refused.stderr.strip(), "format overwrote a data file")
    Server(path, development).start().stop()
    print(f"{kills} kills of format, {finished} after it had finished", flush=True)


def remove_leftovers(directory, path):
    """Removes the data file and whatever lies beside it under a similar name."""
    for file in directory.glob(path.name + "*"):
        os.remove(file)


def main():
    """Runs all checks; most kills hit a development server, which checkpoints often."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # The client reports every attempt to connect while the server is down.
    logging.getLogger("tigerbeetle").setLevel(logging.CRITICAL)
    checks = Checks("crash")
    directory = scratch_directory("crash")
    production = max(2, options.kills // 5)
    formats = max(6, options.kills // 5)
    development = max(1, options.kills - production)
    checks.run(f"{formats} kills during format", check_format_kills, directory, True, formats,
               options.seed)
    checks.run(f"{development} kills, development", check_kills, directory, True, development,
               options.seed)
    checks.run(f"{production} kills, production", check_kills, directory, False, production,
               options.seed + 1)
    if checks.failed == 0:
        remove_directory(directory)
    checks.finish()


if __name__ == "__main__":
    main()
