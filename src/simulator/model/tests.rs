//! What the worked examples do not reach: several sub-batches, limits of pulses and queries, and
//! rollbacks of what two-phase transfers do.

use super::*;
use crate::protocol::types::{AccountFilter, ChangeEventsFilter, QueryFilter};

const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = NANOSECONDS_PER_SECOND;
const CREATED: u32 = u32::MAX;

fn model() -> Model {
    Model::new(ModelOptions { pulse_expiries_max: 2, query_results_max: 3, change_events_max: 2 })
}

fn account(id: u128) -> Account {
    Account { id, ledger: 1, code: 1, ..Account::default() }
}

fn transfer(id: u128, amount: u128, flags: u16) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 1,
        code: 1,
        flags,
        ..Transfer::default()
    }
}

fn resolve(id: u128, pending_id: u128, amount: u128, flags: u16) -> Transfer {
    Transfer { id, amount, pending_id, flags, ..Transfer::default() }
}

/// Status and timestamp of each result, sub-batch by sub-batch.
fn create_transfers(
    model: &mut Model,
    timestamp: u64,
    batches: &[&[Transfer]],
) -> Vec<Vec<(u32, u64)>> {
    let batches: Vec<Vec<u8>> = batches.iter().map(|batch| batch.as_bytes().to_vec()).collect();
    let body = encode_batches(128, &batches);
    let reply = model.execute(Operation::CreateTransfers, timestamp, &body);
    model.check_invariants();
    decode_batches(16, &reply)
        .iter()
        .map(|batch| {
            let results = batch.chunks(16).map(decode::<CreateResult>);
            results.map(|result| (result.status, result.timestamp)).collect()
        })
        .collect()
}

fn statuses(model: &mut Model, timestamp: u64, batch: &[Transfer]) -> Vec<u32> {
    let results = create_transfers(model, timestamp, &[batch]);
    results[0].iter().map(|&(status, _)| status).collect()
}

/// A model with accounts 1 and 2.
fn model_with_accounts(flags: u16) -> Model {
    let mut model = model();
    let accounts = [Account { flags, ..account(1) }, account(2)];
    let body = encode_batches(128, &[accounts.as_bytes().to_vec()]);
    model.execute(Operation::CreateAccounts, START, &body);
    assert_eq!(model.accounts().count(), 2);
    model
}

/// Goal: chains and the imported mode end with their sub-batch; event timestamps run on through
/// all of them, and empty sub-batches take none.
#[test]
fn sub_batches_stand_alone() {
    let mut model = model_with_accounts(0);
    let linked = transfer_flags::LINKED;
    let imported = Transfer { timestamp: START + 7, ..transfer(4, 1, transfer_flags::IMPORTED) };
    let results = create_transfers(
        &mut model,
        START + 100,
        &[
            &[transfer(1, 1, 0), transfer(2, 1, linked)],
            &[],
            &[imported, transfer(5, 1, 0)],
            &[transfer(2, 1, 0)],
        ],
    );
    let open = STATUS_LINKED_EVENT_CHAIN_OPEN;
    let regress = TransferStatus::ImportedEventTimestampMustNotRegress as u32;
    let expected = TransferStatus::ImportedEventExpected as u32;
    assert_eq!(results[0], [(CREATED, START + 96), (open, START + 97)]);
    assert_eq!(results[1], []);
    assert_eq!(results[2], [(regress, START + 98), (expected, START + 99)]);
    assert_eq!(results[3], [(CREATED, START + 100)]);
}

/// Goal: an imported timestamp is compared with the commit timestamp of its sub-batch, which is
/// that of the sub-batch's last event.
#[test]
fn imported_events_do_not_advance_beyond_their_sub_batch() {
    let mut model = model_with_accounts(0);
    let import =
        |id, timestamp| Transfer { timestamp, ..transfer(id, 1, transfer_flags::IMPORTED) };
    let results = create_transfers(
        &mut model,
        START + 100,
        &[&[import(1, START + 98)], &[import(2, START + 99)], &[import(3, START + 99)]],
    );
    let advance = TransferStatus::ImportedEventTimestampMustNotAdvance as u32;
    assert_eq!(results[0], [(advance, START + 98)]);
    assert_eq!(results[1], [(advance, START + 99)]);
    assert_eq!(results[2], [(CREATED, START + 99)]);
}

