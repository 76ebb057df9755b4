//! Third parties that answer anything, and the two integrations that speak to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use api::attachments::Preview;
use attestation::MaterialType;
use integrations::{
    About, Answer, Error, Followed, Host, Http, Integration, Kind, Outcome, Warnings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::executor::Task;
use crate::fault::Fault;
use crate::world::World;
use crate::{HOUR, MINUTE, SECOND};

thread_local! {
    /// The world that this thread runs just now: an integration is given nothing by which it could find it.
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// Lets integrations of this thread find the world until this is dropped.
pub struct Here;

impl Here {
    pub fn is(world: &Rc<World>) -> Self {
        WORLD.set(Some(world.clone()));
        Self
    }

    /// Reports whether this thread runs a world.
    pub fn is_some() -> bool {
        WORLD.with_borrow(Option::is_some)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        WORLD.set(None);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    #[serde(default)]
    #[expect(dead_code, reason = "only that it arrives matters")]
    token: Option<String>,
    /// The third party is paced.
    #[serde(default)]
    pub interval_millis: Option<u64>,
}

/// Inputs of an attachment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Requests, one after another.
    pub steps: u32,
    /// Also the last one is recorded by itself, and not only with the whole attempt.
    pub records_last: bool,
}

macro_rules! integration {
    ($name:ident $id:literal $materials:expr, follows: $follows:literal) => {
        pub struct $name;

        impl Integration for $name {
            const ID: &'static str = $id;
            const VERSION: &'static str = "1";
            const DESCRIPTION: &'static str = "Goes to a simulated third party.";
            const MATERIALS: &'static [MaterialType] = $materials;
            const FOLLOWS: bool = $follows;
            type Registration = Registration;
            type Attachment = Attachment;

            fn interval(registration: &Registration) -> Option<Duration> {
                registration.interval_millis.map(Duration::from_millis)
            }

            async fn register(_: &Http, _: &Registration) -> Result<Warnings, Error> {
                Ok(Warnings::new())
            }

            async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
                Ok(Warnings::new())
            }

            async fn deliver(
                _: &Http,
                host: &dyn Host,
                delivery: &integrations::Delivery<'_, Self>,
            ) -> Result<Outcome, Error> {
                deliver(host, delivery.id, delivery.attachment, delivery.progress).await
            }

            async fn follow(
                _: &Http,
                _: &Registration,
                _: &Map<String, Value>,
            ) -> Result<Followed, Error> {
                follow().await
            }

            async fn preview(
                _: &dyn Host,
                _: &integrations::Delivery<'_, Self>,
            ) -> Result<Vec<Preview>, Error> {
                Ok(Vec::new())
            }
        }
    };
}

integration!(Notes "notes" &[], follows: false);
integration!(Boms "boms" &[MaterialType::SBOM_CYCLONEDX_JSON], follows: true);

/// The third party works on for a while, and may not say how it went.
async fn follow() -> Result<Followed, Error> {
    let world = WORLD.with_borrow(|world| world.clone().expect("a world is running"));
    let random = &world.random;
    world
        .executor
        .sleep(random, random.between(1, 20 * SECOND))
        .await;
    match random.below(8) {
        0 => Err(Error::retryable("ask: answered 503")),
        1 => Err(Error::permanent("ask: answered 404")),
        2..4 => Ok(Followed::UnderWay),
        _ => Ok(Followed::Over(Map::from_iter([(
            "completion".to_owned(),
            json!("processed"),
        )]))),
    }
}

async fn deliver(
    host: &dyn Host,
    delivery: &str,
    attachment: &Attachment,
    progress: &BTreeMap<String, Value>,
) -> Result<Outcome, Error> {
    let world = WORLD.with_borrow(|world| world.clone().expect("a world is running"));
    let about = [delivery];
    if world.strikes(Fault::Skips, 2, &about) && progress.is_empty() {
        return Ok(Outcome::Skipped("nothing for this one".into()));
    }
    if world.strikes(Fault::Continues, 2, &about) {
        let delay = Duration::from_millis(world.random.between(SECOND, 30 * MINUTE));
        let reason = "busy with another".into();
        return Ok(Outcome::ContinueAfter { delay, reason });
    }
    for step in 0..attachment.steps {
        let name = step.to_string();
        if progress.contains_key(&name) {
            continue;
        }
        request(&world, delivery, step).await?;
        if step + 1 < attachment.steps || attachment.records_last {
            // Some fit into the delivery's row, and some do not.
            let is_long = delivery.starts_with(|digit: char| digit.is_ascii_digit());
            let receipt = "r".repeat(if is_long { 300 } else { 1 });
            host.record(&name, json!(receipt)).await?;
        }
    }
    Ok(Outcome::Delivered(Map::new()))
}

/// A request on its way. Dropped, it may arrive all the same, and nobody hears its answer.
struct Request<'a> {
    world: &'a Rc<World>,
    delivery: &'a str,
    step: u32,
    task: Task,
    arrives_at: u64,
    /// Index among the delivery's sends, once accepted.
    accepted: Option<usize>,
    answered: bool,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let mut laws = self.world.laws.borrow_mut();
        laws.request_ends(self.delivery);
        if !self.answered {
            laws.seems_down(self.delivery);
        }
        match self.accepted {
            Some(sent) if !self.answered => laws.excuse_one(self.delivery, sent),
            None if !self.answered && self.world.random.below(2) == 0 => {
                drop(laws);
                let (delivery, step, task) = (self.delivery.to_owned(), self.step, self.task);
                self.world.at(self.arrives_at, move |world| {
                    world.log(|| format!("{delivery} step {step} arrives for nobody"));
                    world.laws.borrow_mut().accepts(task, &delivery, step, true);
                });
            }
            _ => {}
        }
    }
}

