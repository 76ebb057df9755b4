//! Roles: who may do what, as `infra/template.yaml` says. The local cloud knows no `dynamodb:LeadingKeys`, so its
//! policies are evaluated here, against every access that the functions make in the tests over memory.
//!
//! `docs/roles.md` is written from the same statements.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use memory::Memory;
use pipeline::Platform;
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Announcement, Item, Key, Message, Piece, Range, SecretValue, Unreachable, Write as Row,
    WriteError,
};
use pipeline::store::rows;
use serde_json::{Value, json};

use crate::contract::{camel, functions, root};
use crate::template::{Template, list, target, template, words};

/// A statement of a policy, with names in place of what AWS makes of them: `Table`, `Bucket/*`,
/// `secret:chainloop-integrations/<stack>/smtp/*`.
#[derive(Debug, Clone)]
struct Statement {
    is_deny: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    condition: Option<Condition>,
}

/// Condition on the rows of a request, by their partition keys.
#[derive(Debug, Clone)]
enum Condition {
    /// Holds when one of a request's keys is like one of these; not when the request names none.
    Any(Vec<String>),
    /// Holds when all of a request's keys are like one of these; also when the request names none.
    All(Vec<String>),
    /// Holds when a service asks for the role, as these do.
    Via(Vec<String>),
}

/// Requested access.
struct Access<'a> {
    action: &'a str,
    resource: &'a str,
    /// The partition keys of the rows that it names.
    keys: &'a [&'a str],
}

/// As IAM compares: `*` is anything, slashes too, and `?` one letter.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = letters.as_str();
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| is_like(&text[at..], rest))
        }
        Some(letter) => {
            let mut given = text.chars();
            let first = given.next();
            first.is_some_and(|first| letter == '?' || letter == first)
                && is_like(given.as_str(), letters.as_str())
        }
    }
}

impl Statement {
    fn read(value: &Value) -> Self {
        let texts = |value: &Value| list(value).into_iter().map(named).collect();
        Self {
            is_deny: value["Effect"] == "Deny",
            actions: texts(&value["Action"]),
            resources: texts(&value["Resource"]),
            condition: value.get("Condition").map(Condition::read),
        }
    }

    fn fits(&self, access: &Access) -> bool {
        let any = |patterns: &[String], text| patterns.iter().any(|one| is_like(text, one));
        any(&self.actions, access.action)
            && any(&self.resources, access.resource)
            && match &self.condition {
                None => true,
                Some(Condition::Any(keys)) => access.keys.iter().any(|key| any(keys, key)),
                Some(Condition::All(keys)) => access.keys.iter().all(|key| any(keys, key)),
                // No function asks for itself.
                Some(Condition::Via(_)) => false,
            }
    }
}

impl Condition {
    fn read(value: &Value) -> Self {
        let (operator, tested) = only(value);
        let (key, patterns) = only(tested);
        let patterns = list(patterns).into_iter().map(named).collect();
        match (key, operator) {
            ("dynamodb:LeadingKeys", "ForAnyValue:StringLike") => Self::Any(patterns),
            ("dynamodb:LeadingKeys", "ForAllValues:StringLike") => Self::All(patterns),
            ("kms:ViaService", "StringLike") => Self::Via(patterns),
            _ => panic!("{value} is not evaluated: add it to tests/src/roles.rs"),
        }
    }
}

fn only(value: &Value) -> (&str, &Value) {
    let all = value.as_object().unwrap();
    assert_eq!(all.len(), 1, "{value}: one condition is evaluated");
    let (name, value) = all.iter().next().unwrap();
    (name, value)
}

/// Returns the name in a value, without the parts that all names share.
fn named(value: &Value) -> String {
    if let Some(attribute) = value["Fn::GetAtt"].as_str() {
        return attribute.trim_end_matches(".Arn").to_owned();
    }
    if let Some(parameter) = value["Ref"].as_str() {
        return format!("the parameter {parameter}");
    }
    let mut text = words(value).replace("${AWS::StackName}", "<stack>");
    for everywhere in ["${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}"] {
        text = text.replace(everywhere, "");
    }
    if let Some(arn) = text.strip_prefix("arn:") {
        text = arn.splitn(5, ':').last().unwrap_or_default().to_owned();
    }
    // All of it is the parameter's.
    if let Some(parameter) = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        && !parameter.contains(['.', '$'])
    {
        return format!("the parameter {parameter}");
    }
    text = text.replace("${EventBus}", "<bus>");
    assert!(!text.is_empty(), "{value} names nothing");
    text.replace("table/${TheTable.Value}", "Table")
        .replace("${TheBucket.Value}", "Bucket")
}

