//! A Chainloop control plane's artifact store: slow, failing, lying, or silent for as long as faults last.

use std::rc::Rc;
use std::time::Duration;

use api::OrganizationName;
use attestation::Digest;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use integrations::Error;
use pipeline::config::intakes::Source;
use pipeline::engine::fetch::{Coming, Store};
use pipeline::engine::issuer_keys::Documents;

use crate::SECOND;
use crate::fault::Fault;
use crate::world::World;

/// A material that it has, and how it is about that one.
#[derive(Clone)]
pub struct Artifact {
    pub content: Bytes,
    pub habit: Habit,
    pub organization: OrganizationName,
    /// The hash of the attestation that names it.
    pub of: Digest,
    /// It is the attestation's bundle, and no material.
    pub is_bundle: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    Good,
    Slow,
    Fails,
    Lies,
    Hangs,
}

impl Habit {
    /// One for a new artifact.
    pub fn of(world: &World) -> Self {
        let faults = [
            (Fault::StoreSlow, Self::Slow),
            (Fault::StoreFails, Self::Fails),
            (Fault::StoreLies, Self::Lies),
            (Fault::StoreHangs, Self::Hangs),
        ];
        let is_on = |(fault, _): &(Fault, Self)| world.faults.is_on(*fault);
        let bad = faults
            .into_iter()
            .find(|fault| is_on(fault) && world.random.below(2) == 0);
        bad.map_or(Self::Good, |(_, habit)| habit)
    }
}

/// The world's store, as one function asks it.
pub struct Plane(pub Rc<World>);

impl Documents for Plane {
    async fn document(&self, _: &str, _: usize) -> Result<Bytes, Error> {
        unreachable!("nobody exchanges JWTs here")
    }
}

impl Store for Plane {
    async fn open(&self, _: &Source, digest: &Digest, _: Duration) -> Result<Coming, Error> {
        let world = &self.0;
        let (random, now) = (&world.random, world.now());
        let artifact = world.artifacts.borrow().get(digest).cloned();
        let Some(artifact) = artifact else {
            let mut laws = world.laws.borrow_mut();
            laws.breaks(
                "only what an attestation names is fetched",
                digest.to_string(),
            );
            return Err(Error::permanent("find it"));
        };
        let habit = match now < world.faults.over_at {
            true => artifact.habit,
            false => Habit::Good,
        };
        let task = world.executor.current();
        world.log(|| format!("function {task} asks for {digest}: {habit:?}"));
        world.laws.borrow_mut().asks(world, &artifact, digest);
        let bad = match habit {
            Habit::Good => None,
            Habit::Slow => Some(Fault::StoreSlow),
            Habit::Fails => Some(Fault::StoreFails),
            Habit::Lies => Some(Fault::StoreLies),
            Habit::Hangs => Some(Fault::StoreHangs),
        };
        if let Some(fault) = bad {
            world.happened(fault, &[]);
        }
        let millis = match habit {
            Habit::Good | Habit::Lies => random.between(1, 200),
            Habit::Slow | Habit::Fails => random.between(SECOND, 100 * SECOND),
            Habit::Hangs => return std::future::pending().await,
        };
        world.executor.sleep(random, millis).await;
        match habit {
            Habit::Fails => Err(Error::retryable("fetch: answered 503")),
            Habit::Lies => Ok(stream::iter([Ok(Bytes::from_static(b"lies"))]).boxed_local()),
            _ => Ok(stream::iter([Ok(artifact.content)]).boxed_local()),
        }
    }
}
