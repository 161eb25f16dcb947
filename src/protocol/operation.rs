//! What a request asks for, and when its body is well-formed.
//!
//! Covers the numbers, the sizes of events and results, the limits that follow from the sizes of
//! messages, and the validity of whole bodies. What is inside an event is the ledger's concern.

use zerocopy::FromBytes;

use super::eviction::EvictionReason;
use super::multi_batch::{MultiBatch, MultiBatchError, trailer_size};
use super::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, RegisterRequest, RegisterResult, Transfer,
};
use super::{BODY_SIZE_MAX, to_size};

/// The operation byte of a prepare with several requests, each with an operation of its own.
pub const OPERATION_PACKED: u8 = 255;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// The beginning of history; in no message.
    Root = 1,
    /// Opens a session.
    Register = 2,
    /// The primary lets time pass; never from a client.
    Pulse = 128,
    /// Reads what changed, in order.
    GetChangeEvents = 137,
    /// Reads accounts by id.
    LookupAccounts = 140,
    /// Reads transfers by id.
    LookupTransfers = 141,
    /// Reads the transfers of an account.
    GetAccountTransfers = 142,
    /// Reads the balances of an account over time.
    GetAccountBalances = 143,
    /// Reads accounts by their fields.
    QueryAccounts = 144,
    /// Reads transfers by their fields.
    QueryTransfers = 145,
    /// Creates accounts.
    CreateAccounts = 146,
    /// Creates transfers.
    CreateTransfers = 147,
}

/// An operation byte that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationUnknown(pub u8);

impl TryFrom<u8> for Operation {
    type Error = OperationUnknown;

    fn try_from(value: u8) -> Result<Operation, OperationUnknown> {
        match value {
            1 => Ok(Operation::Root),
            2 => Ok(Operation::Register),
            128 => Ok(Operation::Pulse),
            137 => Ok(Operation::GetChangeEvents),
            140 => Ok(Operation::LookupAccounts),
            141 => Ok(Operation::LookupTransfers),
            142 => Ok(Operation::GetAccountTransfers),
            143 => Ok(Operation::GetAccountBalances),
            144 => Ok(Operation::QueryAccounts),
            145 => Ok(Operation::QueryTransfers),
            146 => Ok(Operation::CreateAccounts),
            147 => Ok(Operation::CreateTransfers),
            unknown => Err(OperationUnknown(unknown)),
        }
    }
}

impl From<Operation> for u8 {
    fn from(operation: Operation) -> u8 {
        operation as u8
    }
}

impl Operation {
    /// Every operation, in ascending order of number.
    pub const ALL: [Operation; 12] = [
        Operation::Root,
        Operation::Register,
        Operation::Pulse,
        Operation::GetChangeEvents,
        Operation::LookupAccounts,
        Operation::LookupTransfers,
        Operation::GetAccountTransfers,
        Operation::GetAccountBalances,
        Operation::QueryAccounts,
        Operation::QueryTransfers,
        Operation::CreateAccounts,
        Operation::CreateTransfers,
    ];

    /// The operation of a request, if a client may ask for it.
    #[must_use]
    pub fn from_client(value: u8) -> Option<Operation> {
        match Operation::try_from(value) {
            Ok(Operation::Root | Operation::Pulse) | Err(_) => None,
            Ok(operation) => Some(operation),
        }
    }

    /// Size of one event in bytes; zero when there are no events.
    #[must_use]
    pub fn event_size(self) -> u32 {
        to_size(match self {
            Operation::Root | Operation::Pulse => 0,
            Operation::Register => size_of::<RegisterRequest>(),
            Operation::GetChangeEvents => size_of::<ChangeEventsFilter>(),
            Operation::LookupAccounts | Operation::LookupTransfers => size_of::<u128>(),
            Operation::GetAccountTransfers | Operation::GetAccountBalances => {
                size_of::<AccountFilter>()
            }
            Operation::QueryAccounts | Operation::QueryTransfers => size_of::<QueryFilter>(),
            Operation::CreateAccounts => size_of::<Account>(),
            Operation::CreateTransfers => size_of::<Transfer>(),
        })
    }

    /// Size of one result in bytes; zero when there are no results.
    #[must_use]
    pub fn result_size(self) -> u32 {
        to_size(match self {
            Operation::Root | Operation::Pulse => 0,
            Operation::Register => size_of::<RegisterResult>(),
            Operation::GetChangeEvents => size_of::<ChangeEvent>(),
            Operation::LookupAccounts | Operation::QueryAccounts => size_of::<Account>(),
            Operation::LookupTransfers
            | Operation::GetAccountTransfers
            | Operation::QueryTransfers => size_of::<Transfer>(),
            Operation::GetAccountBalances => size_of::<AccountBalance>(),
            Operation::CreateAccounts | Operation::CreateTransfers => size_of::<CreateResult>(),
        })
    }

