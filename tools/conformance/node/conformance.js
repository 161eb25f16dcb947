// Every operation through the official Node client, alone and with many calls in flight.
//
// Usage: node conformance.js ADDRESS MODULES, where MODULES is a node_modules directory that holds
// `tigerbeetle-node`. Prints one line for each check and a count at the end.
'use strict';

const assert = require('node:assert');
const path = require('node:path');

const [address, modules] = process.argv.slice(2);
const tb = require(path.join(modules, 'tigerbeetle-node'));
const { id, createClient, amount_max: AMOUNT_MAX } = tb;
const { AccountFlags, TransferFlags, AccountFilterFlags, QueryFilterFlags } = tb;
const { CreateAccountStatus, CreateTransferStatus } = tb;

const BATCH_MAX = 8189;
const BOTH = AccountFilterFlags.debits | AccountFilterFlags.credits;

const account = (fields = {}) => ({
  id: id(), debits_pending: 0n, debits_posted: 0n, credits_pending: 0n, credits_posted: 0n,
  user_data_128: 0n, user_data_64: 0n, user_data_32: 0, reserved: 0, ledger: 1, code: 1, flags: 0,
  timestamp: 0n, ...fields,
});

const transfer = (debit, credit, amount, fields = {}) => ({
  id: id(), debit_account_id: debit, credit_account_id: credit, amount, pending_id: 0n,
  user_data_128: 0n, user_data_64: 0n, user_data_32: 0, timeout: 0, ledger: 1, code: 1, flags: 0,
  timestamp: 0n, ...fields,
});

const accountFilter = (accountId, fields = {}) => ({
  account_id: accountId, user_data_128: 0n, user_data_64: 0n, user_data_32: 0, code: 0,
  timestamp_min: 0n, timestamp_max: 0n, limit: BATCH_MAX, flags: BOTH, ...fields,
});

const queryFilter = (fields = {}) => ({
  user_data_128: 0n, user_data_64: 0n, user_data_32: 0, ledger: 0, code: 0, timestamp_min: 0n,
  timestamp_max: 0n, limit: BATCH_MAX, flags: 0, ...fields,
});

async function newAccounts(client, count, fields = {}) {
  const accounts = Array.from({ length: count }, () => account(fields));
  const results = await client.createAccounts(accounts);
  assert.deepStrictEqual(results.map((result) => result.status),
    accounts.map(() => CreateAccountStatus.created));
  return accounts.map((each) => each.id);
}

async function expectStatuses(client, transfers, names) {
  const results = await client.createTransfers(transfers);
  assert.deepStrictEqual(results.map((result) => CreateTransferStatus[result.status]), names);
  return results;
}

async function balances(client, accountId) {
  const [found] = await client.lookupAccounts([accountId]);
  return [found.debits_pending, found.debits_posted, found.credits_pending, found.credits_posted];
}

