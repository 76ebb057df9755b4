//! Budgets: what was measured when they were written, which no later run may exceed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::measured::{Measured, Unit};

/// Tolerance of the ratio to the floor, on a machine that executes other instructions.
const ELSEWHERE: f64 = 0.05;

#[derive(Serialize, Deserialize)]
pub struct Budgets {
    /// Features of the CPU, with which libraries choose their instructions.
    features: Vec<String>,
    budgets: BTreeMap<String, Budget>,
}

#[derive(Serialize, Deserialize)]
struct Budget {
    value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// Tolerance of a value; none for values that drift by themselves, as times do.
fn tolerance(measured: &Measured) -> Option<f64> {
    match measured.unit {
        // It is chance which of many calls at once find a free connection.
        Unit::Count if measured.name.contains(": connections") => Some(0.05),
        Unit::Instructions if measured.name.contains("batch") => Some(0.1),
        Unit::Count => Some(0.0),
        Unit::Instructions => Some(0.02),
        Unit::Times if measured.name.contains("instructions") => Some(0.02),
        // Each line of code is a few bytes.
        Unit::Mb if measured.name.ends_with(": zip") => Some(0.01),
        _ => None,
    }
}

impl Budgets {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("no budgets in {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Budgets of what was measured, beside those of an earlier run that it did not measure.
    pub fn of(earlier: Option<Self>, all: &[Measured]) -> Self {
        let mut budgets = earlier.map(|earlier| earlier.budgets).unwrap_or_default();
        for one in all.iter().filter(|one| tolerance(one).is_some()) {
            let (value, ratio) = (rounded(one.value), one.ratio.map(rounded));
            budgets.insert(one.name.clone(), Budget { value, ratio });
        }
        Self {
            features: machine::features(),
            budgets,
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(fs::write(path, text)?)
    }

    /// Says of each value that exceeds its budget by how much it does, and of each count that its budget is too high for it: such
    /// a budget would let what was gained be lost.
    pub fn exceeded(&self, all: &[Measured]) -> Vec<String> {
        let is_here = self.features == machine::features();
        let with = all.iter().filter_map(|one| Some((one, tolerance(one)?)));
        let exceeds = |(one, tolerance): (&Measured, f64)| {
            let name = &one.name;
            let Some(budget) = self.budgets.get(name) else {
                return Some(format!("{name} has no budget"));
            };
            let is_count = one.unit == Unit::Count;
            let (what, value, budget, tolerance) = match (one.ratio, budget.ratio) {
                (Some(ratio), Some(budget)) if !is_here && !is_count => {
                    (" times the floor", ratio, budget, ELSEWHERE)
                }
                // Without a floor there is nothing that it could be held against elsewhere.
                _ if !is_here && !is_count => return None,
                _ => ("", one.value, budget.value, tolerance),
            };
            if is_count && value < budget * (1.0 - tolerance) {
                return Some(format!(
                    "{name}: {value} instead of {budget}: write the budgets anew"
                ));
            }
            let (value, most) = (rounded(value), budget * (1.0 + tolerance));
            let more = (value / budget - 1.0) * 100.0;
            (value > most)
                .then(|| format!("{name}: {value}{what} instead of {budget}, {more:.1} % more"))
        };
        with.filter_map(exceeds).collect()
    }
}

/// Four digits say enough.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return value;
    }
    let places = 3.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(places.abs());
    match places > 0.0 {
        true => (value * scale).round() / scale,
        false => (value / scale).round() * scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, unit: Unit, value: f64) -> Measured {
        Measured::new(name, unit, value).over(1e6)
    }

    #[test]
    fn instructions_may_grow_by_two_percent_and_calls_by_none() {
        let budgets = Budgets::of(
            None,
            &[
                one("a: instructions, cold", Unit::Instructions, 20e6),
                one("a: calls, cold", Unit::Count, 11.0),
                one("a: warm", Unit::Millis, 3.0),
            ],
        );
        let exceeded = |name, unit, value| budgets.exceeded(&[one(name, unit, value)]);
        assert!(exceeded("a: instructions, cold", Unit::Instructions, 20.3e6).is_empty());
        let more = exceeded("a: instructions, cold", Unit::Instructions, 21e6);
        assert!(more[0].ends_with("5.0 % more"), "{more:?}");
        assert!(exceeded("a: calls, cold", Unit::Count, 11.0).is_empty());
        assert_eq!(exceeded("a: calls, cold", Unit::Count, 12.0).len(), 1);
        let fewer = exceeded("a: calls, cold", Unit::Count, 10.0);
        assert!(fewer[0].ends_with("anew"), "{fewer:?}");
        // Time is no gate, and what is new needs a budget.
        assert!(exceeded("a: warm", Unit::Millis, 30.0).is_empty());
        assert_eq!(exceeded("b: calls, cold", Unit::Count, 1.0).len(), 1);
    }

    #[test]
    fn on_another_cpu_the_ratio_to_the_floor_counts() {
        let mut budgets = Budgets::of(
            None,
            &[one("a: instructions, cold", Unit::Instructions, 20e6)],
        );
        budgets.features = vec!["another".into()];
        let exceeded = |value| {
            let name = "a: instructions, cold";
            budgets.exceeded(&[one(name, Unit::Instructions, value)])
        };
        assert!(exceeded(20.9e6).is_empty());
        assert_eq!(exceeded(21.1e6).len(), 1);
    }

    #[test]
    fn four_digits_are_kept() {
        for (value, expected) in [
            (37_412_345.0, "37410000"),
            (5.712_34, "5.712"),
            (16.0, "16"),
            (0.0, "0"),
        ] {
            assert_eq!(rounded(value).to_string(), expected);
        }
    }
}
