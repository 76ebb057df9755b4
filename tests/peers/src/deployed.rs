//! Each integration on the deployed stack, as somebody uses it who is new to it: registered, refused where it must be,
//! attached, and an attestation pushed whose bytes or words then are at the third party.

use attestation::Digest;
use bytes::Bytes;
use http::{Method, Request};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use serde_json::{Value, json};

use crate::aiosmtpd::{self, Aiosmtpd};
use crate::authority;
use crate::azurite::Azurite;
use crate::blob::S3;
use crate::dependency_track::{DependencyTrack, V5};
use crate::discord::Discord;
use crate::gcs::Gcs;
use crate::registry::{self, DockerRegistry};
use crate::slack::Slack;
use crate::{Operator, SBOM, http};

#[test]
fn slack_gets_a_message() {
    let slack = Slack::start();
    let operator = Operator::new("slack");
    let dead = slack.hook();
    slack.refuse(&dead, 404, "no_service");
    let webhook = format!("webhook={dead}");
    let said = operator.register_in_vain("slack-webhook", &[&webhook]);
    assert!(said.contains("answered 404 no_service"), "{said}");
    assert!(!said.contains(&dead), "{said}");

    let hook = slack.hook();
    let webhook = format!("webhook={hook}");
    operator.register("slack-webhook", &[&webhook]);
    assert!(slack.messages(&hook).is_empty(), "the check is quiet");
    operator.attach(&[]);
    operator.deliver(&[]);
    let messages = slack.messages(&hook);
    let [message] = &messages[..] else {
        panic!("{messages:?}")
    };
    let text = message.to_string();
    assert!(text.contains("peers/slack"), "{text}");
    assert!(text.contains("SBOM_CYCLONEDX_JSON"), "{text}");
}

#[test]
fn discord_gets_a_message_with_the_summary_as_a_file() {
    let discord = Discord::start();
    let operator = Operator::new("discord");
    let gone = discord.webhook();
    discord.remove(&gone);
    let webhook = format!("webhook={gone}");
    let said = operator.register_in_vain("discord-webhook", &[&webhook]);
    assert!(said.contains("10015"), "{said}");

    let url = discord.webhook();
    let webhook = format!("webhook={url}");
    operator.register("discord-webhook", &[&webhook]);
    operator.attach(&["template={{ workflow.name }}: {{ policy.status }}"]);
    let receipt = operator.deliver(&[]);
    let messages = discord.messages(&url);
    let [message] = &messages[..] else {
        panic!("{} messages", messages.len())
    };
    assert_eq!(receipt["message_id"], message.id, "{receipt}");
    // With no letter that Discord would take for a mark-up.
    let text = &message.payload["embeds"][0]["description"];
    assert_eq!(text, r"discord: NOT\_APPLICABLE");
    let (name, file) = &message.files[0];
    assert_eq!(name, "summary.txt");
    let digest = Digest::of(SBOM).to_string();
    assert!(String::from_utf8_lossy(file).contains(&digest));
}

