//! The worked examples of the accounting specification, and a runner for them.
//!
//! `tests/fixtures/worked_examples.txt` holds the examples as data: one line per event with its
//! expected status, and lines for balances, stored amounts, missing records and queries. The
//! runner drives anything that implements [`Subject`] through them, so that the reference model
//! and the ledger answer to the same examples. Result timestamps are checked for every event by
//! the general rule: the stored one for `created`, the existing record's for `exists`, the given
//! or the event's for members of a failed chain, the event's for all else.
//!
//! Records are built and read by field name through the layout tables below, which are written
//! from the wire format and not from the record types: an example that passes also proves the
//! layout of the fields it names.
//!
//! The format of a line, by its first word:
//!
//! * `example TITLE`: starts an example on an empty database.
//! * `accounts A1 ...; A2 ...`: these accounts are created in one batch and must succeed.
//! * `event EVENT => STATUS`: the next event of the current batch. `@given` or `@event` after the
//!   status says which timestamp the result has where the general rule leaves it open.
//! * `batch`: the current batch ends; so it does at every other kind of line.
//! * `wait N ms`: the clock moves on, then a pulse is carried out.
//! * `balances A1 dp/dP/cp/cP [closed]; ...`, `amounts T1 N, ...`, `missing A1, T2, ...`.
//! * `query OPERATION(ARGUMENTS) => nothing` or `=> {FIELD VALUE, ...}; {...}`.

use std::collections::BTreeMap;

use super::batches::{decode_batches, encode_batches, event_and_result_size};
use super::model::Model;
use crate::protocol::operation::Operation;
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};

const EXAMPLES: &str = include_str!("../../tests/fixtures/worked_examples.txt");

/// How many examples there are.
pub const EXAMPLE_COUNT: usize = 55;

const CLOCK_START: u64 = 1_700_000_000_000_000_000;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
const NANOSECONDS_PER_HOUR: u128 = 3_600_000_000_000;
/// The clock's time between two operations.
const STEP: u64 = 10 * NANOSECONDS_PER_MILLISECOND;
/// What a pulse takes of the clock.
const PULSE_SPAN: u64 = 8190;

/// A state machine under test.
pub trait Subject {
    /// Carries out an operation with its commit timestamp; bodies are as on the wire.
    fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8>;
    /// Carries out a pulse with its commit timestamp.
    fn pulse(&mut self, timestamp: u64);
}

impl Subject for Model {
    fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        Model::execute(self, operation, timestamp, body)
    }

    fn pulse(&mut self, timestamp: u64) {
        Model::pulse(self, timestamp);
    }
}

/// Runs every example, each on a new subject.
///
/// # Panics
///
/// If any example fails; the message names every failing example and its line.
pub fn run_all<S: Subject>(make: impl Fn() -> S) {
    let examples = split_examples();
    assert_eq!(examples.len(), EXAMPLE_COUNT);
    let mut failures = Vec::new();
    for lines in &examples {
        if let Err(failure) = Runner::new(make()).run(lines) {
            failures.push(format!("{}: {failure}", lines[0].1));
        }
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// The lines of each example with their numbers; the first is its title.
fn split_examples() -> Vec<Vec<(usize, &'static str)>> {
    let mut examples: Vec<Vec<(usize, &'static str)>> = Vec::new();
    for (index, line) in EXAMPLES.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("example ") {
            examples.push(Vec::new());
        }
        examples.last_mut().expect("the file starts with an example").push((index + 1, line));
    }
    examples
}

/// Name, offset and size in bytes of each field of a record.
type Layout = &'static [(&'static str, usize, usize)];

const ACCOUNT: Layout = &[
    ("id", 0, 16),
    ("debits_pending", 16, 16),
    ("debits_posted", 32, 16),
    ("credits_pending", 48, 16),
    ("credits_posted", 64, 16),
    ("user_data_128", 80, 16),
    ("user_data_64", 96, 8),
    ("user_data_32", 104, 4),
    ("reserved", 108, 4),
    ("ledger", 112, 4),
    ("code", 116, 2),
    ("flags", 118, 2),
    ("timestamp", 120, 8),
];