    /// Whether bodies are multi-batch encoded.
    #[must_use]
    pub fn is_multi_batch(self) -> bool {
        u8::from(self) >= u8::from(Operation::LookupAccounts)
    }

    /// Whether a batch may have any number of events; otherwise it has exactly one.
    #[must_use]
    pub fn is_batchable(self) -> bool {
        matches!(
            self,
            Operation::LookupAccounts
                | Operation::LookupTransfers
                | Operation::CreateAccounts
                | Operation::CreateTransfers
        )
    }

    /// Whether the operation creates records, one result per event.
    #[must_use]
    pub fn is_create(self) -> bool {
        matches!(self, Operation::CreateAccounts | Operation::CreateTransfers)
    }

    /// Events of one batch at most when request bodies may have `body_limit` bytes.
    #[must_use]
    pub fn events_max(self, body_limit: u32) -> u32 {
        if self.is_batchable() {
            // The shortest trailer, that of one batch, takes the room of one element.
            let event_size = self.event_size();
            let requested = body_limit.saturating_sub(event_size) / event_size;
            let answered = (BODY_SIZE_MAX - self.result_size()) / self.result_size();
            requested.min(answered)
        } else {
            u32::from(self.event_size() > 0)
        }
    }

    /// Results of one batch at most, whatever the limit of requests. For change events see also
    /// [`Operation::change_events_max`].
    #[must_use]
    pub fn results_max(self) -> u32 {
        match self {
            Operation::Root | Operation::Pulse => 0,
            Operation::Register => 1,
            Operation::GetChangeEvents => BODY_SIZE_MAX / self.result_size(),
            operation if operation.is_create() => operation.events_max(BODY_SIZE_MAX),
            operation => BODY_SIZE_MAX / operation.result_size() - 1,
        }
    }

    /// Change events of one request at most when request bodies may have `body_limit` bytes:
    /// half the ids of a lookup of that size.
    #[must_use]
    pub fn change_events_max(body_limit: u32) -> u32 {
        let lookup_ids = body_limit / Operation::LookupAccounts.event_size();
        Operation::GetChangeEvents.results_max().min(lookup_ids / 2)
    }
}

/// Why the body of a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The body has so many bytes, more than requests may have.
    TooLarge(u32),
    /// A register comes without its body.
    RegisterMissing,
    /// The body of a register has so many bytes, not its own size.
    RegisterSize(u32),
    /// The body of a register is not all zero.
    RegisterNotZero,
    /// There are so many bytes where the operation has no body.
    NotEmpty(u32),
    /// There are so many bytes where one filter should be.
    FilterSize(u32),
    /// The batches do not decode.
    MultiBatch(MultiBatchError),
    /// The batch has so many events where one filter should be.
    FilterCount {
        /// Index of the batch.
        batch: u32,
        /// Its events.
        events: u32,
    },
    /// The batch has more events than a batch may have.
    EventCount {
        /// Index of the batch.
        batch: u32,
        /// Its events.
        events: u32,
    },
    /// The reply would need so many bytes, more than a message has.
    ReplyTooLarge(u64),
}

impl BodyError {
    /// How a client is told.
    #[must_use]
    pub fn eviction_reason(self) -> EvictionReason {
        match self {
            BodyError::TooLarge(_) | BodyError::RegisterMissing => {
                EvictionReason::InvalidRequestBodySize
            }
            _ => EvictionReason::InvalidRequestBody,
        }
    }
}

/// Whether a request's body is well-formed for its operation, and its reply fits a message, where
/// request bodies may have `body_limit` bytes. The contents of events and filters do not matter
/// here, except for how many results a filter asks.
///
/// # Errors
///
/// The first thing found wrong.
///
/// # Panics
///
/// If the limit is above what a message can hold.
pub fn body_valid(operation: Operation, body: &[u8], body_limit: u32) -> Result<(), BodyError> {
    assert!(body_limit <= BODY_SIZE_MAX);
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    if size > body_limit {
        return Err(BodyError::TooLarge(size));
    }
    match operation {
        Operation::Root | Operation::Pulse => error_if(size > 0, BodyError::NotEmpty(size)),
        Operation::Register => register_valid(body),
        Operation::GetChangeEvents => {
            error_if(size != operation.event_size(), BodyError::FilterSize(size))
        }
        multi_batch => batches_valid(multi_batch, body, body_limit),
    }
}

