//! Metrics as Prometheus reads them: text, exposition format 0.0.4, into a fixed buffer.

use std::fmt::{self, Write};

use super::Metrics;
use super::catalogue::{BUCKET_BOUNDS_NS, Kind, LabelValue, Metric, PREFIX, Unit};

/// Bytes that the text of all metrics takes at most.
pub const TEXT_MAX: usize = 96 * 1024;

/// A buffer that is written as text. What does not fit is cut off.
#[derive(Debug)]
pub struct Text<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// Nothing in this buffer yet.
    pub fn new(buffer: &'a mut [u8]) -> Text<'a> {
        Text { buffer, length: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes that were written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Forgets what was written after the first `length` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.length);
        self.length = length;
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.buffer.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Writes characters one by one, so that a text that does not fit is cut between two of them.
pub struct Characters<'a, 'b>(pub &'a mut Text<'b>);

impl Write for Characters<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.write_char(character))
    }
}

/// A value in its unit: seconds are kept in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Value(pub i64, pub Unit);

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value(value, unit) = *self;
        if unit != Unit::Seconds {
            return write!(formatter, "{value}");
        }
        let sign = if value < 0 { "-" } else { "" };
        let (whole, mut rest) =
            (value.unsigned_abs() / 1_000_000_000, value.unsigned_abs() % 1_000_000_000);
        if rest == 0 {
            return write!(formatter, "{sign}{whole}");
        }
        let mut digits = 9;
        while rest.is_multiple_of(10) {
            rest /= 10;
            digits -= 1;
        }
        write!(formatter, "{sign}{whole}.{rest:0digits$}")
    }
}

/// Writes all metrics.
///
/// # Errors
///
/// If they do not fit, which a buffer of [`TEXT_MAX`] bytes prevents.
pub fn write_all(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let identity = &metrics.identity;
    writeln!(text, "# HELP {PREFIX}info The version and place of this replica; always 1.")?;
    writeln!(text, "# TYPE {PREFIX}info gauge")?;
    writeln!(
        text,
        "{PREFIX}info{{version=\"{}\",cluster=\"{}\",replica=\"{}\",replica_count=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION"),
        identity.cluster,
        identity.replica,
        identity.replica_count
    )?;
    for metric in Metric::ALL {
        let definition = metric.definition();
        let (name, kind) = (definition.name, definition.kind.name());
        writeln!(text, "# HELP {PREFIX}{name} {}", definition.help)?;
        writeln!(text, "# TYPE {PREFIX}{name} {kind}")?;
        for place in 0..definition.label.count() {
            if definition.kind == Kind::Histogram {
                write_histogram(metrics, *metric, place, text)?;
            } else {
                write_value(metrics, *metric, place, text)?;
            }
        }
    }
    Ok(())
}

fn write_value(
    metrics: &Metrics,
    metric: Metric,
    place: usize,
    text: &mut Text<'_>,
) -> fmt::Result {
    let definition = metric.definition();
    let Some(value) = metrics.get(metric, place) else { return Ok(()) };
    let label = definition.label.value(place);
    let sparse = definition.label.is_sparse() && place > 0 && value == 0;
    let unnamed = label == LabelValue::None && definition.label.count() > 1;
    if sparse || unnamed {
        return Ok(());
    }
    let (name, value) = (definition.name, Value(value, definition.unit));
    if label == LabelValue::None {
        writeln!(text, "{PREFIX}{name} {value}")
    } else {
        writeln!(text, "{PREFIX}{name}{{{}=\"{label}\"}} {value}", definition.label.name())
    }
}

