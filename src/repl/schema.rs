//! The vocabulary of statements and answers as data: statements, records, fields and flags.
//!
//! A record is bytes with fields at offsets, exactly as it travels; parser, help, completion and
//! all output formats read these tables and know no record of their own.

use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, Transfer, account_filter_flags, account_flags, change_event_type,
    query_filter_flags, transfer_flags,
};
use crate::protocol::{Operation, to_index};
use static_assertions::const_assert_eq;
use std::mem::offset_of;

/// A bit with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it is typed and shown.
    pub name: &'static str,
    /// The bit.
    pub bit: u128,
    /// Its effect, for the help.
    pub about: &'static str,
}

/// The meaning of a field's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// A number that the ledger computes: it can be typed, but only zero is accepted.
    Balance,
    /// Nanoseconds since the Unix epoch.
    Timestamp,
    /// A set of bits.
    Flags(&'static [Flag]),
    /// The status of a creation of an account.
    AccountStatus,
    /// The status of a creation of a transfer.
    TransferStatus,
    /// Why there is a change event.
    EventType,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// As it is typed and shown.
    pub name: &'static str,
    /// The meaning of its number.
    pub kind: Kind,
    /// Its offset in the record, in bytes.
    pub offset: usize,
    /// Its bytes: 1, 2, 4, 8 or 16.
    pub size: usize,
    /// Its purpose, for the help; empty in records that are only received.
    pub about: &'static str,
}

impl Field {
    /// The largest number that fits.
    ///
    /// # Panics
    ///
    /// If the table is wrong about the field's size.
    #[must_use]
    pub fn max(&self) -> u128 {
        assert!(matches!(self.size, 1 | 2 | 4 | 8 | 16));
        u128::MAX >> (128 - 8 * self.size)
    }

    /// The field's number in a record.
    ///
    /// # Panics
    ///
    /// If the record is too short to have the field.
    #[must_use]
    pub fn read(&self, record: &[u8]) -> u128 {
        let mut bytes = [0; 16];
        bytes[..self.size].copy_from_slice(&record[self.offset..self.offset + self.size]);
        u128::from_le_bytes(bytes)
    }

    /// Sets the field's number in a record.
    ///
    /// # Panics
    ///
    /// If the number does not fit or the record is too short to have the field.
    pub fn write(&self, record: &mut [u8], value: u128) {
        assert!(value <= self.max(), "{} has {} bytes", self.name, self.size);
        let bytes = value.to_le_bytes();
        record[self.offset..self.offset + self.size].copy_from_slice(&bytes[..self.size]);
    }
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of one, for counts: "account".
    pub name: &'static str,
    /// Of several.
    pub plural: &'static str,
    /// Bytes of one.
    pub size: usize,
    /// In the order in which they are shown.
    pub fields: &'static [Field],
}

impl Record {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A statement: an operation with its events and results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// As it is typed.
    pub name: &'static str,
    /// The operation that is sent.
    pub operation: Operation,
    /// The record that is typed: objects to create, ids, or a filter.
    pub event: &'static Record,
    /// The record that is received. For creates, a row is the event's id and then a
    /// [`CreateResult`].
    pub result: &'static Record,
    /// Fields that must be given.
    pub required: &'static [&'static str],
    /// Its effect, in a line.
    pub about: &'static str,
    /// Examples, a statement on each line.
    pub examples: &'static str,
}

impl Form {
    /// The statement of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Form> {
        FORMS.iter().find(|form| form.name == name)
    }

    /// An event before any field is given: zeros, and for filters all they can select.
    ///
    /// # Panics
    ///
    /// If the tables contradict the protocol.
    #[must_use]
    pub fn event_default(&self) -> Vec<u8> {
        assert_eq!(self.event.size, to_index(self.operation.event_size()));
        let mut event = vec![0; self.event.size];
        if let Some(limit) = self.event.field("limit") {
            limit.write(&mut event, u128::from(self.operation.results_max()));
        }
        if self.event == &ACCOUNT_FILTER {
            let flags = account_filter_flags::DEBITS | account_filter_flags::CREDITS;
            let field = self.event.field("flags").expect("an account filter has flags");
            field.write(&mut event, u128::from(flags));
        }
        event
    }
}