/// The error if the rule is broken.
fn error_if(broken: bool, error: BodyError) -> Result<(), BodyError> {
    if broken { Err(error) } else { Ok(()) }
}

fn register_valid(body: &[u8]) -> Result<(), BodyError> {
    let size = to_size(body.len());
    error_if(size == 0, BodyError::RegisterMissing)?;
    error_if(size != Operation::Register.event_size(), BodyError::RegisterSize(size))?;
    error_if(body.iter().any(|byte| *byte != 0), BodyError::RegisterNotZero)
}

fn batches_valid(operation: Operation, body: &[u8], body_limit: u32) -> Result<(), BodyError> {
    assert!(operation.is_multi_batch());
    let event_size = operation.event_size();
    let batches = MultiBatch::decode(body, event_size).map_err(BodyError::MultiBatch)?;
    let events_max = operation.events_max(body_limit);
    let mut results: u64 = 0;
    for (batch, elements) in (0..).zip(&batches) {
        let events = to_size(elements.len()) / event_size;
        if !operation.is_batchable() && events != 1 {
            return Err(BodyError::FilterCount { batch, events });
        }
        if events > events_max {
            return Err(BodyError::EventCount { batch, events });
        }
        results += u64::from(results_expected(operation, elements));
    }
    let result_size = operation.result_size();
    let reply_size = results * u64::from(result_size)
        + u64::from(trailer_size(batches.batch_count(), result_size));
    if reply_size > u64::from(BODY_SIZE_MAX) {
        return Err(BodyError::ReplyTooLarge(reply_size));
    }
    Ok(())
}

