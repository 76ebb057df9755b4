//! Finished steps of a delivery: in its row while there is room, and then rows of their own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::platform::{Platform, Unreachable, Write};
use crate::store::rows::{self, Delivery, Step, Stored};

/// Longest that the steps in a delivery's row may be, as JSON. Each write of the row pays for them again.
const ROOM: usize = 512;

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

    /// Returns the writes that record a step while nobody else has written the delivery, with the step's row if it has one.
    /// `delivery` is then as those writes leave it.
    pub(crate) fn record(
        &self,
        platform: &impl Platform,
        delivery: &mut Stored<Delivery>,
        name: &str,
        receipt: Value,
    ) -> (Vec<Write>, Option<Stored<Step>>) {
        let over = self.0.get(name).map(|stored| &stored.version);
        let row = &mut delivery.row;
        let before = row.progress.insert(name.to_owned(), receipt);
        if over.is_none() && has_room(&row.progress) {
            let (write, version) = delivery.update(platform);
            delivery.version = version;
            return (vec![write], None);
        }
        let step = Step {
            organization: row.organization.clone(),
            delivery: row.id.clone(),
            name: name.to_owned(),
            receipt: row.progress.remove(name).unwrap_or_default(),
            created_at: row.created_at,
        };
        let is_known = row.has_steps && before.is_none();
        row.has_steps = true;
        let (write, version) = rows::put(platform, &step, over);
        let mut writes = vec![write];
        if is_known {
            writes.push(delivery.check());
        } else {
            let (write, version) = delivery.update(platform);
            delivery.version = version;
            writes.push(write);
        }
        (writes, Some(Stored { row: step, version }))
    }

    /// Remembers a step that was recorded.
    pub(crate) fn keep(&mut self, step: Stored<Step>) {
        self.0.insert(step.row.name.clone(), step);
    }
}

fn has_room(progress: &BTreeMap<String, Value>) -> bool {
    serde_json::to_string(progress).is_ok_and(|text| text.len() <= ROOM)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::memory::Memory;
    use crate::store::platform::WriteError;

    /// A delivery that an attempt works on, as its row is.
    fn delivery(memory: &Memory) -> Stored<Delivery> {
        let digest = attestation::Digest::of(b"a").to_string();
        let at = "2026-01-02T03:04:05.000Z";
        let row = json!({
            "pk": "org/acme/delivery/delivery-1", "by_registration": "acme/registration-1",
            "attestation": digest, "received": digest, "attachment": "attachment-1",
            "integration": "webhook", "workflow": { "project": "shop", "name": "nightly" },
            "state": "delivering", "created_at": at, "updated_at": at,
        });
        let row = rows::parse::<Delivery>(row.as_object().unwrap().clone()).unwrap();
        let (write, version) = rows::insert(memory, &row.row);
        write_all(memory, vec![write]).unwrap();
        Stored { version, ..row }
    }

    fn write_all(memory: &Memory, writes: Vec<Write>) -> Result<(), WriteError> {
        memory.write(writes).now_or_never().unwrap()
    }

    fn record(memory: &Memory, delivery: &mut Stored<Delivery>, name: &str, receipt: &Value) {
        let steps = loaded(memory, delivery);
        let (writes, _) = steps.record(memory, delivery, name, receipt.clone());
        write_all(memory, writes).unwrap();
    }

    fn loaded(memory: &Memory, delivery: &Stored<Delivery>) -> Steps {
        let steps = Steps::load(memory, &delivery.row).now_or_never();
        steps.unwrap().unwrap()
    }

    #[test]
    fn a_step_is_in_one_place_whatever_it_grows_to() {
        let memory = Memory::default();
        let mut delivery = delivery(&memory);
        let (short, long) = (json!("short"), json!("l".repeat(ROOM)));
        for (name, receipt, in_the_row) in [
            ("a", &short, 1),
            ("b", &long, 1),
            ("c", &short, 2),
            ("a", &long, 1),
            ("a", &short, 1),
        ] {
            record(&memory, &mut delivery, name, receipt);
            let steps = loaded(&memory, &delivery);
            assert_eq!(steps.with_those_of(&delivery.row)[name], *receipt);
            assert_eq!(delivery.row.progress.len(), in_the_row, "{name}");
        }
        let all = loaded(&memory, &delivery).with_those_of(&delivery.row);
        let all: Vec<_> = all.into_iter().collect();
        let expected = [("a", short.clone()), ("b", long), ("c", short)];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn nobody_records_a_step_of_a_delivery_that_another_took_over() {
        let memory = Memory::default();
        let mut delivery = delivery(&memory);
        let long = json!("l".repeat(ROOM));
        record(&memory, &mut delivery, "a", &long);
        let another = vec![delivery.update(&memory).0];
        write_all(&memory, another).unwrap();
        for (name, receipt) in [("b", &long), ("a", &long), ("c", &json!(1))] {
            let steps = loaded(&memory, &delivery);
            let mut late = delivery.clone();
            let (writes, _) = steps.record(&memory, &mut late, name, receipt.clone());
            let written = write_all(&memory, writes);
            assert!(matches!(written, Err(WriteError::Conflict)), "{name}");
        }
        assert_eq!(loaded(&memory, &delivery).0.len(), 1);
    }
}
