//! Authorities of a registration's own: every function of an integration speaks through a client that trusts them, and
//! no other registration's does.

use std::cell::RefCell;
use std::time::Duration;

use api::attachments::Preview;
use integrations::webhook::{Attachment, Registration, Webhook};
use integrations::{
    AUTHORITIES, Authorities, Error, Followed, Host, Http, Integration, Outcome, Warnings,
};
use pipeline::Platform;
use pipeline::config::check::{Check, check};
use pipeline::config::{self, attach, register};
use pipeline::engine::deliver;
use pipeline::store::rows::Registration as Registered;
use serde_json::{Map, Value, json};

use crate::roles::As;
use crate::world::{ORGANIZATION, WORKFLOW, World, act, attestation, http, inputs, scope};

thread_local! {
    /// Calls made, each with the number of authorities trusted in it.
    static DONE: RefCell<Vec<(&'static str, usize)>> = const { RefCell::new(Vec::new()) };
}

fn done(what: &'static str, http: &Http) {
    DONE.with_borrow_mut(|done| done.push((what, http.roots().len())));
}

/// Registered as the webhook is.
struct Trusting;

impl Integration for Trusting {
    const ID: &'static str = Webhook::ID;
    const VERSION: &'static str = "1";
    const DESCRIPTION: &'static str = "Looks at whom it trusts.";
    const MATERIALS: &'static [attestation::MaterialType] = &[];
    const FOLLOWS: bool = true;
    type Registration = Registration;
    type Attachment = Attachment;

    fn authorities(registration: &Registration) -> Option<&Authorities> {
        registration.ca_certificates.as_ref()
    }

    async fn register(http: &Http, _: &Registration) -> Result<Warnings, Error> {
        done("register", http);
        Ok(Warnings::new())
    }

    async fn attach(http: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        done("attach", http);
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        _: &dyn Host,
        _: &integrations::Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        done("deliver", http);
        Ok(Outcome::Delivered(Map::new()))
    }

    async fn follow(
        http: &Http,
        _: &Registration,
        _: &Map<String, Value>,
    ) -> Result<Followed, Error> {
        done("follow", http);
        Ok(Followed::Over(Map::new()))
    }

    async fn preview(
        _: &dyn Host,
        _: &integrations::Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        Ok(Vec::new())
    }
}

/// Registers, attaches, delivers and follows; answers with what was done, and whom it trusted there.
async fn all(world: &World, name: &str, more: Value) -> Vec<(&'static str, usize)> {
    let role = As::delivering::<Trusting>(&world.memory);
    let mut given = inputs(json!({ "url": world.receiver.url() }));
    given.extend(inputs(more));
    let ask = async |question| {
        let verdict = check::<Trusting>(&role, &http(), question).await.unwrap();
        verdict.accepted().unwrap();
    };
    ask(Check::Registration {
        inputs: given.clone(),
        external_id: None,
    })
    .await;
    let wanted = register::NewRegistration {
        integration: Webhook::ID.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        inputs: given,
        id: None,
    };
    let registered = register::register(scope(&world.memory), wanted, act()).await;
    let Registered {
        id: registration,
        config,
        ..
    } = registered.unwrap().0.row;
    let organization = ORGANIZATION.clone();
    ask(Check::Attachment {
        organization: organization.clone(),
        registration: registration.clone(),
        inputs: Map::new(),
    })
    .await;
    let update = |inputs| Check::Update {
        organization: organization.clone(),
        registration: registration.clone(),
        inputs,
        external_id: None,
        only_validate: false,
    };
    // The secrets that are kept are not those of whoever is trusted otherwise.
    let mut moved = config.clone();
    moved.insert("ca_certificates".to_owned(), "of somebody else".into());
    let asked = DONE.with_borrow(Vec::len);
    let verdict = check::<Trusting>(&role, &http(), update(moved)).await;
    let refused = verdict.unwrap().accepted().unwrap_err().to_string();
    assert!(refused.contains("changed meanwhile"), "{refused}");
    assert_eq!(DONE.with_borrow(Vec::len), asked);
    ask(update(config)).await;
    let wanted = attach::NewAttachment {
        registration: name.to_owned(),
        workflow: api::workflows::selector(WORKFLOW, None).unwrap(),
        inputs: Map::new(),
        wait_secs: None,
        id: None,
        allow_duplicate: false,
    };
    let attached = attach::attach(scope(&world.memory), wanted, act()).await;
    let attachment = attached.unwrap().0.row;
    let bytes = attestation(name, Vec::new()).compact();
    world.push(bytes).await.unwrap();
    for _ in 0..2 {
        let records = world.memory.receive(Webhook::ID, 10);
        assert_eq!(records.len(), 1, "a delivery, and then a question");
        let until = world.memory.now().plus(Duration::from_mins(15));
        let back = deliver::batch::<Trusting>(&role, &world.tools, records, until).await;
        assert!(back.is_empty());
        world.memory.advance(Duration::from_secs(30));
    }
    let only = config::Precondition::default();
    attach::detach(scope(&world.memory), &attachment.id, &only, act())
        .await
        .unwrap();
    DONE.take()
}

#[tokio::test]
async fn a_registration_trusts_its_own_authorities_wherever_it_is_spoken_for() {
    let world = World::new();
    let authority = include_str!("../peers/tls/authority.pem");
    let deeds = ["register", "attach", "register", "deliver", "follow"];
    let own = all(&world, "own", json!({ AUTHORITIES: authority })).await;
    assert_eq!(own, deeds.map(|deed| (deed, 1)));
    let other = all(&world, "other", json!({})).await;
    assert_eq!(other, deeds.map(|deed| (deed, 0)));
}
