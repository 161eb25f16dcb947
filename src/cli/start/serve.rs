//! Serves a data file: opens it, makes the replica and its server, and says why they end.

use super::progress::{Progress, Step};
use super::sizes::{
    arriving_max, check_reserved, check_sizes, ledger_options, memory_table, message_pool,
    message_reserve, others, reserved_bytes, store_options,
};
use super::{ExitClass, Failure, Service, no_own_address};
use crate::cli::format::superblock_class;
use crate::client::Random;
use crate::io::bus::{Bus, BusOptions};
use crate::io::clock::Clock;
use crate::io::file::DataFile;
use crate::io::memory::HumanSize;
use crate::io::metrics::Identity;
use crate::io::metrics::catalogue::Metric;
use crate::io::metrics::endpoint::{Endpoint, EndpointError, EndpointOptions};
use crate::io::notify::Notifier;
use crate::io::server::{CONNECTIONS_MAX, ExitReason, Server, ServerError, ServerOptions};
use crate::io::system::{Limit, limit};
use crate::io::{allocator, log, memory, signals};
use crate::ledger::Ledger;
use crate::protocol::about::Hello;
use crate::protocol::{Pool, STANDBYS_MAX, huge_pages};
use crate::storage::Zones;
use crate::storage::grid::GridFaultKind;
use crate::storage::store::Store;
use crate::vsr::scrub::scrub_ns;
use crate::vsr::{Fatal, Replica, ReplicaOptions, Superblock};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Open files beside the connections: the data file, the ring, events, standard streams, metrics
/// with their connections, and what the C library opens to look up a name.
const OPEN_FILES_OTHER: u32 = 32;
/// Disk requests in flight at a time.
const DISK_REQUESTS_MAX: u32 = 128;
/// Large requests that may be arriving at a time.
const LARGE_FRAMES_MAX: u32 = 32;
/// Jobs in flight at a time: the two tables have one each.
const JOBS_MAX: usize = 4;

/// Serves until asked to end; calls `announce` with the address before the memory is frozen.
///
/// # Errors
///
/// If the server cannot be started or cannot continue.
///
/// # Panics
///
/// Never: a replica that stopped says why.
pub fn serve(
    service: &Service,
    progress: Progress,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    let result = serve_until_end(service, progress, announce);
    if let Err(failure) = &result {
        Notifier::from_environment().failed(&failure.message);
    }
    result
}

fn serve_until_end(
    service: &Service,
    progress: Progress,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    allocator::install_panic_hook();
    if !service.is_development {
        huge_pages::prefer();
    }
    progress.step(Step::File);
    let file = DataFile::open(&service.path, 0, service.is_development)?;
    let superblock = superblock_checked(&file, service)?;
    let mut server = server_make(service, &superblock, file, &progress)?;
    let endpoint = endpoint_start(service, &server)?;
    drop(progress);
    check_reserved(&memory_table(service, &superblock));
    announce(server.address());
    if let Some(address) = endpoint.as_ref().and_then(Endpoint::address) {
        log::info(format_args!("metrics at http://{address}/metrics"));
    }
    allocator::freeze();
    match server.run()? {
        ExitReason::Signal(number) => {
            log::info(format_args!("ended by {}", signals::name(number)));
            Ok(())
        }
        ExitReason::InputEnd => Ok(()),
        ExitReason::Fatal => {
            let fatal = *server.core().fatal().expect("a replica that stopped says why");
            let path = service.path.display();
            if matches!(fatal, Fatal::Synced { .. }) {
                log::info(format_args!("{path}: {fatal}"));
                drop(server);
                return Err(start_again());
            }
            Err(Failure::new(fatal_class(&fatal), format!("{path}: {fatal}")))
        }
    }
}

/// The superblock of a file that is whole and belongs to this service.
fn superblock_checked(file: &DataFile, service: &Service) -> Result<Box<Superblock>, Failure> {
    let superblock = file.superblock()?;
    log::set_replica(superblock.replica);
    let size_min = Zones::new(&superblock.config).file_size(0);
    if file.size() < size_min {
        let (path, size) = (service.path.display(), file.size());
        let message = format!("{path} has {size} bytes and must have {size_min}: it was truncated");
        return Err(Failure::new(ExitClass::DataFile, message));
    }
    check_addresses(service, &superblock)?;
    check_sizes(service, &superblock)?;
    check_names(service, &superblock)?;
    Ok(superblock)
}

