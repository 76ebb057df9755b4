//! From a policy and an attestation to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Timestamp;
use api::trust::fault::{MAX_NAME, MAX_SIGNERS, MAX_TEXT};
use api::trust::{
    Code, Fault, Identity, Mode, Policy, Problem, Proof, Signer, TrustedRoot, Verdict,
    VerifiedSigner,
};
use attestation::{Attestation, Digest, Envelope, Signature, pae};

use crate::chainloop::Organization;
use crate::key::PublicKey;
use crate::keyless::Root;
use crate::material::Material;

/// Maximum number of times that a key is tried on a signature, for one attestation. Each hashes the whole payload, and
/// keys of RSA and on P-384 are tried in two ways. A signature is tried first with the key that its `keyid` names.
pub const MAX_TRIES: usize = 64;

/// A policy that was found to be in order.
pub struct Judge {
    policy: String,
    mode: Mode,
    threshold: usize,
    keys: Vec<Key>,
    keyless: Vec<Keyless>,
    organizations: Vec<(String, Organization)>,
}

struct Key {
    key: PublicKey,
    signer: VerifiedSigner,
}

struct Keyless {
    name: String,
    issuer: String,
    identity: Identity,
    root: Arc<Root>,
}

/// An attestation with the verdict on it. Nothing but [`Judge::judge`] and [`Judged::unasked`] makes one.
#[derive(Clone, Debug)]
pub struct Judged {
    attestation: Attestation,
    verdict: Verdict,
}

impl Judged {
    /// An attestation that no policy asks anything of: its verdict is `off`.
    pub fn unasked(attestation: Attestation, at: Timestamp) -> Judged {
        let code = Code::PolicyOff;
        let verdict = Verdict {
            outcome: code.outcome(),
            reason: code.into(),
            signers: Vec::new(),
            policy: String::new(),
            root: None,
            envelope: attestation.hash,
            at,
        };
        Judged {
            attestation,
            verdict,
        }
    }

    pub fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Keeps the worse of its verdict and this one, if that is of the same envelope: it was judged by two policies.
    #[must_use]
    pub fn or_worse(mut self, other: Verdict) -> Judged {
        if other.outcome > self.verdict.outcome && other.is_of(&self.attestation) {
            self.verdict = other;
        }
        self
    }

    pub fn into_parts(self) -> (Attestation, Verdict) {
        (self.attestation, self.verdict)
    }
}

