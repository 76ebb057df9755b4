//! Speaks to one repository's registry: authenticates as it asks, follows where that is safe, and reads why it refuses.
//!
//! Credentials go to the registry and to the token service that it names, and nowhere else: not to where it
//! stores blobs, and not along with a redirect to another host.

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_auth::parser::ChallengeParser;
use serde::Deserialize;
use url::Url;

use super::Registration;
use super::reference::Repository;
use crate::http::{ANSWER_BYTES, Response, is_local, origin};
use crate::{Error, Http, Kind, SecretText};

/// A redirect leads to another one at most this often.
const HOPS: u8 = 3;

/// Most bytes shown of a registry's reason to refuse.
const REASON_BYTES: usize = 300;

pub struct Session<'a> {
    http: &'a Http,
    registration: &'a Registration,
    repository: Repository,
    now_unix: u64,
    /// As the registry last asked for it.
    authorization: Option<HeaderValue>,
    /// The password that a role got was refused, and it got another: that is done once.
    is_renewed: bool,
}

impl<'a> Session<'a> {
    pub fn new(http: &'a Http, registration: &'a Registration, now_unix: u64) -> Self {
        Self {
            http,
            registration,
            repository: registration.repository(http),
            now_unix,
            authorization: None,
            is_renewed: false,
        }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response, Error> {
        self.fetch(request, ANSWER_BYTES).await
    }

    /// Sends, and once more with a new authorization where the registry asks for one. A 401 after that is returned,
    /// unless a role can get another password.
    pub async fn fetch(
        &mut self,
        request: Request<Bytes>,
        most_bytes: usize,
    ) -> Result<Response, Error> {
        if !self.repository().is_at(request.uri()) {
            return self.http.fetch(request, most_bytes).await;
        }
        let response = self.authorized(request.clone(), most_bytes).await?;
        if response.status == StatusCode::UNAUTHORIZED && self.login(&response.headers).await? {
            let response = self.authorized(request.clone(), most_bytes).await?;
            return self.renewed(request, most_bytes, response).await;
        }
        self.renewed(request, most_bytes, response).await
    }

    async fn authorized(
        &self,
        mut request: Request<Bytes>,
        most_bytes: usize,
    ) -> Result<Response, Error> {
        if let Some(authorization) = &self.authorization {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        self.http.fetch(request, most_bytes).await
    }

    /// Logs in as the registry asks; `false` when that leads to nothing new.
    async fn login(&mut self, headers: &HeaderMap) -> Result<bool, Error> {
        let authorization = self.authorize(headers).await?;
        // What was refused already would be refused again, and may lock an account.
        let authorization = authorization.filter(|new| Some(new) != self.authorization.as_ref());
        let is_new = authorization.is_some();
        self.authorization = authorization.or(self.authorization.take());
        Ok(is_new)
    }

    /// Sends once more where a role's password was refused, which may have ended early. ECR says so by 403.
    async fn renewed(
        &mut self,
        request: Request<Bytes>,
        most_bytes: usize,
        response: Response,
    ) -> Result<Response, Error> {
        let is_refused = matches!(
            response.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        if !is_refused
            || self.is_renewed
            || self.authorization.is_none()
            || !self.registration.has_role()
        {
            return Ok(response);
        }
        self.is_renewed = true;
        let password = self.registration.password(self.http, true).await?;
        self.authorization = Some(basic(&password));
        self.authorized(request, most_bytes).await
    }

    /// Goes on to where an answer leads, which is heeded where blobs and tokens are read alone: registries keep these
    /// elsewhere. What the request says of who we are is not told to another host.
    pub async fn follow(
        &self,
        mut request: Request<Bytes>,
        mut response: Response,
    ) -> Result<Response, Error> {
        for _ in 0..HOPS {
            let Some(next) = location(request.uri(), &response.headers) else {
                return Ok(response);
            };
            if !is_redirect(response.status) {
                return Ok(response);
            }
            let here = Url::parse(&request.uri().to_string()).ok();
            let sender = here.as_ref().map(origin).unwrap_or_default();
            if here.is_none_or(|here| here.origin() != next.origin()) {
                request.headers_mut().remove(AUTHORIZATION);
            }
            *request.uri_mut() = uri(&next)?;
            let sent = self.http.send(request.clone()).await;
            response = sent.map_err(|error| error.sent_by(&sender))?;
        }
        Ok(response)
    }

    /// Returns the authorization that the registry asks for; `None` when it names no scheme that we know.
    async fn authorize(&mut self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Error> {
        match challenge(headers) {
            Some(Challenge::Bearer(bearer)) => self.token(&bearer).await.map(Some),
            Some(Challenge::Basic) => {
                let password = self.registration.password(self.http, false).await?;
                Ok(Some(basic(&password)))
            }
            None => Ok(None),
        }
    }

    /// Gets a token for this repository from the service that its registry named.
    async fn token(&mut self, bearer: &Bearer) -> Result<HeaderValue, Error> {
        let repository = self.repository();
        let unusable = |what: &str| {
            let registry = repository.registry();
            Error::permanent(format!(
                "log in to {registry}: it names a token service {what}"
            ))
        };
        let mut url = Url::parse(&bearer.realm)
            .ok()
            .filter(Url::has_host)
            .ok_or_else(|| unusable("that is not a URL"))?;
        url.set_fragment(None);
        if let Some(service) = &bearer.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let scope = bearer.scope(repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        let password = self.registration.password(self.http, false).await?;
        let request = Request::get(uri(&url)?)
            .header(AUTHORIZATION, basic(&password))
            .body(Bytes::new())
            .map_err(|_| unusable("that cannot be asked"))?;
        let doing = format!("get a token for {repository} from {}", origin(&url));
        let asked = match self.http.send(request.clone()).await {
            Ok(response) => self.follow(request, response).await,
            Err(error) => Err(error),
        };
        let response = asked.map_err(|error| self.elsewhere(&doing, &url, error))?;
        if response.status != StatusCode::OK {
            return Err(self.refusal(&doing, &response));
        }

        let none = || Error::permanent(format!("{doing}: the answer has none"));
        let answer: Token = serde_json::from_slice(&response.body).map_err(|_| none())?;
        let token = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or_else(none)?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| none())?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }

    /// Adds to an error that the registry named the place of it, and the probable cause if that is a mistake.
    pub fn elsewhere(&self, doing: &str, place: &Url, error: Error) -> Error {
        let repository = self.repository();
        if repository.has_origin(place) {
            return error;
        }
        let (asked, named) = (repository.origin(), origin(place));
        let start = format!("{doing}: ");
        let rest = error.text.strip_prefix(&start).unwrap_or(&error.text);
        let mut text =
            format!("{doing}: the registry was asked at {asked} and leads to {named}: {rest}");
        // A place of others that fails is no fault of the registry's.
        let is_refused = error.kind == Kind::Permanent && error.answer.is_none();
        let is_local = place.host().is_some_and(|host| is_local(&host));
        if is_refused || is_local || repository.has_host(place) {
            text.push_str(
                "; a registry behind a proxy knows its own address by the headers Host, X-Forwarded-Host and \
                 X-Forwarded-Proto",
            );
        }
        Error { text, ..error }
    }

    /// Returns the error for a refusal, with all that a person should know of it. `doing` completes "failed to …".
    pub fn refusal(&self, doing: &str, response: &Response) -> Error {
        let mut error = match response.check(doing, self.now_unix) {
            Err(error) => error,
            // A success where another was due.
            Ok(()) => Error::permanent(format!("{doing}: answered {}", response.status.as_u16()))
                .answer(response.answer()),
        };
        if code(response).as_deref() == Some("TOOMANYREQUESTS") && error.kind == Kind::Permanent {
            error.kind = Kind::Retryable {
                after: crate::http::retry_after(&response.headers, self.now_unix),
            };
        }
        // Something in the registry is gone, which need not be the registry.
        if error.kind == Kind::Gone {
            error.kind = Kind::Permanent;
        }
        if response.status == StatusCode::UNAUTHORIZED {
            error.text.push_str(match lacks_scope(&response.headers) {
                true => ": the provided credentials don't have write permissions",
                false => ": the provided credentials are invalid",
            });
        }
        if response.status == StatusCode::FORBIDDEN {
            error
                .text
                .push_str(": the provided credentials don't have write permissions");
        }
        for part in [reason(response), limits(response)].into_iter().flatten() {
            error.text.push_str(": ");
            error.text.push_str(&part);
        }
        if code(response).as_deref() == Some("NAME_UNKNOWN") {
            error.text.push_str("; create the repository first");
        }
        error
    }
}

/// Response of a token service: the token has either of two names.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the `Location` of a response, resolved against the URL it came from.
pub fn location(from: &http::Uri, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    Url::parse(&from.to_string()).ok()?.join(location).ok()
}

pub fn uri(url: &Url) -> Result<http::Uri, Error> {
    let unusable = || Error::permanent(format!("ask {}: not a valid URL", origin(url)));
    url.as_str().parse().map_err(|_| unusable())
}

/// A request without a body.
pub fn request(method: Method, url: &Url) -> Result<Request<Bytes>, Error> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri(url)?;
    Ok(request)
}

/// Of `user:password`.
fn basic(login: &SecretText) -> HeaderValue {
    let encoded = base64_simd::STANDARD.encode_to_string(login.expose());
    let mut value =
        HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 can be in a header");
    value.set_sensitive(true);
    value
}

/// Each challenge in an answer, with its parameters; of a header that ends in nonsense, what stands before it.
fn challenges(headers: &HeaderMap) -> impl Iterator<Item = http_auth::ChallengeRef<'_>> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| ChallengeParser::new(value).map_while(Result::ok))
}

fn param(challenge: &http_auth::ChallengeRef<'_>, wanted: &str) -> Option<String> {
    let mut params = challenge.params.iter();
    let (_, value) = params.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.to_unescaped())
}

/// Reports whether the registry knows us but does not permit the request.
fn lacks_scope(headers: &HeaderMap) -> bool {
    challenges(headers)
        .any(|challenge| param(&challenge, "error").as_deref() == Some("insufficient_scope"))
}

enum Challenge {
    Bearer(Bearer),
    Basic,
}

/// Address to get a token at, and its scope.
struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Bearer {
    /// To push, and what else the registry says that just this needs: some have an upload cancelled by those alone who
    /// may delete.
    fn scope(&self, repository: &Repository) -> String {
        let mut scope = format!("repository:{}:", repository.path());
        let asked = self.scope.as_deref().unwrap_or_default();
        let more = asked.strip_prefix(&scope).unwrap_or_default().split(',');
        let more = more.filter(|action| *action == "delete");
        scope.push_str(
            &["pull", "push"]
                .into_iter()
                .chain(more)
                .collect::<Vec<_>>()
                .join(","),
        );
        scope
    }
}

/// The way to authenticate: of several, by token, which shows the password to fewer.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut chosen = None;
    for challenge in challenges(headers) {
        if challenge.scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = param(&challenge, "realm")
        {
            return Some(Challenge::Bearer(Bearer {
                realm,
                service: param(&challenge, "service").filter(|service| !service.is_empty()),
                scope: param(&challenge, "scope"),
            }));
        }
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            chosen = Some(Challenge::Basic);
        }
    }
    chosen
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn fault(response: &Response) -> Option<Fault> {
    let errors: Errors = serde_json::from_slice(&response.body).ok()?;
    errors.errors.into_iter().next()
}

