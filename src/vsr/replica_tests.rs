//! The replica on a disk that loses power and rots, with clients that check every promise.

use super::test_machine::TestMachine;
use super::test_world::{CLUSTER, World, options};
use super::*;
use crate::protocol::{Command, EvictionReason, Message, Pool, Release};
use crate::simulator::disk::MemoryDisk;
use crate::storage::{Config, Room, Zone, Zones};

/// Goal: many clients, requests of all sizes, checkpoints and wraps of the log, without faults:
/// everything is executed once, and afterwards all memory is returned.
#[test]
fn serves() {
    let mut world = World::new(1, 12);
    world.open_serving();
    assert_eq!(world.replica.view(), 1);
    world.run(6_000);
    world.settle();
    world.check_history();
    assert!(world.replica.checkpoint_op() >= 64, "{}", world.replica.checkpoint_op());
    let commit = world.replica.commit_op();
    let releases = (commit - 4) / 16;
    assert_eq!(world.replica.machine.releases, releases, "one release after each checkpoint");
    assert_eq!(world.replica.sessions_count(), 12);
    let registered = world.clients.iter().filter(|client| client.session > 0).count();
    assert_eq!(registered, 12);
}

/// Goal: requests that wait share prepares, so that there are far fewer ops than requests.
#[test]
fn group_commit() {
    let mut world = World::new(2, 40);
    world.open_serving();
    for index in 0..40 {
        world.clients[index].next(1, 0);
        world.send(index);
    }
    for _ in 0..1_000 {
        world.step();
    }
    assert!(world.clients.iter().all(|client| client.session > 0));
    let before = world.replica.commit_op();
    for _ in 0..10 {
        for index in 0..40 {
            world.clients[index].next(1, 1);
            world.send(index);
        }
        for _ in 0..1_000 {
            world.step();
        }
        assert!(world.clients.iter().all(|client| client.answered));
    }
    let ops = world.replica.commit_op() - before;
    assert!(ops < 80, "{ops} ops for 400 requests");
    world.settle();
    world.check_history();
}

/// Goal: at the storage limit reads and registers are answered and creates are not; clients that
/// keep asking are answered once there is room again.
#[test]
fn full_storage_answers_reads() {
    let mut world = World::new(4, 10);
    world.open_serving();
    world.replica.machine.room = Room::Reads;
    world.replica.machine.next_pulse = 0;
    // The first request of each client registers it.
    for transfers in [0, 0, 1] {
        for index in 0..10 {
            world.clients[index].next(1, if index % 2 == 0 { transfers } else { 0 });
            world.send(index);
        }
        for _ in 0..1_000 {
            world.step();
        }
        let waiting = world.clients.iter().filter(|client| !client.answered).count();
        assert_eq!(waiting, if transfers > 0 { 5 } else { 0 });
    }
    assert!(world.replica.is_quiet(), "what cannot be done does not wait");
    world.replica.machine.room = Room::Everything;
    for index in 0..10 {
        if !world.clients[index].answered {
            world.send(index);
        }
    }
    world.settle();
    assert!(world.clients.iter().all(|client| client.answered));
    world.check_history();
}

/// Goal: power is lost again and again, anywhere, also while recovering; what was answered stays
/// true, retries get the same bytes, nothing is executed twice, the view only grows.
#[test]
fn survives_crashes() {
    for seed in 0..30 {
        let mut world = World::new(100 + seed, 10);
        world.open_serving();
        for _ in 0..12 {
            let steps = u32::try_from(world.below(400)).unwrap();
            world.run(steps);
            let view = world.replica.view();
            world.crash();
            // Lose power some more while opening.
            for _ in 0..world.below(4) {
                let now = world.now();
                world.replica.open(now);
                world.drain();
                for _ in 0..world.below(120) {
                    world.step();
                }
                world.crash();
            }
            world.open_serving();
            assert!(world.replica.view() > view, "the view grows");
            if world.below(2) == 0 {
                world.settle();
            }
        }
        world.settle();
        world.check_history();
    }
}

/// Goal: after any single byte of the superblock or the log rots, the replica serves what it
/// answered before, or stops and names the zone and an offset; it never panics or is wrong.
#[test]
fn rot_is_repaired_or_named() {
    let config = Config::testing();
    let zones = Zones::new(&config);
    let mut base = World::new(3, 6);
    base.open_serving();
    base.run(700);
    base.settle();
    while base.replica.commit_op() % 16 < 12 {
        base.clients[0].next(1, 3);
        base.settle();
    }
    let (mut repaired, mut stopped) = (0, 0);
    for round in 0..240_u64 {
        let mut world = World::new(1_000 + round, 0);
        world.disk = base.disk.copy();
        world.now_ns = base.now_ns;
        let zone = Zone::ALL[usize::try_from(round % 3).unwrap()];
        let size = zones.size(zone).unwrap();
        let mut offset = zones.start(zone) + world.below(size);
        if zone == Zone::WalPrepares && round % 2 == 0 {
            // Most of a slot is unused: aim at the used part.
            offset = zones.start(zone)
                + world.below(config.journal_slots.into()) * u64::from(config.message_size_max)
                + world.below(600);
        }
        world.disk.corrupt(offset);
        world.open();
        match world.replica.status() {
            Status::Normal => {
                repaired += u32::from(world.replica.repairs() > 0);
                assert_eq!(world.replica.machine.hash, base.replica.machine.hash);
                assert_eq!(world.replica.machine.count, base.replica.machine.count);
                assert_eq!(world.replica.commit_op(), base.replica.commit_op());
                for client in &base.clients {
                    let session = world.replica.sessions.find(client.id).unwrap();
                    assert!(session.reply.bytes() == client.last.as_ref().unwrap().reply);
                }
            }
            Status::Fatal => {
                stopped += 1;
                let text = world.replica.fatal().unwrap().to_string();
                assert_eq!(zone, Zone::WalPrepares, "{text}");
                assert!(text.contains("zone WAL prepares: slot"), "{text}");
            }
            status => panic!("{status:?}"),
        }
    }
    assert!(repaired > 60, "{repaired}");
    assert!(stopped > 5, "{stopped}");
}

