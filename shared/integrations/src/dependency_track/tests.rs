use attestation::{Digest, Material};
use serde_json::json;

use super::*;
use crate::fixture::{self, Lock, Peer, Stage};
use crate::http::Response;
use crate::{About, Kind, PresenceState};

const KEY: &str = "odt_canary-in-the-key";
const ID: &str = "c1b5c0a2-9c37-4d0e-8f0f-4d3f5a7e2b19";
const PARENT: &str = "7d0a3c5e-52a4-4b8f-9a6e-0b1c2d3e4f50";
const TOKEN: &str = "0f9b8e7d-1c2b-4a39-8d7e-6f5a4b3c2d1e";
const AGAIN: Kind = Kind::Retryable { after: None };

fn registration(origin: &str) -> Registration {
    registration_of(origin, &json!({}))
}

fn registration_of(origin: &str, more: &Value) -> Registration {
    let mut inputs = json!({ "instanceURI": format!("{origin}/dt/"), "apiKey": KEY });
    inputs
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(inputs).unwrap()
}

fn attachment(inputs: Value) -> Attachment {
    serde_json::from_value(inputs).unwrap()
}

fn to_project() -> Attachment {
    attachment(json!({ "projectID": ID }))
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn json_answer(body: &Value) -> String {
    answer("200 OK", "application/json", &body.to_string())
}

fn text_answer(status: &str, body: &str) -> String {
    answer(status, "text/plain", body)
}

fn accepted() -> String {
    json_answer(&json!({ "token": TOKEN }))
}

/// With SBOMs of these names, whose contents differ.
fn stage(names: &[&str]) -> Stage {
    let mut stage = Stage::new();
    let sbom = |name: &&str| {
        let bytes = format!("{{\"bomFormat\":\"CycloneDX\",\"name\":\"{name}\"}}").into_bytes();
        Material::inline(
            name,
            MaterialType::SBOM_CYCLONEDX_JSON,
            "sbom.cdx.json",
            bytes,
        )
    };
    stage.materials = names.iter().map(sbom).collect();
    stage
}

async fn deliver(
    stage: &Stage,
    registration: &Registration,
    attachment: &Attachment,
) -> Result<Outcome, Error> {
    let delivery = stage.delivery(registration, attachment);
    DependencyTrack::deliver(&fixture::http(), stage, &delivery).await
}

fn receipt(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Delivered(receipt) => receipt.into(),
        other => panic!("{other:?}"),
    }
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Skipped(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// Delivers one SBOM to a server that gives these answers.
async fn answered(answers: &[&str]) -> (Result<Outcome, Error>, Vec<fixture::Received>) {
    let party = server(answers);
    let outcome = deliver(
        &stage(&["sbom"]),
        &registration(&party.origin),
        &to_project(),
    )
    .await;
    (outcome, posts(&party))
}

/// A project that imported something then, or nothing.
fn project(last_import: &Value) -> String {
    json_answer(&json!({ "uuid": ID, "name": "shop", "lastBomImport": last_import }))
}

/// Answers uploads so, and shows the project before each.
fn server(uploads: &[&str]) -> Peer {
    let project = project(&json!(1));
    let answers: Vec<_> = uploads
        .iter()
        .flat_map(|answer| [&*project, answer])
        .collect();
    Peer::start(&answers)
}

/// The uploads that arrived.
fn posts(party: &Peer) -> Vec<fixture::Received> {
    let mut received = party.received();
    received.retain(|request| request.method == "POST");
    received
}

// --- what is sent -------------------------------------------------------------------------------------

fn full() -> Attachment {
    attachment(json!({
        "projectName": "{{ workflow.project }}-{{ .Attestation.Annotations.Environment }}",
        "projectVersion": "{{ workflow.version }}",
        "parentName": "all of {{ workflow.team }}",
        "parentVersion": "1",
        "projectTags": "backend , team-a",
        "isLatest": true,
    }))
}

#[tokio::test]
async fn an_sbom_is_posted_as_a_form_with_all_that_was_filled_in() {
    let party = server(&[&accepted()]);
    let registration = registration_of(&party.origin, &json!({ "allowAutoCreate": true }));
    let outcome = deliver(&stage(&["sbom"]), &registration, &full())
        .await
        .unwrap();
    let [sent] = &posts(&party)[..] else { panic!() };
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/dt/api/v1/bom")
    );
    assert_eq!(sent.headers["x-api-key"], KEY);
    assert_eq!(sent.headers["content-length"], sent.body.len().to_string());
    let boundary = sent.headers["content-type"].strip_prefix("multipart/form-data; boundary=");
    assert!(
        sent.body
            .starts_with(format!("--{}\r\n", boundary.unwrap()).as_bytes())
    );
    let body = String::from_utf8(sent.body.clone()).unwrap();
    assert_eq!(body.matches('\n').count(), body.matches("\r\n").count());
    fixture::compare("dependency-track-upload.txt", &body.replace('\r', ""));
    let stage = stage(&["sbom"]);
    let expected = json!({ "sboms": [{
        "material": "sbom",
        "digest": stage.materials[0].digest.unwrap().to_string(),
        "token": TOKEN,
        "name": "shop-prod",
        "version": "2.4.0",
        "imported_before": 1,
    }]});
    assert_eq!(receipt(outcome), expected);
}

/// The names and values of a form, the SBOM left out.
fn fields(body: &[u8]) -> Vec<(String, String)> {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let (boundary, _) = body.split_once("\r\n").unwrap();
    let parts = body.split(boundary).filter_map(|part| {
        let (head, value) = part.split_once("\r\n\r\n")?;
        let (_, name) = head.split_once("name=\"")?;
        let name = name.trim_end_matches('"');
        (name != "bom").then(|| (name.to_owned(), value.trim_end().to_owned()))
    });
    parts.collect()
}

#[tokio::test]
async fn only_what_was_filled_in_is_sent_and_nothing_is_created_unasked() {
    for (create, inputs, expected) in [
        (true, json!({ "projectID": ID }), vec![("project", ID)]),
        (
            false,
            json!({ "projectName": "shop" }),
            vec![("projectName", "shop")],
        ),
        (
            true,
            json!({ "projectName": " shop ", "parentID": PARENT, "isLatest": false }),
            vec![
                ("autoCreate", "true"),
                ("projectName", "shop"),
                ("parentUUID", PARENT),
            ],
        ),
    ] {
        let party = server(&[&accepted()]);
        let registration = registration_of(&party.origin, &json!({ "allowAutoCreate": create }));
        deliver(&stage(&["sbom"]), &registration, &attachment(inputs))
            .await
            .unwrap();
        let fields = fields(&posts(&party)[0].body);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(fields, expected);
    }
}

#[tokio::test]
async fn the_preview_is_what_is_sent_without_the_key() {
    let party = server(&[&accepted(), &accepted()]);
    let (stage, registration) = (stage(&["a", "b"]), registration(&party.origin));
    let previews = DependencyTrack::preview(&stage, &stage.delivery(&registration, &full()))
        .await
        .unwrap();
    deliver(&stage, &registration, &full()).await.unwrap();
    let received = posts(&party);
    assert_eq!((previews.len(), received.len()), (2, 2));
    for (preview, sent) in previews.iter().zip(&received) {
        assert_eq!(preview.method, sent.method);
        assert_eq!(preview.target, format!("{}{}", party.origin, sent.target));
        assert_eq!(preview.body.as_bytes(), sent.body);
        assert_eq!(preview.digest, Digest::of(&sent.body));
        assert_eq!(preview.size_bytes, sent.body.len() as u64);
        assert_eq!(
            preview.headers["content-type"],
            sent.headers["content-type"]
        );
        assert_eq!(preview.headers["x-api-key"], "…");
    }
    assert!(!format!("{previews:?}").contains("canary"));
}

// --- where it goes ------------------------------------------------------------------------------------

#[tokio::test]
async fn an_sbom_without_what_its_project_is_named_by_is_skipped_and_the_others_are_not() {
    let party = server(&[&accepted()]);
    let mut stage = stage(&["named", "nameless"]);
    stage.materials[0].annotate("component", "shop");
    let attachment = attachment(json!({ "projectName": "{{ .Material.Annotations.Component }}" }));
    let receipt = receipt(
        deliver(&stage, &registration(&party.origin), &attachment)
            .await
            .unwrap(),
    );
    assert_eq!(receipt["sboms"][0]["name"], "shop");
    let skipped = json!([{ "name": "nameless", "reason": "projectName: material.annotations.Component is not there" }]);
    assert_eq!(receipt["skipped"], skipped);
}

#[tokio::test]
async fn when_all_are_skipped_the_delivery_is_and_says_why_of_each() {
    let mut stage = stage(&["a", "b"]);
    stage.materials[0].annotate("v", "  ");
    stage.missing = stage.materials.clone();
    stage.missing.truncate(1);
    stage.missing[0].name = "c".to_owned();
    let attachment = attachment(
        json!({ "projectName": "shop", "projectVersion": "{{ material.annotations.v }}" }),
    );
    let registration = registration("http://127.0.0.1:1");
    let reason = reason(deliver(&stage, &registration, &attachment).await.unwrap());
    assert_eq!(
        reason,
        "a: projectVersion: the text is empty; b: projectVersion: material.annotations.v is not there; c: never came"
    );
    let delivery = stage.delivery(&registration, &attachment);
    assert!(
        DependencyTrack::preview(&stage, &delivery)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_name_that_dependency_track_could_not_keep_is_not_sent() {
    let mut stage = stage(&["sbom"]);
    stage.materials[0].annotate("component", &"x".repeat(256));
    let attachment = attachment(json!({ "projectName": "{{ material.annotations.component }}" }));
    let registration = registration("http://127.0.0.1:1");
    let reason = reason(deliver(&stage, &registration, &attachment).await.unwrap());
    assert_eq!(
        reason,
        "sbom: projectName: the text has more than 255 bytes"
    );
}

#[tokio::test]
async fn the_project_that_attaching_finds_is_the_one_that_is_uploaded_to() {
    for name in [
        "\u{645}\u{6cc}\u{200c}\u{62e}",
        "\u{1f469}\u{200d}\u{1f4bb} shop",
        " a\tb ",
        "team@example.org",
        "\u{ad}\u{feff}\u{202e}x",
    ] {
        let there = project(&json!(1));
        let party = Peer::start(&[&there, &there, &accepted()]);
        let registration = registration(&party.origin);
        let literal = attachment(json!({ "projectName": name, "projectVersion": name }));
        let http = fixture::http();
        DependencyTrack::attach(&http, &registration, &literal)
            .await
            .unwrap();
        // Named by a fact, it is the same project.
        let mut stage = stage(&["sbom"]);
        stage.materials[0].annotate("component", name);
        let gap = "{{ material.annotations.component }}";
        let filled = attachment(json!({ "projectName": gap, "projectVersion": gap }));
        deliver(&stage, &registration, &filled).await.unwrap();
        let received = party.received();
        assert_eq!(received[0].target, received[1].target);
        let kept = name.trim().replace('\t', " ");
        for (field, value) in fields(&received[2].body) {
            assert_eq!(value, kept, "{field}");
        }
    }
}

#[tokio::test]
async fn the_same_bytes_for_the_same_project_are_sent_once() {
    let party = server(&[&accepted()]);
    let mut stage = stage(&["sbom"]);
    let mut copy = stage.materials[0].clone();
    copy.name = "copy".to_owned();
    stage.materials.push(copy);
    let receipt = receipt(
        deliver(&stage, &registration(&party.origin), &to_project())
            .await
            .unwrap(),
    );
    assert_eq!(
        receipt["skipped"],
        json!([{ "name": "copy", "reason": "has the bytes of \"sbom\"" }])
    );
}

// --- one after another --------------------------------------------------------------------------------

fn place() -> String {
    format!("project {ID}")
}

#[tokio::test]
async fn while_another_delivery_is_at_one_of_the_projects_nothing_is_sent() {
    let party = server(&[&accepted(), &accepted()]);
    let mut stage = stage(&["a", "b"]);
    stage.materials[0].annotate("p", "one");
    stage.materials[1].annotate("p", "two");
    let taken = Lock {
        is_taken: true,
        note: Value::Null,
    };
    stage
        .locks
        .borrow_mut()
        .insert("project \"two\" \"1\"".to_owned(), taken);
    let attachment =
        attachment(json!({ "projectName": "{{ material.annotations.p }}", "projectVersion": "1" }));
    let outcome = deliver(&stage, &registration(&party.origin), &attachment)
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::busy("the project \"two\" \"1\""));
    assert!(posts(&party).is_empty());
}

#[tokio::test]
async fn an_sbom_that_is_older_than_the_last_one_is_skipped() {
    let project = project(&json!(1));
    let party = Peer::start(&[&project, &accepted(), &project]);
    let newer = stage(&["sbom"]);
    let registration = registration(&party.origin);
    deliver(&newer, &registration, &to_project()).await.unwrap();
    assert!(newer.locks.borrow().values().all(|lock| !lock.is_taken));

    let statement = include_str!("../../tests/files/statement.json");
    let mut older = Stage::of(&statement.replace("03:09:30Z", "03:09:29Z"));
    older.materials = stage(&["sbom"]).materials;
    older.materials[0].content = Some(fixture::CDX.into());
    older.materials[0].digest = Some(Digest::of(fixture::CDX.as_bytes()));
    older.locks = newer.locks.clone();
    let reason = reason(deliver(&older, &registration, &to_project()).await.unwrap());
    let hash = newer.attestation.hash;
    assert_eq!(
        reason,
        format!("sbom: superseded in the project {ID} by that of attestation {hash}")
    );
    assert_eq!(older.recorded().len(), 1);
    assert_eq!(posts(&party).len(), 1);
}

#[tokio::test]
async fn an_sbom_that_a_newer_attestation_brings_again_is_there_already_and_a_redelivery_sends_it()
{
    let project = project(&json!(1));
    let party = Peer::start(&[&project, &accepted(), &project, &project, &accepted()]);
    let first = stage(&["sbom"]);
    let registration = registration(&party.origin);
    deliver(&first, &registration, &to_project()).await.unwrap();

    let statement = include_str!("../../tests/files/statement.json");
    let mut second = Stage::of(&statement.replace("03:09:30Z", "03:09:31Z"));
    second.materials = stage(&["sbom"]).materials;
    second.locks = first.locks.clone();
    let reason = reason(
        deliver(&second, &registration, &to_project())
            .await
            .unwrap(),
    );
    let hash = first.attestation.hash;
    assert_eq!(
        reason,
        format!("sbom: already there: the project {ID} has it from attestation {hash}")
    );
    assert_eq!(posts(&party).len(), 1);

    // A retry holds to what was decided; a redelivery, which has no progress, sends.
    second.progress = second.recorded().into_iter().collect();
    deliver(&second, &registration, &to_project())
        .await
        .unwrap();
    assert_eq!(posts(&party).len(), 1);
    second.progress.clear();
    deliver(&second, &registration, &to_project())
        .await
        .unwrap();
    assert_eq!(posts(&party).len(), 2);
}

#[tokio::test]
async fn what_an_earlier_attempt_sent_is_not_sent_again_and_is_noted_all_the_same() {
    let registration = registration("http://127.0.0.1:1");
    let mut stage = stage(&["sbom"]);
    let attachment = to_project();
    let delivery = stage.delivery(&registration, &attachment);
    let (uploads, _) = plan(&stage, &delivery).await.unwrap();
    let (step, done) = (
        uploads[0].step.clone(),
        json!({ "material": "sbom", "token": TOKEN }),
    );
    stage.progress.insert(step, done.clone());
    let receipt = receipt(deliver(&stage, &registration, &to_project()).await.unwrap());
    assert_eq!(receipt, json!({ "sboms": [done] }));
    assert_ne!(stage.locks.borrow()[&place()].note, Value::Null);
}

#[tokio::test]
async fn one_failing_stops_no_other_and_what_may_pass_is_told_first() {
    let invalid = text_answer("400 Bad Request", "No BOM file provided.");
    let later = text_answer("503 Service Unavailable", "");
    let party = server(&[&invalid, &accepted(), &later, &accepted()]);
    let stage = stage(&["a", "b", "c", "d"]);
    let error = deliver(&stage, &registration(&party.origin), &to_project())
        .await
        .unwrap_err();
    assert_eq!(error.kind, AGAIN);
    assert!(
        error
            .text
            .starts_with("upload the SBOM \"c\" to the project "),
        "{error}"
    );
    let materials: Vec<_> = stage
        .recorded()
        .iter()
        .map(|(_, receipt)| receipt["material"].clone())
        .collect();
    assert_eq!(materials, ["b", "d"]);
    assert!(!stage.locks.borrow()[&place()].is_taken);
}

#[tokio::test]
async fn a_wrong_key_is_tried_once() {
    let party = server(&[&text_answer("401 Unauthorized", ""), &accepted()]);
    let stage = stage(&["a", "b"]);
    let error = deliver(&stage, &registration(&party.origin), &to_project())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    assert_eq!(posts(&party).len(), 1);
}

#[tokio::test]
async fn a_material_that_never_came_is_named() {
    let party = server(&[&accepted()]);
    let mut stage = stage(&["a", "b"]);
    stage.missing = stage.materials.split_off(1);
    let receipt = receipt(
        deliver(&stage, &registration(&party.origin), &to_project())
            .await
            .unwrap(),
    );
    assert_eq!(receipt["missing"], json!(["b"]));
}

// --- what is known of the project -----------------------------------------------------------------------

#[tokio::test]
async fn an_sbom_is_sent_again_to_a_project_that_was_deleted_or_never_imported_it() {
    let gone = text_answer("404 Not Found", "The project could not be found.");
    let statement = include_str!("../../tests/files/statement.json");
    for (now, is_sent) in [
        (&gone, true),
        (&project(&Value::Null), true),
        (&project(&json!(2)), false),
        (&text_answer("403 Forbidden", ""), false),
    ] {
        let project = project(&json!(1));
        let party = Peer::start(&[&project, &accepted(), now, &accepted()]);
        let registration = registration(&party.origin);
        let first = stage(&["sbom"]);
        deliver(&first, &registration, &to_project()).await.unwrap();
        let mut second = Stage::of(&statement.replace("03:09:30Z", "03:09:31Z"));
        second.materials = stage(&["sbom"]).materials;
        second.locks = first.locks.clone();
        deliver(&second, &registration, &to_project())
            .await
            .unwrap();
        assert_eq!(posts(&party).len(), 1 + usize::from(is_sent), "{now}");
    }
}

#[tokio::test]
async fn an_older_sbom_is_sent_to_a_project_that_was_deleted_with_the_newer() {
    let project = project(&json!(1));
    let gone = text_answer("404 Not Found", "The project could not be found.");
    let party = Peer::start(&[&project, &accepted(), &gone, &accepted()]);
    let registration = registration(&party.origin);
    let newer = stage(&["sbom"]);
    deliver(&newer, &registration, &to_project()).await.unwrap();
    let statement = include_str!("../../tests/files/statement.json");
    let mut older = Stage::of(&statement.replace("03:09:30Z", "03:09:29Z"));
    older.materials = stage(&["sbom"]).materials;
    older.locks = newer.locks.clone();
    let receipt = receipt(deliver(&older, &registration, &to_project()).await.unwrap());
    assert_eq!(receipt["sboms"][0]["imported_before"], Value::Null);
}

#[tokio::test]
async fn a_material_that_is_not_cyclonedx_is_not_sent_and_the_others_are() {
    for (bytes, fault) in [
        (&b"<bom/>"[..], "not JSON, at line 1, column 1"),
        (b"{}", "not CycloneDX: it has no bomFormat that says so"),
    ] {
        let project = project(&json!(1));
        let party = Peer::start(&[&project, &project, &accepted()]);
        let mut stage = stage(&["bad", "good"]);
        stage.materials[0].content = Some(bytes.to_vec());
        stage.materials[0].digest = Some(Digest::of(bytes));
        let error = deliver(&stage, &registration(&party.origin), &to_project())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.about),
            (Kind::Permanent, About::Delivery)
        );
        let expected = format!("upload the SBOM \"bad\" to the project {ID}: it is {fault}");
        assert_eq!(error.text, expected);
        assert_eq!((posts(&party).len(), stage.recorded().len()), (1, 1));
    }
}