/// The statements of each function's role.
fn roles(template: &Template) -> BTreeMap<String, Vec<Statement>> {
    let of = |policy: &Value| -> Vec<Statement> {
        let statements = list(&policy["PolicyDocument"]["Statement"]);
        statements.into_iter().map(Statement::read).collect()
    };
    let mut roles: BTreeMap<String, Vec<Statement>> = BTreeMap::new();
    for folder in functions() {
        let role = template.properties(&format!("{}Role", camel(&folder)));
        let mut all = Vec::new();
        for policy in list(&role["ManagedPolicyArns"]) {
            all.extend(of(template.properties(target(policy))));
        }
        for policy in list(&role["Policies"]) {
            all.extend(of(policy));
        }
        roles.insert(folder, all);
    }
    for policy in template.resources("AWS::IAM::Policy").into_values() {
        for role in list(&policy["Roles"]) {
            let is_its = |folder: &&String| format!("{}Role", camel(folder)) == target(role);
            let folder = roles.keys().find(is_its).unwrap().clone();
            roles.entry(folder).or_default().extend(of(policy));
        }
    }
    roles
}

static ROLES: LazyLock<BTreeMap<String, Vec<Statement>>> = LazyLock::new(|| roles(&template()));

/// A denial wins over every permission, and what nobody permits is not permitted.
fn may(function: &str, access: &Access) -> bool {
    let fitting = || ROLES[function].iter().filter(|one| one.fits(access));
    fitting().any(|one| !one.is_deny) && !fitting().any(|one| one.is_deny)
}

// --- what the functions do ----------------------------------------------------------------------------

/// The platform as a function has it: what its role may not do fails the test.
pub struct As<'a> {
    memory: &'a Memory,
    /// Its own: each environment remembers for itself.
    meter: Meter,
    /// Rows that the table gave it.
    pub rows_read: Cell<usize>,
    /// Objects whose size it asked for, and additions that it made.
    pub objects_asked: Cell<usize>,
    pub additions: Cell<usize>,
    function: String,
    /// Forbidden accesses, reported at the end: a panic within an attempt is caught, and counts as a crash.
    forbidden: RefCell<Vec<String>>,
}

impl Drop for As<'_> {
    fn drop(&mut self) {
        let forbidden = self.forbidden.take();
        let function = &self.function;
        assert!(
            forbidden.is_empty() || std::thread::panicking(),
            "the role of {function} in infra/template.yaml does not permit {forbidden:?}"
        );
    }
}

impl<'a> As<'a> {
    pub fn function(memory: &'a Memory, function: impl Into<String>) -> Self {
        let function = function.into();
        assert!(ROLES.contains_key(&function), "there is no {function}");
        let mut meter = Meter::new(memory.meter.quotas);
        meter.spans = memory.meter.spans.clone();
        Self {
            memory,
            meter,
            rows_read: Cell::default(),
            objects_asked: Cell::default(),
            additions: Cell::default(),
            function,
            forbidden: RefCell::default(),
        }
    }

    /// The delivery function of an integration.
    pub fn delivering<I: integrations::Integration>(memory: &'a Memory) -> Self {
        Self::function(memory, format!("deliver-{}", I::ID))
    }

    fn does(&self, action: &str, resource: &str, keys: &[&str]) {
        let access = Access {
            action,
            resource,
            keys,
        };
        if !may(&self.function, &access) {
            let what = format!("{action} on {resource} {keys:?}");
            self.forbidden.borrow_mut().push(what);
        }
    }

    fn gave(&self, rows: usize) {
        self.rows_read.set(self.rows_read.get() + rows);
    }

    fn reads_bytes(&self, organization: &OrganizationName) {
        self.does("s3:GetObject", &format!("Bucket/{organization}/x"), &[]);
        // Without it, what is not there looks as if it were forbidden.
        self.does("s3:ListBucket", "Bucket", &[]);
    }

    fn puts_bytes(&self, organization: &OrganizationName) {
        self.does("s3:PutObject", &format!("Bucket/{organization}/x"), &[]);
    }

    fn secret(&self, name: &str, actions: &[&str]) {
        // Secrets Manager puts six letters behind each name.
        let resource = format!("secret:chainloop-integrations/<stack>/{name}-a1b2c3");
        for action in actions {
            self.does(&format!("secretsmanager:{action}"), &resource, &[]);
        }
    }
}

