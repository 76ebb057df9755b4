//! The platform as one invocation of a function meets it: slow, failing, with a clock that is off, and
//! ending anywhere.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use memory::Memory;
use pipeline::engine::fetch;
use pipeline::ledger::{message, schedule};
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Announcement, Item, Key, Message, Piece, Platform, Range, SecretValue, Unreachable, Write,
    WriteError,
};
use serde_json::Value;

use crate::executor::Task;
use crate::fault::Fault;
use crate::laws::{Last, name_of};
use crate::world::{World, ready};
use crate::{MINUTE, SECOND};

pub struct Function {
    pub world: Rc<World>,
    pub task: Task,
    /// Milliseconds by which its clock is ahead.
    skew: i64,
    /// At so many awaits from now it crashes.
    crash_in: Cell<Option<u64>>,
    meter: Meter,
}

fn failed(what: &'static str, fault: Fault) -> Unreachable {
    Unreachable {
        what,
        why: fault.name().into(),
    }
}

impl Function {
    pub fn new(world: &Rc<World>, task: Task) -> Self {
        let strikes = |fault, weight| {
            world
                .faults
                .strikes(&world.random, world.now(), fault, weight)
        };
        let skew = if strikes(Fault::Skew, 10) {
            world.happened(Fault::Skew, &[]);
            let skew = world.random.below(10_000);
            skew.cast_signed() - 5_000
        } else {
            0
        };
        Self {
            world: world.clone(),
            task,
            skew,
            meter: Meter::default(),
            crash_in: Cell::new(strikes(Fault::Crash, 2).then(|| world.random.below(40))),
        }
    }

    /// One await, at which everything else may happen, and the function may end.
    async fn step(&self) {
        let world = &self.world;
        match self.crash_in.get() {
            Some(0) => {
                world.log(|| format!("function {} crashes", self.task));
                world.laws.borrow_mut().killed(Fault::Crash, self.task);
                world.executor.doom();
                std::future::pending::<()>().await;
            }
            Some(left) => self.crash_in.set(Some(left - 1)),
            None => {}
        }
        let millis = if world.strikes(Fault::Slow, 1, &[]) {
            match world.random.below(10) {
                0 => world.random.between(5 * SECOND, 40 * SECOND),
                _ => world.random.between(100, 3 * SECOND),
            }
        } else {
            world.random.between(1, 15)
        };
        world.executor.sleep(&world.random, millis).await;
    }

    /// The await after the effect; most often the answer is there at once.
    async fn answered(&self) {
        if self.crash_in.get().is_some() || self.world.random.below(3) == 0 {
            self.step().await;
        }
    }

    fn fails(
        &self,
        what: &'static str,
        down: Fault,
        fault: Fault,
        about: &[&str],
    ) -> Option<Unreachable> {
        let world = &self.world;
        let fault = if world.faults.lasts(world.now(), down) {
            world.happened(down, about);
            down
        } else if world.strikes(fault, 1, about) {
            fault
        } else {
            return None;
        };
        world.laws.borrow_mut().met(self.task);
        Some(failed(what, fault))
    }

    async fn read<T>(
        &self,
        what: &'static str,
        down: Fault,
        keys: &[Key],
        effect: impl FnOnce(&Memory) -> Result<T, Unreachable>,
    ) -> Result<T, Unreachable> {
        // Read at once and heard of later: what matters about a read is how old it may be.
        let names: Vec<String> = keys.iter().filter_map(name_of).collect();
        let about: Vec<&str> = names.iter().map(String::as_str).collect();
        let result = match self.fails(what, down, Fault::ReadFails, &about) {
            None => effect(&self.world.memory),
            Some(failure) => Err(failure),
        };
        let last = if result.is_ok() {
            Last::Done
        } else {
            Last::Failed
        };
        for name in about {
            self.world.laws.borrow_mut().heard(self.task, name, last);
        }
        self.step().await;
        result
    }

    async fn put<T>(
        &self,
        what: &'static str,
        down: Fault,
        effect: impl FnOnce(&Memory) -> Result<T, Unreachable>,
    ) -> Result<T, Unreachable> {
        self.step().await;
        let result = match self.fails(what, down, Fault::WriteRefused, &[]) {
            Some(failure) => Err(failure),
            None => effect(&self.world.memory),
        };
        let ambiguous = self.world.strikes(Fault::WriteAmbiguous, 1, &[]);
        self.answered().await;
        match ambiguous {
            true => Err(failed(what, Fault::WriteAmbiguous)),
            false => result,
        }
    }

