//! `florin balance` and `export` of balances against a model, at every moment of a random history.

use crate::export::{Seen, balances, shown};
use crate::program::florin;
use crate::server::{Servers, text};
use florin::client::{Client, Options};
use florin::protocol::types::{
    Account, ChangeEvent, ChangeEventsFilter, Transfer, account_flags, change_event_type,
    transfer_flags,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::process::Output;
use zerocopy::FromZeros;

const ACCOUNTS: u128 = 5;
/// Steps of each part of the history; between the parts all timeouts pass.
const STEPS: u32 = 30;
const PARTS: u32 = 3;

/// A model that derives balances from amounts: each event changes both accounts.
#[derive(Clone, Debug)]
struct Model {
    accounts: BTreeMap<u128, Seen>,
    /// Open pending transfers.
    open: BTreeMap<u128, ChangeEvent>,
}

impl Model {
    /// Adds to one side of both accounts; a negative amount is subtracted.
    fn add(&mut self, event: &ChangeEvent, pending: i128, posted: i128) {
        let sum = |balance: &mut u128, change: i128| {
            *balance = balance.checked_add_signed(change).expect("no balance is negative");
        };
        let debit = self.accounts.get_mut(&event.debit_account_id).unwrap();
        sum(&mut debit.0, pending);
        sum(&mut debit.1, posted);
        let credit = self.accounts.get_mut(&event.credit_account_id).unwrap();
        sum(&mut credit.2, pending);
        sum(&mut credit.3, posted);
    }

    /// Closes the accounts that a pending transfer closes, or opens them again.
    fn close(&mut self, pending: &ChangeEvent, is_closed: bool) {
        for (flag, id) in [
            (transfer_flags::CLOSING_DEBIT, pending.debit_account_id),
            (transfer_flags::CLOSING_CREDIT, pending.credit_account_id),
        ] {
            if pending.transfer_flags & flag != 0 {
                let flags = &mut self.accounts.get_mut(&id).unwrap().4;
                *flags = *flags & !account_flags::CLOSED
                    | if is_closed { account_flags::CLOSED } else { 0 };
            }
        }
    }

    fn apply(&mut self, event: &ChangeEvent) {
        let signed = |amount: u128| i128::try_from(amount).unwrap();
        let amount = signed(event.transfer_amount);
        match event.type_ {
            change_event_type::SINGLE_PHASE => self.add(event, 0, amount),
            change_event_type::TWO_PHASE_PENDING => {
                self.add(event, amount, 0);
                self.close(event, true);
                self.open.insert(event.transfer_id, *event);
            }
            kind => {
                let is_expiry = kind == change_event_type::TWO_PHASE_EXPIRED;
                let id = if is_expiry { event.transfer_id } else { event.transfer_pending_id };
                let pending = self.open.remove(&id).expect("what was pending is resolved once");
                let is_posted = kind == change_event_type::TWO_PHASE_POSTED;
                let posted = if is_posted { amount } else { 0 };
                self.add(&pending, -signed(pending.transfer_amount), posted);
                if !is_posted {
                    self.close(&pending, false);
                }
            }
        }
    }
}

/// Steps at random on a server.
struct History {
    client: Client,
    random: ChaCha8Rng,
    next_id: u128,
}

impl History {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// A transfer of any kind; it may be refused, since the account is closed.
    fn step(&mut self, open: &[u128]) {
        self.next_id += 1;
        let debit = u128::from(self.below(5)) + 1;
        let credit = (debit + u128::from(self.below(4))) % ACCOUNTS + 1;
        let mut transfer = Transfer {
            id: self.next_id,
            debit_account_id: debit,
            credit_account_id: credit,
            amount: u128::from(self.below(100)),
            ledger: 7,
            code: 1,
            ..Transfer::default()
        };
        let resolves = !open.is_empty() && self.below(10) < 4;
        if resolves {
            let pick = self.below(u64::try_from(open.len()).unwrap());
            transfer = Transfer {
                id: self.next_id,
                pending_id: open[usize::try_from(pick).unwrap()],
                ..Transfer::default()
            };
            transfer.flags = transfer_flags::VOID_PENDING_TRANSFER;
            if self.below(2) == 0 {
                // The whole amount, or a part; the ledger refuses a larger amount.
                let part = u128::from(self.below(60));
                transfer.flags = transfer_flags::POST_PENDING_TRANSFER;
                transfer.amount = if part < 30 { u128::MAX } else { part };
            }
        } else if self.below(10) < 6 {
            transfer.flags = transfer_flags::PENDING;
            transfer.timeout = u32::try_from(self.below(2)).unwrap();
            transfer.flags |= match self.below(8) {
                0 => transfer_flags::CLOSING_CREDIT,
                1 => transfer_flags::CLOSING_DEBIT,
                _ => 0,
            };
        }
        assert_eq!(self.client.create_transfers(&[transfer]).unwrap().len(), 1);
    }

    /// Returns all events.
    fn events(&mut self) -> Vec<ChangeEvent> {
        let filter = ChangeEventsFilter { limit: 2730, ..ChangeEventsFilter::new_zeroed() };
        self.client.get_change_events(&filter).unwrap()
    }

    /// Waits until no transfer with a timeout is pending.
    fn expire(&mut self, start: &Model) {
        loop {
            let mut model = start.clone();
            self.events().iter().for_each(|event| model.apply(event));
            if model.open.values().all(|pending| pending.transfer_timeout == 0) {
                return;
            }
        }
    }
}

/// Creates accounts and executes a random history.
fn make(servers: &Servers) -> (Model, Vec<ChangeEvent>) {
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    let flags = |id: u128| if id == 1 { account_flags::HISTORY } else { 0 };
    let accounts = (1..=ACCOUNTS).map(|id| Account {
        id,
        ledger: 7,
        code: 1,
        flags: flags(id),
        ..Account::default()
    });
    let accounts: Vec<Account> = accounts.collect();
    client.create_accounts(&accounts).unwrap();
    let start = Model {
        accounts: (1..=ACCOUNTS).map(|id| (id, (0, 0, 0, 0, flags(id)))).collect(),
        open: BTreeMap::new(),
    };
    let mut history = History { client, random: ChaCha8Rng::seed_from_u64(7), next_id: 100 };
    for _ in 0..PARTS {
        for _ in 0..STEPS {
            let mut model = start.clone();
            history.events().iter().for_each(|event| model.apply(event));
            let open: Vec<u128> = model.open.keys().copied().collect();
            history.step(&open);
        }
        history.expire(&start);
    }
    (start, history.events())
}

fn check_one(output: &Output, expected: &Seen, words: &[&str]) {
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(&shown(&row), expected, "{words:?}");
}

/// Goal: at the moment of every event, and just before the next, the cluster and its data file give
/// the balances that follow from the amounts of all events until then: for plain, posted, voided,
/// expired and closing transfers, of accounts with and without history.
#[test]
fn random_history() {
    let mut servers = Servers::single("balances-random");
    let (start, events) = make(&servers);
    let kinds: std::collections::BTreeSet<u8> = events.iter().map(|event| event.type_).collect();
    assert_eq!(kinds.len(), 5, "all kinds of events happened: {kinds:?}");
    let path = servers.path().display().to_string();
    // The same moments from the server, and then from the file of the server that was killed.
    for is_online in [true, false] {
        let run = |words: &[&str]| {
            if is_online {
                return servers.output(words);
            }
            florin().args(words).arg(&path).output().unwrap()
        };
        let mut model = start.clone();
        for (index, event) in events.iter().enumerate() {
            model.apply(event);
            let next = events.get(index + 1).map(|next| next.timestamp - 1);
            let other = u128::try_from(index).unwrap() % ACCOUNTS + 1;
            for (at, id) in [
                (Some(event.timestamp), event.debit_account_id),
                (next, event.credit_account_id),
                (next, other),
            ] {
                let at = at.map_or_else(|| "now".to_owned(), |at| at.to_string());
                let (at, account) = (format!("--at={at}"), format!("--account={id}"));
                let words = ["balance", &account, &at, "--format=json"];
                check_one(&run(&words), &model.accounts[&id], &words);
            }
            if index % 8 == 0 {
                let at = format!("--at={}", event.timestamp);
                let output = run(&["export", "--what=balances", "--format=jsonl", &at]);
                assert_eq!(balances(&text(&output.stdout)), model.accounts, "{at}");
            }
        }
        if is_online {
            servers.end(0, "-KILL");
        }
    }
}

/// Goal: any number of commands that ask one question and end leave an idle client its session.
#[test]
fn many_commands_beside_an_idle_client() {
    let servers = Servers::single("idle-client");
    let address = servers.addresses.clone();
    let mut idle = Client::connect(0, address.as_str(), &Options::default()).unwrap();
    let account = Account { id: 1, ledger: 7, code: 1, ..Account::new_zeroed() };
    idle.create_accounts(&[account]).unwrap();
    // More than the sessions of a cluster.
    for _ in 0..70 {
        servers.stdout(&["balance", "--account=1"]);
    }
    assert_eq!(idle.lookup_accounts(&[1]).unwrap().len(), 1, "it has its session still");
}
