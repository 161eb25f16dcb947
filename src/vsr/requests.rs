//! What the primary does with a request: the rules, in their order, as a pure function.
//!
//! Assumes that the frame is whole and of our cluster. Not covered: carrying the verdict out, and
//! what a backup does.

use crate::mutated;
use crate::protocol::operation::body_valid;
use crate::protocol::{EvictionReason, HEADER_SIZE, Operation, Release, RequestHeader};

/// What is known of the client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its number.
    pub session: u64,
    /// The client's release when it registered.
    pub release: Release,
    /// Number of the last request that was executed.
    pub request: u32,
    /// Checksum of that request.
    pub request_checksum: u128,
    /// Context of its reply: the parent of the next request.
    pub context: u128,
}

/// What the rules need to know beside the request.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The replica's view.
    pub view: u32,
    /// Oldest release admitted.
    pub release_min: Release,
    /// Newest release admitted.
    pub release_max: Release,
    /// Bytes of the largest request, header and body.
    pub request_size_max: u32,
    /// The client's session, if there is one.
    pub session: Option<SessionFacts>,
    /// Whether a request of this client waits or is being executed.
    pub in_flight: Option<InFlightFacts>,
    /// Whether nothing more can be taken in.
    pub full: bool,
    /// In a cluster, the newest op executed here: a primary that was replaced without knowing it
    /// must not end sessions that it cannot know yet.
    pub executed: Option<u64>,
}

/// What is known of the client's request that waits or is being executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightFacts {
    /// Whether it registers.
    pub registers: bool,
    /// Its checksum.
    pub request_checksum: u128,
}

/// Why a request gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The header breaks a rule.
    Header,
    /// The client has seen a newer view.
    ViewNewer,
    /// Only recovery by hand sets a timestamp.
    Timestamp,
    /// The session's number is above the known one.
    SessionNewer,
    /// Already answered, and the client went on since.
    RequestOlder,
    /// The last request's number with other bytes.
    RequestDiffers,
    /// Not the answer's context.
    ParentWrong,
    /// A request before this one is missing.
    RequestSkips,
    /// The client's register is being executed.
    Registering,
    /// The client's request is being executed.
    InFlight,
    /// No room; the client retries.
    Full,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Ignore(IgnoreReason),
    /// End the session.
    Evict(EvictionReason),
    /// Send the stored reply again.
    Resend,
    /// Execute it.
    Accept(Operation),
}

/// Judges a request.
#[must_use]
pub fn judge(request: &RequestHeader, body: &[u8], circumstances: &Circumstances) -> Verdict {
    let frame = &request.frame;
    if request.invalid().is_some() {
        return Verdict::Ignore(IgnoreReason::Header);
    }
    if frame.view > circumstances.view {
        return Verdict::Ignore(IgnoreReason::ViewNewer);
    }
    if frame.release < circumstances.release_min {
        return Verdict::Evict(EvictionReason::ClientReleaseTooLow);
    }
    if frame.release > circumstances.release_max {
        return Verdict::Evict(EvictionReason::ClientReleaseTooHigh);
    }
    if frame.size > circumstances.request_size_max {
        return Verdict::Evict(EvictionReason::InvalidRequestBodySize);
    }
    let Some(operation) = Operation::from_client(request.operation) else {
        return Verdict::Evict(EvictionReason::InvalidRequestOperation);
    };
    if operation == Operation::Register && frame.size == HEADER_SIZE {
        return Verdict::Evict(EvictionReason::InvalidRequestBodySize);
    }
    let body_limit = circumstances.request_size_max - HEADER_SIZE;
    if let Err(error) = body_valid(operation, body, body_limit) {
        return Verdict::Evict(error.eviction_reason());
    }
    if request.timestamp != 0 {
        return Verdict::Ignore(IgnoreReason::Timestamp);
    }
    match &circumstances.session {
        Some(session) => judge_known(request, operation, session, circumstances),
        None => judge_unknown(request, operation, circumstances),
    }
}

fn judge_known(
    request: &RequestHeader,
    operation: Operation,
    session: &SessionFacts,
    circumstances: &Circumstances,
) -> Verdict {
    if operation != Operation::Register {
        if request.session < session.session {
            return Verdict::Evict(EvictionReason::SessionTooLow);
        }
        if request.session > session.session {
            return Verdict::Ignore(IgnoreReason::SessionNewer);
        }
    }
    if request.frame.release != session.release {
        return Verdict::Evict(EvictionReason::SessionReleaseMismatch);
    }
    if request.request < session.request {
        return Verdict::Ignore(IgnoreReason::RequestOlder);
    }
    if request.request == session.request && mutated!("execute_twice") {
        return admit(operation, circumstances);
    }
    if request.request == session.request {
        let checksum = request.frame.checksum;
        return if checksum != session.request_checksum {
            Verdict::Ignore(IgnoreReason::RequestDiffers)
        } else if circumstances.in_flight.is_some_and(|it| it.request_checksum == checksum) {
            // Executed, but its reply is withheld until it is durable.
            Verdict::Ignore(IgnoreReason::InFlight)
        } else {
            Verdict::Resend
        };
    }
    // Compared by difference, because the last number has no successor.
    if request.request - session.request > 1 {
        return Verdict::Ignore(IgnoreReason::RequestSkips);
    }
    if request.parent != session.context {
        return Verdict::Ignore(IgnoreReason::ParentWrong);
    }
    admit(operation, circumstances)
}

