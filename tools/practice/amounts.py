"""Amounts up to 2^128 − 1: statuses at the edge, and every way in which they are written out."""

import csv
import importlib.util
import io

import tigerbeetle as tb

from harness.checks import equal, require
from harness.commands import florin, florin_json

from .world import A, T, account, books, post, transfer, void

MAX = tb.AMOUNT_MAX
WIDE = (MAX, MAX - 1, 1 << 127, 10**38, 10**38 - 1, (1 << 64) + 1, 1 << 64, (1 << 64) - 1, 1, 0)


def check_overflow_statuses(_options):
    """Sums beyond 2^128 − 1 on either side, posted and pending, in and out of chains."""
    with books("overflow") as ledger:
        ledger.accounts(*(account(number, A.HISTORY) for number in range(1, 9)))
        equal(ledger.transfers(
            transfer(1, 2, MAX), transfer(1, 3, 1), transfer(3, 2, 1), transfer(1, 3, 1, T.PENDING),
            transfer(3, 2, 1, T.PENDING), transfer(1, 2, 0)),
            ["created", "overflows_debits_posted", "overflows_credits_posted",
             "overflows_debits_posted", "overflows_credits_posted", "created"], "posted")
        equal(ledger.transfers(
            transfer(4, 5, MAX, T.PENDING), transfer(4, 6, 1, T.PENDING),
            transfer(6, 5, 1, T.PENDING), transfer(4, 6, 1), transfer(6, 5, 1)),
            ["created", "overflows_debits_pending", "overflows_credits_pending",
             "overflows_debits", "overflows_credits"], "pending")
        hold = ledger.judge.waiting[-1].events[0]
        equal(ledger.transfers(post(hold.id, MAX), transfer(4, 6, 1), transfer(5, 4, MAX),
                               transfer(6, 4, 1), transfer(7, 8, MAX, T.PENDING)),
              ["created", "overflows_debits_posted", "created", "overflows_credits_posted",
               "created"], "after the post")
        balancing = T.BALANCING_DEBIT | T.BALANCING_CREDIT
        equal(ledger.transfers(transfer(2, 1, MAX, balancing), transfer(2, 1, MAX, balancing)),
              ["created", "created"], "balancing all of it, and nothing")
        equal(ledger.balances(1), (0, MAX, 0, MAX), "balances of an account that gave back all")
        ledger.verify()


def filled(ledger):
    """Transfers of all widths, posted and pending, between accounts with wide ids."""
    ids = {amount: MAX - 1 - number for number, amount in enumerate(WIDE)}
    transfers = {}
    for number, amount in enumerate(WIDE):
        one, two = 1 + 2 * number, 2 + 2 * number
        ledger.accounts(account(one, A.HISTORY, ledger=4_294_967_295, code=65_535,
                                user_data_128=MAX, user_data_64=(1 << 64) - 1,
                                user_data_32=(1 << 32) - 1),
                        account(two, ledger=4_294_967_295, code=65_535))
        event = transfer(one, two, amount, ledger=4_294_967_295, code=65_535, id=ids[amount],
                         user_data_128=MAX, user_data_64=(1 << 64) - 1,
                         user_data_32=(1 << 32) - 1)
        hold = transfer(two, one, amount, T.PENDING, ledger=4_294_967_295, code=65_535)
        ledger.moved(event, hold)
        transfers[one] = (event, hold)
    return transfers


def check_every_text_output(_options):
    """Wide amounts in the REPL, in exports, in the stream and in `balance`."""
    with books("wide") as ledger:
        transfers = filled(ledger)
        ledger.verify(histories=20)
        at = f"--addresses={ledger.address}"
        repl_outputs(at, transfers)
        balance_outputs(at, transfers)
        stream_output(at, transfers)
        export_outputs(at, transfers)
        path = str(ledger.server.path)
        ledger.server.stop()
        for account_id, (event, _) in transfers.items():
            (found,) = florin_json("balance", f"--account={account_id}", "--format=json", path)
            equal(int(found["debits_posted"]), event.amount, "balance of the file")
        rows = list(csv.DictReader(io.StringIO(florin("export", "--what=transfers", path).stdout)))
        same_rows(rows, transfers, "csv of the file")
        ledger.server.start()


