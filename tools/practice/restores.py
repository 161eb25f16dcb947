"""Data files that are copied and restored, and the cursors of streams that live longer."""

import contextlib
import copy
import json
import shutil
import subprocess
import time

from harness.checks import equal, require
from harness.commands import Stream, florin_json
from harness.judge import account_filter
from harness.server import BINARY, Server

from .requests import Requests
from .world import T, account, books, connect, transfer

NOT_WRITABLE, IN_USE, OTHER_HISTORY = 1, 3, 11


def copied(ledger, name):
    """Copies the file of a ledger whose server is stopped for that."""
    ledger.client.close()
    ledger.server.stop()
    path = ledger.directory / f"{name}.florin"
    shutil.copyfile(ledger.server.path, path)
    ledger.server.start()
    ledger.client = connect(ledger.address)
    return path


def restore(ledger, path):
    """Puts a copy in the place of a ledger's file."""
    ledger.client.close()
    ledger.server.stop()
    shutil.copyfile(path, ledger.server.path)
    ledger.server.start()
    ledger.client = connect(ledger.address)


@contextlib.contextmanager
def served(path):
    """Serves a copy beside the original, at a port of its own."""
    server = Server(path)
    try:
        server.start()
        with connect(f"127.0.0.1:{server.port}") as client:
            yield client
        server.stop()
    finally:
        server.kill()


def check_copy_lives_its_own_life(options):
    """A copy holds what the original held; both go on, and each is right."""
    chance = options.chance("copy")
    with books("copy") as ledger:
        requests = Requests(chance, 1 << 64)
        ledger.accounts(*requests.accounts)
        ledger.transfers(*requests.funding())
        for _ in range(20):
            requests.send(ledger.judge, ledger.client, 20)
        ledger.judge.rest(ledger.client)
        path = copied(ledger, "copy")
        judge = copy.copy(ledger.judge)
        judge.model = copy.deepcopy(ledger.judge.model)
        judge.waiting, judge.statuses = [], copy.copy(ledger.judge.statuses)
        others = copy.deepcopy(requests)
        with served(path) as client:
            judge.compare(client)
            for _ in range(10):
                requests.send(ledger.judge, ledger.client, 20)
                others.send(judge, client, 15)
            judge.compare(client)
        ledger.verify()


def check_restored_ledger_goes_on(_options):
    """What was done after the copy is gone; sent again with the same ids, it happens once."""
    with books("restored") as ledger:
        ledger.accounts(account(1), account(2))
        before = [transfer(1, 2, 1) for _ in range(50)]
        ledger.moved(*before)
        path = copied(ledger, "older")
        after = [transfer(1, 2, 2) for _ in range(30)]
        ledger.client.create_transfers(after)
        restore(ledger, path)
        equal(ledger.balances(1), (0, 50, 0, 0), "balances of the copy")
        statuses = ledger.transfers(*before, *after)
        equal(statuses, ["exists"] * 50 + ["created"] * 30, "statuses of everything sent again")
        equal(ledger.balances(1), (0, 110, 0, 0), "balances")
        ledger.verify()


def stream(ledger, cursor, *options, codes=(0,), given=None):
    """Ids of transfers that `florin cdc` prints with a cursor, up to now."""
    done = florin_json("cdc", f"--addresses={ledger.address}", f"--cursor={cursor}",
                       "--until=now", *options, codes=codes, given=given)
    return [int(event["transfer_id"]) for event in done]


def check_cursor_across_a_restart(_options):
    """A cursor goes on where it was after a restart, and after a restore of the same state."""
    with books("cursor") as ledger:
        cursor = ledger.directory / "cursor"
        ledger.accounts(account(1), account(2))
        batches = [[transfer(1, 2, 1) for _ in range(10)] for _ in range(4)]
        ledger.moved(*batches[0])
        equal(stream(ledger, cursor), [event.id for event in batches[0]], "the first ten")
        path = copied(ledger, "same")
        ledger.moved(*batches[1])
        equal(stream(ledger, cursor), [event.id for event in batches[1]], "after a restart")
        path = copied(ledger, "same")
        restore(ledger, path)
        equal(stream(ledger, cursor), [], "after a restore of the same state")
        ledger.moved(*batches[2])
        ledger.server.kill()
        ledger.server.start()
        equal(stream(ledger, cursor), [event.id for event in batches[2]], "after a kill")
        ledger.verify()