const TRANSFER: Layout = &[
    ("id", 0, 16),
    ("debit_account_id", 16, 16),
    ("credit_account_id", 32, 16),
    ("amount", 48, 16),
    ("pending_id", 64, 16),
    ("user_data_128", 80, 16),
    ("user_data_64", 96, 8),
    ("user_data_32", 104, 4),
    ("timeout", 108, 4),
    ("ledger", 112, 4),
    ("code", 116, 2),
    ("flags", 118, 2),
    ("timestamp", 120, 8),
];

const ACCOUNT_FILTER: Layout = &[
    ("account_id", 0, 16),
    ("user_data_128", 16, 16),
    ("user_data_64", 32, 8),
    ("user_data_32", 40, 4),
    ("code", 44, 2),
    ("reserved", 46, 1),
    ("timestamp_min", 104, 8),
    ("timestamp_max", 112, 8),
    ("limit", 120, 4),
    ("flags", 124, 4),
];

const CHANGE_EVENTS_FILTER: Layout =
    &[("timestamp_min", 0, 8), ("timestamp_max", 8, 8), ("limit", 16, 4)];

const ACCOUNT_BALANCE: Layout = &[
    ("debits_pending", 0, 16),
    ("debits_posted", 16, 16),
    ("credits_pending", 32, 16),
    ("credits_posted", 48, 16),
    ("timestamp", 64, 8),
];

const CHANGE_EVENT: Layout = &[
    ("transfer_id", 0, 16),
    ("transfer_amount", 16, 16),
    ("transfer_pending_id", 32, 16),
    ("transfer_timeout", 76, 4),
    ("transfer_flags", 82, 2),
    ("type", 88, 1),
    ("debit_account_debits_pending", 144, 16),
    ("debit_account_debits_posted", 160, 16),
    ("debit_account_flags", 238, 2),
    ("credit_account_credits_pending", 288, 16),
    ("credit_account_credits_posted", 304, 16),
    ("transfer_timestamp", 360, 8),
];

const ACCOUNT_FLAGS: &[(&str, u128)] =
    &[("linked", 1), ("D<=C", 2), ("C<=D", 4), ("history", 8), ("imported", 16), ("closed", 32)];

const TRANSFER_FLAGS: &[(&str, u128)] = &[
    ("linked", 1),
    ("pending", 2),
    ("post", 4),
    ("void", 8),
    ("bal_dr", 16),
    ("bal_cr", 32),
    ("close_dr", 64),
    ("close_cr", 128),
    ("imported", 256),
];

/// Flag `imported` of accounts and of transfers.
const IMPORTED: [u128; 2] = [16, 256];

/// A record as bytes, read and written by field name.
struct Record {
    layout: Layout,
    bytes: Vec<u8>,
}

impl Record {
    fn new(layout: Layout, size: usize) -> Record {
        Record { layout, bytes: vec![0; size] }
    }

    fn place(&self, name: &str) -> Result<std::ops::Range<usize>, String> {
        let found = self.layout.iter().find(|(field, ..)| *field == name);
        let &(_, offset, size) = found.ok_or_else(|| format!("no field named {name}"))?;
        Ok(offset..offset + size)
    }

    fn get(&self, name: &str) -> Result<u128, String> {
        let mut wide = [0; 16];
        let bytes = &self.bytes[self.place(name)?];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(u128::from_le_bytes(wide))
    }

    fn set(&mut self, name: &str, value: u128) -> Result<(), String> {
        let place = self.place(name)?;
        let wide = value.to_le_bytes();
        if wide[place.len()..].iter().any(|&byte| byte != 0) {
            return Err(format!("{value} does not fit {name}"));
        }
        let size = place.len();
        self.bytes[place].copy_from_slice(&wide[..size]);
        Ok(())
    }
}

/// An event of the batch being collected.
struct Event {
    line: usize,
    record: Record,
    status: String,
    /// `given` or `event`, if the example says which timestamp the result has.
    timestamp_rule: Option<String>,
}

struct Runner<S> {
    subject: S,
    clock: u64,
    batch: Vec<Event>,
    /// Stored (or would-be) timestamps by kind of record, `A` or `T`, and id.
    timestamps: BTreeMap<(char, u128), u64>,
}

impl<S: Subject> Runner<S> {
    fn new(subject: S) -> Runner<S> {
        Runner { subject, clock: CLOCK_START, batch: Vec::new(), timestamps: BTreeMap::new() }
    }

