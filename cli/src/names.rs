//! Names that the command line takes.

/// A DNS-1123 label.
pub(crate) fn label(text: &str) -> Result<String, String> {
    match api::names::name_fault(text) {
        None => Ok(text.to_owned()),
        Some(fault) => Err(fault.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for name in ["default", "a", "a-1", &"x".repeat(63)] {
            assert!(label(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(label(name).is_err(), "{name}");
        }
    }
}
