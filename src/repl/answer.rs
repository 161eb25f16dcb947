//! The answer to a request: rows of a record, and how many of them are refusals.
//!
//! [`Pages`] reads an answer of any length one reply at a time, so that memory for one reply is
//! enough. Not covered: how rows are shown.

use super::parse::Request;
use super::schema::{CREATED_SIZE, Field, Flag, Kind, Record, value_name};
use crate::client::page::check_order;
use crate::client::{Client, ClientError, ServerError};
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::to_size;
use crate::protocol::types::{TIMESTAMP_MAX, TIMESTAMP_MIN};

/// The answer to a request, or one page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The statement's name.
    pub statement: &'static str,
    /// The record of each row.
    pub record: &'static Record,
    /// The rows, one after the other.
    pub rows: Vec<u8>,
    /// Number of ids that were looked up; `None` for other statements.
    pub looked_up: Option<usize>,
}

impl Answer {
    /// The rows, each of the record's size.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.chunks_exact(self.record.size)
    }

    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len() / self.record.size
    }

    /// Events that were refused; an event that exists with the same fields counts as done.
    #[must_use]
    pub fn refused(&self) -> usize {
        let Some(status) = self.record.field("status") else {
            return 0;
        };
        let done = match status.kind {
            Kind::AccountStatus => {
                [CreateAccountStatus::Created.number(), CreateAccountStatus::Exists.number()]
            }
            _ => [CreateTransferStatus::Created.number(), CreateTransferStatus::Exists.number()],
        };
        let is_refused = |row: &&[u8]| !done.map(u128::from).contains(&status.read(row));
        self.rows().filter(is_refused).count()
    }
}

/// Counts over all pages of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The record of each row.
    pub record: &'static Record,
    /// Number of ids that were looked up; `None` for other statements.
    pub looked_up: Option<usize>,
    /// Rows so far.
    pub count: usize,
    /// Events refused so far.
    pub refused: usize,
}

impl Tally {
    /// Counts the rows of the first page, or of the only one.
    #[must_use]
    pub fn of(answer: &Answer) -> Tally {
        let (record, looked_up) = (answer.record, answer.looked_up);
        Tally { record, looked_up, count: answer.count(), refused: answer.refused() }
    }

    /// Adds the rows of a further page.
    ///
    /// # Panics
    ///
    /// If the page is of another record.
    pub fn add(&mut self, answer: &Answer) {
        assert_eq!(self.record, answer.record);
        self.count += answer.count();
        self.refused += answer.refused();
    }

    /// The counts as a sentence: "2 accounts", "1 of 3 accounts found".
    #[must_use]
    pub fn summary(&self) -> String {
        let Tally { record, looked_up, count, refused } = *self;
        let noun = |count| if count == 1 { record.name } else { record.plural };
        if let Some(looked_up) = looked_up
            && looked_up != count
        {
            return format!("{count} of {looked_up} {} found", noun(looked_up));
        }
        if refused == 0 {
            return format!("{count} {}", noun(count));
        }
        format!("{count} {}: {} done, {refused} refused", noun(count), count - refused)
    }
}

/// The number of results of a query that does not have a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many as fit in the largest reply.
    Reply,
    /// All of them.
    All,
}

/// Reads the answer to a request page by page: one reply is one page.
///
/// The pages of a query are in order of timestamps, and later pages end where the ledger was when
/// the first one was answered: however fast others write, there is a last page.
#[derive(Clone, Debug)]
pub struct Pages<'request> {
    request: &'request Request,
    /// The events of the next question; of a query the filter that selects the next page.
    events: Vec<u8>,
    /// Results that are still wanted.
    left: u128,
    is_first: bool,
    is_done: bool,
    /// The query has no limit, and is answered with one reply.
    is_cut: bool,
}

impl<'request> Pages<'request> {
    /// The pages of a request. The extent counts for queries without a limit.
    #[must_use]
    pub fn new(request: &'request Request, extent: Extent) -> Pages<'request> {
        let has_limit = request.has_limit;
        let left = match (request.form.event.field("limit"), extent) {
            (Some(_), Extent::All) if !has_limit => u128::MAX,
            (Some(limit), _) => limit.read(&request.events),
            (None, _) => u128::MAX,
        };
        Pages {
            request,
            events: request.events.clone(),
            left,
            is_first: true,
            is_done: false,
            is_cut: extent == Extent::Reply && !has_limit,
        }
    }

    /// Whether the cluster may have more results: they fill a reply, and no limit was given.
    #[must_use]
    pub fn may_have_more(&self) -> bool {
        self.is_cut && self.left == 0
    }

    /// Whether there are no further pages.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether the request creates something, and must not be repeated unasked.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.request.form.operation.is_create()
    }