impl Platform for As<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable> {
        self.does("dynamodb:GetItem", "Table", &[&key.partition]);
        self.gave(1);
        self.memory.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        let named: Vec<&str> = keys.iter().map(|key| key.partition.as_str()).collect();
        self.does("dynamodb:BatchGetItem", "Table", &named);
        self.gave(keys.len());
        self.memory.get_many(keys).await
    }

    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        self.does("dynamodb:Query", "Table", &[partition]);
        let items = self.memory.list(partition, prefix, after, limit).await?;
        self.gave(items.len());
        Ok(items)
    }

    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        self.does("dynamodb:Query", "Table", &[partition]);
        let items = self.memory.list_last(partition, prefix, before, limit);
        let items = items.await?;
        self.gave(items.len());
        Ok(items)
    }

    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        let index = format!("Table/index/{}", range.index.name());
        self.does("dynamodb:Query", &index, &[range.hash]);
        self.memory.range(range).await
    }

    /// A transaction needs the permission of each of its writes.
    async fn write(&self, writes: Vec<Row>) -> Result<(), WriteError> {
        for write in &writes {
            let action = match write {
                Row::Put { .. } => "dynamodb:PutItem",
                Row::Delete { .. } => "dynamodb:DeleteItem",
                Row::Check { .. } => "dynamodb:ConditionCheckItem",
            };
            self.does(action, "Table", &[&write.key().partition]);
        }
        self.memory.write(writes).await
    }

    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        self.does("dynamodb:UpdateItem", "Table", &[&key.partition]);
        self.additions.set(self.additions.get() + 1);
        self.memory.add(key, amounts, expires_at).await
    }

    async fn put_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        self.puts_bytes(organization);
        self.reads_bytes(organization);
        self.memory.put_object(organization, digest, bytes).await
    }

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        self.reads_bytes(organization);
        self.memory.get_object(organization, digest).await
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        self.reads_bytes(organization);
        let read = self
            .memory
            .read_object(organization, digest, offset, length);
        read.await
    }

    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        self.puts_bytes(organization);
        self.reads_bytes(organization);
        self.memory.keep_object(organization, digest).await
    }

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        self.reads_bytes(organization);
        self.objects_asked.set(self.objects_asked.get() + 1);
        self.memory.object_size(organization, digest).await
    }

    async fn begin_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable> {
        self.puts_bytes(organization);
        self.memory.begin_upload(organization, digest).await
    }

    async fn upload_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        self.puts_bytes(organization);
        let put = self
            .memory
            .upload_part(organization, digest, upload, number, bytes);
        put.await
    }

    async fn complete_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        self.puts_bytes(organization);
        let completed = self
            .memory
            .complete_upload(organization, digest, upload, parts);
        completed.await
    }

    async fn abandon_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        let object = format!("Bucket/{organization}/x");
        self.does("s3:AbortMultipartUpload", &object, &[]);
        self.memory
            .abandon_upload(organization, digest, upload)
            .await
    }

    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        self.puts_bytes(organization);
        let presigned = self.memory.presign_put(organization, digest, size_bytes);
        presigned.await
    }

    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        self.reads_bytes(organization);
        self.memory.presign_get(organization, digest).await
    }

    async fn send(
        &self,
        queue: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable> {
        let resource = format!("{}Queue", camel(queue));
        self.does("sqs:SendMessage", &resource, &[]);
        self.memory.send(queue, messages).await
    }

    async fn put_secret(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable> {
        self.secret(name, &["CreateSecret", "PutSecretValue", "RestoreSecret"]);
        self.memory.put_secret(name, value).await
    }

    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        self.secret(name, &["GetSecretValue"]);
        self.memory.get_secret(name, version).await
    }

    async fn delete_secret(&self, name: &str) -> Result<(), Unreachable> {
        self.secret(name, &["DeleteSecret"]);
        self.memory.delete_secret(name).await
    }

    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable> {
        self.does("events:PutEvents", "event-bus/<bus>", &[]);
        self.memory.announce(announcement).await
    }

    async fn invoke(&self, integration: &str, event: Value) -> Result<Value, Unreachable> {
        let function = format!("Deliver{}", camel(integration));
        self.does("lambda:InvokeFunction", &function, &[]);
        self.memory.invoke(integration, event).await
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unreachable> {
        self.does("kms:Sign", "ReceiptKey", &[]);
        self.memory.sign(message).await
    }

    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable> {
        self.does("kms:GetPublicKey", "ReceiptKey", &[]);
        self.memory.signing_key().await
    }

    fn stack(&self) -> &str {
        self.memory.stack()
    }

    fn retention(&self) -> Duration {
        self.memory.retention()
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.memory.sleep(duration).await;
    }

    fn random(&self) -> u64 {
        self.memory.random()
    }
}

// --- what nobody else may do --------------------------------------------------------------------------

const WRITES: [&str; 7] = [
    "BatchWriteItem",
    "DeleteItem",
    "PartiQLDelete",
    "PartiQLInsert",
    "PartiQLUpdate",
    "PutItem",
    "UpdateItem",
];
const READS: [&str; 5] = [
    "BatchGetItem",
    "ConditionCheckItem",
    "GetItem",
    "PartiQLSelect",
    "Query",
];

/// Reports whether a function may perform one of these actions on a row of this partition.
fn one_of(function: &str, actions: &[&str], partition: &str) -> bool {
    actions.iter().any(|action| {
        let access = Access {
            action: &format!("dynamodb:{action}"),
            resource: "Table",
            keys: &[partition],
        };
        may(function, &access)
    })
}

/// The functions that may.
fn those(actions: &[&str], partition: &str) -> Vec<String> {
    let all = functions().into_iter();
    all.filter(|function| one_of(function, actions, partition))
        .collect()
}

fn kept<R: rows::Row>(memory: &Memory, row: Value) -> Row {
    let row: R = serde_json::from_value(row).unwrap();
    rows::insert(memory, &row).0
}

/// The rows that say who may come in, what operators did, and when tokens were used.
fn guarded() -> [(Key, Item); 6] {
    let memory = Memory::default();
    let made = memory.now();
    let item = |write: Row| match write {
        Row::Put { key, item, .. } => (key, item),
        other => panic!("{other:?}"),
    };
    let row = |row: Value| -> Value {
        let mut all = json!({
            "organization": "acme", "name": "ci", "id": "1a", "hash": "00ff", "created_at": made, "created_by": "boss",
            "valid_until": made, "revoked_at": made,
        });
        all.as_object_mut()
            .unwrap()
            .extend(row.as_object().unwrap().clone());
        all
    };
    [
        item(kept::<rows::Token>(
            &memory,
            row(json!({ "role": "admin" })),
        )),
        item(kept::<rows::TokenName>(
            &memory,
            row(json!({ "token": "1a" })),
        )),
        item(kept::<rows::IntakeToken>(
            &memory,
            row(json!({ "fetches": true })),
        )),
        item(kept::<rows::Intake>(
            &memory,
            row(json!({ "cas_url": "https://cp.example.org" })),
        )),
        item(kept::<rows::AuditEntry>(
            &memory,
            row(json!({ "action": "a", "subject": "s", "detail": "d", "by": "boss" })),
        )),
        item(kept::<rows::TokenUse>(
            &memory,
            row(json!({ "token": "1a" })),
        )),
    ]
}

#[test]
fn rows_that_say_who_may_come_in_are_their_owners_alone() {
    let api = [
        "attachments",
        "attestations",
        "deliveries",
        "organization",
        "registrations",
    ];
    let authorizing = [
        "attachments",
        "attestations",
        "authorizer",
        "deliveries",
        "organization",
        "registrations",
    ];
    let [token, name, intake_token, intake, entry, used] = guarded().map(|(key, _)| key.partition);
    for (partition, writers, readers) in [
        (
            &token,
            &["organization"][..],
            &["authorizer", "organization"][..],
        ),
        (&name, &["organization"], &["organization"]),
        (
            &intake_token,
            &["registrations"],
            &["attestations", "registrations"],
        ),
        (
            &intake,
            &["registrations"],
            &["organization", "registrations"],
        ),
        (&entry, &api, &api),
        (&used, &api, &authorizing),
    ] {
        assert_eq!(those(&WRITES, partition), writers, "may write {partition}");
        assert_eq!(those(&READS, partition), readers, "may read {partition}");
    }
    let undo = [
        "BatchWriteItem",
        "DeleteItem",
        "PartiQLDelete",
        "PartiQLUpdate",
        "UpdateItem",
    ];
    assert_eq!(those(&undo, &entry), [""; 0], "may take back {entry}");
}

#[test]
fn counters_are_added_to_by_those_who_accept_or_exchange_and_set_by_nobody() {
    let counter = "usage/acme/7";
    assert_eq!(
        those(&["UpdateItem"], counter),
        [
            "attestations",
            "deliveries",
            "fetch-materials",
            "organization"
        ]
    );
    let others = WRITES.into_iter().filter(|write| *write != "UpdateItem");
    let others: Vec<&str> = others.collect();
    assert_eq!(those(&others, counter), [""; 0]);
    for partition in ["org/acme", "token/00ff", "audit/acme/1", "intakes/acme"] {
        assert_eq!(those(&["UpdateItem"], partition), [""; 0], "{partition}");
    }
}

#[test]
fn whose_signatures_count_is_written_by_the_organizations_function_alone() {
    let policy = "trust/acme";
    let writes: Vec<&str> = WRITES
        .into_iter()
        .filter(|one| *one != "UpdateItem")
        .collect();
    assert_eq!(those(&writes, policy), ["organization"]);
    assert_eq!(those(&["UpdateItem"], policy), [""; 0]);
    assert!(those(&READS, policy).contains(&"attestations".to_owned()));
}

#[test]
fn issuers_are_the_organizations_functions_and_their_keys_are_also_fetched() {
    assert_eq!(those(&READS, "issuers/acme"), ["organization"]);
    let all: Vec<&str> = READS.into_iter().chain(WRITES).collect();
    assert_eq!(those(&all, "issuers/acme"), ["organization"]);
    assert_eq!(
        those(&all, "keys/acme"),
        ["fetch-materials", "organization"]
    );
    assert_eq!(those(&["UpdateItem"], "keys/acme"), [""; 0]);
}

#[test]
fn the_authorizer_reads_tokens_and_their_uses_and_nothing_else() {
    for partition in [
        "org/acme",
        "tokens/acme",
        "intake/00ff",
        "token",
        "xtoken/1",
        "audit/acme/1",
        "usage/acme/1",
    ] {
        assert!(!one_of("authorizer", &READS, partition), "{partition}");
    }
    for partition in ["token/00ff", "used/acme"] {
        assert!(one_of("authorizer", &["GetItem"], partition));
        let more = &["Query", "BatchGetItem"];
        assert!(!one_of("authorizer", more, partition));
        assert!(!one_of("authorizer", &WRITES, partition));
    }
}

#[test]
fn the_console_may_do_nothing() {
    let all: Vec<&str> = READS.into_iter().chain(WRITES).collect();
    for partition in ["org/acme", "token/00ff", "audit/acme/1", "usage/acme/1"] {
        assert!(!one_of("console", &all, partition), "{partition}");
    }
    let template = template();
    let role = template.properties("ConsoleRole");
    let policies = role["Policies"].as_array().unwrap();
    let names: Vec<&Value> = policies.iter().map(|one| &one["PolicyName"]).collect();
    assert_eq!(names, ["logs"]);
}

#[test]
fn who_signs_people_in_may_read_the_clients_secret_and_nothing_of_the_stack() {
    let all: Vec<&str> = READS.into_iter().chain(WRITES).collect();
    for partition in [
        "org/acme",
        "token/00ff",
        "issuers/acme",
        "keys/acme",
        "audit/acme/1",
    ] {
        assert!(!one_of("sign-in", &all, partition), "{partition}");
    }
    for (action, resource) in [
        ("s3:GetObject", "Bucket/acme/x"),
        ("sqs:SendMessage", "FetchMaterialsQueue"),
        (
            "secretsmanager:GetSecretValue",
            "secret:chainloop-integrations/<stack>/webhook/acme/x-a1b2c3",
        ),
    ] {
        let access = Access {
            action,
            resource,
            keys: &[],
        };
        assert!(!may("sign-in", &access), "{action} on {resource}");
    }
    let readers = |resource: &'static str| {
        let access = Access {
            action: "secretsmanager:GetSecretValue",
            resource,
            keys: &[],
        };
        let all = functions().into_iter();
        all.filter(|one| may(one, &access)).collect::<Vec<_>>()
    };
    assert_eq!(readers("the parameter SignInClientSecret"), ["sign-in"]);
}

