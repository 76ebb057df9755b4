//! `infra/template.yaml` held against the code: the numbers, names, keys and routes that both have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use pipeline::http::Route;
use pipeline::ledger::schedule::Deadlines;
use pipeline::store::platform::Index;
use pipeline::store::rows;
use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::asking::{FUNCTIONS, routes};
use crate::contract::{camel, files, functions, root};
use crate::foreach;

const STACK: &str = "${AWS::StackName}";

/// The template with its loops expanded and its tags written out: `!Ref A` as `{"Ref": "A"}`, `!Sub a` as
/// `{"Fn::Sub": "a"}`.
pub struct Template(Value);

fn text() -> String {
    fs::read_to_string(root().join("infra/template.yaml")).unwrap()
}

fn unexpanded() -> Value {
    written_out(serde_yaml_ng::from_str(&text()).unwrap())
}

pub fn template() -> Template {
    Template(foreach::expand(unexpanded()).unwrap())
}

fn written_out(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let tag = match tag.trim_start_matches('!') {
                own @ ("Ref" | "Condition") => own.to_owned(),
                function => format!("Fn::{function}"),
            };
            Value::Object(Map::from_iter([(tag, written_out(tagged.value))]))
        }
        Yaml::Sequence(all) => all.into_iter().map(written_out).collect(),
        Yaml::Mapping(all) => {
            let pairs = all.into_iter().map(|(key, value)| {
                let Yaml::String(key) = key else {
                    panic!("write the key {key:?} in quotes")
                };
                (key, written_out(value))
            });
            Value::Object(pairs.collect())
        }
        plain => serde_json::to_value(plain).unwrap(),
    }
}

impl Template {
    /// The resources of a type, by their logical ids.
    pub fn resources(&self, kind: &str) -> BTreeMap<&str, &Value> {
        let all = self.0["Resources"].as_object().unwrap().iter();
        all.filter(|(_, resource)| resource["Type"] == kind)
            .map(|(id, resource)| (id.as_str(), &resource["Properties"]))
            .collect()
    }

    fn functions(&self) -> BTreeMap<&str, &Value> {
        self.resources("AWS::Serverless::Function")
    }

    /// Returns the properties of the resource with this logical ID.
    pub fn properties(&self, id: &str) -> &Value {
        let resource = &self.0["Resources"][id];
        assert!(resource.is_object(), "add {id} to infra/template.yaml");
        &resource["Properties"]
    }

    /// The timeout of the function in this folder.
    pub fn timeout(&self, folder: &str) -> Duration {
        let timeout = &self.properties(&camel(folder))["Timeout"];
        Duration::from_secs(self.number(timeout))
    }

    /// A property that functions have unless they say otherwise.
    pub fn global(&self, name: &str) -> &Value {
        &self.0["Globals"]["Function"][name]
    }

    /// A number as it stands, in quotes, in a mapping, or as a parameter's default.
    pub fn number(&self, value: &Value) -> u64 {
        if let Some(parameter) = value["Ref"].as_str() {
            return self.number(&self.0["Parameters"][parameter]["Default"]);
        }
        if let [map, key, name] = &value["Fn::FindInMap"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
        {
            let key = key["Ref"]
                .as_str()
                .map_or(key, |parameter| &self.0["Parameters"][parameter]["Default"]);
            let text = |part: &Value| part.as_str().unwrap_or_default().to_owned();
            return self.number(&self.0["Mappings"][text(map)][text(key)][text(name)]);
        }
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number.unwrap_or_else(|| panic!("write a number for {value}"))
    }
}

/// The resource that a value names: `!Ref A`, `!GetAtt A.Arn`; of an `!If`, where its condition holds. A function's alias
/// counts as the function, and infra/rollouts.py looks at which of the two it is.
pub fn target(value: &Value) -> &str {
    if let Some(given) = value["Fn::If"].get(1) {
        return target(given);
    }
    if let Some(function) = value["Ref"].as_str().and_then(|id| id.strip_suffix("Live")) {
        return function;
    }
    let attribute = value["Fn::GetAtt"]
        .as_str()
        .and_then(|text| text.split('.').next());
    value["Ref"].as_str().or(attribute).unwrap_or_default()
}

/// The text of a value, with or without `!Sub`.
pub fn words(value: &Value) -> &str {
    value["Fn::Sub"]
        .as_str()
        .or(value.as_str())
        .unwrap_or_default()
}

pub fn list(value: &Value) -> Vec<&Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |all| all.iter().collect())
}

// --- integrations -------------------------------------------------------------------------------------

/// Returns the template's lines that name an integration: its own in the mapping, and the loop's list.
pub fn lines_of_integrations() -> Vec<String> {
    let names: Vec<String> = integrations::ALL.iter().map(|one| camel(one.id)).collect();
    let own = integrations::ALL.iter().zip(&names).map(|(one, name)| {
        let pace = if one.takes_long { "Long" } else { "Short" };
        format!("    {name}: {{ Id: {}, Pace: {pace} }}", one.id)
    });
    let assuming = integrations::ALL.iter().filter(|one| one.assumes_roles());
    let assuming: Vec<String> = assuming.map(|one| camel(one.id)).collect();
    own.chain([names.clone(), assuming].map(|names| format!("    - [{}]", names.join(", "))))
        .collect()
}

#[test]
fn each_integration_has_its_places_in_the_template() {
    let text = text();
    for line in lines_of_integrations() {
        assert!(
            text.lines().any(|own| own == line),
            "write this line in the mapping Integrations of infra/template.yaml, in the loop of that name, or in \
             the loop Assuming:\n{line}"
        );
    }
    let mapping = &unexpanded()["Mappings"]["Integrations"];
    let names: Vec<&String> = mapping.as_object().unwrap().keys().collect();
    let known = integrations::ALL.iter().map(|one| camel(one.id));
    assert!(
        names.into_iter().cloned().eq(known),
        "delete from the mapping Integrations of infra/template.yaml what is no integration: {mapping}"
    );
}

/// Requires `Fn::Join`: `sam package` misses the loop's variable among the variables of an `Fn::Sub`, and then silently
/// gives all functions of the loop the zip of the first.
#[test]
fn each_function_of_the_loop_is_given_its_own_zip() {
    let function = &unexpanded()["Resources"]["Fn::ForEach::Integrations"][2]["Deliver${Name}"];
    let code = &function["Properties"]["CodeUri"];
    assert!(
        code["Fn::Join"].is_array(),
        "{code}: write CodeUri as an Fn::Join"
    );
}

