//! Time, and whose turn it is: what happens next is the earliest event, and among several of one
//! millisecond the one that the seed picks.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use crate::random::Random;
use crate::world::World;

/// A running invocation of a function; never used twice.
pub type Task = usize;

/// Outcome of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Finished,
    /// Dropped in the midst.
    Killed,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;
type Ended = Box<dyn FnOnce(&Rc<World>, End)>;
type Event = Box<dyn FnOnce(&Rc<World>)>;

#[derive(Default)]
pub struct Executor {
    now: Cell<u64>,
    count: Cell<u64>,
    heap: RefCell<BinaryHeap<Entry>>,
    timers: RefCell<Timers>,
    tasks: RefCell<Vec<Option<(Running, Ended)>>>,
    current: Cell<Task>,
    doomed: Cell<bool>,
    again: Arc<Again>,
}

struct Entry {
    at: u64,
    tie: u64,
    count: u64,
    what: What,
}

enum What {
    Timer { slot: usize, count: u64 },
    Event(Event),
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| (entry.at, entry.tie, entry.count);
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// Set when a task asks to be polled once more at once, as sets of futures do.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Default)]
struct Timers {
    slots: Vec<Timer>,
    free: Vec<usize>,
}

struct Timer {
    count: u64,
    task: Task,
    /// None when it has rung.
    waker: Option<Waker>,
}

impl Executor {
    pub fn starting_at(now: u64) -> Self {
        let executor = Self::default();
        executor.now.set(now);
        executor
    }

    /// Milliseconds since 1970, really.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// The task whose turn it is.
    pub fn current(&self) -> Task {
        self.current.get()
    }

    /// Returns the number of events scheduled so far.
    pub fn events(&self) -> u64 {
        self.count.get()
    }

    fn push(&self, random: &Random, at: u64, what: impl FnOnce(u64) -> What) -> u64 {
        let count = self.count.get() + 1;
        self.count.set(count);
        self.heap.borrow_mut().push(Entry {
            at: at.max(self.now.get()),
            tie: random.next(),
            count,
            what: what(count),
        });
        count
    }

    pub fn at(&self, random: &Random, at: u64, event: impl FnOnce(&Rc<World>) + 'static) {
        self.push(random, at, |_| What::Event(Box::new(event)));
    }

    /// The id that the next task will have.
    pub fn next_task(&self) -> Task {
        self.tasks.borrow().len()
    }

    pub fn spawn(
        world: &Rc<World>,
        future: impl Future<Output = ()> + 'static,
        ended: impl FnOnce(&Rc<World>, End) + 'static,
    ) {
        let executor = &world.executor;
        let task = executor.next_task();
        let running = (Box::pin(future) as Running, Box::new(ended) as Ended);
        executor.tasks.borrow_mut().push(Some(running));
        Self::poll(world, task);
    }

    /// Ends a task where it stands, if it still runs.
    pub fn kill(world: &Rc<World>, task: Task) {
        let running = world.executor.tasks.borrow_mut()[task].take();
        if let Some((future, ended)) = running {
            world.executor.current.set(task);
            drop(future);
            ended(world, End::Killed);
        }
    }

    pub fn is_running(&self, task: Task) -> bool {
        self.tasks.borrow()[task].is_some()
    }

    /// The task whose turn it is ends as soon as it waits.
    pub fn doom(&self) {
        self.doomed.set(true);
    }

    fn poll(world: &Rc<World>, task: Task) {
        let executor = &world.executor;
        let Some((mut future, ended)) = executor.tasks.borrow_mut()[task].take() else {
            return;
        };
        executor.current.set(task);
        executor.doomed.set(false);
        let waker = Waker::from(executor.again.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            executor.again.0.store(false, Relaxed);
            match future.as_mut().poll(&mut context) {
                Poll::Ready(()) => {
                    drop(future);
                    return ended(world, End::Finished);
                }
                Poll::Pending if executor.doomed.get() => {
                    drop(future);
                    return ended(world, End::Killed);
                }
                Poll::Pending if executor.again.0.load(Relaxed) => {}
                Poll::Pending => break,
            }
        }
        executor.tasks.borrow_mut()[task] = Some((future, ended));
    }

    /// Lets the next event happen; false when there is none.
    pub fn step(world: &Rc<World>) -> bool {
        let executor = &world.executor;
        let Some(entry) = executor.heap.borrow_mut().pop() else {
            return false;
        };
        match entry.what {
            What::Timer { slot, count } => {
                let mut timers = executor.timers.borrow_mut();
                let timer = &mut timers.slots[slot];
                if timer.count != count {
                    return true;
                }
                let waker = timer.waker.take();
                let task = timer.task;
                drop(timers);
                world.advance(entry.at, task as u64);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Self::poll(world, task);
            }
            What::Event(event) => {
                world.advance(entry.at, entry.count);
                event(world);
            }
        }
        true
    }

    /// Lets go of everything that would go on.
    pub fn clear(&self) {
        self.heap.take();
        let tasks = self.tasks.take();
        drop(tasks);
    }

    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    pub fn sleep<'a>(&'a self, random: &'a Random, millis: u64) -> Sleep<'a> {
        Sleep {
            executor: self,
            random,
            millis,
            slot: None,
        }
    }
}

/// Waits within a task. Dropped, it never rings.
pub struct Sleep<'a> {
    executor: &'a Executor,
    random: &'a Random,
    millis: u64,
    slot: Option<usize>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(slot) = self.slot {
            let timer = &mut self.executor.timers.borrow_mut().slots[slot];
            return match &mut timer.waker {
                None => Poll::Ready(()),
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
            };
        }
        let mut timers = self.executor.timers.borrow_mut();
        let slot = timers.free.pop().unwrap_or(timers.slots.len());
        let at = self.executor.now() + self.millis;
        let count = (self.executor).push(self.random, at, |count| What::Timer { slot, count });
        let timer = Timer {
            count,
            task: self.executor.current(),
            waker: Some(context.waker().clone()),
        };
        if slot == timers.slots.len() {
            timers.slots.push(timer);
        } else {
            timers.slots[slot] = timer;
        }
        drop(timers);
        self.slot = Some(slot);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut timers = self.executor.timers.borrow_mut();
            timers.slots[slot].count = 0;
            timers.slots[slot].waker = None;
            timers.free.push(slot);
        }
    }
}
