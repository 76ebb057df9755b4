//! Roles at AWS over the API: whose external ID is whose, and what an operator is told. `tests/peers/src/aws.rs` has
//! what is asked of AWS.

use std::sync::{Arc, Mutex};

use api::{OrganizationName, Role};
use integrations::guac::Guac;
use integrations::iam::{AccessKey, Caller};
use integrations::{Http, Integration};
use memory::Memory;
use pipeline::config::check::{self, Check};
use pipeline::http::Response;
use receiver::{Answer, Received, Server};
use serde_json::{Value, json};

use crate::asking::{answer, request};
use crate::roles::As;
use crate::world::{ORGANIZATION, http};

/// The external ID that the one role's trust policy asks for.
type Trusted = Arc<Mutex<String>>;

/// STS, and a bucket that lets everybody write.
fn cloud(trusted: &Trusted) -> Server {
    let trusted = Arc::clone(trusted);
    Server::start(move |_, request: &Received| {
        if request.method != "POST" {
            return Answer::status(if request.method == "PUT" { 404 } else { 200 });
        }
        let form = String::from_utf8_lossy(&request.body);
        let (_, given) = form
            .split_once("&ExternalId=")
            .expect("always with an external ID");
        if given.split('&').next() != Some(&**trusted.lock().unwrap()) {
            let error = "<Error><Code>AccessDenied</Code><Message>User: arn:aws:sts::1:x is not authorized</Message></Error>";
            return Answer::status(403).body(error);
        }
        Answer::status(200).body(
            "<Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>canary-secret</SecretAccessKey>\
             <SessionToken>canary-token</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>",
        )
    })
}

fn client(cloud: &Server) -> Http {
    let key = AccessKey {
        id: "ASIAFUNCTION".into(),
        secret: "canary-of-the-function".to_owned().into(),
        token: None,
    };
    let mut caller = Caller::new("eu-central-1", key);
    "arn:aws:iam::*:role/chainloop-*".clone_into(&mut caller.assumable);
    "prod-bucket".clone_into(&mut caller.bucket);
    caller.endpoint = Some(cloud.origin().parse().unwrap());
    http().calling_as(caller)
}

fn memory(cloud: &Server) -> Memory {
    let http = client(cloud);
    Memory::new(move |memory, integration, event| {
        let http = http.clone();
        Box::pin(async move {
            assert_eq!(integration, Guac::ID);
            let check: Check = serde_json::from_value(event["check"].clone()).unwrap();
            let role = As::delivering::<Guac>(memory);
            let verdict = check::check::<Guac>(&role, &http, check).await?;
            Ok(serde_json::to_value(verdict).unwrap())
        })
    })
}

struct Operator<'a> {
    memory: &'a Memory,
    organization: OrganizationName,
}

impl Operator<'_> {
    async fn ask(&self, route: &str, parameters: &[(&str, &str)], body: Value) -> Response {
        let mut request = request(Role::Admin, route, parameters, &[], &body);
        let caller = request.caller.as_mut().unwrap();
        caller.organization = self.organization.clone();
        answer(self.memory, &request).await
    }

    async fn register(&self, name: &str, bucket: &str, role: &str) -> Response {
        let inputs = json!({
            "bucket": bucket, "role_arn": format!("arn:aws:iam::111122223333:role/{role}"),
        });
        let body = json!({ "integration": Guac::ID, "name": name, "inputs": inputs });
        self.ask("POST /v1/registrations", &[], body).await
    }

    /// Registers in vain, and returns the external ID that the answer tells of.
    async fn refused(&self) -> String {
        let response = self.register("sboms", "sboms", "chainloop-sboms").await;
        assert_eq!(response.status, 422, "{}", response.body);
        assert_eq!(response.body["code"], "check-failed");
        let detail = response.body["detail"].as_str().unwrap();
        let (_, id) = detail.split_once("sts:ExternalId is ").unwrap();
        id[..36].to_owned()
    }
}

