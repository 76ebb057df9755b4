//! Actions of clients and operators, their times, and the clock that wakes the reconciler.

use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use api::workflows::{Selector, Workflow};
use api::{AttachmentId, DeliveryId, OrganizationName};
use attestation::{Digest, Material, MaterialType, Metadata, Predicate, compose};
use authority::{Authority, VALID};
use bytes::Bytes;
use integrations::Integration;
use pipeline::config::{self, Precondition, attach, register};
use pipeline::engine::{accept, fetch, reconcile};
use pipeline::store::platform::{Platform, Scope, SecretValue, Write};
use pipeline::store::rows::{
    self, Attachment, AttachmentIndex, Intake, Registration, RegistrationName, TrustPolicy,
};
use serde_json::{Map, Value, json};

use crate::executor::Executor;
use crate::fault::Fault;
use crate::laws::{self, RECONCILER};
use crate::operators::{self, operator};
use crate::peer::{self, Boms, Notes};
use crate::store::{Artifact, Habit};
use crate::world::{World, ready};
use crate::{HOUR, MINUTE, SECOND};

/// Task ID of the setup, which no function runs.
const NOBODY: usize = usize::MAX;

/// As the template has them.
const INTAKE: Duration = Duration::from_secs(29);
pub const OPERATION: Duration = Duration::from_secs(29);
const RECONCILE: Duration = Duration::from_mins(1);

/// An attestation that a client has, and wants to be rid of.
pub struct Parcel {
    organization: OrganizationName,
    pub hash: Digest,
    envelope: Bytes,
    bundle: Bytes,
    /// A Chainloop control plane posts it, whose store has its materials.
    is_forwarded: bool,
    /// A trust policy requires its signature to be proven.
    is_guarded: bool,
    /// The digest of the bundle that the control plane's store has, or of one that it says it has.
    stored: Option<Digest>,
}

/// The organization that signs, and one that nobody trusts.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new(1));
static STRANGER: LazyLock<Authority> = LazyLock::new(|| Authority::new(2));

/// The intake that each organization has.
const INTAKE_ID: &str = "i";

/// A run has a thousand events, and the longest some millions: one with more goes round in circles.
const MOST_EVENTS: u64 = 20_000_000;

pub fn run(world: &Rc<World>) {
    let parcels = set_up(world);
    let end = world.start + 90 * 24 * HOUR;
    while world.laws.borrow().broken.is_none() && world.now() < end && Executor::step(world) {
        if world.executor.events() > MOST_EVENTS {
            let detail = format!("more than {MOST_EVENTS} events");
            world.laws.borrow_mut().breaks("a run ends", detail);
        }
    }
    if world.laws.borrow().broken.is_none() {
        world.laws.borrow_mut().all_is_done(world);
        for parcel in parcels {
            laws::audit(world, &parcel.organization, &parcel.hash);
        }
    }
}

fn set_up(world: &Rc<World>) -> Vec<Rc<Parcel>> {
    let random = &world.random;
    let mut parcels = Vec::new();
    let organizations = random.pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
    for number in 0..organizations {
        let organization = OrganizationName::from(format!("o{number}"));
        let registrations = registrations(world, &organization);
        if random.below(8) == 0 {
            guard(world, &organization);
        }
        let source = json!({ "url": "https://chainloop.example.org", "token": "t" });
        let secret = Intake::secret_name(&organization, &INTAKE_ID.into());
        let value = SecretValue::new(source.to_string());
        ready(world.memory.put_secret(&secret, &value)).expect("memory is there");
        let many = number == 0 && random.below(many_of(world)) == 0;
        let attachments = match many {
            true => random.between(91, 200),
            false => random.pick(&[0, 1, 1, 1, 2, 2, 3, 5]),
        };
        for _ in 0..attachments {
            let registration = &registrations
                [usize::try_from(random.below(registrations.len() as u64)).expect("few")];
            attach(world, registration);
        }
        for registration in registrations {
            operators::watch(world, &registration);
            changes(world, registration);
        }
        let noisy = number == 0 && !many && random.below(100) == 0;
        let posts = match noisy {
            true => random.between(8, 20),
            false => random.pick(&[1, 1, 1, 2, 2, 3, 6]) / organizations,
        };
        for post in 0..posts.max(1) {
            let parcel = Rc::new(parcel(
                world,
                &organization,
                &format!("run-{number}-{post}"),
            ));
            posts_of(world, &parcel);
            parcels.push(parcel);
        }
    }
    if world.faults.is_on(Fault::Poison) {
        world.at(moment(world), |world| {
            world.happened(Fault::Poison, &[]);
            world.queues.send(world, Notes::ID, "{}", "", 0);
        });
    }
    if world.faults.is_on(Fault::IndexStale) {
        let lag = Duration::from_millis(random.between(SECOND, 90 * SECOND));
        world.memory.lag.set(lag);
        world.at(world.faults.over_at, |world| {
            world.memory.lag.set(Duration::ZERO);
        });
    }
    parcels
}

