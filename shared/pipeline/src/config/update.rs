//! Changes what is registered and what is attached, which keep their ids: what waits is delivered by what they are
//! then.
//!
//! The whole is checked as it is at registration, before anything is kept. Secret inputs become a further version of
//! the secret, which nobody reads before the registration's row names it: so what is secret and what is not change
//! in one write, and a change that was cut off is none.

use api::AttachmentId;
use api::inputs::Fault;
use integrations::inputs;
use integrations::{Description, Warnings};
use serde_json::{Map, Value};
use tracing::warn;

use crate::config::check::{self, Check};
use crate::config::{self, Error, Precondition, attach, external_id, register};
use crate::ledger::breaker;
use crate::records::audit_log::{Act, Subject};
use crate::store::platform::{
    self, Etag, Platform, Scope, SecretValue, UnlessConflict as _, Write, WriteError,
};
use crate::store::rows::{
    self, Attachment, CONFLICTS, Destination, Registration, RegistrationName, Stored, Version,
};

/// Changes to a registration.
#[derive(Debug, Clone, Default)]
pub struct RegistrationPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    /// A JSON merge patch (RFC 7396), with secret inputs among it. Without it the inputs are not looked at, and nobody
    /// is asked: a new name needs no third party that answers.
    pub inputs: Option<Map<String, Value>>,
    /// True if the change is only checked.
    pub dry_run: bool,
    /// The etag that the row has then, for a request that may come again: found there, it is done.
    pub mark: Option<Etag>,
}

/// Changes to an attachment.
#[derive(Debug, Clone, Default)]
pub struct AttachmentChange {
    /// As of a registration.
    pub inputs: Option<Map<String, Value>>,
    /// None within is the usual time.
    pub wait_secs: Option<Option<u64>>,
    pub dry_run: bool,
    /// As of a registration.
    pub mark: Option<Etag>,
}

/// Changes a registration. What it is changed from is what `only` allows; without that, whatever it is when it is
/// written.
pub async fn registration(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    change: &RegistrationPatch,
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Stored<Registration>, Warnings), Error> {
    let platform = scope.platform;
    let stored = config::find(scope, name_or_id).await?;
    apply(platform, stored, change, only, act).await
}

/// Replaces the secret inputs, all of them, after the third party has accepted the new ones. In-flight deliveries
/// go on: one that is answered 401 reads the registration and its secret again.
pub async fn rotate(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    secrets: Map<String, Value>,
    act: Act<'_>,
) -> Result<(Stored<Registration>, Warnings), Error> {
    let platform = scope.platform;
    let stored = config::find(scope, name_or_id).await?;
    let description = description(&stored.row.integration)?;
    let schema = (description.registration_schema)();
    let (plain, secrets) = inputs::split(&schema, secrets);
    let mut faults: Vec<Fault> = plain
        .keys()
        .map(|field| fault(field, "is not a secret input"))
        .collect();
    faults.extend(left_out(&stored.row, &secrets));
    if faults.is_empty() && secrets.is_empty() {
        faults = (description.check_registration)(&stored.row.config);
    }
    if faults.is_empty() && secrets.is_empty() {
        faults.push(fault(
            "inputs",
            "must have the registration's secret inputs",
        ));
    }
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let change = RegistrationPatch {
        inputs: Some(secrets),
        ..RegistrationPatch::default()
    };
    let any = Precondition::default();
    apply(platform, stored, &change, &any, act).await
}

fn fault(field: &str, detail: &str) -> Fault {
    Fault {
        field: field.to_owned(),
        detail: detail.to_owned(),
    }
}

fn description(integration: &str) -> Result<&'static Description, Error> {
    integrations::find(integration).ok_or_else(|| Error::NoIntegration(integration.to_owned()))
}

/// The secret inputs that are there and not among these. The old ones are not read here, nothing but a delivery
/// function may, and one secret holds them all.
fn left_out(row: &Registration, secrets: &Map<String, Value>) -> Vec<Fault> {
    let detail = "is missing: secret inputs are replaced all together";
    let left_out = row
        .label
        .keys()
        .filter(|field| !secrets.contains_key(*field));
    left_out.map(|field| fault(field, detail)).collect()
}