/// Requires an order, by `DependsOn` or, in a loop, by a reference: AWS refuses a mapping whose function's role may not
/// receive yet.
#[test]
fn a_mapping_is_made_after_the_right_to_receive() {
    let template = template();
    let policies = template.resources("AWS::IAM::Policy");
    for (id, mapping) in template.resources("AWS::Lambda::EventSourceMapping") {
        let queue = target(&mapping["EventSourceArn"]);
        let permits = |policy: &Value| {
            let statements = list(&policy["PolicyDocument"]["Statement"]);
            statements.into_iter().any(|statement| {
                target(&statement["Resource"]) == queue
                    && list(&statement["Action"]).contains(&&json!("sqs:ReceiveMessage"))
            })
        };
        // A right of the role itself is there before the function is.
        let role = template.properties(&format!("{}Role", target(&mapping["FunctionName"])));
        if list(&role["Policies"]).into_iter().any(permits) {
            continue;
        }
        let policy = policies.iter().find(|(_, policy)| permits(policy));
        let (policy, _) = policy.unwrap_or_else(|| panic!("{id}: nobody may receive from {queue}"));
        let depends = template.0["Resources"][id]["DependsOn"] == *policy;
        let refers = list(&mapping["Tags"])
            .into_iter()
            .any(|tag| target(&tag["Value"]) == *policy);
        assert!(depends || refers, "{id}: let it depend on {policy}");
    }
}

#[test]
fn deadline_timeout_lease_and_visibility_are_those_of_the_code() {
    let template = template();
    for (pace, takes_long) in [("Short", false), ("Long", true)] {
        let numbers = Deadlines::of(takes_long);
        for (name, duration) in [
            ("AttemptDeadlineSecs", numbers.attempt),
            ("TimeoutSecs", numbers.function),
            ("LeaseSecs", numbers.lease),
            ("VisibilitySecs", numbers.visibility),
        ] {
            let documented = &template.0["Mappings"]["Pace"][pace][name];
            assert_eq!(
                template.number(documented),
                duration.as_secs(),
                "write {name} of Pace {pace} as schedule::Deadlines has it"
            );
        }
    }
    for one in integrations::ALL {
        let numbers = Deadlines::of(one.takes_long);
        let (id, camel) = (one.id, camel(one.id));
        let timeout = &template.properties(&format!("Deliver{camel}"))["Timeout"];
        let visibility = &template.properties(&format!("{camel}Queue"))["VisibilityTimeout"];
        assert_eq!(
            (template.number(timeout), template.number(visibility)),
            (numbers.function.as_secs(), numbers.visibility.as_secs()),
            "{id}: give the function's timeout and the queue's visibility the pace that fits its TAKES_LONG"
        );
    }
}

#[test]
fn a_queue_and_its_function_have_the_names_that_the_code_makes_of_the_id() {
    let template = template();
    let prefix = &template.0["Globals"]["Function"]["Environment"]["Variables"]["QUEUE_URL_PREFIX"];
    assert!(
        words(prefix).ends_with(&format!("/{STACK}-")),
        "QUEUE_URL_PREFIX: end it with the stack's name"
    );
    for one in integrations::ALL {
        let (id, camel) = (one.id, camel(one.id));
        let (queue, function) = (format!("{camel}Queue"), format!("Deliver{camel}"));
        assert_eq!(
            words(&template.properties(&queue)["QueueName"]),
            format!("{STACK}-{id}")
        );
        let properties = template.properties(&function);
        assert_eq!(
            words(&properties["FunctionName"]),
            format!("{STACK}-deliver-{id}")
        );
        assert_eq!(
            sources(&template, &function),
            [queue],
            "{function}: wake it by its own queue"
        );
    }
}

/// The queues that wake a function.
fn sources<'a>(template: &'a Template, function: &str) -> Vec<&'a str> {
    let mappings = template.resources("AWS::Lambda::EventSourceMapping");
    let own = mappings
        .into_values()
        .filter(|mapping| target(&mapping["FunctionName"]) == function);
    own.map(|mapping| target(&mapping["EventSourceArn"]))
        .collect()
}

#[test]
fn a_message_received_five_times_goes_to_dead_letters_which_are_kept_longer() {
    let template = template();
    let queues = template.resources("AWS::SQS::Queue");
    let reconciler = template.number(&template.properties("Reconciler")["Timeout"]);
    let mappings = template.resources("AWS::Lambda::EventSourceMapping");
    let mut letters = BTreeSet::new();
    for (id, queue) in queues
        .iter()
        .filter(|(_, queue)| queue["RedrivePolicy"].is_object())
    {
        let redrive = &queue["RedrivePolicy"];
        assert_eq!(
            redrive["maxReceiveCount"], 5,
            "{id}: write maxReceiveCount: 5"
        );
        let dead = target(&redrive["deadLetterTargetArn"]);
        assert!(
            letters.insert(dead),
            "{id}: give it dead letters of its own"
        );
        let kept = |queue: &Value| template.number(&queue["MessageRetentionPeriod"]);
        let dead_queue = template.properties(dead);
        assert!(
            kept(dead_queue) > kept(queue),
            "{dead}: keep dead letters longer than {id} keeps messages: their clock goes on"
        );
        assert!(
            template.number(&dead_queue["VisibilityTimeout"]) >= 6 * reconciler,
            "{dead}: write a VisibilityTimeout of six times the reconciler's timeout"
        );
        let taken = mappings.values().any(|mapping| {
            target(&mapping["EventSourceArn"]) == dead
                && target(&mapping["FunctionName"]) == "Reconciler"
        });
        assert!(taken, "{dead}: add an EventSourceMapping to the reconciler");
    }
    assert_eq!(
        letters.len(),
        integrations::ALL.len() + 1,
        "give each integration's queue, and that of what is fetched, a RedrivePolicy"
    );
    assert_eq!(
        queues.len(),
        2 * letters.len(),
        "a queue is an integration's, or of what is fetched, or their dead letters"
    );
}

#[test]
fn every_queue_is_answered_in_part() {
    let template = template();
    let all = template.resources("AWS::Lambda::EventSourceMapping");
    assert_eq!(all.len(), 2 * (integrations::ALL.len() + 1));
    for (id, mapping) in all {
        assert_eq!(
            mapping["FunctionResponseTypes"],
            json!(["ReportBatchItemFailures"]),
            "{id}: write FunctionResponseTypes: [ReportBatchItemFailures], or one record takes its batch along"
        );
        assert!(
            template.number(&mapping["BatchSize"]) <= 10,
            "{id}: a batch has at most ten messages"
        );
    }
}

// --- the table ----------------------------------------------------------------------------------------

fn key(properties: &Value) -> Vec<(String, String)> {
    let part = |part: &Value| {
        let text = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
        (text("AttributeName"), text("KeyType"))
    };
    list(&properties["KeySchema"])
        .into_iter()
        .map(part)
        .collect()
}

fn hash_and_range(hash: &str, range: &str) -> Vec<(String, String)> {
    vec![(hash.into(), "HASH".into()), (range.into(), "RANGE".into())]
}

#[test]
fn the_table_has_the_keys_and_indexes_of_the_code() {
    let template = template();
    let table = template.properties("Table");
    assert_eq!(key(table), hash_and_range("pk", "sk"));
    let indexes: BTreeMap<&str, Vec<(String, String)>> = list(&table["GlobalSecondaryIndexes"])
        .into_iter()
        .map(|index| (index["IndexName"].as_str().unwrap(), key(index)))
        .collect();
    let expected = Index::ALL.into_iter().map(|index| {
        let (hash, range) = index.attributes();
        (index.name(), hash_and_range(hash, range))
    });
    assert_eq!(
        indexes,
        expected.collect(),
        "write the indexes as platform::Index has them"
    );
    let defined: BTreeMap<&str, &str> = list(&table["AttributeDefinitions"])
        .into_iter()
        .map(|one| {
            (
                one["AttributeName"].as_str().unwrap(),
                one["AttributeType"].as_str().unwrap(),
            )
        })
        .collect();
    let keys = Index::ALL
        .into_iter()
        .flat_map(|index| <[&str; 2]>::from(index.attributes()));
    let keys: BTreeMap<&str, &str> = keys.chain(["pk", "sk"]).map(|name| (name, "S")).collect();
    assert_eq!(
        defined, keys,
        "define the attributes that are keys, and no other (AWS refuses those)"
    );
}

