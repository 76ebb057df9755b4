//! OCI registries: Docker's own, which keeps no list of referrers and asks for a password or for tokens, a service
//! that gives these tokens, and a double with that list, written from the distribution specification, since no
//! registry that has one is to be had here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::Digest;
use base64_simd::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::{Double, Process, Received, free_port, tool};

/// The one account of a registry that asks for a password; its hash is in `files/registry/htpasswd`.
pub const USERNAME: &str = "robot";
pub const PASSWORD: &str = "password-for-tests";

#[cfg(test)]
const SERVICE: &str = "registry-for-tests";
const ISSUER: &str = "tokens-for-tests";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("files/registry")
        .join(name)
}

/// Debian's `docker-registry`, which keeps what it is given in memory.
pub struct DockerRegistry {
    port: u16,
    _process: Process,
}

impl DockerRegistry {
    /// For [`USERNAME`] with [`PASSWORD`], and sure that it is at another origin than it is, as one behind a proxy may
    /// be.
    pub fn astray(origin: &str) -> Self {
        Self::start("basic.yml", |command| {
            command
                .env("REGISTRY_AUTH_HTPASSWD_PATH", file("htpasswd"))
                .env("REGISTRY_HTTP_HOST", origin);
        })
    }

    /// For [`USERNAME`] with [`PASSWORD`].
    pub fn with_password() -> Self {
        Self::start("basic.yml", |command| {
            command.env("REGISTRY_AUTH_HTPASSWD_PATH", file("htpasswd"));
        })
    }

    /// For those to whom this service gives tokens.
    pub fn with_tokens(service: &TokenService) -> Self {
        Self::start("token.yml", |command| {
            command
                .env("REGISTRY_AUTH_TOKEN_REALM", service.realm())
                .env(
                    "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE",
                    file("token-for-tests.crt"),
                );
        })
    }

    fn start(configuration: &str, set: impl FnOnce(&mut Command)) -> Self {
        let port = free_port();
        let mut command = Command::new(tool("docker-registry/usr/bin/docker-registry"));
        command
            .arg("serve")
            .arg(file(configuration))
            // Which has each 404, and there are many.
            .stderr(Stdio::null())
            .env("REGISTRY_HTTP_ADDR", format!("127.0.0.1:{port}"));
        set(&mut command);
        Self {
            _process: Process::start(&mut command, &[port]),
            port,
        }
    }

    /// Host and port, as they begin a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    /// As it is registered.
    pub fn repository(&self, path: &str) -> String {
        format!("{}/{path}", self.host())
    }
}

/// Account that may get a token.
#[derive(Debug, Clone)]
pub struct Account {
    pub username: String,
    pub password: String,
    pub may_push: bool,
}

/// Gives tokens that Docker's registry takes: signed JWTs with what a name may do.
///
/// Its key is in this repository, and so it is nobody's secret.
pub struct TokenService {
    double: Double,
}

impl TokenService {
    pub fn start(accounts: Vec<Account>) -> Self {
        let key = RsaKeyPair::from_pkcs8(&pem("token-for-tests.key")).unwrap();
        let certificate = STANDARD.encode_to_string(pem("token-for-tests.crt"));
        let double = Double::start(move |request| {
            let known = accounts.iter().find(|account| account.is_of(request));
            match known {
                Some(account) => answer(
                    200,
                    &json!({ "token": token(&key, &certificate, account, request), "expires_in": 60 }),
                ),
                None => refuse(401, "UNAUTHORIZED", "incorrect username or password"),
            }
        });
        Self { double }
    }

    pub fn realm(&self) -> String {
        format!("{}/token", self.double.origin)
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }
}

impl Account {
    pub fn new(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            may_push: true,
        }
    }

    fn is_of(&self, request: &Received) -> bool {
        let encoded = STANDARD.encode_to_string(format!("{}:{}", self.username, self.password));
        let given = request.headers().get("authorization");
        given.is_some_and(|given| given.as_bytes() == format!("Basic {encoded}").as_bytes())
    }
}

/// Decodes what stands between the first and last lines of a PEM file.
fn pem(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let base64: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    STANDARD.decode_to_vec(base64).unwrap()
}