/// Reserves all memory, listens, and makes the server.
fn server_make(
    service: &Service,
    superblock: &Superblock,
    file: DataFile,
    progress: &Progress,
) -> Result<Server<Replica<Ledger>>, Failure> {
    let table = memory_table(service, superblock);
    let Superblock { cluster, replica, replica_count, .. } = *superblock;
    let kind = if replica < replica_count { "replica" } else { "standby" };
    let replicas = if replica_count == 1 { "replica" } else { "replicas" };
    let total = HumanSize(table.total());
    log::info(format_args!(
        "{kind} {replica} of cluster {cluster} ({replica_count} {replicas}): reserving {total}"
    ));
    // Development may take what others use, and rely on it that little is touched; nobody can take
    // more than there is.
    let check = if service.is_development { memory::check_total } else { memory::check };
    check(table.total())
        .map_err(|error| Failure::new(ExitClass::Machine, format!("{error}\n{table}")))?;
    memory::check_limits("the server", table.total())
        .map_err(|error| Failure::new(ExitClass::Machine, error))?;
    check_open_files(service)?;
    progress.reserve(table.total());
    let pool = message_pool(&superblock.config, others(service));
    let options = server_options(service, superblock)?;
    let core = replica_make(service, superblock, pool.clone())?;
    progress.step(Step::Listen);
    let server = Server::new(options, core, file, pool)
        .map_err(|error| explain_address(service, superblock, error))?;
    match log::format() {
        log::Format::Text => log::info(format_args!("memory reserved:\n{table}")),
        log::Format::Json => log::info(format_args!("memory reserved: {total}")),
    }
    Ok(server)
}

/// Whether the limit of open files is enough for all connections. With a lower one a server would
/// start, and turn clients and other replicas away later.
fn check_open_files(service: &Service) -> Result<(), Failure> {
    let connections = Bus::descriptors_max(CONNECTIONS_MAX, others(service));
    let needed = u64::from(connections + OPEN_FILES_OTHER);
    match limit(Limit::OpenFiles) {
        Ok(Some(limit)) if limit < needed => Err(Failure::new(
            ExitClass::Machine,
            format!(
                "not enough open files: the server needs {needed} and its limit is {limit}; raise \
                 the limit of open files (ulimit -n {needed}, LimitNOFILE={needed})"
            ),
        )),
        _ => Ok(()),
    }
}

/// Starts to publish metrics, if that is wanted.
fn endpoint_start(
    service: &Service,
    server: &Server<Replica<Ledger>>,
) -> Result<Option<Endpoint>, Failure> {
    if !service.monitoring.is_wanted() {
        return Ok(None);
    }
    let (metrics, clock) = server.metrics();
    let options = EndpointOptions {
        listen: service.monitoring.metrics,
        statsd: service.monitoring.statsd,
        file: File::open(&service.path).ok(),
    };
    let reserved = Arc::clone(&metrics);
    let endpoint = Endpoint::start(options, metrics, clock)?;
    reserved.set(Metric::MemoryReserved, reserved_bytes());
    Ok(Some(endpoint))
}

/// Replaces this process by the same program with the same arguments, which opens the data file
/// as it is now; returns only if that fails.
fn start_again() -> Failure {
    Notifier::from_environment().starting(format_args!("starting again"));
    let error = signals::restart();
    let message = format!("the program could not be started again: {error}; start it");
    Failure::new(ExitClass::Error, message)
}

/// Whether there is an address for each replica of the file's cluster, and for us.
fn check_addresses(service: &Service, superblock: &Superblock) -> Result<(), Failure> {
    let (own, count) = (usize::from(superblock.replica), usize::from(superblock.replica_count));
    let listed = service.addresses.len();
    let path = service.path.display();
    let failure = |message: String| Err(Failure::new(ExitClass::Usage, message));
    if listed < count {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of {count} replicas: list all \
             of them, in order"
        ));
    }
    if listed > count + usize::from(STANDBYS_MAX) {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of {count} replicas, which \
             can have at most {STANDBYS_MAX} standbys"
        ));
    }
    if count == 1 && listed > 1 {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of one replica: list one"
        ));
    }
    if own >= listed {
        return failure(format!(
            "--addresses lists {listed} and {path} is of standby {own}: list all {count} \
             replicas, then all standbys, in order of their indexes from zero"
        ));
    }
    Ok(())
}

/// Our own name must have an address; those of others may get theirs later.
fn check_names(service: &Service, superblock: &Superblock) -> Result<(), Failure> {
    for (index, address) in service.addresses.iter().enumerate() {
        let Some(reason) = address.missing() else { continue };
        if index == usize::from(superblock.replica) {
            return Err(no_own_address(address, reason));
        }
        log::warn(format_args!(
            "replica {index}: no address of {address}: {reason}; looking it up until there is one"
        ));
    }
    Ok(())
}

/// Adds what to do about an address that cannot be listened on: in a cluster the file may be wrong
/// and not the address.
fn explain_address(service: &Service, superblock: &Superblock, error: ServerError) -> Failure {
    let is_address = matches!(&error, ServerError::Bus(error) if !error.is_limit());
    let mut failure = Failure::from(error);
    if is_address {
        failure.message += service.address_hint;
    }
    if is_address && service.addresses.len() > 1 {
        let (path, own) = (service.path.display(), superblock.replica);
        let position = u32::from(own) + 1;
        failure.message = format!(
            "{} ({path} is of replica {own}, whose address is entry {position} of --addresses)",
            failure.message
        );
    }
    failure
}

