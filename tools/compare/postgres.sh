#!/usr/bin/env bash
# A small double-entry ledger in PostgreSQL, measured with pgbench, to compare with `florin benchmark`.
#
#   tools/compare/postgres.sh [SECONDS]
#
# Makes a PostgreSQL cluster of its own in a temporary folder, on a Unix socket, durable as it comes
# (fsync and synchronous_commit are on), and removes it. Needs the server's programs: PGBIN names
# their folder, by default the newest below /usr/lib/postgresql. Root runs them as user `postgres`.
#
# Two loads, each over 10,000 accounts with posted debits and credits on both sides:
#   single   32 clients; each transfer is a transaction: a function that locks both accounts, updates
#            them and inserts the transfer
#   batch    1 client; 8189 transfers are a transaction: one INSERT and one UPDATE of all accounts
#            concerned. The transfers are made up in the server, so they travel over no connection.
# It favours PostgreSQL: ids and amounts have 64 bits instead of 128, there are three indexes instead
# of eight, and neither two-phase transfers nor statuses of single events in a batch.
set -euo pipefail

seconds=${1:-20}
bin=${PGBIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)}
folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    as=(runuser -u postgres --)
    chown postgres "$folder"
fi
run() { "${as[@]}" "$@"; }
finish() {
    run "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

cd "$folder"
run "$bin/initdb" -D "$folder/data" --auth=trust --encoding=UTF8 --locale=C >/dev/null
run "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" -o "-k $folder -h '' -c shared_buffers=512MB \
    -c max_wal_size=4GB -c max_connections=64" start >/dev/null
psql=(run "$bin/psql" -h "$folder" -d postgres -qAtX -v ON_ERROR_STOP=1)

"${psql[@]}" <<'SQL'
CREATE TABLE accounts (
    id bigint PRIMARY KEY, ledger int NOT NULL, code int NOT NULL,
    debits_posted bigint NOT NULL DEFAULT 0, credits_posted bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE transfers (
    id bigserial PRIMARY KEY,
    debit_account_id bigint NOT NULL REFERENCES accounts, credit_account_id bigint NOT NULL REFERENCES accounts,
    amount bigint NOT NULL CHECK (amount > 0), ledger int NOT NULL, code int NOT NULL,
    timestamp timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON transfers (debit_account_id);
CREATE INDEX ON transfers (credit_account_id);
INSERT INTO accounts (id, ledger, code) SELECT id, 1, 1 FROM generate_series(1, 10000) AS id;
CREATE FUNCTION transfer(debit bigint, credit bigint, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In one order, so that two of them cannot wait for each other.
    PERFORM 1 FROM accounts WHERE id IN (debit, credit) ORDER BY id FOR UPDATE;
    UPDATE accounts SET debits_posted = debits_posted + amount WHERE id = debit;
    UPDATE accounts SET credits_posted = credits_posted + amount WHERE id = credit;
    INSERT INTO transfers (debit_account_id, credit_account_id, amount, ledger, code)
        VALUES (debit, credit, amount, 1, 1);
END $$;
CREATE FUNCTION transfer_batch(count int) RETURNS void LANGUAGE sql AS $$
    WITH batch AS MATERIALIZED (
        SELECT debit, 1 + (debit + 1 + floor(random() * 9998)::bigint) % 10000 AS credit, amount
        FROM (SELECT 1 + floor(random() * 10000)::bigint AS debit, 1 + floor(random() * 1000)::bigint AS amount
              FROM generate_series(1, count)) AS drawn
    ), inserted AS (
        INSERT INTO transfers (debit_account_id, credit_account_id, amount, ledger, code)
        SELECT debit, credit, amount, 1, 1 FROM batch
    ), sums AS (
        SELECT id, sum(debits) AS debits, sum(credits) AS credits FROM (
            SELECT debit AS id, amount AS debits, 0 AS credits FROM batch
            UNION ALL SELECT credit, 0, amount FROM batch) AS sides GROUP BY id
    )
    UPDATE accounts SET debits_posted = debits_posted + sums.debits, credits_posted = credits_posted + sums.credits
    FROM sums WHERE accounts.id = sums.id
$$;
ANALYZE;
SQL

cat > single.sql <<'SQL'
\set debit random(1, 10000)
\set credit 1 + (:debit + random(0, 9998)) % 10000
\set amount random(1, 1000)
SELECT transfer(:debit, :credit, :amount);
SQL
echo "SELECT transfer_batch(8189);" > batch.sql
chmod -R a+rX "$folder"

bench() { # name, clients, transfers in each transaction
    local before after output tps
    before=$("${psql[@]}" -c "SELECT count(*) FROM transfers")
    output=$(run "$bin/pgbench" -h "$folder" -n -M prepared -c "$2" -j 2 -T "$seconds" -f "$1.sql" \
        --log --log-prefix="$folder/$1" postgres 2>&1)
    after=$("${psql[@]}" -c "SELECT count(*) FROM transfers")
    tps=$(echo "$output" | sed -n 's/^tps = \([0-9.]*\).*/\1/p')
    # The third word of each line of the log is the latency in microseconds.
    cat "$folder/$1".[0-9]* | awk 'NF >= 6 {print $3}' | sort -n | awk -v name="$1" \
        -v tps="$tps" -v each="$3" -v made="$((after - before))" '{ v[NR] = $1 } END {
            printf "%-7s %9.0f transfers/s  %d transfers, transactions: p50 %.1f ms, p99 %.1f ms, p100 %.1f ms\n",
                name, tps * each, made, v[int(NR * .50 + .5)] / 1000, v[int(NR * .99 + .5)] / 1000, v[NR] / 1000 }'
}

"${psql[@]}" -c "SELECT version()"
bench single 32 1
bench batch 1 8189
"${psql[@]}" -c "SELECT 'bytes on disk per transfer: ' || (pg_total_relation_size('transfers') / count(*)) FROM transfers"
"${psql[@]}" -c "SELECT 'books balance: ' || (sum(debits_posted) = sum(credits_posted)) FROM accounts"
