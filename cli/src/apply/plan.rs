//! Steps that turn the current state into the state that the files describe. Pure: no I/O.

use std::collections::BTreeSet;

use api::RegistrationId;
use api::integrations::Integration;
use serde_json::{Map, Value};

use super::file::{Attachment, Registration};
use super::policy::PolicyStep;
use super::state::{Attached, Registered};

/// Command-line options that affect the plan.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Delete what is in no file.
    pub prune: bool,
    /// Registrations whose secrets are sent again.
    pub rotate: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub unchanged: Counts,
    /// In no file, and left unchanged.
    pub others: Counts,
    /// True if any secret was not compared.
    pub blind: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub registrations: usize,
    pub attachments: usize,
    pub trust_policies: usize,
}

impl Counts {
    pub(super) fn all(self) -> usize {
        self.registrations + self.attachments + self.trust_policies
    }
}

/// Steps, in the order of execution.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Register(Registration),
    Update(Box<Update>),
    Attach {
        registration: String,
        attachment: Attachment,
    },
    Reattach {
        registration: String,
        there: Attached,
        changes: Vec<Change>,
    },
    Detach {
        registration: String,
        /// The registration's id.
        of: RegistrationId,
        there: Attached,
    },
    Deregister {
        there: Registered,
    },
    Trust(PolicyStep),
}

/// Changes to an existing registration.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub there: Registered,
    pub wanted: Registration,
    pub changes: Vec<Change>,
    /// True if its secrets are sent, always all of them together.
    pub sends_secrets: bool,
    /// Secrets to remove.
    pub dropped: Vec<String>,
}

/// A field that differs, or exists on one side only.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// `description`, `wait_secs`, or `inputs.` and the input's name.
    pub field: String,
    pub from: Option<Value>,
    pub to: Option<Value>,
}

