//! Dependency-Track's REST API: what is asked, and how its answers are read. It is the same in versions 4 and 5 but
//! for what is said where it matters.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::inputs::{Instance, Registration};
use super::project::Place;
use crate::http::{Response, origin};
use crate::{About, Content, Error, Http, Kind, Warnings, text};

pub(super) const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Any of these lets an upload create its project.
const CREATE: [&str; 3] = [
    "PROJECT_CREATION_UPLOAD",
    "PORTFOLIO_MANAGEMENT",
    "PORTFOLIO_MANAGEMENT_CREATE",
];

impl Instance {
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        url
    }

    fn origin(&self) -> String {
        origin(&self.0)
    }
}

/// Puts what was being done in front.
pub(super) fn within(doing: &str, error: Error) -> Error {
    Error {
        text: format!("{doing}: {}", error.text),
        ..error
    }
}

fn invalid(error: http::Error) -> Error {
    Error::permanent("build a request to Dependency-Track").source(error)
}

async fn get(
    http: &Http,
    registration: &Registration,
    doing: &str,
    url: Url,
) -> Result<Response, Error> {
    let request = Request::get(url.as_str())
        .header(KEY, registration.api_key.header())
        .body(Bytes::new())
        .map_err(invalid)?;
    let sent = http.send(request).await;
    sent.map_err(|error| within(doing, error))
}

