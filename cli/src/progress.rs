//! Progress: a line on a terminal's standard error, and where a wait may be long, lines now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::global::Global;
use crate::output::one_line;

/// Creates a line with a spinner and a message.
pub(crate) fn line(global: &Global) -> ProgressBar {
    let line = if global.quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
    };
    // The library's own is a bar, which has no end here and leaves the message out.
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a fixed template");
    line.set_style(style);
    line.enable_steady_tick(Duration::from_millis(100));
    line
}

/// Progress of a wait. On a terminal, updates one line; elsewhere, as in a build's log, prints a line after each
/// change, and now and then without one.
pub(crate) struct Waiting<'a> {
    global: &'a Global,
    line: ProgressBar,
    said: String,
    said_at: Instant,
}

impl<'a> Waiting<'a> {
    /// Between two lines in a log; what takes less time gets none.
    const SHORTEST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_mins(1);

    pub(crate) fn begin(global: &'a Global) -> Self {
        Self {
            global,
            line: line(global),
            said: String::new(),
            said_at: Instant::now(),
        }
    }

    pub(crate) fn tell(&mut self, text: &str) {
        let text = one_line(text);
        let since = self.said_at.elapsed();
        let is_due = match text == self.said {
            true => since >= Self::LONGEST,
            false => since >= Self::SHORTEST,
        };
        if self.line.is_hidden() && is_due {
            self.global.info(&text);
            (self.said, self.said_at) = (text.clone(), Instant::now());
        }
        self.line.set_message(text);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

/// Creates a progress bar for `size` bytes.
pub(crate) fn bar(global: &Global, size: u64, message: &str) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let style = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("a template of this program");
    ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(one_line(message))
}
