//! What a benchmark found out, for people and for programs.

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

/// What the server used, as far as we could ask.
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

/// All that was found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was generated.
    pub plan: Plan,
    /// Sessions.
    pub clients: u32,
    /// Creating the accounts.
    pub accounts: Phase,
    /// Creating the transfers.
    pub transfers: Phase,
    /// The queries.
    pub queries: Phase,
    /// Accounts and transfers that were read back and found right.
    pub validated: Option<(u64, u64)>,
    /// If the server was ours.
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
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    // Saturates; rates and ratios are neither negative nor large.
    value.round() as u64
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", ratio(bytes, 1 << 20))
}

/// Latencies in milliseconds with all microseconds.
fn latency_text(latency_us: &Histogram<u64>) -> String {
    if latency_us.is_empty() {
        return "-".to_owned();
    }
    let mut text = String::new();
    for (name, percentile) in PERCENTILES {
        let value = latency_us.value_at_percentile(percentile);
        let separator = if text.is_empty() { "" } else { "  " };
        write!(text, "{separator}{name} {}.{:03}", value / 1000, value % 1000)
            .expect("writing to a string");
    }
    text
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
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for (name, phase) in [("accounts", &self.accounts), ("transfers", &self.transfers)] {
            if phase.batches == 0 {
                continue;
            }
            lines.push(format!(
                "{name}: {} in {:.3} s: {} per second",
                thousands(phase.events),
                float(phase.duration_ns) / 1e9,
                thousands(whole(rate(phase.events, phase.duration_ns))),
            ));
            lines.push(format!("  batch latency, ms: {}", latency_text(&phase.latency_us)));
        }
        if self.queries.batches > 0 {
            lines.push(format!(
                "queries: {} by account in {:.3} s, {} transfers read",
                thousands(self.queries.batches),
                float(self.queries.duration_ns) / 1e9,
                thousands(self.queries.events),
            ));
            lines.push(format!("  latency, ms: {}", latency_text(&self.queries.latency_us)));
        }
        if let Some((accounts, transfers)) = self.validated {
            lines.push(format!(
                "validated: {} accounts, {} transfers",
                thousands(accounts),
                thousands(transfers)
            ));
        }
        if let Some(server) = &self.server {
            self.server_text(server, &mut lines);
        }
        lines.join("\n")
    }

    fn server_text(&self, server: &ServerUsage, lines: &mut Vec<String>) {
        let transfers = self.transfers.events;
        let processor_ns = server.after.processor_ns - server.before.processor_ns;
        let written = server.after.written_bytes - server.before.written_bytes;
        let file = server.after.file_bytes;
        let growth = file.saturating_sub(server.file_bytes_at_birth);
        lines.push("server:".to_owned());
        lines.push(format!(
            "  processor time per transfer: {} ns ({:.2} s in all)",
            whole(ratio(processor_ns, transfers)),
            float(processor_ns) / 1e9
        ));
        lines.push(format!("  peak memory: {}", mebibytes(server.end.memory_peak_bytes)));
        lines.push(format!(
            "  written per transfer: {:.1} bytes ({} in all)",
            ratio(written, transfers),
            mebibytes(written)
        ));
        lines.push(format!(
            "  data file per transfer: {:.1} bytes ({} in all), {:.1} bytes ({}) since its birth",
            ratio(file, transfers),
            mebibytes(file),
            ratio(growth, transfers),
            mebibytes(growth),
        ));
    }

    /// For programs: one JSON object.
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

    /// Goal: the text for people has the rates, the percentiles and what the server used.
    #[test]
    fn text() {
        let text = report().text();
        let expected = [
            "transfers: 1,000,000 in 2.000 s: 500,000 per second",
            "p50 0.500",
            "p100 1.000",
            "validated: 10 accounts, 1,000,000 transfers",
            "processor time per transfer: 1000 ns (1.00 s in all)",
            "peak memory: 64.0 MiB",
            "written per transfer: 300.0 bytes (286.1 MiB in all)",
            "data file per transfer: 350.0 bytes (333.8 MiB in all), 250.0 bytes (238.4 MiB)",
        ];
        for part in expected {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
        assert!(!text.contains("queries"), "{text}");
    }

    /// Goal: the object for programs has the same numbers, unrounded.
    #[test]
    fn json_object() {
        let value = report().json();
        assert_eq!(value["options"]["seed"], 42);
        assert_eq!(value["options"]["id_order"], "tbid");
        assert_eq!(value["transfers"]["events_per_second"], 500_000.0);
        assert_eq!(value["transfers"]["batch_latency_us"]["p100"], 1000);
        assert_eq!(value["server"]["processor_ns_per_transfer"], 1000.0);
        assert_eq!(value["server"]["file_growth_bytes_per_transfer"], 250.0);
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
        assert_eq!(latency_text(&Phase::new().latency_us), "-");
        assert_eq!(whole(2.5), 3);
    }
}