    fn run(&mut self, lines: &[(usize, &str)]) -> Result<(), String> {
        for &(number, line) in &lines[1..] {
            self.run_line(number, line).map_err(|failure| {
                if failure.starts_with("line ") {
                    failure
                } else {
                    format!("line {number}: {line}\n    {failure}")
                }
            })?;
        }
        self.flush()
    }

    fn run_line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb != "event" {
            self.flush()?;
        }
        match verb {
            "event" => {
                let event = self.parse_event(number, rest)?;
                self.batch.push(event);
                Ok(())
            }
            "batch" => Ok(()),
            "accounts" => {
                for account in rest.split("; ") {
                    let event = self.parse_event(number, &format!("{account} => created"))?;
                    self.batch.push(event);
                }
                self.flush()
            }
            "wait" => self.wait(rest),
            "balances" => rest.split("; ").try_for_each(|text| self.check_balances(text)),
            "amounts" => rest.split(", ").try_for_each(|text| self.check_amount(text)),
            "missing" => rest.split(", ").try_for_each(|text| self.check_missing(text)),
            "query" => self.check_query(rest),
            _ => Err(format!("unknown kind of line: {verb}")),
        }
    }

    fn wait(&mut self, text: &str) -> Result<(), String> {
        let milliseconds = text.strip_suffix(" ms").ok_or("expected milliseconds")?;
        let milliseconds: u64 = milliseconds.parse().map_err(|_| "expected a number")?;
        self.clock += milliseconds * NANOSECONDS_PER_MILLISECOND + PULSE_SPAN;
        self.subject.pulse(self.clock);
        Ok(())
    }

    fn execute(&mut self, operation: Operation, span: u64, body: &[u8]) -> Vec<u8> {
        self.clock += STEP + span;
        self.subject.execute(operation, self.clock, body)
    }

    /// Sends one sub-batch and gives its results.
    fn request(
        &mut self,
        operation: Operation,
        span: u64,
        events: Vec<u8>,
        layout: Layout,
    ) -> Result<Vec<Record>, String> {
        let (event_size, result_size) = event_and_result_size(operation);
        let results = if operation == Operation::GetChangeEvents {
            self.execute(operation, span, &events)
        } else {
            let body = encode_batches(event_size, &[events]);
            let reply = self.execute(operation, span, &body);
            let mut batches = decode_batches(result_size, &reply);
            if batches.len() != 1 {
                return Err(format!("expected one batch in the reply, got {}", batches.len()));
            }
            batches.remove(0)
        };
        let records = results.chunks(result_size);
        Ok(records.map(|bytes| Record { layout, bytes: bytes.to_vec() }).collect())
    }

    /// Executes the collected batch and checks every result.
    fn flush(&mut self) -> Result<(), String> {
        let batch = std::mem::take(&mut self.batch);
        let Some(first) = batch.first() else { return Ok(()) };
        let accounts = kind(&first.record) == 'A';
        assert!(batch.iter().all(|event| (kind(&event.record) == 'A') == accounts));
        let operation =
            if accounts { Operation::CreateAccounts } else { Operation::CreateTransfers };
        let events = batch.iter().flat_map(|event| event.record.bytes.clone()).collect();
        let count = u64::try_from(batch.len()).expect("a count fits 64 bits");
        let result: Layout = &[("timestamp", 0, 8), ("status", 8, 4), ("reserved", 12, 4)];
        let results = self.request(operation, count, events, result)?;
        if results.len() != batch.len() {
            return Err(format!("{} events, {} results", batch.len(), results.len()));
        }
        for ((event, result), index) in batch.iter().zip(&results).zip(0..) {
            let event_timestamp = self.clock - count + index + 1;
            self.check_result(event, result, event_timestamp)
                .map_err(|failure| format!("line {}: {failure}", event.line))?;
        }
        Ok(())
    }

    fn check_result(
        &mut self,
        event: &Event,
        result: &Record,
        event_timestamp: u64,
    ) -> Result<(), String> {
        let accounts = kind(&event.record) == 'A';
        let key = (kind(&event.record), event.record.get("id")?);
        let status = status_name(accounts, result.get("status")?);
        if status != event.status {
            return Err(format!("expected {}, got {status}", event.status));
        }
        let imported = event.record.get("flags")? & IMPORTED[usize::from(!accounts)] != 0;
        let given = u64::try_from(event.record.get("timestamp")?).expect("a field of 64 bits");
        let expected = match (event.status.as_str(), event.timestamp_rule.as_deref()) {
            (_, Some("given")) => given,
            (_, Some("event")) => event_timestamp,
            (_, Some(rule)) => return Err(format!("unknown rule {rule}")),
            ("created", None) if imported => given,
            ("exists", None) => *self.timestamps.get(&key).ok_or("nothing exists")?,
            (_, None) => event_timestamp,
        };
        let timestamp = result.get("timestamp")?;
        if timestamp != u128::from(expected) {
            return Err(format!("{status}: expected timestamp {expected}, got {timestamp}"));
        }
        if result.get("reserved")? != 0 {
            return Err("the result's reserved field is not zero".to_string());
        }
        // A member of a chain that fails later may be met as `exists` before it does.
        if status == "created" || status == "linked_event_failed" {
            self.timestamps.insert(key, expected);
        }
        Ok(())
    }

    fn lookup(&mut self, kind: char, ids: &[u128]) -> Result<Vec<Record>, String> {
        let (operation, layout) = match kind {
            'A' => (Operation::LookupAccounts, ACCOUNT),
            'T' => (Operation::LookupTransfers, TRANSFER),
            _ => return Err(format!("no records of kind {kind}")),
        };
        let ids = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.request(operation, 0, ids, layout)
    }

    fn check_balances(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split(' ');
        let (kind, id) = self.name(words.next().ok_or("expected an account")?)?;
        let records = self.lookup(kind, &[id])?;
        let [account] = &records[..] else { return Err(format!("A{id} is missing")) };
        let balances = ["debits_pending", "debits_posted", "credits_pending", "credits_posted"];
        let values = words.next().ok_or("expected balances")?.split('/');
        for (field, value) in balances.iter().zip(values) {
            let (expected, got) = (self.value(value)?, account.get(field)?);
            if got != expected {
                return Err(format!("A{id} {field}: expected {expected}, got {got}"));
            }
        }
        let expected = words.next() == Some("closed");
        let closed = account.get("flags")? & 32 != 0;
        if closed != expected {
            return Err(format!("A{id} closed: expected {expected}, got {closed}"));
        }
        Ok(())
    }

    fn check_amount(&mut self, text: &str) -> Result<(), String> {
        let (name, amount) = text.split_once(' ').ok_or("expected a transfer and an amount")?;
        let (kind, id) = self.name(name)?;
        let records = self.lookup(kind, &[id])?;
        let [transfer] = &records[..] else { return Err(format!("{name} is missing")) };
        let (expected, got) = (self.value(amount)?, transfer.get("amount")?);
        if got == expected {
            Ok(())
        } else {
            Err(format!("{name} amount: expected {expected}, got {got}"))
        }
    }

    fn check_missing(&mut self, name: &str) -> Result<(), String> {
        let (kind, id) = self.name(name)?;
        if self.lookup(kind, &[id])?.is_empty() { Ok(()) } else { Err(format!("{name} is there")) }
    }

    fn check_query(&mut self, text: &str) -> Result<(), String> {
        let (call, expected) = text.split_once(" => ").ok_or("expected => and results")?;
        let (name, arguments) = call.split_once('(').ok_or("expected arguments")?;
        let arguments = arguments.strip_suffix(')').ok_or("expected )")?;
        let results = match name {
            "lookup_accounts" => self.lookup('A', &parse_ids(arguments)?)?,
            "lookup_transfers" => self.lookup('T', &parse_ids(arguments)?)?,
            "get_account_transfers" => {
                let filter = self.filter(Record::new(ACCOUNT_FILTER, 128), arguments)?;
                self.request(Operation::GetAccountTransfers, 0, filter, TRANSFER)?
            }
            "get_account_balances" => {
                let filter = self.filter(Record::new(ACCOUNT_FILTER, 128), arguments)?;
                self.request(Operation::GetAccountBalances, 0, filter, ACCOUNT_BALANCE)?
            }
            "get_change_events" => {
                let filter = self.filter(Record::new(CHANGE_EVENTS_FILTER, 64), arguments)?;
                self.request(Operation::GetChangeEvents, 0, filter, CHANGE_EVENT)?
            }
            _ => return Err(format!("unknown query {name}")),
        };
        let expected: Vec<&str> =
            if expected == "nothing" { Vec::new() } else { expected.split("; ").collect() };
        if results.len() != expected.len() {
            return Err(format!("expected {} results, got {}", expected.len(), results.len()));
        }
        for (result, expected) in results.iter().zip(expected) {
            let fields = expected.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            for field in fields.ok_or("expected braces")?.split(", ") {
                let (field, value) = field.split_once(' ').ok_or("expected field and value")?;
                let (expected, got) = (self.value(value)?, result.get(field)?);
                if got != expected {
                    return Err(format!("{field}: expected {expected}, got {got}"));
                }
            }
        }
        Ok(())
    }

    fn filter(&self, mut record: Record, arguments: &str) -> Result<Vec<u8>, String> {
        for argument in arguments.split(", ") {
            let (field, value) = argument.split_once('=').ok_or("expected field=value")?;
            record.set(field, self.value(value)?)?;
        }
        Ok(record.bytes)
    }

    /// An event such as `T2 1→2 amount 9 [post] of T1, code=7 => created @given`.
    fn parse_event(&self, line: usize, text: &str) -> Result<Event, String> {
        let (text, outcome) = text.split_once(" => ").ok_or("expected => and a status")?;
        let (status, rule) = match outcome.split_once(" @") {
            Some((status, rule)) => (status, Some(rule.to_string())),
            None => (outcome, None),
        };
        let (text, flags) = split_flags(text)?;
        let mut words = text.split_whitespace().map(|word| word.trim_end_matches(','));
        let (kind, id) = self.name(words.next().ok_or("expected a record")?)?;
        let mut record = Record::new(if kind == 'A' { ACCOUNT } else { TRANSFER }, 128);
        record.set("id", id)?;
        let names = if kind == 'A' { ACCOUNT_FLAGS } else { TRANSFER_FLAGS };
        record.set("flags", parse_flags(&flags, names)?)?;
        if kind == 'A' {
            record.set("ledger", 1)?;
            record.set("code", 1)?;
        }
        while let Some(word) = words.next() {
            if let Some((debit, credit)) = word.split_once('→') {
                record.set("debit_account_id", self.value(debit)?)?;
                record.set("credit_account_id", self.value(credit)?)?;
                record.set("ledger", 1)?;
                record.set("code", 1)?;
            } else if word == "amount" {
                record.set("amount", self.value(words.next().ok_or("expected an amount")?)?)?;
            } else if word == "of" {
                let pending = words.next().ok_or("expected a transfer")?;
                record.set("pending_id", self.value(pending.trim_start_matches('T'))?)?;
            } else {
                let (field, value) = word.split_once('=').ok_or("expected field=value")?;
                record.set(field, self.value(value)?)?;
            }
        }
        Ok(Event { line, record, status: status.to_string(), timestamp_rule: rule })
    }

    /// The kind and id of a name such as `A1`.
    fn name(&self, text: &str) -> Result<(char, u128), String> {
        match text.chars().next() {
            Some(kind @ ('A' | 'T')) => Ok((kind, self.value(&text[1..])?)),
            _ => Err(format!("expected a record, not {text}")),
        }
    }

    /// A number: decimal, hexadecimal, `MAX`, `2^63`, `now`, the timestamp of a record such as
    /// `A1`; with an optional offset such as `-10` or `+1h`.
    fn value(&self, text: &str) -> Result<u128, String> {
        let (base, offset) = match text.find(['+', '-']) {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        };
        let number = |digits: &str| -> Result<u128, String> {
            let parsed = match digits.strip_prefix("0x") {
                Some(digits) => u128::from_str_radix(digits, 16),
                None => digits.parse(),
            };
            parsed.map_err(|_| format!("{digits} in {text} is not a number"))
        };
        let base = match base {
            "MAX" => u128::MAX,
            "2^63" => 1 << 63,
            "now" => u128::from(self.clock),
            _ if base.starts_with(['A', 'T']) => {
                let timestamp = self.timestamps.get(&self.name(base)?);
                u128::from(*timestamp.ok_or_else(|| format!("{base} was not created"))?)
            }
            _ => number(base)?,
        };
        match (offset.chars().next(), offset.get(1..)) {
            (Some('+'), Some("1h")) => Ok(base + NANOSECONDS_PER_HOUR),
            (Some('+'), Some(digits)) => Ok(base + number(digits)?),
            (Some('-'), Some(digits)) => Ok(base - number(digits)?),
            _ => Ok(base),
        }
    }
}

