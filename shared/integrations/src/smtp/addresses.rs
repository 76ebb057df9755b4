//! Mail addresses and the server's place, as an operator writes them down.

use std::borrow::Cow;
use std::fmt;

use attestation::Digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::text::is_invisible;

/// The most that one input takes: each is asked for by itself, and all of them within one attempt.
pub const MOST: usize = 16;

/// One mail address without a name, its domain in lower case and in ASCII. Letters beyond it in front of the `@` need
/// a server that offers SMTPUTF8.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(lettre::Address);

impl Address {
    pub(super) fn parsed(&self) -> &lettre::Address {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// Returns whether the address needs a server that offers SMTPUTF8.
    pub(super) fn needs_utf8(&self) -> bool {
        !self.as_str().is_ascii()
    }

    pub(super) fn domain(&self) -> &str {
        self.0.domain()
    }

    /// `a…@example.org`: enough to know whose it is for those who know them all.
    pub(super) fn mask(&self) -> String {
        let mut letters = self.0.user().chars();
        let first = letters.next().filter(|_| letters.next().is_some());
        let first = first.map(String::from).unwrap_or_default();
        format!("{first}…@{}", self.domain())
    }

    /// Tells two with the same mask apart.
    pub(super) fn fingerprint(&self) -> String {
        Digest::of(self.as_str().as_bytes()).hex()[..8].to_owned()
    }
}

/// Not the whole of it: this is what a log may show.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mask())
    }
}

const NOT_AN_ADDRESS: &str = "must be one mail address, as in name@example.org";

impl TryFrom<&str> for Address {
    type Error = &'static str;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let (user, domain) = text.rsplit_once('@').ok_or(NOT_AN_ADDRESS)?;
        // Quoting and comments are the rest of what there could be in front of the @: few servers take them, and
        // they make header fields hard to get right.
        let plain = |letter: char| match letter.is_ascii() {
            true => letter.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(letter),
            false => !(letter.is_control() || letter.is_whitespace() || is_invisible(letter)),
        };
        if user.len() > 64 || !user.chars().all(plain) || domain.contains('%') {
            return Err(NOT_AN_ADDRESS);
        }
        let Ok(url::Host::Domain(domain)) = url::Host::parse(domain) else {
            return Err(NOT_AN_ADDRESS);
        };
        lettre::Address::new(user, domain)
            .map(Self)
            .map_err(|_| NOT_AN_ADDRESS)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.trim()).map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "email", "minLength": 3, "maxLength": 254 })
    }
}

/// Mail addresses with commas between them, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    pub(super) fn as_slice(&self) -> &[Address] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut all: Vec<Address> = Vec::new();
        for one in text.split(',') {
            let address = Address::try_from(one.trim()).map_err(|_| {
                de::Error::custom(
                    "must be mail addresses with commas between them, as in a@example.org, b@example.org",
                )
            })?;
            if !all.contains(&address) {
                all.push(address);
            }
        }
        match all.len() {
            ..=MOST => Ok(Self(all)),
            _ => Err(de::Error::custom(format!(
                "must be at most {MOST} mail addresses; a mailing list takes more"
            ))),
        }
    }
}

impl JsonSchema for Addresses {
    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 3,
            "maxLength": 4096,
            "examples": ["team@example.org, lead@example.com"],
        })
    }
}

/// A host by its name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailHost(url::Host<String>);

impl MailHost {
    pub(super) fn host(&self) -> &url::Host<String> {
        &self.0
    }

    /// Returns the host as a greeting names it (RFC 5321, 4.1.3).
    pub(super) fn literal(&self) -> String {
        match &self.0 {
            url::Host::Domain(name) => name.clone(),
            url::Host::Ipv4(address) => format!("[{address}]"),
            url::Host::Ipv6(address) => format!("[IPv6:{address}]"),
        }
    }

    /// Returns the host as a certificate names it.
    pub(super) fn name(&self) -> String {
        match &self.0 {
            url::Host::Ipv6(address) => address.to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for MailHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for MailHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let host = match text.parse() {
            Ok(address) => Ok(url::Host::Ipv6(address)),
            Err(_) => url::Host::parse(&text),
        };
        match host {
            Ok(host) if !text.contains('%') => Ok(Self(host)),
            _ => Err(de::Error::custom(
                "must be a host's name or address alone, as in smtp.example.org",
            )),
        }
    }
}

impl JsonSchema for MailHost {
    fn schema_name() -> Cow<'static, str> {
        "MailHost".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "examples": ["smtp.example.org"] })
    }
}

