//! Registers an integration for an organization, and deletes the registration again.
//!
//! The name is reserved before anything happens elsewhere: a taken name must not send a test message, and
//! a registration that a crash cut off must leave neither a name nor a secret behind. A reservation
//! expires; whoever takes the name then removes what the cut-off one may have stored.

use api::RegistrationId;
use api::inputs::Fault;
use api::jobs::JobKind;
use api::names::name_fault;
use integrations::{AUTHORITIES, Description, Warnings, inputs};
use serde_json::{Map, Value};

use crate::config::check::{self, Check, Verdict};
use crate::config::{Error, Precondition, attachments, external_id, quotas, size_fault};
use crate::ledger::schedule;
use crate::records::audit_log::{Act, Subject};
use crate::records::{jobs, notices};
use crate::store::ids;
use crate::store::meter::Quota;
use crate::store::platform::{
    Platform, Scope, SecretValue, UnlessConflict as _, Unreachable, Write,
};
use crate::store::rows::{
    self, Event, Registration, RegistrationName, RegistrationTombstone, Stored, Version,
};

/// Request for a registration.
#[derive(Debug)]
pub struct NewRegistration {
    pub integration: String,
    pub name: String,
    pub description: String,
    /// Secret ones among them.
    pub inputs: Map<String, Value>,
    /// Its id, where that follows from the request: the same again is the same registration. A new one when none.
    pub id: Option<RegistrationId>,
}

/// All that is wrong with a registration's name and inputs.
pub fn faults(description: &Description, name: &str, inputs: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = (description.check_registration)(inputs);
    faults.extend(size_fault(inputs));
    faults.extend(name_fault(name));
    faults
}

/// Registers: validates, reserves the name, asks the third party, keeps the secret, then the rest.
pub async fn register(
    scope: Scope<'_, impl Platform>,
    wanted: NewRegistration,
    act: Act<'_>,
) -> Result<(Stored<Registration>, Warnings), Error> {
    let (platform, organization) = scope.parts();
    let description = integrations::find(&wanted.integration)
        .ok_or_else(|| Error::NoIntegration(wanted.integration.clone()))?;
    let faults = faults(description, &wanted.name, &wanted.inputs);
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    if let Some(id) = &wanted.id {
        let key = Registration::at(organization, id);
        match rows::load::<Registration>(platform, &key).await? {
            None => {}
            Some(made) if made.row.deleted_at.is_none() => return Ok((made, Warnings::new())),
            Some(_) => return Err(Error::NotFound(wanted.name)),
        }
    }
    let id = wanted.id.clone().unwrap_or_else(|| ids::random(platform));
    let reserved = reserve(scope, description, &wanted.name, id).await?;
    let external_id = external_id::of(scope, &wanted.inputs).await?;
    let check = Check::Registration {
        inputs: wanted.inputs.clone(),
        external_id: external_id.clone(),
    };
    let verdict = check::ask(scope, act.actor, description.id, &check).await;
    let warnings = match verdict.map_err(Error::from).and_then(Verdict::accepted) {
        Ok(warnings) => warnings,
        Err(error) => {
            // The reservation would expire by itself; the operator who tries again should not wait for that.
            let secret = Registration::secret_name(
                organization,
                &reserved.row.integration,
                &reserved.row.registration,
            );
            let _ = platform.delete_secret(&secret).await;
            let _ = platform.write(vec![reserved.delete()]).await;
            return Err(error);
        }
    };
    // What fails from here on may have been done all the same, so nothing is taken back: the same request again goes
    // on with it, and otherwise the reservation expires.
    let registration =
        complete(platform, description, &reserved, (wanted, external_id), act).await?;
    Ok((registration, warnings))
}

async fn reserve(
    scope: Scope<'_, impl Platform>,
    description: &Description,
    name: &str,
    id: RegistrationId,
) -> Result<Stored<RegistrationName>, Error> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    let row = RegistrationName {
        organization: organization.to_owned(),
        name: name.to_owned(),
        registration: id,
        integration: description.id.to_owned(),
        reserved_until: Some(now.plus(schedule::RESERVATION)),
        abandoned: false,
    };
    let over = free(scope, name, Some(&row.registration)).await?;
    // A reservation that goes on is counted already.
    if over.is_none() {
        quotas::room(scope, Quota::Registrations).await?;
    }
    let (write, version) = rows::put(platform, &row, over.as_ref());
    if !platform.write(vec![write]).await.unless_conflict()? {
        return Err(Error::NameTaken(name.to_owned()));
    }
    Ok(Stored { row, version })
}

