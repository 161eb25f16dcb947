//! `florin inspect replies`: the sessions of the checkpoint with their newest replies.
//!
//! Replies have no zone of their own: the newest of each session is part of the checkpoint, and
//! those since then come from executing the log again.

use std::collections::BTreeMap;
use std::path::Path;

use zerocopy::FromBytes;

use super::document::{Cell, Document};
use super::file::Inspected;
use super::records::{operation_name, results};
use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::CreateResult;
use crate::protocol::{Operation, Pool, to_index};
use crate::vsr::checkpoint::extra_parts;
use crate::vsr::sessions::{Session, Sessions};

const COLUMNS: [&str; 7] = ["slot", "client", "session", "request", "operation", "op", "size"];

/// All sessions, or one in detail.
///
/// # Errors
///
/// If the file cannot be read, the checkpoint is damaged, or there is no such session.
pub fn inspect(path: &Path, slot: Option<u32>) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    let mut document = Document::new();
    let op = inspected.superblock.checkpoint.op;
    let config = inspected.config();
    let mut sessions = Sessions::new(config.clients_max);
    let pool = Pool::new("replies", config.clients_max, config.reply_size_max);
    if let Some(checkpoint) = inspected.checkpoint()? {
        let image = inspected.image(&checkpoint)?;
        let decoded = extra_parts(image.extra).and_then(|(_, bytes)| sessions.decode(bytes, &pool));
        let address = checkpoint.root.index.address;
        decoded.map_err(|fault| inspected.block_damage(address, &fault))?;
    }
    let all = sessions.all();
    let Some(slot) = slot else {
        let rows = (0_u32..).zip(all).map(|(slot, session)| row(slot, session));
        document.facts("checkpoint", vec![("op", Cell::Number(op))]);
        document.rows("sessions", &COLUMNS, rows.collect());
        return Ok(document);
    };
    let Some(session) = all.get(to_index(slot)) else {
        let count = all.len();
        let message = format!("--slot={slot}: the checkpoint has {count} sessions, from 0");
        return Err(Failure::new(ExitClass::Usage, message));
    };
    describe(&mut document, slot, session);
    Ok(document)
}

fn row(slot: u32, session: &Session) -> Vec<Cell> {
    let reply = session.reply.reply();
    vec![
        Cell::Number(slot.into()),
        Cell::Wide(reply.client),
        Cell::Number(session.session),
        Cell::Number(reply.request.into()),
        Cell::Text(operation_name(reply.operation)),
        Cell::Number(reply.op),
        Cell::Bytes(session.reply.size().into()),
    ]
}

fn describe(document: &mut Document, slot: u32, session: &Session) {
    let reply = session.reply.reply();
    let facts = vec![
        ("slot", Cell::Number(slot.into())),
        ("client", Cell::Wide(reply.client)),
        ("session", Cell::Number(session.session)),
        ("place", Cell::Number(session.place.into())),
        ("release", Cell::text(reply.frame.release.to_string())),
        ("request", Cell::Number(reply.request.into())),
        ("operation", Cell::Text(operation_name(reply.operation))),
        ("op", Cell::Number(reply.op)),
        ("commit", Cell::Number(reply.commit)),
        ("view", Cell::Number(reply.frame.view.into())),
        ("timestamp_ns", Cell::Number(reply.timestamp)),
        ("timestamp", Cell::Time(reply.timestamp)),
        ("size", Cell::Bytes(session.reply.size().into())),
        ("request_checksum", Cell::Checksum(reply.request_checksum)),
        ("context", Cell::Checksum(reply.context)),
        ("checksum", Cell::Checksum(reply.frame.checksum)),
        ("checksum_body", Cell::Checksum(reply.frame.checksum_body)),
    ];
    document.facts("reply", facts);
    let Ok(operation) = Operation::try_from(reply.operation) else { return };
    let results = match results(operation, session.reply.body()) {
        Ok(results) => results,
        Err(error) => {
            document.note(format!("The results do not decode: {error}"));
            return;
        }
    };
    let mut counts = BTreeMap::<String, u64>::new();
    for result in &results {
        *counts.entry(result_name(operation, result)).or_default() += 1;
    }
    let rows = counts.into_iter().map(|(name, count)| vec![Cell::Text(name), Cell::Count(count)]);
    document.rows("results", &["result", "count"], rows.collect());
}

/// The status of a created record; of everything else, that it is a record.
fn result_name(operation: Operation, bytes: &[u8]) -> String {
    if !operation.is_create() {
        return "record".to_owned();
    }
    let status = CreateResult::read_from_bytes(bytes).map_or(0, |result| result.status);
    let name = if operation == Operation::CreateAccounts {
        CreateAccountStatus::try_from(status).map(|status| status.to_string())
    } else {
        CreateTransferStatus::try_from(status).map(|status| status.to_string())
    };
    name.unwrap_or_else(|_| status.to_string())
}