#[test]
fn dependency_track_imports_the_sbom_and_says_when() {
    let server = DependencyTrack::start(V5);
    server.take_time(2);
    let operator = Operator::new("dependency-track");
    let instance = format!("instanceURI={}", server.origin());
    let said = operator.register_in_vain(
        "dependency-track",
        &[&instance, "apiKey=odt_of_nobody_at_all"],
    );
    assert!(said.contains("401"), "{said}");
    assert!(!said.contains("odt_of_nobody_at_all"), "{said}");

    server.grant(
        "odt_key",
        "ci",
        &["BOM_UPLOAD", "VIEW_PORTFOLIO", "PROJECT_CREATION_UPLOAD"],
    );
    operator.register(
        "dependency-track",
        &[&instance, "apiKey=odt_key", "allowAutoCreate=true"],
    );
    operator.attach(&[
        "projectName={{.Attestation.Annotations.component}}",
        "projectVersion={{ attestation.annotations.release }}",
        "filter=environment=prod",
    ]);
    let staging = operator.push(&operator.craft(&["--annotation", "environment=staging"]));
    assert_eq!(staging["state"], "skipped", "{staging:#}");
    let reason = staging["reason"].as_str().unwrap();
    assert!(reason.contains("environment=prod"), "{reason}");
    let nameless = operator.push(&operator.craft(&["--annotation", "environment=prod"]));
    assert_eq!(nameless["state"], "skipped", "{nameless:#}");
    let reason = nameless["reason"].as_str().unwrap();
    assert!(reason.contains("component"), "{reason}");

    let attestation = operator.craft(&[
        "--annotation",
        "environment=prod",
        "--annotation",
        "component=shop",
        "--annotation",
        "release=2.4.0",
    ]);
    let delivery = operator.push(&attestation);
    assert_eq!(delivery["state"], "delivered", "{delivery:#}");
    let project = server.project("shop", Some("2.4.0")).expect("it was made");
    assert_eq!(project.digests(), [Digest::of(SBOM)], "byte for byte");

    // Dependency-Track has more to do; the receipt is completed later.
    let id = delivery["id"].as_str().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let receipt = loop {
        let receipt = operator.delivery(id)["receipt"].clone();
        if receipt.get("completion").is_some() || std::time::Instant::now() > until {
            break receipt;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    };
    assert_eq!(receipt["completion"], json!("processed"), "{receipt:#}");
}

#[test]
fn mails_arrive_in_each_mailbox() {
    let server = Aiosmtpd::start(aiosmtpd::Options {
        starttls: true,
        login: Some(("ci", "of-nobody-else")),
        refuse: &[("gone@example.org", "550 5.1.1 no such mailbox")],
        ..aiosmtpd::Options::default()
    });
    let operator = Operator::new("smtp");
    let port = format!("port={}", server.port);
    let options = [
        "host=localhost",
        &port,
        "from=ci@example.net",
        "to=alice@example.org, gone@example.org",
        "user=ci",
    ];
    let right = [&options[..], &["password=of-nobody-else"]].concat();
    let said = operator.register_in_vain("smtp", &right);
    assert!(
        said.contains("TLS") || said.contains("certificate"),
        "{said}"
    );
    let authority = format!("ca_certificates=@{}", authority::own().display());
    let options = [&options[..], &[&authority]].concat();
    let wrong = [&options[..], &["password=wrong-and-secret"]].concat();
    let said = operator.register_in_vain("smtp", &wrong);
    assert!(said.contains("535"), "{said}");
    assert!(!said.contains("wrong-and-secret"), "{said}");

    let right = [&options[..], &["password=of-nobody-else"]].concat();
    operator.register("smtp", &right);
    assert!(server.mails().is_empty(), "the check sends none");
    operator.attach(&["cc=bob@example.com"]);
    let delivery = operator.push(&operator.craft(&[]));
    assert_eq!(delivery["state"], "delivered", "{delivery:#}");
    assert_eq!(
        delivery["reason"],
        "accepted for 2 of 3 recipients; g…@example.org refused: 550 5.1.1 no such mailbox"
    );
    let receipt = &delivery["receipt"];
    let mails = server.mails();
    assert_eq!(mails.len(), 2, "one for each domain: {mails:#?}");
    let recipients: Vec<_> = mails.iter().map(|mail| mail["to"].to_string()).collect();
    assert!(recipients.iter().any(|to| to == r#"["alice@example.org"]"#));
    assert!(recipients.iter().any(|to| to == r#"["bob@example.com"]"#));
    for mail in &mails {
        assert_eq!(mail["encrypted"], true);
        let content = mail["content"].as_str().unwrap();
        assert!(content.contains("Message-ID: <"), "{content}");
        assert!(content.contains("peers/smtp"), "{content}");
    }
    let receipt = receipt.to_string();
    assert!(
        receipt.contains("550"),
        "the one that was refused: {receipt}"
    );
    assert!(!receipt.contains("alice@"), "{receipt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_holds_the_attestation_byte_for_byte() {
    let server = DockerRegistry::with_password();
    let operator = Operator::new("oci");
    let repository = format!("repository={}", server.repository("acme/attestations"));
    let username = format!("username={}", registry::USERNAME);
    let said = operator.register_in_vain(
        "oci-registry",
        &[&repository, &username, "password=wrong-and-secret"],
    );
    assert!(said.contains("401"), "{said}");
    assert!(!said.contains("wrong-and-secret"), "{said}");

    let password = format!("password={}", registry::PASSWORD);
    operator.register("oci-registry", &[&repository, &username, &password]);
    operator.attach(&["prefix=my-app"]);
    let attestation = operator.craft(&[]);
    let delivery = operator.push(&attestation);
    assert_eq!(delivery["state"], "delivered", "{delivery:#}");
    let receipt = delivery["receipt"].as_object().unwrap();
    let bytes = std::fs::read(&attestation).unwrap();
    let tag = format!("my-app-{}", Digest::of(&bytes).hex());
    let reference = receipt["reference"].as_str().unwrap();
    assert!(reference.contains(&tag), "{reference}");
    let (_, layer) = registry::tests::read_back(receipt, &registry::tests::auth()).await;
    assert_eq!(layer, bytes, "byte for byte");
}

/// Returns the objects of a bucket that belong to one walk.
fn objects(found: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    found
        .into_iter()
        .filter(|(key, _)| key.starts_with("walk/"))
        .collect()
}

#[test]
fn guac_finds_the_sbom_in_s3() {
    let s3 = S3::start();
    let operator = Operator::new("guac-s3");
    let bucket = format!("bucket={}", S3::BUCKET);
    let endpoint = format!("endpoint={}", s3.origin);
    let key = format!("access_key_id={}", S3::ACCESS_KEY_ID);
    let wrong = [&bucket, &endpoint, &key, "credentials=wrong-and-secret"];
    let said = operator.register_in_vain("guac", &wrong);
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("wrong-and-secret"), "{said}");

    let right = format!("credentials={}", S3::SECRET);
    operator.register("guac", &[&bucket, &endpoint, &key, &right]);
    operator.attach(&["prefix=walk", "provenance=true"]);
    let receipt = operator.deliver(&[]);
    let found = objects(s3.objects());
    let key = format!("walk/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    assert!(found.contains(&(key, SBOM.to_vec())), "{receipt:#}");
    assert_eq!(found.len(), 2, "and the provenance: {receipt:#}");
}

/// Asks the local cloud itself, as the owner of its account.
async fn ask_aws(service: &str, method: Method, path: &str, form: &[(&str, &str)]) -> Bytes {
    let given = |name: &str| std::env::var(name).unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let body = Bytes::from(body);
    let credential = AwsCredential {
        key_id: given("AWS_ACCESS_KEY_ID"),
        secret_key: given("AWS_SECRET_ACCESS_KEY"),
        token: None,
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", given("AWS_ENDPOINT_URL")))
        .header("content-type", "application/x-www-form-urlencoded");
    let mut request = request.body(HttpRequestBody::empty()).unwrap();
    let region = given("AWS_REGION");
    AwsAuthorizer::new(&credential, service, &region)
        .try_authorize(&mut request, Some(Digest::of(&body).bytes()))
        .unwrap();
    let answer = http().send(request.map(|_| body)).await.unwrap();
    assert!(answer.status.is_success(), "{path} {form:?}: {answer:?}");
    answer.body
}

async fn make_role(name: &str, bucket: &str, condition: &Value) -> String {
    let mut trust = json!({
        "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "AWS": "arn:aws:iam::000000000000:root" },
    });
    if condition.is_object() {
        trust["Condition"] = condition.clone();
    }
    let document =
        |statement: Value| json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
    let trust = document(trust);
    let made = [
        ("Action", "CreateRole"),
        ("Version", "2010-05-08"),
        ("RoleName", name),
        ("AssumeRolePolicyDocument", &trust),
    ];
    ask_aws("iam", Method::POST, "/", &made).await;
    let policy = document(json!({
        "Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject", "s3:ListBucket"],
        "Resource": [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")],
    }));
    let permitted = [
        ("Action", "PutRolePolicy"),
        ("Version", "2010-05-08"),
        ("RoleName", name),
        ("PolicyName", "write"),
        ("PolicyDocument", &policy),
    ];
    ask_aws("iam", Method::POST, "/", &permitted).await;
    format!("role_arn=arn:aws:iam::000000000000:role/{name}")
}

/// The local cloud checks trust policies, sessions and their policies as it checks those of functions.
#[tokio::test(flavor = "multi_thread")]
async fn guac_writes_to_a_bucket_by_a_role() {
    let operator = Operator::new("guac-role");
    let unique = std::process::id();
    let name = format!("peers-{unique}");
    ask_aws("s3", Method::PUT, &format!("/{name}"), &[]).await;
    let bucket = format!("bucket={name}");
    let role = format!("chainloop-{unique}");
    let arn = format!("role_arn=arn:aws:iam::000000000000:role/{role}");
    let said = operator.register_in_vain("guac", &[&bucket, &arn]);
    let (_, id) = said.split_once("sts:ExternalId is ").expect(&said);
    let id = &id[..36];
    let named = operator.register_in_vain(
        "guac",
        &[&bucket, "role_arn=arn:aws:iam::000000000000:role/other"],
    );
    assert!(named.contains("AssumableRoles"), "{named}");
    let own = format!("bucket={}", std::env::var("CHAINLOOP_BUCKET").unwrap());
    let said = operator.register_in_vain("guac", &[&own, &arn]);
    assert!(said.contains("the stack's own bucket"), "{said}");

    let open = make_role(&format!("{role}-open"), &name, &Value::Null).await;
    let said = operator.register_in_vain("guac", &[&bucket, &open]);
    assert!(said.contains("has to require"), "{said}");
    let other = json!({ "StringEquals": { "sts:ExternalId": "of-another-organization" } });
    let other = make_role(&format!("{role}-other"), &name, &other).await;
    let said = operator.register_in_vain("guac", &[&bucket, &other]);
    assert!(said.contains(id) && said.contains("AccessDenied"), "{said}");

    let ours = json!({ "StringEquals": { "sts:ExternalId": id } });
    make_role(&role, &name, &ours).await;
    let made = operator.register("guac", &[&bucket, &arn]);
    assert_eq!(made["externalId"], id, "{made:#}");
    operator.attach(&["prefix=walk"]);
    let receipt = operator.deliver(&[]);
    let key = format!("walk/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    let found = ask_aws("s3", Method::GET, &format!("/{name}/{key}"), &[]).await;
    assert_eq!(found, SBOM, "{receipt:#}");
}

#[test]
fn guac_finds_the_sbom_in_google_cloud_storage() {
    let gcs = Gcs::start();
    let operator = Operator::new("guac-gcs");
    let bucket = format!("bucket={}", Gcs::BUCKET);
    let endpoint = format!("endpoint={}", gcs.origin());
    let credentials = format!("credentials={}", Gcs::credentials());
    operator.register("guac", &[&bucket, &endpoint, &credentials]);
    operator.attach(&["prefix=walk"]);
    let receipt = operator.deliver(&[]);
    let found = gcs.objects().into_iter();
    let found = objects(found.map(|(key, object)| (key, object.bytes.to_vec())));
    let key = format!("walk/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    assert_eq!(found, [(key, SBOM.to_vec())], "{receipt:#}");
    gcs.take_permissions();
    let second = Operator::new("guac-gcs-refused");
    let said = second.register_in_vain("guac", &[&bucket, &endpoint, &credentials]);
    assert!(said.contains("storage.objects.create"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guac_finds_the_sbom_in_azure() {
    let azurite = Azurite::start().await;
    let operator = Operator::new("guac-azure");
    let options = [
        "provider=azure".to_owned(),
        format!("account={}", Azurite::ACCOUNT),
        format!("bucket={}", Azurite::CONTAINER),
        format!("endpoint={}", azurite.endpoint),
    ];
    let with = |credentials: &str| {
        let credentials = format!("credentials={credentials}");
        options
            .iter()
            .cloned()
            .chain([credentials])
            .collect::<Vec<_>>()
    };
    let given = with("d3JvbmctYW5kLXNlY3JldA==");
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let said = operator.register_in_vain("guac", &given);
    assert!(
        said.contains("403") || said.contains("AuthorizationFailure"),
        "{said}"
    );
    let given = with(Azurite::KEY);
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    operator.register("guac", &given);
    operator.attach(&["prefix=walk"]);
    let receipt = operator.deliver(&[]);
    let key = format!("walk/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    assert_eq!(azurite.names().await, [key.as_str()], "{receipt:#}");
    assert_eq!(azurite.beginning(&key).await, SBOM);
}
