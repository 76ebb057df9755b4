//! A quiet organization beside a noisy one, on a day on which nothing goes wrong.

use std::rc::Rc;
use std::time::Duration;

use api::OrganizationName;
use integrations::Http;
use pipeline::engine::deliveries;
use pipeline::store::platform::Scope;
use pipeline::store::rows::Delivery;
use serde_json::Map;

use crate::executor::Executor;
use crate::fault::Faults;
use crate::peer::{Here, Notes};
use crate::random::Random;
use crate::scenario::{attach, parcel, post, register};
use crate::world::{World, ready};
use crate::{MINUTE, SECOND};
use integrations::Integration;

/// Returns how long the quiet organization's deliveries waited for their first attempts, while the noisy one pushes
/// `noise` attestations within a second. `is_fair` makes the queue heed groups.
pub fn first_attempts(http: Http, noise: u64, is_fair: bool) -> Vec<Duration> {
    const QUIET: u64 = 10;
    let seed = 1;
    let world = World::with(seed, Random::new(seed), Faults::none(), http, false);
    let _here = Here::is(&world);
    world.queues.is_fair.set(is_fair);
    world.queues.set_most(1);
    let [noisy, quiet] = ["noisy", "quiet"].map(OrganizationName::from);
    for organization in [&noisy, &quiet] {
        let registration = register(&world, organization, "r", Notes::ID, Map::new());
        attach(&world, &registration);
    }
    for number in 0..noise {
        let parcel = Rc::new(parcel(&world, &noisy, &format!("noisy-{number}")));
        world.at(world.start + number * SECOND / noise, move |world| {
            post(world, parcel);
        });
    }
    for number in 0..QUIET {
        let parcel = Rc::new(parcel(&world, &quiet, &format!("quiet-{number}")));
        world.at(world.start + number * SECOND / 2, move |world| {
            post(world, parcel);
        });
    }
    while world.now() < world.start + 5 * MINUTE && Executor::step(&world) {}
    let laws = world.laws.borrow();
    let quiet_ones = laws.rows(|row| row.organization == quiet);
    let waited = quiet_ones
        .into_iter()
        .map(|row| waited(&world, row))
        .collect();
    drop(laws);
    world.executor.clear();
    waited
}

fn waited(world: &World, row: &Delivery) -> Duration {
    let scope = Scope::new(&world.memory, &row.organization);
    let described = ready(deliveries::describe(scope, &row.id)).expect("memory is there");
    let (_, attempts) = described.expect("it is there");
    attempts.first().map_or(Duration::MAX, |first| {
        first.report.started_at.since(row.created_at)
    })
}
