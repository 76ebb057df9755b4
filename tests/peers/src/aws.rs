//! AWS as far as roles need it, at one address, as an emulator is: STS, S3, ECR's API and its registries. Written from
//! AWS's API references; each request's signature is computed anew.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>,
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>,
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::Digest;
use base64_simd::STANDARD;
use bytes::Bytes;
use http::{Method, Response};
use integrations::Http;
use integrations::iam::{AccessKey, Caller};
use ring::hmac;
use serde_json::{Value, json};

use crate::registry::{Contents, answer, refuse};
use crate::{Double, Received, http};

/// The function that asks.
const FUNCTION: &str = "arn:aws:sts::999988887777:assumed-role/prod-deliver/prod-deliver-guac";
const FUNCTION_KEY: &str = "ASIAFUNCTION";
const FUNCTION_SECRET: &str = "canary-secret-of-the-function";
const FUNCTION_TOKEN: &str = "canary-token-of-the-function";

pub const OWN_BUCKET: &str = "prod-bucket-1a2b3c";

pub struct Aws {
    pub double: Double,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The external ID that each role's trust policy asks for, if it asks.
    roles: BTreeMap<String, Option<String>>,
    sessions: BTreeMap<String, Session>,
    /// Passwords of the registry.
    tokens: BTreeSet<String>,
    objects: BTreeMap<String, Vec<u8>>,
    registry: Contents,
    /// What was asked for, in order; of STS with the external ID.
    calls: Vec<String>,
    lifetime_secs: u64,
    made: u32,
    /// The registry refuses everything.
    denies: bool,
}

struct Session {
    secret: String,
    token: String,
    policy: Value,
    is_over: bool,
}

impl Aws {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            lifetime_secs: 3_600,
            ..State::default()
        }));
        let own = Arc::clone(&state);
        Self {
            double: Double::start(move |request| own.lock().unwrap().answer(request)),
            state,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The client of a function that may assume roles which begin with `chainloop-`.
    pub fn http(&self) -> Http {
        let key = AccessKey {
            id: FUNCTION_KEY.to_owned(),
            secret: FUNCTION_SECRET.to_owned().into(),
            token: Some(FUNCTION_TOKEN.to_owned().into()),
        };
        let mut caller = Caller::new("eu-central-1", key);
        "prod".clone_into(&mut caller.session_name);
        "arn:aws:iam::*:role/chainloop-*".clone_into(&mut caller.assumable);
        OWN_BUCKET.clone_into(&mut caller.bucket);
        caller.endpoint = Some(self.double.origin.parse().unwrap());
        http().calling_as(caller)
    }

    /// A role whose trust policy asks for this external ID; for none, where there is none.
    pub fn role(&self, name: &str, external_id: Option<&str>) -> String {
        let arn = format!("arn:aws:iam::111122223333:role/{name}");
        let external_id = external_id.map(str::to_owned);
        self.state().roles.insert(arn.clone(), external_id);
        arn
    }

    /// Ends every session and every password now.
    pub fn end_all(&self) {
        let mut state = self.state();
        state.tokens.clear();
        for session in state.sessions.values_mut() {
            session.is_over = true;
        }
    }

    pub fn end_passwords(&self) {
        self.state().tokens.clear();
    }

    pub fn deny(&self) {
        self.state().denies = true;
    }

    pub fn lend_for(&self, secs: u64) {
        self.state().lifetime_secs = secs;
    }

    /// Returns what was asked for since the last time.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Credentials that it gave out, none of which may be shown.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.state();
        let sessions = state.sessions.values();
        let sessions = sessions.flat_map(|session| [session.secret.clone(), session.token.clone()]);
        let passwords = state.tokens.iter().cloned();
        let own = [FUNCTION_SECRET, FUNCTION_TOKEN].map(str::to_owned);
        sessions.chain(passwords).chain(own).collect()
    }
}

impl State {
    fn answer(&mut self, request: &Received) -> Response<Bytes> {
        if request.uri().path().starts_with("/v2/") {
            return self.registry(request);
        }
        if request.headers().contains_key("x-amz-target") {
            return self.ecr(request);
        }
        match *request.method() {
            Method::POST => self.sts(request),
            _ => self.s3(request),
        }
    }