#[test]
fn delivery_functions_of_integrations_that_take_roles_assume_them_and_nobody_else_does() {
    let may_assume = |function: &String| {
        let access = Access {
            action: "sts:AssumeRole",
            resource: "the parameter AssumableRoles",
            keys: &[],
        };
        may(function, &access)
    };
    let found: Vec<String> = functions().into_iter().filter(may_assume).collect();
    let takers = integrations::ALL.iter().filter(|one| one.assumes_roles());
    let takers: Vec<String> = takers.map(|one| format!("deliver-{}", one.id)).collect();
    assert_eq!(found, takers);
}

/// By its role, and by the key's own policy, which holds for administrators too.
#[test]
fn receipts_are_signed_by_the_function_of_deliveries_and_by_nobody_else() {
    for action in ["kms:Sign", "kms:GetPublicKey"] {
        let access = Access {
            action,
            resource: "ReceiptKey",
            keys: &[],
        };
        let found = functions().into_iter().filter(|one| may(one, &access));
        assert_eq!(found.collect::<Vec<_>>(), ["deliveries"], "{action}");
    }
    let template = template();
    let key = template.properties("ReceiptKey");
    let [allowed, denied] = &list(&key["KeyPolicy"]["Statement"])[..] else {
        panic!("what is permitted, and what is denied")
    };
    assert_eq!(allowed["Effect"], "Allow");
    let role = json!({ "Fn::GetAtt": "DeliveriesRole.Arn" });
    let expected = json!({
        "Sid": denied["Sid"], "Effect": "Deny", "Principal": "*", "Action": "kms:Sign", "Resource": "*",
        "Condition": { "ArnNotEquals": { "aws:PrincipalArn": role } },
    });
    assert_eq!(**denied, expected);
}

