//! Lines to the operator while a replica is not ready, and once it is again.
//!
//! A warning with the reason of `/readyz` when that has held for five seconds, then each minute, so
//! that a log alone shows that a replica is cut off or stands still. Not covered: the judgement.

use super::log::{Level, write};
use super::metrics::Metrics;
use super::metrics::readiness::write_reason;
use super::metrics::text::Text;
use crate::vsr::Report;

/// Looks, a tenth of a second apart, for which a replica is not ready before that is logged.
const UNREADY_LOOKS: u64 = 50;
/// Looks until it is logged again: a minute.
const REPEAT_LOOKS: u64 = 600;
/// Bytes of a reason at most; what does not fit is cut off.
const REASON_MAX: usize = 1024;

/// When to log. See the module.
#[derive(Debug, Default)]
pub struct ReadinessLog {
    /// Looks since the replica was ready last.
    unready_looks: u64,
    is_logged: bool,
}

/// What to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Unready,
    Ready,
}

impl ReadinessLog {
    /// Looks at the report, which has just been published, every tenth of a second, and logs if
    /// need be. The report judges: what `/readyz` says also depends on the age of what is
    /// published, which another thread measures.
    pub fn look(&mut self, report: &Report, metrics: &Metrics) {
        let unready = report.unready();
        match (self.line(unready.is_none()), unready) {
            (None, _) | (Some(Line::Unready), None) => {}
            (Some(Line::Ready), _) => write(Level::Info, format_args!("ready again")),
            (Some(Line::Unready), Some(reason)) => {
                let mut buffer = [0; REASON_MAX];
                let mut text = Text::new(&mut buffer);
                // What did not fit is left out.
                let _ = write_reason(metrics, reason, &mut text);
                let text = std::str::from_utf8(text.bytes()).unwrap_or("?");
                write(Level::Warning, format_args!("not ready: {}: {text}", reason.name()));
            }
        }
    }

    fn line(&mut self, is_ready: bool) -> Option<Line> {
        if is_ready {
            self.unready_looks = 0;
            return std::mem::take(&mut self.is_logged).then_some(Line::Ready);
        }
        self.unready_looks += 1;
        let due = self.unready_looks % REPEAT_LOOKS == UNREADY_LOOKS;
        self.is_logged |= due;
        due.then_some(Line::Unready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a short time is not logged, a long one after five seconds and each minute, and its end
    /// once.
    #[test]
    fn lines() {
        let mut log = ReadinessLog::default();
        let mut unready = |looks: u64| (0..looks).filter_map(|_| log.line(false)).count();
        assert_eq!(unready(UNREADY_LOOKS - 1), 0);
        assert_eq!(unready(1), 1);
        assert_eq!(unready(2 * REPEAT_LOOKS), 2);
        assert_eq!(log.line(true), Some(Line::Ready));
        assert_eq!(log.line(true), None);
        assert_eq!(log.line(false), None);
        assert_eq!(log.line(true), None);
    }
}