#[test]
fn rows_expire_by_the_attribute_that_the_code_writes() {
    let expected = json!({ "AttributeName": "expires_at", "Enabled": true });
    assert_eq!(
        template().properties("Table")["TimeToLiveSpecification"],
        expected
    );
    // A row that may be forgotten has it, as a number of seconds.
    let memory = memory::Memory::default();
    let row = rows::DigestAlias {
        organization: "acme".into(),
        received: attestation::Digest::of(b"1"),
        hash: attestation::Digest::of(b"2"),
        created_at: api::Timestamp::from_millis(1_767_322_445_000),
    };
    let (write, _) = rows::insert(&memory, &row);
    let pipeline::store::platform::Write::Put { item, .. } = write else {
        panic!("a put is a put")
    };
    assert!(
        item["expires_at"]
            .as_u64()
            .is_some_and(|at| at > 1_767_322_445),
        "{item:?}"
    );
}

// --- the API ------------------------------------------------------------------------------------------

/// The gateway's routes: each key's parts, with its resource.
pub fn gateway(template: &Template) -> Vec<(String, String, Value)> {
    let routes = template.resources("AWS::ApiGatewayV2::Route").into_values();
    let routes = routes.map(|route| {
        let (method, path) = words(&route["RouteKey"]).split_once(' ').unwrap();
        (method.to_owned(), path.to_owned(), route.clone())
    });
    routes.collect()
}

/// Reports whether a key's path fits a template of a route, whose parameters stand for any value.
fn fits(key: &str, path: &str) -> bool {
    let (mut own, mut parts) = (key.split('/'), path.split('/'));
    loop {
        match (own.next(), parts.next()) {
            (None, None) | (Some("{proxy+}"), Some(_)) => return true,
            (Some(own), Some(part)) if own == part || own.starts_with('{') => {}
            _ => return false,
        }
    }
}

/// The gateway takes a whole path before a greedy one, then one with fewer parameters, then a method before any.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html>
pub fn taken<'a>(gateway: &'a [(String, String, Value)], method: &str, path: &str) -> &'a Value {
    let fitting = gateway
        .iter()
        .filter(|(own, key, _)| (own == method || own == "ANY") && fits(key, path));
    let best = fitting.max_by_key(|(own, key, _)| {
        let words = key.split('/').filter(|part| !part.starts_with('{')).count();
        (!key.ends_with("{proxy+}"), words, own != "ANY")
    });
    let (.., route) = best.unwrap_or_else(|| panic!("add {method} {path} to infra/template.yaml"));
    route
}

#[test]
fn the_gateway_leads_each_route_to_its_function_and_asks_the_authorizer() {
    let template = template();
    let gateway = gateway(&template);
    let mut used = BTreeSet::new();
    for (folder, routes) in FUNCTIONS.iter() {
        for route in routes {
            let name = route.name();
            let found = taken(&gateway, route.method, route.path);
            used.insert(words(&found["RouteKey"]));
            let integration = words(&found["Target"])
                .trim_start_matches("integrations/${")
                .trim_end_matches('}');
            let integration = template.properties(integration);
            assert_eq!(integration["IntegrationType"], "AWS_PROXY", "{name}");
            assert_eq!(
                integration["PayloadFormatVersion"], "2.0",
                "{name}: the functions read payload format 2.0"
            );
            assert_eq!(
                target(&integration["IntegrationUri"]),
                camel(folder),
                "{name}"
            );
            if route.action.is_open() {
                // Its token is in the path, where an authorizer without a header is not even asked; or it needs none.
                assert_eq!(found["AuthorizationType"], "NONE", "{name}");
            } else {
                assert_eq!(
                    (&found["AuthorizationType"], target(&found["AuthorizerId"])),
                    (&json!("CUSTOM"), "TokenAuthorizer"),
                    "put {name} behind the authorizer"
                );
            }
        }
    }
    let keys: BTreeSet<&str> = gateway
        .iter()
        .map(|(.., route)| words(&route["RouteKey"]))
        .collect();
    // Answered 404 by the function, as problems are, rather than by the gateway in its own words.
    let mut below = BTreeSet::from(["ANY /v1/attestations/{proxy+}"]);
    below.extend(CONSOLE);
    below.insert(SIGN_IN);
    let unused: BTreeSet<&str> = keys.difference(&used).copied().collect();
    assert_eq!(unused, below, "take the others out of infra/template.yaml");
}

/// Keys of the console, which is no part of the API, and the same for everybody.
pub const CONSOLE: [&str; 2] = ["GET /console", "GET /console/{version}/{file}"];

/// Resources of the console's sign-in.
const SIGNS_IN: [&str; 6] = [
    "ConsoleSignIn",
    "SignIn",
    "SignInIntegration",
    "SignInLogs",
    "SignInPermission",
    "SignInRole",
];

/// Key of the console's sign-in, which is there with a provider alone.
pub const SIGN_IN: &str = "ANY /console/sign-in";

#[test]
fn the_console_is_beside_the_api_and_needs_no_token() {
    let template = template();
    let integration = template.properties("ConsoleIntegration");
    assert_eq!(integration["PayloadFormatVersion"], "2.0");
    assert_eq!(target(&integration["IntegrationUri"]), "Console");
    let gateway = gateway(&template);
    for (key, path) in CONSOLE
        .into_iter()
        .zip(["/console", "/console/0a1b/app.js"])
    {
        let route = taken(&gateway, "GET", path);
        assert_eq!(words(&route["RouteKey"]), key);
        assert_eq!(
            words(&route["Target"]),
            "integrations/${ConsoleIntegration}"
        );
        assert_eq!(route["AuthorizationType"], "NONE", "{key}");
    }
}

#[test]
fn without_a_provider_there_is_nothing_of_the_sign_in() {
    let template = template();
    let all = template.0["Resources"].as_object().unwrap();
    let conditioned = all.iter().filter(|(_, one)| one["Condition"] == "SignsIn");
    let conditioned: BTreeSet<&str> = conditioned.map(|(id, _)| id.as_str()).collect();
    assert_eq!(conditioned, SIGNS_IN.into_iter().collect());
    let named = all.keys().filter(|id| id.contains("SignIn"));
    assert_eq!(named.count(), SIGNS_IN.len(), "all of it has the condition");
    let gateway = gateway(&template);
    for method in ["GET", "POST"] {
        let route = taken(&gateway, method, "/console/sign-in");
        assert_eq!(words(&route["RouteKey"]), SIGN_IN);
        assert_eq!(words(&route["Target"]), "integrations/${SignInIntegration}");
        assert_eq!(route["AuthorizationType"], "NONE");
    }
    let integration = template.properties("SignInIntegration");
    assert_eq!(target(&integration["IntegrationUri"]), "SignIn");
    assert_eq!(integration["PayloadFormatVersion"], "2.0");
}

