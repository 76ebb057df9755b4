//! Two organizations, a role of the first, and what becomes of all that the second may try.

use attestation::MaterialType;
use integrations::guac::Guac;
use integrations::oci_registry::OciRegistry;
use integrations::{Error, Integration, Kind, Outcome, Registered};
use serde_json::{Map, Value, json};

use super::*;
use crate::{SBOM, STATEMENT, Stage};

const A: &str = "11111111-1111-4111-8111-111111111111";
const B: &str = "22222222-2222-4222-8222-222222222222";

/// A registration as the pipeline has it: with its organization's external ID, which is no input.
fn registered<I: Integration>(inputs: &Value, external_id: &str) -> Registered<I> {
    let read = Registered::<I>::read(inputs.as_object().unwrap().clone());
    read.unwrap().on_behalf_of(Some(external_id.to_owned()))
}

fn bucket(role: &str) -> Value {
    json!({ "bucket": "sboms", "region": "eu-central-1", "role_arn": role })
}

fn repository(role: &str) -> Value {
    let repository = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/acme/attestations";
    json!({ "repository": repository, "role_arn": role })
}

/// Registers, which asks the third party.
async fn register<I: Integration>(http: &Http, inputs: &Value, whose: &str) -> Result<(), Error> {
    registered::<I>(inputs, whose).register(http).await?;
    Ok(())
}

async fn deliver<I: Integration>(
    http: &Http,
    inputs: &Value,
    whose: &str,
) -> Result<Map<String, Value>, Error> {
    let registered = registered::<I>(inputs, whose);
    let mut stage = Stage::of_statement(STATEMENT);
    // Their bytes are nowhere.
    stage.materials.clear();
    let stage = stage.with("sbom", MaterialType::SBOM_CYCLONEDX_JSON, SBOM);
    let attachment: I::Attachment = serde_json::from_value(json!({})).unwrap();
    let delivery = stage.delivery::<I>(&registered.inputs, &attachment);
    match registered.deliver(http, &stage, &delivery).await? {
        Outcome::Delivered(receipt) => Ok(receipt),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bucket_is_written_to_by_a_role_which_is_assumed_once() {
    let aws = Aws::start();
    let (http, inputs) = (aws.http(), bucket(&aws.role("chainloop-sboms", Some(A))));
    register::<Guac>(&http, &inputs, A).await.unwrap();
    let calls = aws.calls();
    // With another ID than its own, which the role must refuse.
    assert_eq!(calls[0], format!("AssumeRole {A}"));
    assert!(calls[1].starts_with("AssumeRole ") && calls[1] != calls[0]);
    assert_eq!(calls[2..], ["s3:ListBucket", "s3:PutObject"]);
    assert!(aws.objects().is_empty(), "the check leaves nothing behind");

    let receipt = deliver::<Guac>(&http, &inputs, A).await.unwrap();
    assert_eq!(receipt["bucket"], "sboms");
    let key = format!("sboms/chainloop/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    assert_eq!(aws.objects()[&key], SBOM);
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    assert!(aws.calls().iter().all(|call| call.starts_with("s3:")));
}

#[tokio::test]
async fn another_organization_gets_nothing_by_the_same_role_also_while_it_is_assumed() {
    let aws = Aws::start();
    let (http, role) = (aws.http(), aws.role("chainloop-sboms", Some(A)));
    register::<Guac>(&http, &bucket(&role), A).await.unwrap();
    deliver::<Guac>(&http, &bucket(&role), A).await.unwrap();
    let before = aws.objects();
    aws.calls();
    let refused = register::<Guac>(&http, &bucket(&role), B).await;
    let delivered = deliver::<Guac>(&http, &bucket(&role), B).await;
    let pushed = register::<OciRegistry>(&http, &repository(&role), B).await;
    for error in [
        refused.unwrap_err(),
        delivered.unwrap_err(),
        pushed.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Permanent, "{error:?}");
        assert!(error.text.contains("403 Forbidden"), "{error}");
        // What its operator needs is its own ID, and the role that has to be let in.
        assert!(
            error.text.ends_with(&format!("sts:ExternalId is {B}")),
            "{error}"
        );
        assert!(error.text.contains(FUNCTION), "{error}");
        assert!(!format!("{error:?}").contains(A), "{error:?}");
    }
    assert_eq!(aws.calls(), vec![format!("AssumeRole {B}"); 3]);
    assert_eq!(aws.objects(), before);
}

#[tokio::test]
async fn a_role_that_asks_for_no_external_id_is_refused() {
    let aws = Aws::start();
    let role = aws.role("chainloop-open", None);
    for refused in [
        register::<Guac>(&aws.http(), &bucket(&role), A).await,
        register::<OciRegistry>(&aws.http(), &repository(&role), A).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        let expected = format!("has to require that sts:ExternalId is {A}");
        assert!(error.text.ends_with(&expected), "{error}");
    }
    assert!(
        aws.calls()
            .iter()
            .all(|call| call.starts_with("AssumeRole"))
    );
}

#[tokio::test]
async fn a_role_of_another_name_and_the_stacks_own_bucket_are_refused_before_anybody_is_asked() {
    let aws = Aws::start();
    let role = aws.role("admin", Some(A));
    for refused in [
        register::<Guac>(&aws.http(), &bucket(&role), A).await,
        register::<OciRegistry>(&aws.http(), &repository(&role), A).await,
        deliver::<Guac>(&aws.http(), &bucket(&role), A)
            .await
            .map(|_| ()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error.text.contains("the stack's parameter AssumableRoles"),
            "{error}"
        );
    }
    let role = aws.role("chainloop-sboms", Some(A));
    let mut inputs = bucket(&role);
    inputs["bucket"] = json!(OWN_BUCKET);
    let mut keys =
        json!({ "bucket": OWN_BUCKET, "access_key_id": "AKIA", "credentials": "secret" });
    let mut refused = vec![
        register::<Guac>(&aws.http(), &inputs, A).await,
        register::<Guac>(&aws.http(), &keys, A).await,
        deliver::<Guac>(&aws.http(), &inputs, A).await.map(|_| ()),
        deliver::<Guac>(&aws.http(), &keys, A).await.map(|_| ()),
    ];
    // As a folder of an endpoint, where the bucket's name would be the beginning of a key.
    keys["bucket"] = json!("acme");
    keys["endpoint"] = json!(format!("{}/{OWN_BUCKET}", aws.double.origin));
    refused.push(register::<Guac>(&aws.http(), &keys, A).await);
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error.text.contains("it is the stack's own bucket"),
            "{error}"
        );
    }
    assert!(aws.double.received().is_empty());
}

