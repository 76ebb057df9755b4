//! What an attestation costs: the pipeline runs over memory, each billed unit is counted, and `docs/cost.md` is written
//! from that.

pub mod metered;
mod prices;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use api::Role;
use integrations::Integration;
use integrations::webhook::Webhook;
use pipeline::Platform as _;
use pipeline::engine::{deliver, reconcile};
use pipeline::ledger::schedule::{CLOSE, RETENTION};
use pipeline::store::counts::{About, Numbers};
use pipeline::store::platform::Index;
use serde_json::{Value, json};

use self::metered::{Metered, Units, entry, number, size};
use self::prices::{ALL, Price};
use crate::asking::{answer_on, request};
use crate::canary::Log;
use crate::contract::{camel, root};
use crate::receiver::{Answer, Receiver};
use crate::template::template;
use crate::world::{World, attestation, kept};

const SIZES: [usize; 4] = [1, 3, 10, 50];

/// Attestations of one run, as far apart as a million in a month are: as long as a secret is remembered.
const RUN: usize = 100;
const APART: Duration = Duration::from_millis(2_592);

/// Write units a second of a new table on demand, and of a table by an account's default quota.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html>
const FIRST_WRITES: f64 = 4_000.0;
const MOST_WRITES: f64 = 40_000.0;
/// Messages that a delivery function takes at once.
const BATCH: f64 = 10.0;

const MILLION: f64 = 1e6;
const GB: f64 = 1e9;

/// A part of a bill.
#[derive(Debug, Clone, Copy)]
struct Part {
    price: &'static Price,
    count: f64,
}

impl Part {
    fn dollars(&self) -> f64 {
        self.price.of(self.count)
    }
}

/// What was counted, for one attestation.
#[derive(Debug, Clone, Default)]
struct Counted {
    units: Units,
    /// Invocations by function.
    invocations: BTreeMap<String, f64>,
    log_bytes: f64,
    /// Rows, with what DynamoDB adds, and entries of indexes, for as long as they are kept.
    row_bytes: f64,
    object_bytes: f64,
    metrics: MetricNames,
}

/// Numbers of custom metrics, each a name with its dimensions.
#[derive(Debug, Clone, Copy, Default)]
struct MetricNames {
    of_stack: usize,
    /// Of each integration, and as many of each registration where these are told of.
    of_each: usize,
}

