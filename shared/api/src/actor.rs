//! Actors: who did something, and from where.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From where a request came. Both are a stranger's to choose, at least in part, so both are bounded and printable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Client {
    /// The IP address from which the gateway was reached; empty when it is not known.
    #[serde(default)]
    pub address: String,
    /// As it called itself: printable ASCII, at most 256 characters.
    #[serde(default)]
    pub user_agent: String,
}

impl Client {
    /// Characters of a user agent that are kept.
    pub const USER_AGENT_CHARS: usize = 256;

    pub fn new(address: &str, user_agent: &str) -> Self {
        let address: Option<IpAddr> = address.parse().ok();
        let printable = |letter: char| match letter {
            ' '..='~' => letter,
            _ => '?',
        };
        let user_agent = user_agent.chars().take(Self::USER_AGENT_CHARS);
        Self {
            address: address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            user_agent: user_agent.map(printable).collect(),
        }
    }
}

/// The thing by which somebody was let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ActorKind")]
pub enum Kind {
    #[default]
    Token,
    Intake,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Token => "token",
            Self::Intake => "intake",
        })
    }
}

/// Somebody who asks for something, and from where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Actor {
    pub kind: Kind,
    /// The name of the token, or of the intake.
    pub name: String,
    /// The token's or the intake's id.
    #[serde(default)]
    pub id: String,
    #[serde(flatten)]
    pub client: Client,
}

impl Actor {
    /// Somebody who is known by a name alone.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_address_and_a_user_agent_short_and_printable() {
        let client = Client::new("192.0.2.10", "chainloop/1.0");
        assert_eq!(
            (client.address.as_str(), client.user_agent.as_str()),
            ("192.0.2.10", "chainloop/1.0")
        );
        for address in [
            "",
            "unknown",
            "192.0.2.10, 198.51.100.7",
            "<b>",
            "::1%eth0\n",
        ] {
            assert_eq!(Client::new(address, "").address, "", "{address:?}");
        }
        let told = Client::new("2001:DB8::1", "a\u{1b}[31mb\r\nc\u{202e}d\u{0}");
        assert_eq!(told.address, "2001:db8::1");
        assert_eq!(told.user_agent, "a?[31mb??c?d?");
        let long = Client::new("", &"é".repeat(100_000));
        assert_eq!(long.user_agent, "?".repeat(Client::USER_AGENT_CHARS));
    }
}
