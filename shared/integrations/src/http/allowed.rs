//! Networks that an operator of the stack allows in addition to the public ones: its own, and ports of its choice.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use api::Network;

use super::guard::Way;

/// Ranges of addresses with ports, as `10.20.0.0/16:443,8081;http:10.30.1.5/32:8080;fd12::/32:443`.
///
/// Entries end with a semicolon. `http:` before an entry allows HTTP without TLS as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Arc<[Entry]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    network: Network,
    ports: Vec<u16>,
    allows_plain: bool,
}

/// The text is no list of allowed networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses with ports, as 10.20.0.0/16:443,8081")]
pub struct Malformed(String);

impl Allowed {
    /// Reports whether the list has this address for this way.
    pub(super) fn has(&self, address: IpAddr, way: Way) -> bool {
        let entries = self.0.iter();
        let mut entries = entries.filter(|entry| entry.has_way(way));
        entries.any(|entry| entry.network.contains(address))
    }

    /// Reports whether some address may be reached on this way.
    pub(super) fn has_way(&self, way: Way) -> bool {
        self.0.iter().any(|entry| entry.has_way(way))
    }
}

impl Entry {
    fn has_way(&self, way: Way) -> bool {
        self.ports.contains(&way.port) && (self.allows_plain || !way.is_plain)
    }
}

impl FromStr for Allowed {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let entries = text.split(';').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        entries
            .map(str::parse)
            .collect::<Result<Arc<_>, _>>()
            .map(Self)
    }
}

impl FromStr for Entry {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed(text.to_owned());
        let (allows_plain, rest) = match text.strip_prefix("http:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The length of the prefix separates an IPv6 address from the ports.
        let (address, rest) = rest.split_once('/').ok_or_else(malformed)?;
        let (length, ports) = rest.split_once(':').ok_or_else(malformed)?;
        let network = format!("{address}/{length}");
        let ports = ports.split(',').map(|port| port.trim().parse());
        let ports: Vec<u16> = ports.collect::<Result<_, _>>().map_err(|_| malformed())?;
        if ports.contains(&0) {
            return Err(malformed());
        }
        Ok(Self {
            network: network.parse().map_err(|_| malformed())?,
            ports,
            allows_plain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_none_is_named() {
        for text in [
            "10.20.0.0/16",
            "10.20.0.0:443",
            "10.20.0.0/16:",
            "10.20.0.0/16:0",
            "10.20.0.0/16:65536",
            "10.20.0.0/33:443",
            "10.20.0.0/16:443,",
            "10.20.0.0/16:443 8443",
            "corp.example.org:443",
            "https:10.20.0.0/16:443",
            "fd12::/129:443",
        ] {
            let list = format!("10.0.0.0/8:443;{text}");
            let error = list.parse::<Allowed>().unwrap_err();
            assert_eq!(error, Malformed(text.to_owned()));
        }
        assert_eq!(" ; ".parse::<Allowed>(), Ok(Allowed::default()));
    }
}
