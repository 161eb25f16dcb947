//! The report of a benchmark: human-readable, and as JSON.

use super::generate::Plan;
use super::load::Phase;
use super::server::Usage;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Percentiles that are shown, with their names.
const PERCENTILES: [(&str, f64); 11] = [
    ("p1", 1.0),
    ("p5", 5.0),
    ("p10", 10.0),
    ("p25", 25.0),
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p95", 95.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p100", 100.0),
];

/// Resources that the server used, as far as the system reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerUsage {
    /// Size of the data file after it was formatted, in bytes.
    pub file_bytes_at_birth: u64,
    /// Before the transfers.
    pub before: Usage,
    /// After the transfers.
    pub after: Usage,
    /// At the end of everything.
    pub end: Usage,
}

/// The results of a benchmark.
#[derive(Clone, Debug)]
pub struct Report {
    /// The plan of what was generated.
    pub plan: Plan,
    /// Sessions.
    pub clients: u32,
    /// Creating the accounts.
    pub accounts: Phase,
    /// Creating the transfers.
    pub transfers: Phase,
    /// The queries.
    pub queries: Phase,
    /// Number of accounts and transfers that were read back and are the expected ones.
    pub validated: Option<(u64, u64)>,
    /// Present if the server was ours.
    pub server: Option<ServerUsage>,
}

/// A number as a fraction; precise to one part in 10^15.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 { 0.0 } else { float(numerator) / float(denominator) }
}

/// Events per second.
fn rate(events: u64, duration_ns: u64) -> f64 {
    ratio(events, duration_ns) * 1e9
}

/// A whole number with a comma between thousands.
#[must_use]
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A fraction without its decimals.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn whole(value: f64) -> u64 {
    // Saturates; rates and ratios are neither negative nor large.
    value.round() as u64
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", ratio(bytes, 1 << 20))
}

/// Milliseconds with all microseconds.
fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", thousands(us / 1000), us % 1000)
}

/// Rows of cells as lines: the first column to the left, numbers to the right, as wide as need be.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match index {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            }
            .expect("writing to a string");
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn latency_json(latency_us: &Histogram<u64>) -> Value {
    let mut map = Map::new();
    for (name, percentile) in PERCENTILES {
        map.insert(name.to_owned(), latency_us.value_at_percentile(percentile).into());
    }
    map.insert("mean".to_owned(), latency_us.mean().into());
    map.into()
}

fn phase_json(phase: &Phase) -> Value {
    json!({
        "events": phase.events,
        "batches": phase.batches,
        "seconds": float(phase.duration_ns) / 1e9,
        "events_per_second": rate(phase.events, phase.duration_ns),
        "batches_per_second": rate(phase.batches, phase.duration_ns),
        "batch_latency_us": latency_json(&phase.latency_us),
    })
}

impl Report {
    /// Human-readable: no line is longer than 80 columns.
    #[must_use]
    pub fn text(&self) -> String {
        let phases = [
            ("accounts", &self.accounts, self.accounts.events),
            ("transfers", &self.transfers, self.transfers.events),
            ("queries", &self.queries, self.queries.batches),
        ];
        let phases: Vec<_> = phases.into_iter().filter(|(_, it, _)| it.batches > 0).collect();
        let words = |words: [&str; 4]| words.map(str::to_owned).to_vec();
        let mut rows = vec![words(["", "count", "seconds", "per second"])];
        let mut latencies = vec![vec!["latency, ms".to_owned()]];
        for (name, phase, count) in &phases {
            let seconds = float(phase.duration_ns) / 1e9;
            let rate = thousands(whole(rate(*count, phase.duration_ns)));
            rows.push(vec![(*name).to_owned(), thousands(*count), format!("{seconds:.3}"), rate]);
            latencies[0].push((*name).to_owned());
        }
        for (percentile_name, percentile) in PERCENTILES {
            let of = |phase: &Phase| milliseconds(phase.latency_us.value_at_percentile(percentile));
            let mut row = vec![format!("  {percentile_name}")];
            row.extend(phases.iter().map(|(_, phase, _)| of(phase)));
            latencies.push(row);
        }
        let mut lines = columns(&rows);
        self.facts(&mut lines);
        lines.push(String::new());
        lines.extend(columns(&latencies));
        if let Some(server) = &self.server {
            lines.push(String::new());
            self.server_text(server, &mut lines);
        }
        lines.join("\n")
    }

