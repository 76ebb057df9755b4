//! Measures the functions as they are shipped, beside the least that a function can be.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod budgets;
mod chart;
mod function;
mod machine;
mod measure;
mod measured;
mod quota;
mod report;
mod scenarios;
mod scene;
mod tls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::budgets::Budgets;
use crate::measure::Bench;

/// Measures the functions of a release on this machine, under an emulator of Lambda's Runtime API and over a stub of AWS.
#[derive(Parser)]
struct Arguments {
    /// Folder with `<function>/bootstrap` and `<function>.zip` of each function, and of `echo`
    #[arg(long, default_value = "target/bench")]
    functions: PathBuf,
    /// Scenarios to run; default: all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Starts of a process for each measurement of time
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// Write the budgets anew, from this run
    #[arg(long)]
    write_budgets: bool,
    /// Format of the report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Print the functions that the scenarios need, and end
    #[arg(long)]
    needed: bool,
    /// Keep valgrind's profiles in target/bench/run, for `callgrind_annotate`: functions built with
    /// CARGO_PROFILE_RELEASE_STRIP=none and CARGO_PROFILE_RELEASE_DEBUG=line-tables-only have names
    #[arg(long)]
    profiles: bool,
    /// Hash so many bytes, and end
    #[arg(long, hide = true)]
    hash: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(bytes) = arguments.hash {
        let digest = ring::digest::digest(&ring::digest::SHA256, &vec![7; bytes]);
        println!("{digest:?}");
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|one| one == name);
    let scenarios = scenarios::ALL.iter().filter(|(name, ..)| is_wanted(name));
    if arguments.needed {
        let mut needed: Vec<&str> = scenarios
            .flat_map(|(_, needed, _)| needed.iter().copied())
            .collect();
        needed.sort_unstable();
        needed.dedup();
        println!("{}", needed.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut bench = Bench::new(
        &arguments.functions,
        PathBuf::from("target/bench/run"),
        arguments.runs,
    )?;
    bench.keeps_profiles = arguments.profiles;
    for (_, _, scenario) in scenarios {
        scenario(&mut bench)?;
    }
    match arguments.output {
        Output::Table => print!("{}", report::table(&bench.measured)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&bench.measured)?),
    }
    for one in &bench.left_out {
        eprintln!("not measured: {one}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("REFRESH").is_some() {
        ensure!(arguments.only.is_empty(), "the page is about all scenarios");
        report::write(&root.join("../../docs"), &bench)?;
    }
    let budgets = root.join("budgets.json");
    if arguments.write_budgets {
        // Those of scenarios that did not run stay.
        let old = Budgets::read(&budgets)
            .ok()
            .filter(|_| !arguments.only.is_empty());
        Budgets::of(old, &bench.measured).write(&budgets)?;
    }
    let exceeded = Budgets::read(&budgets)?.exceeded(&bench.measured);
    for one in &exceeded {
        eprintln!("over its budget: {one}");
    }
    Ok(match exceeded.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