/// Returns a fault for each stored secret input, since it was given for another destination.
fn kept_back(row: &Registration, moved: &str) -> Vec<Fault> {
    let detail = format!("is wanted anew: where it is sent changes with {moved}");
    let secrets = row.label.keys();
    secrets.map(|field| fault(field, &detail)).collect()
}

/// Applies a merge patch to inputs, which are flat.
fn merge(inputs: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => inputs.remove(name),
            value => inputs.insert(name.clone(), value.clone()),
        };
    }
}

/// Faults of names that nobody knows, of which a patch wants to have none: a typing error, and no change.
fn unknown(
    check: fn(&Map<String, Value>) -> Vec<Fault>,
    schema: &Value,
    inputs: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Vec<Fault> {
    let mut names = patch.clone();
    names.retain(|name, value| {
        let is_known = !schema["properties"][name].is_null() || inputs.contains_key(name);
        value.is_null() && !is_known
    });
    let mut faults = check(&names);
    faults.retain(|fault| names.contains_key(&fault.field));
    faults
}

/// The names of inputs that are not what they were.
fn changed(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| old.get(*name) != new.get(*name));
    names
        .into_iter()
        .map(|name| format!("inputs.{name}"))
        .collect()
}

/// A registration's inputs as a patch makes them.
struct Whole {
    config: Map<String, Value>,
    /// All that there are from now on; none when the patch leaves them alone.
    secrets: Option<Map<String, Value>>,
    faults: Vec<Fault>,
    /// The organization's, where they name a role.
    external_id: Option<String>,
}

impl Whole {
    fn of(
        description: &Description,
        schema: &Value,
        row: &Registration,
        patch: &Map<String, Value>,
    ) -> Self {
        let check = description.check_registration;
        let mut faults = unknown(check, schema, &row.config, patch);
        let (plain, mut secrets) = inputs::split(schema, patch.clone());
        let mut config = row.config.clone();
        merge(&mut config, &plain);
        // Nothing is replaced where one is taken away that is not there.
        secrets.retain(|name, value| !value.is_null() || row.label.contains_key(name));
        // Whoever may change where they go may not thereby read them.
        if secrets.is_empty() && row.secret.is_some() {
            let moved = api::inputs::moved(schema, &row.config, &config);
            if !moved.is_empty() {
                faults.extend(kept_back(row, &moved.join(", ")));
            }
        }
        let secrets = (!secrets.is_empty()).then(|| {
            faults.extend(left_out(row, &secrets));
            secrets.retain(|_, value| !value.is_null());
            secrets
        });
        if secrets.is_some() || row.secret.is_none() {
            let mut whole = config.clone();
            whole.extend(secrets.clone().unwrap_or_default());
            let mut more = check(&whole);
            more.retain(|fault| faults.iter().all(|other| other.field != fault.field));
            faults.extend(more);
        }
        let mut all = config.clone();
        all.extend(secrets.clone().unwrap_or_default());
        faults.extend(config::size_fault(&all));
        Self {
            config,
            secrets,
            faults,
            external_id: None,
        }
    }

    /// Has the delivery function validate what cannot be here without the secret inputs that are kept, and ask the
    /// third party, unless something is wrong anyhow.
    async fn check(
        &mut self,
        platform: &impl Platform,
        row: &Registration,
        act: Act<'_>,
    ) -> Result<Warnings, Error> {
        let is_wrong = !self.faults.is_empty();
        let mut whole = self.config.clone();
        let check = match &self.secrets {
            None if row.secret.is_some() => Check::Update {
                organization: row.organization.clone(),
                registration: row.id.clone(),
                inputs: whole,
                external_id: self.external_id.clone(),
                only_validate: is_wrong,
            },
            _ if is_wrong => return Err(self.wrong(Vec::new())),
            secrets => {
                whole.extend(secrets.clone().unwrap_or_default());
                Check::Registration {
                    inputs: whole,
                    external_id: self.external_id.clone(),
                }
            }
        };
        let verdict = check::ask(
            Scope::new(platform, &row.organization),
            act.actor,
            &row.integration,
            &check,
        )
        .await?;
        match verdict.accepted() {
            Err(Error::Faults(more)) => Err(self.wrong(more)),
            Ok(_) if is_wrong => Err(self.wrong(Vec::new())),
            other => other,
        }
    }