// --- what an answer to an upload means ----------------------------------------------------------------

#[tokio::test]
async fn each_answer_has_its_class_and_says_what_to_do() {
    let problem = |errors: Value| {
        let body = json!({
            "status": 400, "title": "The uploaded BOM is invalid", "detail": "Schema validation failed", "errors": errors,
        });
        answer(
            "400 Bad Request",
            "application/problem+json",
            &body.to_string(),
        )
    };
    let acl = json!({ "status": 403, "title": "Project access denied", "detail": "Access to the requested project is forbidden" });
    let invalid = "400 Bad Request: The uploaded BOM is invalid: Schema validation failed";
    let forbidden = "the key needs the permission BOM_UPLOAD and, under portfolio access control, access to the project, \
                     its parent and its version that was the latest";
    for (answer, kind, text) in [
        (
            problem(json!(["$.version: string found, integer expected", "$.x: odt_canary-in-the-key"])),
            Kind::Permanent,
            format!("{invalid}: $.version: string found, integer expected, $.x: …"),
        ),
        (
            problem(json!(["e1", "e2", { "e": 3 }, "e4", "e5", "e6", "e7"])),
            Kind::Permanent,
            format!("{invalid}: e1, e2, {{\"e\":3}}, e4, e5, and 2 more"),
        ),
        (
            problem(json!(["Unrecognized specVersion 1.7"])),
            Kind::Permanent,
            format!("{invalid}: Unrecognized specVersion 1.7; Dependency-Track takes CycloneDX up to 1.6, and from its version 5 on also 1.7"),
        ),
        (
            text_answer("400 Bad Request", "No BOM file provided."),
            Kind::Permanent,
            "400 Bad Request: No BOM file provided".to_owned(),
        ),
        (
            text_answer("400 Bad Request", "BOM cannot be uploaded to a collection project."),
            Kind::Permanent,
            "400 Bad Request: BOM cannot be uploaded to a collection project".to_owned(),
        ),
        (text_answer("401 Unauthorized", ""), Kind::Unauthorized, "401 Unauthorized".to_owned()),
        (
            text_answer("401 Unauthorized", "The principal does not have permission to create project."),
            Kind::Permanent,
            "401 Unauthorized: The principal does not have permission to create project; the key's team needs one of \
             PROJECT_CREATION_UPLOAD, PORTFOLIO_MANAGEMENT, PORTFOLIO_MANAGEMENT_CREATE".to_owned(),
        ),
        (text_answer("403 Forbidden", ""), Kind::Permanent, format!("403 Forbidden; {forbidden}")),
        (
            answer("403 Forbidden", "application/problem+json", &acl.to_string()),
            Kind::Permanent,
            format!("403 Forbidden: Project access denied: Access to the requested project is forbidden; {forbidden}"),
        ),
        (
            text_answer("403 Forbidden", "Access to the specified parent project is forbidden"),
            Kind::Permanent,
            format!("403 Forbidden: Access to the specified parent project is forbidden; {forbidden}"),
        ),
        (
            text_answer("404 Not Found", "The project could not be found."),
            Kind::Permanent,
            "404 Not Found: The project could not be found".to_owned(),
        ),
        (
            text_answer("404 Not Found", "The parent component could not be found."),
            Kind::Permanent,
            "404 Not Found: The parent component could not be found".to_owned(),
        ),
        (
            answer("413 Content Too Large", "text/html", "<html><h1>413</h1></html>"),
            Kind::Permanent,
            "413 Payload Too Large; a proxy in front of Dependency-Track limits the size of what is uploaded".to_owned(),
        ),
        (text_answer("500 Internal Server Error", ""), AGAIN, "500 Internal Server Error".to_owned()),
        (answer("502 Bad Gateway", "text/html", "<html></html>"), AGAIN, "502 Bad Gateway".to_owned()),
        (text_answer("503 Service Unavailable", "starting"), AGAIN, "503 Service Unavailable: starting".to_owned()),
        (text_answer("504 Gateway Timeout", ""), AGAIN, "504 Gateway Timeout".to_owned()),
        (
            answer("302 Found", "text/html", "<html>Log in</html>"),
            Kind::Permanent,
            "302 Found".to_owned(),
        ),
        (
            answer("200 OK", "text/html", "<html>Log in</html>"),
            Kind::Permanent,
            "200 without a token, which is not how Dependency-Track answers".to_owned(),
        ),
    ] {
        let (outcome, received) = answered(&[&answer]).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, kind, "{answer}");
        assert_eq!(error.text, format!("upload the SBOM \"sbom\" to the project {ID}: answered {text}"));
        let kept = error.answer.as_ref().unwrap();
        assert!(!format!("{error:?} {kept:?}").contains("canary"), "{error:?}");
        assert_eq!(received.len(), 1);
    }
}

