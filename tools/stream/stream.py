#!/usr/bin/env python3
"""Follows the change stream of a real cluster while both sides are killed, and checks every event.

Usage: stream.py [--events=N] [--late=N] [--kills=N] [--interval=SECONDS] [--minutes=N]
[--production] [--seed=N], with the Python of an environment that holds the newest official client.
FLORIN_CDC names another program to run `cdc` than the one that serves.

Official clients create transfers in a cluster of three, among them holds that expire. In the middle
they stop, and old transfers are imported after newer expiries were read: all of these are late, and
more expiries come between them. Meanwhile replicas are killed and stopped one at a time, short
sessions come and go, and `florin cdc --ack=stdin` is killed, stopped, or left by its reader, which
then forgets all that it did not acknowledge. Checked:

* in each run of cdc: transfers rise, expiries rise, and what is not marked as late is newer than
  everything before it, what is marked is not;
* over all runs: each transfer comes for the first time after those with lower timestamps;
* in the end: all transfers were created, each came with the timestamp that its client received,
  each hold expired once, nothing else came, the balances are the sums of the events, and as many
  kills as asked for happened on each side.

Ends with `N passed, M failed`.
"""

import json
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tigerbeetle as tb  # noqa: E402

from harness.checks import Checks, cluster_options, equal, require, wait_until  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.server import BINARY, remove_directory, scratch_directory  # noqa: E402
from harness.writers import silence_logs  # noqa: E402

HOLD_EVERY = 1000
WRITERS = 2
CHURNERS = 2
ACKNOWLEDGE_EVERY = 500
# Holds right before the import; the last ones expire while it is under way.
IMPORT_HOLDS = 8
ATTEMPTS_MAX = 200
AWAY_SECONDS = 0.7
# Timeout for a reader that leaves at the next line, if no line comes.
LEAVE_SECONDS = 1.0
CREATED, EXISTS = tb.CreateTransferStatus.CREATED, tb.CreateTransferStatus.EXISTS


class Model:
    """What every event must be, by transfer id from 1, shared between processes."""

    def __init__(self, size):
        shared = multiprocessing.RawArray
        self.size = size
        self.created = shared("Q", size + 1)
        self.seen = shared("Q", size + 1)
        self.expired = shared("B", size + 1)
        # Of the reader: events, events that came again, late ones, times that cdc was ended.
        self.counts = shared("Q", 4)


def is_hold(number):
    """Whether this transfer is a hold that expires."""
    return number % HOLD_EVERY == 0


def transfer(number, timestamp=0, timeout=0):
    """The transfer of this id."""
    flags = tb.TransferFlags.NONE
    if timestamp:
        flags = tb.TransferFlags.IMPORTED
    elif timeout:
        flags = tb.TransferFlags.PENDING
    return tb.Transfer(id=number, debit_account_id=1, credit_account_id=2, amount=1, ledger=1,
                       code=1, flags=flags, timeout=timeout, timestamp=timestamp)


