//! Completion of an accepted upload: whether its project has imported an SBOM since.

use serde_json::{Map, Value};

use super::Registration;
use super::api::{self, Sight};
use super::project::Place;
use crate::{Error, Http};

/// When the project had imported an SBOM last before this one was uploaded; missing where the key may not look.
pub(super) const IMPORTED_BEFORE: &str = "imported_before";

/// Outcomes of an accepted SBOM, the worst last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Completion {
    Processed,
    Unknown(String),
    Failed(String),
}

impl Completion {
    /// Returns the outcome of an SBOM that is no longer under way, by its receipt.
    pub(super) async fn of(
        http: &Http,
        registration: &Registration,
        sbom: &Value,
    ) -> Result<Self, Error> {
        let material = sbom["material"].as_str().unwrap_or("sbom");
        let unknown = |why: &str| Ok(Self::Unknown(format!("{material}: {why}")));
        let hidden = "whether it was imported shows in the project, which the key may not look at \
                      (VIEW_PORTFOLIO)";
        let Some(place) = Place::of_receipt(sbom) else {
            return unknown("its receipt names no project");
        };
        let Some(before) = sbom.get(IMPORTED_BEFORE) else {
            return unknown(hidden);
        };
        match api::look(http, registration, &place).await? {
            Sight::There(shown) if shown.last_import != *before => Ok(Self::Processed),
            Sight::There(_) => Ok(Self::Failed(format!(
                "{material}: the {place} has imported nothing since: Dependency-Track's log says why"
            ))),
            Sight::Absent => unknown("its project is not there any more"),
            Sight::Hidden => unknown(hidden),
        }
    }

    pub(super) fn receipt(self) -> Map<String, Value> {
        let (completion, reason) = match self {
            Self::Processed => ("processed", None),
            Self::Unknown(reason) => ("unknown", Some(reason)),
            Self::Failed(reason) => ("failed", Some(reason)),
        };
        let reason = reason.map(|reason| ("completion_reason".to_owned(), reason.into()));
        let completion = ("completion".to_owned(), completion.into());
        [completion].into_iter().chain(reason).collect()
    }
}
