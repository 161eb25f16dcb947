//! The source of records: a cluster or a data file.
//!
//! `export` and `balance` use [`Source`] alone, so that a cluster and its data file give the same
//! answer. They first ask for an [`Extent`], which defines the state to read. That of a cluster is
//! the state of one op, however many questions follow: later transfers are newer than the newest
//! one of that state, later accounts too, and an expiry has the time of the ledger's clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::balances::BalancesAt;
use super::event::{Event, Extent};
use super::offline::DataFileSource;
use super::online::{ClusterSource, VisitAccount};
use crate::cli::environment::{ClusterArguments, refuse_with_path};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::moment::{self, Moment, Rfc3339};
use crate::cli::output::print_error;
use crate::cli::patient::{PatientClient, Stop};
use crate::protocol::types::{Account, Transfer};
use crate::storage::rows::EventKind;

/// Options of a source: a data file or a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct SourceArguments {
    /// Data file of a server that is stopped
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Cluster to connect to
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Time without an answer after which to give up, in seconds [default: 30 for the first answer,
    /// no limit afterwards]
    #[arg(long, value_name = "SECONDS", conflicts_with = "path",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: Option<u64>,
}

/// A source of records.
#[derive(Debug)]
pub enum Source {
    /// A data file.
    DataFile(Box<DataFileSource>),
    /// A cluster.
    Cluster(Box<ClusterSource>),
}

impl SourceArguments {
    /// Opens the source; warns if a data file lacks the newest ops.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or an address is not valid.
    pub fn open(&self, stop: &Stop) -> Result<Source, Failure> {
        if let Some(path) = &self.path {
            refuse_with_path(&["--addresses", "--cluster"])?;
            let source = DataFileSource::open(path)?;
            warn_of_newer(path, &source)?;
            return Ok(Source::DataFile(Box::new(source)));
        }
        let deadline = self.deadline.map(Duration::from_secs);
        let addresses = self.cluster.replicas(deadline)?;
        let client = PatientClient::new(self.cluster.cluster, addresses, deadline, stop.clone());
        Ok(Source::Cluster(Box::new(ClusterSource::new(client))))
    }
}

/// Warns of ops after the checkpoint, which are not in its rows.
fn warn_of_newer(path: &Path, source: &DataFileSource) -> Result<(), Failure> {
    let (op, newer) = (source.checkpoint_op(), source.newer_ops()?);
    if newer > 0 {
        let path = path.display();
        print_error(&format!(
            "warning: {path}: read as of its checkpoint, op {op}. The {newer} ops after it are not \
             included, since the other replicas decide which of them are committed: to include \
             them, use --addresses"
        ));
    }
    Ok(())
}

impl Source {
    /// Returns the extent of the state at a moment.
    ///
    /// # Errors
    ///
    /// If the moment is in the future, or the cluster fails.
    pub fn extent(&mut self, at: Moment) -> Result<Extent, Failure> {
        let (present, clock, whose) = match self {
            Source::DataFile(_) => (Extent::ALL, moment::clock(), "this machine's"),
            Source::Cluster(source) => {
                let present = source.present()?;
                (present, present.last, "the cluster's")
            }
        };
        match at {
            Moment::Now => Ok(present),
            Moment::At(last) if last <= clock => Ok(Extent { last, ..present }),
            Moment::At(_) => Err(Failure::new(
                ExitClass::Usage,
                format!(
                    "--at: {at} is in the future: by {whose} clock it is {}; leave --at out for \
                     the present",
                    Rfc3339(clock)
                ),
            )),
        }
    }

    /// Visits all events of a state. A pending transfer comes before its end; the order is not
    /// defined otherwise.
    ///
    /// # Errors
    ///
    /// If the source or the visitor fails.
    pub fn events(
        &mut self,
        extent: &Extent,
        visit: &mut dyn FnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Source::DataFile(source) => source.events(visit),
            Source::Cluster(source) => source.events(1, extent.last, visit),
        }
    }

    /// Visits all transfers of a state, in the order of their timestamps.
    ///
    /// # Errors
    ///
    /// If the source or the visitor fails.
    pub fn transfers(
        &mut self,
        extent: &Extent,
        visit: &mut dyn FnMut(&Transfer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Source::DataFile(source) => source.events(&mut |event| {
                let is_transfer = event.kind != EventKind::Expired;
                if is_transfer { visit(&event.transfer) } else { Ok(()) }
            }),
            Source::Cluster(source) => {
                source.transfers(extent.last.min(extent.last_transfer), visit)
            }
        }
    }

    /// Visits all accounts that existed, in the order of their timestamps.
    ///
    /// # Errors
    ///
    /// If the source or the visitor fails.
    pub fn accounts(
        &mut self,
        extent: &Extent,
        visit: &mut VisitAccount<'_>,
    ) -> Result<(), Failure> {
        match self {
            Source::DataFile(source) => {
                source.accounts(&mut |account| visit(account, &mut |account| Ok(*account)))
            }
            Source::Cluster(source) => source.accounts(extent.last.min(extent.last_account), visit),
        }
    }

    /// Returns an account as it was created, if it exists.
    ///
    /// # Errors
    ///
    /// If the source fails.
    pub fn account(&mut self, id: u128) -> Result<Option<Account>, Failure> {
        match self {
            Source::DataFile(source) => {
                let mut found = None;
                source.accounts(&mut |account| {
                    found = found.or_else(|| (account.id == id).then_some(*account));
                    Ok(())
                })?;
                Ok(found)
            }
            Source::Cluster(source) => source.account(id),
        }
    }

    /// Adds to `balances` the events of an account up to a moment. `step` is called for each event
    /// that is read.
    ///
    /// # Errors
    ///
    /// If the source or the visitor fails.
    pub fn events_of(
        &mut self,
        account_id: u128,
        extent: &Extent,
        balances: &mut BalancesAt,
        step: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut visit = |balances: &mut BalancesAt, event: &Event| {
            if extent.has(event) {
                balances.add(event)?;
            }
            step()
        };
        match self {
            Source::DataFile(source) => source.events(&mut |event| visit(balances, event)),
            Source::Cluster(source) => {
                let first = source.shorten(account_id, extent, balances)?;
                let visit = &mut |event: &Event| visit(balances, event);
                first.map_or(Ok(()), |first| source.events(first, extent.last, visit))
            }
        }
    }
}
