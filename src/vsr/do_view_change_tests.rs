//! Tests of the choice of a log: small tables that read like the reports of a view change.

use super::*;
use crate::protocol::PrepareHeader;

/// A log written as one word per op: `a` to `z` name the view in which an op was prepared. Ops
/// count from 1, each linked to the one before.
fn log(word: &str) -> Vec<PrepareHeader> {
    let mut headers: Vec<PrepareHeader> = vec![PrepareHeader::root(7)];
    for (op, letter) in (1_u64..).zip(word.bytes()) {
        let mut header = PrepareHeader::new();
        header.frame.cluster = 7;
        header.frame.view = u32::from(letter - b'a') + 1;
        header.op = op;
        header.parent = headers[headers.len() - 1].frame.checksum;
        header.timestamp = op * 10;
        header.header_mut().set_checksum();
        headers.push(header);
    }
    headers
}

/// A report: the log, what is there of its end (`+` present, `-` nack, `?` neither; the last sign
/// is that of the head), the log view and the commit.
fn report(word: &str, signs: &str, log_view: u32, commit: u64) -> LogReport {
    let headers = log(word);
    let mut suffix = Suffix::new(&headers[headers.len() - 1]);
    for header in headers.iter().rev().skip(1).take(9) {
        assert!(suffix.push(header));
    }
    let (mut present, mut nack) = (0, 0);
    for (bit, sign) in signs.bytes().rev().enumerate() {
        match sign {
            b'+' => present |= 1 << bit,
            b'-' => nack |= 1 << bit,
            _ => assert_eq!(sign, b'?'),
        }
    }
    LogReport { log_view, commit, suffix, present, nack }
}

/// The log that is chosen by a cluster of so many replicas, as a word.
#[track_caller]
fn check(replicas: u8, reports: &[LogReport], expected: Option<&str>) {
    let reports: Vec<_> = reports.iter().cloned().map(Some).collect();
    let chosen = choose(&reports, &Quorums::new(replicas));
    let chosen = chosen.map(|chosen| *chosen.suffix.head());
    let expected = expected.map(|word| *log(word).last().unwrap());
    assert_eq!(chosen.map(|head| head.op), expected.map(|head| head.op));
    assert_eq!(chosen, expected);
}

/// Goal: a gap that a replica never saw is nacked by it, so that it does not hold up the view.
#[test]
fn gaps_nack() {
    let headers = log("aaaa");
    let mut suffix = Suffix::new(&headers[4]);
    assert!(suffix.push(&headers[2]) && suffix.push(&headers[1]));
    let gap = LogReport { log_view: 1, commit: 1, suffix, present: 0b1101, nack: 0b0010 };
    check(3, &[gap.clone(), report("aa", "++", 1, 1)], Some("aa"));
    check(3, &[gap.clone(), report("aaa", "+++", 1, 1)], Some("aaaa"));
    check(3, &[LogReport { nack: 0, ..gap }, report("aa", "++", 1, 1)], None);
}

/// Goal: what an older view had in a gap of the newest is the same if it is the parent of the next
/// op, another one if it is not or the newest was of a later view before, and may be either
/// otherwise: then it counts for neither.
#[test]
fn gaps_may_be_of_older_views() {
    let gap = |word: &str, left_out: std::ops::RangeInclusive<usize>, nack: u32| {
        let headers = log(word);
        let mut suffix = Suffix::new(&headers[headers.len() - 1]);
        for (op, header) in headers.iter().enumerate().rev().skip(1) {
            assert!(left_out.contains(&op) || suffix.push(header));
        }
        LogReport { log_view: 2, commit: 1, suffix, present: 0b1111 & !nack, nack }
    };
    // View b carried all over: one gap is filled by the next op's parent.
    let older = || report("aaaa", "++++", 1, 1);
    check(3, &[gap("aaaa", 3..=3, 0b0111), older()], Some("aaaa"));
    // Of two the lower may be the same or not.
    check(3, &[gap("aaaa", 2..=3, 0b0111), older()], Some("aaaa"));
    check(3, &[gap("aabb", 2..=3, 0b0111), older()], None);
    let shorter = report("a", "+", 1, 1);
    check(3, &[gap("aabb", 2..=3, 0b0111), older(), shorter], Some("a"));
    // View b put others there.
    check(3, &[gap("aabb", 3..=3, 0b0011), older()], Some("aa"));
    check(3, &[gap("abbb", 3..=3, 0b0011), older()], Some("ab"));
}

/// Goal: nothing is chosen before a quorum has reported; equal logs are taken as they are.
#[test]
fn needs_a_quorum() {
    let same = || report("aaa", "+++", 1, 1);
    check(3, &[same()], None);
    check(3, &[same(), same()], Some("aaa"));
    check(5, &[same(), same()], None);
    check(6, &vec![same(); 3], None);
    check(6, &vec![same(); 4], Some("aaa"));
}

/// Goal: an op that the dead primary may have committed stays if one replica has it.
#[test]
fn one_copy_stays() {
    check(3, &[report("aaa", "+++", 1, 1), report("aa", "++", 1, 1)], Some("aaa"));
    check(2, &[report("aaa", "+++", 1, 1), report("aa", "++", 1, 1)], Some("aa"));
}