fn query(request: &Received) -> BTreeMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// For the scope that is asked for, as far as the account may.
fn token(key: &RsaKeyPair, certificate: &str, account: &Account, request: &Received) -> String {
    let query = query(request);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let scope: Vec<&str> = query["scope"].splitn(3, ':').collect();
    let actions = scope[2]
        .split(',')
        .filter(|action| account.may_push || *action == "pull");
    let actions: Vec<&str> = actions.collect();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
    let claims = json!({
        "iss": ISSUER,
        "sub": account.username,
        "aud": query["service"],
        "iat": now,
        "nbf": now - 10,
        "exp": now + 60,
        "jti": now.to_string(),
        "access": [{ "type": scope[0], "name": scope[1], "actions": actions }],
    });
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode_to_string(value.to_string());
    let signed = format!("{}.{}", encoded(&header), encoded(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(signature))
}

pub(crate) fn answer(status: u16, body: &Value) -> Response<Bytes> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    response.body(body.to_string().into()).unwrap()
}

pub(crate) fn refuse(status: u16, code: &str, message: &str) -> Response<Bytes> {
    answer(
        status,
        &json!({ "errors": [{ "code": code, "message": message }] }),
    )
}

/// A registry that lists by itself what refers to an image. It lets everybody in.
pub struct ReferrersRegistry {
    double: Double,
}

/// Deviations of some registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// It answers `OCI-Subject` and has no list.
    ListsNothing,
    /// It has no list, and lets no tag be moved.
    ImmutableTags,
}

impl ReferrersRegistry {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn odd(oddity: Oddity) -> Self {
        Self::with(Some(oddity))
    }

    fn with(oddity: Option<Oddity>) -> Self {
        let mut contents = Contents {
            oddity,
            ..Contents::default()
        };
        Self {
            double: Double::start(move |request| contents.answer(request)),
        }
    }

    pub fn host(&self) -> String {
        self.double.address.to_string()
    }

    pub fn repository(&self, path: &str) -> String {
        format!("{}/{path}", self.host())
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }
}

/// Contents of a registry. All repositories share the blobs.
#[derive(Default)]
pub(crate) struct Contents {
    oddity: Option<Oddity>,
    blobs: BTreeMap<Digest, Bytes>,
    /// By repository and digest: media type and bytes.
    manifests: BTreeMap<(String, Digest), (String, Bytes)>,
    tags: BTreeMap<(String, String), Digest>,
    uploads: u32,
}

impl Contents {
    pub(crate) fn answer(&mut self, request: &Received) -> Response<Bytes> {
        let path = request.uri().path();
        let Some(rest) = path.strip_prefix("/v2/") else {
            return refuse(404, "UNSUPPORTED", "not of this API");
        };
        if rest.is_empty() {
            return answer(200, &json!({}));
        }
        for (kind, answer) in [
            (
                "/blobs/uploads/",
                Self::upload as fn(&mut Self, &Received, &str, &str) -> _,
            ),
            ("/blobs/", Self::blob),
            ("/manifests/", Self::manifest),
            ("/referrers/", Self::referrers),
        ] {
            if let Some((name, reference)) = rest.rsplit_once(kind) {
                return answer(self, request, name, reference);
            }
        }
        refuse(404, "UNSUPPORTED", "not of this API")
    }

    fn upload(&mut self, request: &Received, name: &str, _: &str) -> Response<Bytes> {
        let response = Response::builder();
        match *request.method() {
            Method::POST => {
                self.uploads += 1;
                let place = format!("/v2/{name}/blobs/uploads/{}?state=begun", self.uploads);
                response
                    .status(202)
                    .header("location", place)
                    .body(Bytes::new())
                    .unwrap()
            }
            Method::PUT => {
                let query = query(request);
                let digest: Option<Digest> =
                    query.get("digest").and_then(|digest| digest.parse().ok());
                if query.get("state").is_none_or(|state| state != "begun") {
                    return refuse(404, "BLOB_UPLOAD_UNKNOWN", "the state was lost");
                }
                let came = Digest::of(request.body());
                if digest != Some(came) {
                    return refuse(400, "DIGEST_INVALID", "not the digest of what came");
                }
                self.blobs.insert(came, request.body().clone());
                let place = format!("/v2/{name}/blobs/{came}");
                let response = response.status(201).header("location", place);
                response.body(Bytes::new()).unwrap()
            }
            Method::DELETE => response.status(204).body(Bytes::new()).unwrap(),
            _ => refuse(405, "UNSUPPORTED", "not of this API"),
        }
    }

