//! What a request asks for, and when its body is well-formed.
//!
//! Covers the numbers, the sizes of events and results, the limits that follow from the sizes of
//! messages, and the validity of whole bodies. What is inside an event is the ledger's concern.

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