async fn request(world: &Rc<World>, delivery: &str, step: u32) -> Result<(), Error> {
    let (random, task) = (&world.random, world.executor.current());
    let strikes = |fault, weight| world.strikes(fault, weight, &[delivery]);
    let sleep = |low, high| world.executor.sleep(random, random.between(low, high));
    world.log(|| format!("function {task} requests {delivery} step {step}"));
    world
        .laws
        .borrow_mut()
        .request_begins(world.now(), task, delivery, step);
    world.laws.borrow_mut().proven(world, delivery);
    let slow = strikes(Fault::PartySlow, 4);
    let way = match slow {
        true => random.between(SECOND, 125 * SECOND),
        false => random.between(1, 100),
    };
    let mut request = Request {
        world,
        delivery,
        step,
        task,
        arrives_at: world.now() + way,
        accepted: None,
        answered: false,
    };
    if strikes(Fault::PartyUnreached, 4) {
        sleep(1, 50).await;
        request.answered = true;
        world.laws.borrow_mut().seems_down(delivery);
        return Err(Error::retryable("connect: refused"));
    }
    world.executor.sleep(random, way).await;
    let refused = refusal(world, delivery);
    if let Some(error) = refused {
        request.answered = true;
        let is_its_own = error.about == About::Either || error.kind == Kind::Permanent;
        if !is_its_own {
            world.laws.borrow_mut().seems_down(delivery);
        }
        return Err(error);
    }
    if strikes(Fault::Panic, 2) {
        if random.below(2) == 0 {
            request.accepted = Some(world.laws.borrow_mut().accepts(task, delivery, step, true));
        } else {
            request.answered = true;
        }
        // Unlike `panic!`, this prints nothing.
        std::panic::resume_unwind(Box::new("simulated"));
    }
    request.accepted = Some(world.laws.borrow_mut().accepts(task, delivery, step, false));
    if strikes(Fault::PartyHangs, 4) {
        std::future::pending::<()>().await;
    }
    sleep(1, 50).await;
    if strikes(Fault::PartySilent, 4) {
        return Err(Error::new(Kind::Indeterminate, "hear an answer"));
    }
    request.answered = true;
    Ok(())
}

fn refusal(world: &World, delivery: &str) -> Option<Error> {
    let strikes = |fault| world.strikes(fault, 4, &[delivery]);
    let is_poisoned = world.laws.borrow().poisoned.contains(delivery);
    if is_poisoned || strikes(Fault::PartyBreaks) {
        if !is_poisoned && world.random.below(2) == 0 {
            let mut laws = world.laws.borrow_mut();
            laws.poisoned.insert(delivery.into());
        }
        let answer = Answer {
            status: 500,
            excerpt: String::new(),
        };
        let error = Error::retryable("be accepted").about(About::Either);
        return Some(error.answer(answer));
    }
    let kind = if world.laws.borrow().is_down(world.now(), delivery) {
        world.happened(Fault::PartyDown, &[delivery]);
        // The longest pause that an integration passes on.
        let week = 7 * 24 * HOUR;
        let asks = world.random.below(6) == 0;
        let after = asks.then(|| Duration::from_millis(world.random.below(week)));
        Kind::Retryable { after }
    } else if strikes(Fault::PartyBusy) {
        Kind::Retryable { after: None }
    } else if strikes(Fault::PartyLimits) {
        let millis = match world.random.below(20) {
            0 => world.random.between(SECOND, 3 * 24 * HOUR),
            1..4 => world.random.between(SECOND, HOUR),
            _ => world.random.between(0, 60 * SECOND),
        };
        let after = Some(Duration::from_millis(millis));
        Kind::Retryable { after }
    } else if strikes(Fault::PartyRefuses) {
        Kind::Permanent
    } else if strikes(Fault::PartyUnauthorized) {
        Kind::Unauthorized
    } else {
        return None;
    };
    Some(Error::new(kind, "be accepted"))
}