impl Judge {
    /// Reads a policy, also one that is off. The verdicts name it as the caller does: by its etag or digest.
    pub fn new(policy: &Policy, named: impl Into<String>) -> Result<Judge, Fault> {
        let Policy {
            mode,
            threshold,
            ref signers,
        } = *policy;
        if signers.len() > MAX_SIGNERS {
            return Err(Fault::TooManySigners(signers.len()));
        }
        let mut judge = Judge {
            policy: named.into(),
            mode,
            threshold,
            keys: Vec::new(),
            keyless: Vec::new(),
            organizations: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for signer in signers {
            let name = signer.name();
            if !is_name(name) {
                return Err(Fault::Name(name.chars().take(MAX_NAME).collect()));
            }
            if !names.insert(name) {
                return Err(Fault::NameTaken(name.to_owned()));
            }
            let fault = |problem| Fault::Signer {
                name: name.to_owned(),
                problem,
            };
            judge.add(signer).map_err(fault)?;
        }
        judge.check_keys()?;
        // A certificate is for the one signature of its bundle.
        let reachable = judge.keys.len().max(usize::from(judge.has_certificates()));
        match threshold {
            0 => Err(Fault::ThresholdZero),
            _ if threshold > reachable && mode != Mode::Off => Err(Fault::ThresholdOutOfReach {
                threshold,
                reachable,
            }),
            _ => Ok(judge),
        }
    }

    fn add(&mut self, signer: &Signer) -> Result<(), Problem> {
        let name = signer.name().to_owned();
        match signer {
            Signer::Key { pem, .. } => {
                let key = PublicKey::from_pem(pem)?;
                let proof = Proof::Key { key_id: key.id };
                self.keys.push(Key {
                    key,
                    signer: VerifiedSigner { name, proof },
                });
            }
            Signer::Kms { arn, pem, .. } => {
                if !is_kms_arn(arn) {
                    return Err(Problem::NotKmsArn);
                }
                let key = PublicKey::from_pem(pem)?;
                let proof = Proof::Kms {
                    key_id: key.id,
                    arn: arn.clone(),
                };
                self.keys.push(Key {
                    key,
                    signer: VerifiedSigner { name, proof },
                });
            }
            Signer::Keyless {
                issuer,
                identity,
                trusted_root,
                ..
            } => {
                if !issuer.starts_with("https://") || issuer.len() > MAX_TEXT {
                    return Err(Problem::Issuer);
                }
                identity.check()?;
                let (issuer, identity, root) =
                    (issuer.clone(), identity.clone(), self.root(trusted_root)?);
                self.keyless.push(Keyless {
                    name,
                    issuer,
                    identity,
                    root,
                });
            }
            Signer::Chainloop {
                ca_pem,
                organization,
                timestamp_pem,
                ..
            } => {
                let organization =
                    Organization::new(ca_pem, organization, timestamp_pem.as_deref())?;
                self.organizations.push((name, organization));
            }
        }
        Ok(())
    }

    /// Signers with the same root share it, so that it is asked once.
    fn root(&self, root: &TrustedRoot) -> Result<Arc<Root>, Problem> {
        let root = match root {
            TrustedRoot::PublicGood => Root::public_good(),
            TrustedRoot::Json(json) => Arc::new(Root::from_json(json)?),
        };
        let known = self
            .keyless
            .iter()
            .find(|known| known.root.digest == root.digest);
        Ok(known.map_or(root, |known| Arc::clone(&known.root)))
    }

    fn check_keys(&self) -> Result<(), Fault> {
        for (index, key) in self.keys.iter().enumerate() {
            if let Some(other) = self.keys[..index]
                .iter()
                .find(|other| other.key.id == key.key.id)
            {
                let (name, other) = (key.signer.name.clone(), other.signer.name.clone());
                return Err(Fault::KeyTaken { name, other });
            }
        }
        Ok(())
    }

    fn has_certificates(&self) -> bool {
        !self.keyless.is_empty() || !self.organizations.is_empty()
    }

    /// Judges an attestation at its time of receipt. Certificate, log entries and timestamps are those of `document`,
    /// which is what was received, or the bundle that was found later for an envelope that came alone.
    pub fn judge(&self, attestation: Attestation, document: &[u8], at: Timestamp) -> Judged {
        let received = jiff::Timestamp::from(at);
        let mut found = Findings::default();
        let envelope = &attestation.envelope;
        let code = if self.mode == Mode::Off {
            Code::PolicyOff
        } else {
            let message = pae(&envelope.payload_type, &envelope.payload);
            if self.has_certificates() {
                match one_signature(document, envelope) {
                    Ok((material, signature)) => {
                        self.judge_certificate(
                            &mut found,
                            &material,
                            &attestation,
                            signature,
                            &message,
                            received,
                        );
                    }
                    Err(code) => found.note(code),
                }
            }
            self.judge_keys(&mut found, envelope, &message);
            found.code(self.threshold)
        };
        let verdict = Verdict {
            outcome: code.outcome(),
            reason: code.into(),
            signers: found.signers,
            policy: self.policy.clone(),
            root: found.root,
            envelope: envelope.hash(),
            at,
        };
        Judged {
            attestation,
            verdict,
        }
    }

    fn judge_certificate(
        &self,
        found: &mut Findings,
        material: &Material,
        attestation: &Attestation,
        signature: &Signature,
        message: &[u8],
        at: jiff::Timestamp,
    ) {
        let key = material.leaf.key.id;
        let mut answers = BTreeMap::new();
        for signer in &self.keyless {
            let (issuer, identity) = match (&material.leaf.issuer, &material.leaf.identity) {
                (Some(issuer), Some(identity)) if signer.is_meant(issuer, identity) => {
                    (issuer, identity)
                }
                _ => {
                    found.note(Code::IdentityMismatch);
                    continue;
                }
            };
            let root = &signer.root;
            let judge = || root.judge(material, attestation, signature, message, at);
            let answer = *answers.entry(root.digest).or_insert_with(judge);
            let proof = Proof::Keyless {
                issuer: issuer.clone(),
                identity: identity.clone(),
            };
            found.take(answer, &signer.name, proof, key, root.digest);
        }
        for (name, organization) in &self.organizations {
            let answer = organization.judge(material, signature, message, at);
            let proof = Proof::Chainloop {
                organization: organization.id.to_string(),
            };
            found.take(answer, name, proof, key, organization.root);
        }
    }

    /// Tries the keys on each signature. A `keyid` is a hint that proves nothing, but one that names a configured key
    /// makes a signature that no signer made a false one.
    fn judge_keys(&self, found: &mut Findings, envelope: &Envelope, message: &[u8]) {
        let by_certificate = !found.keys.is_empty();
        let mut tries = MAX_TRIES;
        for Signature { keyid, sig } in &envelope.signatures {
            let (named, others): (Vec<_>, Vec<_>) =
                self.keys.iter().partition(|key| key.is_named(keyid));
            let mut signer = None;
            for key in named.iter().chain(&others) {
                let Some(left) = tries.checked_sub(key.key.tries()) else {
                    return found.note(Code::TooManySignatures);
                };
                tries = left;
                if key.key.signed(message, sig) {
                    signer = Some(key);
                    break;
                }
            }
            match signer {
                Some(Key { key, signer }) if !found.signers.contains(signer) => {
                    found.keys.insert(key.id);
                    found.signers.push(signer.clone());
                }
                None if !by_certificate && !named.is_empty() => found.note(Code::SignatureMismatch),
                _ => {}
            }
        }
    }
}

impl Key {
    fn is_named(&self, keyid: &str) -> bool {
        let is_arn = matches!(&self.signer.proof, Proof::Kms { arn, .. } if arn == keyid);
        is_arn || keyid.parse() == Ok(self.key.id)
    }
}

impl Keyless {
    fn is_meant(&self, issuer: &str, identity: &str) -> bool {
        self.issuer == issuer && self.identity.fits(identity)
    }
}

/// A bundle's certificate is for one signature, so there may be no doubt for which.
fn one_signature<'a>(
    document: &[u8],
    envelope: &'a Envelope,
) -> Result<(Material, &'a Signature), Code> {
    let material = Material::read(document)?;
    match envelope.signatures.as_slice() {
        [signature] => Ok((material, signature)),
        _ => Err(Code::SeveralSignatures),
    }
}