def check_cursor_of_another_history(_options):
    """A cursor is refused when an older copy was restored, and other transfers made since."""
    with books("history") as ledger:
        cursor = ledger.directory / "cursor"
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 1))
        path = copied(ledger, "older")
        ledger.client.create_transfers([transfer(1, 2, 2) for _ in range(5)])
        equal(len(stream(ledger, cursor)), 6, "events before")
        kept = cursor.read_bytes()
        restore(ledger, path)
        equal(stream(ledger, cursor, codes=(OTHER_HISTORY,)), [], "events of the older copy")
        ledger.moved(*(transfer(1, 2, 3) for _ in range(9)))
        equal(stream(ledger, cursor, codes=(OTHER_HISTORY,)), [], "events of another history")
        equal(cursor.read_bytes(), kept, "the refused cursor")


def check_cursor_in_use(_options):
    """A second stream with the same cursor is refused while the first one runs."""
    with books("locked") as ledger:
        cursor = ledger.directory / "cursor"
        at = f"--addresses={ledger.address}"
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 1))
        with Stream("cdc", at, f"--cursor={cursor}", "--idle=50") as first:
            first.wait_for(lambda lines: len(lines) == 1, "the first event")
            equal(stream(ledger, cursor, codes=(IN_USE,)), [], "events of the second stream")
            ledger.moved(*(transfer(1, 2, 1) for _ in range(30)))
            first.wait_for(lambda lines: len(lines) == 31, "all events of the first stream")
            equal(first.end(), 0, "exit code of the first stream")
        equal(stream(ledger, cursor), [], "events after both")
        ledger.verify()


def check_cursor_is_a_link(_options):
    """A cursor that is a symbolic link stays one; its target is written."""
    with books("link") as ledger:
        folder = ledger.directory / "elsewhere"
        folder.mkdir()
        target, link = folder / "cursor", ledger.directory / "cursor"
        link.symlink_to(target)
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 1))
        equal(len(stream(ledger, link)), 1, "events")
        require(link.is_symlink(), "the link was replaced by a file")
        require(target.is_file(), "the target was not written")
        equal(stream(ledger, link), [], "events by the link again")
        equal(stream(ledger, target), [], "events by the target")


def check_cursor_that_cannot_be_written(_options):
    """A cursor in a missing folder, or below a file, is refused before the first event."""
    with books("unwritable") as ledger:
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 1))
        (ledger.directory / "file").write_text("")
        locked = ledger.directory / "locked"
        locked.mkdir()
        places = [ledger.directory / "missing" / "cursor", ledger.directory / "file" / "cursor"]
        locked.chmod(0o500)
        try:
            (locked / "probe").touch()
        except PermissionError:
            places.append(locked / "cursor")
        for cursor in places:
            equal(stream(ledger, cursor, codes=(NOT_WRITABLE,)), [], f"events with {cursor}")
        locked.chmod(0o700)


def check_cursor_of_the_future(_options):
    """A cursor ahead of the cluster's time is refused."""
    with books("future") as ledger:
        cursor = ledger.directory / "cursor"
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 1))
        equal(len(stream(ledger, cursor)), 1, "events")
        later = ledger.directory / "later"
        now = time.time_ns()
        text = cursor.read_text()
        digits = str(ledger.client.get_account_transfers(account_filter(1))[0].timestamp)
        require(digits in text, f"the cursor does not hold the last timestamp: {text!r}")
        later.write_text(text.replace(digits, str(now + 3_600_000_000_000)))
        equal(stream(ledger, later, codes=(OTHER_HISTORY,)), [], "events with it")


def check_reader_that_takes_one_line(_options):
    """A reader that ends after each line that it acknowledged: all events come, each once."""
    with books("lines") as ledger:
        cursor = ledger.directory / "cursor"
        ledger.accounts(account(1), account(2))
        events = [transfer(1, 2, 1 + number, T.PENDING if number % 3 else T.NONE)
                  for number in range(12)]
        ledger.moved(*events)
        found = [first_line(ledger, cursor) for _ in events]
        equal(found, [event.id for event in events], "events that were taken one by one")
        equal(stream(ledger, cursor, "--ack=stdin", given=""), [], "events after the last")


def first_line(ledger, cursor):
    """Takes one event from a stream, acknowledges it, and ends; returns the transfer's id."""
    command = [str(BINARY), "cdc", f"--addresses={ledger.address}", f"--cursor={cursor}",
               "--ack=stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        event = json.loads(process.stdout.readline())
        process.stdin.write(event["timestamp"] + "\n")
        process.stdin.close()
        process.stdout.read()
    equal(process.returncode, 0, "exit code when the reader has gone")
    return int(event["transfer_id"])
