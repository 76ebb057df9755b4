//! Attestations that a Chainloop control plane forwards without the certificate that proves them: their bundle is fetched from
//! its store, judged, and only then anything is sent. And what was accepted by less than a trust policy requires now.

use std::time::Duration;

use api::Role;
use api::deliveries::State;
use api::trust::{Code, Outcome};
use attestation::{Digest, Envelope};
use authority::{Authority, EXPIRED, VALID};
use pipeline::Platform as _;
use pipeline::engine::plans;
use pipeline::http::Response;
use pipeline::ledger::schedule;
use pipeline::records::attestations;
use pipeline::store::rows;
use serde_json::{Value, json};

use crate::artifacts::{Artifacts, attested};
use crate::asking::ask;
use crate::receiver::Received;
use crate::signatures::{made, policy, replace};
use crate::world::{ORGANIZATION, SBOM, WORKFLOW, World, attestation, promised_sbom, scope};

fn told(sent: &Received) -> &str {
    sent.header("webhook-signature-verdict").unwrap()
}

/// A control plane whose store an intake knows, and a policy for what it forwards.
struct Plane {
    world: World,
    artifacts: Artifacts,
    token: String,
    authority: Authority,
}

impl Plane {
    async fn new(mode: &str) -> Self {
        let (world, artifacts, authority) = (World::new(), Artifacts::start(), Authority::new(1));
        world.ready().await;
        let token = world.fetching(&artifacts).await;
        let wanted = policy("release", WORKFLOW, mode, &[authority.signer()]);
        made(&world.memory, wanted).await;
        Self {
            world,
            artifacts,
            token,
            authority,
        }
    }

    fn signed(&self, run: &str) -> Envelope {
        self.authority.sign(attestation(run, vec![]))
    }

    /// Posts an envelope as Chainloop does, with the digest of its bundle.
    async fn post(&self, envelope: &Envelope, bundle: &Digest) -> Response {
        let mut body = attested(envelope);
        body["Metadata"]["WorkflowRun"]["AttestationDigest"] = bundle.to_string().into();
        self.world.post(&self.token, &body).await
    }

    /// Posts an envelope whose bundle the store has.
    async fn forward(&self, envelope: &Envelope) -> Digest {
        let bundle = self.authority.bundle(envelope, VALID);
        let digest = self.artifacts.put(&bundle);
        let posted = self.post(envelope, &digest).await;
        assert_eq!(posted.status, 202, "{}", posted.body);
        digest
    }

    async fn row(&self, digest: &Digest) -> rows::Attestation {
        let found = attestations::find(scope(&self.world.memory), digest).await;
        found.unwrap().unwrap()
    }

    async fn deliveries(&self, envelope: &Envelope) -> Vec<rows::Delivery> {
        let row = self.row(&envelope.hash()).await;
        let memory = &self.world.memory;
        let plans = plans::of(memory, &row).await.unwrap();
        let ids = plans.iter().flat_map(|plan| plan.row.deliveries());
        let keys: Vec<_> = ids
            .map(|(id, _)| rows::Delivery::at(&ORGANIZATION, &id))
            .collect();
        let found = rows::load_many::<rows::Delivery>(memory, &keys)
            .await
            .unwrap();
        found.into_iter().map(|stored| stored.row).collect()
    }

    /// The state of the only delivery, and why.
    async fn stands(&self, envelope: &Envelope) -> (State, String) {
        let mut all = self.deliveries(envelope).await;
        assert_eq!(all.len(), 1);
        let only = all.remove(0);
        (only.state, only.reason.unwrap_or_default())
    }

    /// Paths that the store was asked for, in their order.
    fn asked(&self) -> Vec<String> {
        let asked = self.artifacts.asked().into_iter();
        asked.map(|(path, _)| path).collect()
    }

    fn received(&self) -> usize {
        self.world.receiver.deliveries().len()
    }