impl MetricNames {
    /// As these functions tell of it: what is of an integration is told of the stack as well.
    fn of(functions: [&Metered<'_>; 2]) -> Self {
        let mut numbers = BTreeMap::<About, Numbers>::new();
        for (about, more) in functions
            .map(|one| one.meter().counts.take())
            .into_iter()
            .flatten()
        {
            numbers.entry(about).or_default().merge(more);
        }
        let names = |is_counted: fn(&About) -> bool| {
            let numbers = numbers.iter().filter(|(about, _)| is_counted(about));
            let counted = numbers.clone().flat_map(|(_, all)| all.counts.keys());
            let counted: BTreeSet<_> = counted.collect();
            let durations = numbers.filter(|(_, all)| !all.durations_ms.is_empty());
            counted.len() + usize::from(durations.count() > 0)
        };
        Self {
            of_stack: names(|_| true),
            of_each: names(|about| !about.integration.is_empty()),
        }
    }
}

/// Gigabytes of memory, as the template says.
fn memory_gb(function: &str) -> f64 {
    let template = template();
    let own = &template.properties(&camel(function))["MemorySize"];
    let mb = match own {
        Value::Null => template.number(template.global("MemorySize")),
        own => template.number(own),
    };
    number(usize::try_from(mb).unwrap()) / 1024.0
}

fn row_bytes(world: &World) -> usize {
    let rows = kept(&world.memory);
    let of = |item| {
        let entries = Index::ALL
            .into_iter()
            .filter_map(|index| entry(index, item));
        let entries: usize = entries
            .map(|bytes| bytes + prices::ROW_OVERHEAD_BYTES)
            .sum();
        size(item) + prices::ROW_OVERHEAD_BYTES + entries
    };
    rows.iter().map(of).sum()
}

/// A hundred attestations, each to so many third parties, until the last plan is closed.
async fn run(attachments: usize) -> Counted {
    let world = World::with(Receiver::scripted(|_, _| Answer::status(200)));
    // Rows as this release writes them.
    world.memory.is_newer.set(false);
    for number in 0..attachments {
        let name = format!("hook-{number}");
        world.register(&name).await.unwrap();
        world.attach(&name).await;
    }
    let before = row_bytes(&world);
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let accepting = Metered::new(&world.memory, "attestations");
    let delivering = Metered::new(&world.memory, &deliver_webhook());
    let reconciling = Metered::new(&world.memory, "reconciler");
    let idle = Metered::new(&world.memory, "reconciler");
    reconcile(&idle).await;
    let (mut batches, mut runs, mut object_bytes) = (0, 0, 0);
    let mut minute = world.memory.now();
    let mut tick = async || {
        while minute.plus(Duration::from_mins(1)) <= world.memory.now() {
            minute = minute.plus(Duration::from_mins(1));
            reconcile(&reconciling).await;
            runs += 1;
        }
    };
    for number in 0..RUN {
        let envelope = attestation(&number.to_string(), Vec::new()).compact();
        object_bytes += envelope.len();
        let body = serde_json::from_slice(&envelope).unwrap();
        let asked = request(Role::Producer, "POST /v1/attestations", &[], &[], &body);
        let response = answer_on(&accepting, &asked).await;
        assert_eq!(response.status, 202, "{}", response.body);
        loop {
            let records = world.memory.receive(Webhook::ID, 10);
            if records.is_empty() {
                break;
            }
            batches += 1;
            // One to receive them, one to delete them.
            delivering.sqs(2.0);
            let until = world.memory.now().plus(Duration::from_mins(2));
            let back = deliver::batch::<Webhook>(&delivering, &world.tools, records, until).await;
            assert!(back.is_empty(), "{back:?}");
        }
        world.memory.advance(APART);
        tick().await;
    }
    // Until the last plan is closed.
    for _ in 0..CLOSE.as_secs() / 60 + 2 {
        world.memory.advance(Duration::from_mins(1));
        tick().await;
    }
    drop(guard);
    assert_eq!(world.receiver.deliveries().len(), RUN * attachments);
    let runs = number(runs);
    let mut units = accepting.units();
    units += delivering.units();
    // What it does each minute is there without any attestation.
    units += reconciling.units() - idle.units().times(runs);
    let each = 1.0 / number(RUN);
    let authorizing = APART.as_secs_f64() / prices::TOKEN_SECS;
    let mut units = units.times(each);
    // The token, and when it was last used.
    units.reads += 2.0 * authorizing;
    let text = log.text();
    let lines = number(text.lines().count());
    let mut counted = Counted {
        units,
        invocations: BTreeMap::from([
            ("attestations".to_owned(), 1.0),
            ("authorizer".to_owned(), authorizing),
            (deliver_webhook(), number(batches) * each),
        ]),
        log_bytes: 0.0,
        row_bytes: number(row_bytes(&world) - before) * each,
        object_bytes: number(object_bytes) * each,
        metrics: MetricNames::of([&accepting, &delivering]),
    };
    assert!(counted.metrics.of_each > 0, "metrics are told");
    let invocations: f64 = counted.invocations.values().sum();
    let ours = (number(text.len()) + (lines - runs) * prices::LINE_BYTES) * each;
    counted.log_bytes =
        ours + invocations * prices::INVOCATION_LOG_BYTES + prices::ACCESS_LOG_BYTES;
    counted
}

async fn reconcile(platform: &Metered<'_>) {
    let until = platform.now().plus(Duration::from_mins(1));
    let report = reconcile::reconcile(platform, until).await.unwrap();
    assert_eq!((report.sent, report.violations), (0, 0), "{report:?}");
}

fn compute(function: &str, millis: f64, invocations: f64) -> Part {
    let count = invocations * millis / 1_000.0 * memory_gb(function);
    Part {
        price: &prices::COMPUTE,
        count,
    }
}

fn duration(function: &str) -> f64 {
    match function {
        "attestations" => prices::ACCEPT_MS,
        "authorizer" => prices::AUTHORIZE_MS,
        "reconciler" => prices::RECONCILE_MS,
        _ => prices::DELIVER_MS,
    }
}

/// A month of 30 days.
fn months(days: f64) -> f64 {
    days / 30.0
}

impl Counted {
    /// What it costs to keep a million of them for so many days, and their bytes a week longer.
    fn kept_for(&self, days: f64) -> [Part; 3] {
        let of = |price: &'static Price, bytes: f64, days: f64| Part {
            price,
            count: bytes / GB * MILLION * months(days),
        };
        [
            of(&prices::ROWS, self.row_bytes, days),
            of(&prices::RECOVERY, self.row_bytes, days),
            of(&prices::OBJECTS, self.object_bytes, days + 7.0),
        ]
    }

