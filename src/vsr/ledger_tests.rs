//! Replica, ledger, store and disk together, against the reference model, with power lost at
//! random.

use std::collections::BTreeMap;

use super::checkpoint::checkpoint_extra_max;
use super::test_world::{CLUSTER, World, replica_of};
use super::*;
use crate::ledger::{Ledger, LedgerOptions};
use crate::protocol::{HEADER_SIZE, Operation, to_index};
use crate::simulator::model::{Model, ModelOptions};
use crate::simulator::workload::{Workload, WorkloadOptions};
use crate::storage::Config;
use crate::storage::store::{Store, StoreOptions};

const STORAGE_LIMIT: u64 = 128 << 20;

/// Larger blocks than other tests have: one must name those of a checkpoint with 64 replies.
const fn config() -> Config {
    let mut config = Config::testing();
    config.block_size = 16_384;
    config
}

fn replica() -> Replica<Ledger> {
    let config = config();
    let options = StoreOptions {
        cluster: CLUSTER,
        cache_grid_bytes: 256 << 10,
        cache_transfers_bytes: 0,
        storage_limit_bytes: STORAGE_LIMIT,
        blob_extra_bytes: checkpoint_extra_max(&config),
        filter_bytes: 1 << 20,
        page_reads_max: 8,
    };
    let store = Store::new(&config, &options);
    replica_of(&config, Ledger::new(store, &LedgerOptions::new(&config, 0)))
}

fn world(seed: u64, clients: u32) -> World<Ledger> {
    let config = config();
    let records_max = to_index((config.reply_size_max - HEADER_SIZE) / 128 - 1);
    let options = WorkloadOptions {
        create_events_max: to_index(config.batch_max).min(records_max),
        lookup_ids_max: records_max,
        query_results_max: u32::try_from(records_max).unwrap(),
        ..WorkloadOptions::default()
    };
    let mut world = World::with(seed, clients, STORAGE_LIMIT, replica);
    world.workload = Some(Workload::new(seed, options));
    world
}

/// Operation, body and reply.
type Executed<'a> = (Operation, &'a [u8], &'a [u8]);

/// The model executes what was answered, in the order of the timestamps, pulses between, and must
/// give the same replies.
fn check(world: &World<Ledger>) {
    let config = config();
    let reply_size = config.reply_size_max - HEADER_SIZE;
    let change_events = Operation::change_events_max(config.message_size_max - HEADER_SIZE);
    let mut model = Model::new(ModelOptions {
        pulse_expiries_max: to_index(config.pulse_max),
        query_results_max: to_index(reply_size / 128 - 1),
        change_events_max: to_index(change_events.min(reply_size / 384)),
    });
    let mut all: BTreeMap<u64, Option<Executed<'_>>> = BTreeMap::new();
    for timestamp in world.pulses.values() {
        assert!(all.insert(*timestamp, None).is_none());
    }
    for answered in world.clients.iter().flat_map(|client| &client.history) {
        if answered.operation == Operation::Register {
            continue;
        }
        let timestamp = u64::from_le_bytes(answered.reply[224..232].try_into().unwrap());
        let entry = (answered.operation, &answered.body[..], &answered.reply[256..]);
        assert!(all.insert(timestamp, Some(entry)).is_none(), "timestamps are unique");
    }
    for (timestamp, entry) in all {
        let Some((operation, body, reply)) = entry else {
            model.pulse(timestamp);
            continue;
        };
        let expected = model.execute(operation, timestamp, body);
        assert!(expected == reply, "{operation:?} at {timestamp} differs from the model");
    }
}

/// Goal: several clients at a time, checkpoints, merges and wraps of the log: every reply is the
/// model's.
#[test]
fn serves_like_the_model() {
    for seed in 0..8 {
        let mut world = world(seed, 8);
        world.open_serving();
        world.run(4_000);
        world.settle();
        check(&world);
        assert!(world.replica.checkpoint_op() >= 32);
    }
}

/// Goal: the same when power is lost again and again, during recovery too; retries get the same
/// bytes.
#[test]
fn survives_crashes_like_the_model() {
    for seed in 0..8 {
        let mut world = world(100 + seed, 6);
        world.open_serving();
        for _ in 0..8 {
            let steps = u32::try_from(world.below(600)).unwrap();
            world.run(steps);
            world.crash();
            for _ in 0..world.below(3) {
                let now = world.now();
                world.replica.open(now);
                world.drain();
                for _ in 0..world.below(150) {
                    world.step();
                }
                world.crash();
            }
            world.open_serving();
        }
        world.settle();
        check(&world);
    }
}
