//! Ranges of IP addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// A range of addresses, as `192.0.2.0/24` or `2001:db8::/32`; a single address is a range of one. A range of
/// IPv4-mapped IPv6 addresses is the range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Compares an IPv4-mapped address as the IPv4 address that it is.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// The text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a range of IP addresses, as 192.0.2.0/24 or 2001:db8::/32")]
pub struct NotANetwork;

/// Bits of `::ffff:0:0/96`, below which stand the mapped addresses.
const MAPPED_BITS: u8 = 96;

fn unmapped(address: Ipv6Addr, bits: u8) -> Option<IpNet> {
    let address = address.to_ipv4_mapped()?;
    let net = Ipv4Net::new(address, bits.checked_sub(MAPPED_BITS)?).ok()?;
    Some(IpNet::V4(net))
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => text.parse::<IpAddr>().map_err(|_| NotANetwork)?.into(),
        };
        let net = match net {
            IpNet::V6(v6) => unmapped(v6.addr(), v6.prefix_len()).unwrap_or(net),
            IpNet::V4(_) => net,
        };
        Ok(Self(net.trunc()))
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others_mapped_or_not() {
        for (range, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.7", "192.0.3.7"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
        ] {
            assert!(
                network(range).contains(inside.parse().unwrap()),
                "{range} {inside}"
            );
            assert!(
                !network(range).contains(outside.parse().unwrap()),
                "{range} {outside}"
            );
        }
    }

    #[test]
    fn a_network_is_written_as_its_first_address_and_read_again() {
        for (text, written) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::ffff:192.0.2.9/120", "192.0.2.0/24"),
        ] {
            assert_eq!(network(text).to_string(), written);
            assert_eq!(network(written).to_string(), written);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "*",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "192.0.2/24",
            "::/129",
            "192.0.2.0/24 ",
            "a.example.org",
            "fe80::1%eth0",
            "192.0.2.1,192.0.2.2",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text:?}");
        }
    }
}