/// Has whatever the organization accepts proven by a signature.
fn guard(world: &Rc<World>, organization: &OrganizationName) {
    let policy = json!({ "mode": "require", "signers": [AUTHORITY.signer()] });
    let row = TrustPolicy {
        organization: organization.to_owned(),
        name: "release".into(),
        id: id(world),
        workflow: Selector("shop/*".into()),
        policy: serde_json::from_value(policy).expect("a policy"),
        created_by: "operator".into(),
        created_at: world.timestamp(),
    };
    let memory = &world.memory;
    let writes = vec![
        rows::insert(memory, &row).0,
        rows::insert(memory, &row.link()).0,
    ];
    write(world, writes);
    world.laws.borrow_mut().guarded.insert(organization.clone());
}

/// One in so many has a plan of more than one transaction: they take long, and writes that fail are what
/// makes them worth it.
fn many_of(world: &World) -> u64 {
    let fails = [Fault::WriteRefused, Fault::WriteAmbiguous, Fault::Crash];
    match fails.iter().any(|fault| world.faults.is_on(*fault)) {
        true => 250,
        false => 2_000,
    }
}

fn write(world: &Rc<World>, writes: Vec<Write>) {
    world
        .write(NOBODY, writes)
        .expect("nobody else writes these rows");
}

fn id<Id: From<String>>(world: &World) -> Id {
    format!("{:016x}", world.random.next()).into()
}

fn registrations(world: &Rc<World>, organization: &OrganizationName) -> Vec<Registration> {
    let random = &world.random;
    let count = random.between(1, 3);
    let mut registrations = Vec::new();
    for number in 0..count {
        let integration = random.pick(&[Notes::ID, Notes::ID, Boms::ID]);
        let mut config = Map::new();
        if random.below(8) == 0 {
            config.insert("interval_millis".into(), random.between(100, 5_000).into());
        }
        let name = format!("r{number}");
        let registration = register(world, organization, &name, integration, config);
        if world.faults.is_on(Fault::PartyDown) && random.below(2) == 0 {
            let longest = random.pick(&[HOUR, 24 * HOUR, 9 * 24 * HOUR]);
            let until = world.start + random.between(MINUTE, longest);
            let mut laws = world.laws.borrow_mut();
            laws.down_until.insert(registration.id.clone(), until);
        }
        registrations.push(registration);
    }
    registrations
}

