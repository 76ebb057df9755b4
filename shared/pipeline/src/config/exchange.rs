//! Exchanges: a JWT of an issuer, or a token, for a token that lives an hour at most and may no more.
//!
//! Nothing is kept of a JWT but that it was exchanged, so that it is exchanged once. What comes from an exchange is not
//! exchanged again, and is never an admin's, who could make a token without an end.

use std::time::Duration;

use api::inputs::Fault;
use api::issuers::is_narrower;
use api::names::is_label;
use api::tokens::{EXCHANGED_MOST_SECS, Exchange, VALID_SECS};
use api::workflows::Selector;
use api::{Action, Actor, Client, OrganizationName, Role, Timestamp};
use attestation::Digest;
use verify::{Jwt, JwtFault};

use crate::config::quotas::{self, Exceeded};
use crate::config::tokens::{self, CreatedToken};
use crate::config::{issuers, keys, last_use, pace};
use crate::records::audit_log::{Act, Subject};
use crate::store::ids;
use crate::store::meter::Used;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{self, ExchangedJwt, Token};

/// Characters of a JWT's subject that the audit log keeps.
const SUBJECT_CHARS: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("nobody has this token")]
    TokenUnknown,
    #[error("the organization has no issuer {0:?}")]
    IssuerUnknown(String),
    #[error("{}", jwt_fault(.0))]
    Jwt(JwtFault),
    #[error("the issuer's keys are being fetched: try again in a few seconds")]
    KeysPending,
    #[error("no rule of the issuer fits the claims of the JWT")]
    NoRule,
    #[error("the {0} of the token may be no more than what is exchanged for it")]
    NotNarrower(&'static str),
    #[error(
        "it was exchanged already, or comes from an exchange itself: get a new JWT, or exchange a token that somebody \
         created"
    )]
    AlreadyExchanged,
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

fn jwt_fault(fault: &JwtFault) -> String {
    let text = match fault {
        JwtFault::Malformed(why) => return format!("the JWT {why}"),
        JwtFault::Algorithm => "is signed neither by RS256 nor by ES256",
        JwtFault::Audience => {
            "is for another audience than the issuer's, as `chainloop trust issuer describe` shows it"
        }
        JwtFault::Expired => "has expired",
        JwtFault::TooOld => "was issued more than 15 minutes ago: exchange it when the job begins",
        JwtFault::NotYetValid => "is not valid yet: compare the clocks",
        JwtFault::KeyUnknown => "is signed by a key that the issuer does not have",
        JwtFault::Signature => "has a signature that is not by the issuer's key",
    };
    format!("the JWT {text}")
}

impl From<quotas::Error> for Error {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => Self::Exceeded(exceeded),
            quotas::Error::Unreachable(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

impl From<JwtFault> for Error {
    fn from(fault: JwtFault) -> Self {
        Self::Jwt(fault)
    }
}

/// A JWT or token that is exchanged: the most that the new token may be.
struct Exchanged {
    organization: OrganizationName,
    /// A label.
    name: String,
    /// ID of the token that is exchanged.
    id: Option<String>,
    role: Role,
    workflows: Vec<Selector>,
    valid_until: Option<Timestamp>,
    row: rows::Exchange,
    /// Written together with the token, or the exchange was made before.
    jwt: Option<ExchangedJwt>,
    /// Tells in the audit log of a JWT what it was.
    detail: String,
}

fn faults(wanted: &Exchange) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, detail: &str| {
        faults.push(Fault {
            field: field.into(),
            detail: detail.into(),
        });
    };
    match (&wanted.jwt, &wanted.token, &wanted.organization) {
        (Some(_), None, None) => fault("organization", "is needed with a JWT"),
        (Some(_), None, Some(_)) | (None, Some(_), None) => {}
        (None, Some(_), Some(_)) => fault("organization", "goes with `jwt`: a token has its own"),
        _ => fault("jwt", "give either `jwt` or `token`"),
    }
    let named = wanted.organization.as_ref();
    if named.is_some_and(|name| !is_label(name)) {
        fault("organization", "is no name of an organization");
    }
    let valid = *VALID_SECS.start()..=EXCHANGED_MOST_SECS;
    let secs = wanted.expires_in_secs;
    if secs.is_some_and(|secs| !valid.contains(&secs)) {
        fault("expires_in_secs", "must be from a minute to an hour");
    }
    faults
}

/// Exchanges a JWT or a token. The platform's randomness must be the operating system's.
pub async fn exchange(
    platform: &impl Platform,
    wanted: Exchange,
    client: &Client,
    action: &'static str,
) -> Result<CreatedToken, Error> {
    let faults = faults(&wanted);
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let exchanged = match (&wanted.jwt, &wanted.organization, &wanted.token) {
        (Some(jwt), Some(organization), _) => {
            by_jwt(Scope::new(platform, organization), jwt).await?
        }
        (_, _, Some(token)) => by_token(platform, token).await?,
        _ => unreachable!("checked above"),
    };
    let role = wanted.role.unwrap_or(exchanged.role);
    if !exchanged.role.covers(role) {
        return Err(Error::NotNarrower("role"));
    }
    let fault = |field: &str, detail: &str| {
        Error::Faults(vec![Fault {
            field: field.into(),
            detail: detail.into(),
        }])
    };
    if role.may(Action::Administer) {
        return Err(fault("role", "must be given, and not be admin"));
    }
    let workflows = match wanted.workflows.is_empty() {
        true => exchanged.workflows,
        false => {
            let workflows = tokens::workflows(&wanted.workflows, role);
            let workflows = workflows.map_err(|fault| Error::Faults(vec![fault]))?;
            if !is_narrower(&exchanged.workflows, &workflows) {
                return Err(Error::NotNarrower("workflows"));
            }
            workflows
        }
    };
    let organization = exchanged.organization;
    let scope = Scope::new(platform, &organization);
    let is_counted = exchanged.jwt.is_some();
    match &exchanged.id {
        // Of one token's exchanges no other notices anything.
        Some(id) => {
            let actor = Actor {
                id: id.clone(),
                ..Actor::named(&exchanged.name)
            };
            pace::take(scope, &actor).await?;
            last_use::note_token(scope, &actor, client).await;
        }
        None => quotas::daily(scope, Used::EXCHANGE).await?,
    }
    let now = platform.now();
    let secs = wanted.expires_in_secs.unwrap_or(EXCHANGED_MOST_SECS);
    let until = now.plus(Duration::from_secs(secs));
    let text = tokens::text(platform, tokens::prefix(&workflows));
    let token = Token {
        hash: tokens::hash(&text),
        id: ids::random(platform),
        organization: organization.clone(),
        name: exchanged.name.clone(),
        role,
        workflows,
        created_by: exchanged.name.clone(),
        created_at: now,
        valid_until: Some(exchanged.valid_until.map_or(until, |own| own.min(until))),
        revoked_at: None,
        rotated_at: None,
        previous: None,
        exchange: Some(exchanged.row),
    };
    let actor = Actor {
        id: exchanged.id.unwrap_or_else(|| token.id.clone()),
        client: client.clone(),
        ..Actor::named(&exchanged.name)
    };
    let act = Act {
        actor: &actor,
        action,
    };
    let subject = Subject::new(&token.name, &token.id);
    let detail = tokens::told(&token) + &exchanged.detail;
    let once = exchanged.jwt.iter();
    let once = once.map(|jwt| rows::insert(platform, jwt).0);
    let mut writes: Vec<Write> = once.collect();
    writes.push(rows::insert(platform, &token).0);
    writes.push(act.entry(scope, subject, detail));
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::AlreadyExchanged);
    }
    if is_counted {
        quotas::count(scope, &Digest::of(token.hash.as_bytes()), Used::EXCHANGE).await;
    }
    Ok(CreatedToken { text, token })
}

