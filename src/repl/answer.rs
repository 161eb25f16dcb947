//! What came back for a request: rows of a record, and what of it is a refusal.

use super::parse::Request;
use super::schema::{CREATED_SIZE, Field, Flag, Kind, Record, value_name};
use crate::client::{Client, ClientError};
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::{to_index, to_size};

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The statement's name.
    pub statement: &'static str,
    /// What the rows are.
    pub record: &'static Record,
    /// The rows, one after the other.
    pub rows: Vec<u8>,
    /// How many ids were looked up, if some were.
    pub looked_up: Option<usize>,
    /// Whether the cluster may have more: the rows fill a reply, and no limit was given.
    pub may_have_more: bool,
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

    /// Events that were refused; one that exists already just so counts as done.
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

    /// How many there are, as a sentence: "2 accounts", "1 of 3 accounts found".
    #[must_use]
    pub fn summary(&self) -> String {
        let count = self.count();
        let noun = |count| if count == 1 { self.record.name } else { self.record.plural };
        if let Some(looked_up) = self.looked_up
            && looked_up != count
        {
            return format!("{count} of {looked_up} {} found", noun(looked_up));
        }
        if self.record.field("status").is_some() {
            let (done, refused) = (count - self.refused(), self.refused());
            return match refused {
                0 => format!("{count} {}", noun(count)),
                _ => format!("{count} {}: {done} done, {refused} refused", noun(count)),
            };
        }
        format!("{count} {}", noun(count))
    }
}

/// The part of the results of a query that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many as the limit of the query says; the default is what fits in the largest reply.
    Limit,
    /// All of them, whatever the limit.
    All,
}

/// Sends a request and waits for its answer. Results that do not fit in one reply are read page by
/// page, by timestamp; what is written meanwhile may be among those of later pages.
///
/// # Errors
///
/// See [`ClientError`].
///
/// # Panics
///
/// Never: the client gives as many results as there were events to create.
pub fn execute(
    client: &mut Client,
    request: &Request,
    extent: Extent,
) -> Result<Answer, ClientError> {
    let form = request.form;
    let page = u128::from(client.results_max(form.operation));
    let limit_default = u128::from(form.operation.results_max());
    let limit = form.event.field("limit").map(|field| field.read(&request.events));
    let rows = match (limit, extent) {
        (Some(_), Extent::All) => all_pages(client, request, u128::MAX)?,
        (Some(limit), Extent::Limit) if limit > page => all_pages(client, request, limit)?,
        _ => {
            let results = client.call_bytes(form.operation, &request.events)?;
            if form.operation.is_create() { created_rows(request, &results)? } else { results }
        }
    };
    assert!(rows.len().is_multiple_of(form.result.size));
    let looks_up = form.event.size == 16;
    let is_full = rows.len() / form.result.size >= to_index(form.operation.results_max());
    let may_have_more = extent == Extent::Limit && limit == Some(limit_default) && is_full;
    Ok(Answer {
        statement: form.name,
        record: form.result,
        rows,
        looked_up: looks_up.then_some(request.count),
        may_have_more,
    })
}

/// Reads pages of a query until there are no more results, or as many as the limit says.
fn all_pages(client: &mut Client, request: &Request, limit: u128) -> Result<Vec<u8>, ClientError> {
    let (form, mut filter) = (request.form, request.events.clone());
    let field = |name: &str| form.event.field(name).expect("queries have limits and times");
    let timestamp = form.result.field("timestamp").expect("results have a timestamp");
    let is_reversed = form.event.field("flags").is_some_and(|flags| {
        let Kind::Flags(names) = flags.kind else { return false };
        let reversed = names.iter().find(|flag| flag.name == "reversed");
        reversed.is_some_and(|flag| flags.read(&filter) & flag.bit != 0)
    });
    let page = u128::from(form.operation.results_max());
    let size = form.result.size;
    let mut rows = Vec::new();
    let mut left = limit;
    while left > 0 {
        field("limit").write(&mut filter, left.min(page));
        let results = client.call_bytes(form.operation, &filter)?;
        let Some(last) = results.chunks_exact(size).last() else { break };
        let last = timestamp.read(last);
        left -= u128::from(to_size(results.len() / size));
        rows.extend_from_slice(&results);
        if is_reversed {
            if last <= 1 {
                break;
            }
            field("timestamp_max").write(&mut filter, last - 1);
        } else {
            field("timestamp_min").write(&mut filter, last + 1);
        }
    }
    Ok(rows)
}

/// The id of each event, and what became of it.
fn created_rows(request: &Request, results: &[u8]) -> Result<Vec<u8>, ClientError> {
    let result_size = CREATED_SIZE - 16;
    if results.len() != request.count * result_size {
        let body_size = crate::protocol::to_size(results.len());
        return Err(ClientError::Server(crate::client::ServerError::Body { body_size }));
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
        Answer {
            statement: "lookup_accounts",
            record: &ACCOUNT,
            rows,
            looked_up,
            may_have_more: false,
        }
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
        Answer { statement: "create_accounts", record, rows, looked_up: None, may_have_more: false }
    }

    /// Goal: what exists already is done, anything else but created is refused.
    #[test]
    fn refusals() {
        let answer = created(&[u32::MAX, 21, 6, 1]);
        assert_eq!((answer.count(), answer.refused()), (4, 2));
        assert_eq!(answer.summary(), "4 accounts: 2 done, 2 refused");
        assert_eq!(created(&[u32::MAX]).summary(), "1 account");
        assert_eq!(accounts(&[Account::default()], None).refused(), 0);
    }

    /// Goal: looking up more than there is says so.
    #[test]
    fn summaries() {
        let account = Account::default();
        assert_eq!(accounts(&[account], Some(3)).summary(), "1 of 3 accounts found");
        assert_eq!(accounts(&[], Some(1)).summary(), "0 of 1 account found");
        assert_eq!(accounts(&[account, account], Some(2)).summary(), "2 accounts");
        assert_eq!(accounts(&[], None).summary(), "0 accounts");
    }

    /// Goal: flags have names, also those nobody knows; statuses have names.
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