#[test]
fn one_guarded_row_among_others_refuses_the_whole_request() {
    let keys = ["org/acme", "token/00ff", "org/acme/delivery/1"];
    let access = |keys| Access {
        action: "dynamodb:BatchGetItem",
        resource: "Table",
        keys,
    };
    assert!(may("deliver-smtp", &access(&keys[..1])));
    assert!(!may("deliver-smtp", &access(&keys)));
}

/// A project or a workflow may be called like anything, also like a kind of rows.
#[test]
fn no_name_from_outside_makes_a_row_look_guarded() {
    for selector in [
        "tokens",
        "shop/tokens",
        "audit/2026-01-02",
        "*/audit/x",
        "token/1",
    ] {
        let selector: api::workflows::Selector = serde_json::from_value(json!(selector)).unwrap();
        let partition = rows::AttachmentIndex::of_workflow(&"tokens".into(), &selector);
        for function in ["attachments", "attestations", "deliver-smtp", "reconciler"] {
            assert!(one_of(function, &["PutItem"], &partition), "{partition}");
        }
    }
}

/// Else an index would show it to whoever may search there, and not by its own partition.
#[test]
fn no_guarded_row_is_in_an_index() {
    for (key, item) in guarded() {
        for index in pipeline::store::platform::Index::ALL {
            let (hash, _) = index.attributes();
            assert!(!item.contains_key(hash), "{key:?} is in {}", index.name());
        }
    }
}