#[tokio::test]
async fn each_organization_has_one_external_id_which_its_operator_is_told() {
    let trusted = Trusted::default();
    let cloud = cloud(&trusted);
    let memory = memory(&cloud);
    let a = Operator {
        memory: &memory,
        organization: ORGANIZATION.clone(),
    };
    let b = Operator {
        memory: &memory,
        organization: "other".into(),
    };
    let id = a.refused().await;
    assert_eq!(a.refused().await, id, "the same again");
    trusted.lock().unwrap().clone_from(&id);
    let made = a.register("sboms", "sboms", "chainloop-sboms").await;
    assert_eq!((made.status, &made.body["external_id"]), (201, &json!(id)));
    let one = [("registration", "sboms")];
    let shown = a
        .ask("GET /v1/registrations/{registration}", &one, json!({}))
        .await;
    assert_eq!(shown.body["external_id"], id);
    let listed = a.ask("GET /v1/registrations", &[], json!({})).await;
    assert_eq!(listed.body["items"][0]["external_id"], id);

    // Whoever knows the role's name and A's ID still asks with B's.
    let other = b.refused().await;
    assert_ne!(other, id);
    let listed = b.ask("GET /v1/registrations", &[], json!({})).await;
    assert_eq!(listed.body["items"], json!([]));
    let inputs = json!({
        "bucket": "sboms", "role_arn": "arn:aws:iam::111122223333:role/chainloop-sboms", "external_id": id,
    });
    let body = json!({ "integration": Guac::ID, "name": "sboms", "inputs": inputs });
    let named = b.ask("POST /v1/registrations", &[], body).await;
    assert_eq!(
        named.body["faults"][0]["field"], "external_id",
        "{}",
        named.body
    );
    assert!(!memory.dump().contains("canary"));
}

#[tokio::test]
async fn a_stored_key_gives_way_to_a_role() {
    let trusted = Trusted::default();
    let cloud = cloud(&trusted);
    let memory = memory(&cloud);
    let operator = Operator {
        memory: &memory,
        organization: ORGANIZATION.clone(),
    };
    let id = operator.refused().await;
    trusted.lock().unwrap().clone_from(&id);
    let inputs = json!({
        "bucket": "sboms", "endpoint": cloud.origin(), "access_key_id": "AKIA", "credentials": "canary",
    });
    let body = json!({ "integration": Guac::ID, "name": "sboms", "inputs": inputs });
    let made = operator.ask("POST /v1/registrations", &[], body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["external_id"], Value::Null);
    let patch = json!({ "inputs": {
        "role_arn": "arn:aws:iam::111122223333:role/chainloop-sboms",
        "endpoint": null, "access_key_id": null, "credentials": null,
    } });
    let one = [("registration", "sboms")];
    let route = "PATCH /v1/registrations/{registration}";
    let changed = operator.ask(route, &one, patch).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["external_id"], id);
    assert_eq!(changed.body["secrets"], json!({}));
    // To another role of that name, which trusts somebody else.
    trusted.lock().unwrap().clear();
    let patch =
        json!({ "inputs": { "role_arn": "arn:aws:iam::444455556666:role/chainloop-sboms" } });
    let refused = operator.ask(route, &one, patch).await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (422, &json!("check-failed"))
    );
}

#[tokio::test]
async fn what_the_stack_does_not_permit_is_refused_and_aws_is_not_asked() {
    let trusted = Trusted::default();
    let cloud = cloud(&trusted);
    let memory = memory(&cloud);
    let operator = Operator {
        memory: &memory,
        organization: ORGANIZATION.clone(),
    };
    for (bucket, role, expected) in [
        (
            "sboms",
            "admin",
            "AssumableRoles permits arn:aws:iam::*:role/chainloop-* alone",
        ),
        ("sboms", "team/chainloop-sboms", "AssumableRoles"),
        (
            "prod-bucket",
            "chainloop-sboms",
            "it is the stack's own bucket",
        ),
    ] {
        let refused = operator.register("sboms", bucket, role).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{detail}");
    }
    assert!(cloud.received().is_empty());
}
