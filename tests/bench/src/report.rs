//! The report: a table for the terminal, and the page `docs/performance.md` with its charts.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::chart::{self, Bar};
use crate::machine;
use crate::measure::Bench;
use crate::measured::{Measured, Target, Unit};

const HEAD: [&str; 6] = ["what", "measured", "floor", "ratio", "target", "met"];

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value}"),
        Unit::Instructions if value < 1e4 => format!("{value:.1}"),
        Unit::Instructions => format!("{:.2} M", value / 1e6),
        Unit::Millis => format!("{value:.2} ms"),
        Unit::Mb => format!("{value:.2} MB"),
        Unit::Dollars => format!("{value:.2} $"),
        Unit::Times => format!("× {value:.2}"),
    }
}

fn cells(measured: &Measured) -> [String; 6] {
    let unit = measured.unit;
    let floor = measured.floor.map(|floor| number(floor, unit));
    let ratio = measured.ratio.map(|ratio| format!("{ratio:.2}"));
    let target = measured.target().map(|target| match target {
        Target::Value(most) => format!("≤ {}", number(most, unit)),
        Target::Ratio(most) => format!("≤ {most} × floor"),
        Target::AtLeast(least) => format!("≥ {}", number(least, unit)),
    });
    let met = measured
        .meets()
        .map(|meets| if meets { "yes" } else { "no" });
    [
        measured.name.clone(),
        number(measured.value, unit),
        floor.unwrap_or_default(),
        ratio.unwrap_or_default(),
        target.unwrap_or_default(),
        met.unwrap_or_default().to_owned(),
    ]
}

/// The table for a terminal.
pub fn table(all: &[Measured]) -> String {
    let rows = std::iter::once(HEAD.map(str::to_owned)).chain(all.iter().map(cells));
    let rows: Vec<[String; 6]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row[1..].iter().zip(&widths[1..]) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A table for each scenario.
fn markdown(all: &[Measured]) -> String {
    let mut tables: Vec<(&str, String)> = Vec::new();
    for one in all {
        let (scenario, what) = one.name.split_once(": ").unwrap_or_default();
        let known = tables.iter().position(|(own, _)| *own == scenario);
        let at = known.unwrap_or_else(|| {
            let head = format!("| {} |\n|---|--:|--:|--:|--:|---|\n", HEAD.join(" | "));
            tables.push((scenario, head));
            tables.len() - 1
        });
        let mut cells = cells(one);
        what.clone_into(&mut cells[0]);
        let _ = writeln!(tables[at].1, "| {} |", cells.join(" | "));
    }
    let sections = tables.into_iter();
    let sections = sections.map(|(scenario, table)| format!("### {scenario}\n\n{table}"));
    sections.collect::<Vec<_>>().join("\n")
}

fn charts(all: &[Measured]) -> [(&'static str, String); 5] {
    let bar = |label: &str, one: &Measured| -> Bar {
        (label.to_owned(), one.value, number(one.value, one.unit))
    };
    let mut instructions = Vec::new();
    for one in all {
        for state in ["cold", "warm"] {
            let end = format!(": instructions, {state}");
            // Ten times as long, a batch would leave no room for the others.
            let scenario = one.name.strip_suffix(&end);
            if let Some(scenario) = scenario.filter(|name| !name.contains("batch")) {
                instructions.push(bar(&format!("{scenario}, {state}"), one));
            }
        }
    }
    let first = all.iter().filter_map(|one| {
        let memory = one.name.strip_prefix("accept: first invocation at ")?;
        Some(bar(memory, one))
    });
    let first: Vec<Bar> = first.collect();
    let growth = all.iter().filter_map(|one| {
        let prefix = "accept: instructions of a further attachment, of ";
        Some(bar(one.name.strip_prefix(prefix)?, one))
    });
    let growth: Vec<Bar> = growth.collect();
    let cold = [
        ("this", "accept: cold"),
        ("Node", "accept: cold, Node"),
        ("boto3", "accept: cold, boto3"),
    ];
    let cold = cold.into_iter().filter_map(|(label, name)| {
        let one = all.iter().find(|one| one.name == name)?;
        Some(bar(label, one))
    });
    let cold: Vec<Bar> = cold.collect();
    let rows = all.iter().filter_map(|one| {
        let (what, of) = one
            .name
            .strip_prefix("rows: ")?
            .split_once(": instructions, of ")?;
        Some(bar(&format!("{what}: {of}"), one))
    });
    let rows: Vec<Bar> = rows.collect();
    [
        (
            "cold.svg",
            chart::bars("From the start of the process to the first response", &cold),
        ),
        (
            "rows.svg",
            chart::bars("Instructions of a start and an invocation, by rows", &rows),
        ),
        (
            "instructions.svg",
            chart::bars("Instructions of an invocation", &instructions),
        ),
        (
            "first-invocation.svg",
            chart::bars("First push after a start, by memory size", &first),
        ),
        (
            "growth.svg",
            chart::bars("Instructions of one attachment more", &growth),
        ),
    ]
}

/// Writes the page, and its charts beside it.
pub fn write(docs: &Path, bench: &Bench) -> Result<()> {
    let all = &bench.measured;
    let charts = charts(all);
    let folder = docs.join("performance");
    fs::create_dir_all(&folder)?;
    for (name, svg) in &charts {
        fs::write(folder.join(name), svg)?;
    }
    let misses = all.iter().filter(|one| one.meets() == Some(false));
    let misses: Vec<&Measured> = misses.collect();
    let wanted = all.iter().filter(|one| one.meets().is_some()).count();
    let mut text = format!(
        "<!-- Written by tests/bench/src/report.rs from a run: REFRESH=1 make bench-functions -->\n{}",
        include_str!("page.md")
    );
    text = text.replace("{machine}", &machine::shape());
    text = text.replace("{tables}", markdown(all).trim_end());
    let mut missed = format!("{} of {wanted} targets are met.", wanted - misses.len());
    if !misses.is_empty() {
        missed += " These are missed:\n\n";
        for one in misses {
            let [name, measured, _, ratio, target, _] = cells(one);
            let value = match one.target() {
                Some(Target::Ratio(_)) => format!("{ratio} × floor"),
                _ => measured,
            };
            let _ = writeln!(missed, "- {name}: {value}, target {target}");
        }
    }
    text = text.replace("{missed}", missed.trim_end());
    let steps = bench.steps.iter();
    let steps = steps.map(|(invocation, steps)| format!("| {invocation} | {steps} |\n"));
    text = text.replace("{steps}", steps.collect::<String>().trim_end());
    let left_out = match bench.left_out.as_slice() {
        [] => "Everything was measured.".to_owned(),
        some => format!("Not measured on this machine: {}.", some.join("; ")),
    };
    text = text.replace("{left_out}", &left_out);
    Ok(fs::write(docs.join("performance.md"), text)?)
}