#[test]
fn nobody_may_search_the_whole_table_or_ask_it_in_another_language() {
    let rowless = [
        "Scan",
        "ExportTableToPointInTime",
        "GetRecords",
        "DeleteTable",
        "UpdateTable",
    ];
    let rowless = rowless.iter().chain(&WRITES).chain(&READS);
    for function in functions() {
        for action in rowless.clone() {
            for resource in ["Table", "Table/index/due", "Table/stream/1"] {
                let known = [
                    "BatchGetItem",
                    "ConditionCheckItem",
                    "DeleteItem",
                    "GetItem",
                    "PutItem",
                    "Query",
                    "UpdateItem",
                ];
                let is_known = known.contains(action) && resource != "Table/stream/1";
                let access = Access {
                    action: &format!("dynamodb:{action}"),
                    resource,
                    keys: &[],
                };
                assert!(
                    is_known || !may(&function, &access),
                    "{function}: {action} on {resource}"
                );
            }
        }
    }
}

/// Whatever a function may call ends before the function does, with a second left for the answer.
#[test]
fn a_call_to_aws_ends_before_the_function_that_makes_it() {
    use aws::patience::{BYTES, INVOKE, SHORT};
    let template = template();
    for function in functions() {
        let allowed = ROLES[&function].iter().filter(|one| !one.is_deny);
        let actions = allowed.flat_map(|one| &one.actions);
        let calls = actions.filter_map(|action| match action.split(':').next()? {
            "dynamodb" | "events" | "kms" | "secretsmanager" | "sqs" => Some(SHORT),
            "s3" => Some(BYTES),
            "lambda" => Some(INVOKE),
            "ec2" | "logs" | "sts" | "xray" => None,
            other => panic!("say in this test how long a call to {other} takes"),
        });
        let longest = calls.map(|patience| patience.call).max();
        let longest = longest.unwrap_or_default();
        let timeout = template.timeout(&function);
        assert!(
            longest + Duration::from_secs(1) <= timeout,
            "{function}: give it a Timeout above {longest:?}"
        );
    }
    for patience in [SHORT, BYTES, INVOKE] {
        assert!(patience.attempt <= patience.call, "{patience:?}");
    }
}