    /// Adds facts about requests and results.
    fn facts(&self, lines: &mut Vec<String>) {
        let batches = self.transfers.batches;
        if batches > 0 {
            lines.push(format!(
                "the transfers in {} requests, {} at a time",
                thousands(batches),
                self.clients
            ));
        }
        if self.queries.batches > 0 {
            lines.push(format!("the queries read {} transfers", thousands(self.queries.events)));
        }
        if let Some((accounts, transfers)) = self.validated {
            let (accounts, transfers) = (thousands(accounts), thousands(transfers));
            lines.push(format!("validated: {accounts} accounts, {transfers} transfers"));
        }
    }

    fn server_text(&self, server: &ServerUsage, lines: &mut Vec<String>) {
        let transfers = self.transfers.events;
        let processor_ns = server.after.processor_ns - server.before.processor_ns;
        let written = server.after.written_bytes - server.before.written_bytes;
        let file = server.after.file_bytes;
        let growth = file.saturating_sub(server.file_bytes_at_birth);
        let bytes = |name: &str, bytes: u64| {
            let each = format!("{:.1} bytes", ratio(bytes, transfers));
            vec![format!("  {name}"), each, mebibytes(bytes)]
        };
        let words = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        let processor = format!("{} ns", whole(ratio(processor_ns, transfers)));
        lines.extend(columns(&[
            words(["server", "per transfer", "in all"]),
            vec![
                "  processor time".to_owned(),
                processor,
                format!("{:.2} s", float(processor_ns) / 1e9),
            ],
            bytes("written", written),
            bytes("data file", file),
            bytes("  without its size at creation", growth),
            vec![
                "  memory at most".to_owned(),
                String::new(),
                mebibytes(server.end.memory_peak_bytes),
            ],
            vec![
                "  slowest disk request".to_owned(),
                String::new(),
                format!("{} ms", milliseconds(server.end.disk_longest_ns / 1000)),
            ],
        ]));
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let plan = &self.plan;
        let server = self.server.map(|server| self.server_json(&server));
        let validated = self
            .validated
            .map(|(accounts, transfers)| json!({ "accounts": accounts, "transfers": transfers }));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "options": {
                "seed": plan.seed,
                "clients": self.clients,
                "account_count": plan.account_count,
                "account_count_hot": plan.account_count_hot,
                "account_distribution": plan.account_distribution.name(),
                "transfer_count": plan.transfer_count,
                "transfer_hot_percent": plan.transfer_hot_percent,
                "transfer_batch_count": plan.transfer_batch_count,
                "transfer_pending": plan.is_pending,
                "id_order": plan.id_order.name(),
                "history": plan.has_history,
                "imported": plan.is_imported,
            },
            "accounts": phase_json(&self.accounts),
            "transfers": phase_json(&self.transfers),
            "queries": phase_json(&self.queries),
            "validated": validated,
            "server": server,
        })
    }

    fn server_json(&self, server: &ServerUsage) -> Value {
        let transfers = self.transfers.events;
        let processor_ns = server.after.processor_ns - server.before.processor_ns;
        let written = server.after.written_bytes - server.before.written_bytes;
        let file = server.after.file_bytes;
        let growth = file.saturating_sub(server.file_bytes_at_birth);
        json!({
            "processor_ns": processor_ns,
            "processor_ns_per_transfer": ratio(processor_ns, transfers),
            "memory_peak_bytes": server.end.memory_peak_bytes,
            "disk_longest_ns": server.end.disk_longest_ns,
            "written_bytes": written,
            "written_bytes_per_transfer": ratio(written, transfers),
            "file_bytes": file,
            "file_bytes_per_transfer": ratio(file, transfers),
            "file_bytes_at_birth": server.file_bytes_at_birth,
            "file_growth_bytes_per_transfer": ratio(growth, transfers),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::benchmark::distribution::Distribution;
    use crate::cli::benchmark::identity::IdOrder;

    fn phase(events: u64, batches: u64, duration_ns: u64) -> Phase {
        let mut phase = Phase { events, batches, duration_ns, ..Phase::new() };
        for batch in 1..=batches {
            phase.latency_us.record(batch * 100).unwrap();
        }
        phase
    }

    fn report() -> Report {
        let usage = |processor_ns, written_bytes, file_bytes| Usage {
            processor_ns,
            written_bytes,
            memory_peak_bytes: 64 << 20,
            file_bytes,
            disk_longest_ns: 76_500_000,
        };
        Report {
            plan: Plan {
                seed: 42,
                account_count: 10,
                account_count_hot: 0,
                account_distribution: Distribution::Uniform,
                account_batch_count: 10,
                transfer_count: 1_000_000,
                transfer_hot_percent: 100,
                transfer_batch_count: 1000,
                id_order: IdOrder::Tbid,
                is_pending: false,
                has_history: true,
                is_imported: false,
            },
            clients: 1,
            accounts: phase(10, 1, 1_000_000),
            transfers: phase(1_000_000, 10, 2_000_000_000),
            queries: Phase::new(),
            validated: Some((10, 1_000_000)),
            server: Some(ServerUsage {
                file_bytes_at_birth: 100_000_000,
                before: usage(500_000_000, 1_000_000, 100_000_000),
                after: usage(1_500_000_000, 301_000_000, 350_000_000),
                end: usage(1_600_000_000, 301_000_000, 350_000_000),
            }),
        }
    }

    /// Goal: the human-readable text has the rates, the percentiles and the use of the server.
    #[test]
    fn text() {
        let text = report().text();
        let expected = [
            "               count  seconds  per second\n",
            "\ntransfers  1,000,000    2.000     500,000\n",
            "\nthe transfers in 10 requests, 1 at a time\n",
            "\nlatency, ms  accounts  transfers\n",
            "\n  p50           0.100      0.500\n",
            "\n  p100          0.100      1.000\n",
            "\nvalidated: 10 accounts, 1,000,000 transfers\n",
            "\nserver                            per transfer     in all\n",
            "\n  processor time                       1000 ns     1.00 s\n",
            "\n  written                          300.0 bytes  286.1 MiB\n",
            "\n  data file                        350.0 bytes  333.8 MiB\n",
            "\n    without its size at creation   250.0 bytes  238.4 MiB\n",
            "\n  memory at most                                 64.0 MiB",
            "\n  slowest disk request                          76.500 ms",
        ];
        for part in expected {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
        assert!(!text.contains("queries"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    /// Goal: the JSON object has the same numbers, unrounded.
    #[test]
    fn json_object() {
        let value = report().json();
        assert_eq!(value["options"]["seed"], 42);
        assert_eq!(value["options"]["id_order"], "tbid");
        assert_eq!(value["transfers"]["events_per_second"], 500_000.0);
        assert_eq!(value["transfers"]["batch_latency_us"]["p100"], 1000);
        assert_eq!(value["server"]["processor_ns_per_transfer"], 1000.0);
        assert_eq!(value["server"]["file_growth_bytes_per_transfer"], 250.0);
        assert_eq!(value["server"]["disk_longest_ns"], 76_500_000);
        assert_eq!(value["validated"]["transfers"], 1_000_000);
        let bare = Report { server: None, validated: None, ..report() }.json();
        assert!(bare["server"].is_null() && bare["validated"].is_null());
    }

    /// Goal: thousands are parted, and nothing divides by zero.
    #[test]
    fn numbers() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(value), text);
        }
        assert!(ratio(1, 0).abs() < f64::EPSILON);
        assert_eq!(
            (milliseconds(7), milliseconds(1_234_567)),
            ("0.007".into(), "1,234.567".into())
        );
        assert_eq!(whole(2.5), 3);
    }
}