#[tokio::test]
async fn a_session_that_ended_early_is_replaced_at_the_next_try() {
    let aws = Aws::start();
    let (http, inputs) = (aws.http(), bucket(&aws.role("chainloop-sboms", Some(A))));
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    aws.end_all();
    aws.calls();
    // The engine tries once more after this kind of error, and at once.
    let error = deliver::<Guac>(&http, &inputs, A).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    assert_eq!(
        aws.calls()
            .iter()
            .filter(|call| call.starts_with("AssumeRole"))
            .count(),
        1
    );
}

#[tokio::test]
async fn what_is_about_to_end_is_not_used_again() {
    let aws = Aws::start();
    aws.lend_for(299);
    let (http, inputs) = (aws.http(), bucket(&aws.role("chainloop-sboms", Some(A))));
    for _ in 0..2 {
        deliver::<Guac>(&http, &inputs, A).await.unwrap();
        assert_eq!(aws.calls()[0], format!("AssumeRole {A}"));
    }
}

/// The session of one bucket may not write to another, so the second has one of its own.
#[tokio::test]
async fn a_session_may_write_to_its_bucket_alone() {
    let aws = Aws::start();
    let (http, mut inputs) = (aws.http(), bucket(&aws.role("chainloop-sboms", Some(A))));
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    inputs["bucket"] = json!("others");
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    let assumed = aws
        .calls()
        .into_iter()
        .filter(|call| call.starts_with("AssumeRole"));
    assert_eq!(assumed.count(), 2);
    let sessions = &aws.state().sessions;
    for (session, bucket) in sessions.values().zip(["sboms", "others"]) {
        let others: &[&str] = &[
            "s3:DeleteObject",
            "s3:*",
            "sts:AssumeRole",
            "ecr:GetAuthorizationToken",
        ];
        let all = format!("arn:aws:s3:::{bucket}/*");
        assert!(
            permits(&session.policy, "s3:PutObject", &all),
            "{}",
            session.policy
        );
        assert!(!permits(&session.policy, "s3:PutObject", "*"));
        assert!(
            others
                .iter()
                .all(|action| !permits(&session.policy, action, &all))
        );
    }
}

#[tokio::test]
async fn ecr_takes_what_a_role_pushes_with_one_password() {
    let aws = Aws::start();
    let (http, inputs) = (
        aws.http(),
        repository(&aws.role("chainloop-images", Some(A))),
    );
    register::<OciRegistry>(&http, &inputs, A).await.unwrap();
    let receipt = deliver::<OciRegistry>(&http, &inputs, A).await.unwrap();
    let reference = receipt["reference"].as_str().unwrap();
    let start = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/acme/attestations:chainloop-";
    assert!(reference.starts_with(start), "{reference}");
    let calls = aws.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert_eq!(calls[2], "GetAuthorizationToken");
    let pushed = aws.double.received().into_iter().filter(|request| {
        request.method() == Method::PUT && request.uri().path().contains("/manifests/chainloop-")
    });
    assert_eq!(pushed.count(), 1);
}