    fn blob(&mut self, _: &Received, _: &str, reference: &str) -> Response<Bytes> {
        match reference
            .parse()
            .ok()
            .and_then(|digest| self.blobs.get(&digest))
        {
            Some(blob) => Response::new(blob.clone()),
            None => refuse(404, "BLOB_UNKNOWN", "no such blob"),
        }
    }

    fn manifest(&mut self, request: &Received, name: &str, reference: &str) -> Response<Bytes> {
        if request.method() == Method::PUT {
            return self.put_manifest(request, name, reference);
        }
        let tag = (name.to_owned(), reference.to_owned());
        let digest = reference
            .parse()
            .ok()
            .or_else(|| self.tags.get(&tag).copied());
        let found = digest.and_then(|digest| {
            let (kind, bytes) = self.manifests.get(&(name.to_owned(), digest))?;
            Some((digest, kind, bytes))
        });
        match found {
            Some((digest, kind, bytes)) => Response::builder()
                .header("content-type", kind)
                .header("docker-content-digest", digest.to_string())
                .body(bytes.clone())
                .unwrap(),
            None => refuse(404, "MANIFEST_UNKNOWN", "no such manifest"),
        }
    }

    fn put_manifest(&mut self, request: &Received, name: &str, reference: &str) -> Response<Bytes> {
        let bytes = request.body();
        let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else {
            return refuse(400, "MANIFEST_INVALID", "not JSON");
        };
        let kind = request
            .headers()
            .get("content-type")
            .and_then(|kind| kind.to_str().ok());
        let said = manifest["mediaType"].as_str().or(kind);
        if kind.is_none() || kind != said {
            return refuse(400, "MANIFEST_INVALID", "not what its content type says");
        }
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for blob in layers
            .chain([&manifest["config"]])
            .filter(|blob| blob.is_object())
        {
            let digest = blob["digest"]
                .as_str()
                .and_then(|digest| digest.parse().ok());
            let bytes = digest.and_then(|digest: Digest| self.blobs.get(&digest));
            if bytes.is_none_or(|bytes| blob["size"] != bytes.len()) {
                return refuse(
                    404,
                    "MANIFEST_BLOB_UNKNOWN",
                    "a blob is not there, or of another size",
                );
            }
        }
        let digest = Digest::of(bytes);
        let tag = (name.to_owned(), reference.to_owned());
        if self.oddity == Some(Oddity::ImmutableTags) && self.tags.contains_key(&tag) {
            return refuse(400, "TAG_INVALID", "the tag is immutable");
        }
        let kind = kind.unwrap_or_default().to_owned();
        self.manifests
            .insert((name.to_owned(), digest), (kind, bytes.clone()));
        if reference.parse::<Digest>().is_err() {
            self.tags.insert(tag, digest);
        }
        let mut response = Response::builder()
            .status(StatusCode::CREATED)
            .header("location", format!("/v2/{name}/manifests/{digest}"))
            .header("docker-content-digest", digest.to_string());
        if let Some(subject) = manifest["subject"]["digest"].as_str()
            && self.oddity != Some(Oddity::ImmutableTags)
        {
            response = response.header("oci-subject", subject);
        }
        response.body(Bytes::new()).unwrap()
    }