    /// Asks for the next page. There is at least one; it may be empty. After a failure the same
    /// page is asked for again.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    ///
    /// # Panics
    ///
    /// Never: the client has checked that the reply has whole results.
    pub fn next(&mut self, client: &mut Client) -> Result<Option<Answer>, ClientError> {
        if self.is_done {
            return Ok(None);
        }
        let form = self.request.form;
        let asked = self.left.min(client.results_max(form.operation).into());
        if let Some(limit) = form.event.field("limit") {
            limit.write(&mut self.events, asked);
        }
        let reply = client.call_reply(form.operation, &self.events)?;
        let timestamp = reply.facts.timestamp;
        let results = reply.results()?.to_vec();
        let rows = if form.operation.is_create() {
            created_rows(self.request, &results)?
        } else {
            results
        };
        assert!(rows.len().is_multiple_of(form.result.size));
        self.advance(asked, &rows, timestamp)?;
        let looked_up = (form.event.size == 16).then_some(self.request.count);
        Ok(Some(Answer { statement: form.name, record: form.result, rows, looked_up }))
    }

    /// Makes the filter select the results behind these rows; done if there can be none.
    ///
    /// Each page narrows the range of timestamps, so there is a last one. A reply with a timestamp
    /// outside of that range would break this, and is refused.
    fn advance(&mut self, asked: u128, rows: &[u8], answered_at: u64) -> Result<(), ClientError> {
        let form = self.request.form;
        let is_first = std::mem::replace(&mut self.is_first, false);
        let count = u128::from(to_size(rows.len() / form.result.size));
        self.left = self.left.saturating_sub(count);
        self.is_done = form.event.field("limit").is_none() || count < asked || self.left == 0;
        let (Some(min), Some(max)) =
            (form.event.field("timestamp_min"), form.event.field("timestamp_max"))
        else {
            self.is_done = true;
            return Ok(());
        };
        let highest = max.read(&self.events);
        self.check_order(rows, min.read(&self.events), highest)?;
        let timestamp = form.result.field("timestamp").expect("results have a timestamp");
        let last = rows.chunks_exact(form.result.size).last().map(|row| timestamp.read(row));
        let Some(last) = last.filter(|_| !self.is_done) else {
            self.is_done = true;
            return Ok(());
        };
        if is_reversed(form.event, &self.events) {
            self.is_done = last <= 1;
            max.write(&mut self.events, last.saturating_sub(1));
            return Ok(());
        }
        let end = match (is_first, highest) {
            (false, _) => highest,
            (true, 0) => answered_at.into(),
            (true, _) => highest.min(answered_at.into()),
        };
        max.write(&mut self.events, end);
        self.is_done = last >= end;
        min.write(&mut self.events, last + 1);
        Ok(())
    }

    /// Checks that all rows are of the range of the page, and in its order.
    fn check_order(&self, rows: &[u8], lowest: u128, highest: u128) -> Result<(), ClientError> {
        let form = self.request.form;
        let timestamp = form.result.field("timestamp").expect("results have a timestamp");
        let type_ = form.result.field("type");
        let place = |row: &[u8]| {
            let type_ = type_.map_or(0, |field| field.read(row));
            (time(timestamp.read(row)), u8::try_from(type_).expect("the field has 8 bits"))
        };
        let first = time(lowest).max(TIMESTAMP_MIN);
        let last = if highest == 0 { TIMESTAMP_MAX } else { time(highest) };
        let rows = rows.chunks_exact(form.result.size);
        let checked = if is_reversed(form.event, &self.events) {
            check_order(rows.rev().map(place), first, last)
        } else {
            check_order(rows.map(place), first, last)
        };
        checked.map_err(ClientError::Server)
    }
}

/// A timestamp of a record or filter, which has 64 bits.
fn time(value: u128) -> u64 {
    u64::try_from(value).expect("the field has 64 bits")
}

