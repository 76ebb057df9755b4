//! Finished steps of a delivery: in its row while there is room, and then rows of their own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::platform::{Platform, Unreachable};
use crate::store::rows::{self, Delivery, Step, Stored};

/// Steps that are rows of their own, by name.
#[derive(Debug, Default)]
pub(crate) struct Steps(BTreeMap<String, Stored<Step>>);

impl Steps {
    /// Reads them, if the delivery's row says that there are any.
    pub(crate) async fn load(
        platform: &impl Platform,
        delivery: &Delivery,
    ) -> Result<Self, Unreachable> {
        if !delivery.has_steps {
            return Ok(Self::default());
        }
        let partition = Delivery::partition(&delivery.organization, &delivery.id);
        let steps = rows::load_all::<Step>(platform, &partition, Step::PREFIX).await?;
        let named = steps
            .into_iter()
            .map(|stored| (stored.row.name.clone(), stored));
        Ok(Self(named.collect()))
    }

    /// All finished steps of the delivery: step → receipt. A step that is in its row as well was recorded there last, by the
    /// release before.
    pub(crate) fn with_those_of(&self, delivery: &Delivery) -> BTreeMap<String, Value> {
        let steps = self.0.iter();
        let mut progress: BTreeMap<String, Value> = steps
            .map(|(name, step)| (name.clone(), step.row.receipt.clone()))
            .collect();
        progress.extend(delivery.progress.clone());
        progress
    }
}