    /// Writes, later or never, whatever is answered.
    fn transact(&self, writes: Vec<Write>, about: &[&str]) -> Result<(), WriteError> {
        let world = &self.world;
        if let Some(failure) = self.fails("table", Fault::TableDown, Fault::WriteRefused, about) {
            return Err(failure.into());
        }
        if world.strikes(Fault::WriteLate, 1, about) {
            world.laws.borrow_mut().met(self.task);
            let task = self.task;
            world.after(world.random.between(1, 30 * SECOND), move |world| {
                world.log(|| format!("function {task}'s write comes late"));
                let _ = world.write(task, writes);
            });
            return Err(failed("table", Fault::WriteLate).into());
        }
        let result = world.write(self.task, writes);
        if world.strikes(Fault::WriteAmbiguous, 1, about) {
            world.laws.borrow_mut().met(self.task);
            return Err(failed("table", Fault::WriteAmbiguous).into());
        }
        result
    }

    fn enqueue(&self, integration: &str, message: &Message, about: &[&str]) -> Result<(), String> {
        let world = &self.world;
        if world.strikes(Fault::SendPartly, 1, about) {
            world.laws.borrow_mut().met(self.task);
            return Err(Fault::SendPartly.name().into());
        }
        let delay = u64::try_from(message.delay.as_millis()).expect("minutes");
        let copies = 1 + u64::from(world.strikes(Fault::SendDuplicated, 1, about));
        if copies > 1
            && let Ok(message) = fetch::Message::parse(&message.body)
        {
            world.laws.borrow_mut().fetch_disturbed(&message);
        }
        for _ in 0..copies {
            let late = match world.strikes(Fault::SendDelayed, 1, about) {
                true => world.random.between(SECOND, 30 * MINUTE),
                false => world.random.between(5, 60),
            };
            world.queues.send(
                world,
                integration,
                &message.body,
                &message.group,
                delay + late,
            );
        }
        Ok(())
    }
}

/// Excuses sends whose record was not confirmed, also when the function ends before it could be.
struct Unconfirmed<'a> {
    function: &'a Function,
    deliveries: Vec<String>,
    last: Last,
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        let mut laws = self.function.world.laws.borrow_mut();
        for delivery in &self.deliveries {
            laws.heard(self.function.task, delivery, self.last);
            if self.last == Last::Failed {
                laws.excuse(self.function.task, delivery);
            }
        }
    }
}