/// Whether a filter asks for the newest results first.
fn is_reversed(record: &Record, filter: &[u8]) -> bool {
    record.field("flags").is_some_and(|flags| {
        let Kind::Flags(names) = flags.kind else { return false };
        let reversed = names.iter().find(|flag| flag.name == "reversed");
        reversed.is_some_and(|flag| flags.read(filter) & flag.bit != 0)
    })
}

/// One row for each event: its id, status and timestamp.
fn created_rows(request: &Request, results: &[u8]) -> Result<Vec<u8>, ClientError> {
    let result_size = CREATED_SIZE - 16;
    if results.len() != request.count * result_size {
        let body_size = to_size(results.len());
        return Err(ClientError::Server(ServerError::Body { body_size }));
    }
    let events = request.events.chunks_exact(request.form.event.size);
    let mut rows = Vec::with_capacity(request.count * CREATED_SIZE);
    for (event, result) in events.zip(results.chunks_exact(result_size)) {
        rows.extend_from_slice(&event[..16]);
        rows.extend_from_slice(result);
    }
    Ok(rows)
}

/// The names of the bits in a set of flags; bits without a name as one number.
#[must_use]
pub fn flag_names(flags: &[Flag], value: u128) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = value;
    for flag in flags.iter().filter(|flag| value & flag.bit != 0) {
        names.push(flag.name.to_owned());
        left &= !flag.bit;
    }
    if left != 0 {
        names.push(format!("{left:#x}"));
    }
    names
}

