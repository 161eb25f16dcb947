#!/usr/bin/env python3
"""Makes the golden data file of a release: `tools/golden/make.py FLORIN`.

Starts that program on a new file for development, fills it so that it has checkpoints, runs and a
log beyond the last one, asks it questions, stops it, and writes to tests/fixtures/data_files:

    RELEASE.sectors     all sectors of the file that are not zero, each after its offset (64 bits)
    RELEASE.questions   statements for `florin repl`
    RELEASE.answers     what they were answered, as JSON

To be done once for each release, with the program as released; a test opens them with every later
one. Needs nothing but Python 3.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "data_files"
SECTOR_SIZE = 4096
SINGLES = 150

FIRST = """
create_accounts id=1 ledger=700 code=10 flags=history, id=2 ledger=700 code=10,
    id=3 ledger=700 code=11 flags=debits_must_not_exceed_credits user_data_128=77, id=4 ledger=700 code=12;
create_transfers id=1000 debit_account_id=1 credit_account_id=3 amount=500 ledger=700 code=1;
create_transfers id=1001 debit_account_id=3 credit_account_id=2 amount=100 ledger=700 code=2 flags=pending,
    id=1002 debit_account_id=3 credit_account_id=2 amount=50 ledger=700 code=2 flags=pending,
    id=1003 debit_account_id=3 credit_account_id=2 amount=30 ledger=700 code=2 flags=pending;
create_transfers id=1004 pending_id=1001 amount=60 flags=post_pending_transfer;
create_transfers id=1005 pending_id=1002 flags=void_pending_transfer;
create_transfers id=1006 debit_account_id=1 credit_account_id=2 amount=5 ledger=700 code=3 flags=linked,
    id=1007 debit_account_id=2 credit_account_id=1 amount=6 ledger=700 code=3 user_data_64=9;
"""

QUESTIONS = """
lookup_accounts id=1, id=2, id=3, id=4;
lookup_transfers id=1000, id=1001, id=1004, id=1005, id=1007, id=2000, id=2149;
get_account_transfers account_id=3 limit=100;
get_account_balances account_id=1 limit=200;
query_accounts code=11 limit=10;
query_transfers user_data_64=9 limit=10;
get_change_events limit=200;
"""


def run_repl(florin, address, statements):
    """Answers to these statements, one JSON document on a line."""
    command = [florin, "repl", f"--addresses={address}", "--format=json"]
    return subprocess.run(command, input=statements, text=True, check=True,
                          stdout=subprocess.PIPE).stdout


def main():
    """Makes the three files."""
    florin = sys.argv[1]
    release = subprocess.run([florin, "--version"], text=True, check=True,
                             stdout=subprocess.PIPE).stdout.split()[1]
    singles = "".join(
        f"create_transfers id={2000 + index} debit_account_id=1 credit_account_id={2 + index % 3} "
        f"amount={index + 1} ledger=700 code={1 + index % 5};\n" for index in range(SINGLES))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "golden.florin"
        server = subprocess.Popen([florin, "dev", "--address=0", str(path)], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        address = server.stdout.readline().strip()
        run_repl(florin, address, FIRST + singles)
        answers = run_repl(florin, address, QUESTIONS)
        server.terminate()
        server.wait()
        contents = path.read_bytes()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{release}.sectors", "wb") as file:
        for offset in range(0, len(contents), SECTOR_SIZE):
            sector = contents[offset:offset + SECTOR_SIZE]
            if any(sector):
                file.write(struct.pack("<Q", offset) + sector)
        file.write(struct.pack("<Q", len(contents)))
    (FOLDER / f"{release}.questions").write_text(QUESTIONS)
    (FOLDER / f"{release}.answers").write_text(answers)
    print(f"{release}: {len(contents)} bytes, {len(answers.splitlines())} answers")


if __name__ == "__main__":
    main()