    fn wrong(&mut self, more: Vec<Fault>) -> Error {
        let mut faults = std::mem::take(&mut self.faults);
        faults.extend(more);
        faults.sort_by(|a, b| a.field.cmp(&b.field));
        Error::Faults(faults)
    }
}

async fn apply(
    platform: &impl Platform,
    mut stored: Stored<Registration>,
    change: &RegistrationPatch,
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Stored<Registration>, Warnings), Error> {
    let mut checked = None;
    let mut warnings = Warnings::new();
    let mut version = None;
    for _ in 0..CONFLICTS {
        if change.mark.as_ref() == Some(&stored.version.etag) {
            return Ok((stored, warnings));
        }
        only.allow(&stored.version.etag)?;
        let mut row = stored.row.clone();
        let mut fields = Vec::new();
        if let Some(name) = change.name.as_ref().filter(|name| **name != row.name) {
            row.name.clone_from(name);
            fields.push("name".to_owned());
        }
        if let Some(description) = &change.description
            && *description != row.description
        {
            row.description.clone_from(description);
            fields.push("description".to_owned());
        }
        let wrong_name = (row.name != stored.row.name)
            .then(|| api::names::name_fault(&row.name))
            .flatten();
        let (organization, id) = (row.organization.clone(), row.id.clone());
        // Before anybody is asked: a taken name must not send a test message.
        let name = match (row.name == stored.row.name, &wrong_name) {
            (false, None) => {
                Some(register::free(Scope::new(platform, &organization), &row.name, None).await?)
            }
            _ => None,
        };
        let mut secrets = None;
        if let Some(patch) = &change.inputs {
            let description = description(&row.integration)?;
            let schema = (description.registration_schema)();
            let mut whole = Whole::of(description, &schema, &stored.row, patch);
            whole.faults.extend(wrong_name);
            let scope = Scope::new(platform, &organization);
            whole.external_id = external_id::of(scope, &whole.config).await?;
            let asked = (whole.config.clone(), row.secret_version.clone());
            // Somebody who paused it meanwhile changed nothing that the third party was asked about.
            if checked.as_ref() != Some(&asked) {
                warnings = whole.check(platform, &stored.row, act).await?;
                checked = Some(asked);
            }
            fields.extend(changed(&row.config, &whole.config));
            if let Some(all) = &whole.secrets {
                fields.extend(changed(&row.label, all));
                row.label = inputs::label(&schema, all);
            }
            row.config = whole.config;
            row.external_id = whole.external_id;
            description.version.clone_into(&mut row.version);
            secrets = whole.secrets;
        } else if let Some(fault) = wrong_name {
            return Err(Error::Faults(vec![fault]));
        }
        if change.dry_run || (fields.is_empty() && row.version == stored.row.version) {
            let version = stored.version;
            return Ok((Stored { row, version }, warnings));
        }
        if let Some(secrets) = secrets {
            let secret = Registration::secret_name(&organization, &row.integration, &id);
            let kept = match version.take() {
                Some(kept) => kept,
                None => keep(platform, &secret, &secrets).await?,
            };
            version = Some(kept.clone());
            row.secret_version = Some(kept);
            row.secret = Some(secret);
        }
        let (write, version) = marked(platform, &row, &stored.version, change.mark.as_ref());
        // By the name that it had; which fields changed, and nothing of what they are.
        let (subject, detail) = (Subject::registration(&stored.row), fields.join(", "));
        let scope = Scope::new(platform, &organization);
        let mut writes = vec![write, act.entry(scope, subject, detail)];
        if row.config != stored.row.config {
            writes.extend(register::certificates_end(scope, &row).await?);
        }
        if let Some(over) = name {
            // In the same write, so that neither is there without the other.
            writes.extend(rename(platform, &stored.row, &row, over).await?);
        }
        match platform.write(writes).await {
            Ok(()) => {
                forgive(scope, &stored.row, &row).await;
                return Ok((Stored { row, version }, warnings));
            }
            Err(WriteError::Conflict) if only.0.is_none() => {
                stored = config::live(Scope::new(platform, &organization), &id)
                    .await?
                    .ok_or_else(|| Error::NotFound(id.to_string()))?;
            }
            Err(error) => return Err(only.conflict(error)),
        }
    }
    Err(Error::Conflict)
}