/// Size of a member, found by the compiler from a way to reach it.
const fn size_of_member<Owner, Member>(_: fn(&Owner) -> &Member) -> usize {
    size_of::<Member>()
}

/// Fields of a structure: name, kind, and for what is typed a text.
macro_rules! fields {
    ($owner:ty { $($member:ident: $kind:expr, $about:literal;)+ }) => {
        &[$(Field {
            name: stringify!($member),
            kind: $kind,
            offset: offset_of!($owner, $member),
            size: size_of_member(|owner: &$owner| &owner.$member),
            about: $about,
        }),+]
    };
}

const fn flag(name: &'static str, bit: u16, about: &'static str) -> Flag {
    Flag { name, bit: widen(bit), about }
}

/// `u128::from`, which cannot be used in constants yet.
const fn widen(bit: u16) -> u128 {
    let [low, high] = bit.to_le_bytes();
    u128::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

const fn flag_wide(name: &'static str, bit: u32, about: &'static str) -> Flag {
    let [low, high, third, fourth] = bit.to_le_bytes();
    assert!(third == 0 && fourth == 0);
    flag(name, u16::from_le_bytes([low, high]), about)
}

/// Flags of accounts.
pub const ACCOUNT_FLAGS: &[Flag] = &[
    flag("linked", account_flags::LINKED, "succeeds or fails together with the next one"),
    flag(
        "debits_must_not_exceed_credits",
        account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS,
        "its debits never exceed its posted credits",
    ),
    flag(
        "credits_must_not_exceed_debits",
        account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
        "its credits never exceed its posted debits",
    ),
    flag("history", account_flags::HISTORY, "balances over time can be read"),
    flag("imported", account_flags::IMPORTED, "brings its own timestamp"),
    flag("closed", account_flags::CLOSED, "takes part in no transfers"),
];

/// Flags of transfers.
pub const TRANSFER_FLAGS: &[Flag] = &[
    flag("linked", transfer_flags::LINKED, "succeeds or fails together with the next one"),
    flag("pending", transfer_flags::PENDING, "reserves the amount: to be posted or voided"),
    flag(
        "post_pending_transfer",
        transfer_flags::POST_PENDING_TRANSFER,
        "posts `amount` of pending_id (0 if not given; amount=-0 posts all), releases the rest",
    ),
    flag(
        "void_pending_transfer",
        transfer_flags::VOID_PENDING_TRANSFER,
        "releases all that pending_id reserved; needs no amount",
    ),
    flag(
        "balancing_debit",
        transfer_flags::BALANCING_DEBIT,
        "moves at most the amount that keeps the account's debits within its credits",
    ),
    flag(
        "balancing_credit",
        transfer_flags::BALANCING_CREDIT,
        "moves at most the amount that keeps the account's credits within its debits",
    ),
    flag("closing_debit", transfer_flags::CLOSING_DEBIT, "closes the debit account"),
    flag("closing_credit", transfer_flags::CLOSING_CREDIT, "closes the credit account"),
    flag("imported", transfer_flags::IMPORTED, "brings its own timestamp"),
];

/// Flags of questions about an account.
pub const ACCOUNT_FILTER_FLAGS: &[Flag] = &[
    flag_wide("debits", account_filter_flags::DEBITS, "transfers that debit the account"),
    flag_wide("credits", account_filter_flags::CREDITS, "transfers that credit the account"),
    flag_wide("reversed", account_filter_flags::REVERSED, "newest first"),
];

/// Flags of queries.
pub const QUERY_FILTER_FLAGS: &[Flag] =
    &[flag_wide("reversed", query_filter_flags::REVERSED, "newest first")];

/// An account, to create and as read.
pub static ACCOUNT: Record = Record {
    name: "account",
    plural: "accounts",
    size: size_of::<Account>(),
    fields: fields!(Account {
        id: Kind::Number, "chosen by you; neither 0 nor the maximum";
        debits_pending: Kind::Balance, "must be 0";
        debits_posted: Kind::Balance, "must be 0";
        credits_pending: Kind::Balance, "must be 0";
        credits_posted: Kind::Balance, "must be 0";
        user_data_128: Kind::Number, "yours, can be queried";
        user_data_64: Kind::Number, "yours, can be queried";
        user_data_32: Kind::Number, "yours, can be queried";
        ledger: Kind::Number, "accounts of one ledger transact; not 0";
        code: Kind::Number, "the kind of account; not 0";
        flags: Kind::Flags(ACCOUNT_FLAGS), "";
        timestamp: Kind::Timestamp, "only with flags=imported";
    }),
};

/// A transfer, to create and as read.
pub static TRANSFER: Record = Record {
    name: "transfer",
    plural: "transfers",
    size: size_of::<Transfer>(),
    fields: fields!(Transfer {
        id: Kind::Number, "chosen by you; neither 0 nor the maximum";
        debit_account_id: Kind::Number, "the account whose debits grow";
        credit_account_id: Kind::Number, "the account whose credits grow";
        amount: Kind::Number, "the amount that moves; -0 is the maximum";
        pending_id: Kind::Number, "the pending transfer to post or void";
        user_data_128: Kind::Number, "yours, can be queried";
        user_data_64: Kind::Number, "yours, can be queried";
        user_data_32: Kind::Number, "yours, can be queried";
        timeout: Kind::Number, "seconds until a pending transfer expires; 0 is never";
        ledger: Kind::Number, "the ledger of both accounts";
        code: Kind::Number, "the kind of transfer; not 0";
        flags: Kind::Flags(TRANSFER_FLAGS), "";
        timestamp: Kind::Timestamp, "only with flags=imported";
    }),
};

/// An id to look up.
static ID: Record = Record {
    name: "id",
    plural: "ids",
    size: 16,
    fields: &[Field {
        name: "id",
        kind: Kind::Number,
        offset: 0,
        size: 16,
        about: "one for each object, separated by commas",
    }],
};

/// A question about one account.
static ACCOUNT_FILTER: Record = Record {
    name: "filter",
    plural: "filters",
    size: size_of::<AccountFilter>(),
    fields: fields!(AccountFilter {
        account_id: Kind::Number, "the account";
        user_data_128: Kind::Number, "only transfers with this";
        user_data_64: Kind::Number, "only transfers with this";
        user_data_32: Kind::Number, "only transfers with this";
        code: Kind::Number, "only transfers with this";
        timestamp_min: Kind::Timestamp, "from this moment on";
        timestamp_max: Kind::Timestamp, "up to this moment";
        limit: Kind::Number, "maximum number of results [default: as many as fit in one reply]";
        flags: Kind::Flags(ACCOUNT_FILTER_FLAGS), "debits|credits if not given";
    }),
};

/// A question about all accounts or transfers.
static QUERY_FILTER: Record = Record {
    name: "filter",
    plural: "filters",
    size: size_of::<QueryFilter>(),
    fields: fields!(QueryFilter {
        user_data_128: Kind::Number, "only those with this";
        user_data_64: Kind::Number, "only those with this";
        user_data_32: Kind::Number, "only those with this";
        ledger: Kind::Number, "only those with this";
        code: Kind::Number, "only those with this";
        timestamp_min: Kind::Timestamp, "from this moment on";
        timestamp_max: Kind::Timestamp, "up to this moment";
        limit: Kind::Number, "maximum number of results [default: as many as fit in one reply]";
        flags: Kind::Flags(QUERY_FILTER_FLAGS), "";
    }),
};

/// A question about what changed.
static CHANGE_EVENTS_FILTER: Record = Record {
    name: "filter",
    plural: "filters",
    size: size_of::<ChangeEventsFilter>(),
    fields: fields!(ChangeEventsFilter {
        timestamp_min: Kind::Timestamp, "from this moment on";
        timestamp_max: Kind::Timestamp, "up to this moment";
        limit: Kind::Number, "maximum number of results [default: as many as fit in one reply]";
    }),
};

/// Balances after a transfer.
static BALANCE: Record = Record {
    name: "balance",
    plural: "balances",
    size: size_of::<AccountBalance>(),
    fields: fields!(AccountBalance {
        debits_pending: Kind::Balance, "";
        debits_posted: Kind::Balance, "";
        credits_pending: Kind::Balance, "";
        credits_posted: Kind::Balance, "";
        timestamp: Kind::Timestamp, "";
    }),
};

/// A row about an event of a create operation: its id, then a [`CreateResult`].
pub const CREATED_SIZE: usize = 16 + size_of::<CreateResult>();
const_assert_eq!(CREATED_SIZE, 32);

const CREATED_ID: Field = Field { name: "id", kind: Kind::Number, offset: 0, size: 16, about: "" };
const CREATED_TIMESTAMP: Field = Field {
    name: "timestamp",
    kind: Kind::Timestamp,
    offset: 16 + offset_of!(CreateResult, timestamp),
    size: 8,
    about: "",
};

const fn created_status(kind: Kind) -> Field {
    let offset = 16 + offset_of!(CreateResult, status);
    Field { name: "status", kind, offset, size: 4, about: "" }
}

/// The result of a creation of an account.
static CREATED_ACCOUNT: Record = Record {
    name: "account",
    plural: "accounts",
    size: CREATED_SIZE,
    fields: &[CREATED_ID, created_status(Kind::AccountStatus), CREATED_TIMESTAMP],
};

/// The result of a creation of a transfer.
static CREATED_TRANSFER: Record = Record {
    name: "transfer",
    plural: "transfers",
    size: CREATED_SIZE,
    fields: &[CREATED_ID, created_status(Kind::TransferStatus), CREATED_TIMESTAMP],
};

/// The type of a change event; named like a word that Rust reserves.
const EVENT_TYPE: Field = Field {
    name: "type",
    kind: Kind::EventType,
    offset: offset_of!(ChangeEvent, type_),
    size: 1,
    about: "",
};

const CHANGE_FIELDS: &[Field] = fields!(ChangeEvent {
    timestamp: Kind::Timestamp, "";
    ledger: Kind::Number, "";
    transfer_id: Kind::Number, "";
    transfer_amount: Kind::Number, "";
    transfer_pending_id: Kind::Number, "";
    transfer_user_data_128: Kind::Number, "";
    transfer_user_data_64: Kind::Number, "";
    transfer_user_data_32: Kind::Number, "";
    transfer_timeout: Kind::Number, "";
    transfer_code: Kind::Number, "";
    transfer_flags: Kind::Flags(TRANSFER_FLAGS), "";
    transfer_timestamp: Kind::Timestamp, "";
    debit_account_id: Kind::Number, "";
    debit_account_debits_pending: Kind::Balance, "";
    debit_account_debits_posted: Kind::Balance, "";
    debit_account_credits_pending: Kind::Balance, "";
    debit_account_credits_posted: Kind::Balance, "";
    debit_account_user_data_128: Kind::Number, "";
    debit_account_user_data_64: Kind::Number, "";
    debit_account_user_data_32: Kind::Number, "";
    debit_account_code: Kind::Number, "";
    debit_account_flags: Kind::Flags(ACCOUNT_FLAGS), "";
    debit_account_timestamp: Kind::Timestamp, "";
    credit_account_id: Kind::Number, "";
    credit_account_debits_pending: Kind::Balance, "";
    credit_account_debits_posted: Kind::Balance, "";
    credit_account_credits_pending: Kind::Balance, "";
    credit_account_credits_posted: Kind::Balance, "";
    credit_account_user_data_128: Kind::Number, "";
    credit_account_user_data_64: Kind::Number, "";
    credit_account_user_data_32: Kind::Number, "";
    credit_account_code: Kind::Number, "";
    credit_account_flags: Kind::Flags(ACCOUNT_FLAGS), "";
    credit_account_timestamp: Kind::Timestamp, "";
});

/// The type first, then all others.
const CHANGE_FIELDS_ALL: [Field; 35] = {
    let mut fields = [EVENT_TYPE; 35];
    let mut index = 0;
    while index < CHANGE_FIELDS.len() {
        fields[index + 1] = CHANGE_FIELDS[index];
        index += 1;
    }
    assert!(index + 1 == fields.len());
    fields
};

/// A change event.
pub static CHANGE_EVENT: Record = Record {
    name: "event",
    plural: "events",
    size: size_of::<ChangeEvent>(),
    fields: &CHANGE_FIELDS_ALL,
};

/// Every statement that goes to the cluster, in the order of the help.
pub static FORMS: [Form; 9] = [
    Form {
        name: "create_accounts",
        operation: Operation::CreateAccounts,
        event: &ACCOUNT,
        result: &CREATED_ACCOUNT,
        required: &[],
        about: "creates accounts",
        examples: "create_accounts id=1 code=10 ledger=700;\n\
            create_accounts id=1 code=10 ledger=700 flags=linked|history, id=2 code=10 ledger=700;",
    },
    Form {
        name: "create_transfers",
        operation: Operation::CreateTransfers,
        event: &TRANSFER,
        result: &CREATED_TRANSFER,
        required: &[],
        about: "creates transfers, posts and voids pending ones",
        examples: "create_transfers id=1 debit_account_id=1 credit_account_id=2 amount=10 \
            ledger=700 code=10;\n\
            create_transfers id=2 debit_account_id=1 credit_account_id=2 amount=10 ledger=700 \
            code=10 flags=pending;\n\
            create_transfers id=3 pending_id=2 amount=-0 flags=post_pending_transfer;",
    },
    Form {
        name: "lookup_accounts",
        operation: Operation::LookupAccounts,
        event: &ID,
        result: &ACCOUNT,
        required: &["id"],
        about: "reads accounts by id",
        examples: "lookup_accounts id=1;\nlookup_accounts id=1, id=2;",
    },
    Form {
        name: "lookup_transfers",
        operation: Operation::LookupTransfers,
        event: &ID,
        result: &TRANSFER,
        required: &["id"],
        about: "reads transfers by id",
        examples: "lookup_transfers id=1;\nlookup_transfers id=1, id=2;",
    },
    Form {
        name: "get_account_transfers",
        operation: Operation::GetAccountTransfers,
        event: &ACCOUNT_FILTER,
        result: &TRANSFER,
        required: &["account_id"],
        about: "reads the transfers of an account",
        examples: "get_account_transfers account_id=1;\n\
            get_account_transfers account_id=1 flags=debits|reversed limit=10;",
    },
    Form {
        name: "get_account_balances",
        operation: Operation::GetAccountBalances,
        event: &ACCOUNT_FILTER,
        result: &BALANCE,
        required: &["account_id"],
        about: "reads the balances of an account over time (flags=history)",
        examples: "get_account_balances account_id=1;\n\
            get_account_balances account_id=1 flags=debits|credits|reversed limit=10;",
    },
    Form {
        name: "query_accounts",
        operation: Operation::QueryAccounts,
        event: &QUERY_FILTER,
        result: &ACCOUNT,
        required: &[],
        about: "reads accounts by their fields",
        examples: "query_accounts ledger=700 code=10 limit=10;\nquery_accounts flags=reversed;",
    },
    Form {
        name: "query_transfers",
        operation: Operation::QueryTransfers,
        event: &QUERY_FILTER,
        result: &TRANSFER,
        required: &[],
        about: "reads transfers by their fields",
        examples: "query_transfers user_data_64=7 limit=10;\nquery_transfers flags=reversed;",
    },
    Form {
        name: "get_change_events",
        operation: Operation::GetChangeEvents,
        event: &CHANGE_EVENTS_FILTER,
        result: &CHANGE_EVENT,
        required: &[],
        about: "reads changes in order, each with both accounts as they were then",
        examples: "get_change_events limit=10;\nget_change_events timestamp_min=1 limit=10;",
    },
];

/// The name of a value, for kinds whose values have names.
#[must_use]
pub fn value_name(kind: Kind, value: u128) -> Option<&'static str> {
    let number = u32::try_from(value).ok()?;
    match kind {
        Kind::Number | Kind::Balance | Kind::Timestamp | Kind::Flags(_) => None,
        Kind::AccountStatus => {
            CreateAccountStatus::try_from(number).ok().map(CreateAccountStatus::name)
        }
        Kind::TransferStatus => {
            CreateTransferStatus::try_from(number).ok().map(CreateTransferStatus::name)
        }
        Kind::EventType => match u8::try_from(number).ok()? {
            change_event_type::SINGLE_PHASE => Some("single_phase"),
            change_event_type::TWO_PHASE_PENDING => Some("two_phase_pending"),
            change_event_type::TWO_PHASE_POSTED => Some("two_phase_posted"),
            change_event_type::TWO_PHASE_VOIDED => Some("two_phase_voided"),
            change_event_type::TWO_PHASE_EXPIRED => Some("two_phase_expired"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    /// Goal: every statement's records have the sizes of the protocol, and a text for everything.
    #[test]
    fn forms_suit_the_protocol() {
        for form in &FORMS {
            assert_eq!(form.event.size, to_index(form.operation.event_size()), "{}", form.name);
            let rows = if form.operation.is_create() { 16 } else { 0 };
            assert_eq!(form.result.size, rows + to_index(form.operation.result_size()));
            assert!(!form.about.is_empty() && form.examples.ends_with(';'));
            assert_eq!(Form::find(form.name), Some(form));
            for name in form.required {
                assert!(form.event.field(name).is_some());
            }
            for field in form.event.fields {
                assert!(matches!(field.kind, Kind::Flags(_)) || !field.about.is_empty());
                assert!(field.offset + field.size <= form.event.size);
            }
        }
        assert_eq!(Form::find("create_account"), None);
    }

    /// Goal: fields lie side by side: none overlaps another, and all but reserved bytes are there.
    #[test]
    fn fields_do_not_overlap() {
        let records = [
            (&ACCOUNT, 4),
            (&TRANSFER, 0),
            (&ID, 0),
            (&ACCOUNT_FILTER, 58),
            (&QUERY_FILTER, 6),
            (&CHANGE_EVENTS_FILTER, 44),
            (&BALANCE, 56),
            (&CREATED_ACCOUNT, 4),
            (&CREATED_TRANSFER, 4),
            (&CHANGE_EVENT, 39),
        ];
        for (record, reserved) in records {
            let mut bytes = vec![0_u8; record.size];
            for field in record.fields {
                assert_eq!(field.read(&bytes), 0, "{}.{}", record.name, field.name);
                field.write(&mut bytes, field.max());
                assert_eq!(field.read(&bytes), field.max());
            }
            let unused: usize = bytes.iter().map(|byte| usize::from(*byte == 0)).sum();
            assert_eq!(unused, reserved, "{}", record.name);
        }
    }

    /// Goal: numbers go where the structures of the protocol have them.
    #[test]
    fn fields_mean_members() {
        let mut bytes = vec![0; ACCOUNT.size];
        ACCOUNT.field("code").unwrap().write(&mut bytes, 10);
        ACCOUNT.field("id").unwrap().write(&mut bytes, u128::MAX - 1);
        let account = Account::read_from_bytes(&bytes).unwrap();
        assert_eq!(account, Account { id: u128::MAX - 1, code: 10, ..Account::default() });
    }

    /// Goal: a filter without fields selects all it can, anything else is zero.
    #[test]
    fn defaults() {
        let form = Form::find("get_account_transfers").unwrap();
        let filter = AccountFilter::read_from_bytes(&form.event_default()).unwrap();
        assert_eq!((filter.limit, filter.flags, filter.account_id), (8189, 3, 0));
        let form = Form::find("query_accounts").unwrap();
        let filter = QueryFilter::read_from_bytes(&form.event_default()).unwrap();
        assert_eq!((filter.limit, filter.flags), (8189, 0));
        let form = Form::find("create_accounts").unwrap();
        assert!(form.event_default().iter().all(|byte| *byte == 0));
    }

    /// Goal: flags are all bits that have a meaning, each once; named values have names.
    #[test]
    fn names() {
        let bits = |flags: &[Flag]| flags.iter().map(|flag| flag.bit).sum::<u128>();
        assert_eq!(bits(ACCOUNT_FLAGS), u128::from(account_flags::ALL));
        assert_eq!(bits(TRANSFER_FLAGS), u128::from(transfer_flags::ALL));
        assert_eq!(bits(ACCOUNT_FILTER_FLAGS), u128::from(account_filter_flags::ALL));
        assert_eq!(bits(QUERY_FILTER_FLAGS), u128::from(query_filter_flags::ALL));
        assert_eq!(value_name(Kind::AccountStatus, 21), Some("exists"));
        assert_eq!(value_name(Kind::TransferStatus, 46), Some("exists"));
        assert_eq!(value_name(Kind::TransferStatus, 18), None);
        assert_eq!(value_name(Kind::EventType, 4), Some("two_phase_expired"));
        assert_eq!(value_name(Kind::EventType, 5), None);
        assert_eq!(value_name(Kind::Number, 0), None);
    }
}
