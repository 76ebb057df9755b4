//! What is told while something takes its time: one line on standard error, and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Global;

/// A line that its message is put into.
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