/// Routes with a throttle of their own: those that accept, those without a token, and those that cost more than others.
const APART: [&str; 16] = [
    "POST /v1/attestations",
    "POST /v1/intake/{token}",
    "GET /v1/openapi.json",
    "GET /v1/health",
    "GET /v1/attestations/{digest}",
    "GET /v1/attestations/{digest}/content",
    "GET /v1/materials/{digest}",
    "GET /v1/registrations/{registration}/health",
    "POST /v1/registrations/{registration}/test",
    "POST /v1/attachments/{attachment}/preview",
    "POST /v1/attestations/judge",
    "GET /v1/deliveries/{delivery}/receipt",
    "POST /v1/deliveries/{delivery}/check",
    "GET /v1/digests/{digest}/places",
    "POST /v1/tokens",
    "POST /v1/tokens/exchange",
];

#[test]
fn what_costs_more_has_a_throttle_of_its_own() {
    let template = template();
    let gateway = gateway(&template);
    let stage = template.properties("Stage");
    let settings = stage["RouteSettings"].as_object().unwrap();
    let own: BTreeSet<&str> = settings.keys().map(String::as_str).collect();
    let apart = APART.into_iter().chain(CONSOLE).chain([SIGN_IN]);
    assert_eq!(own, apart.collect());
    let most = &stage["DefaultRouteSettings"];
    let is_throttled = |name: &str| {
        for limit in ["ThrottlingRateLimit", "ThrottlingBurstLimit"] {
            let own = &settings[name];
            let own = own["Fn::If"].get(1).unwrap_or(own);
            let (own, most) = (own[limit].as_u64(), most[limit].as_u64());
            assert!(own > Some(0) && own <= most, "{name}: {limit}");
        }
    };
    CONSOLE.into_iter().for_each(is_throttled);
    is_throttled(SIGN_IN);
    for name in APART {
        let (method, path) = name.split_once(' ').unwrap();
        assert!(routes().any(|route| route.name() == name), "{name}");
        let key = words(&taken(&gateway, method, path)["RouteKey"]);
        assert_eq!(
            key, name,
            "{name} shares a key, and so a throttle, with others"
        );
        is_throttled(name);
    }
    for route in routes().filter(|route| route.action.is_open()) {
        assert!(APART.contains(&route.name().as_str()), "{}", route.name());
    }
}

#[test]
fn four_routes_alone_do_without_the_authorizer() {
    let open = routes().filter(|route| route.action.is_open());
    let open: Vec<String> = open.map(Route::name).collect();
    let known = [
        "POST /v1/intake/{token}",
        "GET /v1/openapi.json",
        "GET /v1/health",
        "POST /v1/tokens/exchange",
    ];
    assert_eq!(open, known);
}

#[test]
fn the_access_log_has_the_route_and_never_the_path() {
    let template = template();
    let format = words(&template.properties("Stage")["AccessLogSettings"]["Format"]);
    assert!(format.contains("$context.routeKey"), "{format}");
    for secret in ["$context.path", "$context.http", "$context.requestOverride"] {
        assert!(
            !format.contains(secret),
            "a path holds an intake's token: take {secret} out of the access log"
        );
    }
}

/// Variables whose values have no quotation marks, which the gateway would not escape.
const SAFE: [&str; 12] = [
    "$context.requestId",
    "$context.requestTime",
    "$context.identity.sourceIp",
    // The authorizer's, of which each is a label or a word of ours.
    "$context.authorizer.organization",
    "$context.authorizer.name",
    "$context.authorizer.role",
    "$context.routeKey",
    "$context.status",
    "$context.responseLatency",
    "$context.responseLength",
    "$context.error.responseType",
    "$context.integrationStatus",
];

#[test]
fn each_line_of_the_access_log_is_json() {
    let template = template();
    let format = words(&template.properties("Stage")["AccessLogSettings"]["Format"]);
    let fields: BTreeMap<String, String> = serde_json::from_str(format).unwrap();
    let values: BTreeSet<&str> = fields.values().map(String::as_str).collect();
    assert_eq!(values, SAFE.into_iter().collect());
    // What the filter for unknown tokens looks at.
    let pattern = words(&template.properties("Unknown")["FilterPattern"]);
    for named in pattern.split("$.").skip(1) {
        let field = named.split(' ').next().unwrap();
        assert!(fields.contains_key(field), "the access log has no {field}");
    }
    let route = "POST /v1/intake/{token}";
    assert!(pattern.contains(route) && routes().any(|one| one.name() == route));
}

#[test]
fn each_queue_that_a_function_takes_from_has_an_alarm_for_the_age_of_its_messages() {
    let template = template();
    let alarms = template.resources("AWS::CloudWatch::Alarm");
    let watched: BTreeSet<&str> = alarms
        .values()
        .filter(|alarm| alarm["MetricName"] == "ApproximateAgeOfOldestMessage")
        .map(|alarm| target(&alarm["Dimensions"][0]["Value"]))
        .collect();
    let queues = template.resources("AWS::SQS::Queue");
    let taken = queues.keys().filter(|id| !id.ends_with("DeadLetters"));
    assert_eq!(watched, taken.copied().collect());
}

#[test]
fn the_operations_page_says_what_each_alarm_means() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    for (id, alarm) in template().resources("AWS::CloudWatch::Alarm") {
        let own = integrations::ALL.iter().map(|one| camel(one.id));
        let named = own
            .into_iter()
            .find_map(|name| id.strip_prefix(&name).map(str::to_owned));
        let name = named.map_or(id.to_owned(), |rest| format!("…{rest}"));
        let heading = format!("\n### {name}\n");
        assert!(
            page.contains(&heading),
            "{id}: explain it in docs/operations.md"
        );
        let anchor = name.trim_start_matches('…').to_lowercase();
        let description = alarm["AlarmDescription"].to_string();
        assert!(
            description.contains(&format!("(docs/operations.md#{anchor})")),
            "{id}: end its description with (docs/operations.md#{anchor})"
        );
    }
}

#[test]
fn the_operations_page_says_what_each_parameter_means() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for name in unexpanded()["Parameters"].as_object().unwrap().keys() {
        let named = format!("`{name}`");
        let told = rows.iter().any(|row| {
            let first = row.split(" | ").next().unwrap_or_default();
            first.contains(&named)
        });
        assert!(told, "{name}: say it in docs/operations.md");
    }
}

/// An index that takes fewer writes than its table throttles those of the table.
#[test]
fn the_indexes_of_what_is_accepted_are_as_warm_as_the_table() {
    let template = template();
    let table = template.properties("Table");
    let warm = &table["WarmThroughput"];
    assert!(warm.to_string().contains("WarmWrites"), "{warm}");
    let indexes = list(&table["GlobalSecondaryIndexes"]).into_iter();
    let cold = indexes.filter(|index| index["WarmThroughput"] != *warm);
    let cold: Vec<&str> = cold.map(|index| words(&index["IndexName"])).collect();
    assert_eq!(cold, ["failed"]);
}