pub fn register(
    world: &Rc<World>,
    organization: &OrganizationName,
    name: &str,
    integration: &str,
    config: Map<String, Value>,
) -> Registration {
    let id = id(world);
    let secret = Registration::secret_name(organization, integration, &id);
    let has_secret = world.random.below(2) == 0;
    if has_secret {
        let value = SecretValue::new(r#"{"token":"t"}"#.into());
        ready(world.memory.put_secret(&secret, &value)).expect("memory is there");
    }
    let name = RegistrationName {
        organization: organization.to_owned(),
        name: name.to_owned(),
        registration: id.clone(),
        integration: integration.to_owned(),
        reserved_until: None,
        abandoned: false,
    };
    let registration = Registration {
        id,
        organization: organization.to_owned(),
        name: name.name.clone(),
        integration: integration.to_owned(),
        version: "1".into(),
        description: String::new(),
        config,
        label: Map::new(),
        secret: has_secret.then_some(secret),
        secret_version: None,
        external_id: None,
        created_by: "operator".into(),
        created_at: world.timestamp(),
        deleted_at: None,
        drain: None,
        paused: None,
        wake_at: None,
    };
    let memory = &world.memory;
    let writes = vec![
        rows::insert(memory, &name).0,
        rows::insert(memory, &registration).0,
    ];
    write(world, writes);
    registration
}

pub fn attach(world: &Rc<World>, registration: &Registration) {
    let random = &world.random;
    let steps = u32::try_from(random.between(1, 3)).expect("few");
    let config = peer::Attachment {
        steps,
        records_last: random.below(2) == 0,
    };
    let Ok(Value::Object(config)) = serde_json::to_value(config) else {
        unreachable!("inputs are an object");
    };
    let attachment = Attachment {
        id: id(world),
        organization: registration.organization.clone(),
        registration: registration.id.clone(),
        integration: registration.integration.clone(),
        workflow: Selector(random.pick(&["*", "shop/*", "shop/nightly"]).into()),
        config,
        wait_secs: match random.below(200) {
            // It is looked for each minute of a day, which takes a while here too.
            0 => Some(86_400),
            1..=20 => Some(0),
            21..=30 => Some(3_600),
            _ => None,
        },
        is_test: false,
        created_by: "operator".into(),
        created_at: world.timestamp(),
        deleted_at: None,
    };
    let of_registration = AttachmentIndex {
        organization: attachment.organization.clone(),
        attachment: attachment.id.clone(),
        registration: attachment.registration.clone(),
        integration: attachment.integration.clone(),
        workflow: None,
    };
    let of_workflow = AttachmentIndex {
        workflow: Some(attachment.workflow.clone()),
        ..of_registration.clone()
    };
    let mut laws = world.laws.borrow_mut();
    laws.steps.insert(attachment.id.clone(), steps);
    drop(laws);
    let memory = &world.memory;
    let writes = vec![
        rows::insert(memory, &attachment).0,
        rows::insert(memory, &of_workflow).0,
        rows::insert(memory, &of_registration).0,
    ];
    write(world, writes);
}

/// A moment at which something may happen: most often soon.
pub fn moment(world: &World) -> u64 {
    let most = world.faults.over_at - world.start;
    match world.random.below(4) {
        0 => world.start + world.random.below(most),
        _ => world.start + world.random.below(most.min(5 * MINUTE)),
    }
}

/// Schedules an operator's changes to a registration during the run.
fn changes(world: &Rc<World>, registration: Registration) {
    let random = &world.random;
    for _ in 0..random.pick(&[0, 0, 0, 1, 2]) {
        let registration = registration.clone();
        world.at(moment(world), move |world| {
            let key = Registration::at(&registration.organization, &registration.id);
            let is_deleted = world
                .memory
                .look(&key, |item| item.contains_key("deleted_at"));
            if is_deleted == Some(false) {
                attach(world, &registration);
            }
        });
    }
    if random.below(8) == 0 {
        let registration = registration.clone();
        world.at(moment(world), move |world| detach(world, registration));
    }
    if random.below(12) == 0 {
        world.at(moment(world), move |world| deregister(world, registration));
    }
}

fn detach(world: &Rc<World>, registration: Registration) {
    let links = ready(rows::load_all::<AttachmentIndex>(
        &world.memory,
        &Registration::partition(&registration.organization, &registration.id),
        AttachmentIndex::PREFIX,
    ));
    let Some(link) = links.ok().and_then(|links| links.into_iter().next()) else {
        return;
    };
    let attachment = link.row.attachment;
    let organization = registration.organization;
    let names = world
        .laws
        .borrow()
        .open_through(|row| row.attachment == attachment);
    touch(world, Fault::Detached, &names);
    remove(world, organization, attachment);
}

fn remove(world: &Rc<World>, organization: OrganizationName, attachment: AttachmentId) {
    let (of, id) = (organization.clone(), attachment.clone());
    let body = |function| async move {
        attach::detach(
            Scope::new(&function, &of),
            &id,
            &Precondition::default(),
            operator(),
        )
        .await
    };
    let ended = |world: &Rc<World>, _, answer: Option<Result<_, config::Error>>| match answer {
        Some(Ok(_) | Err(config::Error::NotFound(_))) => {}
        _ => world.after(MINUTE, |world| remove(world, organization, attachment)),
    };
    world.invoke("detach", OPERATION, Vec::new(), body, ended);
}

fn deregister(world: &Rc<World>, registration: Registration) {
    let names = world
        .laws
        .borrow()
        .open_through(|row| row.registration == registration.id);
    touch(world, Fault::Deregistered, &names);
    let gone = registration.clone();
    let body = |function| async move {
        register::delete(
            Scope::new(&function, &gone.organization),
            &gone.id,
            &Precondition::default(),
            operator(),
        )
        .await
    };
    let ended = |world: &Rc<World>, _, answer: Option<Result<_, config::Error>>| match answer {
        Some(Ok(_) | Err(config::Error::NotFound(_))) => {}
        _ => world.after(MINUTE, |world| deregister(world, registration)),
    };
    world.invoke("deregister", OPERATION, Vec::new(), body, ended);
}

fn touch(world: &World, fault: Fault, names: &[DeliveryId]) {
    let names: Vec<&str> = names.iter().map(DeliveryId::as_str).collect();
    world.happened(fault, &names);
}

pub fn parcel(world: &Rc<World>, organization: &OrganizationName, run: &str) -> Parcel {
    let random = &world.random;
    let mut materials = Vec::new();
    let mut uploads = Vec::new();
    let is_forwarded = random.below(4) == 0;
    let count = match is_forwarded {
        true => random.between(1, 4),
        false => random.pick(&[0, 0, 1, 2]),
    };
    for number in 0..count {
        let content = Bytes::from(format!("{run} {number} {}", random.next()));
        let digest = Digest::of(&content);
        let kind = MaterialType::SBOM_CYCLONEDX_JSON;
        materials.push(Material::uploaded(
            &format!("m{number}"),
            kind,
            "m.json",
            digest,
        ));
        uploads.push((digest, content));
    }
    let predicate = Predicate {
        metadata: Metadata {
            name: "nightly".into(),
            workflow_name: "nightly".into(),
            project: "shop".into(),
            workflow_run_id: run.into(),
            initialized_at: "2026-01-02T03:05:00Z".into(),
            finished_at: "2026-01-02T03:09:30Z".into(),
            ..Metadata::default()
        },
        build_type: "chainloop.dev/workflowrun/v0.1".into(),
        materials,
        ..Predicate::default()
    };
    let envelope = compose::envelope(compose::statement(&predicate, &[]), "", |bytes| {
        bytes[..32].to_vec()
    });
    let is_guarded = world.laws.borrow().guarded.contains(organization);
    let (envelope, bundle) = match is_guarded {
        false => {
            let bundle = compose::bundle(&envelope);
            (envelope, bundle)
        }
        true => {
            let envelope = AUTHORITY.sign(envelope);
            let bundle = AUTHORITY.bundle(&envelope, VALID);
            (envelope, bundle)
        }
    };
    let mut parcel = Parcel {
        organization: organization.to_owned(),
        hash: envelope.hash(),
        bundle: Bytes::from(bundle),
        envelope: Bytes::from(envelope.compact()),
        is_forwarded,
        is_guarded,
        stored: None,
    };
    if is_guarded {
        let proof = Digest::of(&parcel.bundle);
        world.laws.borrow_mut().proofs.insert(parcel.hash, proof);
    }
    if is_guarded && is_forwarded {
        let stored = match random.below(6) {
            0 => Bytes::from(STRANGER.bundle(&envelope, VALID)),
            _ => parcel.bundle.clone(),
        };
        let digest = Digest::of(&stored);
        uploads.push((digest, stored));
        parcel.stored = Some(digest);
    }
    for (digest, content) in uploads {
        if is_forwarded {
            let artifact = Artifact {
                content,
                habit: Habit::of(world),
                organization: parcel.organization.clone(),
                of: parcel.hash,
                is_bundle: parcel.stored == Some(digest),
            };
            world.artifacts.borrow_mut().insert(digest, artifact);
        } else {
            upload(world, &parcel, digest, content);
        }
    }
    parcel
}

fn upload(world: &Rc<World>, parcel: &Parcel, digest: Digest, content: Bytes) {
    let random = &world.random;
    let name = parcel.hash.hex();
    let at = match random.below(10) {
        0 => return world.happened(Fault::MaterialNever, &[&name]),
        1..=4 => world.start + random.between(SECOND, 20 * MINUTE),
        5 => world.start + random.between(SECOND, 30 * HOUR),
        _ => world.start,
    };
    if at > world.start {
        world.happened(Fault::MaterialLate, &[&name]);
    }
    let organization = parcel.organization.clone();
    world.at(at, move |world| {
        ready(world.memory.put_object(&organization, &digest, content)).expect("memory is there");
    });
}

/// Posts an attestation, once or more often.
fn posts_of(world: &Rc<World>, parcel: &Rc<Parcel>) {
    let at = moment(world);
    for index in 0..world.random.pick(&[1, 1, 1, 1, 2, 3, 5]) {
        let later = match (index, world.random.below(2)) {
            (0, _) => 0,
            (_, 0) => world.random.below(100),
            _ => world.random.below(20 * MINUTE),
        };
        if index > 0 {
            world.happened(Fault::PostedAgain, &[&parcel.hash.hex()]);
        }
        let parcel = parcel.clone();
        world.at(at + later, move |world| post(world, parcel));
    }
}

/// A client that does not give up before it has its 202.
pub fn post(world: &Rc<World>, parcel: Rc<Parcel>) {
    let (is_forwarded, stored) = (parcel.is_forwarded, parcel.stored);
    let is_bundle = match parcel.is_guarded {
        // What comes alone is refused, unless its bundle can be fetched.
        true => !is_forwarded,
        false => world.random.below(8) == 0,
    };
    let (organization, bytes) = (
        parcel.organization.clone(),
        match is_bundle {
            true => parcel.bundle.clone(),
            false => parcel.envelope.clone(),
        },
    );
    let body = move |function| async move {
        let by = operator().actor;
        if !is_forwarded {
            return accept::pushed(Scope::new(&function, &organization), bytes, None, by).await;
        }
        let nothing = Workflow::default();
        let accepted = accept::forwarded(
            Scope::new(&function, &organization),
            bytes,
            &nothing,
            stored,
            by,
        )
        .await?;
        if accepted.lacks() {
            let hash = &accepted.attestation.hash;
            fetch::ask(
                Scope::new(&function, &organization),
                hash,
                &INTAKE_ID.into(),
            )
            .await?;
        }
        Ok(accepted)
    };
    let ended = |world: &Rc<World>, _, answer: Option<Result<accept::Accepted, accept::Error>>| {
        let name = parcel.hash.hex();
        match answer {
            Some(Ok(accepted)) => {
                world.log(|| format!("{name} is accepted"));
                world.laws.borrow_mut().accepted(&accepted);
                if !world.strikes(Fault::AcceptanceLost, 4, &[&name]) {
                    return;
                }
            }
            Some(Err(accept::Error::Unreachable(_))) | None => {}
            Some(Err(error)) => {
                let mut laws = world.laws.borrow_mut();
                return laws.breaks("a good attestation is not refused", error.to_string());
            }
        }
        let wait = world.random.between(SECOND, 60 * SECOND);
        world.after(wait, |world| post(world, parcel));
    };
    world.invoke("intake", INTAKE, Vec::new(), body, ended);
}

/// The reconciler runs each minute; minutes in which nothing is due are skipped.
pub fn schedule_reconciler(world: &World) {
    let Some(earliest) = world.laws.borrow().earliest() else {
        return;
    };
    let at = (earliest.max(world.now() + 1)).next_multiple_of(MINUTE);
    if at < world.tick_at.get() {
        world.tick_at.set(at);
        world.at(at, move |world| tick(world, at));
    }
}

fn tick(world: &Rc<World>, at: u64) {
    if world.tick_at.get() != at {
        return;
    }
    world.tick_at.set(u64::MAX);
    world.laws.borrow_mut().not_overdue(at, world.start);
    let runs = 1 + u64::from(world.strikes(Fault::TwoReconcilers, 4, &[]));
    for _ in 0..runs {
        world.after(world.random.below(2 * SECOND), reconcile);
    }
    schedule_reconciler(world);
}

fn reconcile(world: &Rc<World>) {
    let until = world.timestamp().plus(RECONCILE).millis() - 10 * SECOND;
    let until = api::Timestamp::from_millis(until);
    let body = |function| async move { reconcile::reconcile(&function, until).await };
    let ended = |world: &Rc<World>, task, report: Option<Result<reconcile::Report, _>>| {
        let is_complete = matches!(report, Some(Ok(report)) if report.left == 0);
        let mut laws = world.laws.borrow_mut();
        laws.reconciler_ends(world.now(), task, is_complete);
        drop(laws);
        schedule_reconciler(world);
    };
    let task = world.invoke(RECONCILER, RECONCILE, Vec::new(), body, ended);
    let lags =
        world.faults.is_on(Fault::IndexStale) && world.now() < world.faults.over_at + 2 * MINUTE;
    let lag = if lags { 90 * SECOND } else { 0 };
    let now = world.now();
    world.laws.borrow_mut().reconciler_begins(now, task, lag);
}
