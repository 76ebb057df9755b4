//! The promise, on one page for users, with the numbers that the code keeps to.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use pipeline::ledger::schedule::{self, Deadlines};

use crate::contract::root;

/// `150 s`, `12 min`, `4 h`, `30 days`: in the largest unit that says it exactly.
fn long(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        _ if secs >= 86_400 * 2 && secs.is_multiple_of(86_400) => format!("{} days", secs / 86_400),
        _ if secs >= 3_600 && secs.is_multiple_of(3_600) => format!("{} h", secs / 3_600),
        _ if secs >= 120 && secs.is_multiple_of(60) => format!("{} min", secs / 60),
        _ => format!("{secs} s"),
    }
}

fn page() -> String {
    let attempts = schedule::ATTEMPTS;
    let give_up = long(schedule::GIVE_UP);
    let kept = long(schedule::RETENTION);
    let mut text = format!(
        "<!-- Written by tests/src/promise.rs from the constants of pipeline::schedule: REFRESH=1 cargo test -p tests -->
# The promise

**Accepted means: every delivery that was planned ends, and you can see how.** When an attestation is answered with `202`,
each of its deliveries ends as exactly one of

- **delivered**: the third party has taken it;
- **skipped**, with a reason: there was rightly nothing to send;
- **failed**, with a reason: it was refused for good, or {attempts} attempts or {give_up} were not enough;
- **cancelled**: an operator cancelled it, or deleted what it would have gone through.

Nothing else, ever. Until then it is pending or being attempted, and something will look at it: no row waits without a time.

## What you can rely on

| | |
|---|---|
| Attempts | {attempts}, within {give_up}; then it has failed and says why |
| Longest attempt | {notification} to Slack, Discord and OCI registries, {material} to all others |
| A function that is killed in the midst of it | is found {short_lease} or {lease} after the attempt began; its delivery is attempted again within two minutes more |
| A missing material | is waited for until {patience} after acceptance, or as long as the attachment says; then what is there is delivered, and what is missing is named |
| A signature that a trust policy requires, of what a control plane forwarded | is waited for as long as a missing material, and for {patience} at least; without it nothing is sent, and the delivery fails with the reason |
| A registration whose every attempt fails for {failing}, {failing_attempts} at least, or whose third party says that it is gone | is paused: what comes is held, its {give_up} stand still, and it goes on where it stood when you resume it |
| Pauses | hold a delivery for {pause} at most, all of them together; then it has failed |
| A destination that fails {down} times in a row | is left alone, and tried by one delivery at a time after {probes} |
| An answer 500, or a connection that breaks | may be the attestation's fault, and holds back none that had no such answer. Once {doubts} attestations had one, they are retried one at a time, {doubt} apart, until the third party accepts something |
| An attestation that got 500 {refusals} times, with others accepted in between | has failed |
| To look at, redeliver and backfill | {kept}, unless the deployment says otherwise |
| Attachments of one workflow | {attached} at most; an attestation goes to {most} at most |

## Duplicates

Each delivery is sent once, with one exception that no system can avoid: when a request was under way and its answer was
lost (a function was killed, a connection broke, the answer came too late), the third party may have it, and it is sent
again. Each request that was cut off causes at most one copy. The webhook's `webhook-id` stays the same, so that a
receiver can recognise it. Steps that were recorded as done are not repeated.

The same attestation pushed again, or a hundred times at once, gives the same IDs and sends nothing again.

## When it is attempted again

At once when a function was killed, {crashes} times in a row at most. Otherwise not before these times, counted from the
failure, and not before a longer `Retry-After` that ends in time; up to a tenth is added, so that not all come in the same
moment.

| attempt | not before |
|---|---|
",
        notification = long(Deadlines::of(false).attempt),
        material = long(Deadlines::of(true).attempt),
        short_lease = long(Deadlines::of(false).lease + schedule::LEASE_GRACE),
        lease = long(Deadlines::of(true).lease + schedule::LEASE_GRACE),
        patience = long(schedule::PATIENCE),
        failing = long(schedule::FAILING),
        failing_attempts = schedule::FAILING_ATTEMPTS,
        pause = long(schedule::PAUSE_LONGEST),
        crashes = ["no", "one", "two", "three"][schedule::CRASHES as usize],
        down = schedule::DOWN_AFTER,
        doubts = schedule::DOUBTS,
        doubt = long(schedule::DOUBT),
        refusals = schedule::REFUSALS,
        probes = schedule::HALF_OPEN_AFTER.map(long).join(", "),
        attached = pipeline::config::attach::MOST,
        most = schedule::PLAN_MOST,
    );
    for (index, after) in schedule::RETRIES.iter().enumerate() {
        writeln!(text, "| {} | {} |", index + 2, long(*after)).unwrap();
    }
    write!(
        text,
        "
## How you can check it

`chainloop delivery audit` walks every attestation and its plans, and ends with exit code 1 naming each delivery that is
missing, that is not final and will not be looked at, or that is more than {overdue} late. The same law is read for every plan
as it goes: a plan is closed only when each of its deliveries was found and is final, first looked at {close} after it was
sent. The reconciler publishes what it finds as the metrics `Violations` and `OldestOverdue`, each with an alarm, also
when it says nothing at all; and as `Unclaimed`, what is due for 10 min and no function has claimed, which the audit names too.

How many attestations a second a stack takes: [cost.md](cost.md#capacity).

How this is tried before a release, and what was measured: [reliability.md](reliability.md).
",
        overdue = long(schedule::OVERDUE),
        close = long(schedule::CLOSE),
    )
    .unwrap();
    text
}

#[test]
fn the_page_of_the_promise_has_the_numbers_of_the_code() {
    let path = root().join("docs/promise.md");
    let text = page();
    if std::env::var_os("REFRESH").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/promise.md is not what the constants say; REFRESH=1 cargo test -p tests writes it anew"
    );
}
