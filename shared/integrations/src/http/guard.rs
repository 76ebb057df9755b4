//! Admission of destinations: schemes, ports, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use url::Host;

use super::allowed::Allowed;
use super::proxy::Proxy;
use crate::Error;

/// Port that the Lambda Runtime API and the extensions listen on.
const LAMBDA_PORT: u16 = 9001;

/// Port that AWS blocks, unless an account asks for it, and for functions outside a VPC always.
const SMTP_PORT: u16 = 25;

/// Permissions of a function's connections, beyond TLS to public addresses on ports for the public.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Local mode: connections to `localhost` and to loopback addresses, on any port.
    pub allow_loopback: bool,
    /// Networks and ports that the stack's operator allows.
    pub allowed: Allowed,
    /// The function's connections begin in a network of the operator's.
    pub is_in_vpc: bool,
    /// Proxy for all connections.
    pub proxy: Option<Arc<Proxy>>,
}

/// Way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    /// HTTP without TLS.
    pub(super) is_plain: bool,
    /// Ports that are open to the public for this protocol: any other is more often somebody's other service.
    pub(super) public_ports: &'static [u16],
}

impl Way {
    fn is_public(self) -> bool {
        !self.is_plain && self.public_ports.contains(&self.port)
    }

    fn refused(self) -> Refused {
        match self.is_plain {
            true => Refused::Unlisted("a URL that is not https"),
            false => Refused::Port {
                public: self.public_ports,
            },
        }
    }
}

impl Guard {
    /// Checks that this way may be taken to some address of the host, before its name is resolved.
    pub(super) fn admit(&self, host: &Host<impl AsRef<str>>, way: Way) -> Result<(), Refused> {
        let is_ours = self.allow_loopback && is_local(host);
        if way.port == LAMBDA_PORT {
            return Err(Refused::Never("port 9001"));
        }
        if way.port == SMTP_PORT && !(is_ours || self.is_in_vpc || self.proxy.is_some()) {
            return Err(Refused::BlockedByAws);
        }
        if let Some(address) = literal(host) {
            return self.vet(true, address, way);
        }
        match is_ours || way.is_public() || self.allowed.has_way(way) {
            true => Ok(()),
            false => Err(way.refused()),
        }
    }

    /// Checks that a connection may be made to this address.
    /// `by_local_name`: the host was given as `localhost` or as the address itself. A public name that
    /// points to loopback is refused in local mode, too.
    pub(super) fn vet(
        &self,
        by_local_name: bool,
        address: IpAddr,
        way: Way,
    ) -> Result<(), Refused> {
        // Not so in the disguise of an IPv6 address, which is nobody's local mode.
        let is_ours = self.allow_loopback && by_local_name && address.is_loopback();
        match forbidden(address) {
            Some(_) if is_ours => Ok(()),
            Some(class) if !may_be_listed(address) => Err(Refused::Never(class)),
            _ if self.allowed.has(address, way) => Ok(()),
            Some(class) => Err(Refused::Unlisted(class)),
            None if way.is_public() => Ok(()),
            None => Err(way.refused()),
        }
    }

    /// Returns the proxy, if this name is one of those that it alone can resolve.
    pub(super) fn proxy_for(&self, name: &str) -> Option<&Proxy> {
        let proxy = self.proxy.as_deref();
        proxy.filter(|proxy| proxy.resolves(name))
    }
}

/// Reason why a connection may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0} is not allowed")]
    Never(&'static str),
    #[error("{0} is not allowed; the stack's parameter AllowedPrivateCidrs could allow it")]
    Unlisted(&'static str),
    #[error(
        "this port is not allowed; use {}, or the stack's parameter AllowedPrivateCidrs could allow it", ports(.public)
    )]
    Port { public: &'static [u16] },
    #[error(
        "AWS blocks port 25 for functions outside a VPC; use 587 or 465, or set the stack's parameter SubnetIds"
    )]
    BlockedByAws,
}

/// `443 or 8443`, without the one that has to be asked for.
fn ports(ports: &[u16]) -> String {
    let ports = ports.iter().filter(|port| **port != SMTP_PORT);
    let ports: Vec<_> = ports.map(u16::to_string).collect();
    ports.join(" or ")
}

fn literal(host: &Host<impl AsRef<str>>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
        Host::Domain(_) => None,
    }
}