/// Checks that the instance is Dependency-Track. Sends no key: no other server may get it.
pub(super) async fn version(http: &Http, registration: &Registration) -> Result<(), Error> {
    let instance = &registration.instance_uri;
    let doing = format!("ask {} for its version", instance.origin());
    let request = Request::get(instance.url(&["version"]).as_str())
        .body(Bytes::new())
        .map_err(invalid)?;
    let response = http
        .send(request)
        .await
        .map_err(|error| within(&doing, error))?;
    let checked = check(&response, &doing, http.unix_secs());
    let another =
        "instanceURI has to be the address of Dependency-Track's API server, not of its frontend";
    checked.map_err(|error| match error.kind {
        Kind::Permanent => hint(error, another),
        _ => error,
    })?;
    let about: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let is_it = about["application"]
        .as_str()
        .is_some_and(|name| name.starts_with("Dependency-Track"));
    if !is_it {
        let text = format!("{doing}: what answers there is not Dependency-Track; {another}");
        return Err(Error::permanent(text).answer(response.answer()));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Team {
    #[serde(default)]
    name: String,
    #[serde(default)]
    permissions: Vec<Permission>,
}

#[derive(Deserialize)]
struct Permission {
    name: String,
}

/// Checks that the key may do what deliveries need, and warns of permissions that it may lack.
pub(super) async fn permissions(
    http: &Http,
    registration: &Registration,
) -> Result<Warnings, Error> {
    let doing = "ask Dependency-Track what the key may do";
    let url = registration.instance_uri.url(&["v1", "team", "self"]);
    let response = get(http, registration, doing, url).await?;
    let answer = response.answer();
    match response.status.as_u16() {
        404 => {
            let text = format!(
                "{doing}: the key has no team; give it one that has {}",
                needed(registration, |_| false)
            );
            return Err(Error::permanent(text).answer(answer));
        }
        // Version 4 with its authentication turned off: everybody may do everything.
        200 if response.body.trim_ascii().is_empty() => return Ok(Warnings::new()),
        _ => check(&response, doing, http.unix_secs())?,
    }
    let Ok(team) = serde_json::from_slice::<Team>(&response.body) else {
        let text = format!("{doing}: the answer cannot be read");
        return Err(Error::permanent(text).answer(answer));
    };
    let has = |name: &str| {
        team.permissions
            .iter()
            .any(|permission| permission.name == name)
    };
    let missing = needed(registration, has);
    // Of several teams' permissions these are the first team's, so that what is not among them is not always missing.
    // But a team with some permissions and not this one is hardly meant for uploads.
    if !team.permissions.is_empty() && !has("BOM_UPLOAD") {
        let name = text::line(&team.name, 64, true);
        let text = format!(
            "{doing}: its team {name:?} lacks permissions; grant it {missing} (of a key with several \
             teams, Dependency-Track shows the first one alone: the permissions have to be there)"
        );
        return Err(Error::permanent(text).answer(answer));
    }
    let mut warnings = Warnings::new();
    if !missing.is_empty() {
        warnings.push(format!(
            "the API key's team does not show {missing}: what needs it will fail, unless another team of the key has it"
        ));
    }
    if !has("VIEW_PORTFOLIO") {
        warnings.push(
            "the API key's team does not show VIEW_PORTFOLIO: without it nobody learns whether an accepted SBOM was \
             imported or its project deleted"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// Returns the needed permissions that are missing.
fn needed(registration: &Registration, has: impl Fn(&str) -> bool) -> String {
    let mut missing = Vec::new();
    if !has("BOM_UPLOAD") {
        missing.push("BOM_UPLOAD".to_owned());
    }
    if registration.allow_auto_create && !CREATE.iter().any(|name| has(name)) {
        missing.push(format!("one of {}", CREATE.join(", ")));
    }
    missing.join(" and ")
}

/// A project, as Dependency-Track shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    /// When it imported an SBOM last, in whatever form; null before the first.
    #[serde(rename = "lastBomImport", default)]
    pub(super) last_import: Value,
}

/// A project, as far as the key sees it.
#[derive(Debug)]
pub(super) enum Sight {
    There(Shown),
    Absent,
    /// The key lacks a permission that an upload does not need.
    Hidden,
}

pub(super) async fn look(
    http: &Http,
    registration: &Registration,
    place: &Place,
) -> Result<Sight, Error> {
    match find(http, registration, "project", place).await {
        Ok(Some(shown)) => Ok(Sight::There(shown)),
        Ok(None) => Ok(Sight::Absent),
        Err(error) if error.kind == Kind::Permanent => Ok(Sight::Hidden),
        Err(error) => Err(error),
    }
}

/// The project, if there is one.
pub(super) async fn find(
    http: &Http,
    registration: &Registration,
    what: &str,
    place: &Place,
) -> Result<Option<Shown>, Error> {
    let instance = &registration.instance_uri;
    let url = match place {
        Place::Id(id) => instance.url(&["v1", "project", &id.to_string()]),
        Place::Named { name, version } => {
            let mut url = instance.url(&["v1", "project", "lookup"]);
            url.query_pairs_mut().append_pair("name", name);
            if let Some(version) = version {
                url.query_pairs_mut().append_pair("version", version);
            }
            url
        }
    };
    let doing = format!("find the {}", called(what, place));
    let response = get(http, registration, &doing, url).await?;
    match response.status {
        StatusCode::NOT_FOUND => return Ok(None),
        StatusCode::FORBIDDEN => {
            let error = check(&response, &doing, http.unix_secs());
            error.map_err(|error| {
                hint(error, "the key needs the permission VIEW_PORTFOLIO and, under portfolio access control, access to the project")
            })?;
        }
        _ => check(&response, &doing, http.unix_secs())?,
    }
    serde_json::from_slice(&response.body)
        .map(Some)
        .map_err(|_| {
            let text = format!("{doing}: the answer cannot be read");
            Error::permanent(text).answer(response.answer())
        })
}

pub(super) async fn must_exist(
    http: &Http,
    registration: &Registration,
    what: &str,
    place: &Place,
) -> Result<(), Error> {
    match (find(http, registration, what, place).await?, place) {
        (Some(_), _) => Ok(()),
        (None, Place::Id(id)) => Err(Error::permanent(format!(
            "find it: {what} with ID \"{id}\" not found"
        ))),
        (None, _) => Err(Error::permanent(format!(
            "find the {}: there is none",
            called(what, place)
        ))),
    }
}

/// `project "shop" "1.2"`, `parent project "shop" "1.2"`.
fn called(what: &str, place: &Place) -> String {
    let place = place.to_string();
    let rest = place.strip_prefix("project").unwrap_or(&place);
    format!("{what}{rest}")
}

/// Asks for all, though another answers for an older version: it alone knows whether it is one.
pub(super) async fn is_processing(
    http: &Http,
    registration: &Registration,
    token: Uuid,
) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Progress {
        processing: bool,
    }

    let doing = "ask Dependency-Track whether it is done";
    let token = token.to_string();
    let ask = |of: &'static str| {
        let url = registration.instance_uri.url(&["v1", of, "token", &token]);
        get(http, registration, doing, url)
    };
    let mut response = ask("event").await?;
    if response.status == StatusCode::NOT_FOUND {
        // Before 4.11.
        response = ask("bom").await?;
    }
    check(&response, doing, http.unix_secs())?;
    match serde_json::from_slice::<Progress>(&response.body) {
        Ok(progress) => Ok(progress.processing),
        Err(_) => {
            let text = format!("{doing}: the answer cannot be read");
            Err(Error::retryable(text).answer(response.answer()))
        }
    }
}

/// As a form by hand: it has to have a known length and the same bytes each time, and the SBOM is read while it
/// is sent. Always as a form, since the other way, base64 in JSON, ends at 20 million letters.
pub(super) fn upload<'a>(
    registration: &Registration,
    boundary: &str,
    fields: &[(&str, String)],
    sbom: Content<'a>,
) -> Result<Request<Content<'a>>, Error> {
    let part = |name: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n")
    };
    let mut head = String::new();
    for (name, value) in fields {
        head.push_str(&part(name));
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str(&part("bom"));
    let content = Content::from(head)
        .followed_by(sbom)
        .bytes(format!("\r\n--{boundary}--\r\n"));
    Request::post(registration.instance_uri.url(&["v1", "bom"]).as_str())
        .header(
            CONTENT_TYPE,
            format!("multipart/form-data; boundary={boundary}"),
        )
        .header(KEY, registration.api_key.header())
        .body(content)
        .map_err(invalid)
}