    async fn redeliver(&self, envelope: &Envelope) -> Response {
        let id = self.deliveries(envelope).await.remove(0).id;
        let route = "POST /v1/deliveries/{delivery}/redeliver";
        let path = [("delivery", id.as_str())];
        ask(&self.world.memory, Role::Operator, route, &path, json!({})).await
    }

    async fn set(&self, mode: &str) {
        let body = json!({ "mode": mode, "signers": [self.authority.signer()] });
        let replaced = replace(&self.world.memory, "release", None, body).await;
        assert_eq!(replaced.status, 200, "{}", replaced.body);
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_bundle_has_come_and_proves_it() {
    let plane = Plane::new("require").await;
    let envelope = plane.signed("1");
    let bundle = plane.forward(&envelope).await;
    let row = plane.row(&envelope.hash()).await;
    let verdict = row.verdict.unwrap();
    assert_eq!(verdict.reason.code, Code::CertificateMissing);
    plane.world.deliver().await;
    let waits = (State::Pending, "waiting for its signature".to_owned());
    assert_eq!(plane.stands(&envelope).await, waits);
    assert_eq!(plane.received(), 0);

    assert_eq!(plane.world.fetch().await, 1);
    // The digest that Chainloop shows finds it now.
    let row = plane.row(&bundle).await;
    assert_eq!(row.hash, envelope.hash());
    let verdict = row.verdict.unwrap();
    assert_eq!(verdict.outcome, Outcome::Verified, "{verdict}");
    assert_eq!(verdict.signers[0].name, "acme");
    plane.world.pass(Duration::from_mins(1)).await;
    assert_eq!(plane.stands(&envelope).await.0, State::Delivered);
    let sent = plane.world.receiver.deliveries().remove(0);
    assert_eq!(told(&sent), "verified");
    // What was forwarded is what is sent, and the same again changes nothing.
    assert_ne!(row.received, bundle);
    plane.forward(&envelope).await;
    assert_eq!((plane.world.fetch().await, plane.received()), (0, 1));
    assert_eq!(plane.artifacts.asked().len(), 2, "at two addresses, once");
}

#[tokio::test]
async fn without_a_store_what_cannot_be_proven_is_refused_at_once() {
    let plane = Plane::new("require").await;
    let envelope = plane.signed("1");
    let bare = plane.world.open(json!({ "name": "bare" })).await;
    let mut body = attested(&envelope);
    let digest = Digest::of(&plane.authority.bundle(&envelope, VALID)).to_string();
    body["Metadata"]["WorkflowRun"]["AttestationDigest"] = digest.into();
    let unnamed = plane.world.post(&plane.token, &attested(&envelope)).await;
    for refused in [plane.world.post(&bare, &body).await, unnamed] {
        let code = refused.body["code"].as_str().unwrap();
        assert_eq!((refused.status, code), (422, "signature-missing-material"));
    }
    let found = attestations::find(scope(&plane.world.memory), &envelope.hash()).await;
    assert!(found.unwrap().is_none());
}

#[tokio::test]
async fn a_bundle_that_proves_nothing_ends_its_deliveries_with_its_reason() {
    type Made<'a> = Box<dyn Fn(&Plane, &Envelope) -> Vec<u8> + 'a>;
    let stranger = Authority::new(2);
    let of_stranger = |_: &Plane, envelope: &Envelope| stranger.bundle(envelope, VALID);
    let of_another =
        |plane: &Plane, _: &Envelope| plane.authority.bundle(&plane.signed("other"), VALID);
    let expired = |plane: &Plane, envelope: &Envelope| plane.authority.bundle(envelope, EXPIRED);
    let alone = |_: &Plane, envelope: &Envelope| envelope.compact();
    let none = |_: &Plane, _: &Envelope| b"not a bundle".to_vec();
    let large = |_: &Plane, _: &Envelope| vec![b' '; attestation::MAX_BYTES + 1];
    let cases: [(Made<'_>, &str, &str); 6] = [
        (Box::new(of_stranger), "signer-unknown", "authority"),
        (
            Box::new(of_another),
            "signature-missing-material",
            "another envelope",
        ),
        (
            Box::new(expired),
            "signature-missing-material",
            "was not valid",
        ),
        (
            Box::new(alone),
            "signature-missing-material",
            "without the certificate",
        ),
        (
            Box::new(none),
            "signature-missing-material",
            "as its bundle",
        ),
        (
            Box::new(large),
            "signature-missing-material",
            "as its bundle",
        ),
    ];
    for (made, code, why) in cases {
        let plane = Plane::new("require").await;
        let envelope = plane.signed("1");
        let digest = plane.artifacts.put(&made(&plane, &envelope));
        let posted = plane.post(&envelope, &digest).await;
        // The same bytes again are no bundle, whoever has them.
        assert_eq!(posted.status, 202, "{}", posted.body);
        plane.world.deliver().await;
        plane.world.fetch().await;
        plane.world.pass(Duration::from_mins(1)).await;
        let (state, reason) = plane.stands(&envelope).await;
        let expected = format!("failed to verify the attestation ({code}): ");
        assert_eq!(state, State::Failed, "{why}: {reason}");
        assert!(
            reason.starts_with(&expected) && reason.contains(why),
            "{reason}"
        );
        assert_eq!(plane.received(), 0);
        // Nor is it sent when somebody asks for it, and the answer says what is missing.
        let refused = plane.redeliver(&envelope).await;
        assert_eq!((refused.status, &refused.body["code"]), (422, &json!(code)));
        plane.world.deliver().await;
        assert_eq!(plane.received(), 0);
    }
}

#[tokio::test]
async fn a_bundle_that_never_comes_is_waited_for_as_long_as_a_material() {
    let plane = Plane::new("require").await;
    let envelope = plane.signed("1");
    let posted = plane.post(&envelope, &Digest::of(b"nowhere")).await;
    assert_eq!(posted.status, 202, "{}", posted.body);
    let minutes = schedule::PATIENCE.as_secs() / 60;
    for _ in 1..minutes {
        plane.world.fetch().await;
        plane.world.pass(Duration::from_mins(1)).await;
    }
    assert_eq!(plane.stands(&envelope).await.0, State::Pending);
    assert!(plane.artifacts.asked().len() > 2, "it is asked for again");
    plane.world.pass(Duration::from_mins(3)).await;
    let (state, reason) = plane.stands(&envelope).await;
    let expected = "failed to verify the attestation (signature-missing-material): ";
    assert!(
        state == State::Failed && reason.starts_with(expected),
        "{reason}"
    );
    assert_eq!(plane.received(), 0);
    plane.world.fetch().await;
    assert_eq!(plane.world.fetch().await, 0, "the fetch has ended too");

    // Whoever has the bundle can push it, and have it delivered.
    let bundle = plane.authority.bundle(&envelope, VALID);
    let pushed = plane.world.push(bundle).await.unwrap();
    assert!(pushed.repeated);
    assert_eq!(plane.redeliver(&envelope).await.status, 202);
    plane.world.deliver().await;
    assert_eq!(plane.received(), 1);
}

#[tokio::test]
async fn a_bundle_that_is_pushed_meanwhile_lets_the_deliveries_go() {
    let plane = Plane::new("require").await;
    let envelope = plane.signed("1");
    let posted = plane.post(&envelope, &Digest::of(b"nowhere")).await;
    assert_eq!(posted.status, 202, "{}", posted.body);
    plane.world.deliver().await;
    assert_eq!(plane.stands(&envelope).await.0, State::Pending);
    let bundle = plane.authority.bundle(&envelope, VALID);
    plane.world.push(bundle).await.unwrap();
    plane.world.pass(Duration::from_mins(1)).await;
    assert_eq!(plane.stands(&envelope).await.0, State::Delivered);
    let asked = plane.artifacts.asked().len();
    assert_eq!(plane.world.fetch().await, 1);
    assert_eq!(plane.artifacts.asked().len(), asked, "nothing is lacking");
}

#[tokio::test]
async fn where_a_policy_warns_it_is_sent_at_once_and_its_verdict_follows() {
    let plane = Plane::new("warn").await;
    let envelope = plane.signed("1");
    plane.forward(&envelope).await;
    plane.world.deliver().await;
    let sent = plane.world.receiver.deliveries().remove(0);
    assert_eq!(told(&sent), "unverifiable");
    assert_eq!(plane.world.fetch().await, 1);
    let row = plane.row(&envelope.hash()).await;
    assert_eq!(row.verdict.unwrap().outcome, Outcome::Verified);
}

#[tokio::test]
async fn what_was_pushed_without_its_bundle_gets_it_from_the_control_plane() {
    for mode in ["off", "warn"] {
        let plane = Plane::new(mode).await;
        let envelope = plane.signed("1");
        plane.world.push(envelope.compact()).await.unwrap();
        plane.set("warn").await;
        plane.forward(&envelope).await;
        assert_eq!(plane.world.fetch().await, 1, "{mode}");
        let row = plane.row(&envelope.hash()).await;
        assert_eq!(row.verdict.unwrap().outcome, Outcome::Verified, "{mode}");
    }
}

#[tokio::test]
async fn a_policy_that_asks_for_less_meanwhile_lets_the_deliveries_go() {
    for mode in ["warn", "off"] {
        let plane = Plane::new("require").await;
        let envelope = plane.signed("1");
        let stranger = Authority::new(2).bundle(&envelope, VALID);
        let digest = plane.artifacts.put(&stranger);
        plane.post(&envelope, &digest).await;
        plane.world.deliver().await;
        plane.set(mode).await;
        plane.world.fetch().await;
        plane.world.pass(Duration::from_mins(1)).await;
        assert_eq!(plane.stands(&envelope).await.0, State::Delivered, "{mode}");
    }
}

/// Whoever knows an intake's URL could have anything fetched that its store has.
#[tokio::test]
async fn materials_are_asked_for_when_the_bundle_proves_who_names_them() {
    for (seed, places) in [(1, 4), (2, 2)] {
        let plane = Plane::new("require").await;
        let envelope = plane
            .authority
            .sign(attestation("1", vec![promised_sbom()]));
        plane.artifacts.put(SBOM);
        let bundle = Authority::new(seed).bundle(&envelope, VALID);
        let digest = plane.artifacts.put(&bundle);
        let posted = plane.post(&envelope, &digest).await;
        assert_eq!(posted.status, 202, "{}", posted.body);
        plane.world.fetch().await;
        let asked = plane.asked();
        let expected = [digest, digest, Digest::of(SBOM), Digest::of(SBOM)];
        let paths = expected.iter().zip(&asked);
        for (digest, path) in paths {
            assert!(path.contains(&digest.hex()), "{asked:?}");
        }
        assert_eq!(asked.len(), places, "each at two addresses");
    }
}

/// The control plane's own post mends what another sender's named.
#[tokio::test]
async fn another_bundle_takes_the_place_of_one_that_was_none() {
    for first in [&b"nowhere"[..], b"not a bundle"] {
        let plane = Plane::new("require").await;
        let envelope = plane.signed("1");
        plane.artifacts.put(b"not a bundle");
        plane.post(&envelope, &Digest::of(first)).await;
        plane.world.fetch().await;
        plane.forward(&envelope).await;
        plane.world.fetch().await;
        let row = plane.row(&envelope.hash()).await;
        assert_eq!(row.verdict.unwrap().outcome, Outcome::Verified);
        plane.world.pass(Duration::from_mins(1)).await;
        assert_eq!(plane.stands(&envelope).await.0, State::Delivered);
    }
}

/// Certificates live ten minutes, and a store may be away for longer.
#[tokio::test]
async fn a_bundle_whose_certificate_has_expired_since_proves_what_was_accepted_before() {
    let plane = Plane::new("require").await;
    let now = plane.world.memory.now().to_string();
    let (year, month): (i32, u8) = (now[..4].parse().unwrap(), now[5..7].parse().unwrap());
    let next = match month {
        12 => (year + 1, 1, 1),
        _ => (year, month + 1, 1),
    };
    let until = ((2020, 1, 1), next);
    let (before, since) = (plane.signed("1"), plane.signed("2"));
    let posted = plane.post(&before, &Digest::of(b"nowhere")).await;
    assert_eq!(posted.status, 202, "{}", posted.body);
    plane
        .world
        .pass(schedule::PATIENCE + Duration::from_mins(2))
        .await;
    assert_eq!(plane.stands(&before).await.0, State::Failed);
    plane.world.memory.advance(Duration::from_hours(24 * 40));
    let bundle = |envelope| plane.authority.bundle(envelope, until);
    let expired = plane.world.push(bundle(&since)).await.unwrap_err();
    assert!(expired.to_string().contains("was not valid"), "{expired}");
    plane.world.push(bundle(&before)).await.unwrap();
    assert_eq!(plane.redeliver(&before).await.status, 202);
    plane.world.deliver().await;
    assert_eq!(plane.received(), 1);
}

/// A bundle with another certificate of the same organization says nothing of the envelope.
#[tokio::test]
async fn the_right_bundle_mends_what_a_wrong_one_made_invalid() {
    let plane = Plane::new("require").await;
    let envelope = plane.signed("1");
    let wrong = Authority::with_key(1, 7).bundle(&envelope, VALID);
    let digest = plane.artifacts.put(&wrong);
    plane.post(&envelope, &digest).await;
    plane.world.fetch().await;
    plane.world.deliver().await;
    let (state, reason) = plane.stands(&envelope).await;
    assert!(
        state == State::Failed && reason.contains("signature-invalid"),
        "{reason}"
    );
    let right = plane.authority.bundle(&envelope, VALID);
    plane.world.push(right).await.unwrap();
    let row = plane.row(&envelope.hash()).await;
    assert_eq!(row.verdict.unwrap().outcome, Outcome::Verified);
    assert_eq!(plane.redeliver(&envelope).await.status, 202);
    plane.world.deliver().await;
    let sent = plane.world.receiver.deliveries().pop().unwrap();
    assert_eq!(told(&sent), "verified");
}

#[tokio::test]
async fn a_bundle_that_is_kept_already_is_judged_without_asking_the_store() {
    let plane = Plane::new("require").await;
    let envelope = plane
        .authority
        .sign(attestation("1", vec![promised_sbom()]));
    plane.artifacts.put(SBOM);
    let digest = plane.forward(&envelope).await;
    // As after a crash between the two: the bundle is kept, and nothing is judged yet.
    let bundle = plane.authority.bundle(&envelope, VALID);
    let memory = &plane.world.memory;
    memory
        .put_object(&ORGANIZATION, &digest, bundle.into())
        .await
        .unwrap();
    plane.world.fetch().await;
    let row = plane.row(&digest).await;
    assert_eq!(row.verdict.unwrap().outcome, Outcome::Verified);
    let sbom = Digest::of(SBOM).hex();
    let asked = plane.asked();
    assert!(
        asked.len() == 2 && asked.iter().all(|path| path.contains(&sbom)),
        "{asked:?}"
    );
}

/// A stricter policy keeps unproven attestations from being delivered again.
#[tokio::test]
async fn what_was_accepted_by_less_is_delivered_again_only_if_it_is_proven_now() {
    for mode in ["off", "warn"] {
        let plane = Plane::new(mode).await;
        let world = &plane.world;
        let envelope = plane.signed("1");
        world.push(envelope.compact()).await.unwrap();
        world.deliver().await;
        assert_eq!(plane.received(), 1);
        assert_eq!(plane.redeliver(&envelope).await.status, 202);
        world.deliver().await;
        assert_eq!(plane.received(), 2);

        plane.set("require").await;
        let refused = plane.redeliver(&envelope).await;
        let code = refused.body["code"].as_str().unwrap();
        assert_eq!((refused.status, code), (422, "signature-missing-material"));
        let detail = refused.body["detail"].as_str().unwrap();
        let hash = envelope.hash().to_string();
        assert!(
            detail.contains(&hash) && detail.contains("\"release\""),
            "{detail}"
        );

        world
            .push(plane.authority.bundle(&envelope, VALID))
            .await
            .unwrap();
        assert_eq!(plane.redeliver(&envelope).await.status, 202, "{mode}");
        world.deliver().await;
        assert_eq!(plane.received(), 3);
        let sent = world.receiver.deliveries().pop().unwrap();
        assert_eq!(told(&sent), "verified");
    }
}

/// The bundle was pushed, and no policy judged it.
#[tokio::test]
async fn what_was_accepted_unjudged_is_judged_when_it_is_delivered_again() {
    let plane = Plane::new("off").await;
    let envelope = plane.signed("1");
    let bundle = plane.authority.bundle(&envelope, VALID);
    plane.world.push(bundle).await.unwrap();
    plane.world.deliver().await;
    plane.set("require").await;
    assert_eq!(plane.redeliver(&envelope).await.status, 202);
    plane.world.deliver().await;
    let sent = plane.world.receiver.deliveries().pop().unwrap();
    assert_eq!(told(&sent), "verified");
}

#[tokio::test]
async fn a_backfill_skips_what_a_policy_refuses_and_says_so() {
    let plane = Plane::new("off").await;
    let world = &plane.world;
    let (proven, unproven) = (plane.signed("1"), plane.signed("2"));
    world
        .push(plane.authority.bundle(&proven, VALID))
        .await
        .unwrap();
    world.push(unproven.compact()).await.unwrap();
    world.deliver().await;
    plane.set("require").await;
    let attached = world.attach("hook").await;
    for dry_run in [true, false] {
        let route = "POST /v1/attachments/{attachment}/backfill";
        let path = [("attachment", attached.id.as_str())];
        let body = json!({ "dry_run": dry_run });
        let begun = ask(&world.memory, Role::Operator, route, &path, body).await;
        assert_eq!(begun.status, 202, "{}", begun.body);
        world.pass(Duration::from_mins(2)).await;
        let path = [("job", begun.body["id"].as_str().unwrap())];
        let job = ask(
            &world.memory,
            Role::Viewer,
            "GET /v1/jobs/{job}",
            &path,
            Value::Null,
        )
        .await;
        let job = job.body;
        assert_eq!(
            (&job["state"], &job["done"], &job["skipped"]),
            (&json!("done"), &json!(1), &json!(1)),
            "{job}"
        );
        let told = job["refused"][0].as_str().unwrap();
        assert!(told.starts_with(&unproven.hash().to_string()), "{told}");
        assert!(told.contains(Code::CertificateMissing.sentence()), "{told}");
    }
    assert_eq!(plane.received(), 3, "two when they were pushed, and one");
    // One by one, a job that delivers again says the same.
    let delivered = plane.deliveries(&unproven).await.remove(0);
    let body = json!({ "registration": delivered.registration, "state": "delivered" });
    let route = "POST /v1/redeliveries";
    let begun = ask(&world.memory, Role::Operator, route, &[], body).await;
    assert_eq!(begun.status, 202, "{}", begun.body);
    world.pass(Duration::from_mins(2)).await;
    assert_eq!(plane.received(), 5);
    let path = [("job", begun.body["id"].as_str().unwrap())];
    let route = "GET /v1/jobs/{job}";
    let job = ask(&world.memory, Role::Viewer, route, &path, Value::Null)
        .await
        .body;
    let told = job["refused"][0].as_str().unwrap();
    assert!(told.contains("may not be delivered again"), "{job}");
}