/// Keeps secret inputs as a further version of their secret, and returns the version.
async fn keep(
    platform: &impl Platform,
    secret: &str,
    inputs: &Map<String, Value>,
) -> Result<String, platform::Unreachable> {
    let text = serde_json::to_string(inputs).expect("text keys and JSON values are JSON");
    let text = SecretValue::new(text);
    platform.put_secret(secret, &text).await
}

/// Forgets how deliveries failed with the inputs before. Should this be lost, the next that is accepted does it.
async fn forgive(scope: Scope<'_, impl Platform>, old: &Registration, new: &Registration) {
    if (&new.config, &new.secret_version) == (&old.config, &old.secret_version) {
        return;
    }
    let (platform, organization) = scope.parts();
    let key = Destination::at(organization, &new.id);
    let forgiven = async {
        let Some(mut stored) = rows::load::<Destination>(platform, &key).await? else {
            return Ok(());
        };
        rows::change(platform, &mut stored, |row| {
            let before = row.clone();
            breaker::forgive(row);
            (*row != before).then(Vec::new)
        })
        .await
        .map(|_| ())
    };
    if let Err::<(), platform::Unreachable>(error) = forgiven.await {
        warn!(registration.id = %new.id, %error, "Failures of the inputs before still count");
    }
}

/// A write of a row with its mark, if it is to have one.
fn marked<R: rows::Row>(
    platform: &impl Platform,
    row: &R,
    over: &Version,
    mark: Option<&Etag>,
) -> (Write, Version) {
    match mark {
        Some(mark) => rows::put_as(platform, row, Some(over), mark.clone()),
        None => rows::put(platform, row, Some(over)),
    }
}

/// Returns the writes that rename a registration.
async fn rename(
    platform: &impl Platform,
    old: &Registration,
    new: &Registration,
    over: Option<Version>,
) -> Result<Vec<Write>, platform::Unreachable> {
    let name = RegistrationName {
        organization: new.organization.clone(),
        name: new.name.clone(),
        registration: new.id.clone(),
        integration: new.integration.clone(),
        reserved_until: None,
        abandoned: false,
    };
    let mut writes = vec![rows::put(platform, &name, over.as_ref()).0];
    // Gone where somebody renamed it meanwhile, and then the registration's own row is not what it was, either.
    let key = RegistrationName::at(&old.organization, &old.name);
    if let Some(stored) = rows::load::<RegistrationName>(platform, &key).await? {
        writes.push(stored.delete());
    }
    Ok(writes)
}