/// A field of a row as text, as it could be typed again.
#[must_use]
pub fn field_text(field: &Field, row: &[u8]) -> String {
    let value = field.read(row);
    if let Kind::Flags(flags) = field.kind {
        return flag_names(flags, value).join("|");
    }
    value_name(field.kind, value).map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::protocol::types::{Account, CreateResult};
    use crate::repl::parse::{Statement, parse};
    use crate::repl::schema::{ACCOUNT, ACCOUNT_FLAGS, Form};
    use zerocopy::IntoBytes;

    /// An answer with these accounts.
    pub fn accounts(accounts: &[Account], looked_up: Option<usize>) -> Answer {
        let rows = accounts.as_bytes().to_vec();
        Answer { statement: "lookup_accounts", record: &ACCOUNT, rows, looked_up }
    }

    /// An answer to the creation of accounts 1, 2 …, with these statuses.
    pub fn created(statuses: &[u32]) -> Answer {
        let objects: Vec<String> = (1..=statuses.len()).map(|id| format!("id={id}")).collect();
        let text = format!("create_accounts {};", objects.join(", "));
        let Ok(Statement::Request(request)) = parse(&text) else { panic!("{text}") };
        let result = |(index, status): (u64, &u32)| CreateResult {
            timestamp: 1_700_000_000_000_000_000 + index,
            status: *status,
            reserved: 0,
        };
        let results: Vec<CreateResult> = (0..).zip(statuses).map(result).collect();
        let rows = created_rows(&request, results.as_bytes()).unwrap();
        let record = Form::find("create_accounts").unwrap().result;
        Answer { statement: "create_accounts", record, rows, looked_up: None }
    }

    /// Goal: an event that exists already counts as done, any other but a created one as refused.
    #[test]
    fn refusals() {
        let answer = created(&[u32::MAX, 21, 6, 1]);
        assert_eq!((answer.count(), answer.refused()), (4, 2));
        assert_eq!(Tally::of(&answer).summary(), "4 accounts: 2 done, 2 refused");
        assert_eq!(Tally::of(&created(&[u32::MAX])).summary(), "1 account");
        assert_eq!(accounts(&[Account::default()], None).refused(), 0);
    }

    /// Goal: the summary reports ids that were not found, and adds up pages.
    #[test]
    fn summaries() {
        let account = Account::default();
        let summary =
            |found: &[Account], looked_up| Tally::of(&accounts(found, looked_up)).summary();
        assert_eq!(summary(&[account], Some(3)), "1 of 3 accounts found");
        assert_eq!(summary(&[], Some(1)), "0 of 1 account found");
        assert_eq!(summary(&[account, account], Some(2)), "2 accounts");
        assert_eq!(summary(&[], None), "0 accounts");
        let mut tally = Tally::of(&accounts(&[account], None));
        tally.add(&accounts(&[account, account], None));
        assert_eq!(tally.summary(), "3 accounts");
    }

    fn query(text: &str) -> Request {
        match parse(text) {
            Ok(Statement::Request(request)) => request,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Rows of accounts with these timestamps.
    fn stamped(timestamps: &[u64]) -> Vec<u8> {
        let account = |timestamp: &u64| Account { timestamp: *timestamp, ..Account::default() };
        timestamps.iter().map(account).collect::<Vec<Account>>().as_bytes().to_vec()
    }

    /// Goal: pages end at one that is shorter than asked, and where the ledger was when the first
    /// one was answered, so that a fast writer cannot make them endless; a limit that was typed
    /// counts even with `--all`.
    #[test]
    fn pages_end() {
        let times = |pages: &Pages<'_>| {
            let event = pages.request.form.event;
            let read = |name: &str| event.field(name).unwrap().read(&pages.events);
            (read("timestamp_min"), read("timestamp_max"))
        };
        let request = query("query_accounts;");
        let mut pages = Pages::new(&request, Extent::All);
        pages.advance(2, &stamped(&[10, 20]), 100).unwrap();
        assert_eq!((pages.is_done, times(&pages)), (false, (21, 100)));
        // Later answers do not move the end.
        pages.advance(2, &stamped(&[30, 40]), 200).unwrap();
        assert_eq!((pages.is_done, times(&pages)), (false, (41, 100)));
        pages.advance(2, &stamped(&[100 - 1]), 300).unwrap();
        assert!(pages.is_done && !pages.may_have_more());
        let request = query("query_accounts flags=reversed timestamp_max=50;");
        let mut pages = Pages::new(&request, Extent::All);
        pages.advance(2, &stamped(&[50, 40]), 100).unwrap();
        assert_eq!((pages.is_done, times(&pages)), (false, (0, 39)));
        let request = query("query_accounts limit=3 timestamp_max=50;");
        let mut pages = Pages::new(&request, Extent::All);
        assert_eq!(pages.left, 3);
        pages.advance(2, &stamped(&[10, 20]), 100).unwrap();
        assert_eq!((pages.is_done, pages.left, times(&pages)), (false, 1, (21, 50)));
        pages.advance(1, &stamped(&[50]), 100).unwrap();
        assert!(pages.is_done && !pages.may_have_more());
        let request = query("query_accounts;");
        let mut pages = Pages::new(&request, Extent::Reply);
        let times: Vec<u64> = (1..=8189).collect();
        pages.advance(8189, &stamped(&times), 100).unwrap();
        assert!(pages.is_done && pages.may_have_more());
    }

    /// Goal: a server that ignores the range of a page cannot make the pages endless.
    #[test]
    fn pages_outside_of_the_range() {
        for (text, page) in [
            ("query_accounts;", [10, 20]),
            ("query_accounts flags=reversed timestamp_max=50;", [50, 40]),
        ] {
            let request = query(text);
            let mut pages = Pages::new(&request, Extent::All);
            pages.advance(2, &stamped(&page), 100).unwrap();
            let again = pages.advance(2, &stamped(&[page[0]; 2]), 100);
            assert!(matches!(again, Err(ClientError::Server(_))), "{text}: {again:?}");
        }
    }

    /// Goal: all rows of a page are checked, also of the last one; none has a time that does not
    /// exist.
    #[test]
    fn pages_in_the_wrong_order() {
        for times in [[20, 10], [10, 10], [0, 10], [10, u64::MAX], [u64::MAX; 2]] {
            for asked in [2, 3] {
                let request = query("query_accounts;");
                let mut pages = Pages::new(&request, Extent::All);
                let result = pages.advance(asked, &stamped(&times), 100);
                let is_refused =
                    matches!(result, Err(ClientError::Server(ServerError::Timestamp(_))));
                assert!(is_refused, "{times:?}: {result:?}");
            }
        }
        let request = query("query_accounts flags=reversed;");
        let mut pages = Pages::new(&request, Extent::All);
        assert!(pages.advance(3, &stamped(&[10, 20]), 100).is_err());
    }

    /// Goal: flags and statuses have names, unknown ones numbers.
    #[test]
    fn texts() {
        assert_eq!(flag_names(ACCOUNT_FLAGS, 9), ["linked", "history"]);
        assert_eq!(flag_names(ACCOUNT_FLAGS, 0x108), ["history", "0x100"]);
        let answer = created(&[21, 77]);
        let status = answer.record.field("status").unwrap();
        let texts: Vec<String> = answer.rows().map(|row| field_text(status, row)).collect();
        assert_eq!(texts, ["exists", "77"]);
    }
}