    fn sts(&mut self, request: &Received) -> Response<Bytes> {
        if key_of(request) != FUNCTION_KEY || !is_signed(request, FUNCTION_SECRET, "sts") {
            return sts_refusal(403, "SignatureDoesNotMatch", "the signature is another");
        }
        if header(request, "x-amz-security-token") != FUNCTION_TOKEN {
            return sts_refusal(403, "InvalidClientTokenId", "the token is another");
        }
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(request.body())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        assert_eq!(
            (&*form["Action"], &*form["Version"]),
            ("AssumeRole", "2011-06-15")
        );
        assert_eq!(form["RoleSessionName"], "prod");
        assert!(form["Policy"].len() <= 2_048, "the longest that STS takes");
        let role = form["RoleArn"].clone();
        let given = form.get("ExternalId").cloned();
        self.calls
            .push(format!("AssumeRole {}", given.clone().unwrap_or_default()));
        let may = match self.roles.get(&role) {
            None => false,
            Some(asked) => asked.is_none() || *asked == given,
        };
        if !may {
            let message = format!(
                "User: {FUNCTION} is not authorized to perform: sts:AssumeRole on resource: {role}"
            );
            return sts_refusal(403, "AccessDenied", &message);
        }
        self.made += 1;
        let id = format!("ASIASESSION{}", self.made);
        let session = Session {
            secret: format!("canary/secret+of-session-{}", self.made),
            token: format!("canary//token+of-session-{}==", self.made),
            policy: serde_json::from_str(&form["Policy"]).unwrap(),
            is_over: false,
        };
        let expiration = api::Timestamp::from_millis((now() + self.lifetime_secs) * 1_000);
        let body = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
             <AssumedRoleUser><Arn>{role}/prod</Arn></AssumedRoleUser><Credentials>\
             <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
             </AssumeRoleResult></AssumeRoleResponse>",
            session.secret, session.token
        );
        self.sessions.insert(id, session);
        Response::new(body.into())
    }

    /// The session that a request is of, or why it is of none.
    fn session(&self, request: &Received, service: &str) -> Result<&Session, &'static str> {
        let session = self
            .sessions
            .get(&key_of(request))
            .ok_or("InvalidAccessKeyId")?;
        if header(request, "x-amz-security-token") != session.token {
            return Err("InvalidToken");
        }
        if !is_signed(request, &session.secret, service) {
            return Err("SignatureDoesNotMatch");
        }
        match session.is_over {
            true => Err("ExpiredToken"),
            false => Ok(session),
        }
    }

    fn ecr(&mut self, request: &Received) -> Response<Bytes> {
        assert_eq!(
            header(request, "x-amz-target"),
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
        );
        assert_eq!(
            header(request, "content-type"),
            "application/x-amz-json-1.1"
        );
        let refused =
            |kind: &str, message: &str| answer(400, &json!({ "__type": kind, "message": message }));
        match self.session(request, "ecr") {
            Err("ExpiredToken") => return refused("ExpiredTokenException", "it has expired"),
            Err(other) => return refused("UnrecognizedClientException", other),
            Ok(session) => {
                if !permits(&session.policy, "ecr:GetAuthorizationToken", "*") {
                    return refused("AccessDeniedException", "the session may not");
                }
            }
        }
        self.calls.push("GetAuthorizationToken".to_owned());
        self.made += 1;
        let password = format!("AWS:canary-password-{}", self.made);
        self.tokens.insert(password.clone());
        let data = json!([{
            "authorizationToken": STANDARD.encode_to_string(&password),
            "expiresAt": now() + 12 * 3_600,
            "proxyEndpoint": "https://111122223333.dkr.ecr.eu-central-1.amazonaws.com",
        }]);
        answer(200, &json!({ "authorizationData": data }))
    }

    fn registry(&mut self, request: &Received) -> Response<Bytes> {
        let login = header(request, "authorization");
        let Some(encoded) = login.strip_prefix("Basic ") else {
            let mut response = refuse(401, "UNAUTHORIZED", "no basic auth credentials");
            let asked = "Basic realm=\"https://ecr.example.com/\",service=\"ecr.amazonaws.com\"";
            response
                .headers_mut()
                .insert("www-authenticate", asked.parse().unwrap());
            return response;
        };
        let password = STANDARD.decode_to_vec(encoded).unwrap();
        if !self.tokens.contains(&*String::from_utf8_lossy(&password)) {
            return refuse(
                403,
                "DENIED",
                "Your authorization token has expired. Reauthenticate and try again.",
            );
        }
        match self.denies {
            true => refuse(
                403,
                "DENIED",
                "not authorized to perform: ecr:InitiateLayerUpload",
            ),
            false => self.registry.answer(request),
        }
    }

    fn s3(&mut self, request: &Received) -> Response<Bytes> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let action = match (request.method(), key) {
            (&Method::HEAD, "") => "s3:ListBucket",
            (&Method::HEAD, _) => "s3:GetObject",
            _ => "s3:PutObject",
        };
        self.calls.push(action.to_owned());
        let resource = match key {
            "" => format!("arn:aws:s3:::{bucket}"),
            _ => format!("arn:aws:s3:::{bucket}/*"),
        };
        match self.session(request, "s3") {
            // It repeats what it was sent, as S3 does with a string to sign.
            Err(code) => {
                let sent = header(request, "x-amz-security-token");
                return s3_refusal(400, code, &sent);
            }
            Ok(session) if !permits(&session.policy, action, &resource) => {
                return s3_refusal(403, "AccessDenied", "the session may not");
            }
            Ok(_) => {}
        }
        if *request.method() == Method::HEAD {
            return Response::new(Bytes::new());
        }
        if request.headers().contains_key("if-match") {
            return s3_refusal(404, "NoSuchKey", "there is none to replace");
        }
        assert_eq!(header(request, "if-none-match"), "*");
        if self.objects.contains_key(&path) {
            return s3_refusal(412, "PreconditionFailed", "it is there");
        }
        self.objects.insert(path.clone(), request.body().to_vec());
        Response::new(Bytes::new())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