struct Findings {
    signers: Vec<VerifiedSigner>,
    /// The keys that they signed with, which the threshold counts.
    keys: BTreeSet<Digest>,
    root: Option<Digest>,
    worst: Code,
}

impl Default for Findings {
    fn default() -> Self {
        let (signers, keys, root) = Default::default();
        Findings {
            signers,
            keys,
            root,
            worst: Code::NoConfiguredSigner,
        }
    }
}

impl Findings {
    fn note(&mut self, code: Code) {
        self.worst = self.worst.max(code);
    }

    fn take(
        &mut self,
        answer: Result<(), Code>,
        name: &str,
        proof: Proof,
        key: Digest,
        root: Digest,
    ) {
        match answer {
            Ok(()) => {
                self.keys.insert(key);
                self.root.get_or_insert(root);
                self.signers.push(VerifiedSigner {
                    name: name.to_owned(),
                    proof,
                });
            }
            Err(code) => self.note(code),
        }
    }

    fn code(&self, threshold: usize) -> Code {
        if self.keys.len() >= threshold {
            Code::ThresholdReached
        } else if self.keys.is_empty() {
            self.worst
        } else {
            self.worst.max(Code::ThresholdNotReached)
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_allowed =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_allowed)
}

fn is_kms_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, "kms", region, account, key] = parts[..] else {
        return false;
    };
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    arn.len() <= MAX_TEXT
        && partition.starts_with("aws")
        && is_word(partition)
        && is_word(region)
        && account.len() == 12
        && account.bytes().all(|digit| digit.is_ascii_digit())
        && key.strip_prefix("key/").is_some_and(is_word)
}
