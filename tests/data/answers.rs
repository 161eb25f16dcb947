//! `lookup_accounts`, `export` and `balance` of a server and of its data file give one answer: that
//! of a model which knows only the requests and their times. The histories are random, with pending
//! transfers, expiries, chains, closing accounts and late imports.

use crate::program::florin;
use crate::server::{Servers, text};
use florin::client::{Client, Options};
use florin::protocol::types::{
    AMOUNT_MAX, Account, AccountFilter, ChangeEventsFilter, Transfer, account_filter_flags,
    account_flags, change_event_type, transfer_flags,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::FromZeros;

const CREATED: u32 = u32::MAX;
const LEDGER: u32 = 7;
/// Parts of a history; between them all timeouts pass, and old books are imported.
const PARTS: u32 = 2;
const MOMENTS: u64 = 20;

/// Four balances, flags, and the timestamp of their last change.
type Row = (u128, u128, u128, u128, u16, u64);
type State = BTreeMap<u128, Row>;

/// The known facts, each with its time. The model keeps nothing else.
#[derive(Default)]
struct Model {
    /// Accounts with their flags.
    created: Vec<(u64, u128, u16)>,
    /// Transfers that the ledger accepted, with the amount that it moved or held.
    transfers: Vec<Transfer>,
    /// Pending transfers that ran out of time.
    expired: BTreeMap<u128, u64>,
}

impl Model {
    /// Returns the end of a pending transfer up to a moment, and its transfer: `None` for an
    /// expiry.
    fn end(&self, pending: &Transfer, moment: u64) -> Option<(u64, Option<&Transfer>)> {
        let by_transfer = self.transfers.iter().find(|it| it.pending_id == pending.id);
        let by_time = self.expired.get(&pending.id).map(|timestamp| (*timestamp, None));
        let by_transfer = by_transfer.map(|it| (it.timestamp, Some(it)));
        by_transfer.or(by_time).filter(|(timestamp, _)| *timestamp <= moment)
    }

    fn open(&self) -> Vec<Transfer> {
        let is_open = |it: &&Transfer| {
            it.flags & transfer_flags::PENDING != 0 && self.end(it, u64::MAX).is_none()
        };
        self.transfers.iter().filter(is_open).copied().collect()
    }

    fn state(&self, moment: u64) -> State {
        let created = self.created.iter().filter(|(timestamp, ..)| *timestamp <= moment);
        created
            .map(|(timestamp, id, flags)| (*id, self.row(*id, *flags, *timestamp, moment)))
            .collect()
    }

    fn row(&self, id: u128, flags: u16, created: u64, moment: u64) -> Row {
        let mut row = (0, 0, 0, 0, flags, created);
        for transfer in self.transfers.iter().filter(|it| it.timestamp <= moment) {
            let is_debit = transfer.debit_account_id == id;
            if !is_debit && transfer.credit_account_id != id {
                continue;
            }
            let (held, posted) =
                if is_debit { (&mut row.0, &mut row.1) } else { (&mut row.2, &mut row.3) };
            row.5 = row.5.max(transfer.timestamp);
            if transfer.flags & transfer_flags::VOID_PENDING_TRANSFER != 0 {
                continue;
            }
            if transfer.flags & transfer_flags::PENDING == 0 {
                *posted += transfer.amount;
                continue;
            }
            let end = self.end(transfer, moment);
            let closes = if is_debit {
                transfer_flags::CLOSING_DEBIT
            } else {
                transfer_flags::CLOSING_CREDIT
            };
            let is_closing = transfer.flags & closes != 0;
            if end.is_none() {
                *held += transfer.amount;
            }
            let is_posted = end.is_some_and(|(_, by)| {
                by.is_some_and(|it| it.flags & transfer_flags::POST_PENDING_TRANSFER != 0)
            });
            if is_closing && (end.is_none() || is_posted) {
                row.4 |= account_flags::CLOSED;
            }
            if let Some((timestamp, None)) = end
                && (transfer.amount > 0 || is_closing)
            {
                row.5 = row.5.max(timestamp);
            }
        }
        row
    }

    /// All times at which something happened.
    fn times(&self) -> Vec<u64> {
        let created = self.created.iter().map(|(timestamp, ..)| *timestamp);
        let transfers = self.transfers.iter().map(|it| it.timestamp);
        created.chain(transfers).chain(self.expired.values().copied()).collect()
    }

    /// Expiries of an account that are younger than a transfer of it that was imported later.
    fn passed_by(&self) -> usize {
        let is_imported = |it: &&Transfer| it.flags & transfer_flags::IMPORTED != 0;
        let imported = self.transfers.iter().filter(is_imported);
        let both = |it: &Transfer| [it.debit_account_id, it.credit_account_id];
        let passes = |it: &Transfer, pending: &Transfer, expiry: u64| {
            (pending.timestamp..=expiry).contains(&it.timestamp)
                && both(it).iter().any(|id| both(pending).contains(id))
        };
        let pending = |id: &u128| self.transfers.iter().find(|it| it.id == *id).unwrap();
        let expired: Vec<(&Transfer, u64)> =
            self.expired.iter().map(|(id, at)| (pending(id), *at)).collect();
        imported.map(|it| expired.iter().filter(|(hold, at)| passes(it, hold, *at)).count()).sum()
    }

    fn moved(&self, moment: u64) -> u128 {
        let until = self.transfers.iter().filter(|it| it.timestamp <= moment);
        let nothing = transfer_flags::PENDING | transfer_flags::VOID_PENDING_TRANSFER;
        until.filter(|it| it.flags & nothing == 0).map(|it| it.amount).sum()
    }
}

/// Sends random requests to a server, and reports to the model which it accepted.
struct History {
    client: Client,
    random: ChaCha8Rng,
    model: Model,
    next_id: u128,
}

impl History {
    fn new(servers: &Servers, seed: u64) -> History {
        let client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
        let random = ChaCha8Rng::seed_from_u64(seed);
        History { client, random, model: Model::default(), next_id: 100 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn create_accounts(&mut self, accounts: &[Account]) {
        let results = self.client.create_accounts(accounts).unwrap();
        for (account, result) in accounts.iter().zip(results) {
            assert_eq!(result.status, CREATED, "{account:?}");
            let is_imported = account.flags & account_flags::IMPORTED != 0;
            let timestamp = if is_imported { account.timestamp } else { result.timestamp };
            self.model.created.push((timestamp, account.id, account.flags));
        }
    }

    fn create(&mut self, transfers: &[Transfer]) {
        let results = self.client.create_transfers(transfers).unwrap();
        assert_eq!(results.len(), transfers.len());
        for (transfer, result) in transfers.iter().zip(results) {
            if result.status != CREATED {
                continue;
            }
            let mut accepted = *transfer;
            if transfer.flags & transfer_flags::IMPORTED == 0 {
                accepted.timestamp = result.timestamp;
            }
            if let Some(pending) =
                self.model.transfers.iter().find(|it| it.id == transfer.pending_id)
            {
                accepted.debit_account_id = pending.debit_account_id;
                accepted.credit_account_id = pending.credit_account_id;
                let is_void = transfer.flags & transfer_flags::VOID_PENDING_TRANSFER != 0;
                if is_void || transfer.amount == AMOUNT_MAX {
                    accepted.amount = pending.amount;
                }
            }
            self.model.transfers.push(accepted);
        }
    }

    /// Returns a transfer of any kind. The ledger may refuse it: an account may be closed, or the
    /// pending transfer may have ended.
    fn transfer(&mut self, is_imported: bool) -> Transfer {
        self.next_id += 1;
        let accounts: Vec<u128> = self.model.created.iter().map(|(_, id, _)| *id).collect();
        let count = u64::try_from(accounts.len()).unwrap();
        let debit = self.below(count);
        let credit = (debit + 1 + self.below(count - 1)) % count;
        let account = |index: u64| accounts[usize::try_from(index).unwrap()];
        let mut transfer = Transfer {
            id: self.next_id,
            debit_account_id: account(debit),
            credit_account_id: account(credit),
            amount: if self.chance(10) { 0 } else { u128::from(self.below(1000)) },
            ledger: LEDGER,
            code: 1,
            ..Transfer::default()
        };
        let open = self.model.open();
        if !open.is_empty() && self.chance(40) {
            let pick = usize::try_from(self.below(u64::try_from(open.len()).unwrap())).unwrap();
            transfer = Transfer {
                id: self.next_id,
                pending_id: open[pick].id,
                flags: transfer_flags::VOID_PENDING_TRANSFER,
                ..Transfer::default()
            };
            if self.chance(60) {
                let part = u128::from(self.below(500));
                transfer.flags = transfer_flags::POST_PENDING_TRANSFER;
                transfer.amount = if self.chance(50) { AMOUNT_MAX } else { part };
            }
        } else if self.chance(60) {
            transfer.flags = transfer_flags::PENDING;
            if !is_imported {
                transfer.timeout = u32::from(self.chance(80));
            }
            transfer.flags |= match self.below(10) {
                0 => transfer_flags::CLOSING_CREDIT,
                1 => transfer_flags::CLOSING_DEBIT,
                _ => 0,
            };
        }
        if is_imported {
            transfer.flags |= transfer_flags::IMPORTED;
        }
        transfer
    }

    /// Sends requests of one transfer, and chains, some of which break.
    fn live(&mut self, requests: u32) {
        for _ in 0..requests {
            let length = if self.chance(20) { 2 + self.below(3) } else { 1 };
            let mut chain: Vec<Transfer> = (0..length).map(|_| self.transfer(false)).collect();
            let last = chain.len() - 1;
            chain[..last].iter_mut().for_each(|it| it.flags |= transfer_flags::LINKED);
            self.create(&chain);
        }
    }

    /// Waits until all transfers with a timeout have ended.
    fn expire(&mut self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let mut next = 1;
            loop {
                let filter = ChangeEventsFilter {
                    timestamp_min: next,
                    limit: 2730,
                    ..ChangeEventsFilter::new_zeroed()
                };
                let events = self.client.get_change_events(&filter).unwrap();
                let Some(newest) = events.last() else { break };
                next = newest.timestamp + 1;
                for event in events {
                    if event.type_ == change_event_type::TWO_PHASE_EXPIRED {
                        self.model.expired.insert(event.transfer_id, event.timestamp);
                    }
                }
            }
            let open = self.model.open();
            if open.iter().all(|pending| pending.timeout == 0) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "these shall expire: {open:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Old books: an account, and transfers that are newer than all before, but older than some of
    /// the expiries, as old as one, or younger than all.
    fn import(&mut self) {
        let newest = self.model.transfers.iter().map(|it| it.timestamp).max().unwrap();
        let after = |it: &&u64| **it > newest;
        let expiries: Vec<u64> = self.model.expired.values().filter(after).copied().collect();
        let newest_account = self.model.created.iter().map(|it| it.0).max().unwrap();
        if let Some(first) = expiries.iter().min().filter(|it| **it > newest_account + 1) {
            self.next_id += 1;
            let flags = account_flags::IMPORTED;
            let (id, timestamp) = (self.next_id, (*first - 1).max(newest_account + 1));
            let account =
                Account { id, ledger: LEDGER, code: 1, flags, timestamp, ..Account::default() };
            self.create_accounts(&[account]);
        }
        let mut times: BTreeSet<u64> = BTreeSet::new();
        for _ in 0..30 {
            let end = expiries.iter().max().map_or(newest + 1_000_000, |it| it + 1_000_000);
            let count = u64::try_from(expiries.len()).unwrap();
            let time = match self.below(3) {
                0 if count > 0 => expiries[usize::try_from(self.below(count)).unwrap()],
                1 => newest + 1 + self.below(1000),
                _ => newest + 1 + self.below(end - newest),
            };
            let is_account = self.model.created.iter().any(|it| it.0 == time);
            if !is_account {
                times.insert(time);
            }
        }
        for timestamp in times {
            let transfer = Transfer { timestamp, ..self.transfer(true) };
            self.create(&[transfer]);
        }
    }
}

fn number(row: &Value, name: &str) -> u128 {
    row[name].as_str().unwrap().parse().unwrap()
}

fn row_of(row: &Value) -> (u128, Row) {
    let bit = |name: &Value| match name.as_str().unwrap() {
        "history" => account_flags::HISTORY,
        "closed" => account_flags::CLOSED,
        "imported" => account_flags::IMPORTED,
        other => panic!("{other}"),
    };
    let flags = row["flags"].as_array().unwrap().iter().map(bit).sum();
    let timestamp = u64::try_from(number(row, "timestamp")).unwrap();
    let [dp, dt, cp, ct] = ["debits_pending", "debits_posted", "credits_pending", "credits_posted"]
        .map(|name| number(row, name));
    (number(row, "account_id"), (dp, dt, cp, ct, flags, timestamp))
}

/// Runs a command against the source.
fn run(source: &str, words: &[&str]) -> std::process::Output {
    florin().args(words).arg(source).output().unwrap()
}

/// Checks the answers of a source at a moment against the model.
fn check(source: &str, model: &Model, moment: Option<u64>, accounts: &[u128], seed: u64) {
    let at = moment.map_or("--at=now".to_owned(), |moment| {
        format!("--at={}", florin::cli::moment::Rfc3339(moment))
    });
    let name = format!("seed {seed}, {source}, {at}, {moment:?}");
    let state = model.state(moment.unwrap_or(u64::MAX));
    let output = run(source, &["export", "--what=balances", "--format=jsonl", &at]);
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    let lines = text(&output.stdout);
    let rows = lines.lines().map(|line| row_of(&serde_json::from_str(line).unwrap()));
    let rows: Vec<(u128, Row)> = rows.collect();
    assert_eq!(rows.len(), state.len(), "{name}");
    assert_eq!(rows.into_iter().collect::<State>(), state, "export: {name}");
    for id in accounts {
        let account = format!("--account={id}");
        let output = run(source, &["balance", &account, &at, "--format=json"]);
        if let Some(expected) = state.get(id) {
            assert!(output.status.success(), "{name}: {}", text(&output.stderr));
            let row = row_of(&serde_json::from_slice(&output.stdout).unwrap());
            assert_eq!(row, (*id, *expected), "balance: {name}");
        } else {
            assert_eq!(output.status.code(), Some(1), "{name}");
        }
    }
}

fn check_transfers(source: &str, model: &Model, moment: u64) {
    let at = format!("--at={}", florin::cli::moment::Rfc3339(moment));
    let output = run(source, &["export", "--what=transfers", "--format=csv", &at]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = text(&output.stdout);
    let mut lines = output.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    assert_eq!(names.last(), Some(&"posted_amount"));
    let moved = lines.clone().map(|line| line.last().unwrap().parse::<u128>().unwrap());
    assert_eq!(moved.sum::<u128>(), model.moved(moment), "{at}");
    let count = model.transfers.iter().filter(|it| it.timestamp <= moment).count();
    assert_eq!(lines.count(), count, "{at}");
}

/// Checks `lookup_accounts` against the model's present, and the posted balances of
/// `get_account_balances` against the model at the moment of each transfer.
fn check_lookups(history: &mut History) {
    let state = history.model.state(u64::MAX);
    let ids: Vec<u128> = state.keys().copied().collect();
    for account in history.client.lookup_accounts(&ids).unwrap() {
        let row = state[&account.id];
        let seen = (
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
            account.flags,
        );
        assert_eq!(seen, (row.0, row.1, row.2, row.3, row.4), "account {}", account.id);
    }
    let filter = AccountFilter {
        account_id: 1,
        limit: 8189,
        flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS,
        ..AccountFilter::new_zeroed()
    };
    for balance in history.client.get_account_balances(&filter).unwrap() {
        let row = history.model.state(balance.timestamp)[&1];
        assert_eq!((balance.debits_posted, balance.credits_posted), (row.1, row.3));
    }
}

/// Checks one history while it is executed and in the end, and then its data file.
fn history(seed: u64) {
    let mut servers = Servers::single(&format!("answers-{seed}"));
    let mut history = History::new(&servers, seed);
    let accounts: Vec<Account> = (1..=5)
        .map(|id| Account {
            id,
            ledger: LEDGER,
            code: 1,
            flags: if id == 1 { account_flags::HISTORY } else { 0 },
            ..Account::default()
        })
        .collect();
    history.create_accounts(&accounts[..3]);
    history.create_accounts(&accounts[3..]);
    for part in 0..PARTS {
        history.live(if part == 1 && seed.is_multiple_of(2) { 160 } else { 25 });
        history.expire();
        check_lookups(&mut history);
        history.import();
        check_lookups(&mut history);
    }
    // In some, live transfers follow the last import.
    if seed.is_multiple_of(3) {
        history.live(10);
        history.expire();
        check_lookups(&mut history);
    }
    let passed_by = history.model.passed_by();
    println!("seed {seed}: {passed_by} times an import was older than an expiry");
    assert!(passed_by > 0, "seed {seed} has no late import");
    let times = history.model.times();
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    let mut moments = vec![(None, vec![1, 2, 3, 4, 5])];
    for _ in 0..MOMENTS {
        let time = times[usize::try_from(history.below(times.len() as u64)).unwrap()];
        let moment = match history.below(5) {
            0 => time - 1,
            1 => time + 1,
            2 => first + history.below(last - first),
            _ => time,
        };
        let created = history.model.created.len() as u64;
        let pick = |it: u64| history.model.created[usize::try_from(it).unwrap()].1;
        let [one, other] =
            [history.random.next_u64() % created, history.random.next_u64() % created];
        moments.push((Some(moment), vec![pick(one), pick(other)]));
    }
    let online = format!("--addresses={}", servers.addresses);
    let path = servers.path().display().to_string();
    for source in [online, path] {
        for (moment, accounts) in &moments {
            check(&source, &history.model, *moment, accounts, seed);
        }
        for (moment, _) in moments.iter().take(5) {
            check_transfers(&source, &history.model, moment.unwrap_or(last));
        }
        servers.processes[0].is_some().then(|| servers.end(0, "-KILL"));
    }
}

/// Goal: at the present and at every moment, each command gives the balances, flags and times that
/// follow from the facts. Each fact counts from its own timestamp on, also that of a transfer that
/// was imported later. More histories:
/// `FLORIN_ANSWERS_SEEDS=1,2,3,4,5`.
#[test]
fn all_ways_agree() {
    let seeds: Vec<u64> = match std::env::var("FLORIN_ANSWERS_SEEDS") {
        Ok(text) => text.split(',').map(|seed| seed.parse().unwrap()).collect(),
        Err(_) => vec![2, 3],
    };
    let chunks: Vec<Vec<u64>> =
        (0..2).map(|worker| seeds.iter().copied().skip(worker).step_by(2).collect()).collect();
    std::thread::scope(|scope| {
        for chunk in chunks {
            scope.spawn(|| chunk.into_iter().for_each(history));
        }
    });
}

/// Goal: a pending transfer expires, and a transfer is imported that is older than the expiry
/// (found in use: `docs/BUGS.md`, practice, case 9).
#[test]
fn late_import() {
    let mut servers = Servers::single("answers-late");
    servers.say("create_accounts id=1 ledger=1 code=1, id=2 ledger=1 code=1;");
    let transfer = "debit_account_id=1 credit_account_id=2 ledger=1 code=1";
    let hold = servers
        .say_at(&format!("create_transfers id=10 {transfer} amount=70 flags=pending timeout=1;"));
    let count = |servers: &Servers| servers.say("get_change_events;").as_array().unwrap().len();
    while count(&servers) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let imported = hold + 500_000_000;
    servers.say_at(&format!(
        "create_transfers id=11 {transfer} amount=11 flags=imported timestamp={imported};"
    ));
    let ways = |servers: &mut Servers, at: &str| {
        let online = format!("--addresses={}", servers.addresses);
        let path = servers.path().display().to_string();
        let mut answers = Vec::new();
        for source in [online, path] {
            if !source.starts_with("--") {
                servers.end(0, "-KILL");
            }
            let all = run(&source, &["export", "--format=jsonl", at]);
            let one = run(&source, &["balance", "--account=1", "--format=json", at]);
            for output in [text(&all.stdout), text(&one.stdout)] {
                let row = serde_json::from_str(output.lines().next().unwrap()).unwrap();
                let (pending, posted, ..) = row_of(&row).1;
                answers.push((pending, posted));
            }
        }
        servers.restart();
        answers
    };
    let account = &servers.say("lookup_accounts id=1;")[0];
    assert_eq!((number(account, "debits_pending"), number(account, "debits_posted")), (0, 11));
    assert_eq!(ways(&mut servers, "--at=now"), [(0, 11); 4]);
    assert_eq!(ways(&mut servers, &format!("--at={imported}")), [(70, 11); 4]);
    assert_eq!(ways(&mut servers, &format!("--at={}", imported - 1)), [(70, 0); 4]);
}
