//! Operators who act during the run: they pause, resume, redeliver, cancel and backfill.

use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use api::deliveries::State;
use api::jobs::{Filter, JobKind};
use api::{Actor, DeliveryId, OrganizationName};
use pipeline::engine::{operations, pauses};
use pipeline::records::audit_log::Act;
use pipeline::records::jobs;
use pipeline::store::platform::{Platform, Scope, Unreachable};
use pipeline::store::rows::{self, AttachmentIndex, Delivery, Job, Registration};

use crate::fault::Fault;
use crate::function::Function;
use crate::scenario::{OPERATION, moment};
use crate::world::{World, ready};
use crate::{HOUR, MINUTE, SECOND};

const DAY: u64 = 24 * HOUR;

/// Registrations that the operator has an eye on, and how long.
const WATCHED: u64 = 14;

/// Has something done with a registration now and then, and looks every day whether it is paused.
pub fn watch(world: &Rc<World>, registration: &Registration) {
    let random = &world.random;
    for _ in 0..random.pick(&[0, 0, 0, 0, 1, 1, 2, 3]) {
        let at = match random.below(4) {
            0 => world.start + random.below(3 * DAY),
            _ => moment(world) + random.below(10 * MINUTE),
        };
        let registration = registration.clone();
        world.at(at, move |world| act(world, &registration));
    }
    let is_watched = random.below(8) > 0;
    if is_watched {
        let registration = registration.clone();
        let after = random.below(DAY);
        world.at(world.start + after, move |world| {
            look(world, registration, WATCHED);
        });
    }
}

fn look(world: &Rc<World>, registration: Registration, left: u64) {
    let key = Registration::at(&registration.organization, &registration.id);
    let is_paused = world.memory.look(&key, |item| item.contains_key("paused"));
    if is_paused == Some(true) && world.random.below(4) > 0 {
        resume(world, &registration);
    }
    if left > 0 {
        world.after(DAY, move |world| look(world, registration, left - 1));
    }
}

fn act(world: &Rc<World>, registration: &Registration) {
    match world.random.below(7) {
        0 => pause(world, registration),
        1 => resume(world, registration),
        2 => deliver_again(world, registration),
        3 => cancel(world, registration),
        4 => deliver_all_again(world, registration),
        5 => backfill(world, registration),
        _ => {
            let organization = registration.organization.clone();
            begin(world, &organization, JobKind::Audit);
        }
    }
}

/// Runs something as a function of the API would; whether it succeeds is the operator's business.
fn run<T: 'static, F: Future<Output = T> + 'static>(
    world: &Rc<World>,
    fault: Fault,
    about: &[DeliveryId],
    body: impl FnOnce(Function) -> F,
) {
    let about: Vec<&str> = about.iter().map(DeliveryId::as_str).collect();
    world.happened(fault, &about);
    world.invoke("operator", OPERATION, Vec::new(), body, |_, _, _| {});
}

/// The one who operates.
pub(crate) fn operator() -> Act<'static> {
    static OPERATOR: LazyLock<Actor> = LazyLock::new(|| Actor::named("operator"));
    Act {
        actor: &OPERATOR,
        action: "test",
    }
}

fn through(world: &World, registration: &Registration) -> Vec<DeliveryId> {
    let laws = world.laws.borrow();
    laws.open_through(|row| row.registration == registration.id)
}

fn pause(world: &Rc<World>, registration: &Registration) {
    let Registration {
        organization, id, ..
    } = registration.clone();
    let about = through(world, registration);
    run(world, Fault::Paused, &about, |function| async move {
        pauses::pause(
            Scope::new(&function, &organization),
            &id,
            "maintenance",
            Some(operator()),
        )
        .await
    });
}

fn resume(world: &Rc<World>, registration: &Registration) {
    let Registration {
        organization, id, ..
    } = registration.clone();
    let about = through(world, registration);
    let rate = world.random.pick(&[1, 10, 50]);
    run(world, Fault::Resumed, &about, move |function| async move {
        pauses::resume(
            Scope::new(&function, &organization),
            &id,
            rate,
            operator(),
            None,
        )
        .await
    });
}

/// Any of the deliveries of a registration.
fn pick(
    world: &World,
    registration: &Registration,
    wanted: impl Fn(&Delivery) -> bool,
) -> Option<Delivery> {
    let laws = world.laws.borrow();
    let found = laws.rows(|row| row.registration == registration.id && wanted(row));
    let index = world.random.below(found.len().max(1) as u64);
    found
        .get(usize::try_from(index).ok()?)
        .map(|row| (*row).clone())
}

fn deliver_again(world: &Rc<World>, registration: &Registration) {
    if let Some(row) = pick(world, registration, |_| true) {
        let about = [row.id.clone()];
        run(
            world,
            Fault::DeliveredAgain,
            &about,
            |function| async move { operations::redeliver_for(&function, &row, None, operator()).await },
        );
    }
}

fn cancel(world: &Rc<World>, registration: &Registration) {
    if let Some(row) = pick(world, registration, |row| row.state == State::Pending) {
        let about = [row.id.clone()];
        run(world, Fault::Cancelled, &about, |function| async move {
            operations::cancel(
                Scope::new(&function, &row.organization),
                &row.id,
                operator(),
            )
            .await
        });
    }
}

fn deliver_all_again(world: &Rc<World>, registration: &Registration) {
    let filter = Filter {
        registration: Some(registration.id.clone()),
        workflow: None,
        state: world
            .random
            .pick(&[State::Failed, State::Failed, State::Delivered]),
        since: None,
        until: world.timestamp(),
    };
    begin(
        world,
        &registration.organization,
        JobKind::Redeliver { filter },
    );
}

fn backfill(world: &Rc<World>, registration: &Registration) {
    let partition = Registration::partition(&registration.organization, &registration.id);
    let links = ready(rows::load_all::<AttachmentIndex>(
        &world.memory,
        &partition,
        AttachmentIndex::PREFIX,
    ));
    let Some(link) = links.ok().and_then(|links| links.into_iter().next_back()) else {
        return;
    };
    let work = JobKind::Backfill {
        attachment: link.row.attachment,
        since: None,
        until: world.timestamp(),
    };
    begin(world, &registration.organization, work);
}

fn begin(world: &Rc<World>, organization: &OrganizationName, work: JobKind) {
    let organization = organization.to_owned();
    let per_second = world.random.pick(&[1, 10, 50]);
    run(world, Fault::JobBegun, &[], move |function| async move {
        let job = jobs::new(
            Scope::new(&function, &organization),
            work,
            per_second,
            "operator",
        );
        keep(&function, &job).await
    });
}

async fn keep(function: &Function, job: &Job) -> Result<(), Unreachable> {
    // The operator's patience has an end.
    for _ in 0..3 {
        let (write, _) = rows::insert(function, job);
        if function.write(vec![write]).await.is_ok() {
            return Ok(());
        }
        function.sleep(Duration::from_millis(SECOND)).await;
    }
    Ok(())
}