/// Goal: a pulse takes at most its limit, in the order of expiry and then of creation, and numbers
/// the events up to its own timestamp; the rest waits for the next.
#[test]
fn pulses_are_limited() {
    let mut model = model_with_accounts(0);
    let pending = |id, timeout| Transfer { timeout, ..transfer(id, 5, transfer_flags::PENDING) };
    let batch = [pending(1, 2), pending(2, 1), pending(3, 1), pending(4, 0)];
    assert_eq!(statuses(&mut model, START + 10, &batch), [CREATED; 4]);
    assert_eq!(model.next_expiry(), Some(START + 8 + SECOND));
    model.pulse(START + 8 + SECOND);
    assert_eq!(model.next_expiry(), Some(START + 9 + SECOND), "one was due, exactly");
    model.pulse(START + 3 * SECOND);
    assert_eq!(model.next_expiry(), None);
    model.check_invariants();
    let expired: Vec<(u128, u64)> = model
        .change_events
        .values()
        .filter(|event| event.type_ == 4)
        .map(|event| (event.transfer_id, event.timestamp))
        .collect();
    let end = START + 3 * SECOND;
    assert_eq!(expired, [(2, START + 8 + SECOND), (3, end - 1), (1, end)]);

    let batch = [pending(5, 1), pending(6, 1), pending(7, 1)];
    assert_eq!(statuses(&mut model, end + 10, &batch), [CREATED; 3]);
    model.pulse(end + 2 * SECOND);
    assert_eq!(model.next_expiry(), Some(end + 10 + SECOND), "the third is beyond the limit");
    assert_eq!(model.accounts[&1].debits_pending, 10, "transfers 4 and 7 are open");
}

/// Goal: from its expiry on a pending transfer cannot be resolved, though its amount stays
/// reserved until the pulse.
#[test]
fn expiry_before_its_pulse() {
    let mut model = model_with_accounts(0);
    let pending = Transfer { timeout: 1, ..transfer(1, 5, transfer_flags::PENDING) };
    let expiry = START + 10 + SECOND;
    assert_eq!(statuses(&mut model, START + 10, &[pending]), [CREATED]);
    let void = resolve(2, 1, 0, transfer_flags::VOID_PENDING_TRANSFER);
    let zero = resolve(3, 1, 6, transfer_flags::POST_PENDING_TRANSFER);
    let exceeds = TransferStatus::ExceedsPendingTransferAmount as u32;
    let expired = TransferStatus::PendingTransferExpired as u32;
    // The first event has the timestamp just before the expiry, the second the expiry's.
    assert_eq!(statuses(&mut model, expiry, &[zero, void]), [exceeds, expired]);
    assert_eq!(model.accounts[&1].debits_pending, 5);
    model.pulse(expiry + 1);
    assert_eq!(model.accounts[&1].debits_pending, 0);
    assert_eq!(statuses(&mut model, expiry + 2, &[void]), [expired], "not burnt");

    let pending = Transfer { id: 4, ..pending };
    assert_eq!(statuses(&mut model, expiry + 3, &[pending]), [CREATED]);
    let in_time = resolve(5, 4, AMOUNT_MAX, transfer_flags::POST_PENDING_TRANSFER);
    assert_eq!(statuses(&mut model, expiry + 2 + SECOND, &[in_time]), [CREATED]);
}

/// Goal: the last expiry that fits the range of timestamps is allowed, one later is not.
#[test]
fn timeouts_fit_the_range_of_time() {
    let mut model = model_with_accounts(0);
    let latest = TIMESTAMP_MAX - SECOND;
    let pending = |id| Transfer { timeout: 1, ..transfer(id, 5, transfer_flags::PENDING) };
    let overflows = TransferStatus::OverflowsTimeout as u32;
    let batch = [pending(1), pending(2), transfer(2, 5, 0)];
    assert_eq!(statuses(&mut model, latest + 2, &batch), [CREATED, overflows, CREATED]);
    assert_eq!(model.next_expiry(), Some(TIMESTAMP_MAX));
}

