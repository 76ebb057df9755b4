//! Last SBOMs of a project. An upload replaces the one before it, so an older SBOM that a retry or a backfill brings
//! late must stay out.

use attestation::{Attestation, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An SBOM and the attestation that it came with.
pub(super) struct Sbom<'a> {
    /// The material's name: several SBOMs of one workflow may share a project.
    pub(super) material: &'a str,
    pub(super) digest: &'a Digest,
    pub(super) attestation: &'a Digest,
    /// Milliseconds since 1970.
    pub(super) made_at: Option<i64>,
}

/// When the attested run ended, or began where no end is told. Never later than now: a clock that was ahead
/// once would keep all that follow out.
pub(super) fn made_at(attestation: &Attestation, now_secs: u64) -> Option<i64> {
    let run = &attestation.predicate()?.metadata;
    let time = [&run.finished_at, &run.initialized_at]
        .into_iter()
        .find_map(|text| text.parse::<jiff::Timestamp>().ok())?;
    let now = i64::try_from(now_secs).ok()?.saturating_mul(1000);
    Some(time.as_millisecond().min(now))
}

/// Decision about an SBOM. Where nothing is to be done, it names the attestation whose SBOM the project has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Superseded(String),
    There(String),
}

/// One per material's name, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Last>);

/// As an array of its fields: a note has 1 KB.
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
#[derive(Clone)]
struct Last {
    /// The beginning of the name's digest.
    material: String,
    made_at: Option<i64>,
    /// Half of the SBOM's digest.
    digest: String,
    attestation: String,
}

type Fields = (String, Option<i64>, String, String);

impl From<Fields> for Last {
    fn from((material, made_at, digest, attestation): Fields) -> Self {
        Self {
            material,
            made_at,
            digest,
            attestation,
        }
    }
}

impl From<Last> for Fields {
    fn from(last: Last) -> Self {
        (last.material, last.made_at, last.digest, last.attestation)
    }
}

/// As many as fit into 1 KB. What is forgotten may be overwritten by an older one, as everything is in a
/// Dependency-Track without us.
const MOST: usize = 7;

impl Last {
    fn of(sbom: &Sbom<'_>) -> Self {
        Self {
            material: Digest::of(sbom.material.as_bytes()).hex()[..12].to_owned(),
            made_at: sbom.made_at,
            digest: sbom.digest.hex()[..32].to_owned(),
            attestation: sbom.attestation.hex(),
        }
    }
}

impl Notes {
    /// Parses the note; an unreadable one counts as empty.
    pub(super) fn read(note: &Value) -> Self {
        Self(Vec::deserialize(note).unwrap_or_default())
    }

    pub(super) fn write(&self) -> Value {
        serde_json::to_value(&self.0).expect("strings and numbers alone")
    }

    /// The same attestation a second time is somebody's wish to have it sent again: a redelivery. A retry has
    /// its progress, and does not ask.
    pub(super) fn verdict(&self, sbom: &Sbom<'_>) -> Verdict {
        let this = Last::of(sbom);
        let Some(last) = self.0.iter().find(|last| last.material == this.material) else {
            return Verdict::Send;
        };
        let by = || format!("sha256:{}", last.attestation);
        if last.attestation == this.attestation {
            Verdict::Send
        } else if last.digest == this.digest {
            Verdict::There(by())
        } else if this.made_at.is_some() && this.made_at < last.made_at {
            Verdict::Superseded(by())
        } else {
            Verdict::Send
        }
    }