/// Response to an accepted upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) token: Uuid,
    /// Told by version 5.
    pub(super) project: Option<Uuid>,
}

/// Two uploads wanted to create the same project, and the other one did. Said by version 5 alone.
pub(super) fn was_overtaken(response: &Response) -> bool {
    response.status == StatusCode::CONFLICT
}

pub(super) fn accepted(response: &Response, doing: &str, now: u64) -> Result<Accepted, Error> {
    if let Err(error) = check(response, doing, now) {
        return Err(refined(error, response));
    }
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let uuid = |key: &str| answer[key].as_str().and_then(|text| text.parse().ok());
    if let Some(token) = uuid("token") {
        let project = uuid("projectUuid");
        return Ok(Accepted { token, project });
    }
    let error = match response.truncated {
        true => Error::new(
            Kind::Indeterminate,
            format!("{doing}: the answer broke off"),
        ),
        false => Error::permanent(format!(
            "{doing}: answered {} without a token, which is not how Dependency-Track answers",
            response.status.as_u16()
        )),
    };
    Err(error.answer(response.answer()))
}

/// Corrects the kind where Dependency-Track means something else by its status, and adds a hint where the operator can
/// act.
fn refined(mut error: Error, response: &Response) -> Error {
    let said = response.excerpt(&response.body);
    match response.status.as_u16() {
        // Not the key is wrong, and it is not read again.
        401 if said.contains("permission to create project") => {
            error.kind = Kind::Permanent;
            let needs = format!("the key's team needs one of {}", CREATE.join(", "));
            hint(error, &needs)
        }
        400 if said.contains("specVersion") || error.text.contains("specVersion") => hint(
            error,
            "Dependency-Track takes CycloneDX up to 1.6, and from its version 5 on also 1.7",
        ),
        403 => hint(
            error,
            "the key needs the permission BOM_UPLOAD and, under portfolio access control, access to the project, \
             its parent and its version that was the latest",
        ),
        // The project is there now, whoever made it: later it will be taken.
        409 => {
            error.kind = Kind::Retryable { after: None };
            error.about(About::Delivery)
        }
        413 => hint(
            error,
            "a proxy in front of Dependency-Track limits the size of what is uploaded",
        ),
        _ => error,
    }
}

/// As [`Response::check`], with what Dependency-Track says about it.
fn check(response: &Response, doing: &str, now: u64) -> Result<(), Error> {
    response.check(doing, now).map_err(|mut error| {
        let said = said(response);
        if !said.is_empty() {
            error.text = format!("{}: {said}", error.text);
        }
        error
    })
}

/// With what can be done about it.
pub(super) fn hint(mut error: Error, hint: &str) -> Error {
    error.text = format!("{}; {hint}", error.text);
    error
}

/// As much of it as is shown to an operator.
const ERRORS: usize = 5;
const SHOWN: usize = 200;

/// RFC 9457, with what the validation of an SBOM found.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Value>,
}

/// Returns the words of the response: a problem's, or a line of text. HTML pages, which a proxy sends, have none.
fn said(response: &Response) -> String {
    let shown = |text: &str| {
        let text = response.excerpt(text.as_bytes());
        text::line(text.trim_end_matches('.'), SHOWN, true)
    };
    let kind = response.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.contains("html") {
        return String::new();
    }
    let Ok(problem) = serde_json::from_slice::<Problem>(&response.body) else {
        return shown(&String::from_utf8_lossy(&response.body));
    };
    let count = problem.errors.len();
    let errors = problem.errors.iter().take(ERRORS).map(|error| match error {
        Value::String(error) => shown(error),
        other => shown(&other.to_string()),
    });
    let more = (count > ERRORS).then(|| format!("and {} more", count - ERRORS));
    let errors: Vec<String> = errors.chain(more).collect();
    [
        shown(&problem.title),
        shown(&problem.detail),
        errors.join(", "),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join(": ")
}
