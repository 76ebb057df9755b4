//! Judges an attestation's signatures by the trust policies for its workflow: when it is accepted, when the bundle comes
//! that its control plane had not sent along, and before it is delivered again.

use std::time::Duration;

use api::trust::{self, Mode, Outcome, Verdict};
use api::workflows::{Match, Workflow};
use api::{Code, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use futures_util::future::try_join;
use verify::{Judge, Judged};

use crate::config::trust as policies;
use crate::ledger::schedule::PATIENCE;
use crate::store::counts::{About, Metric};
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Attestation, Stored, TrustPolicy, TrustPolicyLink};

/// Forms of an attestation that are judged: its sender may send it in a hundred spellings.
const FORMS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Untrusted(#[from] Box<Untrusted>),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// A verdict that is not what a trust policy requires.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} The trust policy {policy:?} for {selector} requires {threshold} of {signers}: {}", .verdict.reason.sentence, self.remedy()
)]
pub struct Untrusted {
    pub verdict: Verdict,
    policy: String,
    selector: String,
    threshold: usize,
    /// Their names.
    signers: String,
}

impl Untrusted {
    fn new(verdict: Verdict, row: &TrustPolicy) -> Self {
        let names = row.policy.signers.iter().map(trust::Signer::name);
        Self {
            verdict,
            signers: names.collect::<Vec<_>>().join(", "),
            policy: row.name.clone(),
            selector: row.workflow.0.clone(),
            threshold: row.policy.threshold,
        }
    }

    fn remedy(&self) -> &'static str {
        match (self.verdict.outcome, self.verdict.reason.code) {
            (Outcome::Invalid, _) => "sign it again, and push what was signed unchanged",
            (Outcome::Unverifiable, _) => {
                "push the Sigstore bundle that was made when it was signed, instead of the envelope alone. What \
                 Chainloop forwards has no certificate: an intake with the URL of its store fetches that"
            }
            (_, trust::Code::ThresholdNotReached) => "have more of them sign it",
            _ => "have one of them sign it, or add its signer to the policy",
        }
    }
}

/// The code of a verdict that is not what a trust policy requires.
pub(crate) fn code(verdict: &Verdict) -> Code {
    match (verdict.outcome, verdict.reason.code) {
        (Outcome::Invalid, _) => Code::SignatureInvalid,
        (Outcome::Unverifiable, _) => Code::SignatureMissingMaterial,
        (_, trust::Code::ThresholdNotReached) => Code::SignerThreshold,
        _ => Code::SignerUnknown,
    }
}

/// Policies that judge an attestation: the one for the workflow's ID, and the most specific one for its project and name.
/// A sender states both, and the attestation goes to what is attached to either, so neither policy replaces the other.
struct Policies(Vec<(TrustPolicy, Judge)>);

impl Policies {
    async fn of_links(
        platform: &impl Platform,
        links: Vec<(Match, TrustPolicyLink)>,
    ) -> Result<Self, Unreachable> {
        let (of_id, of_names): (Vec<_>, Vec<_>) = links
            .into_iter()
            .partition(|(matched, _)| *matched == Match::Id);
        let of_id = policies::of_links(platform, of_id.into_iter().map(|(_, link)| link));
        let of_names = policies::of_links(platform, of_names.into_iter().map(|(_, link)| link));
        let (of_id, of_names) = try_join(of_id, of_names).await?;
        let judges = of_id.into_iter().chain(of_names).map(|stored| {
            let Stored { row, version } = stored;
            let named = format!("{}@{}", row.name, version.etag.0);
            let judge = Judge::new(&row.policy, named).map_err(|fault| Unreachable {
                what: "trust policy",
                why: format!("{}: {fault}", row.name),
            })?;
            Ok((row, judge))
        });
        judges.collect::<Result<_, _>>().map(Self)
    }

    async fn of(scope: Scope<'_, impl Platform>, workflow: &Workflow) -> Result<Self, Unreachable> {
        let links = policies::links(scope, workflow).await?;
        Self::of_links(scope.platform, links).await
    }

    fn require(&self) -> bool {
        self.0.iter().any(|(row, _)| requires(row))
    }
}

fn requires(row: &TrustPolicy) -> bool {
    row.policy.mode == Mode::Require
}

fn is_verified(verdict: &Verdict) -> bool {
    verdict.outcome == Outcome::Verified
}

/// The worse of two verdicts on one attestation.
fn worse(one: Option<Verdict>, other: Verdict) -> Verdict {
    one.filter(|one| one.outcome > other.outcome)
        .unwrap_or(other)
}

/// An attestation that its policies do not refuse.
pub(crate) struct Admissible {
    pub(crate) judged: Judged,
    /// The bundle that has what the verdict lacks.
    pub(crate) bundle: Option<Digest>,
    /// A policy requires the bundle to prove it, before anything of it is sent.
    pub(crate) is_unproven: bool,
}