#[test]
fn a_function_writes_its_own_log_and_has_its_own_stacks_secrets() {
    for function in functions() {
        let logs = format!("{}Logs", camel(&function));
        for other in functions() {
            let resource = format!("{}Logs", camel(&other));
            for action in ["logs:CreateLogStream", "logs:PutLogEvents"] {
                let access = Access {
                    action,
                    resource: &resource,
                    keys: &[],
                };
                assert_eq!(
                    may(&function, &access),
                    resource == logs,
                    "{function}: {resource}"
                );
            }
        }
        for secret in [
            "<stack>/smtp/acme/1-a1b2c3",
            "chainloop-integrations/other/smtp/acme/1-a1b2c3",
        ] {
            for action in [
                "GetSecretValue",
                "PutSecretValue",
                "DeleteSecret",
                "CreateSecret",
            ] {
                let access = Access {
                    action: &format!("secretsmanager:{action}"),
                    resource: &format!("secret:{secret}"),
                    keys: &[],
                };
                assert!(!may(&function, &access), "{function}: {action} of {secret}");
            }
        }
    }
}

/// What a role needs of the key that encrypts what it reads and writes, by its other statements.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html>,
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html>,
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html>
fn needed_of_the_key(statements: &[Statement]) -> BTreeSet<&'static str> {
    const DECRYPT: &[&str] = &["kms:Decrypt"];
    const BOTH: &[&str] = &["kms:Decrypt", "kms:GenerateDataKey"];
    let actions = statements.iter().filter(|one| !one.is_deny);
    let actions = actions.flat_map(|one| &one.actions);
    let needed = actions.flat_map(|action| match action.as_str() {
        // A part of an upload is decrypted when the upload is completed; a data key for messages is kept and used again.
        "s3:PutObject"
        | "sqs:SendMessage*"
        | "secretsmanager:CreateSecret"
        | "secretsmanager:PutSecretValue" => BOTH,
        "s3:GetObject" | "sqs:ReceiveMessage" | "secretsmanager:GetSecretValue" => DECRYPT,
        // The table's own key is decrypted for whoever asks for a row, or puts one.
        row if row.starts_with("dynamodb:") => DECRYPT,
        // No data, or none of ours.
        "events:PutEvents"
        | "lambda:InvokeFunction"
        | "s3:AbortMultipartUpload"
        | "s3:ListBucket"
        | "secretsmanager:DeleteSecret"
        | "secretsmanager:RestoreSecret"
        | "sqs:DeleteMessage"
        | "sqs:GetQueueAttributes" => &[],
        other
            if ["ec2:", "kms:", "logs:", "sts:", "xray:"]
                .iter()
                .any(|own| other.starts_with(own)) =>
        {
            &[]
        }
        other => panic!("{other}: say in tests/src/roles.rs what it needs of the key"),
    });
    needed.copied().collect()
}

#[test]
fn each_role_may_use_the_key_for_what_it_reads_and_writes_and_for_nothing_else() {
    for (function, statements) in ROLES.iter() {
        let (mut permitted, mut services) = (BTreeSet::new(), BTreeSet::new());
        for one in statements
            .iter()
            .filter(|one| one.resources == ["the parameter KmsKeyArn"])
        {
            permitted.extend(one.actions.iter().map(String::as_str));
            let Some(Condition::Via(via)) = &one.condition else {
                panic!("{function}: let services alone use the key");
            };
            services.extend(via.iter().map(String::as_str));
        }
        assert_eq!(permitted, needed_of_the_key(statements), "{function}");
        let mut expected = BTreeSet::from(["dynamodb.*", "s3.*", "secretsmanager.*", "sqs.*"]);
        // What nobody keeps or reads, nobody encrypts.
        expected.retain(|_| !permitted.is_empty());
        assert_eq!(services, expected, "{function}");
    }
}