    /// The bill for a million attestations.
    /// Dollars for a trace of each invocation, which nobody pays for unless they ask for it.
    fn traces(&self) -> f64 {
        let invocations: f64 = self.invocations.values().sum();
        prices::TRACE.of(invocations * MILLION)
    }

    fn bill(&self) -> Vec<Part> {
        let of = |price: &'static Price, count: f64| Part {
            price,
            count: count * MILLION,
        };
        let units = &self.units;
        let invocations: f64 = self.invocations.values().sum();
        let logs = self.log_bytes / GB;
        let mut parts = vec![
            of(&prices::WRITE, units.writes + units.index_writes),
            of(&prices::READ, units.reads),
            of(&prices::S3_PUT, units.s3_puts),
            of(&prices::S3_GET, units.s3_gets),
            of(&prices::SQS, units.sqs),
            of(&prices::SECRET_CALL, units.secrets),
            of(&prices::INVOCATION, invocations),
            of(&prices::GATEWAY, 1.0),
            of(&prices::LOG, logs),
            of(&prices::LOG_KEPT, logs),
            // Below one request a second, each invocation is traced.
        ];
        parts.extend(self.kept_for(RETENTION.as_secs_f64() / 86_400.0));
        parts.extend(
            self.invocations
                .iter()
                .map(|(function, count)| compute(function, duration(function), count * MILLION)),
        );
        parts
    }
}

fn total(parts: &[Part]) -> f64 {
    parts.iter().map(Part::dollars).sum()
}

/// The bill of a month in which nothing comes.
async fn idle() -> Vec<Part> {
    let world = World::new();
    let platform = Metered::new(&world.memory, "reconciler");
    reconcile(&platform).await;
    let minutes = prices::MONTH_SECS / 60.0;
    let template = template();
    let alarms: usize = template
        .resources("AWS::CloudWatch::Alarm")
        .into_values()
        .map(|alarm| match alarm["Metrics"].as_array() {
            Some(metrics) => metrics
                .iter()
                .filter(|one| one["MetricStat"].is_object())
                .count(),
            None => 1,
        })
        .sum();
    let own = fs::read_to_string(root().join("shared/aws/src/lambda.rs")).unwrap();
    let metrics = own.matches("metric(\"").count();
    let counted = template.resources("AWS::Logs::MetricFilter").len();
    let queues = template.resources("AWS::Lambda::EventSourceMapping").len();
    let polls = prices::MONTH_SECS / prices::POLL_SECS * prices::POLLERS;
    let log_bytes = prices::INVOCATION_LOG_BYTES + 2.0 * prices::LINE_BYTES + 700.0;
    let logs = minutes * log_bytes / GB;
    let of = |price: &'static Price, count: f64| Part { price, count };
    vec![
        of(&prices::SQS, polls * number(queues)),
        of(&prices::ALARM, number(alarms)),
        of(&prices::METRIC, number(metrics + counted)),
        of(&prices::READ, platform.units().reads * minutes),
        compute("reconciler", prices::RECONCILE_MS, minutes),
        of(&prices::INVOCATION, minutes),
        of(&prices::SCHEDULE, minutes),
        of(
            &prices::KEY,
            number(template.resources("AWS::KMS::Key").len()),
        ),
        of(&prices::LOG, logs),
        of(&prices::LOG_KEPT, logs),
    ]
}