const checks = {
  async 'accounts come back with all fields'(client) {
    const made = account({ user_data_128: 1n << 127n, user_data_64: 5n, user_data_32: 6,
      ledger: 7, code: 8, flags: AccountFlags.history });
    const [result] = await client.createAccounts([made]);
    assert.strictEqual(result.status, CreateAccountStatus.created);
    const [found] = await client.lookupAccounts([made.id]);
    assert.deepStrictEqual(found, { ...made, timestamp: result.timestamp });
    const [repeated] = await client.createAccounts([made]);
    assert.strictEqual(repeated.status, CreateAccountStatus.exists);
    assert.strictEqual(repeated.timestamp, result.timestamp);
  },

  async 'transfers come back with all fields'(client) {
    const [one, two] = await newAccounts(client, 2);
    const made = transfer(one, two, 1n << 100n, { user_data_128: 3n, user_data_64: 4n,
      user_data_32: 5, code: 6 });
    const [result] = await expectStatuses(client, [made], ['created']);
    const [found] = await client.lookupTransfers([made.id, id()]);
    assert.deepStrictEqual(found, { ...made, timestamp: result.timestamp });
    await expectStatuses(client, [made, transfer(one, one, 1n), transfer(one, id(), 1n)],
      ['exists', 'accounts_must_be_different', 'credit_account_not_found']);
    assert.deepStrictEqual(await balances(client, two), [0n, 0n, 0n, 1n << 100n]);
  },

  async 'two-phase, chains, balancing, closing'(client) {
    const [one, two] = await newAccounts(client, 2);
    const pending = transfer(one, two, 10n, { flags: TransferFlags.pending });
    const resolve = (amount, flags) => transfer(0n, 0n, amount,
      { flags, pending_id: pending.id, ledger: 0, code: 0 });
    await expectStatuses(client, [pending], ['created']);
    await expectStatuses(client, [resolve(AMOUNT_MAX, TransferFlags.post_pending_transfer),
      resolve(0n, TransferFlags.void_pending_transfer)],
    ['created', 'pending_transfer_already_posted']);
    await expectStatuses(client, [
      transfer(one, two, 1n, { flags: TransferFlags.linked }),
      transfer(one, two, 1n, { ledger: 9 }),
      transfer(two, one, AMOUNT_MAX, { flags: TransferFlags.balancing_debit }),
      transfer(one, two, 0n, { flags: TransferFlags.pending | TransferFlags.closing_credit }),
      transfer(one, two, 1n)],
    ['linked_event_failed', 'transfer_must_have_the_same_ledger_as_accounts', 'created',
      'created', 'credit_account_already_closed']);
    assert.deepStrictEqual(await balances(client, one), [0n, 10n, 0n, 10n]);
  },

  async 'filters, history and queries'(client) {
    const mark = id();
    const [one] = await newAccounts(client, 1, { flags: AccountFlags.history });
    const [two, three] = await newAccounts(client, 2, { user_data_128: mark });
    const made = [transfer(one, two, 1n, { user_data_128: mark }), transfer(two, one, 2n),
      transfer(one, three, 4n, { user_data_128: mark })];
    const results = await expectStatuses(client, made, ['created', 'created', 'created']);
    const ids = async (found) => (await found).map((each) => each.id);
    const all = made.map((each) => each.id);
    assert.deepStrictEqual(await ids(client.getAccountTransfers(accountFilter(one))), all);
    assert.deepStrictEqual(await ids(client.getAccountTransfers(accountFilter(one,
      { flags: BOTH | AccountFilterFlags.reversed, limit: 2 }))), [all[2], all[1]]);
    assert.deepStrictEqual(await ids(client.getAccountTransfers(accountFilter(one,
      { flags: AccountFilterFlags.credits }))), [all[1]]);
    assert.deepStrictEqual(await ids(client.queryTransfers(queryFilter({ user_data_128: mark }))),
      [all[0], all[2]]);
    assert.deepStrictEqual(await ids(client.queryTransfers(queryFilter({ user_data_128: mark,
      flags: QueryFilterFlags.reversed, timestamp_max: results[1].timestamp }))), [all[0]]);
    assert.deepStrictEqual(await ids(client.queryAccounts(queryFilter({ user_data_128: mark }))),
      [two, three]);
    const history = await client.getAccountBalances(accountFilter(one));
    assert.deepStrictEqual(history.map((row) => [row.timestamp, row.debits_posted,
      row.credits_posted]), [[results[0].timestamp, 1n, 0n], [results[1].timestamp, 1n, 2n],
      [results[2].timestamp, 5n, 2n]]);
    assert.deepStrictEqual(await client.getAccountBalances(accountFilter(two)), []);
    assert.deepStrictEqual(await client.getAccountTransfers(accountFilter(one, { limit: 0 })), []);
  },

  async 'empty batches'(client) {
    assert.deepStrictEqual(await client.createAccounts([]), []);
    assert.deepStrictEqual(await client.createTransfers([]), []);
    assert.deepStrictEqual(await client.lookupAccounts([]), []);
    assert.deepStrictEqual(await client.lookupTransfers([]), []);
  },

  async 'hundreds of calls at once, each with its own results'(client) {
    const [one, two] = await newAccounts(client, 2);
    const calls = [];
    for (let number = 0; number < 300; number += 1) {
      const count = number % 5;
      const made = Array.from({ length: count }, () => transfer(one, two, BigInt(number)));
      const bad = number % 7 === 0 ? [transfer(one, two, 1n, { code: 0 })] : [];
      const names = [...made.map(() => 'created'), ...bad.map(() => 'code_must_not_be_zero')];
      calls.push(expectStatuses(client, [...made, ...bad], names).then(async () => {
        const found = await client.lookupTransfers(made.map((each) => each.id));
        assert.deepStrictEqual(found.map((each) => [each.id, each.amount]),
          made.map((each) => [each.id, BigInt(number)]));
      }));
      calls.push(newAccounts(client, 1 + count, { user_data_32: number }).then(async (ids) => {
        const found = await client.lookupAccounts(ids);
        assert.deepStrictEqual(found.map((each) => [each.id, each.user_data_32]),
          ids.map((each) => [each, number]));
      }));
    }
    await Promise.all(calls);
  },

  async 'full batches, and one more'(client) {
    const ids = await newAccounts(client, BATCH_MAX);
    assert.deepStrictEqual((await client.lookupAccounts(ids)).map((each) => each.id), ids);
    const made = ids.slice(1).map((each) => transfer(ids[0], each, 1n));
    made.push(transfer(ids[0], ids[1], 1n));
    await expectStatuses(client, made, made.map(() => 'created'));
    const found = await client.getAccountTransfers(accountFilter(ids[0]));
    assert.deepStrictEqual(found.map((each) => each.id), made.map((each) => each.id));
    const more = [...made, transfer(ids[0], ids[1], 1n)];
    await assert.rejects(() => client.createTransfers(more), { code: 'ERR_TOO_MUCH_DATA' });
    await assert.rejects(() => client.lookupAccounts([...ids, id()]),
      { code: 'ERR_TOO_MUCH_DATA' });
  },
};

async function main() {
  let passed = 0;
  let failed = 0;
  const client = createClient({ cluster_id: 0n, replica_addresses: [address] });
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check(client);
      passed += 1;
      console.log(`ok node: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED node: ${name}: ${error.stack}`);
    }
  }
  client.destroy();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