    fn referrers(&mut self, _: &Received, name: &str, subject: &str) -> Response<Bytes> {
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        if self.oddity.is_some() {
            return refuse(404, "UNSUPPORTED", "no such list");
        }
        let ours = self
            .manifests
            .iter()
            .filter(|((repository, _), _)| repository == name);
        let descriptors = ours.filter_map(|((_, digest), (kind, bytes))| {
            let manifest: Value = serde_json::from_slice(bytes).unwrap();
            if manifest["subject"]["digest"] != subject {
                return None;
            }
            // By the specification, a manifest without a type has that of its configuration.
            let artifact_type = [&manifest["artifactType"], &manifest["config"]["mediaType"]];
            let artifact_type = artifact_type.into_iter().find(|kind| kind.is_string());
            Some(json!({
                "mediaType": kind,
                "digest": digest,
                "size": bytes.len(),
                "artifactType": artifact_type,
                "annotations": manifest["annotations"],
            }))
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors.collect::<Vec<_>>() });
        let response = Response::builder().header("content-type", INDEX);
        response.body(index.to_string().into()).unwrap()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use integrations::oci_registry::{Attachment, OciRegistry, Registration};
    use integrations::{Error, Integration, Kind, Outcome};
    use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
    use oci_client::manifest::OciImageManifest;
    use oci_client::secrets::RegistryAuth;
    use oci_client::{Client, Reference};
    use serde_json::Map;

    use super::*;
    use crate::Stage;

    const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"SUBJECT","digest":{"sha256":"DIGEST"}}],"predicateType":"https://example.org/p","predicate":{}}"#;

    fn registration(repository: &str, username: &str, password: &str) -> Registration {
        let inputs =
            json!({ "repository": repository, "username": username, "password": password });
        serde_json::from_value(inputs).unwrap()
    }

    fn attachment(inputs: Value) -> Attachment {
        serde_json::from_value(inputs).unwrap()
    }

    fn stage() -> Stage {
        about("shop", Digest::of(b"shop"))
    }

    /// Returns a stage with an attestation of an image.
    fn about(name: &str, digest: Digest) -> Stage {
        Stage::of_statement(
            &STATEMENT
                .replace("SUBJECT", name)
                .replace("DIGEST", &digest.hex()),
        )
    }

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Map<String, Value>, Error> {
        let delivery = stage.delivery::<OciRegistry>(registration, attachment);
        match OciRegistry::deliver(&crate::http(), stage, &delivery).await? {
            Outcome::Delivered(receipt) => Ok(receipt),
            other => panic!("{other:?}"),
        }
    }

    /// A client of other people, over the same loopback.
    fn reader() -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(ClientConfig {
            protocol: ClientProtocol::Http,
            use_monolithic_push: true,
            ..ClientConfig::default()
        })
    }

    /// Manifest and layer as that client reads them, which checks their digests.
    pub(crate) async fn read_back(
        receipt: &Map<String, Value>,
        auth: &RegistryAuth,
    ) -> (OciImageManifest, Vec<u8>) {
        let reference: Reference = receipt["reference"].as_str().unwrap().parse().unwrap();
        let client = reader();
        // By the tag, so that the digest is the registry's.
        let (registry, repository) = (
            reference.registry().to_owned(),
            reference.repository().to_owned(),
        );
        let tagged = Reference::with_tag(registry, repository, reference.tag().unwrap().to_owned());
        let (bytes, digest) = client
            .pull_manifest_raw(
                &tagged,
                auth,
                &["application/vnd.oci.image.manifest.v1+json"],
            )
            .await
            .unwrap();
        assert_eq!(receipt["digest"], digest);
        assert_eq!(Digest::of(&bytes).to_string(), digest);
        let manifest: OciImageManifest = serde_json::from_slice(&bytes).unwrap();
        let mut layer = Vec::new();
        client
            .pull_blob(&tagged, &manifest.layers[0], &mut layer)
            .await
            .unwrap();
        assert_eq!(manifest.layers[0].digest, Digest::of(&layer).to_string());
        (manifest, layer)
    }

    /// An image, pushed by that client.
    async fn push_image(repository: &str, auth: &RegistryAuth) -> Digest {
        let reference: Reference = format!("{repository}:1.0").parse().unwrap();
        let layers = [ImageLayer::oci_v1(b"layer".to_vec(), None)];
        let config = Config::oci_v1(br#"{"architecture":"amd64","os":"linux"}"#.to_vec(), None);
        let client = reader();
        client
            .push(&reference, &layers, config, auth, None)
            .await
            .unwrap();
        client
            .fetch_manifest_digest(&reference, auth)
            .await
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn auth() -> RegistryAuth {
        RegistryAuth::Basic(USERNAME.to_owned(), PASSWORD.to_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attestation_pushed_with_a_password_is_read_by_another_client() {
        let registry = DockerRegistry::with_password();
        let registration = registration(&registry.repository("acme/shop"), USERNAME, PASSWORD);
        OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap();
        let stage = stage();
        for inputs in [
            json!({}),
            json!({ "prefix": "older", "compatibility": true }),
        ] {
            let is_compatible = inputs["compatibility"] == true;
            let receipt = deliver(&stage, &registration, &attachment(inputs))
                .await
                .unwrap();
            let (manifest, layer) = read_back(&receipt, &auth()).await;
            assert_eq!(layer, stage.received);
            let kind = "application/vnd.in-toto+json";
            assert_eq!(
                manifest.artifact_type.as_deref() == Some(kind),
                !is_compatible
            );
            assert_eq!(manifest.config.media_type == kind, is_compatible);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bundle_is_pushed_as_it_was_received() {
        let registry = DockerRegistry::with_password();
        let registration = registration(&registry.repository("acme/shop"), USERNAME, PASSWORD);
        let envelope = String::from_utf8(stage().received.into()).unwrap();
        let bundle = format!(
            r#"{{ "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.3", "dsseEnvelope": {envelope} }}"#
        );
        let receipt = deliver(
            &Stage::of(bundle.as_bytes()),
            &registration,
            &attachment(json!({})),
        )
        .await
        .unwrap();
        let (manifest, layer) = read_back(&receipt, &auth()).await;
        assert_eq!(layer, bundle.as_bytes());
        assert_eq!(
            manifest.layers[0].media_type,
            "application/vnd.dev.sigstore.bundle.v0.3+json"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn registering_leaves_nothing_in_the_registry() {
        let registry = DockerRegistry::with_password();
        let registration = registration(&registry.repository("acme/shop"), USERNAME, PASSWORD);
        OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap();
        let encoded = STANDARD.encode_to_string(format!("{USERNAME}:{PASSWORD}"));
        let request = http::Request::get(format!("{}/v2/_catalog", registry.origin()))
            .header("authorization", format!("Basic {encoded}"))
            .body(Bytes::new())
            .unwrap();
        let catalog = crate::http().send(request).await.unwrap();
        let catalog: Value = serde_json::from_slice(&catalog.body).unwrap();
        assert_eq!(catalog, json!({ "repositories": [] }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wrong_password_is_refused_with_the_reason() {
        let registry = DockerRegistry::with_password();
        let registration = registration(&registry.repository("acme/shop"), USERNAME, "canary");
        let error = OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        let reason = "the provided credentials are invalid: UNAUTHORIZED: authentication required";
        assert!(error.text.ends_with(reason), "{error}");
        let error = deliver(&stage(), &registration, &attachment(json!({})))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);

        let service = TokenService::start(vec![Account::new("robot", "right")]);
        let registry = DockerRegistry::with_tokens(&service);
        let registration = self::registration(&registry.repository("acme/shop"), "robot", "canary");
        let error = OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        assert!(
            error
                .text
                .ends_with("UNAUTHORIZED: incorrect username or password"),
            "{error}"
        );
    }

    /// As a cloud hands it out, whole and over several lines.
    const KEY_FILE: &str = "{\n  \"type\": \"service_account\",\n  \"private_key\": \"-----BEGIN\\nfor-tests\\n\"\n}\n";

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attestation_is_pushed_with_a_token_for_a_key_file() {
        let service = TokenService::start(vec![Account::new("_json_key", KEY_FILE)]);
        let registry = DockerRegistry::with_tokens(&service);
        let registration = registration(&registry.repository("acme/shop"), "_json_key", KEY_FILE);
        OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap();
        let stage = stage();
        let receipt = deliver(&stage, &registration, &attachment(json!({})))
            .await
            .unwrap();
        let asked: Vec<_> = service.received().iter().map(query).collect();
        assert!(asked.iter().all(|query| query["service"] == SERVICE));
        let scopes: Vec<_> = asked.iter().map(|query| query["scope"].as_str()).collect();
        let push = "repository:acme/shop:pull,push";
        // The upload that registering began is taken back, which this registry calls deleting.
        assert_eq!(
            scopes,
            [push, "repository:acme/shop:pull,push,delete", push]
        );
        let auth = RegistryAuth::Basic("_json_key".to_owned(), KEY_FILE.to_owned());
        let (_, layer) = read_back(&receipt, &auth).await;
        assert_eq!(layer, stage.received);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_may_only_pull_learns_it_when_registering() {
        let reader = Account {
            may_push: false,
            ..Account::new("reader", "password")
        };
        let service = TokenService::start(vec![reader]);
        let registry = DockerRegistry::with_tokens(&service);
        let registration = registration(&registry.repository("acme/shop"), "reader", "password");
        let error = OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        assert!(
            error
                .text
                .contains("the provided credentials don't have write permissions"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_list_of_referrers_an_image_has_its_attestations_at_a_tag_each_once() {
        let registry = DockerRegistry::with_password();
        let repository = registry.repository("acme/shop");
        let registration = registration(&repository, USERNAME, PASSWORD);
        let image = push_image(&repository, &auth()).await;
        let mut expected = Vec::new();
        for inputs in [json!({}), json!({}), json!({ "compatibility": true })] {
            let stage = about(&repository, image);
            let receipt = deliver(&stage, &registration, &attachment(inputs))
                .await
                .unwrap();
            assert_eq!(receipt["subject"], json!(image));
            assert_eq!(receipt["referrers"], "tag");
            let (manifest, _) = read_back(&receipt, &auth()).await;
            assert_eq!(manifest.subject.unwrap().digest, image.to_string());
            let digest = receipt["digest"].as_str().unwrap().to_owned();
            if !expected.contains(&digest) {
                expected.push(digest);
            }
        }
        assert_eq!(expected.len(), 2);
        let listed: Reference = format!("{repository}:sha256-{}", image.hex())
            .parse()
            .unwrap();
        let (bytes, _) = reader()
            .pull_manifest_raw(
                &listed,
                &auth(),
                &["application/vnd.oci.image.index.v1+json"],
            )
            .await
            .unwrap();
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        let listed = index["manifests"].as_array().unwrap();
        let digests: Vec<_> = listed
            .iter()
            .map(|one| one["digest"].as_str().unwrap())
            .collect();
        assert_eq!(digests, expected);
        for one in listed {
            assert_eq!(one["artifactType"], "application/vnd.in-toto+json");
            assert_eq!(
                one["annotations"]["dev.chainloop.workflow.name"],
                "nightly-build"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_registry_that_lists_referrers_is_left_to_it_and_a_repeat_sends_nothing() {
        let registry = ReferrersRegistry::start();
        let repository = registry.repository("acme/shop");
        let registration = registration(&repository, "anybody", "anything");
        let image = push_image(&repository, &RegistryAuth::Anonymous).await;
        let stage = about(&repository, image);
        let receipt = deliver(&stage, &registration, &attachment(json!({})))
            .await
            .unwrap();
        assert_eq!(receipt["referrers"], "native");
        let reference: Reference = format!("{repository}@{image}").parse().unwrap();
        let listed = reader()
            .pull_referrers(&reference, Some("application/vnd.in-toto+json"))
            .await
            .unwrap();
        let digests: Vec<_> = listed
            .manifests
            .iter()
            .map(|one| one.digest.as_str())
            .collect();
        assert_eq!(digests, [receipt["digest"].as_str().unwrap()]);

        let before = registry.received().len();
        let again = deliver(&stage, &registration, &attachment(json!({})))
            .await
            .unwrap();
        assert_eq!(again, receipt);
        let asked = registry.received().split_off(before);
        let writes = asked
            .iter()
            .filter(|one| one.method() != Method::GET && one.method() != Method::HEAD);
        assert_eq!(writes.count(), 0);
        let (_, layer) = read_back(&receipt, &RegistryAuth::Anonymous).await;
        assert_eq!(layer, stage.received);
    }

    /// The receipts of two attestations of one image, with the delivery's note, and what is at the tag that lists them.
    async fn two_attestations_of_an_image(
        registry: &ReferrersRegistry,
    ) -> ([Map<String, Value>; 2], Value) {
        let repository = registry.repository("acme/shop");
        let registration = registration(&repository, "anybody", "anything");
        let image = push_image(&repository, &RegistryAuth::Anonymous).await;
        let mut receipts = [Map::new(), Map::new()];
        for (number, receipt) in receipts.iter_mut().enumerate() {
            let statement = STATEMENT
                .replace("SUBJECT", &repository)
                .replace("DIGEST", &image.hex())
                .replace(
                    "\"predicate\":{}",
                    &format!("\"predicate\":{{\"x\":{number}}}"),
                );
            let stage = Stage::of_statement(&statement);
            let attachment = attachment(json!({}));
            let delivery = stage.delivery::<OciRegistry>(&registration, &attachment);
            let outcome = OciRegistry::deliver(&crate::http(), &stage, &delivery).await;
            *receipt = match outcome.unwrap() {
                Outcome::Delivered(receipt) => receipt,
                Outcome::PartlyDelivered { mut receipt, note } => {
                    receipt.insert("note".to_owned(), note.into());
                    receipt
                }
                other => panic!("{other:?}"),
            };
            let (_, layer) = read_back(receipt, &RegistryAuth::Anonymous).await;
            assert_eq!(layer, stage.received);
        }
        let listed: Reference = format!("{repository}:sha256-{}", image.hex())
            .parse()
            .unwrap();
        let kinds = ["application/vnd.oci.image.index.v1+json"];
        let (index, _) = reader()
            .pull_manifest_raw(&listed, &RegistryAuth::Anonymous, &kinds)
            .await
            .unwrap();
        (receipts, serde_json::from_slice(&index).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_a_registry_claims_a_list_and_keeps_none_another_client_finds_it_at_the_tag() {
        let registry = ReferrersRegistry::odd(Oddity::ListsNothing);
        let (receipts, index) = two_attestations_of_an_image(&registry).await;
        for (receipt, listed) in receipts.iter().zip(index["manifests"].as_array().unwrap()) {
            assert_eq!(receipt["referrers"], "tag");
            assert_eq!(listed["digest"], receipt["digest"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_tags_are_immutable_the_second_attestation_of_an_image_is_there_and_not_listed() {
        let registry = ReferrersRegistry::odd(Oddity::ImmutableTags);
        let ([first, second], index) = two_attestations_of_an_image(&registry).await;
        assert_eq!(first["referrers"], "tag");
        assert_eq!(second["referrers"], Value::Null);
        assert!(first.get("note").is_none());
        let note = second["note"].as_str().unwrap();
        let end = "answered 400 Bad Request: TAG_INVALID: the tag is immutable";
        assert!(note.ends_with(end), "{note}");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_registry_that_does_not_know_where_it_is_is_told_of_when_it_is_registered() {
        let nobody = format!("http://localhost:{}", free_port());
        let registry = DockerRegistry::astray(&nobody);
        let registration = registration(&registry.repository("acme/shop"), USERNAME, PASSWORD);
        let error = OciRegistry::register(&crate::http(), &registration)
            .await
            .unwrap_err();
        let told = format!(
            "the registry was asked at {} and leads to {nobody}: ",
            registry.origin()
        );
        assert!(error.text.contains(&told), "{error}");
        assert!(error.text.ends_with("X-Forwarded-Proto"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_delivery_makes_the_same_of_the_same() {
        let registry = DockerRegistry::with_password();
        let registration = registration(&registry.repository("acme/shop"), USERNAME, PASSWORD);
        let first = deliver(&stage(), &registration, &attachment(json!({})))
            .await
            .unwrap();
        let second = deliver(&stage(), &registration, &attachment(json!({})))
            .await
            .unwrap();
        assert_eq!(first, second);
        let reference: Reference = registry.repository("acme/shop").parse().unwrap();
        let tags = reader()
            .list_tags(&reference, &auth(), None, None)
            .await
            .unwrap()
            .tags;
        assert_eq!(
            tags,
            [format!("chainloop-{}", stage().attestation.received.hex())]
        );
    }
}