/// What a change would save of a million attestations, the most first.
fn levers(counted: &Counted) -> Vec<(f64, &'static str)> {
    let parts = counted.bill();
    let of = |prices: &[&Price]| -> f64 {
        let is_one = |part: &&Part| prices.iter().any(|price| std::ptr::eq(part.price, *price));
        parts.iter().filter(is_one).map(Part::dollars).sum()
    };
    let units = &counted.units;
    let sixty = counted.kept_for(60.0);
    let kept = counted.kept_for(RETENTION.as_secs_f64() / 86_400.0);
    let delivering = deliver_webhook();
    let compute = compute(
        &delivering,
        prices::DELIVER_MS,
        counted.invocations[&delivering] * MILLION,
    );
    let mut all = vec![
        (
            total(&kept) - total(&sixty),
            "`RetentionDays=60` instead of 180",
        ),
        (of(&[&prices::RECOVERY]), "no point-in-time recovery"),
        (
            prices::WRITE.of(units.doubled * MILLION),
            "single writes instead of transactions; a plan and its deliveries would not be written together",
        ),
        (
            prices::WRITE.of(units.due_writes * MILLION),
            "no index of what is due; the reconciler would have to find it otherwise",
        ),
        (
            prices::WRITE.of((units.index_writes - units.due_writes) * MILLION),
            "no indexes by registration, by workflow and of what failed; lists of deliveries would have to be found otherwise",
        ),
        (of(&[&prices::LOG, &prices::LOG_KEPT]), "no logs"),
        (
            compute.dollars() / 2.0,
            "half the memory for the function that delivers",
        ),
    ];
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all
}

fn services() -> Vec<&'static str> {
    let mut services = Vec::new();
    for price in ALL {
        if !services.contains(&price.service) {
            services.push(price.service);
        }
    }
    services
}

fn of_service(parts: &[Part], service: &str) -> f64 {
    let parts = parts.iter().filter(|part| part.price.service == service);
    parts.map(Part::dollars).sum()
}

async fn page() -> String {
    let mut all = Vec::new();
    for size in SIZES {
        all.push(run(size).await);
    }
    let bills: Vec<Vec<Part>> = all.iter().map(Counted::bill).collect();
    let mut text = format!(
        "<!-- Written by tests/src/cost.rs from a run of the pipeline: REFRESH=1 cargo test -p tests cost -->\n{}",
        introduction()
    );
    let row = |text: &mut String, name: &str, of: &dyn Fn(&[Part]) -> f64| {
        write!(text, "| {name} |").unwrap();
        for bill in &bills {
            write!(text, " {:.2} |", of(bill)).unwrap();
        }
        text.push('\n');
    };
    text.push_str(
        "\n## A million attestations\n\nIn dollars, by the number of attachments of each:\n\n| |",
    );
    for size in SIZES {
        write!(text, " {size} |").unwrap();
    }
    text.push_str("\n|---|---|---|---|---|\n");
    for service in services() {
        if bills.iter().any(|bill| of_service(bill, service) > 0.0) {
            row(&mut text, service, &|bill| of_service(bill, service));
        }
    }
    row(&mut text, "**all**", &total);
    text.push_str("| with traces (`Tracing=Active`) |");
    for (one, bill) in all.iter().zip(&bills) {
        write!(text, " {:.2} |", total(bill) + one.traces()).unwrap();
    }
    text.push('\n');
    text.push_str(&counts(&all));
    text.push_str(&capacity(&all));
    text.push_str(&largest(&all));
    let idle = idle().await;
    text.push_str("\n## A month without attestations\n\n| service | what | count | dollars |\n|---|---|---|---|\n");
    for part in &idle {
        let (service, what) = (part.price.service, part.price.what);
        let count = match part.count {
            count if count < 10.0 => format!("{count:.3}"),
            count => format!("{count:.0}"),
        };
        writeln!(
            text,
            "| {service} | {what} | {count} | {:.2} |",
            part.dollars()
        )
        .unwrap();
    }
    writeln!(text, "| **all** | | | {:.2} |", total(&idle)).unwrap();
    let (per, told) = (prices::SECRET.dollars, all[0].metrics);
    write!(
        text,
        "\nAn empty queue is asked by {} pollers, each for {} s; there are two queues for each integration, one of them for dead \
         letters, and two for what is fetched. DynamoDB and S3 cost nothing here that is not stored.\n\n\
         Each **registration** with a secret costs ${per:.2} a month, as does each intake that fetches; one with a `role_arn`, \
         nothing. A **receipt** costs a signature, when it is asked for.\n\n\
         A **custom metric** costs ${:.2} a month, by the hours in which it is told of. While deliveries succeed, {} of the stack \
         and {} of each integration are, and with `Metrics=registration` {} of each registration: ${:.2} a month for one integration, if something \
         comes every hour. Those of failures come when there are some; `Metrics=none` tells of none.\n",
        prices::POLLERS,
        prices::POLL_SECS,
        prices::METRIC.dollars,
        told.of_stack,
        told.of_each,
        told.of_each,
        prices::METRIC.of(number(told.of_stack + told.of_each)),
    )
    .unwrap();
    text.push_str("\n## Prices\n\n| service | what | dollars | per |\n|---|---|---|---|\n");
    for Price {
        service,
        what,
        dollars,
        unit,
        ..
    } in ALL
    {
        writeln!(text, "| {service} | {what} | {dollars} | {unit} |").unwrap();
    }
    text
}

