//! Queues as SQS has them: handed over at least once, in any order, back after a while when nobody says
//! that they are done, and dead after five times.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use api::{DeliveryId, Timestamp};
use integrations::Integration;
use pipeline::engine::deliver::{self, Record, Tools};
use pipeline::engine::{fetch, reconcile};
use pipeline::ledger::message::Message;
use pipeline::ledger::schedule::Deadlines;

use crate::SECOND;
use crate::executor::Task;
use crate::fault::Fault;
use crate::peer::{Boms, Notes};
use crate::random::Random;
use crate::store::Plane;
use crate::world::World;

/// After so many times a message is dead.
const RECEIVES: u32 = 5;

const NAMES: [&str; 6] = [
    Notes::ID,
    Boms::ID,
    fetch::QUEUE,
    "dead notes",
    "dead boms",
    "dead fetch-materials",
];

/// The queues that are not of dead letters, which follow in the same order.
const LIVE: usize = 3;

/// The one of fetches, which has one message for each of ten functions.
const FETCHES: usize = 2;

/// When a letter is visible, and its id.
type Place = (u64, u64);

#[derive(Debug, Clone)]
struct Letter {
    body: String,
    /// The organization that it belongs to.
    group: Rc<str>,
    received: u32,
}

#[derive(Default)]
struct Queue {
    letters: BTreeMap<Place, Letter>,
    running: usize,
    most: usize,
    poll_at: u64,
    /// Number of messages that functions are processing now, by group.
    in_flight: BTreeMap<Rc<str>, usize>,
}

pub struct Queues {
    queues: RefCell<[Queue; NAMES.len()]>,
    /// Groups that have fewer messages in flight go first, as on AWS; otherwise whoever came first.
    pub is_fair: Cell<bool>,
}

impl Queues {
    pub fn new(random: &Random) -> Self {
        let queues = std::array::from_fn(|index| Queue {
            most: match index {
                FETCHES => 10,
                _ if index < LIVE => random.pick(&[1, 2, 4, 10]),
                _ => 2,
            },
            poll_at: u64::MAX,
            ..Queue::default()
        });
        Self {
            queues: RefCell::new(queues),
            is_fair: Cell::new(random.below(8) == 0),
        }
    }

    pub fn send(&self, world: &World, integration: &str, body: &str, group: &str, after: u64) {
        let queue = NAMES.iter().position(|name| *name == integration);
        let queue = queue.expect("a queue of this world");
        let letter = Letter {
            body: body.to_owned(),
            group: group.into(),
            received: 0,
        };
        self.put(world, queue, world.now() + after, letter);
    }

    fn put(&self, world: &World, queue: usize, at: u64, letter: Letter) {
        let place = (at, world.random.next());
        self.queues.borrow_mut()[queue]
            .letters
            .insert(place, letter);
        self.poll_at(world, queue, at);
    }

    fn poll_at(&self, world: &World, queue: usize, at: u64) {
        let at = at.max(world.now());
        let poll_at = &mut self.queues.borrow_mut()[queue].poll_at;
        if at < *poll_at {
            *poll_at = at;
            world.at(at, move |world| world.queues.poll(world, queue, at));
        }
    }

    fn poll(&self, world: &Rc<World>, index: usize, at: u64) {
        let now = world.now();
        let mut queues = self.queues.borrow_mut();
        let queue = &mut queues[index];
        if queue.poll_at != at {
            return;
        }
        queue.poll_at = u64::MAX;
        if queue.running >= queue.most {
            return;
        }
        drop(queues);
        if let Some(until) = world.faults.until(now, Fault::QueueStopped) {
            world.happened(Fault::QueueStopped, &[]);
            return self.poll_at(world, index, until);
        }
        let (batch, dead) = self.receive(world, index);
        for letter in dead {
            let about = Message::parse(&letter.body).map(|message| message.delivery);
            world.happened(Fault::DeadLetter, about.as_deref().ok().as_slice());
            self.put(
                world,
                index + LIVE,
                now,
                Letter {
                    received: 0,
                    ..letter
                },
            );
        }
        if !batch.is_empty() {
            self.queues.borrow_mut()[index].running += 1;
            start(world, index, batch);
        }
        let queues = self.queues.borrow();
        let next = queues[index].letters.keys().next().map(|(at, _)| *at);
        let is_free = queues[index].running < queues[index].most;
        drop(queues);
        if let Some(next) = next.filter(|_| is_free) {
            self.poll_at(world, index, next.max(now + 5));
        }
    }

    /// Functions that a queue may have at once.
    pub fn set_most(&self, most: usize) {
        for queue in self.queues.borrow_mut().iter_mut() {
            queue.most = most;
        }
    }

