//! `florin inspect constants`: the sizes and limits that are built in.

use std::path::Path;

use super::document::{Cell, Document};
use super::file::Inspected;
use crate::cli::exit::Failure;
use crate::protocol::{
    BODY_SIZE_MAX, CLIENTS_MAX, HEADER_SIZE, MESSAGE_SIZE_MAX, REPLICAS_MAX, Release, SECTOR_SIZE,
    STANDBYS_MAX,
};
use crate::storage::zones::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use crate::storage::{Config, Zone, Zones};
use crate::vsr::superblock::{VERSION, VIEW_HEADERS_MAX};

/// Constants of this program; and of a data file, if one is given, or of both geometries that can
/// be made.
///
/// # Errors
///
/// If the file cannot be read.
pub fn inspect(path: Option<&Path>) -> Result<Document, Failure> {
    let mut document = Document::new();
    document.facts(
        "program",
        vec![
            ("version", Cell::text(env!("CARGO_PKG_VERSION"))),
            ("release", Cell::text(Release::SERVER.to_string())),
            ("client_release_min", Cell::text(Release::CLIENT_MIN.to_string())),
            ("client_release_max", Cell::text(Release::CLIENT_MAX.to_string())),
            ("data_file_version", Cell::Number(VERSION.into())),
            ("header_size", Cell::Bytes(HEADER_SIZE.into())),
            ("message_size_max", Cell::Bytes(MESSAGE_SIZE_MAX.into())),
            ("body_size_max", Cell::Bytes(BODY_SIZE_MAX.into())),
            ("sector_size", Cell::Bytes(SECTOR_SIZE.into())),
            ("superblock_copies", Cell::Count(SUPERBLOCK_COPIES.into())),
            ("superblock_copy_size", Cell::Bytes(SUPERBLOCK_COPY_SIZE.into())),
            ("view_headers_max", Cell::Count(VIEW_HEADERS_MAX.into())),
            ("sessions_max", Cell::Count(CLIENTS_MAX.into())),
            ("replicas_max", Cell::Count(REPLICAS_MAX.into())),
            ("standbys_max", Cell::Count(STANDBYS_MAX.into())),
        ],
    );
    if let Some(path) = path {
        let inspected = Inspected::open(path)?;
        document.facts("geometry", config_facts(inspected.config()));
        zone_rows(&mut document, "zones", inspected.config());
    } else {
        document.facts("production", config_facts(&Config::production()));
        zone_rows(&mut document, "production_zones", &Config::production());
        document.facts("development", config_facts(&Config::development()));
        zone_rows(&mut document, "development_zones", &Config::development());
    }
    Ok(document)
}

/// The geometry, field by field.
#[must_use]
pub fn config_facts(config: &Config) -> Vec<(&'static str, Cell)> {
    vec![
        ("block_size", Cell::Bytes(config.block_size.into())),
        ("message_size_max", Cell::Bytes(config.message_size_max.into())),
        ("reply_size_max", Cell::Bytes(config.reply_size_max.into())),
        ("journal_slots", Cell::Count(config.journal_slots.into())),
        ("checkpoint_interval", Cell::Count(config.checkpoint_interval.into())),
        ("release_delay", Cell::Count(config.release_delay.into())),
        ("pipeline_max", Cell::Count(config.pipeline_max.into())),
        ("clients_max", Cell::Count(config.clients_max.into())),
        ("event_bar_rows", Cell::Count(config.event_bar_rows.into())),
        ("account_bar_rows", Cell::Count(config.account_bar_rows.into())),
        ("batch_max", Cell::Count(config.batch_max.into())),
        ("pulse_max", Cell::Count(config.pulse_max.into())),
        ("fan_in", Cell::Count(config.fan_in.into())),
        ("run_levels_max", Cell::Count(config.run_levels_max.into())),
    ]
}

/// Where the zones lie.
pub fn zone_rows(document: &mut Document, name: &'static str, config: &Config) {
    let zones = Zones::new(config);
    let rows = Zone::ALL.map(|zone| {
        let size = zones.size(zone).map_or(Cell::text("grows"), Cell::Bytes);
        vec![Cell::text(zone.to_string()), Cell::Count(zones.start(zone)), size]
    });
    document.rows(name, &["zone", "offset", "size"], rows.to_vec());
}
