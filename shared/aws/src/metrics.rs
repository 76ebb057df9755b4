//! Metrics in CloudWatch's embedded format: lines of the log, which CloudWatch reads.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::collections::BTreeMap;

use api::Timestamp;
use pipeline::Platform as _;
use pipeline::engine::reconcile::Report;
use pipeline::store::counts::{About, Numbers};
use serde_json::{Map, Value, json};

use crate::Aws;
use crate::settings::Metrics;

const NAMESPACE: &str = "ChainloopIntegrations";

/// Values of one metric in a line, at most.
const VALUES: usize = 100;

/// Tells the numbers of an invocation.
pub(crate) fn tell(aws: &Aws) {
    let numbers = aws.meter().counts.take();
    for line in lines(
        &aws.settings.stack,
        aws.settings.metrics,
        aws.now(),
        numbers,
    ) {
        println!("{line}");
    }
}

fn lines(
    stack: &str,
    metrics: Metrics,
    now: Timestamp,
    numbers: BTreeMap<About, Numbers>,
) -> Vec<Value> {
    let mut told: BTreeMap<About, Numbers> = BTreeMap::new();
    for (mut about, numbers) in numbers {
        match metrics {
            Metrics::None => continue,
            Metrics::Integration => about.registration.clear(),
            Metrics::Registration => {}
        }
        told.entry(about).or_default().merge(numbers);
    }
    let told = told.into_iter();
    told.map(|(about, numbers)| line(stack, now, &about, numbers))
        .collect()
}

fn line(stack: &str, now: Timestamp, about: &About, mut numbers: Numbers) -> Value {
    let mut dimensions = vec![vec!["Stack"]];
    let mut line = Map::from_iter([("Stack".to_owned(), Value::from(stack))]);
    let named = [
        ("Integration", &about.integration),
        ("Registration", &about.registration),
    ];
    for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        let mut more = dimensions.last().cloned().unwrap_or_default();
        more.push(name);
        dimensions.push(more);
        line.insert(name.to_owned(), value.as_str().into());
    }
    let mut metrics = Vec::new();
    for (metric, count) in numbers.counts {
        metrics.push(json!({ "Name": metric.name(), "Unit": "Count" }));
        line.insert(metric.name().to_owned(), count.into());
    }
    if !numbers.durations_ms.is_empty() {
        numbers.durations_ms.truncate(VALUES);
        metrics.push(json!({ "Name": "Duration", "Unit": "Milliseconds" }));
        line.insert("Duration".to_owned(), numbers.durations_ms.into());
    }
    line.insert("_aws".to_owned(), envelope(now, &dimensions, &metrics));
    Value::Object(line)
}

fn envelope(now: Timestamp, dimensions: &[Vec<&str>], metrics: &[Value]) -> Value {
    json!({
        "Timestamp": now.millis(),
        "CloudWatchMetrics": [{
            "Namespace": NAMESPACE,
            "Dimensions": dimensions,
            "Metrics": metrics,
        }],
    })
}

/// Tells how the promise is kept.
pub(crate) fn tell_of_promise(aws: &Aws, report: &Report) {
    let metric = |name: &str, unit: &str| json!({ "Name": name, "Unit": unit });
    let metrics = [
        metric("Violations", "Count"),
        metric("Unclaimed", "Count"),
        metric("OldestOverdue", "Seconds"),
        metric("Crashed", "Count"),
        metric("Left", "Count"),
    ];
    let line = json!({
        "_aws": envelope(aws.now(), &[vec!["Stack"]], &metrics),
        "Stack": aws.settings.stack,
        "Violations": report.violations,
        "Unclaimed": report.unclaimed,
        "OldestOverdue": report.overdue_secs,
        "Crashed": report.crashed,
        "Left": report.left,
    });
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use pipeline::store::counts::Metric;

    use super::*;

    fn numbers() -> BTreeMap<About, Numbers> {
        let about = |registration: &str| About {
            integration: "webhook".into(),
            registration: registration.into(),
        };
        let delivered = |count, duration| Numbers {
            counts: BTreeMap::from([(Metric::Delivered, count)]),
            durations_ms: vec![duration],
        };
        let accepted = Numbers {
            counts: BTreeMap::from([(Metric::Accepted, 1), (Metric::Planned, 2)]),
            ..Numbers::default()
        };
        BTreeMap::from([
            (About::default(), accepted),
            (about("a"), delivered(1, 12)),
            (about("b"), delivered(2, 30)),
        ])
    }

    fn told(metrics: Metrics) -> Vec<Value> {
        let now = Timestamp::from_millis(1_767_322_445_000);
        lines("prod", metrics, now, numbers())
    }

    #[test]
    fn numbers_are_told_of_the_stack_and_of_each_integration() {
        let told = told(Metrics::Integration);
        let accepted = json!({
            "_aws": {
                "Timestamp": 1_767_322_445_000_u64,
                "CloudWatchMetrics": [{
                    "Namespace": "ChainloopIntegrations",
                    "Dimensions": [["Stack"]],
                    "Metrics": [
                        { "Name": "Accepted", "Unit": "Count" },
                        { "Name": "Planned", "Unit": "Count" },
                    ],
                }],
            },
            "Stack": "prod",
            "Accepted": 1,
            "Planned": 2,
        });
        let delivered = json!({
            "_aws": {
                "Timestamp": 1_767_322_445_000_u64,
                "CloudWatchMetrics": [{
                    "Namespace": "ChainloopIntegrations",
                    "Dimensions": [["Stack"], ["Stack", "Integration"]],
                    "Metrics": [
                        { "Name": "Delivered", "Unit": "Count" },
                        { "Name": "Duration", "Unit": "Milliseconds" },
                    ],
                }],
            },
            "Stack": "prod",
            "Integration": "webhook",
            "Delivered": 3,
            "Duration": [12, 30],
        });
        assert_eq!(told, [accepted, delivered]);
    }

    #[test]
    fn those_of_each_registration_are_told_where_that_is_asked_for_and_none_where_none_are() {
        assert!(told(Metrics::None).is_empty());
        let told = told(Metrics::Registration);
        let of: Vec<&Value> = told.iter().map(|line| &line["Registration"]).collect();
        assert_eq!(of, [&Value::Null, &json!("a"), &json!("b")]);
        let dimensions = &told[1]["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
        let all = json!([
            ["Stack"],
            ["Stack", "Integration"],
            ["Stack", "Integration", "Registration"]
        ]);
        assert_eq!(*dimensions, all);
    }
}
