//! Everything there is in a run, and its verbs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use api::{DeliveryId, Timestamp};
use attestation::Digest;
use futures_util::FutureExt;
use integrations::Http;
use memory::Memory;
use pipeline::Platform;
use pipeline::store::platform::{Write, WriteError};

use crate::executor::{End, Executor, Task};
use crate::fault::{Fault, Faults};
use crate::function::Function;
use crate::laws::Laws;
use crate::queue::Queues;
use crate::random::Random;
use crate::store::Artifact;

/// Log of events, line by line, for replays of a seed.
type Log = RefCell<Vec<String>>;

pub struct World {
    pub executor: Executor,
    pub memory: Memory,
    pub random: Random,
    pub faults: Faults,
    pub queues: Queues,
    pub laws: RefCell<Laws>,
    /// Contents of the control plane's store.
    pub artifacts: RefCell<BTreeMap<Digest, Artifact>>,
    pub http: Http,
    pub start: u64,
    /// When the reconciler runs next.
    pub tick_at: Cell<u64>,
    log: Option<Log>,
    hash: Cell<u64>,
}

/// Returns the result of an async function of the memory, which never waits.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory never waits")
}

impl World {
    pub fn new(seed: u64, http: Http, traced: bool) -> Rc<Self> {
        let random = Random::new(seed);
        let start = Memory::default().now().millis();
        let faults = Faults::of(&random, start);
        Self::with(seed, random, faults, http, traced)
    }

    pub fn with(seed: u64, random: Random, faults: Faults, http: Http, traced: bool) -> Rc<Self> {
        let memory = Memory::default();
        // Others read a row between two writes of one function.
        memory.is_newer.set(false);
        let start = memory.now().millis();
        Rc::new(Self {
            faults,
            executor: Executor::starting_at(start),
            queues: Queues::new(&random),
            laws: RefCell::default(),
            artifacts: RefCell::default(),
            tick_at: Cell::new(u64::MAX),
            log: traced.then(RefCell::default),
            hash: Cell::new(seed),
            memory,
            random,
            http,
            start,
        })
    }

    pub fn now(&self) -> u64 {
        self.executor.now()
    }

    /// Moves time on to an event.
    pub fn advance(&self, at: u64, tag: u64) {
        let passed = at - self.now();
        if passed > 0 {
            self.memory.advance(Duration::from_millis(passed));
            self.executor.set_now(at);
        }
        let mixed = self.hash.get().rotate_left(5) ^ at ^ (tag << 44);
        self.hash.set(mixed.wrapping_mul(0x517c_c1b7_2722_0a95));
    }

    /// Tells two runs apart.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    pub fn at(&self, at: u64, event: impl FnOnce(&Rc<Self>) + 'static) {
        self.executor.at(&self.random, at, event);
    }

    pub fn after(&self, millis: u64, event: impl FnOnce(&Rc<Self>) + 'static) {
        self.at(self.now() + millis, event);
    }

    pub fn log(&self, line: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            let millis = self.now() - self.start;
            let (secs, millis) = (millis / 1000, millis % 1000);
            let (hours, minutes) = (secs / 3600, secs / 60 % 60);
            let line = line();
            let time = format!("{hours:>3}:{minutes:02}:{:02}.{millis:03}", secs % 60);
            log.borrow_mut().push(format!("{time}  {line}"));
        }
    }

    pub fn take_log(&self) -> Vec<String> {
        self.log.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Reports whether a fault strikes now, and records it. `about` names the deliveries and attestations concerned.
    pub fn strikes(&self, fault: Fault, weight: u32, about: &[&str]) -> bool {
        if !self.faults.strikes(&self.random, self.now(), fault, weight) {
            return false;
        }
        self.happened(fault, about);
        true
    }

    pub fn happened(&self, fault: Fault, about: &[&str]) {
        self.log(|| format!("    ! {}", fault.name()));
        self.laws.borrow_mut().touch(fault, about);
    }

    /// Writes for a task, and holds what became of the rows against the laws.
    pub fn write(self: &Rc<Self>, task: Task, writes: Vec<Write>) -> Result<(), WriteError> {
        let notable: Vec<_> = writes
            .iter()
            .filter(|write| !matches!(write, Write::Check { .. }))
            .map(|write| write.key().clone())
            .filter(Laws::is_notable)
            .collect();
        let result = ready(self.memory.write(writes));
        if result.is_ok() {
            for key in &notable {
                self.laws.borrow_mut().observe(self, task, key);
            }
            crate::scenario::schedule_reconciler(self);
        }
        result
    }

    /// Starts a function. `ended` is told what it answered, if it came to that.
    pub fn invoke<T: 'static, F: Future<Output = T> + 'static>(
        self: &Rc<Self>,
        name: &'static str,
        timeout: Duration,
        records: Vec<(DeliveryId, u32)>,
        body: impl FnOnce(Function) -> F,
        ended: impl FnOnce(&Rc<Self>, Task, Option<T>) + 'static,
    ) -> Task {
        let task = self.executor.next_task();
        self.log(|| format!("{name} {task} begins {records:?}"));
        self.laws
            .borrow_mut()
            .begin(task, name, self.now(), records);
        let timeout = u64::try_from(timeout.as_millis()).expect("minutes");
        self.after(timeout, move |world| {
            if world.executor.is_running(task) {
                world.log(|| format!("{name} {task} runs out of time"));
                world.laws.borrow_mut().killed(Fault::Timeout, task);
                Executor::kill(world, task);
            }
        });
        let answer = Rc::new(Cell::new(None));
        let body = body(Function::new(self, task));
        let running = {
            let answer = answer.clone();
            async move { answer.set(Some(body.await)) }
        };
        Executor::spawn(self, running, move |world, end| {
            world.log(|| format!("{name} {task} {end:?}"));
            let answer = answer.take().filter(|_| end == End::Finished);
            ended(world, task, answer);
            world.laws.borrow_mut().end(task);
        });
        task
    }

    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.now())
    }
}