#[test]
fn the_operations_page_names_the_actions_that_a_deployer_needs() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = page
        .split("\n### ")
        .find(|text| text.starts_with("Who deploys"));
    let rows = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"));
    let told: BTreeSet<&str> = rows
        .flat_map(|row| {
            row.split(" | ")
                .next()
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let template = template();
    let kinds = template.0["Resources"].as_object().unwrap().values();
    let needed = kinds.filter_map(|resource| {
        Some(match words(&resource["Type"]).split("::").nth(1)? {
            "ApiGatewayV2" => "apigateway".to_owned(),
            "Serverless" => "lambda".to_owned(),
            service => service.to_lowercase(),
        })
    });
    let mut needed: BTreeSet<String> = needed.collect();
    // SAM's stack, and the describing of a VPC's parts.
    needed.extend(["cloudformation", "ec2"].map(str::to_owned));
    assert_eq!(told, needed.iter().map(String::as_str).collect());
}

#[test]
fn what_is_fetched_has_the_queue_and_the_pace_that_the_code_counts_on() {
    let template = template();
    let queue = template.properties("FetchMaterialsQueue");
    let name = pipeline::engine::fetch::QUEUE;
    assert_eq!(words(&queue["QueueName"]), format!("{STACK}-{name}"));
    let function = template.properties("FetchMaterials");
    let queues = sources(&template, "FetchMaterials");
    assert_eq!(queues, ["FetchMaterialsQueue"]);
    let timeout = template.number(&function["Timeout"]);
    let visibility = template.number(&queue["VisibilityTimeout"]);
    assert!(visibility >= 6 * timeout, "as AWS asks for");
    let batch = template.number(&template.properties("FetchMaterialsMessage")["BatchSize"]);
    assert_eq!(batch, 1, "an invocation is one turn of one fetch");
    let turn = pipeline::engine::fetch::TURN + pipeline::engine::fetch::LONGEST;
    assert!(turn.as_secs() < timeout, "a turn ends before its function");
    for (role, may) in [("AttestationsRole", true), ("DeliveriesRole", false)] {
        let senders = list(&template.properties("FetchMaterialsSenders")["Roles"]);
        let may_send = senders.iter().any(|sender| target(sender) == role);
        assert_eq!(may_send, may, "{role}");
    }
}

#[test]
fn the_gateway_may_call_each_function_that_it_routes_to() {
    let template = template();
    let permitted: BTreeSet<&str> = template
        .resources("AWS::Lambda::Permission")
        .into_values()
        .filter(|permission| permission["Principal"] == "apigateway.amazonaws.com")
        .map(|permission| target(&permission["FunctionName"]))
        .collect();
    let routed = FUNCTIONS
        .iter()
        .map(|(folder, _)| camel(folder))
        .chain(["Authorizer", "Console", "SignIn"].map(str::to_owned));
    for function in routed {
        assert!(
            permitted.contains(function.as_str()),
            "add an AWS::Lambda::Permission for {function}"
        );
    }
}

// --- functions and what they may do -------------------------------------------------------------------

#[test]
fn each_binary_has_its_function_and_each_function_its_binary() {
    let template = template();
    let mut resources: BTreeMap<String, &str> = template
        .functions()
        .into_iter()
        .map(|(id, properties)| (words(&properties["CodeUri"]).to_owned(), id))
        .collect();
    for binary in functions() {
        let code = format!("../target/lambda/{binary}/bootstrap.zip");
        let id = resources.remove(&code);
        assert_eq!(
            id,
            Some(camel(&binary).as_str()),
            "add infra/template.yaml function {} with CodeUri: {code}",
            camel(&binary)
        );
        let properties = template.properties(&camel(&binary));
        assert_eq!(
            words(&properties["FunctionName"]),
            format!("{STACK}-{binary}")
        );
    }
    assert!(
        resources.is_empty(),
        "add these to functions/src/bin, or delete them: {resources:?}"
    );
}

#[test]
fn each_function_has_a_role_and_logs_of_its_own() {
    let template = template();
    let mut roles = BTreeSet::new();
    for (id, properties) in template.functions() {
        assert_eq!(
            target(&properties["Role"]),
            format!("{id}Role"),
            "{id}: give it a role of its own"
        );
        assert!(roles.insert(target(&properties["Role"])));
        let logs = template.properties(target(&properties["LoggingConfig"]["LogGroup"]));
        let name = words(&properties["FunctionName"]);
        assert_eq!(
            words(&logs["LogGroupName"]),
            format!("/aws/lambda/{name}"),
            "{id}"
        );
        assert!(
            logs["RetentionInDays"].is_object(),
            "{id}: its logs must not stay for ever"
        );
    }
    let all: BTreeSet<&str> = template.resources("AWS::IAM::Role").into_keys().collect();
    // Those that call functions, and that move their aliases.
    roles.extend(["ReconcilerEveryMinuteRole", "RolloutsRole"]);
    assert_eq!(all, roles, "a role is a function's");
}

/// Every statement of every policy, with whose it is.
fn statements(template: &Template) -> Vec<(&str, &Value)> {
    let inline = template
        .resources("AWS::IAM::Role")
        .into_iter()
        .flat_map(|(id, role)| {
            let policies = role["Policies"].as_array().into_iter().flatten();
            policies.map(move |policy| (id, policy))
        });
    let managed = template.resources("AWS::IAM::ManagedPolicy");
    let named = template.resources("AWS::IAM::Policy");
    inline
        .chain(managed)
        .chain(named)
        .flat_map(|(id, policy)| {
            list(&policy["PolicyDocument"]["Statement"])
                .into_iter()
                .map(move |statement| (id, statement))
        })
        .collect()
}

#[test]
fn policies_name_their_resources_and_their_actions() {
    /// Actions that know no resources, and wildcards that name what they must; each with its reason.
    const EVERYWHERE: [(&str, &str); 9] = [
        (
            "cloudwatch:DescribeAlarms",
            "as AWS's own policy for CodeDeploy has it",
        ),
        ("xray:PutTraceSegments", "X-Ray knows no resources"),
        ("xray:PutTelemetryRecords", "X-Ray knows no resources"),
        ("ec2:AssignPrivateIpAddresses", IN_VPC),
        ("ec2:CreateNetworkInterface", IN_VPC),
        ("ec2:DeleteNetworkInterface", IN_VPC),
        ("ec2:DescribeNetworkInterfaces", IN_VPC),
        ("ec2:DescribeSubnets", IN_VPC),
        ("ec2:UnassignPrivateIpAddresses", IN_VPC),
    ];
    const IN_VPC: &str = "as AWS's own policy for functions in a VPC has it";
    const WILDCARDS: [(&str, &str); 1] = [(
        "sqs:SendMessage*",
        "AWS asks for SendMessage, the local cloud for SendMessageBatch",
    )];
    let template = template();
    let statements = statements(&template);
    assert!(
        statements.len() > 10,
        "policies are not read as they should be"
    );
    for (id, statement) in statements {
        if statement["Effect"] == "Deny" {
            // May be as wide as it likes, but for its rows, which tests/src/roles.rs looks at.
            assert!(
                words(&statement["Resource"]).ends_with(":table/${TheTable.Value}"),
                "{id}"
            );
            assert!(statement["Condition"].is_object(), "{id}");
            continue;
        }
        assert_eq!(statement["Effect"], "Allow", "{id}");
        let actions: Vec<&str> = list(&statement["Action"]).into_iter().map(words).collect();
        for action in &actions {
            let documented = WILDCARDS.iter().any(|(known, _)| known == action);
            assert!(action.contains(':'), "{id}: {action:?} is no action");
            assert!(
                documented || !action.contains('*'),
                "{id}: name the actions meant by {action}"
            );
        }
        for resource in list(&statement["Resource"]) {
            let open = words(resource) == "*";
            let documented = actions
                .iter()
                .all(|action| EVERYWHERE.iter().any(|(known, _)| known == action));
            assert!(
                !open || documented,
                "{id}: name the resource of {actions:?}"
            );
            assert!(
                open || resource.is_object(),
                "{id}: take the resource of {actions:?} from the stack"
            );
        }
    }
    for (id, role) in template.resources("AWS::IAM::Role") {
        for policy in role["ManagedPolicyArns"].as_array().into_iter().flatten() {
            let own = template.0["Resources"][target(policy)]["Type"] == "AWS::IAM::ManagedPolicy";
            assert!(
                own,
                "{id}: attach policies of this template only, not {policy}"
            );
        }
    }
}

#[test]
fn a_delivery_function_may_read_its_own_integrations_secrets_and_no_others() {
    let template = template();
    for (id, statement) in statements(&template) {
        let reads = list(&statement["Action"]).contains(&&json!("secretsmanager:GetSecretValue"));
        let one = integrations::ALL
            .iter()
            .find(|one| id == format!("Deliver{}Role", camel(one.id)));
        match (reads, one) {
            (false, _) => {}
            (true, Some(one)) => {
                let name = rows::Registration::secret_name(&"*".into(), one.id, &"*".into());
                let name = name.split_once("/*").unwrap().0;
                let resource = words(&statement["Resource"]);
                assert!(
                    resource.ends_with(&format!(":secret:chainloop-integrations/{STACK}/{name}/*")),
                    "{id}: let it read the stack's {name}/* only, not {resource}"
                );
            }
            (true, None) if id == "FetchMaterialsRole" => {
                let name = rows::Intake::secret_name(&"*".into(), &"*".into());
                let name = name.split_once("/*").unwrap().0;
                let resource = words(&statement["Resource"]);
                assert!(
                    resource.ends_with(&format!(":secret:chainloop-integrations/{STACK}/{name}/*")),
                    "{id}: let it read the stack's {name}/* only, not {resource}"
                );
                assert_eq!(integrations::find(name).map(|one| one.id), None);
            }
            (true, None) if id == "ProxyCredentials" => {
                assert_eq!(target(&statement["Resource"]), "HttpsProxySecret");
            }
            (true, None) if id == "ClientSecret" => {
                assert_eq!(target(&statement["Resource"]), "SignInClientSecret");
            }
            (true, None) => {
                panic!("{id}: only functions that speak to third parties read secrets")
            }
        }
    }
}

/// Requires one parameter to say both what the code refuses and what the role permits.
#[test]
fn roles_are_assumed_for_integrations_that_take_them_and_by_names_that_a_parameter_permits() {
    let template = template();
    let mut permitted = BTreeSet::new();
    for (id, policy) in template.resources("AWS::IAM::Policy") {
        for statement in list(&policy["PolicyDocument"]["Statement"]) {
            if !statement["Action"].to_string().contains("sts:") {
                continue;
            }
            assert_eq!(statement["Action"], "sts:AssumeRole", "{id}");
            let [role] = &list(&policy["Roles"])[..] else {
                panic!("{id}: one role")
            };
            let function = target(role).strip_suffix("Role").unwrap();
            let variables = &template.properties(function)["Environment"]["Variables"];
            assert_eq!(statement["Resource"], variables["ASSUMABLE_ROLES"], "{id}");
            permitted.insert(function.to_owned());
        }
    }
    let takers = integrations::ALL.iter().filter(|one| one.assumes_roles());
    let takers: BTreeSet<String> = takers
        .map(|one| format!("Deliver{}", camel(one.id)))
        .collect();
    assert_eq!(permitted, takers, "list them in the loop Assuming");
    let others = statements(&template).into_iter().filter(|(id, statement)| {
        statement["Action"].to_string().contains("sts:") && !id.ends_with("Roles")
    });
    assert_eq!(others.count(), 0, "nothing else may assume a role");
}

#[test]
fn a_function_finds_the_variables_that_it_needs_and_the_code_reads_all_of_them() {
    let template = template();
    let variables = |properties: &Value| {
        properties["Environment"]["Variables"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let shared = variables(&template.0["Globals"]["Function"]);
    let mut sources = String::new();
    for path in files(&root().join("shared/aws/src"), &["rs"]) {
        sources.push_str(&fs::read_to_string(path).unwrap());
    }
    for (id, properties) in template.functions() {
        let mut all = shared.clone();
        all.extend(variables(properties));
        let settings = aws::Settings::from_env(|name| match name {
            // Lambda sets these itself.
            "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN" => {
                Some("set".to_owned())
            }
            // Parameters, empty unless set.
            "QUOTAS" | "ALLOWED_PRIVATE_CIDRS" | "EGRESS_PROXY" | "OTEL_EXPORTER_OTLP_ENDPOINT" => {
                Some(String::new())
            }
            _ => all.get(name).map(ToString::to_string),
        });
        assert!(
            settings.is_ok(),
            "{id}: set it in infra/template.yaml: {}",
            settings.err().unwrap()
        );
        for (name, value) in &all {
            // A layer's own.
            let is_others = name.starts_with("OPENTELEMETRY_COLLECTOR_");
            assert!(
                is_others || sources.contains(&format!("\"{name}\"")),
                "{id}: delete the variable {name}, which nobody reads"
            );
            // The local cloud starts no function with a number.
            assert!(
                value.is_object() || value.is_string(),
                "{id}: write {name} in quotes"
            );
        }
    }
}

/// Else what is meant for the local cloud could come along to AWS, and what guards AWS be left out there.
#[test]
fn the_template_is_the_same_wherever_it_is_deployed() {
    let template = template();
    let conditions: Vec<&String> = template.0["Conditions"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    let known = [
        "ConfiguresCollector",
        "HasAlarmTopic",
        "HasBoundary",
        "HasClientSecret",
        "HasCollector",
        "HasDomain",
        "HasKey",
        "HasProxySecret",
        "IsInVpc",
        "IsWarm",
        "LocksObjects",
        "MakesBucket",
        "MakesTable",
        "ProtectsTable",
        "ReservesAccept",
        "ReservesApi",
        "ReservesAuthorizer",
        "ReservesReconciler",
        "Shifts",
        "SignsIn",
        "Traces",
    ];
    assert_eq!(conditions, known);
    let mut conditional = Vec::new();
    for (id, resource) in template.0["Resources"].as_object().unwrap() {
        // What a rollout in steps needs, infra/rollouts.py looks at.
        if !["", "Shifts"].contains(&resource["Condition"].as_str().unwrap_or_default()) {
            conditional.push(id.as_str());
        }
    }
    let own = integrations::ALL.iter();
    let own: Vec<String> = own
        .map(|one| format!("{}KeyWriter", camel(one.id)))
        .collect();
    let known = [
        "Bucket",
        "BucketPolicy",
        "ClientSecret",
        "Domain",
        "DomainMapping",
        "InVpc",
        "KeyReaders",
        "KeyWriters",
        "OperatorEvents",
        "ProxyCredentials",
        "Table",
        "Traced",
    ];
    let own = own.iter().map(String::as_str).chain(SIGNS_IN);
    let known = known.into_iter().chain(own);
    assert_eq!(
        conditional.into_iter().collect::<BTreeSet<_>>(),
        known.collect()
    );
    // Each condition asks for a parameter alone.
    for (name, condition) in template.0["Conditions"].as_object().unwrap() {
        if let Some([switch, on]) = condition["Fn::Equals"].as_array().map(Vec::as_slice) {
            let parameter = &template.0["Parameters"][target(switch)];
            match parameter["AllowedValues"].as_array() {
                None => assert_eq!(*on, "", "{name}"),
                Some(all) if all.contains(&json!("true")) => assert_eq!(*on, "true", "{name}"),
                Some(all) => assert!(all.contains(on), "{name}"),
            }
            continue;
        }
        let [asked, default] = &list(&condition["Fn::Not"][0]["Fn::Equals"])[..] else {
            panic!("{name}: compare a parameter with its default");
        };
        let parts = asked["Fn::Join"].get(1).unwrap_or(asked);
        let parameter = &template.0["Parameters"][target(parts)];
        assert_eq!(&parameter["Default"], *default, "{name}");
    }
}

#[test]
fn the_bucket_is_not_asked_without_tls() {
    let template = template();
    let policy = template.properties("BucketPolicy");
    assert_eq!(target(&policy["Bucket"]), "Bucket");
    let statement = &policy["PolicyDocument"]["Statement"][0];
    let expected = json!({
        "Sid": "OnlyOverTls", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": [{ "Fn::GetAtt": "Bucket.Arn" }, { "Fn::Sub": "${Bucket.Arn}/*" }],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    });
    assert_eq!(statement, &expected);
}

/// A value that holds only with a parameter.
fn given(condition: &str, parameter: &str, otherwise: &Value) -> Value {
    json!({ "Fn::If": [condition, { "Ref": parameter }, otherwise] })
}

#[test]
fn everything_stored_is_encrypted_with_the_key_if_there_is_one() {
    let template = template();
    let key = given("HasKey", "KmsKeyArn", &json!({ "Ref": "AWS::NoValue" }));
    for (id, queue) in template.resources("AWS::SQS::Queue") {
        assert_eq!(queue["KmsMasterKeyId"], key, "{id}");
        // A queue has one of the two.
        let own = json!({ "Fn::If": ["HasKey", false, true] });
        assert_eq!(queue["SqsManagedSseEnabled"], own, "{id}");
    }
    for (id, logs) in template.resources("AWS::Logs::LogGroup") {
        assert_eq!(logs["KmsKeyId"], key, "{id}");
    }
    let key = json!({ "Ref": "KmsKeyArn" });
    let table = &template.properties("Table")["SSESpecification"]["Fn::If"];
    let expected = json!({ "SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": key });
    assert_eq!((&table[0], &table[1]), (&json!("HasKey"), &expected));
    let bucket = &template.properties("Bucket")["BucketEncryption"];
    let bucket = &bucket["ServerSideEncryptionConfiguration"][0]["Fn::If"];
    let expected = json!({
        "ServerSideEncryptionByDefault": { "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key },
        "BucketKeyEnabled": true,
    });
    assert_eq!((&bucket[0], &bucket[1]), (&json!("HasKey"), &expected));
    let roles = roles_that_create_secrets(&template);
    for (id, function) in template.functions() {
        let is_given = function["Environment"]["Variables"]["SECRETS_KEY"] == key;
        let creates = roles.contains(target(&function["Role"]));
        assert_eq!(is_given, creates, "{id}: SECRETS_KEY");
    }
}

fn roles_that_create_secrets(template: &Template) -> BTreeSet<&str> {
    let creates =
        |one: &&Value| list(&one["Action"]).contains(&&json!("secretsmanager:CreateSecret"));
    let all = statements(template).into_iter();
    all.filter(|(_, one)| creates(one))
        .map(|(id, _)| id)
        .collect()
}

#[test]
fn every_role_has_the_boundary() {
    let template = template();
    let boundary = given(
        "HasBoundary",
        "PermissionsBoundary",
        &json!({ "Ref": "AWS::NoValue" }),
    );
    for (id, role) in template.resources("AWS::IAM::Role") {
        assert_eq!(role["PermissionsBoundary"], boundary, "{id}");
    }
    // SAM makes a role for some.
    for (id, function) in template.functions() {
        assert!(function["Events"].is_null(), "{id}: write them out");
    }
}

/// Else the API would answer at an address that no proxy or firewall before the domain knows of.
#[test]
fn an_api_with_a_domain_answers_there_alone() {
    let template = template();
    let off = json!({ "Fn::If": ["HasDomain", true, false] });
    assert_eq!(template.properties("Api")["DisableExecuteApiEndpoint"], off);
    let mapping = template.properties("DomainMapping");
    let parts = ["DomainName", "ApiId", "Stage"].map(|name| target(&mapping[name]));
    assert_eq!(parts, ["Domain", "Api", "Stage"]);
    let url = &template.0["Outputs"]["ApiUrl"]["Value"]["Fn::If"];
    assert_eq!(url[0], "HasDomain");
    assert_eq!(words(&url[1]), "https://${DomainName}");
}

/// <https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html>,
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html>,
/// <https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html>
const LONGEST_NAMES: [(&str, usize); 7] = [
    ("DashboardName", 255),
    ("FunctionName", 64),
    ("LogGroupName", 512),
    ("MetricName", 255),
    // A schedule's; an API's may have 128.
    ("Name", 64),
    ("PolicyName", 128),
    ("QueueName", 80),
];

/// Calls a function for each property below a value that is a text with the stack's name.
fn stack_names<'a>(name: &str, value: &'a Value, found: &mut impl FnMut(&str, &'a str)) {
    match value {
        Value::Object(all) => match words(value) {
            text if text.contains(STACK) => found(name, text),
            _ => {
                for (name, value) in all {
                    stack_names(name, value, found);
                }
            }
        },
        Value::Array(all) => all.iter().for_each(|one| stack_names(name, one, found)),
        _ => {}
    }
}

#[test]
fn the_longest_name_of_a_stack_is_checked_before_it_is_deployed() {
    let template = template();
    let mut rooms = BTreeSet::new();
    for (id, resource) in template.0["Resources"].as_object().unwrap() {
        stack_names("", &resource["Properties"], &mut |property, text| {
            // An ARN, which is as long as its names, or a text of many lines.
            if text.starts_with("arn:") || property == "DashboardBody" {
                return;
            }
            let limit = LONGEST_NAMES
                .into_iter()
                .find(|(name, _)| *name == property);
            let (_, limit) = limit.unwrap_or_else(|| panic!("{id}: how long may {property} be?"));
            let rest = text.replace(STACK, "");
            rooms.insert((limit - rest.len(), property.to_owned(), limit, rest));
        });
    }
    let (longest, property, limit, rest) = rooms.first().unwrap();
    let line = format!("longest={longest} # {limit} of {property}, less \"{rest}\"");
    let script = fs::read_to_string(root().join("infra/stack-name.sh")).unwrap();
    assert!(
        script.lines().any(|own| own == line),
        "write this line in infra/stack-name.sh: {line}"
    );
}

#[test]
fn no_queue_is_asked_without_tls() {
    let template = template();
    let mut guarded = BTreeSet::new();
    for (id, policy) in template.resources("AWS::SQS::QueuePolicy") {
        let expected = json!([{
            "Sid": "OnlyOverTls", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": "*",
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }]);
        assert_eq!(policy["PolicyDocument"]["Statement"], expected, "{id}");
        guarded.extend(list(&policy["Queues"]).into_iter().map(target));
    }
    let queues = template.resources("AWS::SQS::Queue");
    assert_eq!(guarded, queues.into_keys().collect());
}

/// The record of what was delivered outlives its stack, and a deployment by mistake.
#[test]
fn what_is_stored_outlives_the_stack() {
    let template = template();
    let all = template.0["Resources"].as_object().unwrap();
    for (id, resource) in all {
        let policies = [
            &resource["DeletionPolicy"],
            &resource["UpdateReplacePolicy"],
        ];
        let stores = ["Bucket", "BucketPolicy", "ReceiptKey", "Table"].contains(&id.as_str());
        let expected = match stores {
            true => [&json!("RetainExceptOnCreate"), &json!("Retain")],
            false => [&Value::Null; 2],
        };
        assert_eq!(policies, expected, "{id}");
    }
    let table = template.properties("Table");
    let protected = json!({ "Fn::If": ["ProtectsTable", true, false] });
    assert_eq!(table["DeletionProtectionEnabled"], protected);
    let switch = |name: &str| &template.0["Parameters"][name]["Default"];
    assert_eq!(
        (switch("DeletionProtection"), switch("ObjectLock")),
        (&json!("true"), &json!("false"))
    );
    let recovery = &table["PointInTimeRecoverySpecification"];
    assert_eq!(recovery["PointInTimeRecoveryEnabled"], true);
}

/// Else a stack that is given a table would look for the one that it does not make.
#[test]
fn table_and_bucket_are_known_in_one_place() {
    let mut template = template();
    for (made, known, given, condition) in [
        ("Table", "TheTable", "ExistingTable", "MakesTable"),
        ("Bucket", "TheBucket", "ExistingBucket", "MakesBucket"),
    ] {
        let expected = json!({ "Fn::If": [condition, { "Ref": made }, { "Ref": given }] });
        assert_eq!(template.properties(known)["Value"], expected);
        template.0["Resources"][known] = Value::Null;
        template.0["Resources"]["BucketPolicy"] = Value::Null;
        let text = template.0.to_string();
        for reference in [
            format!(r#"{{"Ref":"{made}"}}"#),
            format!(r#"{{"Fn::GetAtt":"{made}."#),
            format!("${{{made}}}"),
            format!("${{{made}."),
        ] {
            assert!(
                !text.contains(&reference),
                "{reference}: write {known}.Value instead"
            );
        }
    }
}

#[test]
fn an_older_version_of_an_object_goes_after_a_week_and_a_lock_ends_before() {
    let template = template();
    let bucket = template.properties("Bucket");
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    let [expiry, rest] = &list(&bucket["LifecycleConfiguration"]["Rules"])[..] else {
        panic!("one rule for objects, one for what is left of them");
    };
    // Bytes are put anew when they are older than this, so no more than one older version is kept.
    let days = template.number(&rest["NoncurrentVersionExpiration"]["NoncurrentDays"]);
    assert_eq!(
        days * 86400,
        pipeline::ledger::schedule::BYTES_LONGER.as_secs()
    );
    assert_eq!(rest["ExpiredObjectDeleteMarker"], true);
    assert!(expiry["ExpirationInDays"].is_object() && rest["ExpirationInDays"].is_null());
    // S3 removes no version that is locked, and a version is locked from its own beginning.
    let lock = &bucket["ObjectLockConfiguration"]["Fn::If"][1]["Rule"]["DefaultRetention"];
    let expected = json!({ "Mode": "GOVERNANCE", "Days": { "Ref": "RetentionDays" } });
    assert_eq!(*lock, expected);
}

#[test]
fn rows_and_bytes_are_kept_as_long_as_the_parameter_says_and_bytes_a_week_longer() {
    let template = template();
    let parameter = &template.0["Parameters"]["RetentionDays"];
    let days: u64 = template.number(&parameter["Default"]);
    assert_eq!(
        days * 86400,
        pipeline::ledger::schedule::RETENTION.as_secs(),
        "the default is the code's own"
    );
    for allowed in list(&parameter["AllowedValues"]) {
        let bytes = &template.0["Mappings"]["Retention"][words(allowed)]["BytesDays"];
        assert_eq!(
            template.number(bytes),
            template.number(allowed) + pipeline::ledger::schedule::BYTES_LONGER.as_secs() / 86400,
            "Retention {allowed}"
        );
        // What is held by a pause and tried for a week after it must find its attestation to the end.
        let longest =
            pipeline::ledger::schedule::PAUSE_LONGEST + pipeline::ledger::schedule::GIVE_UP;
        assert!(template.number(allowed) * 86400 > longest.as_secs());
    }
}

#[test]
fn what_speaks_to_third_parties_has_a_way_out_and_nothing_else_has() {
    let template = template();
    for (id, properties) in template.functions() {
        let delivers = id.starts_with("Deliver") && id != "Deliveries";
        let speaks = delivers || ["FetchMaterials", "SignIn"].contains(&id);
        let assumable = properties["Environment"]["Variables"].get("ASSUMABLE_ROLES");
        assert_eq!(assumable.is_some(), delivers, "{id}: ASSUMABLE_ROLES");
        let variables = &properties["Environment"]["Variables"];
        for name in [
            "ALLOWED_PRIVATE_CIDRS",
            "EGRESS_PROXY",
            "EGRESS_PROXY_NAMES",
            "EGRESS_PROXY_SECRET",
            "IN_VPC",
        ] {
            assert_eq!(variables.get(name).is_some(), speaks, "{id}: {name}");
        }
        assert_eq!(properties.get("VpcConfig").is_some(), speaks, "{id}");
        let role = template.properties(&format!("{id}Role"));
        let policies = list(&role["ManagedPolicyArns"]);
        for policy in ["InVpc", "ProxyCredentials"] {
            let has = policies.iter().any(|one| target(one) == policy);
            assert_eq!(has, speaks, "{id}: {policy}");
        }
    }
}