fn standby_count(service: &Service, superblock: &Superblock) -> u8 {
    let count = service.addresses.len() - usize::from(superblock.replica_count);
    u8::try_from(count).expect("the list was checked")
}

fn server_options(service: &Service, superblock: &Superblock) -> Result<ServerOptions, Failure> {
    let input: Option<OwnedFd> = if service.is_child {
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        Some(input.map_err(|error| Failure::new(ExitClass::Error, error.to_string()))?)
    } else {
        None
    };
    Ok(ServerOptions {
        identity: Identity {
            cluster: superblock.cluster,
            replica: superblock.replica,
            replica_count: superblock.replica_count,
        },
        bus: BusOptions {
            addresses: service.addresses.clone(),
            replica: superblock.replica,
            clients_max: CONNECTIONS_MAX,
            cluster: superblock.cluster,
            pool_reserve: message_reserve(&superblock.config) + arriving_max(others(service)),
            pool_reserve_replica: message_reserve(&superblock.config),
            large_frames_max: LARGE_FRAMES_MAX,
            sends_total_max: 2 * superblock.config.clients_max,
            hello: Some(Hello {
                cluster: superblock.cluster,
                replica: superblock.replica,
                expected: superblock.replica,
                replica_count: superblock.replica_count,
                nodes: superblock.replica_count + standby_count(service, superblock),
                message_size_max: superblock.config.message_size_max,
                instance: draw_instance()?,
                // The bus knows it.
                listen: [0; 18],
            }),
        },
        disk_requests_max: DISK_REQUESTS_MAX,
        jobs_max: JOBS_MAX,
        clock: Clock::ahead(service.clock_offset),
        print_port: service.is_child,
        input,
        signals: true,
        // Only after the address was announced.
        freeze: false,
        notifier: Notifier::from_environment(),
    })
}

/// Draws a number that no other process has drawn: not zero, which stands for none.
fn draw_instance() -> Result<u64, Failure> {
    Ok(random_from_system()?.below(u64::MAX) + 1)
}

fn random_from_system() -> Result<Random, Failure> {
    Random::from_system().map_err(|error| Failure::new(ExitClass::Error, error.to_string()))
}

fn replica_make(
    service: &Service,
    superblock: &Superblock,
    pool: Pool,
) -> Result<Replica<Ledger>, Failure> {
    let config = &superblock.config;
    let store = Store::new(config, &store_options(service, superblock));
    let ledger = Ledger::new(store, &ledger_options(service, config));
    let seed = random_from_system()?.below(u64::MAX);
    let options = ReplicaOptions {
        cluster: superblock.cluster,
        replica: superblock.replica,
        replica_count: superblock.replica_count,
        standby_count: standby_count(service, superblock),
        seed,
        scrub_ns: scrub_ns(config.block_size, service.scrub_rate),
        config: *config,
        program: service.program,
        release_client_min: service.release_min,
        release_client_max: service.release_max,
    };
    Ok(Replica::new(&options, pool, ledger))
}

/// The class of a failure that ended a replica.
pub(in crate::cli) fn fatal_class(fatal: &Fatal) -> ExitClass {
    match fatal {
        Fatal::Superblock(error) => superblock_class(error),
        Fatal::SuperblockWrite { .. } | Fatal::JournalDisk { .. } => ExitClass::Machine,
        Fatal::Prepare { .. } | Fatal::Program { .. } => ExitClass::DataFile,
        // It starts again instead.
        Fatal::Synced { .. } => ExitClass::Error,
        Fatal::Journal(_)
        | Fatal::Checkpoint { .. }
        | Fatal::Diverged { .. }
        | Fatal::CheckpointDiverged { .. } => ExitClass::Corruption,
        Fatal::Grid(fault) => match fault.kind {
            GridFaultKind::Address | GridFaultKind::Block(_) => ExitClass::Corruption,
            GridFaultKind::Read(_) | GridFaultKind::Write(_) | GridFaultKind::Sync(_) => {
                ExitClass::Machine
            }
        },
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Failure {
        let class = match &error {
            EndpointError::Listen(_) => ExitClass::Network,
            EndpointError::System(_) => ExitClass::Error,
        };
        Failure::new(class, error.to_string())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        let limit = match &error {
            ServerError::System { error, .. } => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => Some("open files (ulimit -n, LimitNOFILE=)"),
                Some(libc::EAGAIN) => Some("threads (ulimit -u, TasksMax=)"),
                _ => None,
            },
            ServerError::Ring(_) | ServerError::Bus(_) => None,
        };
        if let Some(limit) = limit {
            return Failure::new(
                ExitClass::Machine,
                format!("{error}; raise the limit of {limit}"),
            );
        }
        let class = match &error {
            ServerError::Ring(_) => ExitClass::Machine,
            ServerError::Bus(error) if error.is_limit() => ExitClass::Machine,
            ServerError::Bus(_) => ExitClass::Network,
            ServerError::System { .. } => ExitClass::Error,
        };
        Failure::new(class, error.to_string())
    }
}
