//! Logs the progress of a replica that opens its data file: a line a second, and one at the end.
//!
//! Not covered: the start before the loop turns (`florin start` reports that), what happens in the
//! cluster afterwards ([`cluster_report`](super::cluster_report)).

use std::fmt;

use super::log::info;
use super::notify::StatusLine;
use crate::vsr::{Report, Standing};

/// Looks between two lines: a second.
const LINE_LOOKS: u64 = 10;

/// Decides when to log.
#[derive(Debug, Default)]
pub struct OpeningReport {
    looks: u64,
    is_over: bool,
}

impl OpeningReport {
    /// Looks at the replica; to be called every tenth of a second.
    pub fn look(&mut self, report: &Report) {
        if let Some(message) = self.message(report) {
            info(format_args!("{message}"));
        }
    }

    fn message<'a>(&mut self, report: &'a Report) -> Option<OpeningMessage<'a>> {
        if self.is_over {
            return None;
        }
        self.looks += 1;
        match report.standing {
            Standing::Stopped => None,
            Standing::Opening | Standing::Replaying => {
                let is_due = self.looks.is_multiple_of(LINE_LOOKS);
                is_due.then_some(OpeningMessage::Continues(report))
            }
            _ => {
                self.is_over = true;
                Some(OpeningMessage::Ends(report))
            }
        }
    }
}

/// Contents of a line.
enum OpeningMessage<'a> {
    Continues(&'a Report),
    Ends(&'a Report),
}

impl fmt::Display for OpeningMessage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpeningMessage::Continues(report) => write!(formatter, "{}", StatusLine(report)),
            OpeningMessage::Ends(report) => {
                let Report { checkpoint_op, op, .. } = report;
                write!(
                    formatter,
                    "data file opened: checkpoint of op {checkpoint_op}, log to op {op}"
                )
            }
        }
    }
}