/// Returns the row of a name that the one who takes it writes over, if it is free or reserved for that registration. Removes the remains of another registration that was interrupted.
pub(crate) async fn free(
    scope: Scope<'_, impl Platform>,
    name: &str,
    registration: Option<&RegistrationId>,
) -> Result<Option<Version>, Error> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    match rows::load::<RegistrationName>(platform, &RegistrationName::at(organization, name))
        .await?
    {
        None => Ok(None),
        Some(Stored { row, version })
            if row.reserved_until.is_some()
                && !row.abandoned
                && registration == Some(&row.registration) =>
        {
            Ok(Some(version))
        }
        Some(old) if old.row.reserved_until.is_some_and(|until| until < now) => {
            abandon(platform, old).await?;
            Ok(None)
        }
        Some(_) => Err(Error::NameTaken(name.to_owned())),
    }
}

async fn complete(
    platform: &impl Platform,
    description: &Description,
    reserved: &Stored<RegistrationName>,
    (wanted, external_id): (NewRegistration, Option<String>),
    act: Act<'_>,
) -> Result<Stored<Registration>, Error> {
    let schema = (description.registration_schema)();
    let (config, secrets) = inputs::split(&schema, wanted.inputs);
    let name = &reserved.row;
    let secret = Registration::secret_name(&name.organization, description.id, &name.registration);
    let mut registration = Registration {
        id: name.registration.clone(),
        organization: name.organization.clone(),
        name: name.name.clone(),
        integration: description.id.to_owned(),
        version: description.version.to_owned(),
        description: wanted.description,
        config,
        label: inputs::label(&schema, &secrets),
        secret: None,
        secret_version: None,
        external_id,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
        deleted_at: None,
        drain: None,
        paused: None,
        wake_at: None,
    };
    if !secrets.is_empty() {
        let text = serde_json::to_string(&secrets).expect("text keys and JSON values are JSON");
        let version = platform
            .put_secret(&secret, &SecretValue::new(text))
            .await?;
        registration.secret = Some(secret);
        registration.secret_version = Some(version);
    }
    let scope = Scope::new(platform, &name.organization);
    let mut live = reserved.clone();
    live.row.reserved_until = None;
    let (write, version) = rows::insert(platform, &registration);
    let subject = Subject::registration(&registration);
    let mut writes = vec![
        write,
        live.update(platform).0,
        act.entry(scope, subject, description.id),
    ];
    writes.extend(certificates_end(scope, &registration).await?);
    platform.write(writes).await?;
    Ok(Stored {
        row: registration,
        version,
    })
}

/// The notice that a certificate which a registration trusts ends.
pub(crate) async fn certificates_end(
    scope: Scope<'_, impl Platform>,
    registration: &Registration,
) -> Result<Option<Write>, Unreachable> {
    let Registration {
        id, name, config, ..
    } = registration;
    let pem = config.get(AUTHORITIES).and_then(Value::as_str);
    notices::certificates_end(scope, (id.as_str(), name), pem).await
}

/// Deletes a registration and its attachments; pending deliveries are cancelled when their time comes.
/// Answers with how many attachments went. A deletion that was cut off is completed by asking again.
pub async fn delete(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Registration, usize), Error> {
    let (platform, organization) = scope.parts();
    let name =
        rows::load::<RegistrationName>(platform, &RegistrationName::at(organization, name_or_id))
            .await?;
    let id = name.map_or_else(|| name_or_id.into(), |name| name.row.registration);
    let stored = rows::load::<Registration>(platform, &Registration::at(organization, &id))
        .await?
        .ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    let name = name_of(platform, &stored.row).await?;
    let name = name.ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    // First of all nothing new goes through it.
    let mut gone = stored;
    if gone.row.deleted_at.is_none() {
        only.allow(&gone.version.etag)?;
        let now = platform.now();
        gone.row.deleted_at = Some(now);
        // Should this be cut off, the reconciler ends it.
        gone.row.wake_at = Some(now.plus(schedule::UNFINISHED));
        let (write, version) = gone.update(platform);
        let subject = Subject::registration(&gone.row);
        let detail = format!("{}, with its attachments", gone.row.integration);
        let entry = act.entry(scope, subject, detail);
        let written = platform.write(vec![write, entry]).await;
        written.map_err(|error| only.conflict(error))?;
        gone.version = version;
    }
    complete_deletion(platform, gone, &name).await
}