/// Returns the plan, or the faults that prevent it.
pub(super) fn plan(
    wanted: &[Registration],
    there: &[Registered],
    integrations: &[Integration],
    wishes: &Wishes,
) -> Result<Plan, Vec<String>> {
    let mut plan = Plan::default();
    let mut faults = Vec::new();
    for registration in wanted {
        let name = &registration.name;
        match there.iter().find(|one| one.name == *name) {
            None => {
                plan.steps.push(Step::Register(registration.clone()));
                for attachment in &registration.attachments {
                    plan.attach(name, attachment);
                }
            }
            Some(found) if found.integration != registration.integration => {
                let text = format!(
                    "is {:?} in the existing registration, which cannot be changed: choose another name, or first \
                     delete that registration with `chainloop integration registered delete --name {name}`",
                    found.integration
                );
                faults.push(registration.places.fault("integration", &text));
            }
            Some(found) => {
                let is_meant = |one: &&Integration| one.id == found.integration;
                let schema = integrations.iter().find(is_meant);
                let moves = schema.is_some_and(|integration| {
                    let schema = &integration.registration_schema;
                    !api::inputs::moved(schema, &found.config, &registration.inputs).is_empty()
                });
                // Stored secrets go to no other destination than the one they were given for.
                plan.update(registration, found, moves || wishes.rotate.contains(name));
                plan.reattach(registration, found, wishes.prune);
            }
        }
    }
    for name in &wishes.rotate {
        match wanted.iter().find(|one| one.name == *name) {
            None => faults.push(format!(
                "--rotate {name}: no file has a registration of this name"
            )),
            Some(one) if one.secrets.is_empty() => {
                faults.push(format!("--rotate {name}: it has no secrets"));
            }
            Some(_) => {}
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for other in there {
        if wanted.iter().any(|one| one.name == other.name) {
            continue;
        }
        if wishes.prune {
            let there = other.clone();
            plan.steps.push(Step::Deregister { there });
        } else {
            plan.others.registrations += 1;
            plan.others.attachments += other.attachments.len();
        }
    }
    Ok(plan)
}

impl Plan {
    fn attach(&mut self, registration: &str, attachment: &Attachment) {
        self.steps.push(Step::Attach {
            registration: registration.to_owned(),
            attachment: attachment.clone(),
        });
    }

    fn update(&mut self, wanted: &Registration, there: &Registered, sends: bool) {
        let mut changes = Vec::new();
        if wanted.description != there.description {
            let text = |text: &String| (!text.is_empty()).then(|| text.as_str().into());
            changes.push(Change {
                field: "description".to_owned(),
                from: text(&there.description),
                to: text(&wanted.description),
            });
        }
        changes.extend(differences(&there.config, &wanted.inputs));
        let is_same = wanted.secrets.keys().eq(there.secrets.keys());
        let sends_secrets = sends && !wanted.secrets.is_empty() || !is_same;
        self.blind |= !sends_secrets && !wanted.secrets.is_empty();
        if changes.is_empty() && !sends_secrets {
            self.unchanged.registrations += 1;
            return;
        }
        let dropped = there.secrets.keys();
        let dropped = dropped.filter(|name| !wanted.secrets.contains_key(*name));
        self.steps.push(Step::Update(Box::new(Update {
            there: there.clone(),
            wanted: wanted.clone(),
            changes,
            sends_secrets,
            dropped: dropped.cloned().collect(),
        })));
    }

    /// Pairs wanted with existing attachments of the same workflow: first the equal ones, then the rest in order, file
    /// order on one side and creation order on the other.
    fn reattach(&mut self, wanted: &Registration, there: &Registered, prune: bool) {
        let mut left: Vec<&Attached> = there.attachments.iter().collect();
        let mut unequal = Vec::new();
        for attachment in &wanted.attachments {
            match left.iter().position(|one| is_equal(one, attachment)) {
                Some(index) => {
                    left.remove(index);
                    self.unchanged.attachments += 1;
                }
                None => unequal.push(attachment),
            }
        }
        for attachment in unequal {
            let same = left
                .iter()
                .position(|one| one.workflow == attachment.workflow);
            match same.map(|index| left.remove(index)) {
                None => self.attach(&wanted.name, attachment),
                Some(found) => {
                    let mut changes = differences(&found.config, &attachment.inputs);
                    if found.wait_secs != attachment.wait_secs {
                        changes.push(Change {
                            field: "wait_secs".to_owned(),
                            from: found.wait_secs.map(Value::from),
                            to: attachment.wait_secs.map(Value::from),
                        });
                    }
                    self.steps.push(Step::Reattach {
                        registration: wanted.name.clone(),
                        there: found.clone(),
                        changes,
                    });
                }
            }
        }
        if !prune {
            self.others.attachments += left.len();
            return;
        }
        self.steps
            .extend(left.into_iter().map(|found| Step::Detach {
                registration: wanted.name.clone(),
                of: there.id.clone(),
                there: found.clone(),
            }));
    }
}

fn is_equal(there: &Attached, wanted: &Attachment) -> bool {
    there.workflow == wanted.workflow
        && there.config == wanted.inputs
        && there.wait_secs == wanted.wait_secs
}

fn differences(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().map(|name| Change {
        field: format!("inputs.{name}"),
        from: old.get(name).cloned(),
        to: new.get(name).cloned(),
    });
    changes.filter(|change| change.from != change.to).collect()
}

/// The changes as a JSON merge patch.
pub(super) fn patch(changes: &[Change]) -> Map<String, Value> {
    let mut patch = Map::new();
    let mut inputs = Map::new();
    for Change { field, to, .. } in changes {
        let to = to.clone();
        match field.strip_prefix("inputs.") {
            Some(name) => {
                inputs.insert(name.to_owned(), to.unwrap_or(Value::Null));
            }
            // Without one it is empty.
            None if field == "description" => {
                patch.insert(field.clone(), to.unwrap_or_else(|| "".into()));
            }
            None => {
                patch.insert(field.clone(), to.unwrap_or(Value::Null));
            }
        }
    }
    if !inputs.is_empty() {
        patch.insert("inputs".to_owned(), inputs.into());
    }
    patch
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::file::Places;
    use super::super::secret::Source;
    use super::super::state::tests::attached;
    use super::*;

    fn inputs() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            Just(json!("x")),
            Just(json!("no")),
            Just(json!(1)),
            Just(json!(2.5)),
            Just(json!(true)),
        ];
        btree_map("[abc]", value, 0..3).prop_map(Map::from_iter)
    }

    fn attachment() -> impl Strategy<Value = Attachment> {
        let workflow = prop_oneof![Just("shop/a"), Just("shop/*"), Just("*")];
        let wait = proptest::option::of(0..3_u64);
        (workflow, inputs(), wait).prop_map(|(workflow, inputs, wait_secs)| Attachment {
            workflow: workflow.to_owned(),
            inputs,
            wait_secs,
        })
    }

    fn registration() -> impl Strategy<Value = Registration> {
        let secrets = btree_map("[pq]", Just(Source::Env("X".to_owned())), 0..3);
        let attachments = vec(attachment(), 0..5);
        let all = ("[a-d]", "x?", inputs(), secrets, attachments);
        all.prop_map(|(name, description, inputs, secrets, attachments)| {
            let mut once: Vec<Attachment> = Vec::new();
            for attachment in attachments {
                if !once.contains(&attachment) {
                    once.push(attachment);
                }
            }
            Registration {
                name,
                integration: "one".to_owned(),
                description,
                inputs,
                secrets,
                attachments: once,
                places: Places::none(),
            }
        })
    }

    fn wanted() -> impl Strategy<Value = Vec<Registration>> {
        vec(registration(), 0..4).prop_map(|mut all| {
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all.dedup_by(|a, b| a.name == b.name);
            all
        })
    }

    pub(in super::super) fn there() -> impl Strategy<Value = Vec<Registered>> {
        wanted().prop_map(|wanted| {
            let plan = plan(&wanted, &[], &[], &Wishes::default()).unwrap();
            carried(&plan, Vec::new())
        })
    }

    /// Ids are never given again.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);

    /// Applies a plan as the API would, and returns the resulting registrations.
    fn carried(plan: &Plan, mut there: Vec<Registered>) -> Vec<Registered> {
        let masked = |secrets: &BTreeMap<String, Source>| {
            let names = secrets.keys();
            names.map(|name| (name.clone(), json!("…"))).collect()
        };
        let merge = |config: &mut Map<String, Value>, patch: &Map<String, Value>| {
            let inputs = patch.get("inputs").and_then(Value::as_object);
            for (name, value) in inputs.into_iter().flatten() {
                match value {
                    Value::Null => config.remove(name),
                    value => config.insert(name.clone(), value.clone()),
                };
            }
        };
        for step in &plan.steps {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            match step {
                Step::Register(wanted) => there.push(Registered {
                    id: format!("new {number}").into(),
                    name: wanted.name.clone(),
                    integration: wanted.integration.clone(),
                    description: wanted.description.clone(),
                    config: wanted.inputs.clone(),
                    secrets: masked(&wanted.secrets),
                    etag: String::new(),
                    attachments: Vec::new(),
                }),
                Step::Update(update) => {
                    let Update {
                        there: old,
                        wanted,
                        changes,
                        sends_secrets,
                        ..
                    } = &**update;
                    let one = there.iter_mut().find(|one| one.id == old.id).unwrap();
                    let patch = patch(changes);
                    merge(&mut one.config, &patch);
                    if let Some(description) = patch.get("description") {
                        description
                            .as_str()
                            .unwrap()
                            .clone_into(&mut one.description);
                    }
                    if *sends_secrets {
                        one.secrets = masked(&wanted.secrets);
                    }
                }
                Step::Attach {
                    registration,
                    attachment,
                } => {
                    let of = there.iter_mut().find(|one| one.name == *registration);
                    let (id, workflow) = (format!("new {number}"), &attachment.workflow);
                    let new = attached(
                        &id,
                        workflow,
                        attachment.inputs.clone(),
                        attachment.wait_secs,
                    );
                    of.unwrap().attachments.push(new);
                }
                Step::Reattach {
                    there: old,
                    changes,
                    ..
                } => {
                    let all = there.iter_mut().flat_map(|one| &mut one.attachments);
                    let one = all.into_iter().find(|one| one.id == old.id).unwrap();
                    let patch = patch(changes);
                    merge(&mut one.config, &patch);
                    if let Some(secs) = patch.get("wait_secs") {
                        one.wait_secs = secs.as_u64();
                    }
                }
                Step::Detach { there: old, .. } => there
                    .iter_mut()
                    .for_each(|one| one.attachments.retain(|one| one.id != old.id)),
                Step::Deregister { there: old } => there.retain(|one| one.id != old.id),
                Step::Trust(_) => unreachable!("registrations alone are planned here"),
            }
        }
        there
    }

    /// As far as files can say it, in an order of its own.
    fn seen(there: &[Registered]) -> Vec<String> {
        let mut seen: Vec<String> = there
            .iter()
            .map(|one| {
                let attachments = one.attachments.iter();
                let mut attachments: Vec<String> = attachments
                    .map(|one| format!("{} {:?} {:?}", one.workflow, one.config, one.wait_secs))
                    .collect();
                attachments.sort();
                let secrets: Vec<&String> = one.secrets.keys().collect();
                format!(
                    "{} {} {:?} {secrets:?} {attachments:?}",
                    one.name, one.description, one.config
                )
            })
            .collect();
        seen.sort();
        seen
    }

    const PRUNE: Wishes = Wishes {
        prune: true,
        rotate: BTreeSet::new(),
    };

    proptest! {
        #[test]
        fn what_is_planned_with_prune_makes_what_the_file_says(wanted in wanted(), there in there()) {
            let all = carried(&plan(&wanted, &[], &[], &PRUNE).unwrap(), Vec::new());
            let made = carried(&plan(&wanted, &there, &[], &PRUNE).unwrap(), there);
            prop_assert_eq!(seen(&made), seen(&all));
        }

        #[test]
        fn a_second_time_there_is_nothing_to_do(wanted in wanted(), there in there(), prune: bool) {
            let wishes = Wishes { prune, ..Wishes::default() };
            let made = carried(&plan(&wanted, &there, &[], &wishes).unwrap(), there);
            let again = plan(&wanted, &made, &[], &wishes).unwrap();
            prop_assert!(again.steps.is_empty(), "{:?}", again.steps);
            let of_file: usize = wanted.iter().map(|one| 1 + one.attachments.len()).sum();
            prop_assert_eq!(again.unchanged.all(), of_file);
        }

        #[test]
        fn without_prune_nothing_is_deleted(wanted in wanted(), there in there()) {
            let plan = plan(&wanted, &there, &[], &Wishes::default()).unwrap();
            let deletes = |step: &Step| matches!(step, Step::Detach { .. } | Step::Deregister { .. });
            prop_assert!(!plan.steps.iter().any(deletes));
        }

        #[test]
        fn what_is_cut_off_goes_on_the_next_time(wanted in wanted(), there in there(), done in 0..9_usize) {
            let mut first = plan(&wanted, &there, &[], &PRUNE).unwrap();
            first.steps.truncate(done);
            let cut = carried(&first, there);
            let made = carried(&plan(&wanted, &cut, &[], &PRUNE).unwrap(), cut);
            let all = carried(&plan(&wanted, &[], &[], &PRUNE).unwrap(), Vec::new());
            prop_assert_eq!(seen(&made), seen(&all));
        }
    }

    fn one(name: &str) -> Registration {
        Registration {
            name: name.to_owned(),
            integration: "one".to_owned(),
            description: String::new(),
            inputs: Map::new(),
            secrets: BTreeMap::from([("url".to_owned(), Source::Env("URL".to_owned()))]),
            attachments: Vec::new(),
            places: Places::none(),
        }
    }

    fn registered(wanted: &Registration) -> Registered {
        let plan = plan(std::slice::from_ref(wanted), &[], &[], &Wishes::default()).unwrap();
        carried(&plan, Vec::new()).remove(0)
    }

    #[test]
    fn another_integration_under_a_name_is_refused() {
        let there = registered(&one("hook"));
        let wanted = Registration {
            integration: "other".to_owned(),
            ..one("hook")
        };
        let faults = plan(&[wanted], &[there], &[], &PRUNE).unwrap_err();
        assert!(
            faults[0].contains("registrations[0].integration: is \"one\" in the existing"),
            "{faults:?}"
        );
    }

    #[test]
    fn secrets_are_sent_again_when_the_place_changes_that_they_are_sent_to() {
        let integration = Integration {
            id: "one".to_owned(),
            version: "1.0".to_owned(),
            description: String::new(),
            materials: Vec::new(),
            registration_schema: json!({ "properties": {
                "host": { "type": "string", api::inputs::DESTINATION: true }, "user": { "type": "string" },
            } }),
            attachment_schema: json!({}),
        };
        let with = |field: &str| Registration {
            inputs: Map::from_iter([(field.to_owned(), json!("x"))]),
            ..one("hook")
        };
        let there = [registered(&one("hook"))];
        let sends = |wanted: Registration| {
            let plan = plan(
                &[wanted],
                &there,
                std::slice::from_ref(&integration),
                &PRUNE,
            )
            .unwrap();
            matches!(&plan.steps[..], [Step::Update(update)] if update.sends_secrets)
        };
        assert!(sends(with("host")));
        assert!(!sends(with("user")));
    }

    #[test]
    fn secrets_are_sent_again_when_that_is_asked_for_and_when_their_names_change() {
        let there = [registered(&one("hook"))];
        let same = plan(&[one("hook")], &there, &[], &Wishes::default()).unwrap();
        assert!(same.steps.is_empty() && same.blind);
        let rotate = Wishes {
            rotate: BTreeSet::from(["hook".to_owned()]),
            ..Wishes::default()
        };
        let again = plan(&[one("hook")], &there, &[], &rotate).unwrap();
        assert!(matches!(&again.steps[..], [Step::Update(update)] if update.sends_secrets));
        let mut other = one("hook");
        other.secrets = BTreeMap::from([("key".to_owned(), Source::Env("KEY".to_owned()))]);
        let other = plan(&[other], &there, &[], &Wishes::default()).unwrap();
        assert!(matches!(&other.steps[..], [Step::Update(update)] if update.dropped == ["url"]));
        let faults = plan(&[], &there, &[], &rotate).unwrap_err();
        assert_eq!(
            faults,
            ["--rotate hook: no file has a registration of this name"]
        );
    }

    #[test]
    fn of_attachments_to_one_workflow_the_equal_ones_find_each_other_first() {
        let attachment = |prefix: &str| Attachment {
            workflow: "shop/a".to_owned(),
            inputs: Map::from_iter([("prefix".to_owned(), json!(prefix))]),
            wait_secs: None,
        };
        let mut wanted = one("hook");
        wanted.attachments = vec![attachment("one"), attachment("two")];
        let there = [registered(&wanted)];
        wanted.attachments = vec![attachment("new"), attachment("one")];
        let plan = plan(&[wanted], &there, &[], &Wishes::default()).unwrap();
        let [Step::Reattach { there, changes, .. }] = &plan.steps[..] else {
            panic!("{:?}", plan.steps)
        };
        assert_eq!(there.config["prefix"], "two");
        assert_eq!(changes[0].to, Some(json!("new")));
    }
}