/// Goal: an op that a nack quorum never acknowledged is cut off, with everything after it.
#[test]
fn nacks_cut() {
    let third = || report("aa", "++", 1, 1);
    check(3, &[report("aaa", "++-", 1, 1), third()], Some("aa"));
    // The head alone was received: what lies below it is missing.
    check(3, &[report("aaaa", "++-+", 1, 1), third()], Some("aa"));
    let nacks = [(4, 3), (5, 3), (6, 4)];
    for (replicas, needed) in nacks {
        let mut reports = vec![report("aaa", "++?", 1, 1)];
        reports.extend((0..needed).map(|_| third()));
        check(replicas, &reports, Some("aa"));
        reports.pop();
        check(replicas, &reports, None);
    }
}

/// Goal: a damaged prepare that may have been acknowledged is neither kept nor cut: the choice
/// waits for a replica that has it, or for a nack quorum without it.
#[test]
fn damage_never_nacks() {
    let damaged = || report("aaa", "++?", 1, 1);
    let shorter = || report("aa", "++", 1, 1);
    check(3, &[damaged(), shorter()], None);
    check(3, &[damaged(), shorter(), report("aaa", "+++", 1, 1)], Some("aaa"));
    check(3, &[damaged(), shorter(), shorter()], Some("aa"));
    check(3, &[damaged(), damaged()], None);
}

/// Goal: the newest log view decides; what older ones have in its place counts against it and for
/// nothing, and the same prepare counts wherever it lies.
#[test]
fn newest_log_view_decides() {
    // View b cut the third op of view a and put another there.
    check(3, &[report("aaa", "+++", 1, 1), report("aab", "+++", 2, 1)], Some("aab"));
    check(3, &[report("aaaa", "++++", 1, 1), report("aa", "++", 2, 1)], Some("aa"));
    // The only copy of the new one is damaged, the others never had it.
    let old = || report("aaa", "+++", 1, 1);
    check(3, &[old(), report("aab", "++?", 2, 1)], None);
    check(3, &[old(), report("aab", "++?", 2, 1), old()], Some("aa"));
    // Carried over from view a to view b: the copy of view a is as good.
    check(3, &[report("aaa", "+++", 1, 1), report("aaa", "++?", 2, 1)], Some("aaa"));
}

/// Goal: what is known to be committed is never cut, and logs that do not reach it are not enough.
#[test]
fn committed_stays() {
    check(3, &[report("aaa", "++-", 1, 3), report("aaa", "++-", 1, 2)], Some("aaa"));
    check(3, &[report("aa", "++", 1, 3), report("aa", "++", 1, 2)], None);
    let all = [report("aa", "++", 1, 3), report("aa", "++", 1, 2), report("aaa", "++-", 1, 1)];
    check(3, &all, Some("aaa"));
}

/// Goal: the suffix that the view begins with is the end of the chosen log, linked.
#[test]
fn chosen_suffix_is_linked() {
    let word = "aaaaaaaaaaaa";
    let reports = [report(word, "+++++++++", 1, 4), report("aaaaa", "+++++", 1, 4)].map(Some);
    let chosen = choose(&reports, &Quorums::new(3)).unwrap();
    assert_eq!(chosen.commit, 4);
    assert_eq!(chosen.suffix.headers().len(), 13);
    for pair in chosen.suffix.headers().windows(2) {
        assert_eq!(pair[0].parent, pair[1].frame.checksum);
    }
}

/// Goal: a report survives its message, and one whose parts contradict each other does not.
#[test]
fn report_in_a_message() {
    use crate::protocol::peer::write_headers;
    use crate::protocol::{Command, Pool, Release};
    let pool = Pool::new("test", 1, 16_384);
    let valid = log_with_release("aaa");
    let mut message = Message::new(pool.acquire(), Command::DoViewChange);
    let peer = message.peer_mut();
    peer.frame.view = 2;
    peer.frame.release = Release::SERVER;
    peer.op = 3;
    peer.context = valid[3].frame.checksum;
    (peer.log_view, peer.present, peer.nack) = (1, 0b101, 0b10);
    write_headers(&mut message, None, valid.iter().rev());
    message.set_checksums();
    assert_eq!(message.header().invalid(), None);
    let report = LogReport::of(&message, 7).unwrap();
    assert_eq!((report.log_view, report.present, report.nack), (1, 0b101, 0b10));
    assert_eq!(report.suffix.headers().len(), 4);
    assert!(LogReport::of(&message, 8).is_none());
    message.peer_mut().nack = 0b100;
    assert!(LogReport::of(&message, 7).is_none());
    message.peer_mut().nack = 0;
    message.peer_mut().log_view = 2;
    assert!(LogReport::of(&message, 7).is_none());
    message.peer_mut().log_view = 1;
    message.peer_mut().op = 2;
    assert!(LogReport::of(&message, 7).is_none());
}

fn log_with_release(word: &str) -> Vec<PrepareHeader> {
    let mut headers = log(word);
    for index in 1..headers.len() {
        headers[index].frame.release = crate::protocol::Release::SERVER;
        headers[index].program = crate::protocol::Release::PROGRAM;
        headers[index].frame.checksum_body = crate::protocol::checksum(&[]);
        headers[index].operation = crate::protocol::Operation::Pulse.into();
        headers[index].parent = headers[index - 1].frame.checksum;
        headers[index].header_mut().set_checksum();
    }
    headers
}