fn header(request: &Received, name: &str) -> String {
    let value = request.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn sts_refusal(status: u16, code: &str, message: &str) -> Response<Bytes> {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    );
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

fn s3_refusal(status: u16, code: &str, message: &str) -> Response<Bytes> {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

/// Answers if a session's policy permits an action; conditions are not looked at.
fn permits(policy: &Value, action: &str, resource: &str) -> bool {
    let has = |value: &Value, wanted: &str| match value {
        Value::Array(all) => all.iter().any(|one| one == wanted),
        one => one == wanted,
    };
    let statements = policy["Statement"].as_array().unwrap();
    statements.iter().any(|one| {
        one["Effect"] == "Allow" && has(&one["Action"], action) && has(&one["Resource"], resource)
    })
}

/// A part of the `Authorization` header: `Credential`, `SignedHeaders` or `Signature`.
fn part(request: &Received, name: &str) -> String {
    let authorization = header(request, "authorization");
    let rest = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .unwrap_or_default();
    let mut parts = rest.split(", ").filter_map(|part| part.split_once('='));
    let found = parts.find(|(own, _)| *own == name);
    found.map_or_else(String::new, |(_, value)| value.to_owned())
}

fn key_of(request: &Received) -> String {
    let credential = part(request, "Credential");
    credential.split('/').next().unwrap_or_default().to_owned()
}

/// Answers if the signature is that of AWS's fourth version.
fn is_signed(request: &Received, secret: &str, service: &str) -> bool {
    let credential = part(request, "Credential");
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    let [date, region, own, "aws4_request"] = scope[..] else {
        return false;
    };
    let (time, signed) = (
        header(request, "x-amz-date"),
        part(request, "SignedHeaders"),
    );
    let digest = Digest::of(request.body()).hex();
    let needed = [
        "host",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ];
    let is_whole = needed
        .iter()
        .all(|name| signed.split(';').any(|own| own == *name));
    if own != service
        || !time.starts_with(date)
        || !is_whole
        || header(request, "x-amz-content-sha256") != digest
    {
        return false;
    }
    let headers = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", header(request, name)));
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{signed}\n{digest}",
        request.method(),
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
        headers.collect::<String>()
    );
    let hashed = Digest::of(canonical.as_bytes()).hex();
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{}\n{hashed}", scope.join("/"));
    let sign = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let mut key = sign(format!("AWS4{secret}").as_bytes(), date);
    for text in [region, service, "aws4_request"] {
        key = sign(&key, text);
    }
    let signature = sign(&key, &to_sign);
    let mut hex = String::new();
    for byte in signature {
        write!(hex, "{byte:02x}").unwrap();
    }
    part(request, "Signature") == hex
}

#[cfg(test)]
mod tests;