#[tokio::test]
async fn a_project_that_is_not_there_and_not_created_is_said_to_be_so() {
    let party = server(&[&text_answer(
        "404 Not Found",
        "The project could not be found.",
    )]);
    let attachment = attachment(json!({ "projectName": "shop", "projectVersion": "1" }));
    let outcome = deliver(&stage(&["sbom"]), &registration(&party.origin), &attachment).await;
    assert_eq!(
        outcome.unwrap_err().text,
        "upload the SBOM \"sbom\" to the project \"shop\" \"1\": answered 404 Not Found: The project could not be found; \
         the registration creates no projects: allowAutoCreate is false"
    );
}

#[tokio::test]
async fn an_upload_is_accepted_with_a_token_and_from_version_5_on_with_its_project() {
    let (outcome, _) = answered(&[&accepted()]).await;
    assert_eq!(receipt(outcome.unwrap())["sboms"][0]["token"], TOKEN);

    let with_project = json_answer(&json!({ "token": TOKEN, "projectUuid": PARENT }));
    let party = server(&[&with_project]);
    let attachment = attachment(json!({ "projectName": "shop" }));
    let outcome = deliver(&stage(&["sbom"]), &registration(&party.origin), &attachment).await;
    let receipt = receipt(outcome.unwrap());
    assert_eq!(receipt["sboms"][0]["project"], PARENT);
    assert_eq!(receipt["sboms"][0]["name"], "shop");
}