impl Admissible {
    /// Returns an attestation that no policy judges.
    pub(crate) fn unasked(parsed: attestation::Attestation, at: Timestamp) -> Self {
        Self {
            judged: Judged::unasked(parsed, at),
            bundle: None,
            is_unproven: false,
        }
    }
}

/// Judges what comes in by the policies of these links. What one of them requires is refused otherwise, and nothing of it
/// kept, unless its `bundle` can be fetched and may prove it; the worse verdict is that of the attestation. An attestation
/// that is `known` was signed when it was accepted, and is judged as of then: its certificate may have expired since.
pub(crate) async fn judge(
    platform: &impl Platform,
    parsed: attestation::Attestation,
    bytes: &Bytes,
    links: Vec<(Match, TrustPolicyLink)>,
    bundle: Option<Digest>,
    known: Option<&Attestation>,
) -> Result<Admissible, Error> {
    let policies = Policies::of_links(platform, links).await?;
    let at = known.map_or(platform.now(), |row| row.created_at);
    let was_verified = known.is_some_and(|row| row.verdict.as_ref().is_some_and(is_verified));
    let mut admissible = Admissible::unasked(parsed, at);
    for (row, judge) in &policies.0 {
        let (parsed, before) = admissible.judged.into_parts();
        admissible.judged = judge.judge(parsed, bytes, at);
        let verdict = admissible.judged.verdict();
        count(platform, verdict.outcome);
        if lacks_certificate(verdict) {
            admissible.bundle = bundle;
        }
        if requires(row) && !is_verified(verdict) && !was_verified {
            if bundle.is_none() || !lacks_certificate(verdict) {
                return Err(Box::new(Untrusted::new(verdict.clone(), row)).into());
            }
            admissible.is_unproven = true;
        }
        admissible.judged = admissible.judged.or_worse(before);
    }
    Ok(admissible)
}

fn lacks_certificate(verdict: &Verdict) -> bool {
    verdict.reason.code == trust::Code::CertificateMissing
}

/// Reports whether another bundle may help: none came, or a wrong one.
pub(crate) fn lacks_bundle(verdict: &Verdict) -> bool {
    lacks_certificate(verdict) || verdict.reason.code == trust::Code::BundleMismatch
}

fn count(platform: &impl Platform, outcome: Outcome) {
    let metric = match outcome {
        Outcome::Off => return,
        Outcome::Verified => Metric::SignatureVerified,
        Outcome::UnknownSigner => Metric::SignatureUnknown,
        Outcome::Unverifiable => Metric::SignatureUnverifiable,
        Outcome::Invalid => Metric::SignatureInvalid,
    };
    platform.meter().counts.count(About::default(), metric, 1);
}

/// Returns the bundle that an attestation's verdict waits for, if any.
pub(crate) fn awaited_bundle(row: &Attestation) -> Option<Digest> {
    let code = row.verdict.as_ref()?.reason.code;
    // Of two policies, another's verdict may hide that of the one that requires it.
    let may_help = match row.is_unproven {
        true => code != trust::Code::BundleMismatch,
        false => code == trust::Code::CertificateMissing,
    };
    row.bundle
        .filter(|bundle| may_help && !row.has_form(bundle))
}

/// Proof that a trust policy requires before anything of an attestation is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// None is required, or it is there.
    Given,
    /// The bundle that may prove it can still be fetched.
    Awaited,
    Lacking,
}

/// Returns the proof of an attestation for a delivery that began at this time and waits so long for materials.
pub(crate) fn proof(
    row: &Attestation,
    (began_at, patience): (Timestamp, Duration),
    now: Timestamp,
) -> Proof {
    let is_early = now < began_at.plus(patience.max(PATIENCE));
    match row.is_unproven {
        false => Proof::Given,
        true if is_early && awaited_bundle(row).is_some() => Proof::Awaited,
        true => Proof::Lacking,
    }
}

/// Returns the reason why nothing of an attestation is sent, as what failed.
pub(crate) fn lacking(row: &Attestation) -> String {
    let Some(verdict) = &row.verdict else {
        return "find the attestation's verdict".to_owned();
    };
    let (code, sentence) = (code(verdict).as_str(), &verdict.reason.sentence);
    format!("verify the attestation ({code}): {sentence}")
}

