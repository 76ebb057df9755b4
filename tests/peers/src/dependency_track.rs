//! Dependency-Track, as its documentation and its OpenAPI document describe it: keys and what they may do, projects
//! and what was uploaded to them, in versions 4 and 5.
//!
//! The program itself needs Java and a database, and reads vulnerability feeds for hours when it starts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use attestation::Digest;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::{Double, Received};

/// Major and minor.
pub type Version = (u32, u32);

/// The last one of version 4.
pub const V4: Version = (4, 14);
pub const V5: Version = (5, 0);

pub struct DependencyTrack {
    double: Double,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    pub uuid: String,
    pub name: String,
    pub version: Option<String>,
    pub tags: Vec<String>,
    /// Its uuid.
    pub parent: Option<String>,
    pub is_latest: bool,
    /// Made of others' components, and takes no SBOM.
    pub is_collection: bool,
    /// True if portfolio access control keeps all keys out.
    pub is_closed: bool,
    /// Number of uploaded SBOMs that it imported.
    pub imports: u64,
    /// Uploaded SBOMs, in order: it shows the last one.
    pub sboms: Vec<Bytes>,
}

impl Project {
    pub fn digests(&self) -> Vec<Digest> {
        self.sboms.iter().map(|sbom| Digest::of(sbom)).collect()
    }
}

#[derive(Debug)]
struct State {
    version: Version,
    authenticates: bool,
    /// Key → its teams' names and permissions.
    keys: BTreeMap<String, Vec<(String, Vec<String>)>>,
    projects: Vec<Project>,
    /// Token → how many more questions are answered with "processing".
    tokens: BTreeMap<String, u32>,
    questions: u32,
    is_overtaken: bool,
    /// Imports end without a trace.
    is_broken: bool,
    count: u64,
}

