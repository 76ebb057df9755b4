//! Ctrl-C while a command follows a job: the command reports that the job continues, and exits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;
use signal_hook::flag::{register, register_conditional_shutdown};

/// Exit code of an interrupted command, as in shells.
pub(crate) const EXIT: u8 = 130;
const LOOK: Duration = Duration::from_millis(50);

static SIGNAL: LazyLock<io::Result<Signal>> = LazyLock::new(Signal::new);

struct Signal {
    /// True while nobody listens, so that the signal ends the command.
    idle: Arc<AtomicBool>,
    heard: Arc<AtomicBool>,
}

impl Signal {
    fn new() -> io::Result<Self> {
        let (idle, heard) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let exit = i32::from(EXIT);
        register_conditional_shutdown(SIGINT, exit, Arc::clone(&idle))?;
        // The second time it is meant: a request may keep us from listening for a while.
        register_conditional_shutdown(SIGINT, exit, Arc::clone(&heard))?;
        register(SIGINT, Arc::clone(&heard))?;
        Ok(Self { idle, heard })
    }
}

/// Listens until it is dropped. If it cannot listen, the signal ends the command, which does no harm.
pub(crate) struct Listening(Option<&'static Signal>);

impl Listening {
    pub(crate) fn begin() -> Self {
        let signal = SIGNAL.as_ref().ok();
        if let Some(signal) = signal {
            signal.idle.store(false, Ordering::Relaxed);
        }
        Self(signal)
    }

    /// Sleeps, and returns true if interrupted.
    pub(crate) fn sleep(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if self
                .0
                .is_some_and(|signal| signal.heard.load(Ordering::Relaxed))
            {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(left.min(LOOK));
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(signal) = self.0 {
            signal.idle.store(true, Ordering::Relaxed);
        }
    }
}
