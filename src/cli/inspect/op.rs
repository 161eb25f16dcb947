//! `florin inspect op`: an op of the log with its requests and their events.

use std::path::Path;

use super::document::{Cell, Document};
use super::file::Inspected;
use super::records::{event_rows, events, operation_name};
use super::wal::WalReader;
use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::{PrepareHeader, Requests};
use crate::storage::count_of;
use crate::vsr::journal_recovery::PrepareSeen;

/// An op, if the log has it.
///
/// # Errors
///
/// If the file cannot be read, or the log does not have the op.
pub fn inspect(path: &Path, op: u64) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    let mut reader = WalReader::new(&inspected)?;
    let slot = reader.geometry().slot(op);
    let seen = reader.slot(slot)?;
    if let PrepareSeen::Op(header) = &seen.prepare
        && header.op == op
    {
        let mut document = Document::new();
        describe(&mut document, header, reader.body(header));
        return Ok(document);
    }
    let path = path.display();
    let instead = match &seen.prepare {
        PrepareSeen::Op(header) => format!("the slot holds op {}", header.op),
        PrepareSeen::Blank => "the slot was never used".to_owned(),
        PrepareSeen::Invalid => {
            let offset = reader.geometry().zones.wal_prepare_offset(slot);
            return Err(inspected.damage(offset, &format!("slot {slot} of op {op} is damaged")));
        }
    };
    let message = format!("{path}: op {op} is not in the log: {instead} (slot {slot})");
    Err(Failure::new(ExitClass::Usage, message))
}

/// Adds a verified prepare: its header, its requests and their events.
pub fn describe(document: &mut Document, header: &PrepareHeader, body: &[u8]) {
    let facts = vec![
        ("op", Cell::Number(header.op)),
        ("view", Cell::Number(header.frame.view.into())),
        ("primary", Cell::Number(header.frame.replica.into())),
        ("operation", Cell::Text(operation_name(header.operation))),
        ("commit", Cell::Number(header.commit)),
        ("timestamp_ns", Cell::Number(header.timestamp)),
        ("timestamp", Cell::Time(header.timestamp)),
        ("size", Cell::Bytes(header.frame.size.into())),
        ("release", Cell::text(header.frame.release.to_string())),
        ("checksum", Cell::Checksum(header.frame.checksum)),
        ("checksum_body", Cell::Checksum(header.frame.checksum_body)),
        ("parent", Cell::Checksum(header.parent)),
        ("checkpoint_id", Cell::Checksum(header.checkpoint_id)),
    ];
    document.facts("prepare", facts);
    let requests = match Requests::decode(header, body) {
        Ok(requests) => requests.collect::<Vec<_>>(),
        Err(error) => {
            document.note(format!("The requests do not decode: {error:?}"));
            return;
        }
    };
    let columns = ["client", "session", "request", "operation", "events", "body_size"];
    let rows = requests.iter().map(|request| {
        let count = events(request.operation, request.body).map_or(0, |events| events.len());
        vec![
            Cell::Wide(request.client),
            Cell::Number(request.session),
            Cell::Number(request.request.into()),
            Cell::Text(operation_name(request.operation.into())),
            Cell::Count(count_of(count)),
            Cell::Bytes(count_of(request.body.len())),
        ]
    });
    document.rows("requests", &columns, rows.collect());
    // Events of several requests would need a table for each kind.
    if let [request] = requests.as_slice() {
        match events(request.operation, request.body) {
            Ok(events) => event_rows(document, request.operation, &events),
            Err(error) => document.note(format!("The events do not decode: {error}")),
        }
    }
}