impl DependencyTrack {
    pub fn start(version: Version) -> Self {
        let state = Arc::new(Mutex::new(State {
            version,
            authenticates: true,
            keys: BTreeMap::new(),
            projects: Vec::new(),
            tokens: BTreeMap::new(),
            questions: 0,
            is_overtaken: false,
            is_broken: false,
            count: 0,
        }));
        let answering = Arc::clone(&state);
        let double = Double::start(move |request| {
            let answer = answering.lock().unwrap().answer(request);
            answer.unwrap_or_else(|refusal| refusal)
        });
        Self { double, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn origin(&self) -> &str {
        &self.double.origin
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }

    /// A key of one more team, which has these permissions.
    pub fn grant(&self, key: &str, team: &str, permissions: &[&str]) {
        let permissions = permissions.iter().map(|&name| name.to_owned()).collect();
        let mut state = self.state();
        let teams = state.keys.entry(key.to_owned()).or_default();
        teams.push((team.to_owned(), permissions));
    }

    /// A key without a team.
    pub fn know(&self, key: &str) {
        self.state().keys.entry(key.to_owned()).or_default();
    }

    /// Lets everybody do everything from now on.
    pub fn stop_authenticating(&self) {
        self.state().authenticates = false;
    }

    /// Adds it under an id of its own, which it answers with.
    pub fn add(&self, project: Project) -> String {
        let mut state = self.state();
        let uuid = state.uuid();
        let project = Project {
            uuid: uuid.clone(),
            ..project
        };
        state.projects.push(project);
        uuid
    }

    pub fn projects(&self) -> Vec<Project> {
        self.state().projects.clone()
    }

    /// The one project of this name and version.
    pub fn project(&self, name: &str, version: Option<&str>) -> Option<Project> {
        let is_it = |one: &&Project| one.name == name && one.version.as_deref() == version;
        let mut found = self.projects().into_iter().filter(|one| is_it(&one));
        let project = found.next();
        assert!(found.next().is_none(), "two projects {name} {version:?}");
        project
    }

    /// Answers so many questions about each token that is made from now on with "processing".
    pub fn take_time(&self, questions: u32) {
        self.state().questions = questions;
    }

    /// Accepts SBOMs and imports none of them from now on, as 4.14 does with a few that are valid.
    pub fn break_imports(&self) {
        self.state().is_broken = true;
    }

    pub fn delete(&self, uuid: &str) {
        self.state().projects.retain(|project| project.uuid != uuid);
    }

    /// Lets somebody else create the next project first.
    pub fn overtake(&self) {
        self.state().is_overtaken = true;
    }
}

type Answer = Response<Bytes>;

impl State {
    /// The error is an answer, too.
    fn answer(&mut self, request: &Received) -> Result<Answer, Answer> {
        let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
        match (request.method(), &path[..]) {
            (&Method::GET, ["api", "version"]) => {
                let (major, minor) = self.version;
                let version = format!("{major}.{minor}.0");
                Ok(json_answer(
                    &json!({ "version": version, "application": "Dependency-Track", "uuid": self.uuid() }),
                ))
            }
            (&Method::GET, ["api", "v1", "team", "self"]) => self.team(request),
            (&Method::GET, ["api", "v1", "project", "lookup"]) => {
                self.permit(request, &["VIEW_PORTFOLIO"])?;
                let (name, version) = (query(request, "name"), query(request, "version"));
                let found = self.find(&name.unwrap_or_default(), version.as_deref());
                self.show(found)
            }
            (&Method::GET, ["api", "v1", "project", uuid]) => {
                self.permit(request, &["VIEW_PORTFOLIO"])?;
                self.show(self.find_by_id(uuid))
            }
            (&Method::POST, ["api", "v1", "bom"]) => self.upload(request),
            (&Method::GET, ["api", "v1", "event", "token", token]) if self.version >= (4, 11) => {
                self.permit(request, &[])?;
                Ok(self.processing(token))
            }
            (&Method::GET, ["api", "v1", "bom", "token", token]) => {
                self.permit(request, &["BOM_UPLOAD"])?;
                Ok(self.processing(token))
            }
            _ => Err(text(StatusCode::NOT_FOUND, "")),
        }
    }

    fn uuid(&mut self) -> String {
        self.count += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.count)
    }

    /// The permissions of all of the key's teams.
    fn permissions(&self, request: &Received) -> Result<Vec<String>, Answer> {
        let key = request.headers().get("x-api-key");
        let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
        let teams = self
            .keys
            .get(key)
            .ok_or_else(|| text(StatusCode::UNAUTHORIZED, ""))?;
        Ok(teams
            .iter()
            .flat_map(|(_, permissions)| permissions.clone())
            .collect())
    }

    fn may(&self, request: &Received, any: &[&str]) -> Result<bool, Answer> {
        if !self.authenticates {
            return Ok(true);
        }
        let has = self.permissions(request)?;
        Ok(any.is_empty() || has.iter().any(|name| any.contains(&name.as_str())))
    }

    fn permit(&self, request: &Received, any: &[&str]) -> Result<(), Answer> {
        match self.may(request, any)? {
            true => Ok(()),
            false => Err(text(StatusCode::FORBIDDEN, "")),
        }
    }

    fn team(&self, request: &Received) -> Result<Answer, Answer> {
        if !self.authenticates {
            return Ok(Response::new(Bytes::new()));
        }
        self.permissions(request)?;
        let key = request.headers()["x-api-key"].to_str().unwrap();
        // Of several teams the first, whatever the others have.
        let Some((name, permissions)) = self.keys[key].first() else {
            return Err(text(
                StatusCode::NOT_FOUND,
                "No Team for the given API key found.",
            ));
        };
        let permissions: Vec<Value> = permissions
            .iter()
            .map(|name| json!({ "name": name, "description": "…" }))
            .collect();
        let team = json!({ "uuid": "…", "name": name, "permissions": permissions });
        Ok(json_answer(&team))
    }

    fn find(&self, name: &str, version: Option<&str>) -> Option<usize> {
        let is_it = |one: &Project| one.name == name && one.version.as_deref() == version;
        self.projects.iter().position(is_it)
    }

    fn find_by_id(&self, uuid: &str) -> Option<usize> {
        self.projects.iter().position(|one| one.uuid == uuid)
    }

    fn show(&self, found: Option<usize>) -> Result<Answer, Answer> {
        let index =
            found.ok_or_else(|| text(StatusCode::NOT_FOUND, "The project could not be found."))?;
        self.admit(index, "project")?;
        let project = &self.projects[index];
        Ok(json_answer(&json!({
            "uuid": project.uuid, "name": project.name, "version": project.version, "isLatest": project.is_latest,
            "lastBomImport": (project.imports > 0).then_some(project.imports),
        })))
    }

    fn admit(&self, index: usize, what: &str) -> Result<(), Answer> {
        match (self.projects[index].is_closed, self.version >= V5) {
            (false, _) => Ok(()),
            (true, false) => {
                let denied = format!("Access to the specified {what} is forbidden");
                Err(text(StatusCode::FORBIDDEN, &denied))
            }
            (true, true) => Err(problem(json!({
                "status": 403,
                "title": "Project access denied",
                "detail": "Access to the requested project is forbidden",
            }))),
        }
    }

    fn upload(&mut self, request: &Received) -> Result<Answer, Answer> {
        self.permit(request, &["BOM_UPLOAD"])?;
        let form = Form::read(request);
        let index = match form.text("project") {
            Some(uuid) => self.find_by_id(&uuid),
            None => self.find(
                &form.text("projectName").unwrap_or_default(),
                form.text("projectVersion").as_deref(),
            ),
        };
        let index = match index {
            Some(index) => {
                self.admit(index, "project")?;
                // Whoever may not change tags is not told that they stay.
                if self.may(
                    request,
                    &["PORTFOLIO_MANAGEMENT", "PORTFOLIO_MANAGEMENT_UPDATE"],
                )? {
                    self.tag(index, &form);
                }
                index
            }
            None if form.is_true("autoCreate") && form.text("project").is_none() => {
                self.create(request, &form)?
            }
            None => {
                return Err(text(
                    StatusCode::NOT_FOUND,
                    "The project could not be found.",
                ));
            }
        };
        if self.projects[index].is_collection {
            let collection = "BOM cannot be uploaded to a collection project.";
            return Err(text(StatusCode::BAD_REQUEST, collection));
        }
        let Some(sbom) = form.part("bom") else {
            return Err(text(StatusCode::BAD_REQUEST, "No BOM file provided."));
        };
        // The project that was just created stays.
        self.validate(&sbom)?;
        self.projects[index].sboms.push(sbom);
        self.projects[index].imports += u64::from(!self.is_broken);
        let token = self.uuid();
        self.tokens.insert(token.clone(), self.questions);
        let mut answer = json!({ "token": token });
        if self.version >= V5 {
            answer["projectUuid"] = self.projects[index].uuid.as_str().into();
        }
        Ok(json_answer(&answer))
    }

    fn create(&mut self, request: &Received, form: &Form) -> Result<usize, Answer> {
        const CREATE: [&str; 3] = [
            "PORTFOLIO_MANAGEMENT",
            "PORTFOLIO_MANAGEMENT_CREATE",
            "PROJECT_CREATION_UPLOAD",
        ];
        if !self.may(request, &CREATE)? {
            let denied = "The principal does not have permission to create project.";
            return Err(text(StatusCode::UNAUTHORIZED, denied));
        }
        let wanted = match (form.text("parentUUID"), form.text("parentName")) {
            (None, None) => None,
            (Some(uuid), _) => Some(self.find_by_id(&uuid)),
            (None, Some(name)) => Some(self.find(&name, form.text("parentVersion").as_deref())),
        };
        let parent = match wanted {
            None => None,
            Some(Some(index)) => {
                self.admit(index, "parent project")?;
                Some(self.projects[index].uuid.clone())
            }
            Some(None) => {
                let what = if self.version >= V5 {
                    "project"
                } else {
                    "component"
                };
                let gone = format!("The parent {what} could not be found.");
                return Err(text(StatusCode::NOT_FOUND, &gone));
            }
        };
        let name = form.text("projectName").unwrap_or_default();
        let is_latest = self.version >= (4, 12) && form.is_true("isLatest");
        let mut others = self.projects.iter().enumerate();
        if is_latest
            && let Some((former, _)) = others.find(|(_, one)| one.is_latest && one.name == name)
        {
            self.admit(former, "project")?;
            self.projects[former].is_latest = false;
        }
        let project = Project {
            uuid: self.uuid(),
            name,
            version: form.text("projectVersion"),
            parent,
            is_latest,
            ..Project::default()
        };
        self.projects.push(project);
        let index = self.projects.len() - 1;
        if std::mem::take(&mut self.is_overtaken) && self.version >= V5 {
            return Err(text(
                StatusCode::CONFLICT,
                "A project with the same name and version was created concurrently.",
            ));
        }
        self.tag(index, form);
        Ok(index)
    }

    fn tag(&mut self, index: usize, form: &Form) {
        if let Some(tags) = form.text("projectTags")
            && self.version >= (4, 12)
        {
            let tags = tags.split(',').map(|tag| tag.trim().to_lowercase());
            self.projects[index].tags = tags.collect();
        }
    }

    fn validate(&self, sbom: &[u8]) -> Result<(), Answer> {
        if self.version < (4, 11) {
            return Ok(());
        }
        let invalid = |errors: Value| {
            Err(problem(json!({
                "status": 400,
                "title": "The uploaded BOM is invalid",
                "detail": "Schema validation failed",
                "errors": errors,
            })))
        };
        let Ok(sbom) = serde_json::from_slice::<Value>(sbom) else {
            if self.version < V5 {
                return Err(text(StatusCode::INTERNAL_SERVER_ERROR, ""));
            }
            return invalid(json!(["Unable to determine schema version"]));
        };
        if sbom["bomFormat"] != "CycloneDX" {
            return invalid(json!([
                "$.bomFormat: does not have a value in the enumeration [CycloneDX]"
            ]));
        }
        let newest = if self.version >= V5 { 7 } else { 6 };
        let known: Vec<String> = (2..=newest).map(|minor| format!("1.{minor}")).collect();
        match sbom["specVersion"].as_str() {
            Some(version) if known.iter().any(|one| one == version) => Ok(()),
            version => {
                let version = version.unwrap_or("null");
                invalid(json!([format!("Unrecognized specVersion {version}")]))
            }
        }
    }

    /// An unknown token is answered as one that is done.
    fn processing(&mut self, token: &str) -> Answer {
        let left = self.tokens.get_mut(token);
        let processing = left.is_some_and(|left| {
            let is_under_way = *left > 0;
            *left = left.saturating_sub(1);
            is_under_way
        });
        json_answer(&json!({ "processing": processing }))
    }
}

fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    answer
}