/// A port: text, as Chainloop has it, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub(super) u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, as in 587")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
                match u16::try_from(number) {
                    Ok(port @ 1..) => Ok(Port(port)),
                    _ => Err(E::custom("must be a port from 1 to 65535")),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                self.visit_u64(text.parse().ok().filter(|_| digits).unwrap_or_default())
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-also": "integer",
            "minLength": 1,
            "maxLength": 5,
            "examples": ["587"],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn address(text: &str) -> Result<Address, serde_json::Error> {
        serde_json::from_value(json!(text))
    }

    #[test]
    fn an_address_is_one_that_needs_no_quoting() {
        for (text, written) in [
            ("a@example.org", "a@example.org"),
            (" First.Last+tag@Example.ORG ", "First.Last+tag@example.org"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("root@localhost", "root@localhost"),
            ("Jörg@bücher.example", "Jörg@xn--bcher-kva.example"),
            ("हिन्दी@example.org", "हिन्दी@example.org"),
            ("用户@例子.example", "用户@xn--fsqu00a.example"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), written);
        }
        for text in [
            "",
            "@",
            "a@",
            "@example.org",
            "a b@example.org",
            "a@example.org\r\nBcc: b@example.org",
            "a\r\nDATA@example.org",
            "<a@example.org>",
            "A <a@example.org>",
            "a@b@example.org",
            "\"a\"@example.org",
            "a\u{202e}b@example.org",
            "a\u{a0}b@example.org",
            "a\u{85}b@example.org",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@example.org,b@example.org",
            "a@exa%0Ample.org",
            ".a@example.org",
        ] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mask_does_not_show_who_it_is() {
        let shown = |text| format!("{:?}", address(text).unwrap());
        assert_eq!(shown("alice@example.org"), "a…@example.org");
        assert_eq!(shown("a@example.org"), "…@example.org");
        let [alice, anna] = ["alice@example.org", "anna@example.org"].map(|a| address(a).unwrap());
        assert_ne!(alice.fingerprint(), anna.fingerprint());
    }

    #[test]
    fn addresses_stand_between_commas_each_once() {
        let all = |text: &str| serde_json::from_value::<Addresses>(json!(text));
        let written = |text| {
            let all = all(text).unwrap().0;
            all.iter()
                .map(|one| one.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(written("a@example.org"), ["a@example.org"]);
        assert_eq!(
            written("b@example.org,a@example.com , b@EXAMPLE.org"),
            ["b@example.org", "a@example.com"]
        );
        for text in ["", ",", "a@example.org,", "a@example.org;b@example.org"] {
            assert!(all(text).is_err(), "{text:?}");
        }
        let many = |count: usize| {
            let all: Vec<_> = (0..count).map(|n| format!("a{n}@example.org")).collect();
            all.join(",")
        };
        assert!(all(&many(MOST)).is_ok());
        assert!(all(&many(MOST + 1)).is_err());
    }

    #[test]
    fn a_port_is_text_or_a_number() {
        let port = |value: Value| serde_json::from_value::<Port>(value).ok();
        assert_eq!(port(json!("587")), Some(Port(587)));
        assert_eq!(port(json!(587)), Some(Port(587)));
        for value in [
            json!(""),
            json!("smtp"),
            json!("+587"),
            json!("0"),
            json!(0),
            json!(65536),
            json!(-1),
            json!(5.5),
            json!(null),
        ] {
            assert_eq!(port(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_alone() {
        let host = |text: &str| serde_json::from_value::<MailHost>(json!(text)).ok();
        let (v4, v6) = ("[192.0.2.1]", "[IPv6:2001:db8::1]");
        for (text, shown, name, literal) in [
            (
                "smtp.Example.org",
                "smtp.example.org",
                "smtp.example.org",
                "smtp.example.org",
            ),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1", v4),
            ("2001:db8::1", "[2001:db8::1]", "2001:db8::1", v6),
            ("[2001:db8::1]", "[2001:db8::1]", "2001:db8::1", v6),
            // Whatever spelling there is of it, it is this address that is vetted.
            ("0x7f.1", "127.0.0.1", "127.0.0.1", "[127.0.0.1]"),
        ] {
            let host = host(text).unwrap();
            let written = [host.to_string(), host.name(), host.literal()];
            assert_eq!(written, [shown, name, literal]);
        }
        for text in [
            "",
            "smtp.example.org:587",
            "smtps://smtp.example.org",
            "smtp example",
            "user@smtp.example.org",
            "smtp%2eexample.org",
            "a\r\nb",
        ] {
            assert_eq!(host(text), None, "{text:?}");
        }
    }
}
