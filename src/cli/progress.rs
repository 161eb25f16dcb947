//! Progress bars: how far a long command is, on one line that fits the terminal.
//!
//! They are shown on standard error if that is a terminal, and leave nothing behind. Not covered:
//! the fleet of `florin vopr`, which has more to say.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::benchmark::report::{thousands, whole};

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Things, so many in all.
    Things(u64),
    /// Things whose number is not known before the end.
    Unknown,
    /// Bytes, so many in all.
    Bytes(u64),
}

/// A bar that is not shown before something is counted. `set_prefix` names what is counted.
///
/// # Panics
///
/// Never: the templates are valid.
#[must_use]
pub fn bar(counts: Counts) -> ProgressBar {
    let (length, template) = match counts {
        Counts::Things(length) => {
            let template = "{prefix:>10} {wide_bar} {human_pos} of {human_len}, {rate}/s {eta:>4}";
            (Some(length), template)
        }
        Counts::Unknown => (None, "{prefix:>10} {spinner} {human_pos}, {rate}/s"),
        Counts::Bytes(length) => {
            let template =
                "{prefix:>10} {wide_bar} {binary_bytes} of {binary_total_bytes} {eta:>4}";
            (Some(length), template)
        }
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let rate = |state: &ProgressState, text: &mut dyn Write| {
        // To a string: an error means nothing.
        let _ = text.write_str(&thousands(whole(state.per_sec())));
    };
    bar.set_style(style.with_key("rate", rate));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex};

    const WIDTH: u16 = 60;

    /// A terminal that keeps what is written.
    #[derive(Clone, Debug, Default)]
    struct Recorder(Arc<Mutex<String>>);

    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            WIDTH
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Goal: every bar fits 60 columns on one line, with millions of things, and leaves nothing.
    #[test]
    fn fits() {
        for (counts, part) in [
            (Counts::Things(50_000_000), "12,345,678 of 50,000,000, "),
            (Counts::Unknown, "12,345,678, "),
            (Counts::Bytes(3 << 40), "11.77 MiB of 3.00 TiB"),
        ] {
            let terminal = Recorder::default();
            let bar = bar(counts);
            bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
            bar.set_prefix("transfers");
            bar.inc(12_345_678);
            bar.force_draw();
            let shown = terminal.0.lock().unwrap().clone();
            assert!(shown.contains(part), "{shown}");
            let shown = shown.trim_end();
            assert!(shown.chars().count() <= usize::from(WIDTH), "{shown}");
            assert!(!shown.contains('\n') && shown.contains("transfers"), "{shown}");
            bar.finish_and_clear();
            assert_eq!(terminal.0.lock().unwrap().trim(), "");
        }
    }
}
