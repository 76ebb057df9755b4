//! Values that were measured, and what is wanted of them.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Count,
    Instructions,
    Millis,
    Mb,
    Dollars,
    /// Multiples of another thing, which the name says.
    Times,
}

#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Scenario and quantity, as `accept: calls, cold`.
    pub name: String,
    pub unit: Unit,
    pub value: f64,
    /// The same of the floor, in the same run.
    pub floor: Option<f64>,
    /// Value to floor: the median of pairs where there are pairs.
    pub ratio: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Maximum of the value.
    Value(f64),
    /// Maximum of its ratio to the floor.
    Ratio(f64),
    /// Minimum of the value.
    AtLeast(f64),
}

const TARGETS: &[(&str, Target)] = &[
    ("accept: start to ready", Target::Ratio(1.3)),
    ("accept: calls, cold", Target::Value(11.0)),
    ("accept: depth, cold", Target::Value(3.0)),
    ("accept: connections, cold", Target::Value(6.0)),
    ("accept: instructions, cold", Target::Value(20e6)),
    ("accept: instructions, warm", Target::Value(6e6)),
    ("accept: first invocation at 256 MB", Target::Value(35.0)),
    (
        "accept: instructions of a further attachment, of 1000",
        Target::Value(0.35e6),
    ),
    // Set in CPU time, on a CPU without SHA extensions; so is that of a material.
    (
        "accept: instructions of a body to those of its SHA-256",
        Target::Value(1.7),
    ),
    ("accept: memory after warm-up", Target::Value(9.0)),
    ("accept: cold, boto3 to this", Target::AtLeast(40.0)),
    ("accept: cold, Node to this", Target::AtLeast(30.0)),
    ("accept: zip", Target::Value(4.0)),
    ("authorizer: zip", Target::Value(2.4)),
    ("webhook: zip", Target::Value(4.2)),
    ("guac: zip", Target::Value(4.2)),
    ("webhook: calls, warm", Target::Value(7.0)),
    ("webhook: depth, warm", Target::Value(5.0)),
    ("webhook: writes, warm", Target::Value(2.0)),
    ("webhook, batch of 10: calls, cold", Target::Value(50.0)),
    (
        "webhook, batch of 10: connections, cold",
        Target::Value(12.0),
    ),
    ("webhook, 100 MB: peak of memory", Target::Value(32.0)),
    ("guac, 100 MB: peak of memory", Target::Value(32.0)),
    (
        "webhook, material: instructions to those of its SHA-256",
        Target::Value(3.2),
    ),
];

impl Measured {
    pub fn new(name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
            floor: None,
            ratio: None,
        }
    }

    #[must_use]
    pub fn over(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = Some(self.value / floor);
        self
    }

    /// The medians of pairs, each of a value and its floor.
    pub fn pairs(name: impl Into<String>, unit: Unit, pairs: &[(f64, f64)]) -> Self {
        let of = |number: fn(&(f64, f64)) -> f64| median(pairs.iter().map(number).collect());
        Self {
            floor: Some(of(|pair| pair.1)),
            ratio: Some(of(|pair| pair.0 / pair.1)),
            ..Self::new(name, unit, of(|pair| pair.0))
        }
    }

    pub fn target(&self) -> Option<Target> {
        let found = TARGETS.iter().find(|(name, _)| *name == self.name);
        found.map(|(_, target)| *target)
    }

    /// Reports whether the target is met; none without a target.
    pub fn meets(&self) -> Option<bool> {
        Some(match self.target()? {
            Target::Value(most) => self.value <= most,
            Target::Ratio(most) => self.ratio? <= most,
            Target::AtLeast(least) => self.value >= least,
        })
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_be_of_the_value_or_of_its_ratio() {
        let meets = |name: &str, value: f64, floor: f64| {
            Measured::new(name, Unit::Millis, value).over(floor).meets()
        };
        assert_eq!(meets("accept: start to ready", 12.0, 10.0), Some(true));
        assert_eq!(meets("accept: start to ready", 14.0, 10.0), Some(false));
        assert_eq!(
            meets("accept: first invocation at 256 MB", 34.0, 0.4),
            Some(true)
        );
        assert_eq!(meets("accept: first invocation at 512 MB", 34.0, 0.4), None);
        assert_eq!(meets("accept: cold, boto3 to this", 41.0, 1.0), Some(true));
        assert_eq!(meets("accept: cold, boto3 to this", 39.0, 1.0), Some(false));
    }

    #[test]
    fn pairs_have_the_median_of_their_ratios() {
        let pairs = [(2.0, 1.0), (30.0, 10.0), (8.0, 2.0)];
        let measured = Measured::pairs("m", Unit::Millis, &pairs);
        assert_eq!(
            (measured.value, measured.floor, measured.ratio),
            (8.0, Some(2.0), Some(3.0))
        );
    }
}