/// `A` for an account, `T` for a transfer.
fn kind(record: &Record) -> char {
    if record.place("amount").is_ok() { 'T' } else { 'A' }
}

fn status_name(accounts: bool, number: u128) -> String {
    let number = u32::try_from(number).expect("a status has 32 bits");
    let name = if accounts {
        CreateAccountStatus::try_from(number).map(CreateAccountStatus::name)
    } else {
        CreateTransferStatus::try_from(number).map(CreateTransferStatus::name)
    };
    name.map_or_else(|_| format!("unknown status {number}"), str::to_string)
}

/// Takes the list in brackets, if there is one, out of the text.
fn split_flags(text: &str) -> Result<(String, String), String> {
    let Some((before, rest)) = text.split_once('[') else {
        return Ok((text.to_string(), String::new()));
    };
    let (flags, after) = rest.split_once(']').ok_or("expected ]")?;
    Ok((format!("{before} {after}"), flags.to_string()))
}

fn parse_flags(text: &str, names: &[(&str, u128)]) -> Result<u128, String> {
    let mut flags = 0;
    for word in text.split(", ").filter(|word| !word.is_empty()) {
        flags |= if let Some(digits) = word.strip_prefix("0x") {
            u128::from_str_radix(digits, 16).map_err(|_| "expected a number")?
        } else {
            let found = names.iter().find(|(name, _)| *name == word);
            found.ok_or_else(|| format!("unknown flag {word}"))?.1
        };
    }
    Ok(flags)
}

