//! Assumes a role, by AWS's Security Token Service.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use attestation::Digest;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::Value;

use super::{RoleArn, is_like};
use crate::caller::{AccessKey, Caller, Purpose, sign};
use crate::http::Response;
use crate::{Error, Http, Kind, SecretText};

/// Most bytes shown of a reason to refuse.
const REASON_BYTES: usize = 400;

impl Http {
    /// What a role is assumed for; refused without a request where the stack does not permit it.
    pub(crate) fn purpose(&self, role: &RoleArn, policy: &Value) -> Result<Purpose, Error> {
        let assumable = &self.caller()?.assumable;
        if !is_like(role.as_str(), assumable) {
            return Err(Error::permanent(format!(
                "assume {role}: the stack's parameter AssumableRoles permits {assumable} alone"
            )));
        }
        let external_id = self.external_id.as_deref().ok_or_else(|| {
            Error::permanent(format!(
                "assume {role}: the organization has no external ID"
            ))
        })?;
        Ok(Purpose {
            external_id: external_id.to_owned(),
            role: role.to_string(),
            policy: policy.to_string(),
        })
    }

    /// Lends the role for an hour, or what is left of that.
    pub(crate) async fn assume(&self, purpose: &Purpose) -> Result<AccessKey, Error> {
        let caller = self.caller()?;
        let now = self.unix_secs();
        let key = match caller.cache.sessions.get(purpose, now) {
            Some(key) => key,
            None => {
                let (key, expires_at) = self.ask(caller, purpose, &purpose.external_id).await?;
                let sessions = &caller.cache.sessions;
                sessions.put(purpose.clone(), key.clone(), expires_at);
                key
            }
        };
        // Who repeats them to us must not have them shown.
        for secret in [Some(&key.secret), key.token.as_ref()]
            .into_iter()
            .flatten()
        {
            self.redactor().learn(secret.expose());
        }
        Ok(key)
    }

    /// Has the role assumed anew the next time: its session was refused.
    pub(crate) fn forget(&self, purpose: &Purpose) {
        if let Ok(caller) = self.caller() {
            caller.cache.sessions.forget(purpose);
        }
    }

    /// Assumes the role for a registration, which is refused where the role asks for no external ID: it would be
    /// everybody's who knows its name. So another ID than ours must be refused.
    pub(crate) async fn check_role(&self, purpose: &Purpose) -> Result<(), Error> {
        self.assume(purpose).await?;
        let other = Digest::of(purpose.external_id.as_bytes()).hex();
        match self.ask(self.caller()?, purpose, &other).await {
            Ok(_) => Err(Error::permanent(format!(
                "assume {0}: whoever names it may assume it; its trust policy has to require that sts:ExternalId is {1}",
                purpose.role, purpose.external_id
            ))),
            Err(error) if error.kind == Kind::Permanent && error.answer.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &self,
        caller: &Caller,
        purpose: &Purpose,
        external_id: &str,
    ) -> Result<(AccessKey, u64), Error> {
        let role = &purpose.role;
        let doing = format!("assume {role}");
        let request = request(caller, purpose, external_id)?;
        let digest = Digest::of(request.body());
        let request = sign(request, &digest, &caller.key, "sts", &caller.region)?;
        let response = self.send(request).await.map_err(|error| Error {
            text: format!("{doing}: {}", error.text),
            ..error
        })?;
        judge(&response, &doing, self.unix_secs(), external_id)?;
        let unreadable = || Error::retryable(format!("{doing}: the answer has no credentials"));
        read(&response).ok_or_else(unreadable)
    }
}

/// The POST as it goes out, but for the signature.
fn request(caller: &Caller, purpose: &Purpose, external_id: &str) -> Result<Request<Bytes>, Error> {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRole")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", &purpose.role)
        .append_pair("RoleSessionName", &session_name(&caller.session_name))
        .append_pair("ExternalId", external_id)
        .append_pair("Policy", &purpose.policy)
        .finish();
    Request::post(format!("{}/", caller.base("sts", &caller.region)))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body.into())
        .map_err(|error| Error::permanent("build the request to AWS").source(error))
}

/// Of 2 to 64 letters that AWS takes.
fn session_name(text: &str) -> String {
    let mut name = text.replace(
        |letter: char| !(letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter)),
        "-",
    );
    name.truncate(64);
    name
}

/// Text of the first element of this name.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text)
}

fn read(response: &Response) -> Option<(AccessKey, u64)> {
    let body = std::str::from_utf8(&response.body).ok()?;
    let text = |name| {
        let text = element(body, name)?;
        // They become headers.
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| text.to_owned())
    };
    let key = AccessKey {
        id: text("AccessKeyId")?,
        secret: SecretText::from(text("SecretAccessKey")?),
        token: Some(SecretText::from(text("SessionToken")?)),
    };
    let expires_at: Timestamp = text("Expiration")?.parse().ok()?;
    Some((key, u64::try_from(expires_at.as_second()).ok()?))
}

fn judge(response: &Response, doing: &str, now: u64, external_id: &str) -> Result<(), Error> {
    let Err(mut error) = response.check(doing, now) else {
        return Ok(());
    };
    let body = String::from_utf8_lossy(&response.body);
    let code = element(&body, "Code").unwrap_or_default().to_owned();
    if let Some(message) = element(&body, "Message") {
        let mut shown = response.excerpt(message.as_bytes());
        shown.truncate(shown.floor_char_boundary(REASON_BYTES));
        error.text = format!("{}: {shown}", error.text);
    }
    match code.as_str() {
        "AccessDenied" => {
            error.text = format!(
                "{}; its trust policy has to permit sts:AssumeRole to this function's role where sts:ExternalId is \
                 {external_id}",
                error.text
            );
        }
        // Ours, or too many at once: neither says anything of the role.
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "Throttling"
        | "RequestExpired" => {
            error.kind = Kind::Retryable { after: None };
        }
        _ => {}
    }
    Err(error)
}