#[tokio::test]
async fn who_was_overtaken_in_creating_a_project_tries_again_at_once_and_once() {
    let conflict = text_answer("409 Conflict", "Project already exists");
    let raced = async |answers: &[&str]| {
        let project = project(&json!(1));
        let answers: Vec<_> = [&*project]
            .into_iter()
            .chain(answers.iter().copied())
            .collect();
        let party = Peer::start(&answers);
        let registration = registration(&party.origin);
        let outcome = deliver(&stage(&["sbom"]), &registration, &to_project()).await;
        (outcome, posts(&party))
    };
    let (outcome, received) = raced(&[&conflict, &accepted()]).await;
    assert!(outcome.is_ok());
    assert_eq!(received[0].body, received[1].body);

    let (outcome, received) = raced(&[&conflict, &conflict, &accepted()]).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.about, About::Delivery);
    assert_eq!(error.kind, AGAIN);
    assert!(
        error
            .text
            .ends_with("answered 409 Conflict: Project already exists"),
        "{error}"
    );
    assert_eq!(received.len(), 2);
}

#[tokio::test]
async fn who_is_not_there_is_tried_later_and_named() {
    let error = deliver(
        &stage(&["sbom"]),
        &registration("http://127.0.0.1:1"),
        &to_project(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind, AGAIN);
    let expected = format!("find the project {ID}: reach http://127.0.0.1:1: connection refused");
    assert_eq!(error.text, expected);
}

#[tokio::test]
async fn an_answer_that_broke_off_may_stand_for_an_upload() {
    let broken = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{{\"token\":\"{}",
        &TOKEN[..9]
    );
    let (outcome, _) = answered(&[&broken]).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::Indeterminate);
}

#[test]
fn a_page_of_errors_is_shown_in_few_words() {
    let response = |body: String| Response {
        status: http::StatusCode::BAD_REQUEST,
        headers: http::HeaderMap::new(),
        body: body.into(),
        truncated: true,
        redactor: crate::Redactor::default(),
    };
    let error = "x\u{1b}\u{202e}".repeat(10_000);
    for body in [
        json!({ "title": error, "detail": error, "errors": vec![&error; 2] }).to_string(),
        json!({ "errors": vec!["e".repeat(150); 1000] }).to_string()[..64 * 1024].to_owned(),
    ] {
        let error = api::accepted(&response(body), "upload", 0).unwrap_err();
        assert!((100..1000).contains(&error.text.len()), "{error}");
        assert!(!error.text.contains(['\u{1b}', '\u{202e}']));
        assert!(error.answer.unwrap().excerpt.len() <= 2048);
    }
}

// --- registering and attaching ------------------------------------------------------------------------

fn version() -> String {
    json_answer(&json!({ "version": "4.14.3", "application": "Dependency-Track", "uuid": ID }))
}

fn team(permissions: &[&str]) -> String {
    let permissions: Vec<_> = permissions
        .iter()
        .map(|name| json!({ "name": name, "description": "d" }))
        .collect();
    json_answer(&json!({ "uuid": ID, "name": "Automation", "permissions": permissions }))
}

async fn register(
    create: bool,
    answers: &[&str],
) -> (Result<Warnings, Error>, Vec<fixture::Received>) {
    let party = Peer::start(answers);
    let registration = registration_of(&party.origin, &json!({ "allowAutoCreate": create }));
    let result = DependencyTrack::register(&fixture::http(), &registration).await;
    (result, party.received())
}

#[tokio::test]
async fn a_good_registration_asks_for_the_version_and_the_permissions_and_changes_nothing() {
    let empty = answer("200 OK", "application/json", "");
    let (upload, look) = ("BOM_UPLOAD", "VIEW_PORTFOLIO");
    let create = "PORTFOLIO_MANAGEMENT_CREATE";
    for (creates, answer, doubted) in [
        (false, team(&[look, upload]), vec![]),
        (false, team(&[upload]), vec![look]),
        (true, team(&[look, upload, create]), vec![]),
        // Another team of the key may have what the first one lacks.
        (true, team(&[look, upload]), vec!["PROJECT_CREATION_UPLOAD"]),
        (true, team(&[]), vec![upload, look]),
        // Authentication is turned off.
        (true, empty, vec![]),
    ] {
        let (result, received) = register(creates, &[&version(), &answer]).await;
        let warnings = result.unwrap();
        assert_eq!(warnings.len(), doubted.len(), "{warnings:?}");
        for (warning, doubted) in warnings.iter().zip(doubted) {
            assert!(warning.contains(doubted), "{warning}");
        }
        let asked: Vec<_> = received
            .iter()
            .map(|one| format!("{} {}", one.method, one.target))
            .collect();
        assert_eq!(asked, ["GET /dt/api/version", "GET /dt/api/v1/team/self"]);
        assert!(!received[0].headers.contains_key("x-api-key"));
        assert_eq!(received[1].headers["x-api-key"], KEY);
    }
}

#[tokio::test]
async fn a_registration_that_would_not_work_says_what_to_do() {
    let asking = "ask Dependency-Track what the key may do: ";
    let several = "(of a key with several teams, Dependency-Track shows the first one alone: the permissions have to be there)";
    let create =
        "one of PROJECT_CREATION_UPLOAD, PORTFOLIO_MANAGEMENT, PORTFOLIO_MANAGEMENT_CREATE";
    for (allow, answer, kind, text) in [
        (
            false,
            team(&["VIEW_PORTFOLIO"]),
            Kind::Permanent,
            format!("its team \"Automation\" lacks permissions; grant it BOM_UPLOAD {several}"),
        ),
        (
            true,
            team(&["VIEW_PORTFOLIO"]),
            Kind::Permanent,
            format!(
                "its team \"Automation\" lacks permissions; grant it BOM_UPLOAD and {create} {several}"
            ),
        ),
        (
            false,
            text_answer("404 Not Found", "No Team for the given API key found."),
            Kind::Permanent,
            "the key has no team; give it one that has BOM_UPLOAD".to_owned(),
        ),
        (
            false,
            text_answer("401 Unauthorized", ""),
            Kind::Unauthorized,
            "answered 401 Unauthorized".to_owned(),
        ),
        (
            false,
            text_answer("400 Bad Request", "Invalid API key supplied."),
            Kind::Permanent,
            "answered 400 Bad Request: Invalid API key supplied".to_owned(),
        ),
        (
            false,
            text_answer("503 Service Unavailable", ""),
            AGAIN,
            "answered 503 Service Unavailable".to_owned(),
        ),
        (
            false,
            answer("200 OK", "text/html", "<html>"),
            Kind::Permanent,
            "the answer cannot be read".to_owned(),
        ),
    ] {
        let (result, _) = register(allow, &[&version(), &answer]).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind, error.text), (kind, format!("{asking}{text}")));
    }
}