fn judge_unknown(
    request: &RequestHeader,
    operation: Operation,
    circumstances: &Circumstances,
) -> Verdict {
    if circumstances.in_flight.is_some_and(|in_flight| in_flight.registers) {
        return Verdict::Ignore(IgnoreReason::Registering);
    }
    if operation != Operation::Register {
        if circumstances.executed.is_some_and(|executed| request.session > executed) {
            return Verdict::Ignore(IgnoreReason::SessionNewer);
        }
        return Verdict::Evict(EvictionReason::NoSession);
    }
    admit(operation, circumstances)
}

fn admit(operation: Operation, circumstances: &Circumstances) -> Verdict {
    if circumstances.in_flight.is_some() {
        return Verdict::Ignore(IgnoreReason::InFlight);
    }
    if circumstances.full {
        return Verdict::Ignore(IgnoreReason::Full);
    }
    Verdict::Accept(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionFacts = SessionFacts {
        session: 10,
        release: Release::SERVER,
        request: 5,
        request_checksum: 55,
        context: 77,
    };

    fn circumstances() -> Circumstances {
        Circumstances {
            view: 3,
            release_min: Release::CLIENT_MIN,
            release_max: Release::CLIENT_MAX,
            request_size_max: 16_384,
            session: Some(SESSION),
            in_flight: None,
            full: false,
            executed: None,
        }
    }

    /// The next request of the session: looks up nothing.
    fn request() -> RequestHeader {
        let mut request = RequestHeader::new();
        request.frame.size = 256 + 16;
        request.frame.view = 3;
        request.frame.release = Release::SERVER;
        request.frame.checksum = 66;
        request.parent = 77;
        request.client = 9;
        request.session = 10;
        request.request = 6;
        request.operation = Operation::LookupAccounts.into();
        request
    }

    fn register() -> RequestHeader {
        let mut request = request();
        request.frame.size = 512;
        request.parent = 0;
        request.session = 0;
        request.request = 0;
        request.operation = Operation::Register.into();
        request
    }

    /// An empty batch, or the body of a register.
    fn body(request: &RequestHeader) -> Vec<u8> {
        let mut body = vec![0xff_u8; request.frame.size as usize - 256];
        if request.operation == u8::from(Operation::Register) {
            body.fill(0);
        } else if let Some(start) = body.len().checked_sub(4) {
            body[start..].copy_from_slice(&[0, 0, 1, 0]);
        }
        body
    }

    type Change = fn(&mut RequestHeader, &mut Circumstances);

    #[track_caller]
    fn check(name: &str, mut request: RequestHeader, change: Change, expected: Verdict) {
        let mut around = circumstances();
        change(&mut request, &mut around);
        assert_eq!(judge(&request, &body(&request), &around), expected, "{name}");
    }

    /// Goal: each row before the session rules applies, and wins over rows after it: all of a
    /// row's successors are broken as well wherever both can be broken at once.
    #[test]
    fn rows_before_the_session() {
        use EvictionReason::{
            ClientReleaseTooHigh, ClientReleaseTooLow, InvalidRequestBody, InvalidRequestBodySize,
            InvalidRequestOperation,
        };
        let accept = Verdict::Accept(Operation::LookupAccounts);
        check("valid", request(), |_, _| {}, accept);
        let header = Verdict::Ignore(IgnoreReason::Header);
        check("header", request(), |r, _| (r.client, r.frame.view) = (0, 9), header);
        let newer = Verdict::Ignore(IgnoreReason::ViewNewer);
        let old = Release::new(0, 16, 60);
        assert!(old < Release::CLIENT_MIN);
        check("view", request(), |r, _| (r.frame.view, r.frame.release) = (4, Release(1)), newer);
        check("older view", request(), |r, _| r.frame.view = 2, accept);
        check(
            "release low",
            request(),
            |r, _| (r.frame.release, r.frame.size) = (Release::new(0, 16, 60), 20_000),
            Verdict::Evict(ClientReleaseTooLow),
        );
        check(
            "release high",
            request(),
            |r, _| (r.frame.release, r.frame.size) = (Release::new(0, 18, 0), 20_000),
            Verdict::Evict(ClientReleaseTooHigh),
        );
        check(
            "size",
            request(),
            |r, _| (r.frame.size, r.operation) = (16_384 + 16, 200),
            Verdict::Evict(InvalidRequestBodySize),
        );
        for operation in [3, 6, 128, 129, 136, 138, 139, 148, 255] {
            let mut request = request();
            request.operation = operation;
            request.frame.size = if operation == 3 { 512 } else { 256 };
            let verdict = judge(&request, &body(&request), &circumstances());
            assert_eq!(verdict, Verdict::Evict(InvalidRequestOperation), "{operation}");
        }
        check(
            "body",
            request(),
            |r, _| (r.frame.size, r.timestamp) = (256 + 15, 1),
            Verdict::Evict(InvalidRequestBody),
        );
        let no_body = Verdict::Evict(InvalidRequestBodySize);
        check("register without body", register(), |r, _| r.frame.size = 256, no_body);
        let timestamp = Verdict::Ignore(IgnoreReason::Timestamp);
        check("timestamp", request(), |r, _| (r.timestamp, r.session) = (1, 1), timestamp);
        let nonzero = judge(&register(), &[1; 256], &circumstances());
        assert_eq!(nonzero, Verdict::Evict(InvalidRequestBody));
    }

    /// Goal: the rows of a known client, in their order.
    #[test]
    fn rows_of_a_known_client() {
        let evict = Verdict::Evict;
        let ignore = Verdict::Ignore;
        let other = Release::new(0, 17, 1);
        assert_ne!(other, SESSION.release);
        check(
            "session below",
            request(),
            |r, _| (r.session, r.frame.release) = (9, Release::new(0, 17, 1)),
            evict(EvictionReason::SessionTooLow),
        );
        check(
            "session above",
            request(),
            |r, _| (r.session, r.frame.release) = (11, Release::new(0, 17, 1)),
            ignore(IgnoreReason::SessionNewer),
        );
        check(
            "release",
            request(),
            |r, _| (r.frame.release, r.request) = (Release::new(0, 17, 1), 4),
            evict(EvictionReason::SessionReleaseMismatch),
        );
        let older = ignore(IgnoreReason::RequestOlder);
        check("older", request(), |r, _| r.request = 4, older);
        check("last", request(), |r, _| (r.request, r.frame.checksum) = (5, 55), Verdict::Resend);
        check(
            "last, its reply withheld",
            request(),
            |r, c| {
                (r.request, r.frame.checksum) = (5, 55);
                c.in_flight = Some(InFlightFacts { registers: false, request_checksum: 55 });
            },
            ignore(IgnoreReason::InFlight),
        );
        let differs = ignore(IgnoreReason::RequestDiffers);
        check("last differs", request(), |r, _| r.request = 5, differs);
        check("parent", request(), |r, _| r.parent = 1, ignore(IgnoreReason::ParentWrong));
        let skips = ignore(IgnoreReason::RequestSkips);
        check("skips", request(), |r, _| (r.request, r.parent) = (7, 1), skips);
        let busy = Some(InFlightFacts { registers: false, request_checksum: 66 });
        assert!(busy.is_some());
        check(
            "in flight",
            request(),
            |_, c| {
                c.in_flight = Some(InFlightFacts { registers: false, request_checksum: 66 });
                c.full = true;
            },
            ignore(IgnoreReason::InFlight),
        );
        check("full", request(), |_, c| c.full = true, ignore(IgnoreReason::Full));
        check("registers again, went on", register(), |_, _| {}, older);
        check(
            "registers again",
            register(),
            |r, c| {
                let session = c.session.as_mut().expect("the client is known");
                session.request = 0;
                session.request_checksum = r.frame.checksum;
            },
            Verdict::Resend,
        );
    }

    /// Goal: the rows of an unknown client.
    #[test]
    fn rows_of_an_unknown_client() {
        let accept = Verdict::Accept(Operation::Register);
        check("registers", register(), |_, c| c.session = None, accept);
        let no_session = Verdict::Evict(EvictionReason::NoSession);
        check("no session", request(), |_, c| c.session = None, no_session);
        check(
            "no session in a cluster",
            request(),
            |_, c| (c.session, c.executed) = (None, Some(10)),
            no_session,
        );
        let newer = Verdict::Ignore(IgnoreReason::SessionNewer);
        check(
            "not executed yet",
            request(),
            |_, c| (c.session, c.executed) = (None, Some(9)),
            newer,
        );
        let registering: Change = |_, c| {
            c.session = None;
            c.in_flight = Some(InFlightFacts { registers: true, request_checksum: 1 });
        };
        let ignored = Verdict::Ignore(IgnoreReason::Registering);
        check("registers twice", register(), registering, ignored);
        check("registering", request(), registering, ignored);
        let full: Change = |_, c| (c.session, c.full) = (None, true);
        check("full", register(), full, Verdict::Ignore(IgnoreReason::Full));
    }
}