/// The name of a registration; none when its deletion was completed.
async fn name_of(
    platform: &impl Platform,
    registration: &Registration,
) -> Result<Option<Stored<RegistrationName>>, Unreachable> {
    let key = RegistrationName::at(&registration.organization, &registration.name);
    let name = rows::load::<RegistrationName>(platform, &key).await?;
    Ok(name.filter(|name| name.row.registration == registration.id))
}

/// Removes all that a registration has that is deleted.
async fn complete_deletion(
    platform: &impl Platform,
    mut gone: Stored<Registration>,
    name: &Stored<RegistrationName>,
) -> Result<(Registration, usize), Error> {
    let (organization, id) = (gone.row.organization.clone(), gone.row.id.clone());
    let scope = Scope::new(platform, &organization);
    let attachments = attachments(scope, &id).await?;
    let count = attachments.len();
    for attachment in attachments {
        crate::config::attach::remove(platform, attachment, Vec::new()).await?;
    }
    // Also where the row has none: the update that was to add one may have been cut off.
    let secret = Registration::secret_name(&organization, &gone.row.integration, &id);
    platform.delete_secret(&secret).await?;
    // Once more when no update can be under way any more that has seen it and now keeps a secret for it.
    gone.row.wake_at = Some(platform.now().plus(schedule::UNFINISHED));
    // The name last: as long as it is there, asking again finds what is left to do.
    let was_paused = gone.row.paused.take().is_some();
    let now = platform.now();
    let listed = RegistrationTombstone {
        organization: organization.clone(),
        registration: id.clone(),
        deleted_at: now,
    };
    let mut writes = vec![name.delete(), rows::insert(platform, &listed).0];
    writes.extend(notices::forget(scope, Event::CertificateExpiring, id.as_str()).await?);
    if was_paused {
        // What it held is let go, to be cancelled.
        let work = JobKind::Drain {
            registration: id.clone(),
        };
        let rate = schedule::DRAIN_PER_SECOND;
        let job = jobs::new(scope, work, rate, "deletion");
        writes.push(jobs::put(platform, &job));
        gone.row.drain = Some(job.id);
    }
    writes.push(gone.update(platform).0);
    platform.write(writes).await?;
    Ok((gone.row, count))
}

/// Ends a deletion that was cut off, or looks once more after one that was not.
pub(crate) async fn finish(
    platform: &impl Platform,
    mut stored: Stored<Registration>,
) -> Result<(), Unreachable> {
    if let Some(name) = name_of(platform, &stored.row).await? {
        return match complete_deletion(platform, stored, &name).await {
            Ok(_) | Err(Error::Conflict) => Ok(()),
            Err(Error::Unreachable(unreachable)) => Err(unreachable),
            Err(other) => Err(Unreachable {
                what: "table",
                why: other.to_string(),
            }),
        };
    }
    let Registration {
        organization,
        integration,
        id,
        ..
    } = &stored.row;
    let secret = Registration::secret_name(organization, integration, id);
    platform.delete_secret(&secret).await?;
    stored.row.wake_at = None;
    stored.save_if_unchanged(platform).await?;
    Ok(())
}

/// Removes what a registration that was cut off left behind: its reservation, and its secret.
pub(crate) async fn abandon(
    platform: &impl Platform,
    mut stored: Stored<RegistrationName>,
) -> Result<(), Unreachable> {
    let reserved_until = stored.row.reserved_until;
    if reserved_until.is_none_or(|until| until >= platform.now()) {
        return Ok(());
    }
    // First of all, so that the same request, should it come again just now, completes nothing that loses its secret.
    if !stored.row.abandoned {
        stored.row.abandoned = true;
        if !stored.save_if_unchanged(platform).await? {
            return Ok(());
        }
    }
    let RegistrationName {
        organization,
        integration,
        registration,
        ..
    } = &stored.row;
    let secret = Registration::secret_name(organization, integration, registration);
    platform.delete_secret(&secret).await?;
    let deletion = vec![stored.delete()];
    platform.write(deletion).await.unless_conflict()?;
    Ok(())
}
