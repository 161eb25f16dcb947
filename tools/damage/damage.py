"""Flips bytes in data files and checks that the server notices: it answers right or not at all.

Usage: damage.py [--samples=N] [--seed=N]. Data files with thousands of transfers, one shut down in
good order and one left by a kill, are damaged in one byte at sampled offsets of every zone:
superblock copies, WAL headers, WAL prepares, grid. Then the server must either serve, and give
exactly the answers of the undamaged file to lookups, queries and histories of everything, or end
with the exit code for damage and an error that names the zone and the place in the file.

Not covered: damage to more than one place at a time, and reads or writes that fail.
"""

import argparse
import collections
import pathlib
import random
import re
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import wire  # noqa: E402
from harness.checks import CheckFailed, Checks, equal, require  # noqa: E402
from harness.server import (Server, ServerFailed, format_file, remove_directory,  # noqa: E402
                            scratch_directory)

# The geometry of development mode, as in `Config::development` and `Zones`.
BLOCK_SIZE, MESSAGE_SIZE_MAX, REPLY_SIZE_MAX, JOURNAL_SLOTS = 65_536, 131_072, 1_048_576, 256
SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE, WAL_HEADER_SIZE = 4, 16_384, 256
WAL_HEADERS = SUPERBLOCK_COPIES * SUPERBLOCK_COPY_SIZE
WAL_PREPARES = WAL_HEADERS + JOURNAL_SLOTS * WAL_HEADER_SIZE
GRID = -(-(WAL_PREPARES + JOURNAL_SLOTS * MESSAGE_SIZE_MAX) // BLOCK_SIZE) * BLOCK_SIZE
ZONES = ("superblock", "WAL headers", "WAL prepares", "grid")

# Exit code for stored bytes that were found damaged.
EXIT_DAMAGED = 6
ACCOUNTS = 60
# Accounts among which most transfers go: their histories are long.
BUSY_ACCOUNTS = 8
HISTORY, PENDING, POST, TIMED_SECONDS = 8, 2, 4, 1
IDLE_SECONDS = 20


def fill(port, chance, transfers):
    """Creates accounts and transfers of many kinds, in requests of many sizes; gives the ids of
    all transfers and of all accounts."""
    with wire.RawClient(port).register() as client:
        account_ids = list(range(1, ACCOUNTS + 1))
        client.create_all(wire.CREATE_ACCOUNTS, [
            wire.account(number, flags=HISTORY if number % 2 else 0, code=1 + number % 3,
                         user_data=(number % 5, number % 7, number % 11))
            for number in account_ids])
        ids, open_pending = [], []
        while len(ids) < transfers:
            events = []
            for _ in range(chance.choice((1, 1, 1, 2, 5, 20, 60, 120))):
                number = 1000 + len(ids)
                ids.append(number)
                user_data = (1 + number % 97, 1 + number % 1009, 1 + number % 13)
                if open_pending and chance.random() < 0.2:
                    events.append(wire.transfer(number, 0, 0, wire_max(), flags=POST, ledger=0,
                                                code=0, pending_id=open_pending.pop(),
                                                user_data=user_data))
                    continue
                pool = account_ids[:BUSY_ACCOUNTS] if chance.random() < 0.8 else account_ids
                debit, credit = chance.sample(pool, 2)
                kind = chance.random()
                flags = PENDING if kind < 0.2 else 0
                timeout = TIMED_SECONDS if kind < 0.05 else 0
                if flags and not timeout:
                    open_pending.append(number)
                events.append(wire.transfer(number, debit, credit, chance.randrange(10**6),
                                            flags=flags, timeout=timeout, code=1 + number % 5,
                                            user_data=user_data))
            client.create_all(wire.CREATE_TRANSFERS, events)
        return ids, account_ids


def wire_max():
    """The largest amount: all of it, for a post."""
    return (1 << 128) - 1


def questions(ids, account_ids):
    """What is asked of every server: (operation, events)."""
    asked = [(wire.LOOKUP_ACCOUNTS, wire.ids(account_ids))]
    for start in range(0, len(ids), 4000):
        asked.append((wire.LOOKUP_TRANSFERS, wire.ids(ids[start:start + 4000])))
    for number in account_ids[:BUSY_ACCOUNTS + 2]:
        asked.append((wire.GET_ACCOUNT_TRANSFERS, wire.account_filter(number)))
        asked.append((wire.GET_ACCOUNT_BALANCES, wire.account_filter(number, flags=7)))
    asked.append((wire.QUERY_ACCOUNTS, wire.query_filter()))
    asked.append((wire.QUERY_TRANSFERS, wire.query_filter(flags=1)))
    for value in (3, 50):
        asked.append((wire.QUERY_TRANSFERS, wire.query_filter(user_data=(value, 0, 0))))
        asked.append((wire.QUERY_TRANSFERS, wire.query_filter(user_data=(0, value, 0))))
    asked.append((wire.QUERY_TRANSFERS, wire.query_filter(user_data=(0, 0, 3), code=2)))
    return asked


def ask_all(port, asked):
    """The answers of a server to all questions, and to a new transfer and a repeated one."""
    with wire.RawClient(port, timeout_seconds=IDLE_SECONDS).register() as client:
        answers = [client.call(operation, events) for operation, events in asked]
        mark = client.request(wire.GET_CHANGE_EVENTS, wire.change_events_filter())
        new = client.create(wire.CREATE_TRANSFERS, [wire.transfer(999_999, 1, 2, 0),
                                                    wire.transfer(1000, 1, 1, 1)])
        equal(new[0][0], wire.CREATED, "a new transfer")
        return [*answers, mark, new[1][0]]


class Original:
    """An undamaged data file and the right answers."""

    def __init__(self, directory, name, orderly, chance, transfers):
        self.name = name
        self.path = directory / name
        format_file(self.path)
        server = Server(self.path).start()
        ids, account_ids = fill(server.port, chance, transfers)
        # All timed transfers expire now: answers do not depend on the time of asking.
        time.sleep(TIMED_SECONDS + 1)
        with wire.RawClient(server.port).register() as client:
            client.call(wire.LOOKUP_ACCOUNTS, b"")
        if orderly:
            server.stop()
        else:
            server.kill()
        self.asked = questions(ids, account_ids)
        self.size = self.path.stat().st_size
        copied = directory / "undamaged"
        self.copy(copied)
        server = Server(copied).start()
        self.answers = ask_all(server.port, self.asked)
        server.stop()
        counts = [len(answer) // 128 for answer in self.answers[:3]]
        equal(counts[0], ACCOUNTS, "accounts in the undamaged file")
        require(counts[1] > 0, "no transfers in the undamaged file")

    def copy(self, path):
        """Copies the file; holes stay holes."""
        subprocess.run(["cp", "--sparse=always", str(self.path), str(path)], check=True)

    def check_geometry(self):
        """The constants above are those of the file: the superblock carries them."""
        with open(self.path, "rb") as file:
            superblock = file.read(SUPERBLOCK_COPY_SIZE)
        config = struct.pack("<4I", BLOCK_SIZE, MESSAGE_SIZE_MAX, REPLY_SIZE_MAX, JOURNAL_SLOTS)
        require(config in superblock, "the data file has another geometry than this test")
        require(self.size > GRID + 8 * BLOCK_SIZE, f"a file of {self.size} bytes has a small grid")

    def used_sectors(self):
        """Offsets of the sectors that hold anything but zeros."""
        used = []
        with open(self.path, "rb") as file:
            offset = 0
            while sector := file.read(4096):
                if any(sector):
                    used.append(offset)
                offset += 4096
        return used


def zone_of(offset):
    """Index of the zone that an offset lies in."""
    return sum(offset >= start for start in (WAL_HEADERS, WAL_PREPARES, GRID))


def sample_offsets(original, chance, count):
    """Offsets in every zone: most where something is written, some anywhere."""
    used = {zone: [] for zone in range(4)}
    for sector in original.used_sectors():
        used[zone_of(sector)].append(sector)
    ends = (WAL_HEADERS, WAL_PREPARES, GRID, original.size)
    starts = (0, *ends[:3])
    for index in range(count):
        zone = (0, 1, 2, 2, 3, 3, 3)[index % 7]
        if used[zone] and chance.random() < 0.85:
            within = chance.choice((chance.randrange(64), chance.randrange(512),
                                    chance.randrange(4096), chance.randrange(4096)))
            yield chance.choice(used[zone]) + within
        else:
            yield chance.randrange(starts[zone], ends[zone])


def check_damage(original, directory, offset, mask, outcomes):
    """One sample: damage a copy, start, and compare."""
    path = directory / "damaged"
    original.copy(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
    server = Server(path)
    zone = ZONES[zone_of(offset)]
    try:
        server.start()
        answers = ask_all(server.port, original.asked)
    except TimeoutError:
        server.kill()
        raise CheckFailed(f"{zone}: the server does not answer: {server.stderr_text()}") from None
    except (OSError, ServerFailed):
        # It ended, at the start or when it met the damage.
        try:
            code = server.reap()
        except subprocess.TimeoutExpired:
            server.kill()
            raise CheckFailed(f"{zone}: the server neither answers nor ends") from None
        check_refusal(server, code, offset)
        outcomes[zone, "refused"] += 1
        return
    except BaseException:
        server.kill()
        raise
    server.stop()
    for index, (found, right) in enumerate(zip(answers, original.answers)):
        require(found == right, f"{zone}: a wrong answer to question {index}")
    outcomes[zone, "served"] += 1


def check_refusal(server, code, offset):
    """A server that ends must say what is damaged, and where in the file."""
    zone = ZONES[zone_of(offset)]
    text = server.stderr_text()
    said = text.strip()[-600:]
    equal(code, EXIT_DAMAGED, f"exit code ({said})")
    require("panicked" not in text, f"panicked: {said}")
    require(zone in text, f"the error does not name the zone {zone}: {said}")
    named = [int(number) for number in re.findall(r"offset (\d+)", text)]
    unit = BLOCK_SIZE if zone == "grid" else MESSAGE_SIZE_MAX
    require(any(number <= offset < number + unit for number in named),
            f"the error names the offsets {named}: {said}")


def main():
    """Runs all samples, half on each of two files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    checks = Checks("damage")
    directory = scratch_directory("damage")
    outcomes = collections.Counter()
    for name, orderly in (("orderly", True), ("killed", False)):
        made = []
        checks.run(f"{name}: an undamaged file", lambda: made.append(
            Original(directory, name, orderly, chance, options.transfers)))  # noqa: B023
        if not made:
            continue
        original = made[0]
        checks.run(f"{name}: geometry", original.check_geometry)
        for offset in sample_offsets(original, chance, options.samples // 2):
            mask = 1 << chance.randrange(8)
            checks.run(f"{name}: offset {offset} ({ZONES[zone_of(offset)]}), bits {mask:#04x}",
                       check_damage, original, directory, offset, mask, outcomes)
    for (zone, outcome), count in sorted(outcomes.items()):
        print(f"{zone}: {outcome} {count} times", flush=True)
    if checks.failed == 0:
        remove_directory(directory)
    checks.finish()


if __name__ == "__main__":
    main()