fn introduction() -> String {
    let memory = |function: &str| memory_gb(function) * 1024.0;
    let delivering = deliver_webhook();
    format!(
        "# Cost

The cost of this stack on AWS, by a model: the pipeline accepts, delivers and reconciles {RUN} attestations over a platform in memory, each
unit that AWS bills is counted and rounded as AWS does it, and multiplied by the list prices at the end of this page. These are of
us-east-1, without a free tier, written down in {date} from memory: check them before you decide by them. No bill of AWS was compared
with it.

Counted: attestations of about 1 KB without materials, which name one digest, pushed with a token and delivered to webhooks that answer 200 at once, each
with a registration of its own. They come as far apart as a million in a month, {apart:.1} s. Reads and writes are those of rows as they
were; a condition that is checked costs as a write, an entry of an index one unit, also in a transaction. Rows, index entries and bytes are
paid for as long as they are kept, {days} days and a week more for bytes.

Assumed, because nothing was measured on AWS:

| | |
|---|---|
| `attestations` takes | {accept} ms of {accept_mb} MB |
| `authorizer` takes | {authorize} ms of {authorize_mb} MB, once in {token} s, since the gateway remembers tokens |
| `{delivering}` takes | {deliver} ms of {deliver_mb} MB for a batch; a batch has all deliveries of an attestation, ten at most |
| `reconciler` takes | {reconcile} ms of {reconcile_mb} MB |
| An invocation's own log | {invocation} bytes, and {line} around each line of ours |
| Traces | none; with `Tracing=Active` each invocation is one, since at less than one a second X-Ray's default takes all |

Retries, materials, a VPC's endpoints, data that leaves AWS, and calls to KMS for a key of the account's own are not counted.
",
        date = prices::DATE,
        apart = APART.as_secs_f64(),
        days = RETENTION.as_secs() / 86_400,
        accept = prices::ACCEPT_MS,
        accept_mb = memory("attestations"),
        authorize = prices::AUTHORIZE_MS,
        authorize_mb = memory("authorizer"),
        token = prices::TOKEN_SECS,
        deliver = prices::DELIVER_MS,
        deliver_mb = memory(&delivering),
        reconcile = prices::RECONCILE_MS,
        reconcile_mb = memory("reconciler"),
        invocation = prices::INVOCATION_LOG_BYTES,
        line = prices::LINE_BYTES,
    )
}

