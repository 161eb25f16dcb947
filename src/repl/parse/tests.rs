//! Goal: each statement good and bad, each mistake at its place, and no text that breaks anything.

use super::*;
use crate::protocol::Operation;
use crate::protocol::types::{
    Account, AccountFilter, ChangeEventsFilter, QueryFilter, Transfer, account_flags,
    transfer_flags,
};
use crate::repl::complete::complete;
use crate::repl::editor::is_finished;
use crate::repl::highlight::highlight;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerocopy::FromBytes;

fn request(text: &str) -> Request {
    match parse(text) {
        Ok(Statement::Request(request)) => request,
        other => panic!("{text}: {other:?}"),
    }
}

fn events<Event: FromBytes>(text: &str, operation: Operation) -> Vec<Event> {
    let request = request(text);
    assert_eq!(request.form.operation, operation, "{text}");
    assert_eq!(request.events.len(), request.count * size_of::<Event>());
    let read = |bytes| Event::read_from_bytes(bytes).unwrap();
    request.events.chunks_exact(size_of::<Event>()).map(read).collect()
}

/// Checks a mistake: what is marked in the text, a part of the message and of what is expected.
fn check(text: &str, marked: &str, message: &str, expected: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(&text[error.span.clone()], marked, "{text}: {error:?}");
    assert!(error.message.contains(message), "{text}: {error:?}");
    assert!(error.expected.contains(expected), "{text}: {error:?}");
    assert!(!error.is_incomplete, "{text}");
}

/// Goal: accounts with all kinds of fields are read as the structures that travel.
#[test]
fn create_accounts() {
    let accounts: Vec<Account> = events(
        "create_accounts id=1 code=10 ledger=700 flags=linked|history,\n id = 0x2 ledger=-0;",
        Operation::CreateAccounts,
    );
    let flags = account_flags::LINKED | account_flags::HISTORY;
    let first = Account { id: 1, code: 10, ledger: 700, flags, ..Account::default() };
    let second = Account { id: 2, ledger: u32::MAX, ..Account::default() };
    assert_eq!(accounts, [first, second]);
    let accounts: Vec<Account> = events(
        "create_accounts user_data_128=-1 user_data_64=5 user_data_32=6 flags=imported \
         timestamp=7 debits_posted=1;",
        Operation::CreateAccounts,
    );
    assert_eq!(accounts[0].user_data_128, u128::MAX - 1);
    assert_eq!((accounts[0].user_data_64, accounts[0].user_data_32), (5, 6));
    assert_eq!((accounts[0].timestamp, accounts[0].debits_posted), (7, 1));
}

/// Goal: mistakes in accounts point at the word that is wrong.
#[test]
fn create_accounts_mistakes() {
    check("create_accounts;", "create_accounts", "needs objects", "ledger");
    check("create_accounts idd=1;", "idd", "did you mean `id`", "ledger, code");
    check("create_accounts amount=1;", "amount", "no field `amount`", "id");
    check("create_accounts id=1 id=2;", "id", "given twice", "`,`");
    check("create_accounts id=1,;", ";", "behind the comma", "id");
    check("create_accounts id=1,,id=2;", ",", "before the comma", "id");
    check("create_accounts , id=2;", ",", "before the comma", "id");
    check("create_accounts id 1;", "1", "unexpected", "`=` behind `id`");
    check("create_accounts id=;", ";", "unexpected", "a number from 0");
    check("create_accounts id=one;", "one", "not a number", "decimal, 0x");
    check("create_accounts code=65536;", "65536", "too large for code", "0 to 65535");
    check("create_accounts id=1 flags=linkd;", "linkd", "did you mean `linked`", "history");
    check("create_accounts id=1 flags=;", ";", "unexpected", "history");
    check("create_accounts id=1 flags=linked|;", ";", "unexpected", "history");
    check("create_accounts id=1 flags=1;", "1", "no flag", "joined by `|`");
    check("create_accounts id=1 | id=2;", "|", "unexpected", "another object");
    check("create_accounts id=\"1\";", "\"", "unexpected", "a number");
    check("create_account id=1;", "create_account", "did you mean `create_accounts`", "help");
    check("create_accounts id=1\nlookup_accounts id=1;", "lookup_accounts", "begins", "`;` before");
    check("create_accounts id=1; id=2;", "id", "unexpected", "one statement at a time");
}

