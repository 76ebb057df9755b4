//! Searches seeds for one that breaks a law, or replays one.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use simulation::{Coverage, Simulator, Violation};

/// Runs the pipeline in simulation, seed by seed, and looks for one that breaks a law.
#[derive(Parser)]
struct Arguments {
    /// Number of seeds to run
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of seeds at once; default: one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many violations
    #[arg(long, default_value_t = 10)]
    violations: usize,
    /// Replay this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs"])]
    seed: Option<u64>,
    /// Print what happens, line by line
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let found = match arguments.seed {
        Some(seed) => replay(seed, arguments.trace),
        None => search(&arguments),
    };
    match found {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn say(seed: u64, violation: &Violation) {
    println!("seed {seed}: {}: {}", violation.law, violation.detail);
}

fn replay(seed: u64, traced: bool) -> usize {
    let outcome = Simulator::default().run(seed, traced);
    for line in &outcome.log {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} events, hash {:016x}",
        outcome.events, outcome.hash
    );
    outcome
        .violation
        .iter()
        .for_each(|violation| say(seed, violation));
    usize::from(outcome.violation.is_some())
}

fn search(arguments: &Arguments) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or_else(cores).max(1);
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let (enough, events) = (AtomicBool::new(false), AtomicU64::new(0));
    let coverage = Mutex::new(Coverage::default());
    let violations = Mutex::new(Vec::new());
    let begun = Instant::now();
    let work = || {
        let simulator = Simulator::default();
        let mut own = Coverage::default();
        while !enough.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end {
                break;
            }
            let outcome = simulator.run(seed, false);
            own.add(&outcome.coverage);
            events.fetch_add(outcome.events, Relaxed);
            if let Some(violation) = outcome.violation {
                say(seed, &violation);
                let mut violations = violations.lock().expect("nobody panics");
                violations.push(seed);
                enough.store(violations.len() >= arguments.violations, Relaxed);
            }
        }
        coverage.lock().expect("nobody panics").add(&own);
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            progress(
                next.load(Relaxed).min(end) - arguments.from,
                arguments.seeds,
                begun,
            );
        }
    });
    let seeds = next.load(Relaxed).min(end) - arguments.from;
    let secs = begun.elapsed().as_secs_f64();
    let (rate, per_seed) = (rate(seeds, secs), events.load(Relaxed) / seeds.max(1));
    let found = violations.lock().expect("nobody panics").len();
    println!("{}", coverage.lock().expect("nobody panics"));
    println!(
        "{seeds} seeds in {secs:.1} s by {jobs} at once: {rate:.0} a second, {per_seed} events each; {found} violations"
    );
    found
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(seeds: u64, secs: f64) -> f64 {
    seeds as f64 / secs
}

fn progress(done: u64, all: u64, begun: Instant) {
    let mut out = std::io::stderr();
    if out.is_terminal() && begun.elapsed() > Duration::from_secs(1) {
        let rate = rate(done, begun.elapsed().as_secs_f64());
        let _ = write!(out, "\r{done} of {all} seeds, {rate:.0} a second ");
        let _ = out.flush();
    }
}
