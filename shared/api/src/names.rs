//! Names of what an organization has.

use crate::inputs::Fault;

/// [`is_label`], for descriptions.
pub const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// A DNS-1123 label: what a name may be.
pub fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Returns the fault in a name, if any.
pub fn name_fault(name: &str) -> Option<Fault> {
    // A name or an id is asked for in one place, and nobody may be called as another one is known.
    let is_id = name.len() == 36 && uuid::Uuid::try_parse(name).is_ok();
    let detail = match (is_label(name), is_id) {
        (true, false) => return None,
        (true, true) => "must not be a UUID, which ids are",
        (false, _) => {
            "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
        }
    };
    Some(Fault {
        field: "name".into(),
        detail: detail.into(),
    })
}