#[tokio::test]
async fn what_is_not_dependency_track_never_gets_the_key() {
    let frontend = answer("200 OK", "text/html", "<html>Dependency-Track</html>");
    let other = json_answer(&json!({ "application": "Other", "version": "1" }));
    let nothing = text_answer("404 Not Found", "");
    let advice =
        "instanceURI has to be the address of Dependency-Track's API server, not of its frontend";
    for (answer, text) in [
        (frontend, "what answers there is not Dependency-Track"),
        (other, "what answers there is not Dependency-Track"),
        (nothing, "answered 404 Not Found"),
    ] {
        let (result, received) = register(false, &[&answer, &team(&["BOM_UPLOAD"])]).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error
                .text
                .ends_with(&format!(" for its version: {text}; {advice}")),
            "{error}"
        );
        assert_eq!(received.len(), 1);
    }
}

async fn attach(
    create: bool,
    inputs: Value,
    answers: &[&str],
) -> (Result<Warnings, Error>, Vec<String>) {
    let party = Peer::start(answers);
    let registration = registration_of(&party.origin, &json!({ "allowAutoCreate": create }));
    let result =
        DependencyTrack::attach(&fixture::http(), &registration, &attachment(inputs)).await;
    let targets = party.received().into_iter();
    (
        result,
        targets
            .map(|one| format!("{} {}", one.method, one.target))
            .collect(),
    )
}