async fn by_token(platform: &impl Platform, text: &str) -> Result<Exchanged, Error> {
    let token = tokens::find(platform, text).await?;
    let token = token.ok_or(Error::TokenUnknown)?;
    if token.exchange.is_some() {
        return Err(Error::AlreadyExchanged);
    }
    Ok(Exchanged {
        organization: token.organization,
        name: token.name,
        id: Some(token.id),
        role: token.role,
        workflows: token.workflows,
        valid_until: token.valid_until,
        row: rows::Exchange {
            token: Some(token.hash),
        },
        jwt: None,
        detail: String::new(),
    })
}

async fn by_jwt(scope: Scope<'_, impl Platform>, text: &str) -> Result<Exchanged, Error> {
    let now = scope.platform.now();
    let jwt = Jwt::parse(text)?;
    let named = jwt.issuer().to_owned();
    let issuers = issuers::all(scope).await?.into_iter();
    let mut issuers = issuers.map(|stored| stored.row);
    let issuer = issuers.find(|row| row.issuer == named);
    let Some(issuer) = issuer else {
        return Err(Error::IssuerUnknown(printable(&named)));
    };
    jwt.check(&issuer.audience, now)?;
    let keys = keys::find(scope, &issuer.id, jwt.key_id()).await?;
    let keys = keys.ok_or(Error::KeysPending)?;
    // A digest of two digests: no text of one is taken for the other's.
    let parts = [&named, jwt.id()].map(|part| Digest::of(part.as_bytes()).hex());
    let hash = Digest::of(parts.concat().as_bytes()).hex();
    // A sign-in's own: who may write a job can have its JWT made for any audience, and with the groups of whoever runs it.
    let is_persons = jwt.nonce().is_some();
    let claims = jwt.verify(&keys)?;
    let mut rules = issuer.rules.into_iter();
    let rule = rules.find(|rule| {
        let is_for_all = rule.role != Role::Operator;
        (is_for_all || is_persons) && rule.fits(|name| claims.texts(name))
    });
    let rule = rule.ok_or(Error::NoRule)?;
    let subject = claims.text("sub").unwrap_or_default();
    Ok(Exchanged {
        organization: issuer.organization,
        name: issuer.name,
        id: None,
        role: rule.role,
        workflows: rule.workflows,
        valid_until: None,
        row: rows::Exchange { token: None },
        jwt: Some(ExchangedJwt { hash, at: now }),
        detail: format!(", for {}", printable(&subject)),
    })
}

/// A text of a stranger's, short and printable.
fn printable(text: &str) -> String {
    let printable = |letter: char| match letter {
        '"' | '{' | '}' => '?',
        ' '..='~' => letter,
        _ => '?',
    };
    text.chars().take(SUBJECT_CHARS).map(printable).collect()
}