/// Judges an attestation with the bundle that was fetched for it. What was proven meanwhile stays so.
pub(crate) async fn bundle_came(
    scope: Scope<'_, impl Platform>,
    mut stored: Stored<Attestation>,
    bundle: &Digest,
) -> Result<(), Unreachable> {
    let platform = scope.platform;
    let bytes = bytes_of(scope, bundle).await?;
    let parsed = bytes.as_ref().and_then(|bytes| {
        let parsed = attestation::Attestation::parse(bytes).ok()?;
        (parsed.hash == stored.row.hash).then_some(parsed)
    });
    let policies = Policies::of(scope, &stored.row.workflow).await?;
    let (mut verdict, mut is_unproven) = (None, policies.require());
    match (&parsed, &bytes) {
        (Some(parsed), Some(bytes)) => {
            is_unproven = false;
            for (policy, judge) in &policies.0 {
                let judged = judge.judge(parsed.clone(), bytes, stored.row.created_at);
                let (_, one) = judged.into_parts();
                is_unproven |= requires(policy) && !is_verified(&one);
                verdict = Some(worse(verdict, one));
            }
        }
        _ => {
            let code = trust::Code::BundleMismatch;
            verdict = stored.row.verdict.clone().map(|before| Verdict {
                outcome: code.outcome(),
                reason: code.into(),
                ..before
            });
        }
    }
    let verdict = verdict.filter(|verdict| verdict.outcome != Outcome::Off);
    if let Some(verdict) = &verdict {
        count(platform, verdict.outcome);
    }
    let changed = rows::change(platform, &mut stored, |row| {
        if row.verdict.as_ref().is_some_and(is_verified) {
            return None;
        }
        row.is_unproven &= is_unproven;
        row.verdict = verdict.clone().or(row.verdict.take());
        let form = parsed.as_ref().and_then(|_| row.add_form(*bundle));
        let alias = form.map(|alias| rows::insert(platform, &alias).0);
        Some(alias.into_iter().collect())
    });
    changed.await?.is_written("an attestation")?;
    Ok(())
}

/// An attestation, judged again.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    verdict: Option<Verdict>,
    /// A policy requires a proof, and there are no bytes to judge: the attempt finds that out, and says so.
    is_blind: bool,
    /// Why it may not be delivered again, if so.
    pub(crate) refusal: Option<Box<Untrusted>>,
}

/// Judges an attestation by the policies of now, as of the time when it was accepted: what it was accepted by may have
/// asked for less. What was proven once is not judged again, and neither is what nothing requires.
pub(crate) async fn judge_again(
    scope: Scope<'_, impl Platform>,
    row: &Attestation,
) -> Result<Judgement, Unreachable> {
    let policies = Policies::of(scope, &row.workflow).await?;
    let mut judgement = Judgement::default();
    if !policies.require() || row.verdict.as_ref().is_some_and(is_verified) {
        return Ok(judgement);
    }
    for (policy, judge) in &policies.0 {
        let Some(best) = best(scope, judge, row).await? else {
            judgement.is_blind = true;
            return Ok(judgement);
        };
        if requires(policy) && !is_verified(&best) && judgement.refusal.is_none() {
            judgement.refusal = Some(Box::new(Untrusted::new(best.clone(), policy)));
        }
        judgement.verdict = Some(worse(judgement.verdict, best));
    }
    Ok(judgement)
}

/// Records the verdict of a judgement that refused nothing.
pub(crate) async fn keep(
    platform: &impl Platform,
    stored: &mut Stored<Attestation>,
    judgement: Judgement,
) -> Result<(), Unreachable> {
    let verdict = judgement.verdict.filter(is_verified);
    let changed = rows::change(platform, stored, |row| {
        let is_released = row.is_unproven && !judgement.is_blind;
        if verdict.is_none() && !is_released {
            return None;
        }
        row.is_unproven &= !is_released;
        row.verdict = verdict.clone().or(row.verdict.take());
        Some(Vec::new())
    });
    changed.await?.is_written("an attestation")?;
    Ok(())
}

/// Returns the best verdict on any form of an attestation, as of the time when it was accepted: a bundle may have come after the
/// envelope alone. None where no form is there any more.
pub(crate) async fn best(
    scope: Scope<'_, impl Platform>,
    judge: &Judge,
    row: &Attestation,
) -> Result<Option<Verdict>, Unreachable> {
    let mut best: Option<Verdict> = None;
    let bundle = row.bundle.filter(|bundle| row.has_form(bundle));
    let forms = bundle.iter().chain([&row.received]).chain(&row.also);
    for digest in forms.take(FORMS) {
        let Some(bytes) = bytes_of(scope, digest).await? else {
            continue;
        };
        let Ok(parsed) = attestation::Attestation::parse(&bytes) else {
            continue;
        };
        let (_, verdict) = judge.judge(parsed, &bytes, row.created_at).into_parts();
        if best
            .as_ref()
            .is_none_or(|best| verdict.outcome < best.outcome)
        {
            best = Some(verdict);
        }
        if best.as_ref().is_some_and(is_verified) {
            break;
        }
    }
    Ok(best)
}

/// Loads the bytes of a form of an attestation; none if they are absent, or too many to be one.
async fn bytes_of(
    scope: Scope<'_, impl Platform>,
    digest: &Digest,
) -> Result<Option<Bytes>, Unreachable> {
    let (platform, organization) = scope.parts();
    let size = platform.object_size(organization, digest).await?;
    if size.is_none_or(|size| size > attestation::MAX_BYTES as u64) {
        return Ok(None);
    }
    let bytes = platform.get_object(organization, digest).await?;
    Ok(bytes.filter(|bytes| Digest::of(bytes) == *digest))
}