/// Goal: three damaged copies of the superblock, a foreign file and an unformatted one are
/// refused with what is wrong; two damaged copies are repaired.
#[test]
fn superblock_damage() {
    let damaged = |count: u64| {
        let mut world = World::new(4, 0);
        for copy in 0..count {
            world.disk.corrupt(copy * 16_384 + 100);
        }
        world.open();
        world
    };
    assert_eq!(damaged(2).replica.status(), Status::Normal);
    assert_eq!(damaged(2).replica.repairs(), 2);
    let text = damaged(3).replica.fatal().unwrap().to_string();
    assert!(text.contains("copy 2 at file offset 32768: checksum does not match"), "{text}");
    let mut world = World::new(5, 0);
    world.disk = MemoryDisk::new(1 << 20);
    world.open();
    let text = world.replica.fatal().unwrap().to_string();
    assert!(text.contains("not formatted"), "{text}");
    let mut world = World::new(6, 0);
    let mut options = options(&Config::testing());
    options.cluster = 78;
    let pool = Pool::new("messages", 400, 16_384);
    world.replica = Replica::new(&options, pool, TestMachine::new(&options.config));
    world.open();
    let text = world.replica.fatal().unwrap().to_string();
    assert!(text.contains("field cluster"), "{text}");
}

/// Goal: a device that refuses to write stops the replica, with the zone; nothing is answered
/// after that.
#[test]
fn refused_writes_stop() {
    let config = Config::testing();
    let zones = Zones::new(&config);
    for (offset, zone) in [
        (zones.wal_prepare_offset(1), "zone WAL prepares"),
        (zones.wal_header_offset(1), "zone WAL headers"),
    ] {
        let mut world = World::new(7, 1);
        world.open_serving();
        world.disk.fail(offset, 1);
        world.clients[0].next(1, 0);
        world.send(0);
        for _ in 0..20 {
            world.step();
        }
        assert_eq!(world.replica.status(), Status::Fatal);
        let text = world.replica.fatal().unwrap().to_string();
        assert!(text.contains(zone) && text.contains("error 5"), "{text}");
        assert!(!world.clients[0].answered);
    }
}

/// Goal: the session least recently active goes when one too many registers, and is told when it
/// next speaks; the newcomer works.
#[test]
fn too_many_sessions() {
    let mut world = World::new(8, 65);
    world.open_serving();
    for index in 0..65 {
        world.clients[index].next(1, 0);
        world.send(index);
        for _ in 0..30 {
            world.step();
        }
        assert!(world.clients[index].answered, "{index}");
    }
    assert_eq!(world.replica.sessions_count(), 64);
    for (index, evicted) in [(0, Some(1)), (1, None), (64, None)] {
        world.clients[index].next(1, 0);
        world.send(index);
        for _ in 0..30 {
            world.step();
        }
        assert_eq!(world.clients[index].evicted, evicted);
        assert_eq!(world.clients[index].answered, evicted.is_none());
    }
    assert_eq!(EvictionReason::NoSession as u8, 1);
}

/// Goal: pings are answered with view, release and the client's clock, before registration too;
/// a session that is gone is told so.
#[test]
fn pings() {
    let mut world = World::new(9, 1);
    world.open_serving();
    let connection = ConnectionId { index: 0, generation: 99 };
    let mut ping = |session: u64, release: Release| {
        let mut message = Message::new(world.requests.acquire(), Command::PingClient);
        message.ping_client_mut().client = 5;
        message.ping_client_mut().ping_timestamp_monotonic = 1234;
        message.ping_client_mut().session = session;
        message.ping_client_mut().frame.release = release;
        message.ping_client_mut().frame.cluster = CLUSTER;
        message.set_checksums();
        let now = world.now();
        world.replica.on_message(connection, message, now);
        let (to, answer) = world.replica.outbox.sends.pop().unwrap();
        assert_eq!(to, Destination::Connection(connection));
        assert_eq!(answer.header().invalid(), None);
        answer
    };
    let answer = ping(0, Release::SERVER);
    assert_eq!(answer.pong_client().ping_timestamp_monotonic, 1234);
    assert_eq!((answer.pong_client().frame.view, answer.pong_client().frame.replica), (1, 0));
    let answer = ping(1_000, Release::SERVER);
    assert_eq!(answer.header().frame.command, Command::PongClient as u8, "maybe not committed yet");
    let answer = ping(0, Release::new(0, 16, 0));
    assert_eq!(answer.eviction().reason, EvictionReason::ClientReleaseTooLow as u8);
    let answer = ping(0, Release::new(0, 18, 0));
    assert_eq!(answer.eviction().reason, EvictionReason::ClientReleaseTooHigh as u8);
    world.clients[0].next(1, 0);
    world.send(0);
    for _ in 0..30 {
        world.step();
    }
    let mut message = Message::new(world.requests.acquire(), Command::PingClient);
    message.ping_client_mut().client = 5;
    message.ping_client_mut().session = 1;
    message.ping_client_mut().frame.release = Release::SERVER;
    message.set_checksums();
    let now = world.now();
    world.replica.on_message(connection, message, now);
    let (_, answer) = world.replica.outbox.sends.pop().unwrap();
    assert_eq!(answer.eviction().reason, EvictionReason::NoSession as u8);
}