#[tokio::test]
async fn an_attachment_makes_sure_of_the_projects_that_have_to_be_there() {
    let there = json_answer(&json!({ "uuid": ID, "name": "shop" }));
    let by_id = |id: &str| format!("GET /dt/api/v1/project/{id}");
    let lookup = |query: &str| format!("GET /dt/api/v1/project/lookup?{query}");
    for (create, inputs, asked) in [
        (false, json!({ "projectID": ID }), vec![by_id(ID)]),
        (true, json!({ "projectName": "shop" }), vec![]),
        (
            true,
            json!({ "projectName": "{{ workflow.name }}", "parentID": PARENT }),
            vec![by_id(PARENT)],
        ),
        (
            true,
            json!({ "projectName": "shop", "parentName": "all & one", "parentVersion": "1" }),
            vec![lookup("name=all+%26+one&version=1")],
        ),
        (
            true,
            json!({ "projectName": "shop", "parentName": "{{ workflow.team }}" }),
            vec![],
        ),
        (
            false,
            json!({ "projectName": "shop" }),
            vec![lookup("name=shop")],
        ),
        (
            false,
            json!({ "projectName": "shop", "projectVersion": "1", "parentID": PARENT }),
            vec![lookup("name=shop&version=1"), by_id(PARENT)],
        ),
    ] {
        let (result, targets) = attach(create, inputs, &[&there, &there]).await;
        result.unwrap();
        assert_eq!(targets, asked);
    }
}

