//! The cloud: finds the service that a request is for, and writes each call down.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use receiver::{Answer, Received};
use serde_json::Value;

use crate::bucket::Bucket;
use crate::calls::{Call, Calls};
use crate::server::Service;
use crate::services::{Fault, Queues, Secrets};
use crate::table::Table;

#[derive(Default)]
struct State {
    table: Table,
    bucket: Bucket,
    queues: Queues,
    secrets: Secrets,
    calls: Calls,
    /// Services that were called over each connection.
    used: BTreeSet<(u64, &'static str)>,
    delay: Duration,
}

#[derive(Default)]
pub struct Cloud(Mutex<State>);

impl Cloud {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// Makes each call take so long, which shows what happens at the same time.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Takes the calls since this was last asked.
    pub fn calls(&self) -> Calls {
        mem::take(&mut self.state().calls)
    }

    /// Takes the messages of a queue.
    pub fn messages(&self, queue: &str) -> Vec<String> {
        self.state().queues.0.remove(queue).unwrap_or_default()
    }

    /// Changes the table's rows by other ways than its API.
    pub fn table(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.state().table);
    }

    /// Puts bytes into a bucket.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state().bucket.put(path, bytes, None);
    }
}

/// The answer of a service with JSON.
fn json(result: Result<Value, Fault>) -> Answer {
    let (status, body) = match result {
        Ok(body) => (200, body),
        Err(Fault {
            kind,
            message,
            mut details,
        }) => {
            details["__type"] = kind.into();
            details["message"] = message.into();
            (400, details)
        }
    };
    Answer::status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(body.to_string())
}

impl State {
    fn answer(&mut self, request: Received) -> (&'static str, String, Answer) {
        let target = request
            .header("x-amz-target")
            .unwrap_or_default()
            .to_owned();
        if let Some((service, operation)) = target.split_once('.') {
            let input = request.json();
            let (service, result) = match service {
                "DynamoDB_20120810" => ("dynamodb", self.table.answer(operation, &input)),
                "AmazonSQS" => ("sqs", self.queues.answer(operation, &input)),
                "secretsmanager" => ("secrets", self.secrets.answer(operation, &input)),
                _ => (
                    "unknown",
                    Err(Fault::new("UnknownOperationException", &target)),
                ),
            };
            return (service, operation.to_owned(), json(result));
        }
        if request.path.starts_with("/2015-03-31/functions/") {
            // Whatever a delivery function is asked, it says that it works.
            let answer = Answer::status(200).body(r#"{"works":{}}"#);
            return ("lambda", "Invoke".into(), answer);
        }
        let (operation, answer) = self.bucket.answer(request);
        ("s3", operation.into(), answer)
    }
}

impl Service for Cloud {
    fn opened(&self, connection: u64) {
        self.state().calls.opened.insert(connection);
    }

    fn answer(&self, connection: u64, request: Received) -> Answer {
        let begun = Instant::now();
        let delay = self.state().delay;
        thread::sleep(delay);
        let mut state = self.state();
        let (service, operation, answer) = state.answer(request);
        let is_first = state.used.insert((connection, service));
        state.calls.calls.push(Call {
            service,
            operation,
            connection,
            is_first,
            begun,
            ended: Instant::now(),
        });
        answer
    }
}