impl Platform for Function {
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable> {
        self.read(
            "table",
            Fault::TableDown,
            std::slice::from_ref(key),
            |memory| ready(memory.get(key)),
        )
        .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        self.read("table", Fault::TableDown, keys, |memory| {
            ready(memory.get_many(keys))
        })
        .await
    }

    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        self.read("table", Fault::TableDown, &[], |memory| {
            ready(memory.list(partition, prefix, after, limit))
        })
        .await
    }

    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        self.read("table", Fault::TableDown, &[], |memory| {
            ready(memory.list_last(partition, prefix, before, limit))
        })
        .await
    }

    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        if self.world.faults.lasts(self.world.now(), Fault::IndexStale) {
            self.world.happened(Fault::IndexStale, &[]);
        }
        self.read("table", Fault::TableDown, &[], |memory| {
            ready(memory.range(range))
        })
        .await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let mut names = Vec::new();
        for write in &writes {
            if let Some(name) = name_of(write.key()) {
                names.push(name);
            }
        }
        let mut unconfirmed = Unconfirmed {
            function: self,
            deliveries: names,
            last: Last::Failed,
        };
        self.step().await;
        let about: Vec<&str> = unconfirmed.deliveries.iter().map(String::as_str).collect();
        let result = self.transact(writes, &about);
        self.answered().await;
        unconfirmed.last = match &result {
            Ok(()) => Last::Done,
            Err(WriteError::Conflict) => Last::Conflict,
            Err(WriteError::Unreachable(_)) => Last::Failed,
        };
        result
    }

    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        self.put("table", Fault::TableDown, |memory| {
            ready(memory.add(key, amounts, expires_at))
        })
        .await
    }

    async fn put_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        self.put("bucket", Fault::BucketDown, |memory| {
            ready(memory.put_object(organization, digest, bytes))
        })
        .await
    }

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        self.read("bucket", Fault::BucketDown, &[], |memory| {
            ready(memory.get_object(organization, digest))
        })
        .await
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        self.read("bucket", Fault::BucketDown, &[], |memory| {
            ready(memory.read_object(organization, digest, offset, length))
        })
        .await
    }

    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        self.object_size(organization, digest).await
    }

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        self.read("bucket", Fault::BucketDown, &[], |memory| {
            ready(memory.object_size(organization, digest))
        })
        .await
    }

    async fn begin_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable> {
        self.put("bucket", Fault::BucketDown, |memory| {
            ready(memory.begin_upload(organization, digest))
        })
        .await
    }

    async fn upload_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        self.put("bucket", Fault::BucketDown, |memory| {
            ready(memory.upload_part(organization, digest, upload, number, bytes))
        })
        .await
    }

    async fn complete_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        self.put("bucket", Fault::BucketDown, |memory| {
            ready(memory.complete_upload(organization, digest, upload, parts))
        })
        .await
    }

    async fn abandon_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        self.put("bucket", Fault::BucketDown, |memory| {
            ready(memory.abandon_upload(organization, digest, upload))
        })
        .await
    }

    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        self.world
            .memory
            .presign_put(organization, digest, size_bytes)
            .await
    }

    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        self.world.memory.presign_get(organization, digest).await
    }

    async fn send(
        &self,
        integration: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable> {
        self.step().await;
        let world = &self.world;
        let parsed: Vec<_> = messages
            .iter()
            .filter_map(|message| message::Message::parse(&message.body).ok())
            .collect();
        let fetches: Vec<_> = messages
            .iter()
            .filter_map(|message| Some((fetch::Message::parse(&message.body).ok()?, message.delay)))
            .collect();
        let hashes: Vec<String> = fetches
            .iter()
            .map(|(message, _)| message.attestation.hex())
            .collect();
        // A queue has messages of one kind.
        let about: Vec<&str> = match integration {
            fetch::QUEUE => hashes.iter().map(String::as_str).collect(),
            _ => parsed
                .iter()
                .map(|message| message.delivery.as_str())
                .collect(),
        };
        let result = match self.fails("queue", Fault::QueueDown, Fault::SendFails, &about) {
            Some(failure) => Err(failure),
            None => {
                for message in parsed.iter().filter(|message| !message.follow) {
                    let (delivery, attempt) = (message.delivery.as_str(), message.attempt);
                    world.log(|| format!("function {} sends {delivery} {attempt}", self.task));
                    let now = world.now();
                    world
                        .laws
                        .borrow_mut()
                        .sent(self.task, now, delivery, attempt);
                }
                for (message, delay) in &fetches {
                    world.laws.borrow_mut().fetch_sent(world, message, *delay);
                }
                let answers = messages
                    .iter()
                    .zip(&about)
                    .map(|(message, about)| self.enqueue(integration, message, &[about]))
                    .collect();
                match world.strikes(Fault::SendAmbiguous, 1, &about) {
                    false => Ok(answers),
                    true => {
                        world.laws.borrow_mut().met(self.task);
                        Err(failed("queue", Fault::SendAmbiguous))
                    }
                }
            }
        };
        self.answered().await;
        result
    }

    async fn put_secret(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable> {
        self.put("secrets", Fault::SecretsDown, |memory| {
            ready(memory.put_secret(name, value))
        })
        .await
    }

    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        self.read("secrets", Fault::SecretsDown, &[], |memory| {
            ready(memory.get_secret(name, version))
        })
        .await
    }

    async fn delete_secret(&self, name: &str) -> Result<(), Unreachable> {
        self.put("secrets", Fault::SecretsDown, |memory| {
            ready(memory.delete_secret(name))
        })
        .await
    }

    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable> {
        self.step().await;
        self.world.memory.announce(announcement).await
    }

    async fn invoke(&self, integration: &str, event: Value) -> Result<Value, Unreachable> {
        self.world.memory.invoke(integration, event).await
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unreachable> {
        self.world.memory.sign(message).await
    }

    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable> {
        self.world.memory.signing_key().await
    }

    fn stack(&self) -> &str {
        self.world.memory.stack()
    }

    fn retention(&self) -> Duration {
        schedule::RETENTION
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.world.now().saturating_add_signed(self.skew))
    }

    async fn sleep(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).expect("minutes");
        self.world.executor.sleep(&self.world.random, millis).await;
    }

    fn random(&self) -> u64 {
        self.world.random.next()
    }
}