#[tokio::test]
async fn an_attachment_that_would_not_work_is_refused_with_the_reason() {
    let gone = text_answer("404 Not Found", "The project could not be found.");
    let forbidden = text_answer(
        "403 Forbidden",
        "Access to the specified project is forbidden",
    );
    let none = "auto creation of projects is not supported in this integration: it needs a registration with allowAutoCreate=true";
    for (create, inputs, answer, text) in [
        (
            false,
            json!({ "projectID": ID }),
            &gone,
            format!("find it: project with ID \"{ID}\" not found"),
        ),
        (
            true,
            json!({ "projectName": "shop", "parentID": PARENT }),
            &gone,
            format!("find it: parent project with ID \"{PARENT}\" not found"),
        ),
        (
            true,
            json!({ "projectName": "shop", "parentName": "all" }),
            &gone,
            "find the parent project \"all\": there is none".to_owned(),
        ),
        (
            false,
            json!({ "projectName": "shop", "projectVersion": "1" }),
            &gone,
            format!("find the project \"shop\" \"1\": there is none, and {none}"),
        ),
        (
            false,
            json!({ "projectName": "{{ workflow.name }}" }),
            &gone,
            format!(
                "make sure that the project is there: its name follows from each attestation, and {none}"
            ),
        ),
        (
            false,
            json!({ "projectID": ID }),
            &forbidden,
            format!(
                "find the project {ID}: answered 403 Forbidden: Access to the specified project is forbidden; \
                     the key needs the permission VIEW_PORTFOLIO and, under portfolio access control, access to the project"
            ),
        ),
    ] {
        let (result, _) = attach(create, inputs, &[answer]).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind, error.text), (Kind::Permanent, text));
    }
    let (result, _) = attach(
        false,
        json!({ "projectID": ID }),
        &[&text_answer("500 Internal Server Error", "")],
    )
    .await;
    assert_eq!(result.unwrap_err().kind, AGAIN);
}

// --- following up -------------------------------------------------------------------------------------

async fn follow(sboms: Value, answers: &[&str]) -> (Result<Followed, Error>, Vec<String>) {
    let party = Peer::start(answers);
    let receipt = json!({ "sboms": sboms, "missing": ["x"] });
    let receipt = receipt.as_object().unwrap();
    let followed =
        DependencyTrack::follow(&fixture::http(), &registration(&party.origin), receipt).await;
    (
        followed,
        party.received().into_iter().map(|one| one.target).collect(),
    )
}

/// Returns receipts of two SBOMs: the first one's project had imported an SBOM before, the second one's none.
fn receipts() -> Value {
    json!([
        { "material": "a", "token": TOKEN, "project": PARENT, "imported_before": 1 },
        { "material": "b", "token": ID, "name": "shop", "version": "1", "imported_before": null },
    ])
}

#[tokio::test]
async fn a_delivery_is_followed_until_none_of_its_sboms_is_processed_any_more() {
    let under_way = json_answer(&json!({ "processing": true }));
    let done = json_answer(&json!({ "processing": false }));
    let old = text_answer("404 Not Found", "");
    let imported = project(&json!(2));
    let event = |token: &str| format!("/dt/api/v1/event/token/{token}");
    let bom = |token: &str| format!("/dt/api/v1/bom/token/{token}");

    let (followed, asked) = follow(receipts(), &[&done, &under_way]).await;
    assert_eq!(followed.unwrap(), Followed::UnderWay);
    assert_eq!(asked, [event(TOKEN), event(ID)]);

    let over = Followed::Over(Completion::Processed.receipt());
    let (followed, asked) = follow(receipts(), &[&done, &done, &imported, &imported]).await;
    assert_eq!(followed.unwrap(), over);
    let projects = [
        format!("/dt/api/v1/project/{PARENT}"),
        "/dt/api/v1/project/lookup?name=shop&version=1".to_owned(),
    ];
    assert_eq!(asked[2..], projects);

    let answers = [&*old, &done, &old, &done, &imported, &imported];
    let (followed, asked) = follow(receipts(), &answers).await;
    assert_eq!(followed.unwrap(), over);
    assert_eq!(asked[..4], [event(TOKEN), bom(TOKEN), event(ID), bom(ID)]);
}