fn parse_ids(arguments: &str) -> Result<Vec<u128>, String> {
    let list = arguments.strip_prefix("ids=[").and_then(|text| text.strip_suffix(']'));
    let ids = list.ok_or("expected ids=[...]")?.split(", ");
    ids.map(|id| id.parse().map_err(|_| format!("{id} is not an id"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::ModelOptions;
    use super::*;

    /// The model with its invariants checked after each operation.
    struct Checked(Model);

    impl Subject for Checked {
        fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
            let reply = self.0.execute(operation, timestamp, body);
            self.0.check_invariants();
            reply
        }

        fn pulse(&mut self, timestamp: u64) {
            self.0.pulse(timestamp);
            self.0.check_invariants();
        }
    }

    /// Goal: the reference model answers all worked examples as the specification says.
    #[test]
    fn model_answers_all_examples() {
        run_all(|| Checked(Model::new(ModelOptions::default())));
        run_all(|| Model::new(ModelOptions::default()));
    }

    /// Answers like the model, but for one bit of one status of every create request.
    struct Wrong(Model);

    impl Subject for Wrong {
        fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
            let mut reply = self.0.execute(operation, timestamp, body);
            if operation == Operation::CreateTransfers {
                reply[8] ^= 1;
            }
            reply
        }

        fn pulse(&mut self, timestamp: u64) {
            self.0.pulse(timestamp);
        }
    }

    /// Goal: the runner notices wrong answers and names the example and the line.
    #[test]
    fn wrong_answers_are_noticed() {
        let make = || Wrong(Model::new(ModelOptions::default()));
        for lines in split_examples() {
            let transfers = lines.iter().any(|(_, line)| line.starts_with("event T"));
            let result = Runner::new(make()).run(&lines);
            assert_eq!(result.is_err(), transfers, "{}", lines[0].1);
            assert!(result.err().is_none_or(|failure| failure.starts_with("line ")));
        }
    }

    /// Goal: the numbers of the examples are read as they are meant.
    #[test]
    fn values() {
        let mut runner = Runner::new(Model::new(ModelOptions::default()));
        runner.timestamps.insert(('A', 2), 500);
        assert_eq!(runner.value("17"), Ok(17));
        assert_eq!(runner.value("0x40"), Ok(64));
        assert_eq!(runner.value("MAX-10"), Ok(u128::MAX - 10));
        assert_eq!(runner.value("2^63"), Ok(1 << 63));
        assert_eq!(runner.value("A2+5"), Ok(505));
        assert_eq!(runner.value("A2-100"), Ok(400));
        assert_eq!(runner.value("now+1h"), Ok(u128::from(CLOCK_START) + NANOSECONDS_PER_HOUR));
        assert!(runner.value("A3").is_err());
        assert!(runner.value("x").is_err());
    }
}