    /// Takes what is visible, at most ten, hides it for a while, and sets the dead ones apart.
    fn receive(&self, world: &World, index: usize) -> (Vec<(Place, Letter)>, Vec<Letter>) {
        let now = world.now();
        let queue = &mut self.queues.borrow_mut()[index];
        let most = match index {
            FETCHES => 1,
            _ => world.random.between(1, 10),
        };
        let (mut batch, mut dead) = (Vec::new(), Vec::new());
        while (batch.len() as u64) < most {
            let visible = queue.letters.iter().take_while(|((at, _), _)| *at <= now);
            let place = match self.is_fair.get() {
                true => visible.min_by_key(|(place, letter)| {
                    (
                        queue
                            .in_flight
                            .get(&letter.group)
                            .copied()
                            .unwrap_or_default(),
                        **place,
                    )
                }),
                false => visible.into_iter().next(),
            };
            let Some(place) = place.map(|(place, _)| *place) else {
                break;
            };
            let mut letter = queue.letters.remove(&place).expect("just found");
            let id = place.1;
            if index < LIVE && letter.received >= RECEIVES {
                dead.push(letter);
                continue;
            }
            letter.received += 1;
            *queue.in_flight.entry(letter.group.clone()).or_default() += 1;
            let place = (now + visibility(index), id);
            queue.letters.insert(place, letter.clone());
            batch.push((place, letter));
        }
        (batch, dead)
    }

    /// Ends a batch: what is given back comes again, all of it if the function ended without an answer.
    fn settle(
        &self,
        world: &World,
        index: usize,
        task: Task,
        batch: &[(Place, Letter)],
        back: Option<&[String]>,
    ) {
        let mut soon = Vec::new();
        for (place, letter) in batch {
            if let Some(count) = self.queues.borrow_mut()[index]
                .in_flight
                .get_mut(&letter.group)
            {
                *count -= 1;
            }
            let is_back = |back: &[String]| back.contains(&place.1.to_string());
            if back.is_none_or(is_back)
                && let Ok(message) = fetch::Message::parse(&letter.body)
            {
                world.laws.borrow_mut().fetch_disturbed(&message);
            }
            let Some(back) = back else { continue };
            if back.contains(&place.1.to_string()) {
                if world.random.below(2) == 0 {
                    self.queues.borrow_mut()[index].letters.remove(place);
                    soon.push(letter.clone());
                }
                continue;
            }
            self.queues.borrow_mut()[index].letters.remove(place);
            if index < LIVE
                && let Ok(message) = Message::parse(&letter.body)
                && !message.follow
            {
                world.laws.borrow_mut().acknowledged(task, &message);
            }
        }
        let mut queues = self.queues.borrow_mut();
        queues[index].running -= 1;
        let next = queues[index].letters.keys().next().map(|(at, _)| *at);
        drop(queues);
        for letter in soon {
            self.put(
                world,
                index,
                world.now() + world.random.between(1, SECOND),
                letter,
            );
        }
        if let Some(next) = next {
            self.poll_at(world, index, next);
        }
    }
}

fn deadlines(index: usize) -> Deadlines {
    Deadlines::of(NAMES[index] != Notes::ID)
}

fn visibility(index: usize) -> u64 {
    match index {
        _ if index < LIVE => deadlines(index).visibility.as_secs() * SECOND,
        _ => 360 * SECOND,
    }
}

fn start(world: &Rc<World>, index: usize, batch: Vec<(Place, Letter)>) {
    let records: Vec<Record> = batch
        .iter()
        .map(|((_, id), letter)| Record {
            id: id.to_string(),
            body: letter.body.clone(),
        })
        .collect();
    let notes = batch
        .iter()
        .filter_map(|(_, letter)| Message::parse(&letter.body).ok())
        .map(|message| {
            (
                message.delivery,
                if message.follow { 0 } else { message.attempt },
            )
        })
        .collect();
    let timeout = match index {
        _ if index < LIVE => deadlines(index).function,
        _ => Duration::from_mins(1),
    };
    let until = world.timestamp().plus(timeout);
    let ended = move |world: &Rc<World>, task: Task, back: Option<Vec<String>>| {
        world
            .queues
            .settle(world, index, task, &batch, back.as_deref());
    };
    match index {
        0 => deliver_with::<Notes>(world, index, timeout, notes, records, until, ended),
        1 => deliver_with::<Boms>(world, index, timeout, notes, records, until, ended),
        FETCHES => {
            for record in &records {
                if let Ok(message) = fetch::Message::parse(&record.body) {
                    world.laws.borrow_mut().fetch_begins(world, &message);
                }
            }
            let store = Plane(world.clone());
            let body =
                |function| async move { fetch::batch(&function, &store, records, until).await };
            world.invoke(NAMES[index], timeout, notes, body, ended);
        }
        _ => {
            let body = |function| async move { reconcile::dead_letters(&function, records).await };
            world.invoke(NAMES[index], timeout, notes, body, ended);
        }
    }
}

fn deliver_with<I: Integration>(
    world: &Rc<World>,
    index: usize,
    timeout: Duration,
    notes: Vec<(DeliveryId, u32)>,
    records: Vec<Record>,
    until: Timestamp,
    ended: impl FnOnce(&Rc<World>, Task, Option<Vec<String>>) + 'static,
) {
    let tools = Tools::new(world.http.clone());
    let body =
        |function| async move { deliver::batch::<I>(&function, &tools, records, until).await };
    world.invoke(NAMES[index], timeout, notes, body, ended);
}