def repl_outputs(at, transfers):
    """Tables and JSON of the REPL, and amounts as they are typed."""
    for account_id, (event, _) in transfers.items():
        command = f"lookup_transfers id={event.id};"
        text = florin("repl", at, "--format=table", f"--command={command}").stdout
        require(str(event.amount) in text, f"{event.amount} is not in the table: {text}")
        text = florin("repl", at, "--format=json", f"--command={command}").stdout
        require(f'"{event.amount}"' in text or f": {event.amount}," in text
                or f":{event.amount}," in text, f"{event.amount} is not in {text}")
        text = florin("repl", at, "--format=table",
                      f"--command=lookup_accounts id={account_id};").stdout
        require(str(event.amount) in text, f"{event.amount} is not in the table: {text}")
    statement = ("create_accounts id=901 ledger=4294967295 code=1, id=902 ledger=4294967295 code=1;"
                 "create_transfers id=77 debit_account_id=901 credit_account_id=902 amount="
                 f"{10**38 + 7} ledger=4294967295 code=1; lookup_transfers id=77;")
    text = florin("repl", at, "--format=json", f"--command={statement}").stdout
    require(str(10**38 + 7) in text, f"an amount as it was typed: {text}")
    statement = (f"create_transfers id=78 debit_account_id=901 credit_account_id=902 amount={MAX + 1}"
                 " ledger=4294967295 code=1;")
    done = florin("repl", at, f"--command={statement}", codes=(2,))
    require("amount" in done.stderr, f"an amount beyond the largest: {done.stderr}")


def balance_outputs(at, transfers):
    """`balance` as text and as JSON."""
    for account_id, (event, hold) in transfers.items():
        (found,) = florin_json("balance", at, f"--account={account_id}", "--format=json")
        equal((int(found["debits_posted"]), int(found["credits_pending"])),
              (event.amount, hold.amount), f"balance of account {account_id}")
        text = florin("balance", at, f"--account={account_id}").stdout.replace(",", "")
        require(str(event.amount) in text, f"{event.amount} is not in {text}")


def stream_output(at, transfers):
    """`cdc`."""
    events = {int(event["transfer_id"]): event
              for event in florin_json("cdc", at, "--until=now")}
    for pair in transfers.values():
        for event in pair:
            found = events[event.id]
            equal(int(found["transfer_amount"]), event.amount, "amount of an event")
            equal(int(found["debit_account_id"]), event.debit_account_id, "debit account")


def same_rows(rows, transfers, what):
    """Rows of exported transfers have the right amounts and ids."""
    found = {int(row["id"]): row for row in rows}
    for pair in transfers.values():
        for event in pair:
            row = found[event.id]
            equal((int(row["amount"]), int(row["ledger"]), int(row["user_data_128"])),
                  (event.amount, event.ledger, event.user_data_128), what)


def export_outputs(at, transfers):
    """Transfers and balances as csv and JSON."""
    text = florin("export", at, "--what=transfers", "--format=csv").stdout
    same_rows(list(csv.DictReader(io.StringIO(text))), transfers, "transfers as csv")
    same_rows(florin_json("export", at, "--what=transfers", "--format=jsonl"), transfers,
               "transfers as jsonl")
    for row in florin_json("export", at, "--what=balances", "--format=jsonl"):
        if int(row["account_id"]) in transfers:
            event, hold = transfers[int(row["account_id"])]
            equal((int(row["debits_posted"]), int(row["credits_pending"])),
                  (event.amount, hold.amount), "balances as jsonl")


def check_parquet_holds_every_amount(_options):
    """Transfers and balances of all widths as Parquet; amounts as DuckDB reads them."""
    with books("parquet") as ledger:
        transfers = filled(ledger)
        for what in ("transfers", "balances"):
            path = ledger.directory / f"{what}.parquet"
            florin("export", f"--addresses={ledger.address}", f"--what={what}",
                   "--format=parquet", f"--output={path}")
            if what == "transfers" and importlib.util.find_spec("duckdb"):
                same_in_parquet(path, transfers)


def same_in_parquet(path, transfers):
    """Amounts of Parquet as SQL reads them: all as text, and up to 38 digits as decimals."""
    import duckdb  # only where it is installed

    for pair in transfers.values():
        for event in pair:
            rows = duckdb.execute(f"SELECT amount_text, amount, id FROM '{path}' "
                                  "WHERE id_text = ?", [str(event.id)]).fetchall()
            equal(len(rows), 1, f"rows of transfer {event.id} in Parquet")
            text, decimal, id_bytes = rows[0]
            equal(int(text), event.amount, "amount as text in Parquet")
            equal(bytes(id_bytes), event.id.to_bytes(16, "big"), "id in Parquet")
            if event.amount < 10**38:
                equal(int(decimal), event.amount, "amount as a decimal in Parquet")


def check_voids_and_posts_of_the_largest(_options):
    """A hold of 2^128 − 1 is posted in part, voided, and reserved again."""
    with books("largest-hold") as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2))
        for number in range(3):
            hold = transfer(1, 2, MAX - number, T.PENDING)
            ledger.moved(hold, void(hold.id))
        hold = transfer(1, 2, MAX, T.PENDING)
        ledger.moved(hold, post(hold.id, MAX - 1), transfer(1, 2, 1))
        equal(ledger.balances(1), (0, MAX, 0, 0), "balances")
        ledger.verify()