/// Changes an attachment. Its workflow and its registration are what it is, and stay.
pub async fn attachment(
    scope: Scope<'_, impl Platform>,
    id: &AttachmentId,
    change: &AttachmentChange,
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Stored<Attachment>, Stored<Registration>, Warnings), Error> {
    let (platform, organization) = scope.parts();
    let mut checked = None;
    let mut warnings = Warnings::new();
    for _ in 0..CONFLICTS {
        let (stored, registration) = attach::find(scope, id).await?;
        if change.mark.as_ref() == Some(&stored.version.etag) {
            return Ok((stored, registration, warnings));
        }
        only.allow(&stored.version.etag)?;
        let mut row = stored.row.clone();
        let mut faults = Vec::new();
        let mut fields = Vec::new();
        if let Some(wait_secs) = change.wait_secs
            && wait_secs != row.wait_secs
        {
            faults.extend(attach::wrong_wait(wait_secs));
            row.wait_secs = wait_secs;
            fields.push("wait_secs".to_owned());
        }
        let mut writes = Vec::new();
        if let Some(patch) = &change.inputs {
            let description = description(&row.integration)?;
            let check = description.check_attachment;
            let schema = (description.attachment_schema)();
            faults.extend(unknown(check, &schema, &row.config, patch));
            merge(&mut row.config, patch);
            faults.extend(check(&row.config));
            faults.extend(config::size_fault(&row.config));
            fields.extend(changed(&stored.row.config, &row.config));
            // It was checked with the registration as it is.
            writes.push(registration.check());
        }
        if !faults.is_empty() {
            faults.sort_by(|a, b| a.field.cmp(&b.field));
            return Err(Error::Faults(faults));
        }
        let of = &registration.row;
        let asked = (of.config.clone(), of.secret_version.clone());
        if change.inputs.is_some() && checked.as_ref() != Some(&asked) {
            let check = Check::Attachment {
                organization: organization.to_owned(),
                registration: of.id.clone(),
                inputs: row.config.clone(),
            };
            let verdict = check::ask(scope, act.actor, &row.integration, &check).await?;
            warnings = verdict.accepted()?;
            checked = Some(asked);
        }
        if change.dry_run || fields.is_empty() {
            let version = stored.version;
            return Ok((Stored { row, version }, registration, warnings));
        }
        let (write, version) = marked(platform, &row, &stored.version, change.mark.as_ref());
        writes.push(write);
        let (subject, detail) = (Subject::attachment(&row, of), fields.join(", "));
        writes.push(act.entry(scope, subject, detail));
        // In a conflict its registration may be what changed; if it did itself, that is seen now.
        if platform.write(writes).await.unless_conflict()? {
            return Ok((Stored { row, version }, registration, warnings));
        }
    }
    Err(Error::Conflict)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use api::Timestamp;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    /// The fields that a patch has to name too.
    fn wanted(integration: &str, config: &Value, label: &Value, patch: &Value) -> Vec<String> {
        let row = Registration {
            id: "r".into(),
            organization: "o".into(),
            name: "n".into(),
            integration: integration.into(),
            version: "1".into(),
            description: String::new(),
            config: object(config),
            label: object(label),
            secret: Some("kept".into()),
            secret_version: None,
            external_id: None,
            created_by: String::new(),
            created_at: Timestamp::from_millis(0),
            deleted_at: None,
            drain: None,
            paused: None,
            wake_at: None,
        };
        let description = description(integration).unwrap();
        let schema = (description.registration_schema)();
        let whole = Whole::of(description, &schema, &row, &object(patch));
        let faults = whole.faults.into_iter();
        let anew = faults.filter(|fault| fault.detail.starts_with("is wanted anew"));
        anew.map(|fault| fault.field).collect()
    }

    #[test]
    fn kept_secrets_go_to_no_other_place_than_they_were_given_for() {
        for (integration, config, secret, moves, stays) in [
            (
                "dependency-track",
                json!({ "instanceURI": "https://a.example.org", "allowAutoCreate": true }),
                "apiKey",
                json!({ "instanceURI": "https://b.example.org" }),
                json!({ "allowAutoCreate": false, "instanceURI": "https://a.example.org" }),
            ),
            (
                "oci-registry",
                json!({ "repository": "a.example.org/x", "username": "u" }),
                "password",
                json!({ "repository": "b.example.org/x" }),
                json!({ "username": "v" }),
            ),
            (
                "smtp",
                json!({ "to": "a@example.org", "from": "b@example.org", "host": "a.example.org", "port": "587" }),
                "password",
                json!({ "tls": "none" }),
                json!({ "to": "c@example.org" }),
            ),
            (
                "guac",
                json!({ "provider": "s3", "bucket": "bucket", "access_key_id": "AKIAEXAMPLE" }),
                "credentials",
                json!({ "endpoint": "https://b.example.org" }),
                json!({ "bucket": "another" }),
            ),
        ] {
            let wanted = |patch: &Value| {
                let label = json!({ secret: "…" });
                wanted(integration, &config, &label, patch)
            };
            assert_eq!(wanted(&moves), [secret], "{integration}");
            assert!(wanted(&stays).is_empty(), "{integration}");
            let mut both = object(&moves);
            both.insert(secret.into(), json!("given anew"));
            assert!(wanted(&both.into()).is_empty(), "{integration}");
        }
    }
}
