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

/// How much of so many bytes has gone by.
pub(crate) fn bar(global: &Global, size: u64, message: String) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let style = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("a template of this program");
    ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(message)
}