fn write_histogram(
    metrics: &Metrics,
    metric: Metric,
    place: usize,
    text: &mut Text<'_>,
) -> fmt::Result {
    let definition = metric.definition();
    let name = definition.name;
    let (label, value) = (definition.label.name(), definition.label.value(place));
    let histogram = metrics.histogram(metric, place);
    let mut count = 0_u64;
    for (bucket, bound) in histogram.iter().zip(BUCKET_BOUNDS_NS) {
        count = count.wrapping_add(*bucket);
        let bound = Value(bound.cast_signed(), Unit::Seconds);
        writeln!(text, "{PREFIX}{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {count}")?;
    }
    count = count.wrapping_add(histogram[BUCKET_BOUNDS_NS.len()]);
    let sum = Value(histogram[BUCKET_BOUNDS_NS.len() + 1].cast_signed(), Unit::Seconds);
    writeln!(text, "{PREFIX}{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {count}")?;
    writeln!(text, "{PREFIX}{name}_sum{{{label}=\"{value}\"}} {sum}")?;
    writeln!(text, "{PREFIX}{name}_count{{{label}=\"{value}\"}} {count}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::io::metrics::Identity;
    use crate::vsr::Stage;
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    /// Samples by name with labels, of a text in which every line is checked.
    pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let (mut helped, mut typed) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(name.starts_with(PREFIX) && !help.is_empty(), "{line}");
                name.clone_into(&mut helped);
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                name.clone_into(&mut typed);
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| {
                let base = name.strip_suffix(end)?;
                (base == typed).then_some(base)
            });
            assert_eq!(base.unwrap_or(name), typed, "{line}");
            let labels = labels.strip_suffix('}').unwrap_or(labels);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once('=').unwrap();
                let quoted = value.len() > 2 && value.starts_with('"') && value.ends_with('"');
                assert!(quoted && key.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
            }
            let previous = samples.insert(sample.to_owned(), value.parse::<f64>().unwrap());
            assert!(previous.is_none(), "{line} is there twice");
        }
        samples
    }

    fn text_of(metrics: &Metrics) -> String {
        let mut buffer = vec![0; TEXT_MAX];
        let mut text = Text::new(&mut buffer);
        write_all(metrics, &mut text).unwrap();
        String::from_utf8(text.bytes().to_vec()).unwrap()
    }

    /// Goal: every line is as Prometheus wants it, each metric has help and type once, and values
    /// are in their units.
    #[test]
    fn exposition() {
        let metrics = Metrics::new(Identity { cluster: 7, replica: 1, replica_count: 3 });
        metrics.set_signed(Metric::ClockOffset, -1_500);
        metrics.set_at(Metric::TransferResults, 54, 3);
        metrics.set_at(Metric::ReplicaLag, 2, 9);
        metrics.record_stage(Stage::Log, 30_000);
        metrics.record_stage(Stage::Log, 20_000_000_000);
        let text = text_of(&metrics);
        let samples = parse(&text);
        let near = |name: &str, expected: f64| {
            assert!((samples[name] - expected).abs() < 1e-12, "{name}: {}", samples[name]);
        };
        near("florin_clock_offset_seconds", -0.000_001_5);
        near("florin_transfer_results_total{status=\"exceeds_credits\"}", 3.0);
        near("florin_transfer_results_total{status=\"created\"}", 0.0);
        near("florin_replica_lag_ops{replica=\"2\"}", 9.0);
        near("florin_stage_seconds_bucket{stage=\"log\",le=\"0.00002\"}", 0.0);
        near("florin_stage_seconds_bucket{stage=\"log\",le=\"0.00005\"}", 1.0);
        near("florin_stage_seconds_bucket{stage=\"log\",le=\"10\"}", 1.0);
        near("florin_stage_seconds_bucket{stage=\"log\",le=\"+Inf\"}", 2.0);
        near("florin_stage_seconds_count{stage=\"log\"}", 2.0);
        near("florin_stage_seconds_sum{stage=\"log\"}", 20.000_03);
        assert!(!text.contains("exceeds_debits") && !text.contains("replica=\"3\""));
        assert_eq!(text.matches("# HELP ").count(), Metric::ALL.len() + 1);
        assert_eq!(text.matches("# TYPE ").count(), Metric::ALL.len() + 1);
        assert!(text.ends_with('\n'));
    }

    /// Goal: there is room for all metrics whatever their values are.
    #[test]
    fn longest() {
        let identity = Identity { cluster: u128::MAX, replica: 255, replica_count: 255 };
        let metrics = Metrics::new(identity);
        for value in metrics.values() {
            value.store(u64::MAX >> 1, Ordering::Relaxed);
        }
        let length = text_of(&metrics).len();
        assert!(length > TEXT_MAX / 4, "{length} bytes: the buffer is larger than need be");
    }

    /// Goal: what does not fit is refused, and what was there before stays.
    #[test]
    fn bounds() {
        let mut buffer = [0; 5];
        let mut text = Text::new(&mut buffer);
        assert!(text.is_empty());
        write!(text, "abcd").unwrap();
        assert!(write!(text, "ef").is_err());
        assert_eq!((text.bytes(), text.len()), (&b"abcd"[..], 4));
        let print = |value, unit| Value(value, unit).to_string();
        assert_eq!(print(1_000_000_000, Unit::Seconds), "1");
        assert_eq!(print(-20, Unit::Seconds), "-0.00000002");
        assert_eq!(print(1_230_000_000, Unit::Seconds), "1.23");
        assert_eq!(print(-5, Unit::Count), "-5");
    }
}