fn json_answer(body: &Value) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, "application/json".parse().unwrap());
    answer
}

/// By RFC 9457.
#[expect(
    clippy::needless_pass_by_value,
    reason = "reads better where it is made"
)]
fn problem(body: Value) -> Answer {
    let status = u16::try_from(body["status"].as_u64().unwrap()).unwrap();
    let mut answer = json_answer(&body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, "application/problem+json".parse().unwrap());
    answer
}

fn query(request: &Received, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://localhost{}", request.uri())).unwrap();
    let mut pairs = url.query_pairs();
    pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

/// Names and contents of a `multipart/form-data`, read by RFC 7578 and no more kindly.
struct Form(Vec<(String, Bytes)>);

impl Form {
    fn read(request: &Received) -> Self {
        let kind = request.headers()[CONTENT_TYPE].to_str().unwrap();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        assert!((1..=70).contains(&boundary.len()), "{boundary}");
        let body = request.body();
        let (first, next) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
        assert!(
            body.starts_with(first.as_bytes()),
            "no boundary at the beginning"
        );
        let mut rest = body.slice(first.len()..);
        let mut parts = Vec::new();
        while rest != "--\r\n" {
            assert!(rest.starts_with(b"\r\n"), "no line end behind a boundary");
            let head = position(&rest, b"\r\n\r\n").unwrap();
            let text = std::str::from_utf8(&rest[2..head]).unwrap();
            let name = text
                .split_once("Content-Disposition: form-data; name=\"")
                .unwrap()
                .1;
            let name = name.split('"').next().unwrap().to_owned();
            let content = rest.slice(head + 4..);
            let end = position(&content, next.as_bytes()).unwrap();
            parts.push((name, content.slice(..end)));
            rest = content.slice(end + next.len()..);
        }
        Self(parts)
    }

    /// The first of this name.
    fn part(&self, name: &str) -> Option<Bytes> {
        let part = self.0.iter().find(|(own, _)| own == name);
        part.map(|(_, content)| content.clone())
    }

    /// Trimmed, and nothing where that leaves nothing.
    fn text(&self, name: &str) -> Option<String> {
        let text = String::from_utf8(self.part(name)?.to_vec()).unwrap();
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("true")
    }
}

fn position(bytes: &[u8], of: &[u8]) -> Option<usize> {
    bytes.windows(of.len()).position(|window| window == of)
}

#[cfg(test)]
mod tests {
    use attestation::MaterialType;
    use integrations::dependency_track::{Attachment, DependencyTrack as Integrated, Registration};
    use integrations::{Error, Followed, Integration, Kind, Outcome};
    use serde_json::Map;

    use super::*;
    use crate::{Stage, http};

    const KEY: &str = "odt_canary";
    const ALL: [&str; 3] = ["BOM_UPLOAD", "VIEW_PORTFOLIO", "PROJECT_CREATION_UPLOAD"];

    fn peer(version: Version, permissions: &[&str]) -> DependencyTrack {
        let peer = DependencyTrack::start(version);
        peer.grant(KEY, "Automation", permissions);
        peer
    }

    fn registration(peer: &DependencyTrack, create: bool) -> Registration {
        let inputs =
            json!({ "instanceURI": peer.origin(), "apiKey": KEY, "allowAutoCreate": create });
        serde_json::from_value(inputs).unwrap()
    }

    fn attachment(inputs: Value) -> Attachment {
        serde_json::from_value(inputs).unwrap()
    }

    fn sbom(version: &str, name: &str) -> Vec<u8> {
        json!({ "bomFormat": "CycloneDX", "specVersion": version, "metadata": { "component": { "name": name } } })
            .to_string()
            .into_bytes()
    }

    /// The attestation of a run that ended in this minute.
    fn stage(minute: u32) -> Stage {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "git.head", "digest": { "sha1": "2222222222222222222222222222222222222222" } }],
            "predicateType": "chainloop.dev/attestation/v0.2",
            "predicate": {
                "metadata": {
                    "name": "nightly", "project": "shop", "projectVersion": "2.4.0",
                    "finishedAt": format!("2026-01-02T03:{minute:02}:00Z"),
                },
                "annotations": { "tier": "gold" },
                "materials": [],
            },
        });
        Stage::of_statement(&statement.to_string())
    }

    fn with(stage: Stage, name: &str, bytes: &[u8]) -> Stage {
        stage.with(name, MaterialType::SBOM_CYCLONEDX_JSON, bytes)
    }

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Outcome, Error> {
        let delivery = stage.delivery(registration, attachment);
        Integrated::deliver(&http(), stage, &delivery).await
    }

    fn receipt(outcome: Outcome) -> Map<String, Value> {
        match outcome {
            Outcome::Delivered(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_key_that_may_upload_is_registered() {
        for (version, permissions) in [(V4, &ALL[..]), (V5, &ALL[..1])] {
            let peer = peer(version, permissions);
            Integrated::register(&http(), &registration(&peer, true))
                .await
                .unwrap();
            assert_eq!((peer.projects(), peer.received().len()), (vec![], 2));
        }
    }

    #[tokio::test]
    async fn a_key_that_may_not_is_refused() {
        let peer = peer(V4, &["VIEW_PORTFOLIO"]);
        let error = Integrated::register(&http(), &registration(&peer, false))
            .await
            .unwrap_err();
        assert!(error.text.contains("grant it BOM_UPLOAD "), "{error}");

        let without_team = DependencyTrack::start(V5);
        without_team.know(KEY);
        let error = Integrated::register(&http(), &registration(&without_team, true))
            .await
            .unwrap_err();
        assert!(error.text.contains("the key has no team"), "{error}");

        let stranger = DependencyTrack::start(V5);
        let error = Integrated::register(&http(), &registration(&stranger, false))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }

    #[tokio::test]
    async fn where_nobody_is_asked_for_a_key_everything_works() {
        let peer = DependencyTrack::start(V4);
        peer.stop_authenticating();
        let registration = registration(&peer, true);
        Integrated::register(&http(), &registration).await.unwrap();
        let stage = with(stage(1), "sbom", &sbom("1.6", "a"));
        deliver(
            &stage,
            &registration,
            &attachment(json!({ "projectName": "shop" })),
        )
        .await
        .unwrap();
        assert!(peer.project("shop", None).is_some());
    }

    #[tokio::test]
    async fn an_attachment_finds_its_project_and_its_parent() {
        for version in [V4, V5] {
            let peer = peer(version, &ALL);
            let named = |name: &str, version: Option<&str>| Project {
                name: name.to_owned(),
                version: version.map(str::to_owned),
                ..Project::default()
            };
            let id = peer.add(named("shop & more", Some("1/2")));
            let all = peer.add(named("all", None));
            let closed = peer.add(Project {
                is_closed: true,
                ..named("closed", None)
            });
            for (create, inputs, expected) in [
                (false, json!({ "projectID": id }), Ok(())),
                (
                    false,
                    json!({ "projectName": "shop & more", "projectVersion": "1/2" }),
                    Ok(()),
                ),
                (
                    true,
                    json!({ "projectName": "new", "parentName": "all" }),
                    Ok(()),
                ),
                (
                    true,
                    json!({ "projectName": "new", "parentID": all }),
                    Ok(()),
                ),
                (
                    false,
                    json!({ "projectName": "shop & more" }),
                    Err("there is none"),
                ),
                (
                    true,
                    json!({ "projectName": "new", "parentName": "nobody" }),
                    Err("there is none"),
                ),
                (
                    false,
                    json!({ "projectID": "00000000-0000-4000-8000-999999999999" }),
                    Err("not found"),
                ),
                (
                    false,
                    json!({ "projectID": closed }),
                    Err("access to the project"),
                ),
            ] {
                let registration = registration(&peer, create);
                let result =
                    Integrated::attach(&http(), &registration, &attachment(inputs.clone())).await;
                match (result, expected) {
                    (Ok(_), Ok(())) => {}
                    (Err(error), Err(part)) => assert!(error.text.contains(part), "{error}"),
                    (result, _) => panic!("{inputs}: {result:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_project_is_created_with_all_that_was_filled_in_and_gets_the_bytes_as_they_are() {
        for version in [V4, V5] {
            let peer = peer(version, &ALL);
            let parent = peer.add(Project {
                name: "gold".to_owned(),
                ..Project::default()
            });
            let former = peer.add(Project {
                name: "shop".to_owned(),
                is_latest: true,
                ..Project::default()
            });
            let stage = with(stage(1), "sbom", &sbom("1.6", "größe"));
            let attachment = attachment(json!({
                "projectName": "{{ workflow.project }}", "projectVersion": "{{ workflow.version }}",
                "parentName": "{{ .Attestation.Annotations.Tier }}", "projectTags": "Backend, team-a", "isLatest": true,
            }));
            let outcome = deliver(&stage, &registration(&peer, true), &attachment)
                .await
                .unwrap();

            let created = peer.project("shop", Some("2.4.0")).unwrap();
            let expected = Project {
                uuid: created.uuid.clone(),
                name: "shop".to_owned(),
                version: Some("2.4.0".to_owned()),
                tags: vec!["backend".to_owned(), "team-a".to_owned()],
                parent: Some(parent),
                is_latest: true,
                imports: 1,
                sboms: vec![sbom("1.6", "größe").into()],
                ..Project::default()
            };
            assert_eq!(created, expected);
            assert!(
                peer.projects()
                    .iter()
                    .all(|one| one.uuid != former || !one.is_latest)
            );
            let sent = &receipt(outcome)["sboms"][0];
            assert_eq!(sent["digest"], created.digests()[0].to_string());
            let told = (version >= V5).then(|| json!(created.uuid));
            assert_eq!(sent.get("project"), told.as_ref());
        }
    }

    #[tokio::test]
    async fn a_server_of_before_tags_and_latest_versions_takes_the_sbom_all_the_same() {
        let peer = peer((4, 8), &ALL);
        let registration = registration(&peer, true);
        Integrated::register(&http(), &registration).await.unwrap();
        let stage = with(stage(1), "sbom", &sbom("1.4", "a"));
        let inputs = json!({ "projectName": "shop", "projectTags": "a", "isLatest": true });
        deliver(&stage, &registration, &attachment(inputs))
            .await
            .unwrap();
        let project = peer.project("shop", None).unwrap();
        assert_eq!(
            (project.sboms.len(), project.tags.len(), project.is_latest),
            (1, 0, false)
        );
    }

    #[tokio::test]
    async fn cyclonedx_1_7_is_for_version_5() {
        for (version, fits) in [(V4, false), (V5, true)] {
            let peer = peer(version, &ALL);
            let stage = with(stage(1), "sbom", &sbom("1.7", "a"));
            let attachment = attachment(json!({ "projectName": "shop" }));
            let outcome = deliver(&stage, &registration(&peer, true), &attachment).await;
            assert_eq!(outcome.is_ok(), fits);
            if let Err(error) = outcome {
                assert_eq!(error.kind, Kind::Permanent);
                let expected = "Unrecognized specVersion 1.7; Dependency-Track takes CycloneDX up to 1.6, and from its version 5 on also 1.7";
                assert!(error.text.ends_with(expected), "{error}");
                // As it is with Dependency-Track.
                assert!(peer.project("shop", None).unwrap().sboms.is_empty());
            }
        }
    }

    #[tokio::test]
    async fn who_is_overtaken_finds_the_project_there() {
        let peer = peer(V5, &ALL);
        peer.overtake();
        let stage = with(stage(1), "sbom", &sbom("1.6", "a"));
        let attachment = attachment(json!({ "projectName": "shop" }));
        deliver(&stage, &registration(&peer, true), &attachment)
            .await
            .unwrap();
        assert_eq!(peer.project("shop", None).unwrap().sboms.len(), 1);
        // A look at the project, and two uploads.
        assert_eq!(peer.received().len(), 3);
    }

    #[tokio::test]
    async fn a_key_that_may_not_create_is_told_so_and_is_not_read_again() {
        let peer = peer(V4, &["BOM_UPLOAD"]);
        let stage = with(stage(1), "sbom", &sbom("1.6", "a"));
        let attachment = attachment(json!({ "projectName": "shop" }));
        let error = deliver(&stage, &registration(&peer, true), &attachment)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error.text.contains("needs one of PROJECT_CREATION_UPLOAD"),
            "{error}"
        );
        let error = deliver(&stage, &registration(&peer, false), &attachment)
            .await
            .unwrap_err();
        assert!(
            error.text.contains("The project could not be found"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_dependency_track_refuses_for_good_fails_for_good() {
        let peer = peer(V5, &ALL);
        let named = |name: &str| Project {
            name: name.to_owned(),
            ..Project::default()
        };
        peer.add(Project {
            is_closed: true,
            ..named("closed")
        });
        peer.add(Project {
            is_collection: true,
            ..named("collection")
        });
        for (inputs, expected) in [
            (json!({ "projectName": "closed" }), "Project access denied"),
            (
                json!({ "projectName": "collection" }),
                "BOM cannot be uploaded to a collection project",
            ),
            (
                json!({ "projectName": "a", "parentName": "nobody" }),
                "The parent project could not be found",
            ),
            (
                json!({ "projectName": "b", "parentName": "closed" }),
                "Project access denied",
            ),
        ] {
            let stage = with(stage(1), "sbom", &sbom("1.6", "a"));
            let error = deliver(&stage, &registration(&peer, true), &attachment(inputs))
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::Permanent);
            assert!(error.text.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_retry_sends_what_was_refused_and_nothing_else() {
        let peer = peer(V4, &ALL);
        let registration = registration(&peer, true);
        let attachment = attachment(json!({ "projectName": "{{ material.name }}" }));
        let stage = with(stage(1), "bad", b"{\"bomFormat\":\"other\"}");
        let mut stage = with(
            with(stage, "one", &sbom("1.5", "one")),
            "two",
            &sbom("1.6", "two"),
        );
        let error = deliver(&stage, &registration, &attachment)
            .await
            .unwrap_err();
        assert!(
            error
                .text
                .starts_with("upload the SBOM \"bad\" to the project \"bad\": "),
            "{error}"
        );
        let before = peer.received().len();

        stage.progress = stage.recorded.take().into_iter().collect();
        let error = deliver(&stage, &registration, &attachment)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(peer.received().len(), before + 1);
        for name in ["one", "two"] {
            assert_eq!(peer.project(name, None).unwrap().sboms.len(), 1);
        }
    }

    #[tokio::test]
    async fn a_project_ends_with_the_newest_sbom_whatever_the_order() {
        let peer = peer(V5, &ALL);
        let registration = registration(&peer, true);
        let attachment = attachment(json!({ "projectName": "shop" }));
        let notes = std::cell::RefCell::default();
        for (minute, name, is_sent) in [
            (2, "b", true),
            (1, "a", false),
            (3, "b", false),
            (4, "d", true),
        ] {
            let stage = with(stage(minute), "sbom", &sbom("1.6", name));
            stage.notes.swap(&notes);
            let outcome = deliver(&stage, &registration, &attachment).await.unwrap();
            assert_eq!(
                matches!(outcome, Outcome::Delivered(_)),
                is_sent,
                "{outcome:?}"
            );
            stage.notes.swap(&notes);
        }
        let project = peer.project("shop", None).unwrap();
        let expected = ["b", "d"].map(|name| Digest::of(&sbom("1.6", name)));
        assert_eq!(project.digests(), expected);
    }

    #[tokio::test]
    async fn tags_of_an_existing_project_change_for_who_may_change_them() {
        for (permissions, expected) in [
            (&["BOM_UPLOAD"][..], "old"),
            (&["BOM_UPLOAD", "PORTFOLIO_MANAGEMENT_UPDATE"], "new"),
        ] {
            let peer = peer(V5, permissions);
            let id = peer.add(Project {
                tags: vec!["old".to_owned()],
                ..Project::default()
            });
            let stage = with(stage(1), "sbom", &sbom("1.6", "a"));
            let attachment = attachment(json!({ "projectID": id, "projectTags": "new" }));
            deliver(&stage, &registration(&peer, false), &attachment)
                .await
                .unwrap();
            assert_eq!(peer.projects()[0].tags, [expected]);
        }
    }

    #[tokio::test]
    async fn a_delivery_is_followed_until_it_is_processed() {
        for version in [(4, 10), V4, V5] {
            let peer = peer(version, &ALL);
            peer.take_time(2);
            let registration = registration(&peer, true);
            let stage = with(stage(1), "sbom", &sbom("1.4", "a"));
            let attachment = attachment(json!({ "projectName": "shop" }));
            let receipt = receipt(deliver(&stage, &registration, &attachment).await.unwrap());
            let mut followed = Vec::new();
            for _ in 0..3 {
                followed.push(
                    Integrated::follow(&http(), &registration, &receipt)
                        .await
                        .unwrap(),
                );
            }
            let over = Map::from_iter([("completion".to_owned(), json!("processed"))]);
            assert_eq!(
                followed,
                [Followed::UnderWay, Followed::UnderWay, Followed::Over(over)]
            );
        }
    }

    #[tokio::test]
    async fn what_was_accepted_and_never_imported_is_told() {
        for version in [V4, V5] {
            let peer = peer(version, &ALL);
            let registration = registration(&peer, true);
            let attachment = attachment(json!({ "projectName": "shop" }));
            let good = with(stage(1), "sbom", &sbom("1.6", "a"));
            deliver(&good, &registration, &attachment).await.unwrap();
            peer.break_imports();
            let broken = with(stage(2), "sbom", &sbom("1.6", "b"));
            let outcome = deliver(&broken, &registration, &attachment).await.unwrap();
            let followed = Integrated::follow(&http(), &registration, &receipt(outcome)).await;
            let Ok(Followed::Over(over)) = followed else {
                panic!("{followed:?}")
            };
            assert_eq!(over["completion"], "failed", "{over:?}");
        }
    }

    #[tokio::test]
    async fn a_project_that_was_deleted_gets_its_sbom_again() {
        for version in [V4, V5] {
            let peer = peer(version, &ALL);
            let registration = registration(&peer, true);
            let attachment = attachment(json!({ "projectName": "shop" }));
            let deliver = async |minute| {
                let stage = with(stage(minute), "sbom", &sbom("1.6", "a"));
                deliver(&stage, &registration, &attachment).await.unwrap()
            };
            receipt(deliver(1).await);
            peer.delete(&peer.project("shop", None).unwrap().uuid);
            receipt(deliver(2).await);
            assert_eq!(peer.project("shop", None).unwrap().sboms.len(), 1);
        }
    }

    #[tokio::test]
    async fn a_large_sbom_arrives_whole() {
        let peer = peer(V4, &ALL);
        let components = vec![json!({ "name": "x".repeat(1_000) }); 20_000];
        let large =
            json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "components": components });
        let large = large.to_string().into_bytes();
        let stage = with(stage(1), "sbom", &large);
        let attachment = attachment(json!({ "projectName": "shop" }));
        deliver(&stage, &registration(&peer, true), &attachment)
            .await
            .unwrap();
        let digests = peer.project("shop", None).unwrap().digests();
        assert_eq!(digests, [Digest::of(&large)]);
    }
}