#[tokio::test]
async fn a_password_that_ended_is_asked_for_anew_once() {
    let aws = Aws::start();
    let (http, inputs) = (
        aws.http(),
        repository(&aws.role("chainloop-images", Some(A))),
    );
    register::<OciRegistry>(&http, &inputs, A).await.unwrap();
    aws.end_passwords();
    aws.calls();
    deliver::<OciRegistry>(&http, &inputs, A).await.unwrap();
    assert_eq!(aws.calls(), ["GetAuthorizationToken"]);
    // Nor does it matter that the session ended, too: the next try has another.
    aws.end_all();
    let error = deliver::<OciRegistry>(&http, &inputs, A).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized, "{error:?}");
    deliver::<OciRegistry>(&http, &inputs, A).await.unwrap();

    aws.calls();
    aws.deny();
    let error = deliver::<OciRegistry>(&http, &inputs, A).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent, "{error:?}");
    assert!(error.text.contains("ecr:InitiateLayerUpload"), "{error}");
    assert_eq!(
        aws.calls(),
        ["GetAuthorizationToken"],
        "once, and not again"
    );
}

#[tokio::test]
async fn what_was_lent_is_not_shown_where_it_is_repeated() {
    let aws = Aws::start();
    let (http, inputs) = (aws.http(), bucket(&aws.role("chainloop-sboms", Some(A))));
    deliver::<Guac>(&http, &inputs, A).await.unwrap();
    aws.end_all();
    let error = deliver::<Guac>(&http, &inputs, A).await.unwrap_err();
    let excerpt = &error.answer.as_ref().unwrap().excerpt;
    assert!(excerpt.contains("<Message>…</Message>"), "{excerpt}");
    for secret in aws.secrets() {
        assert!(!format!("{error:?}{http:?}").contains(&secret), "{error:?}");
    }
}

/// Else whoever may register could have a session sent to a server of their own.
#[test]
fn no_input_says_where_a_role_is_used() {
    let role = "arn:aws:iam::111122223333:role/chainloop-sboms";
    for (one, inputs, field, value) in [
        (
            "guac",
            bucket(role),
            "endpoint",
            json!("https://evil.example"),
        ),
        (
            "guac",
            bucket(role),
            "ca_certificates",
            json!(crate::authority::CERTIFICATE),
        ),
        ("guac", bucket(role), "external_id", json!(A)),
        ("guac", bucket(role), "provider", json!("gcs")),
        ("guac", bucket(role), "region", json!("evil.example/")),
        (
            "guac",
            bucket(role),
            "role_arn",
            json!("arn:aws:iam::111122223333:role/*"),
        ),
        (
            "oci-registry",
            repository(role),
            "repository",
            json!("evil.example/a"),
        ),
        (
            "oci-registry",
            repository(role),
            "repository",
            json!("evil.dkr.ecr.eu-central-1.amazonaws.com/a"),
        ),
        (
            "oci-registry",
            repository(role),
            "ca_certificates",
            json!(crate::authority::CERTIFICATE),
        ),
        ("oci-registry", repository(role), "external_id", json!(A)),
    ] {
        let check = integrations::find(one).unwrap().check_registration;
        let mut inputs = inputs.as_object().unwrap().clone();
        assert_eq!(check(&inputs), [], "{one}");
        inputs.insert(field.to_owned(), value);
        let faults = check(&inputs);
        assert_eq!(faults.len(), 1, "{one}: {faults:?}");
        assert_eq!(faults[0].field, field, "{faults:?}");
    }
    let fields = |one: &str, inputs: Value| -> Vec<String> {
        let check = integrations::find(one).unwrap().check_registration;
        let faults = check(inputs.as_object().unwrap()).into_iter();
        faults
            .map(|fault| format!("{} {}", fault.field, fault.detail))
            .collect()
    };
    assert_eq!(
        fields("guac", json!({ "bucket": "sboms" })),
        ["credentials is required without role_arn"]
    );
    assert_eq!(
        fields("oci-registry", json!({ "repository": "ghcr.io/acme/a" })),
        [
            "password is required without role_arn",
            "username is required without role_arn"
        ]
    );
    let mut both = repository(role);
    both["username"] = json!("robot");
    let found = fields("oci-registry", both);
    assert_eq!(
        found,
        ["role_arn belongs to registrations without a username and a password"]
    );
}