/// The registry's word for what is wrong. Not every answer has one: some are a proxy's.
pub fn code(response: &Response) -> Option<String> {
    fault(response).map(|fault| fault.code)
}

/// The registry's own words, where they are words and not a page.
fn reason(response: &Response) -> Option<String> {
    let text = match fault(response) {
        Some(Fault { code, message }) if !code.is_empty() && !message.is_empty() => {
            format!("{code}: {message}")
        }
        Some(Fault { code, message }) => code + &message,
        None if response.body.trim_ascii_start().starts_with(b"<")
            || response.body.len() > REASON_BYTES =>
        {
            return None;
        }
        None => String::from_utf8_lossy(&response.body).into_owned(),
    };
    let mut text = response.excerpt(text.as_bytes());
    text.truncate(text.floor_char_boundary(REASON_BYTES));
    (!text.is_empty()).then_some(text)
}

/// Returns the number of requests that a registry still allows, and its limit, as Docker Hub names them.
fn limits(response: &Response) -> Option<String> {
    let shown: Vec<String> = ["ratelimit-limit", "ratelimit-remaining"]
        .into_iter()
        .filter_map(|name| {
            Some(format!(
                "{name} {}",
                response.excerpt(response.headers.get(name)?.as_bytes())
            ))
        })
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}