#[tokio::test]
async fn what_was_accepted_and_not_imported_has_failed_and_what_nobody_can_tell_is_unknown() {
    let done = json_answer(&json!({ "processing": false }));
    let (same, imported) = (project(&json!(1)), project(&json!(2)));
    let never = project(&Value::Null);
    let gone = text_answer("404 Not Found", "");
    let hidden = text_answer("403 Forbidden", "");
    let failed =
        |of: &str| format!("{of} has imported nothing since: Dependency-Track's log says why");
    let by_name = failed("b: the project \"shop\" \"1\"");
    for (first, second, completion, reason) in [
        (&same, &imported, "failed", failed(&format!("a: the project {PARENT}"))),
        (&imported, &never, "failed", by_name.clone()),
        (&gone, &never, "failed", by_name),
        (&gone, &imported, "unknown", "a: its project is not there any more".to_owned()),
        (
            &imported,
            &hidden,
            "unknown",
            "b: whether it was imported shows in the project, which the key may not look at (VIEW_PORTFOLIO)"
                .to_owned(),
        ),
    ] {
        let (followed, _) = follow(receipts(), &[&done, &done, first, second]).await;
        let Followed::Over(receipt) = followed.unwrap() else {
            panic!("{first} {second}")
        };
        let expected = json!({ "completion": completion, "completion_reason": reason });
        assert_eq!(Value::from(receipt), expected);
    }
    // The key could not look before, either.
    let unseen = json!([{ "material": "a", "token": TOKEN, "project": PARENT }]);
    let (followed, asked) = follow(unseen, &[&done]).await;
    let Followed::Over(receipt) = followed.unwrap() else {
        panic!()
    };
    assert_eq!(
        (&receipt["completion"], asked.len()),
        (&json!("unknown"), 1)
    );
}

#[tokio::test]
async fn an_answer_that_says_nothing_of_the_processing_is_an_error() {
    let doing = "ask Dependency-Track whether it is done: ";
    for (answers, kind, text) in [
        (
            vec![text_answer("401 Unauthorized", "")],
            Kind::Unauthorized,
            "answered 401 Unauthorized",
        ),
        (
            vec![text_answer("503 Service Unavailable", "")],
            AGAIN,
            "answered 503 Service Unavailable",
        ),
        (
            vec![text_answer("404 Not Found", ""); 2],
            Kind::Permanent,
            "answered 404 Not Found",
        ),
        (
            vec![answer("200 OK", "text/html", "<html>")],
            AGAIN,
            "the answer cannot be read",
        ),
    ] {
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let (followed, _) = follow(receipts(), &answers).await;
        let error = followed.unwrap_err();
        assert_eq!((error.kind, error.text), (kind, format!("{doing}{text}")));
    }
}

/// Facts about all materials are read once: for each SBOM anew, a thousand took longer than an attempt has.
#[tokio::test]
async fn each_of_a_thousand_sboms_goes_to_a_project_of_its_own_name() {
    const COUNT: usize = 999;
    let mut materials = Vec::new();
    for number in 0..COUNT {
        let bytes = format!("{{\"bomFormat\":\"CycloneDX\",\"name\":\"{number}\"}}").into_bytes();
        let kind = MaterialType::SBOM_CYCLONEDX_JSON;
        let name = format!("sbom-{number}");
        let mut material = Material::inline(&name, kind, "sbom.cdx.json", bytes);
        material.annotate("Component", &format!("component-{number}"));
        for more in 0..90 {
            material.annotate(&format!("key-{more}"), "value");
        }
        materials.push(material);
    }
    let predicate = attestation::Predicate {
        materials: materials.clone(),
        ..attestation::Predicate::default()
    };
    let statement = attestation::compose::statement(&predicate, &[]);
    let mut stage = Stage::of(std::str::from_utf8(&statement).unwrap());
    stage.materials = materials;
    let registration = registration("http://127.0.0.1:1");
    let name = "{{ .Material.Annotations.component }} of {{ materials | length }}";
    let attachment = attachment(json!({ "projectName": name }));
    let delivery = stage.delivery(&registration, &attachment);
    let (uploads, skipped) = plan(&stage, &delivery).await.unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
    assert_eq!(uploads.len(), COUNT);
    for (number, upload) in uploads.iter().enumerate() {
        let place = format!("project \"component-{number} of {COUNT}\"");
        assert_eq!(upload.place.to_string(), place);
    }
}

#[tokio::test]
async fn what_was_uploaded_is_there_while_all_of_its_projects_are() {
    let shown = |status: &str| answer(status, "application/json", r#"{"uuid":"x"}"#);
    let (there, absent) = (shown("200 OK"), shown("404 Not Found"));
    let forbidden = shown("403 Forbidden");
    let again =
        json!([{ "material": "a", "project": PARENT }, { "material": "b", "project": PARENT }]);
    for (sboms, answers, state, asked) in [
        (receipts(), vec![&there, &there], PresenceState::There, 2),
        (receipts(), vec![&there, &absent], PresenceState::Gone, 2),
        (receipts(), vec![&forbidden], PresenceState::Unknown, 1),
        // One project of two SBOMs is asked for once.
        (again, vec![&there], PresenceState::There, 1),
        (
            json!([{ "material": "a" }]),
            vec![],
            PresenceState::Unknown,
            0,
        ),
    ] {
        let answers: Vec<&str> = answers.into_iter().map(String::as_str).collect();
        let party = Peer::start(&answers);
        let receipt = json!({ "sboms": sboms });
        let registration = registration(&party.origin);
        let receipt = receipt.as_object().unwrap();
        let found = DependencyTrack::look_for(&fixture::http(), &registration, receipt).await;
        assert_eq!(found.unwrap().state, state, "{sboms}");
        let received = party.received();
        assert_eq!(received.len(), asked, "{sboms}");
        assert!(received.iter().all(|one| one.method == "GET"));
    }
}