/// The units of one attestation.
fn counts(all: &[Counted]) -> String {
    let mut text =
        "\nCounted for one attestation:\n\n| | 1 | 3 | 10 | 50 |\n|---|---|---|---|---|\n"
            .to_owned();
    let of = |counted: &Counted, index: usize| {
        let units = &counted.units;
        let invocations: f64 = counted.invocations.values().sum();
        [
            units.writes,
            units.doubled,
            units.index_writes,
            units.reads,
            units.s3_puts,
            units.s3_gets,
            units.sqs,
            units.secrets,
            invocations,
            counted.log_bytes,
            counted.row_bytes,
            counted.object_bytes,
        ][index]
    };
    for (index, name) in [
        "write units of rows",
        "of these, because of transactions",
        "write units of index entries",
        "read units",
        "S3 PUT",
        "S3 GET and HEAD",
        "SQS requests",
        "Secrets Manager calls",
        "Lambda invocations",
        "bytes of logs",
        "bytes of rows that stay",
        "bytes in the bucket",
    ]
    .into_iter()
    .enumerate()
    {
        write!(text, "| {name} |").unwrap();
        for counted in all {
            let count = of(counted, index);
            match count {
                count if count >= 100.0 => write!(text, " {count:.0} |").unwrap(),
                count => write!(text, " {count:.2} |").unwrap(),
            }
        }
        text.push('\n');
    }
    text
}

/// How many attestations a second the table and the deliveries take.
fn capacity(all: &[Counted]) -> String {
    let template = template();
    let batches = template.number(&json!({ "Ref": "DeliveryConcurrency" }));
    let deliveries =
        number(usize::try_from(batches).unwrap()) * BATCH / (prices::DELIVER_MS / 1_000.0);
    let mut text = format!(
        "\n## Capacity\n\nA table on demand takes {FIRST_WRITES} write units a second when it is new, more when it has had to, and up to \
         {MOST_WRITES} by an account's default quota. An integration delivers up to {batches} batches of {BATCH} at a time. So, in \
         attestations a second, if those of a batch go to as many destinations that answer at once:\n\n\
         | | 1 | 3 | 10 | 50 |\n|---|---|---|---|---|\n"
    );
    for (name, units) in [
        ("the table, new", FIRST_WRITES),
        ("the table, at most", MOST_WRITES),
    ] {
        write!(text, "| {name} |").unwrap();
        for counted in all {
            write!(text, " {:.0} |", units / counted.units.writes).unwrap();
        }
        text.push('\n');
    }
    let limit = |route: &str, what: &str| {
        template.number(&template.properties("Stage")["RouteSettings"][route][what])
    };
    let both = |route| {
        (
            limit(route, "ThrottlingRateLimit"),
            limit(route, "ThrottlingBurstLimit"),
        )
    };
    let (pushes, at_once) = both("POST /v1/attestations");
    let (posts, posts_at_once) = both("POST /v1/intake/{token}");
    text.push_str("| the gateway |");
    for _ in all {
        write!(text, " {pushes} |").unwrap();
    }
    text.push_str("\n| deliveries of one integration |");
    for size in SIZES {
        write!(text, " {:.0} |", deliveries / number(size)).unwrap();
    }
    write!(
        text,
        "\n\nThe gateway accepts {pushes} pushes a second ({at_once} at once) and {posts} posts to intakes ({posts_at_once} at once), and answers 429 to \
         more: `RouteSettings` in the template. What is accepted and not yet delivered waits in the queues: a message lives for \
         four days, and the reconciler sends what its queue lost. `WarmReads` and `WarmWrites` give the table more from the start, \
         and `DeliveryConcurrency` the deliveries. None of this was measured on AWS.\n"
    )
    .unwrap();
    text
}

fn largest(all: &[Counted]) -> String {
    let mut text = "\n## The largest levers\n\nSavings on a million attestations, with ten attachments each, and \
                    with one:\n\n| | 10 | 1 |\n|---|---|---|\n"
        .to_owned();
    let (one, ten) = (levers(&all[0]), levers(&all[2]));
    for (saved, what) in ten.iter().take(3) {
        let (of_one, _) = one.iter().find(|(_, own)| own == what).unwrap();
        writeln!(text, "| {what} | {saved:.2} | {of_one:.2} |").unwrap();
    }
    text
}

fn deliver_webhook() -> String {
    format!("deliver-{}", Webhook::ID)
}

#[tokio::test]
async fn the_page_of_costs_is_what_a_run_costs() {
    let path = root().join("docs/cost.md");
    let text = page().await;
    if std::env::var_os("REFRESH").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/cost.md is not what a run costs now; REFRESH=1 cargo test -p tests cost writes it anew (look at the difference \
         before committing it)"
    );
}