    /// Notes that the project has this, unless it has a newer one.
    pub(super) fn keep(&mut self, sbom: &Sbom<'_>) {
        let this = Last::of(sbom);
        let known = self
            .0
            .iter()
            .position(|last| last.material == this.material);
        if let Some(index) = known {
            if this.made_at.is_some() && this.made_at < self.0[index].made_at {
                return;
            }
            self.0.remove(index);
        }
        self.0.push(this);
        let more = self.0.len().saturating_sub(MOST);
        self.0.drain(..more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Stage;

    const STATEMENT: &str = include_str!("../../tests/files/statement.json");
    const NOW: u64 = 1_767_323_400;

    /// The `n`th attestation's SBOM `digest`, made at `made_at`.
    #[track_caller]
    fn check(notes: &mut Notes, steps: &[(&str, &str, Option<i64>, Option<&str>)]) {
        for (attestation, bytes, made_at, expected) in steps {
            let (attestation, digest) = (
                Digest::of(attestation.as_bytes()),
                Digest::of(bytes.as_bytes()),
            );
            let sbom = Sbom {
                material: "sbom",
                digest: &digest,
                attestation: &attestation,
                made_at: *made_at,
            };
            let by = |name: &&str| Digest::of(name.as_bytes()).to_string();
            let said = match notes.verdict(&sbom) {
                Verdict::Send => None,
                Verdict::Superseded(by) => Some(format!("superseded by {by}")),
                Verdict::There(by) => Some(format!("there by {by}")),
            };
            let expected = expected.map(|text| {
                let (what, name) = text.rsplit_once(' ').unwrap();
                format!("{what} {}", by(&name))
            });
            assert_eq!(said, expected, "{bytes} at {made_at:?}");
            notes.keep(&sbom);
            *notes = Notes::read(&notes.write());
        }
    }

    #[test]
    fn an_older_sbom_is_superseded_and_the_same_one_is_there_already() {
        check(
            &mut Notes::default(),
            &[
                ("first", "a", Some(10), None),
                ("second", "b", Some(20), None),
                ("late", "c", Some(15), Some("superseded by second")),
                ("third", "b", Some(30), Some("there by second")),
                ("between", "c", Some(25), Some("superseded by third")),
                ("old", "b", Some(5), Some("there by third")),
                ("fourth", "a", Some(30), None),
                ("redelivered", "d", Some(40), None),
                ("redelivered", "d", Some(40), None),
            ],
        );
    }

    #[test]
    fn without_a_time_an_sbom_is_sent() {
        check(
            &mut Notes::default(),
            &[
                ("first", "a", Some(10), None),
                ("timeless", "b", None, None),
                ("old", "c", Some(5), None),
            ],
        );
    }

    #[test]
    fn each_materials_last_sbom_is_known_by_itself_and_the_note_stays_small() {
        let mut notes = Notes::default();
        let hash = Digest::of(b"x");
        for n in 0..100_i64 {
            let name = format!("{n}").repeat(200);
            let sbom = |made_at| Sbom {
                material: &name,
                digest: &hash,
                attestation: &hash,
                made_at: Some(made_at),
            };
            assert_eq!(notes.verdict(&sbom(n)), Verdict::Send);
            notes.keep(&sbom(1_767_323_400_000 + n));
            assert!(notes.write().to_string().len() <= 1024);
        }
        assert_eq!(notes.0.len(), MOST);
    }

    #[test]
    fn a_note_of_another_kind_says_nothing() {
        for note in [
            serde_json::json!({ "a": 1 }),
            serde_json::json!([[1]]),
            Value::Null,
        ] {
            assert!(Notes::read(&note).0.is_empty());
        }
    }

    #[test]
    fn an_attestation_is_as_old_as_its_run_and_never_of_the_future() {
        let at = |from: &str, to: &str| {
            made_at(&Stage::of(&STATEMENT.replace(from, to)).attestation, NOW)
        };
        assert_eq!(at("-", "-"), Some(1_767_323_370_000));
        assert_eq!(at("2026-01-02T03:09:30Z", "soon"), Some(1_767_323_100_000));
        assert_eq!(
            at("2026-01-02T03:09:30Z", "2099-01-02T03:09:30Z"),
            Some(1_767_323_400_000)
        );
        assert_eq!(at("2026-01-02T03:0", "then"), None);
    }
}
