//! Check of the wanted configuration against the integrations' schemas, before any change.

use api::integrations::Integration;
use serde_json::{Map, Value};

use super::file::Registration;

/// Returns all faults, each with its place. Secrets have sources at this point, but no values.
pub(super) fn check(wanted: &[Registration], integrations: &[Integration]) -> Vec<String> {
    let mut faults = Vec::new();
    for registration in wanted {
        let found = integrations
            .iter()
            .find(|one| one.id == registration.integration);
        match found {
            None => {
                let known: Vec<&str> = integrations.iter().map(|one| one.id.as_str()).collect();
                let text = format!("is not known; available: {}", known.join(", "));
                faults.push(registration.places.fault("integration", &text));
            }
            Some(integration) => {
                faults.extend(of_registration(registration, integration));
                faults.extend(of_attachments(registration, integration));
            }
        }
    }
    faults
}

fn of_registration(registration: &Registration, integration: &Integration) -> Vec<String> {
    let schema = &integration.registration_schema;
    let fields = api::inputs::fields(schema);
    let secret = |name: &str| {
        let field = fields.iter().find(|field| field.name == name);
        field.map(|field| field.secret)
    };
    let mut faults = Vec::new();
    let mut whole = Map::new();
    for (name, value) in &registration.inputs {
        if secret(name) == Some(true) {
            let part = format!("inputs.{name}");
            let text = format!(
                "is a secret: give its source under `secrets`, such as {name}: {{ env: NAME }}"
            );
            faults.push(registration.places.fault(&part, &text));
        }
        whole.insert(name.clone(), value.clone());
    }
    for name in registration.secrets.keys() {
        if secret(name) == Some(false) {
            let part = format!("secrets.{name}");
            faults.push(
                registration
                    .places
                    .fault(&part, "is not a secret: move it to `inputs`"),
            );
        }
        whole.insert(name.clone(), Value::Null);
    }
    for fault in api::inputs::check_schema(schema, &whole) {
        let name = fault.field;
        let is_there = registration.secrets.contains_key(&name);
        // The value is read later, and the faults above are enough.
        if is_there && secret(&name).is_some()
            || secret(&name) == Some(true) && whole.contains_key(&name)
        {
            continue;
        }
        let below = match is_there || secret(&name) == Some(true) {
            true => "secrets",
            false => "inputs",
        };
        let part = format!("{below}.{name}");
        faults.push(registration.places.fault(&part, &fault.detail));
    }
    faults
}

fn of_attachments(registration: &Registration, integration: &Integration) -> Vec<String> {
    let attachments = registration.attachments.iter().enumerate();
    let faults = attachments.flat_map(|(index, attachment)| {
        let faults = api::inputs::check_schema(&integration.attachment_schema, &attachment.inputs);
        faults.into_iter().map(move |fault| {
            let part = format!("attachments[{index}].inputs.{}", fault.field);
            registration.places.fault(&part, &fault.detail)
        })
    });
    faults.collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::{Text, read};
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let text = Text {
            name: "a.yaml".into(),
            directory: "".into(),
            content: text.into(),
        };
        let integrations: Vec<Integration> =
            integrations::ALL.iter().map(Integration::from).collect();
        check(
            &read(&[text]).unwrap().registrations.unwrap(),
            &integrations,
        )
    }

    #[test]
    fn what_fits_has_no_fault() {
        let text = "
registrations:
  - name: images
    integration: oci-registry
    inputs: { repository: registry.example.org/sboms, username: ci }
    secrets: { password: { env: P } }
    attachments: [{ workflow: shop/a, inputs: { prefix: x } }]
  - name: hook
    integration: webhook
    secrets: { url: { env: U } }
";
        assert_eq!(faults(text), [""; 0]);
    }

    #[test]
    fn a_secret_in_plain_is_refused_with_what_to_write_instead() {
        let text = "
registrations:
  - name: hook
    integration: webhook
    inputs: { url: https://example.org/canary }
";
        assert_eq!(
            faults(text),
            [
                "a.yaml:5:15: registrations[0].inputs.url: is a secret: give its source under `secrets`, such as \
                 url: { env: NAME }"
            ]
        );
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let text = "
registrations:
  - name: images
    integration: oci-registry
    inputs: { repositry: x, username: 5 }
    secrets: { username: { env: U }, passwort: { env: P } }
    attachments: [{ workflow: shop/a, inputs: { prefx: x } }]
  - name: other
    integration: web
";
        let told = faults(text);
        let begin = |text: &str| told.iter().any(|fault| fault.starts_with(text));
        for text in [
            "a.yaml:5:15: registrations[0].inputs.repositry: is not known; did you mean \"repository\"?",
            "a.yaml:5:5: registrations[0].inputs.repository: is required",
            "a.yaml:6:16: registrations[0].secrets.username: is not a secret: move it to `inputs`",
            "a.yaml:6:38: registrations[0].secrets.passwort: is not known; did you mean \"password\"?",
            "a.yaml:7:49: registrations[0].attachments[0].inputs.prefx: is not known; did you mean \"prefix\"?",
            "a.yaml:9:5: registrations[1].integration: is not known; available: ",
        ] {
            assert!(begin(text), "{text}: {told:#?}");
        }
    }
}