/// Results of a batch at most: one for each event, or what the filter asks.
fn results_expected(operation: Operation, elements: &[u8]) -> u32 {
    let limit = match operation {
        Operation::GetAccountTransfers | Operation::GetAccountBalances => {
            AccountFilter::read_from_bytes(elements).expect("a batch has one filter").limit
        }
        Operation::QueryAccounts | Operation::QueryTransfers => {
            QueryFilter::read_from_bytes(elements).expect("a batch has one filter").limit
        }
        batchable => {
            assert!(batchable.is_batchable());
            to_size(elements.len()) / operation.event_size()
        }
    };
    limit.min(operation.results_max())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::multi_batch::MultiBatchWriter;
    use crate::protocol::to_index;
    use zerocopy::{FromZeros, IntoBytes};

    /// The limit of a server in development mode.
    const SMALL: u32 = 32_512;

    const MULTI_BATCH: [Operation; 8] = [
        Operation::LookupAccounts,
        Operation::LookupTransfers,
        Operation::GetAccountTransfers,
        Operation::GetAccountBalances,
        Operation::QueryAccounts,
        Operation::QueryTransfers,
        Operation::CreateAccounts,
        Operation::CreateTransfers,
    ];

    /// A body of batches of so many zero events each.
    fn body(operation: Operation, counts: &[u32]) -> Vec<u8> {
        let batches: Vec<Vec<u8>> =
            counts.iter().map(|count| vec![0; to_index(count * operation.event_size())]).collect();
        encode(operation, &batches)
    }

    fn encode(operation: Operation, batches: &[Vec<u8>]) -> Vec<u8> {
        let mut area = vec![0; 2_000_000];
        let count = to_size(batches.len());
        let mut writer = MultiBatchWriter::new(&mut area, operation.event_size(), count);
        for batch in batches {
            writer.write_batch(batch);
        }
        let size = writer.finish();
        area.truncate(to_index(size));
        area
    }

    fn filters(operation: Operation, limits: &[u32]) -> Vec<u8> {
        let filter = |limit: &u32| match operation.event_size() {
            64 => QueryFilter { limit: *limit, ..QueryFilter::new_zeroed() }.as_bytes().to_vec(),
            _ => AccountFilter { limit: *limit, ..AccountFilter::new_zeroed() }.as_bytes().to_vec(),
        };
        encode(operation, &limits.iter().map(filter).collect::<Vec<_>>())
    }

    fn check(operation: Operation, body: &[u8]) -> Result<(), BodyError> {
        body_valid(operation, body, BODY_SIZE_MAX)
    }

    /// Goal: exactly the listed bytes are operations, and a client may send all but two.
    #[test]
    fn bytes() {
        let known: Vec<u8> = (0..=255).filter(|byte| Operation::try_from(*byte).is_ok()).collect();
        assert_eq!(known, Operation::ALL.map(u8::from));
        let mut expected = vec![2, 137];
        expected.extend(140..=147);
        let client: Vec<u8> =
            (0..=255).filter(|byte| Operation::from_client(*byte).is_some()).collect();
        assert_eq!(client, expected);
        assert_eq!(Operation::try_from(OPERATION_PACKED), Err(OperationUnknown(255)));
    }

    /// Goal: sizes and limits are those of the table of operations, at the full limit.
    #[test]
    fn full_limits() {
        let row = |operation: Operation| {
            let events_max = operation.events_max(BODY_SIZE_MAX);
            let results_max = operation.results_max();
            (operation.event_size(), operation.result_size(), events_max, results_max)
        };
        assert_eq!(row(Operation::GetChangeEvents), (64, 384, 1, 2730));
        assert_eq!(row(Operation::LookupAccounts), (16, 128, 8189, 8189));
        assert_eq!(row(Operation::LookupTransfers), (16, 128, 8189, 8189));
        assert_eq!(row(Operation::GetAccountTransfers), (128, 128, 1, 8189));
        assert_eq!(row(Operation::GetAccountBalances), (128, 128, 1, 8189));
        assert_eq!(row(Operation::QueryAccounts), (64, 128, 1, 8189));
        assert_eq!(row(Operation::QueryTransfers), (64, 128, 1, 8189));
        assert_eq!(row(Operation::CreateAccounts), (128, 16, 8189, 8189));
        assert_eq!(row(Operation::CreateTransfers), (128, 16, 8189, 8189));
        assert_eq!(row(Operation::Register), (256, 64, 1, 1));
        assert_eq!(row(Operation::Pulse), (0, 0, 0, 0));
        assert_eq!(row(Operation::Root), (0, 0, 0, 0));
    }

    /// Goal: a smaller limit shrinks creates, lookups and change events, not query results.
    #[test]
    fn small_limits() {
        assert_eq!(Operation::CreateAccounts.events_max(SMALL), 253);
        assert_eq!(Operation::CreateTransfers.events_max(SMALL), 253);
        assert_eq!(Operation::LookupAccounts.events_max(SMALL), 2031);
        assert_eq!(Operation::change_events_max(SMALL), 1016);
        assert_eq!(Operation::change_events_max(BODY_SIZE_MAX), 2730);
        assert_eq!(Operation::CreateAccounts.events_max(0), 0);
        let full = filters(Operation::QueryAccounts, &[8189]);
        assert_eq!(body_valid(Operation::QueryAccounts, &full, SMALL), Ok(()));
    }

    /// Goal: which operations are encoded how.
    #[test]
    fn kinds() {
        for operation in Operation::ALL {
            assert_eq!(operation.is_multi_batch(), MULTI_BATCH.contains(&operation));
        }
        let batchable = Operation::ALL.into_iter().filter(|operation| operation.is_batchable());
        assert_eq!(batchable.map(u8::from).collect::<Vec<_>>(), [140, 141, 146, 147]);
        let creates = Operation::ALL.into_iter().filter(|operation| operation.is_create());
        assert_eq!(creates.map(u8::from).collect::<Vec<_>>(), [146, 147]);
    }

    /// Goal: a register has 256 zero bytes; without them it is refused for its size.
    #[test]
    fn register() {
        let check = |body: &[u8]| check(Operation::Register, body);
        assert_eq!(check(&[0; 256]), Ok(()));
        assert_eq!(check(&[]), Err(BodyError::RegisterMissing));
        assert_eq!(check(&[0; 255]), Err(BodyError::RegisterSize(255)));
        assert_eq!(check(&[0; 257]), Err(BodyError::RegisterSize(257)));
        for index in 0..256 {
            let mut body = [0; 256];
            body[index] = 1;
            assert_eq!(check(&body), Err(BodyError::RegisterNotZero), "byte {index}");
        }
    }

    /// Goal: internal operations have no body, and change events exactly one filter.
    #[test]
    fn without_batches() {
        for operation in [Operation::Root, Operation::Pulse] {
            assert_eq!(check(operation, &[]), Ok(()));
            assert_eq!(check(operation, &[0]), Err(BodyError::NotEmpty(1)));
        }
        let operation = Operation::GetChangeEvents;
        assert_eq!(check(operation, &[0xff; 64]), Ok(()));
        for size in [0, 63, 65, 128] {
            let error = Err(BodyError::FilterSize(to_size(size)));
            assert_eq!(check(operation, &vec![0; size]), error);
        }
    }

    /// Goal: batches of events may be empty or full, alone or together, but no more than full.
    #[test]
    fn events() {
        for operation in MULTI_BATCH.into_iter().filter(|operation| operation.is_batchable()) {
            for counts in [&[0][..], &[1], &[8189], &[8000, 189, 0], &[0; 60], &[3, 0, 2]] {
                assert_eq!(check(operation, &body(operation, counts)), Ok(()), "{counts:?}");
            }
        }
        let size = to_size(body(Operation::CreateAccounts, &[8190]).len());
        let error = check(Operation::CreateAccounts, &body(Operation::CreateAccounts, &[8190]));
        assert_eq!(error, Err(BodyError::TooLarge(size)));
        let error = check(Operation::LookupAccounts, &body(Operation::LookupAccounts, &[0, 8190]));
        assert_eq!(error, Err(BodyError::EventCount { batch: 1, events: 8190 }));
    }

    /// Goal: a filter travels alone in its batch.
    #[test]
    fn one_filter_each() {
        for operation in MULTI_BATCH.into_iter().filter(|operation| !operation.is_batchable()) {
            for counts in [&[1][..], &[1, 1], &[1; 100]] {
                assert_eq!(check(operation, &body(operation, counts)), Ok(()), "{counts:?}");
            }
            for events in [0, 2] {
                let error = check(operation, &body(operation, &[1, events]));
                assert_eq!(error, Err(BodyError::FilterCount { batch: 1, events }));
            }
        }
    }

    /// Goal: the results of all batches must fit one reply; a single limit is capped instead.
    #[test]
    fn reply_fits() {
        for operation in MULTI_BATCH.into_iter().filter(|operation| !operation.is_batchable()) {
            for limits in [&[0][..], &[8189], &[8190], &[u32::MAX], &[8000, 189], &[u32::MAX, 0]] {
                let body = filters(operation, limits);
                assert_eq!(check(operation, &body), Ok(()), "{operation:?} {limits:?}");
            }
            for limits in [&[8000, 190][..], &[8000, 8000], &[u32::MAX, 1], &[8189, 1]] {
                let results: u32 = limits.iter().map(|limit| *limit.min(&8189)).sum();
                let size = u64::from((results + 1) * 128);
                let error = Err(BodyError::ReplyTooLarge(size));
                assert_eq!(check(operation, &filters(operation, limits)), error);
            }
        }
        let lookup = Operation::LookupTransfers;
        assert_eq!(check(lookup, &body(lookup, &[8000, 189])), Ok(()));
        let error = Err(BodyError::ReplyTooLarge(8191 * 128));
        assert_eq!(check(lookup, &body(lookup, &[8000, 190])), error);
    }

    /// Goal: the reply's own trailer counts: 64 batches need two units of it.
    #[test]
    fn reply_trailer_counts() {
        let operation = Operation::QueryAccounts;
        let mut limits = [0; 64];
        limits[0] = 8188;
        assert_eq!(check(operation, &filters(operation, &limits)), Ok(()));
        limits[1] = 1;
        let error = Err(BodyError::ReplyTooLarge(8191 * 128));
        assert_eq!(check(operation, &filters(operation, &limits)), error);
        assert_eq!(check(operation, &filters(operation, &limits[..63])), Ok(()));
    }

    /// Goal: a body that does not decode is refused with the decoder's reason.
    #[test]
    fn undecodable() {
        for operation in MULTI_BATCH {
            let error = BodyError::MultiBatch(MultiBatchError::TooShort(0));
            assert_eq!(check(operation, &[]), Err(error));
            let error = BodyError::MultiBatch(MultiBatchError::BatchCount(0));
            assert_eq!(check(operation, &[0; 128]), Err(error));
        }
    }

    /// Goal: sizes are answered with their own reason of eviction, all else as a bad body.
    #[test]
    fn eviction_reasons() {
        assert_eq!(u8::from(BodyError::TooLarge(1).eviction_reason()), 6);
        assert_eq!(u8::from(BodyError::RegisterMissing.eviction_reason()), 6);
        assert_eq!(u8::from(BodyError::RegisterNotZero.eviction_reason()), 5);
        assert_eq!(u8::from(BodyError::ReplyTooLarge(1).eviction_reason()), 5);
        let body = vec![0; to_index(SMALL) + 1];
        let error = body_valid(Operation::CreateAccounts, &body, SMALL);
        assert_eq!(error, Err(BodyError::TooLarge(SMALL + 1)));
    }
}