/// Goal: a broken chain gives back resolutions, expiries, closed flags and change events, and
/// keeps only the breaking event's id burnt.
#[test]
fn broken_chains_leave_nothing() {
    let mut model = model_with_accounts(0);
    let closing = transfer_flags::PENDING | transfer_flags::CLOSING_DEBIT;
    let pending = [
        Transfer { timeout: 9, ..transfer(1, 5, transfer_flags::PENDING) },
        Transfer { timeout: 8, ..transfer(2, 0, closing) },
    ];
    assert_eq!(statuses(&mut model, START + 10, &pending), [CREATED; 2]);
    let before = model.clone();

    let linked = transfer_flags::LINKED;
    let chain = [
        resolve(3, 2, 0, linked | transfer_flags::VOID_PENDING_TRANSFER),
        resolve(4, 1, 3, linked | transfer_flags::POST_PENDING_TRANSFER),
        transfer(5, 1, linked),
        resolve(6, 99, 3, linked | transfer_flags::POST_PENDING_TRANSFER),
        transfer(7, 1, 0),
    ];
    let not_found = TransferStatus::PendingTransferNotFound as u32;
    assert_eq!(statuses(&mut model, START + 20, &chain), [1, 1, 1, not_found, 1]);
    assert_eq!(model.accounts, before.accounts);
    assert_eq!(model.transfer_ids, before.transfer_ids);
    assert_eq!(model.expiries, before.expiries);
    assert_eq!(model.change_events, before.change_events);
    assert_eq!(model.burnt_ids().collect::<Vec<u128>>(), [6]);
    for (id, record) in &before.transfers {
        assert_eq!(model.transfers[id].resolution, record.resolution);
    }

    let results =
        statuses(&mut model, START + 30, &[chain[0], chain[1], chain[2], transfer(7, 1, 0)]);
    assert_eq!(results, [CREATED; 4]);
    assert_eq!(model.next_expiry(), None);
    assert_eq!(model.accounts[&1].debits_posted, 5);
}

/// Goal: answers are cut to the limits of queries and of change events, from either end.
#[test]
fn reads_are_limited() {
    let mut model = model_with_accounts(account_flags::HISTORY);
    let batch: Vec<Transfer> = (1..=5).map(|id| transfer(id, id, 0)).collect();
    assert_eq!(statuses(&mut model, START + 10, &batch), [CREATED; 5]);
    let filter = |flags| AccountFilter {
        account_id: 1,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        code: 0,
        reserved: [0; 58],
        timestamp_min: START + 7,
        timestamp_max: 0,
        limit: u32::MAX,
        flags,
    };
    let mut timestamp = START + 20;
    let mut read = |operation, event: &[u8]| {
        timestamp += 1;
        let (event_size, result_size) = event_and_result_size(operation);
        let body = encode_batches(event_size, &[event.to_vec()]);
        let reply = model.execute(operation, timestamp, &body);
        decode_batches(result_size, &reply).remove(0)
    };
    let ids = |reply: &[u8]| -> Vec<u128> {
        reply.chunks(128).map(|transfer| decode::<Transfer>(transfer).id).collect()
    };
    assert_eq!(ids(&read(Operation::GetAccountTransfers, filter(1).as_bytes())), [2, 3, 4]);
    assert_eq!(ids(&read(Operation::GetAccountTransfers, filter(7).as_bytes())), [5, 4, 3]);
    assert_eq!(ids(&read(Operation::GetAccountTransfers, filter(2).as_bytes())), []);
    assert_eq!(read(Operation::GetAccountBalances, filter(3).as_bytes()).len(), 3 * 128);
    let query = QueryFilter { limit: 9, ..QueryFilter::default() };
    assert_eq!(ids(&read(Operation::QueryTransfers, query.as_bytes())), [1, 2, 3]);
    assert_eq!(read(Operation::QueryAccounts, query.as_bytes()).len(), 2 * 128);

    let filter = ChangeEventsFilter {
        timestamp_min: START + 8,
        timestamp_max: 0,
        limit: 9,
        reserved: [0; 44],
    };
    let reply = model.execute(Operation::GetChangeEvents, START + 90, filter.as_bytes());
    let events: Vec<u128> =
        reply.chunks(384).map(|event| decode::<ChangeEvent>(event).transfer_id).collect();
    assert_eq!(events, [3, 4]);
}