/// Goal: transfers are read, with the amount that stands for all and pending ids.
#[test]
fn create_transfers() {
    let transfers: Vec<Transfer> = events(
        "create_transfers id=1 debit_account_id=1 credit_account_id=2 amount=10 ledger=700 code=10 \
         flags=pending timeout=60, id=2 pending_id=1 amount=-0 flags=post_pending_transfer;",
        Operation::CreateTransfers,
    );
    assert_eq!((transfers[0].amount, transfers[0].timeout), (10, 60));
    assert_eq!(transfers[0].flags, transfer_flags::PENDING);
    assert_eq!((transfers[1].amount, transfers[1].pending_id), (u128::MAX, 1));
    assert_eq!(transfers[1].flags, transfer_flags::POST_PENDING_TRANSFER);
    check("create_transfers amount=1.5;", "1.5", "not a whole number", "the smallest unit");
    check("create_transfers flags=history;", "history", "no flag", "post_pending_transfer");
}

/// Goal: accepted statements that may not be what the user has in mind have notes: numbers that
/// count down from the maximum, and a pending transfer that is posted without an amount.
#[test]
fn hints() {
    let notes = |text: &str| request(text).notes;
    let transfer = "create_transfers id=1 debit_account_id=1 credit_account_id=2 ledger=1 code=1";
    let negative = notes(&format!("{transfer} amount=-5;"));
    let sent = "`amount=-5` counts down from the maximum: \
                340282366920938463463374607431768211450 is sent";
    assert_eq!(negative, [sent]);
    let post = "create_transfers id=2 pending_id=1 flags=post_pending_transfer";
    let [empty] = &notes(&format!("{post};"))[..] else { panic!("one note") };
    assert!(empty.contains("0 of the pending transfer is posted"), "{empty}");
    assert!(empty.contains("`amount=-0` posts all of it"), "{empty}");
    let both = notes(&format!("{post}, id=-3;"));
    assert_eq!(both.len(), 2, "{both:?}");
    for text in [
        format!("{transfer} amount=-0;"),
        format!("{transfer} amount=5 flags=pending;"),
        format!("{post} amount=0;"),
        format!("{post} amount=-0;"),
        "create_transfers id=2 pending_id=1 flags=void_pending_transfer;".to_owned(),
        "lookup_accounts id=-0;".to_owned(),
    ] {
        assert_eq!(notes(&text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(notes(&format!("lookup_accounts {} id=1;", "id=-1,".repeat(9))).len(), NOTES_MAX);
}

/// Goal: flags without a bar, and comments, are mistakes that say what is meant instead.
#[test]
fn habits() {
    let text = "create_accounts id=1 ledger=1 code=1 flags=linked history;";
    check(text, "history", "is a flag, not a field", "`flags=…|history`");
    check("create_accounts history=1;", "history", "is a flag, not a field", "`flags=…|history`");
    for mark in ["#", "--", "//", "/*"] {
        for text in [format!("{mark} all;"), format!("lookup_accounts id=1 {mark} all;")] {
            let error = parse(&text).expect_err(&text);
            assert_eq!(error.message, "statements cannot have comments", "{text}");
            assert!(!error.is_incomplete, "{text}");
        }
    }
}

/// Goal: lookups take ids, each its own object.
#[test]
fn lookups() {
    let ids: Vec<u128> = events("lookup_accounts id=1, id=0xff ,id=-0;", Operation::LookupAccounts);
    assert_eq!(ids, [1, 255, u128::MAX]);
    let ids: Vec<u128> = events("lookup_transfers id=7;", Operation::LookupTransfers);
    assert_eq!(ids, [7]);
    check("lookup_accounts;", "lookup_accounts", "needs `id`", "id=…");
    check("lookup_accounts id=1 id=2;", "id", "given twice", "`,`");
    check("lookup_transfers 1;", "1", "no field", "`id=…`");
    check("lookup_accounts ledger=1;", "ledger", "no field", "`id=…`");
}

/// Goal: questions about an account have defaults, and those that select nothing are refused.
#[test]
fn account_filters() {
    for (name, operation) in [
        ("get_account_transfers", Operation::GetAccountTransfers),
        ("get_account_balances", Operation::GetAccountBalances),
    ] {
        let read = |rest: &str| events::<AccountFilter>(&format!("{name} {rest}"), operation)[0];
        let filter = read("account_id=1;");
        assert_eq!((filter.account_id, filter.flags, filter.limit), (1, 3, 8189));
        assert!(filter.is_valid());
        let filter = read("account_id=1 flags=credits|reversed limit=10 timestamp_max=9 code=3;");
        assert_eq!((filter.flags, filter.limit, filter.timestamp_max), (6, 10, 9));
        assert_eq!(filter.code, 3);
        let bad = |rest: &str, marked: &str, message: &str| {
            check(&format!("{name} {rest}"), marked, message, "");
        };
        bad(";", name, "needs `account_id`");
        bad("account_id=0;", "account_id=0", "no account");
        bad("account_id=-0;", "account_id=-0", "no account");
        bad("account_id=1 limit=0;", "limit=0", "asks for nothing");
        bad("account_id=1 flags=reversed;", "flags=reversed", "neither debits nor credits");
        bad("account_id=1, account_id=2;", ",", "takes one filter");
        bad("account_id=1 timestamp_min=2 timestamp_max=1;", "timestamp_max=1", "before");
        bad("account_id=1 timestamp_min=-0;", "timestamp_min=-0", "as large");
        bad("account_id=1 ledger=1;", "ledger", "no field");
    }
}

/// Goal: queries take any filter, also none.
#[test]
fn queries() {
    for (name, operation) in [
        ("query_accounts", Operation::QueryAccounts),
        ("query_transfers", Operation::QueryTransfers),
    ] {
        let read = |rest: &str| events::<QueryFilter>(&format!("{name} {rest}"), operation)[0];
        assert_eq!((read(";").limit, read(";").flags), (8189, 0));
        let filter = read("ledger=700 code=10 user_data_128=1 flags=reversed limit=2;");
        assert_eq!((filter.ledger, filter.code, filter.user_data_128), (700, 10, 1));
        assert_eq!((filter.flags, filter.limit), (1, 2));
        assert!(filter.is_valid());
        check(&format!("{name} flags=debits;"), "debits", "no flag", "reversed");
        check(&format!("{name} limit=-5 limit=1;"), "limit", "given twice", "once");
        check(&format!("{name} limit=0;"), "limit=0", "asks for nothing", "1 or more");
        check(&format!("{name} id=1;"), "id", "no field", "user_data_128");
    }
}

/// Goal: change events are asked for by time.
#[test]
fn change_events() {
    let read = |rest: &str| {
        let text = format!("get_change_events {rest}");
        events::<ChangeEventsFilter>(&text, Operation::GetChangeEvents)[0]
    };
    assert_eq!(read(";").limit, 2730);
    let filter = read("timestamp_min=5 timestamp_max=6 limit=7;");
    assert_eq!((filter.timestamp_min, filter.timestamp_max, filter.limit), (5, 6, 7));
    assert!(filter.is_valid());
    check("get_change_events flags=reversed;", "flags", "no field", "timestamp_min");
    check("get_change_events limit=4294967296;", "4294967296", "too large", "4294967295");
}

/// Goal: help and exit need no semicolon, and name their mistakes.
#[test]
fn words() {
    for text in ["help", "help;", " help \n"] {
        assert_eq!(parse(text), Ok(Statement::Help(None)), "{text}");
    }
    let form = Form::find("query_accounts");
    assert_eq!(parse("help query_accounts"), Ok(Statement::Help(form)));
    assert_eq!(parse("help query_accounts;"), Ok(Statement::Help(form)));
    for text in ["exit", "exit;", "quit", "quit\n"] {
        assert_eq!(parse(text), Ok(Statement::Exit), "{text}");
    }
    for text in ["", " \n\t", ";", " ; "] {
        assert_eq!(parse(text), Ok(Statement::Empty), "{text:?}");
    }
    check("help query_account", "query_account", "did you mean `query_accounts`", "exit");
    check("exit now", "now", "unexpected", ";");
    check("select 1;", "select", "no operation `select`", "create_accounts");
    check("= 1;", "=", "unexpected", "help or exit");
}

/// Goal: a text that may continue is distinguished from a mistake.
#[test]
fn incomplete() {
    for text in [
        "create_accounts",
        "create_accounts id",
        "create_accounts id=",
        "create_accounts id=1",
        "create_accounts id=1,",
        "create_accounts flags=linked|",
        "query_accounts\n",
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.is_incomplete, "{text}: {error:?}");
        assert_eq!(error.span, text.len()..text.len());
    }
}

/// Goal: the examples of the help are valid.
#[test]
fn examples() {
    for form in &FORMS {
        for line in form.examples.lines() {
            assert_eq!(request(line).form, form, "{line}");
        }
    }
}

/// Changes a text at random: drops, doubles, swaps or replaces a piece, or inserts something.
fn mutate(text: &str, random: &mut ChaCha8Rng) -> String {
    const PIECES: [&str; 16] = [
        ";",
        ",",
        "=",
        "|",
        "-",
        " ",
        "\n",
        "id=1",
        "flags=",
        "0x",
        "ü",
        "\u{2028}",
        "\"",
        "help",
        "_",
        "340282366920938463463374607431768211456",
    ];
    let characters: Vec<char> = text.chars().collect();
    let mut below = |bound: usize| {
        let number = random.next_u64() % u64::try_from(bound.max(1)).unwrap();
        usize::try_from(number).unwrap()
    };
    let start = below(characters.len() + 1);
    let end = (start + below(8)).min(characters.len());
    let piece: String = characters[start..end].iter().collect();
    let (before, after): (String, String) =
        (characters[..start].iter().collect(), characters[end..].iter().collect());
    match below(4) {
        0 => format!("{before}{after}"),
        1 => format!("{before}{piece}{piece}{after}"),
        2 => format!("{before}{}{after}", PIECES[below(PIECES.len())]),
        _ => format!("{after}{piece}{before}"),
    }
}

/// Goal: no text breaks the parser or what the editor asks while it is typed; every mistake lies in
/// the text and can be shown; what is accepted has whole events.
#[test]
fn fuzz() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let pick = |random: &mut ChaCha8Rng, count: usize| {
            usize::try_from(random.next_u64() % u64::try_from(count).unwrap()).unwrap()
        };
        let form = &FORMS[pick(&mut random, FORMS.len())];
        let lines: Vec<&str> = form.examples.lines().collect();
        let mut text = lines[pick(&mut random, lines.len())].to_owned();
        for _ in 0..=pick(&mut random, 4) {
            text = mutate(&text, &mut random);
        }
        let ends: Vec<usize> = text.char_indices().map(|(position, _)| position).collect();
        let cursor = ends.get(pick(&mut random, ends.len() + 1)).copied().unwrap_or(text.len());
        assert!(complete(&text, cursor).start <= cursor, "{text}");
        assert!(highlight(&text).len() >= text.len());
        let _ = is_finished(&text);
        match parse(&text) {
            Ok(Statement::Request(request)) => {
                accepted += 1;
                assert!(request.count > 0);
                assert_eq!(request.events.len(), request.count * request.form.event.size);
            }
            Ok(_) => accepted += 1,
            Err(error) => {
                refused += 1;
                assert!(error.span.start <= error.span.end && error.span.end <= text.len());
                assert!(text.is_char_boundary(error.span.start), "{text}");
                assert!(text.is_char_boundary(error.span.end), "{text}");
                assert!(error.render(&text, 1).contains('^'));
            }
        }
    }
    assert!(accepted > 500 && refused > 5_000, "{accepted} accepted, {refused} refused");
}