class Writer:
    """Creates transfers until each is acknowledged, with as many sessions as that takes."""

    def __init__(self, addresses, model):
        self.addresses = ",".join(addresses)
        self.model = model
        self.client = None

    def create(self, transfers):
        """Creates one batch."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                if self.client is None:
                    self.client = tb.ClientSync(cluster_id=0, replica_addresses=self.addresses)
                results = self.client.create_transfers(transfers)
                break
            except Exception as error:  # noqa: BLE001 (evicted: another session, the same ids)
                print(f"  a writer begins a new session: {error!r}", flush=True)
                self.client = None
                time.sleep(0.2)
        else:
            raise AssertionError(f"no answer in {ATTEMPTS_MAX} sessions")
        for item, result in zip(transfers, results, strict=True):
            require(result.status in (CREATED, EXISTS), f"transfer {item.id}: {result.status}")
            self.model.created[item.id] = result.timestamp

    def write(self, ids, batch, end):
        """Creates regular transfers and holds; stops early when the time is over."""
        for first in range(ids.start, ids.stop, batch):
            if time.monotonic() > end:
                return
            part = range(first, min(first + batch, ids.stop))
            self.create([transfer(number, timeout=1 + number // HOLD_EVERY % 3)
                         if is_hold(number) else transfer(number) for number in part])


def run_writer(addresses, model, ids, batch, end):
    """A writer as a process of its own."""
    silence_logs()
    Writer(addresses, model).write(ids, batch, end)


def field(line, name):
    """The number of a field."""
    place = line.index(name) + len(name)
    return int(line[place:line.index(b'"', place)])


class Reader:
    """Runs cdc again and again and checks what it prints."""

    def __init__(self, addresses, model, cursor, interval, kills, seed):
        self.command = [os.environ.get("FLORIN_CDC", str(BINARY)), "cdc", "--idle=20",
                        f"--addresses={','.join(addresses)}", f"--cursor={cursor}", "--ack=stdin"]
        self.cursor = cursor
        self.model = model
        self.interval = interval
        self.kills = kills
        self.random = random.Random(seed)
        self.first_transfer = self.first_expiry = 0
        self.leave = False
        self.process = None

    def run(self, done):
        """Reads until `done` is set, and then to the end."""
        while not done.is_set():
            is_disturbed = self.model.counts[3] < self.kills
            self.read([], self.disturb if is_disturbed else lambda over: self.end(over, done))
        self.read(["--until=now"], lambda over: None)
        require(self.process.returncode == 0, f"cdc ended with {self.process.returncode}")

    def end(self, over, done):
        """Ends cdc in good order when all is written."""
        while not over.is_set():
            if done.wait(0.1):
                self.process.send_signal(signal.SIGTERM)
                return

    def disturb(self, over):
        """Takes cdc or its reader away after some time."""
        if over.wait(self.random.expovariate(1 / self.interval)):
            return
        self.model.counts[3] += 1
        how = self.random.choice([signal.SIGKILL, signal.SIGTERM, None])
        if how is None:
            self.leave = True
            over.wait(LEAVE_SECONDS)
        self.process.send_signal(how or signal.SIGTERM)

    def read(self, more, meanwhile):
        """One run of cdc, with something that happens meanwhile."""
        self.leave = False
        self.start_newest()
        self.process = subprocess.Popen([*self.command, *more], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=1 << 18)
        over = threading.Event()
        thread = threading.Thread(target=meanwhile, args=(over,), daemon=True)
        thread.start()
        try:
            self.read_lines(bool(more))
        finally:
            over.set()
            thread.join()
        code = self.process.wait()
        require(code in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM),
                f"cdc ended with {code}")

    def read_lines(self, is_last):
        """Reads until cdc or its reader ends."""
        count = 0
        for line in self.process.stdout:
            if self.leave or not line.endswith(b"\n"):
                break
            timestamp = self.check(line)
            count += 1
            if count % ACKNOWLEDGE_EVERY == 0 or is_last:
                self.acknowledge(timestamp)
            elif count % 50 == 0 and self.is_idle():
                self.acknowledge(timestamp)
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except OSError:
            pass

    def start_newest(self):
        """Nothing was read in this run; but what is late is so because of earlier runs, too."""
        self.newest = self.transfer = self.expiry = 0
        if self.cursor.exists():
            self.newest = int(json.loads(self.cursor.read_text(encoding="ascii"))["timestamp"])

    def is_idle(self):
        """Whether little is left to read, so that an acknowledgement costs nothing."""
        return len(self.process.stdout.peek(1)) < 4096

    def acknowledge(self, timestamp):
        """Acknowledges this event and all before it."""
        try:
            self.process.stdin.write(b"%d\n" % timestamp)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def check(self, line):
        """Checks one event; its timestamp."""
        # Much faster than a parser of JSON; fields are found by their names.
        number = field(line, b'"transfer_id":"')
        timestamp = field(line, b'"timestamp":"')
        late = line.endswith(b'"late":true}\n')
        require(late == (timestamp <= self.newest), f"late and not marked, or marked: {line}")
        self.newest = max(self.newest, timestamp)
        self.model.counts[0] += 1
        require(1 <= number <= self.model.size, f"not created by anybody: {line}")
        if b'"two_phase_expired"' in line:
            require(timestamp > self.expiry, f"expiries do not rise: {line}")
            self.expiry = timestamp
            if self.model.expired[number]:
                self.model.counts[1] += 1
            else:
                require(timestamp > self.first_expiry, f"skipped before: {line}")
                self.first_expiry = timestamp
                self.model.expired[number] = 1
            return timestamp
        require(timestamp > self.transfer, f"transfers do not rise: {line}")
        self.transfer = timestamp
        if self.model.seen[number]:
            equal(timestamp, self.model.seen[number], f"timestamp of {number} when it came again")
            self.model.counts[1] += 1
        else:
            require(timestamp > self.first_transfer, f"skipped before: {line}")
            self.first_transfer = timestamp
            self.model.seen[number] = timestamp
            self.model.counts[2] += late
        return timestamp


def run_reader(done, *arguments):
    """The reader as a process of its own."""
    Reader(*arguments).run(done)


class Churn(threading.Thread):
    """Short sessions, one after the other."""

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.command = [str(BINARY), "balance", "--account=1", "--deadline=5",
                        f"--addresses={','.join(addresses)}"]
        self.ending = threading.Event()
        self.count = 0

    def run(self):
        while not self.ending.is_set():
            subprocess.run(self.command, capture_output=True, check=False)
            self.count += 1
            self.ending.wait(0.3)


class Kills(threading.Thread):
    """Takes replicas away, one at a time, the primary every other time."""

    def __init__(self, cluster, interval, kills, seed):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.interval = interval
        self.kills = kills
        self.random = random.Random(seed)
        self.ending = threading.Event()
        self.count = 0
        self.error = None

    def run(self):
        try:
            while not self.ending.wait(self.random.uniform(0.5, 1.5) * self.interval):
                if self.count == self.kills:
                    return
                chosen = (self.cluster.primary() if self.random.random() < 0.5
                          else self.random.choice(self.cluster.replicas))
                if self.random.random() < 0.8:
                    chosen.kill()
                else:
                    chosen.stop()
                self.count += 1
                time.sleep(AWAY_SECONDS)
                chosen.spawn()
        except BaseException as error:  # noqa: BLE001 (reported by the check)
            self.error = error


def join(processes, what):
    """Waits for processes, which must succeed."""
    for process in processes:
        process.join()
        equal(process.exitcode, 0, f"exit code of {what}")


def write(cluster, model, ids, batch, end):
    """Several writers share a range of ids."""
    share = -(-len(ids) // WRITERS)
    parts = [ids[index * share:(index + 1) * share] for index in range(WRITERS)]
    writers = [multiprocessing.Process(target=run_writer, daemon=True,
                                       args=(cluster.addresses, model, part, batch, end))
               for part in parts if part]
    for writer in writers:
        writer.start()
    join(writers, "a writer")


def import_late(cluster, model, ids, batch, reader):
    """Creates holds, waits until the first has expired and was read, and imports older transfers."""
    writer = Writer(cluster.addresses, model)
    holds = ids[:IMPORT_HOLDS]
    for index, number in enumerate(holds):
        writer.create([transfer(number, timeout=1 + index)])
    wait_for_expiries(model, holds[:1], reader)
    timestamp = model.created[holds[-1]]
    rest = ids[IMPORT_HOLDS:]
    for first in range(0, len(rest), batch):
        part = rest[first:first + batch]
        writer.create([transfer(number, timestamp=timestamp + first + index + 1)
                       for index, number in enumerate(part)])
        time.sleep(0.1)


def wait_for_expiries(model, holds, reader):
    """Waits until the reader has the expiry of each hold."""
    def all_came():
        require(reader.is_alive(), "the reader has ended")
        return all(model.expired[number] for number in holds)

    wait_until(all_came, "the expiries of all holds")


def check_end(cluster, model, holds):
    """Everything was created and read, as it was created, and nothing else."""
    missing = [number for number in range(1, model.size + 1) if not model.seen[number]]
    require(not missing, f"{len(missing)} transfers never came: {missing[:5]}")
    require(bytes(model.created) == bytes(model.seen), "timestamps or ids differ")
    expired = {number for number in range(1, model.size + 1) if model.expired[number]}
    equal(len(expired ^ holds), 0, "holds whose expiry did not come, or others")
    with tb.ClientSync(cluster_id=0, replica_addresses=",".join(cluster.addresses)) as client:
        debit, credit = client.lookup_accounts([1, 2])
    for found in (debit.debits_posted, credit.credits_posted):
        equal(found, model.size - len(holds), "sum of what was posted")
    equal(debit.debits_pending, 0, "what is pending")
    return model.size + len(holds)


def stream(options, directory):
    """The whole run."""
    late = options.late + IMPORT_HOLDS
    model = Model(options.events + late)
    imports = range(options.events + 1, options.events + late + 1)
    batch = 8000 if options.production else 200
    cluster = Cluster(directory, 3, development=not options.production).start()
    start = time.monotonic()
    end = start + options.minutes * 60
    with tb.ClientSync(cluster_id=0, replica_addresses=",".join(cluster.addresses)) as client:
        client.create_accounts([tb.Account(id=number, ledger=1, code=1) for number in (1, 2)])
    done = multiprocessing.Event()
    reader = multiprocessing.Process(
        target=run_reader, daemon=True,
        args=(done, cluster.addresses, model, directory / "cursor", options.interval,
              options.kills, options.seed))
    reader.start()
    kills = Kills(cluster, options.interval, options.kills, options.seed)
    churn = [Churn(cluster.addresses) for _ in range(CHURNERS)]
    for thread in (kills, *churn):
        thread.start()
    half = options.events // 2
    write(cluster, model, range(1, half + 1), batch, start + options.minutes * 30)
    print(f"  the first half is written after {time.monotonic() - start:.0f} s", flush=True)
    import_late(cluster, model, imports, batch, reader)
    print(f"  {options.late} are imported after {time.monotonic() - start:.0f} s", flush=True)
    write(cluster, model, range(half + 1, options.events + 1), batch, end)
    written = time.monotonic() - start
    missing = sum(not model.created[number] for number in range(1, model.size + 1))
    equal(missing, 0, f"transfers that were not created within {options.minutes} minutes")
    while ((kills.is_alive() or model.counts[3] < options.kills) and reader.is_alive()
           and time.monotonic() < end):
        time.sleep(0.1)
    kills.ending.set()
    kills.join()
    require(kills.error is None, f"kills: {kills.error!r}")
    equal((kills.count, model.counts[3]), (options.kills, options.kills),
          f"kills of replicas and of cdc within {options.minutes} minutes")
    holds = {*imports[:IMPORT_HOLDS], *filter(is_hold, range(1, options.events + 1))}
    wait_for_expiries(model, holds, reader)
    done.set()
    reader.join()
    equal(reader.exitcode, 0, "exit code of the reader")
    for thread in churn:
        thread.ending.set()
        thread.join()
    count = check_end(cluster, model, holds)
    read, again, came_late, ended = model.counts
    print(f"  {count} events, each at least once and in order: {read} read, {again} of them again, "
          f"{came_late} late; {kills.count} kills of replicas, {ended} of cdc or its reader, "
          f"{sum(thread.count for thread in churn)} short sessions; written after {written:.0f} s, "
          f"read after {time.monotonic() - start:.0f} s", flush=True)
    require(came_late > 0, "nothing was late")
    cluster.stop()


def main():
    """Runs it and prints the count."""
    parser = cluster_options(__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--late", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    # Not "fork": a client's threads do not survive it.
    multiprocessing.set_start_method("spawn")
    silence_logs()
    checks = Checks("stream")
    directory = scratch_directory("stream")
    if checks.run(f"{options.events} transfers, {options.late} late, seed {options.seed}",
                  stream, options, directory):
        remove_directory(directory)
    else:
        print(f"  the files are in {directory}", flush=True)
    checks.finish()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