/// CloudWatch Logs encrypts for itself, so the key's policy has to name each log group.
#[test]
fn the_documented_policy_of_the_key_lets_each_log_group_be_encrypted() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let blocks = page.split("```json\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let policies: Vec<Value> = blocks
        .filter(|text| text.contains("kms:EncryptionContext:aws:logs:arn"))
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let [policy] = &policies[..] else {
        panic!("write one policy of the key in docs/operations.md");
    };
    let logs = &policy["Statement"][1];
    assert_eq!(
        logs["Principal"]["Service"],
        "logs.eu-central-1.amazonaws.com"
    );
    let patterns = list(&logs["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]);
    let template = template();
    for (id, group) in template.resources("AWS::Logs::LogGroup") {
        let name = words(&group["LogGroupName"]).replace("${AWS::StackName}", "prod");
        let arn = format!("arn:aws:logs:eu-central-1:111122223333:log-group:{name}");
        let fits = |pattern: &&Value| is_like(&arn, words(pattern));
        assert!(patterns.iter().any(fits), "{id}: {arn}");
    }
}

#[test]
fn patterns_are_compared_as_iam_compares_them() {
    for (text, pattern, expected) in [
        ("token/00ff", "token/*", true),
        ("tokens/acme", "token/*", false),
        ("token", "token/*", false),
        ("audit/acme/2026-01-02", "audit/*", true),
        ("org/audit/x", "audit/*", false),
        ("abc", "a?c", true),
        ("ac", "a?c", false),
        ("a/b/c", "a*c", true),
        ("", "*", true),
        ("Table", "table", false),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} like {pattern}");
    }
}

// --- the page -----------------------------------------------------------------------------------------

/// The roles as a page: those that differ by their function's name alone stand once.
fn page() -> String {
    let mut text = "<!-- Written by tests/src/roles.rs from infra/template.yaml: REFRESH=1 cargo test -p tests -->\n\
         # Roles\n\nEach function's role: what it may do, and what it may not although another line permits it. Rows are \
         named by their partition keys; what they are is in [ARCHITECTURE.md](../ARCHITECTURE.md). Nothing else is \
         permitted. A permission to put rows is one to put them in place of others, too: IAM knows no difference.\n"
        .to_owned();
    let mut seen: Vec<(String, Vec<String>)> = Vec::new();
    for (function, statements) in roles(&template()) {
        let lines: String = statements.iter().map(Statement::line).collect();
        // Delivery functions differ by their integration's name alone.
        let text = match function.strip_prefix("deliver-") {
            Some(id) => lines
                .replace(&camel(id), "<Id>")
                .replace(&format!("/{id}/"), "/<id>/"),
            None => lines,
        };
        match seen.iter_mut().find(|(own, _)| *own == text) {
            Some((_, names)) => names.push(function),
            None => seen.push((text, vec![function])),
        }
    }
    for (lines, names) in seen {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        write!(
            text,
            "\n## {}\n\n| | action | resource | condition |\n|---|---|---|---|\n{lines}",
            names.join(", ")
        )
        .unwrap();
    }
    text
}

impl Statement {
    /// As a row of a table.
    fn line(&self) -> String {
        let code = |all: &[String]| {
            let all: Vec<String> = all.iter().map(|one| format!("`{one}`")).collect();
            all.join(", ")
        };
        let (effect, rows) = match (&self.condition, self.is_deny) {
            (None, false) => ("may", String::new()),
            (None, true) => ("may not", String::new()),
            (Some(Condition::All(keys)), false) => ("may", format!("{} alone", code(keys))),
            (Some(Condition::Any(keys)), true) => ("may not", code(keys)),
            (Some(Condition::Via(services)), false) => {
                ("may", format!("where {} asks", code(services)))
            }
            (condition, _) => panic!("{condition:?}: a page cannot say this"),
        };
        let (actions, resources) = (code(&self.actions), code(&self.resources));
        format!("| {effect} | {actions} | {resources} | {rows} |\n")
    }
}

#[test]
fn the_page_of_roles_is_that_of_the_template() {
    let path = root().join("docs/roles.md");
    let text = page();
    if std::env::var_os("REFRESH").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/roles.md is not what infra/template.yaml says; REFRESH=1 cargo test -p tests roles writes it anew (look \
         at the difference before committing it)"
    );
}