/// Reports whether a host is on this machine, by its name or literal address.
pub fn is_local(host: &Host<impl AsRef<str>>) -> bool {
    match host {
        Host::Domain(name) => is_local_name(name.as_ref()),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// The class of an address that is not for third parties; `None` for a public one.
///
/// By the IANA special-purpose address registries (RFC 6890 and its successors).
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, 0, 0, 0] => Some("an unspecified address"),
        [0, ..] => Some("an address of this network"),
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("a shared address"),
        [169, 254, ..] => Some("a link-local address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("a documentation address"),
        [192, 0, 0, _] => Some("a protocol address"),
        [192, 88, 99, _] => Some("a 6to4 relay address"),
        [198, 18..=19, ..] => Some("a benchmarking address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // What matters in these two is the address inside. A network with DNS64 reaches every
        // IPv4-only third party through NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            forbidden_v4(Ipv4Addr::new(a, b, c, d))
        }
        [0x64, 0xff9b, 1, ..] => Some("a local translation address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Both tunnels are out of use, so what they carry is not looked at.
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2002, ..] => Some("a 6to4 address"),
        [0x2001, 2, 0, ..] => Some("a benchmarking address"),
        [0x2001, 0..=0x1ff, ..] => Some("a protocol address"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("a documentation address"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

/// Reports whether a list of allowed networks may have an address that is not public: an organization's own networks,
/// and nothing of the machine, of the link (where clouds keep their metadata) or of AWS's own services.
fn may_be_listed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            matches!(
                address.octets(),
                [10, ..]
                    | [172, 16..=31, ..]
                    | [192, 168, ..]
                    | [100, 64..=127, ..]
                    | [198, 18..=19, ..]
            ) || forbidden_v4(address).is_none()
        }
        IpAddr::V6(address) => match address.segments() {
            [0xfd00, 0x0ec2, ..] => false,
            [0xfc00..=0xfdff, ..] => true,
            _ => forbidden_v6(address).is_none(),
        },
    }
}

pub(super) fn refuse(place: &str, refused: Refused) -> Error {
    // The operations page explains this line.
    tracing::warn!(
        destination = place,
        reason = %refused,
        "Refused to connect to {place}"
    );
    Error::permanent(format!("reach {place}: {refused}"))
}

#[cfg(test)]
impl Guard {
    pub(crate) fn local() -> Self {
        Self {
            allow_loopback: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    /// As the connector asks it.
    const HTTPS: [u16; 2] = [443, 8443];

    fn allowing(list: &str) -> Guard {
        Guard {
            allowed: list.parse().unwrap(),
            ..Guard::default()
        }
    }

    fn class(address: &str) -> Option<&'static str> {
        forbidden(address.parse().unwrap())
    }

    #[test]
    fn every_class_of_address_that_is_not_public_is_refused() {
        for (name, addresses) in [
            ("loopback", "127.0.0.1 127.255.255.255 ::1"),
            (
                "private",
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 fc00::1 fd00:ec2::254",
            ),
            (
                "link-local",
                "169.254.169.254 169.254.100.1 fe80::1 febf::1",
            ),
            ("shared", "100.64.0.1 100.127.255.255"),
            ("multicast", "224.0.0.1 239.255.255.255 ff02::1"),
            (
                "documentation",
                "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 3fff:fff::1",
            ),
            ("benchmarking", "198.18.0.1 198.19.255.255 2001:2::1"),
            (
                "reserved",
                "240.0.0.1 255.255.255.255 ::7f00:1 ::a00:1 100::1 4000::1 fec0::1 5f00::1",
            ),
            ("unspecified", "0.0.0.0 ::"),
            ("this network", "0.1.2.3"),
            (
                "protocol",
                "192.0.0.1 192.0.0.170 2001:1::1 2001:10::1 2001:20::1 2001:1ff::1",
            ),
            ("6to4", "192.88.99.1 2002:7f00:1::1 2002:0808:0808::1"),
            ("Teredo", "2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2"),
            ("local translation", "64:ff9b:1::1 64:ff9b:1:7f00:1::"),
            // IPv4 inside IPv6: mapped, and NAT64's well-known prefix.
            ("loopback", "::ffff:127.0.0.1 64:ff9b::127.0.0.1"),
            (
                "private",
                "::ffff:10.0.0.1 ::ffff:192.168.0.1 64:ff9b::10.0.0.1 64:ff9b::172.16.0.1",
            ),
            (
                "link-local",
                "::ffff:169.254.169.254 64:ff9b::169.254.169.254",
            ),
            ("shared", "::ffff:100.64.0.1 64:ff9b::100.64.0.1"),
            ("multicast", "::ffff:224.0.0.1 64:ff9b::224.0.0.1"),
            ("benchmarking", "::ffff:198.18.0.1 64:ff9b::198.18.0.1"),
            ("documentation", "::ffff:192.0.2.1 64:ff9b::203.0.113.1"),
            ("reserved", "::ffff:240.0.0.1 64:ff9b::255.255.255.255"),
            ("unspecified", "::ffff:0.0.0.0 64:ff9b::"),
        ] {
            for address in addresses.split(' ') {
                let class = class(address).unwrap_or("allowed");
                assert!(class.contains(name), "{address} is {class}, not {name}");
            }
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in "8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 198.17.0.1 198.20.0.1 \
                        223.255.255.255 192.0.1.1 2606:4700::1 2001:200::1 2a00:1450::1 3fff:1000::1 \
                        ::ffff:8.8.8.8 64:ff9b::8.8.8.8"
            .split_whitespace()
        {
            assert_eq!(class(address), None, "{address}");
        }
    }

    fn way(port: u16, is_plain: bool) -> Way {
        Way {
            port,
            is_plain,
            public_ports: &HTTPS,
        }
    }

    fn admit(guard: &Guard, url: &str) -> Result<(), Refused> {
        let url = Url::parse(url).unwrap();
        let port = url.port_or_known_default().unwrap();
        guard.admit(&url.host().unwrap(), way(port, url.scheme() == "http"))
    }

    #[test]
    fn only_https_on_two_ports_goes_out() {
        for url in [
            "https://example.org",
            "https://example.org:8443/x",
            "https://8.8.8.8/",
        ] {
            assert_eq!(admit(&Guard::default(), url), Ok(()), "{url}");
            assert_eq!(admit(&Guard::local(), url), Ok(()), "{url}");
        }
        for url in [
            "http://example.org",
            "http://example.org:443",
            "https://example.org:80",
            "https://example.org:9001",
            "https://example.org:22",
            "https://10.0.0.1",
            "https://[fd00:ec2::254]",
            "http://169.254.169.254/latest",
        ] {
            assert!(admit(&Guard::default(), url).is_err(), "{url}");
            assert!(admit(&Guard::local(), url).is_err(), "{url}");
        }
    }

    #[test]
    fn loopback_is_for_local_mode_however_it_is_spelled() {
        for url in [
            "http://127.0.0.1:1234",
            "https://127.0.0.1",
            "http://127.1",
            "http://2130706433",
            "http://0x7f.0.0.1",
            "http://017700000001",
            "http://[::1]:8080",
            "http://localhost:4566",
            "http://localhost.:4566",
            "http://s3.localhost",
        ] {
            assert!(
                admit(&Guard::default(), url).is_err() || url.starts_with("https"),
                "{url}"
            );
            assert_eq!(admit(&Guard::local(), url), Ok(()), "{url}");
        }
        assert!(admit(&Guard::default(), "https://127.0.0.1").is_err());
        for url in [
            "http://[::ffff:127.0.0.1]",
            "http://127.0.0.1:9001",
            "http://0.0.0.0",
            "http://0",
        ] {
            assert!(admit(&Guard::local(), url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_public_name_with_a_local_address_is_refused() {
        let vet = |guard: Guard, by_local_name, address: &str| {
            guard.vet(by_local_name, address.parse().unwrap(), way(443, false))
        };
        assert_eq!(vet(Guard::default(), false, "8.8.8.8"), Ok(()));
        assert!(vet(Guard::default(), false, "64:ff9b::10.0.0.1").is_err());
        assert!(vet(Guard::default(), true, "127.0.0.1").is_err());
        assert_eq!(vet(Guard::local(), true, "127.0.0.1"), Ok(()));
        assert_eq!(vet(Guard::local(), true, "::1"), Ok(()));
        assert!(vet(Guard::local(), true, "10.0.0.1").is_err());
        assert!(vet(Guard::local(), false, "127.0.0.1").is_err());
    }

    #[test]
    fn a_list_allows_its_networks_on_its_ports_and_nothing_else() {
        let guard = allowing(
            "10.20.0.0/16:443,8081;http:10.30.1.5/32:8080; fd12::/32:443;;198.51.100.0/24:443",
        );
        for url in [
            "https://10.20.1.2",
            "https://10.20.255.255:8081/x",
            "https://10.30.1.5:8080",
            "http://10.30.1.5:8080",
            "https://[fd12::1]",
            // A name may lead there, so that it is resolved.
            "https://dt.corp.example.org:8081",
            "http://dt.corp.example.org:8080",
            // As without a list.
            "https://8.8.8.8:8443",
        ] {
            assert_eq!(admit(&guard, url), Ok(()), "{url}");
        }
        for (url, class) in [
            ("https://10.21.0.1", "a private address"),
            ("https://10.20.1.2:8080", "a private address"),
            ("http://10.20.1.2:443", "a private address"),
            ("http://10.20.1.2:8081", "a private address"),
            ("https://10.30.1.6:8080", "a private address"),
            ("https://[fd13::1]", "a private address"),
            ("https://192.168.1.1", "a private address"),
        ] {
            assert_eq!(admit(&guard, url), Err(Refused::Unlisted(class)), "{url}");
        }
        // Not for the port's sake a public address as well.
        let refused = guard.vet(false, "8.8.8.8".parse().unwrap(), way(8081, false));
        assert_eq!(refused, Err(Refused::Port { public: &HTTPS }));
        let refused = guard.vet(false, "8.8.8.8".parse().unwrap(), way(8080, true));
        assert_eq!(refused, Err(Refused::Unlisted("a URL that is not https")));
        // Unless it is listed.
        let guard = allowing("http:0.0.0.0/0:8080");
        assert_eq!(admit(&guard, "http://8.8.8.8:8080"), Ok(()));
    }

    /// Whatever a list says.
    #[test]
    fn no_list_allows_this_machine_its_link_and_aws_itself() {
        let everything = "http:0.0.0.0/0:80,443,4566,8443,9000;http:::/0:80,443,4566,8443,9000";
        for host in "127.0.0.1 127.1.2.3 [::1] [::ffff:127.0.0.1] [64:ff9b::7f00:1] 0.0.0.0 0.1.2.3 [::] \
                     169.254.169.254 169.254.170.2 169.254.100.1 [fe80::1] [fd00:ec2::254] [fd00:ec2::253] \
                     [::ffff:169.254.169.254] [64:ff9b::a9fe:a9fe] [::ffff:10.0.0.1] [64:ff9b::a00:1] [64:ff9b:1::1] \
                     [2002:a9fe:a9fe::1] [2001:0:a9fe:a9fe::1] [::a9fe:a9fe] [::7f00:1] 224.0.0.1 [ff02::1] 240.0.0.1 \
                     255.255.255.255 192.0.0.170 192.88.99.1 2130706433 0x7f.1 017700000001 2852039166 0xa9fea9fe"
            .split_whitespace()
        {
            for url in [format!("https://{host}"), format!("http://{host}:80")] {
                let refused = admit(&allowing(everything), &url);
                assert!(matches!(refused, Err(Refused::Never(_))), "{url}: {refused:?}");
            }
        }
        for host in ["10.0.0.1", "example.org", "8.8.8.8"] {
            let refused = admit(
                &allowing("http:0.0.0.0/0:9001"),
                &format!("http://{host}:9001"),
            );
            assert_eq!(refused, Err(Refused::Never("port 9001")), "{host}");
        }
    }

    #[test]
    fn port_25_needs_a_network_of_ones_own_or_a_proxy() {
        let smtp = Way {
            port: 25,
            is_plain: false,
            public_ports: &[25],
        };
        let host = Host::Domain("mail.example.org");
        assert_eq!(
            Guard::default().admit(&host, smtp),
            Err(Refused::BlockedByAws)
        );
        assert_eq!(
            Guard::local().admit(&host, smtp),
            Err(Refused::BlockedByAws)
        );
        assert_eq!(
            Guard::local().admit(&Host::Domain("localhost"), smtp),
            Ok(())
        );
        let in_vpc = Guard {
            is_in_vpc: true,
            ..Guard::default()
        };
        assert_eq!(in_vpc.admit(&host, smtp), Ok(()));
        let proxied = Guard {
            proxy: Some(Arc::new("http://proxy:3128".parse().unwrap())),
            ..Guard::default()
        };
        assert_eq!(proxied.admit(&host, smtp), Ok(()));
    }
}
