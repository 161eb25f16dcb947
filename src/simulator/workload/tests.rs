//! What the workload reaches, driven against the reference model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::simulator::model::{Model, ModelOptions};

const CLOCK_START: u64 = 1_700_000_000_000_000_000;
const PULSE_SPAN: u64 = 8190;

/// Runs a workload against the model and counts what came of it.
struct Driver {
    workload: Workload,
    model: Model,
    clock: u64,
    check_every_step: bool,
    account_statuses: BTreeMap<u32, u64>,
    transfer_statuses: BTreeMap<u32, u64>,
    /// Replies with at least one record, by operation.
    found: BTreeMap<String, u64>,
    change_event_types: BTreeSet<u8>,
    replies: Vec<Vec<u8>>,
}

impl Driver {
    fn new(seed: u64, clock: u64) -> Driver {
        Driver {
            workload: Workload::new(seed, WorkloadOptions::default()),
            model: Model::new(ModelOptions::default()),
            clock,
            check_every_step: false,
            account_statuses: BTreeMap::new(),
            transfer_statuses: BTreeMap::new(),
            found: BTreeMap::new(),
            change_event_types: BTreeSet::new(),
            replies: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.clock += 1000;
        match self.workload.next_step() {
            WorkloadStep::AdvanceTime { nanoseconds } => {
                assert!(nanoseconds > 0);
                self.clock += nanoseconds;
            }
            WorkloadStep::Pulse => {
                if self.model.next_expiry().is_some_and(|expiry| expiry <= self.clock) {
                    self.clock += PULSE_SPAN;
                    self.model.pulse(self.clock);
                    assert!(self.model.next_expiry().is_none_or(|next| next > self.clock));
                }
            }
            WorkloadStep::Request { operation, body } => self.request(operation, &body),
        }
        if self.check_every_step {
            self.model.check_invariants();
        }
    }

    fn request(&mut self, operation: Operation, body: &[u8]) {
        check_request_is_valid(operation, body);
        let create = matches!(operation, Operation::CreateAccounts | Operation::CreateTransfers);
        let (event_size, result_size) = event_and_result_size(operation);
        if create {
            let batches = decode_batches(event_size, body);
            let events: usize = batches.iter().map(|batch| batch.len() / event_size).sum();
            self.clock += u64::try_from(events).unwrap();
        }
        let reply = self.model.execute(operation, self.clock, body);
        assert!(reply.len() <= 1_048_320);
        self.workload.on_reply(operation, self.clock, body, &reply);
        if create {
            for results in decode_batches(result_size, &reply) {
                for result in results.chunks_exact(result_size) {
                    let result = CreateResult::read_from_bytes(result).unwrap();
                    let statuses = if operation == Operation::CreateAccounts {
                        &mut self.account_statuses
                    } else {
                        &mut self.transfer_statuses
                    };
                    *statuses.entry(result.status).or_default() += 1;
                }
            }
        } else if operation == Operation::GetChangeEvents {
            self.change_event_types.extend(reply.chunks(384).map(|event| event[88]));
        } else if decode_batches(result_size, &reply).iter().any(|batch| !batch.is_empty()) {
            *self.found.entry(format!("{operation:?}")).or_default() += 1;
        }
        self.replies.push(reply);
    }
}

/// Asserts what a replica asks of a request with full-size messages.
fn check_request_is_valid(operation: Operation, body: &[u8]) {
    let (event_size, result_size) = event_and_result_size(operation);
    assert!(body.len() <= 1_048_320);
    if operation == Operation::GetChangeEvents {
        assert_eq!(body.len(), event_size);
        return;
    }
    let batches = decode_batches(event_size, body);
    let mut results = 0;
    for batch in &batches {
        let limit_at = match operation {
            Operation::GetAccountTransfers | Operation::GetAccountBalances => 120,
            Operation::QueryAccounts | Operation::QueryTransfers => 56,
            _ => {
                results += batch.len() / event_size;
                continue;
            }
        };
        assert_eq!(batch.len(), event_size, "exactly one filter");
        let limit = u32::read_from_bytes(&batch[limit_at..limit_at + 4]).unwrap();
        results += usize::try_from(limit.min(8189)).unwrap();
    }
    let trailer = (2 * batches.len() + 2).next_multiple_of(result_size);
    assert!(results * result_size + trailer <= 1_048_320, "the reply is sure to fit");
}

/// Goal: the workload reaches every status, every kind of change event and non-empty results
/// of every read, so that a comparison under it means something. Clocks start today, and so
/// late that large timeouts overflow.
#[test]
fn every_status_is_reached() {
    let mut account_statuses: BTreeMap<u32, u64> = BTreeMap::new();
    let mut transfer_statuses: BTreeMap<u32, u64> = BTreeMap::new();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut change_event_types = BTreeSet::new();
    for seed in 0..60 {
        let late = TIMESTAMP_MAX - 1_000_000 * NANOSECONDS_PER_SECOND;
        let mut driver = Driver::new(seed, if seed % 8 == 7 { late } else { CLOCK_START });
        for _ in 0..400 {
            driver.step();
        }
        driver.model.check_invariants();
        for (status, count) in driver.account_statuses {
            *account_statuses.entry(status).or_default() += count;
        }
        for (status, count) in driver.transfer_statuses {
            *transfer_statuses.entry(status).or_default() += count;
        }
        for (operation, count) in driver.found {
            *found.entry(operation).or_default() += count;
        }
        change_event_types.extend(driver.change_event_types);
    }
    let missed: Vec<&CreateAccountStatus> = CreateAccountStatus::ALL
        .iter()
        .filter(|status| !account_statuses.contains_key(&status.number()))
        .collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
    let missed: Vec<&CreateTransferStatus> = CreateTransferStatus::ALL
        .iter()
        .filter(|status| !transfer_statuses.contains_key(&status.number()))
        .collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
    assert_eq!(found.len(), 6, "of lookups and queries only these found any: {found:?}");
    assert_eq!(change_event_types, BTreeSet::from([0, 1, 2, 3, 4]));
}

/// Goal: the model's invariants hold after each step of different workloads.
#[test]
fn invariants_hold_after_each_step() {
    for seed in 100..130 {
        let mut driver = Driver::new(seed, CLOCK_START);
        driver.check_every_step = true;
        for _ in 0..200 {
            driver.step();
        }
    }
}

/// Goal: a seed always gives the same requests and replies, and another seed gives others.
#[test]
fn seeds_repeat() {
    let run = |seed| {
        let mut driver = Driver::new(seed, CLOCK_START);
        for _ in 0..100 {
            driver.step();
        }
        driver.replies
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
