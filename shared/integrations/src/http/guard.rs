//! Admission of destinations: schemes, ports, addresses.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::allowed::Allowed;
use crate::Error;

/// Ports that serve HTTPS to the public. Any other is more often an admin port.
const PORTS: [u16; 2] = [443, 8443];

/// Port that the Lambda Runtime API and the extensions listen on; refused on loopback, too.
pub(super) const LAMBDA_PORT: u16 = 9001;

/// Permissions beyond HTTPS to public addresses on ports 443 and 8443.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Local mode: HTTP and HTTPS to `localhost` and to loopback addresses, on any port.
    pub allow_loopback: bool,
    pub allowed: Allowed,
}

/// How a destination would be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    /// HTTP without TLS.
    pub(super) is_plain: bool,
    /// Open for public addresses without being listed.
    pub(super) is_public: bool,
}

impl Way {
    fn of(url: &Url) -> Option<Self> {
        let port = url.port_or_known_default()?;
        let is_plain = match url.scheme() {
            "http" => true,
            "https" => false,
            _ => return None,
        };
        let is_public = !is_plain && PORTS.contains(&port);
        Some(Self {
            port,
            is_plain,
            is_public,
        })
    }

    fn refused(self) -> Refused {
        match self.is_plain {
            true => Refused::unlisted("a URL that is not https"),
            false => Refused::unlisted("a port other than 443 and 8443"),
        }
    }
}

tokio::task_local! {
    /// The way of the request that this task makes. A resolver is given a name alone, and the addresses that it may
    /// lead to depend on the port.
    static WAY: Way;
}

/// Makes a request that a guard has admitted.
pub(super) async fn on_the_way<T>(url: &Url, request: impl Future<Output = T>) -> T {
    match Way::of(url) {
        Some(way) => WAY.scope(way, request).await,
        None => request.await,
    }
}

impl Guard {
    /// Checks that a request may go to this URL, as far as possible before its name is resolved.
    pub(super) fn admit(&self, url: &Url) -> Result<(), Refused> {
        let host = url
            .host()
            .ok_or(Refused::never("an address without a host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::never("a URL with credentials in it"));
        }
        let way = Way::of(url).ok_or(Refused::never("a URL that is not https"))?;
        if let Some(address) = literal(&host) {
            return self.vet(true, address, way);
        }
        let is_ours = self.allow_loopback && is_local(&host) && way.port != LAMBDA_PORT;
        if is_ours || way.is_public || self.allowed.has_way(way) {
            return Ok(());
        }
        Err(way.refused())
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
            Some(_) if is_ours && way.port != LAMBDA_PORT => Ok(()),
            Some(class) if !may_be_listed(address) => Err(Refused::never(class)),
            _ if self.allowed.has(address, way) => Ok(()),
            Some(class) => Err(Refused::unlisted(class)),
            None if way.is_public => Ok(()),
            None => Err(way.refused()),
        }
    }
}

/// Reports whether the text of this URL permits requests at all, by some list of allowed networks. An operator should
/// learn of a forbidden URL when typing it.
pub(crate) fn is_sendable(url: &Url) -> bool {
    url.scheme() == "https" || url.host().is_some_and(|host| is_local(&host))
}

/// Why a request may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) what: &'static str,
    /// The list of allowed networks could allow it.
    could_be_listed: bool,
}

impl Refused {
    pub(super) fn never(what: &'static str) -> Self {
        let could_be_listed = false;
        Self {
            what,
            could_be_listed,
        }
    }

    pub(super) fn unlisted(what: &'static str) -> Self {
        let could_be_listed = true;
        Self {
            what,
            could_be_listed,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed", self.what)?;
        if self.could_be_listed {
            f.write_str("; the stack's parameter AllowedPrivateCidrs could allow it")?;
        }
        Ok(())
    }
}

impl StdError for Refused {}

pub(super) fn literal(host: &url::Host<&str>) -> Option<IpAddr> {
    match host {
        url::Host::Ipv4(address) => Some((*address).into()),
        url::Host::Ipv6(address) => Some((*address).into()),
        url::Host::Domain(_) => None,
    }
}

/// Reports whether a host is on this machine, by its name or literal address.
pub fn is_local(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Domain(name) => is_local_name(name),
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
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

/// Resolves by the system, and lets a name through only when all of its addresses may be connected to.
/// The connection is then made to exactly these: there is no second look-up to answer differently.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        // Of this task, since the future may be polled by another.
        let way = WAY
            .try_with(|way| *way)
            .map_err(|_| Refused::never("a request that no guard has admitted"));
        Box::pin(async move {
            let way = way?;
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let vetted = vet_all(&guard, name.as_str(), way, found.collect())?;
            Ok(Box::new(vetted.into_iter()) as Addrs)
        })
    }
}

fn vet_all(
    guard: &Guard,
    name: &str,
    way: Way,
    found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Refused> {
    for address in &found {
        guard.vet(is_local_name(name), address.ip(), way)?;
    }
    Ok(found)
}

pub(super) fn refuse(place: &str, refused: Refused) -> Error {
    // An alarm counts these.
    tracing::warn!(
        destination = place,
        reason = refused.what,
        "Refused to connect to {place}"
    );
    Error::permanent(format!("reach {place}: {refused}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Guard = Guard {
        allow_loopback: true,
    };
    const PUBLIC: Guard = Guard {
        allow_loopback: false,
    };

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

    fn admit(guard: Guard, url: &str) -> Result<(), Refused> {
        guard.admit(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_https_on_two_ports_goes_out() {
        for url in [
            "https://example.org",
            "https://example.org:8443/x",
            "https://8.8.8.8/",
        ] {
            assert_eq!(admit(PUBLIC, url), Ok(()), "{url}");
            assert_eq!(admit(LOCAL, url), Ok(()), "{url}");
        }
        for url in [
            "http://example.org",
            "http://example.org:443",
            "https://example.org:80",
            "https://example.org:9001",
            "https://example.org:22",
            "ftp://example.org",
            "https://user@example.org",
            "https://user:password@example.org",
            "https://10.0.0.1",
            "https://[fd00:ec2::254]",
            "http://169.254.169.254/latest",
        ] {
            assert!(admit(PUBLIC, url).is_err(), "{url}");
            assert!(admit(LOCAL, url).is_err(), "{url}");
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
                admit(PUBLIC, url).is_err() || url.starts_with("https"),
                "{url}"
            );
            assert_eq!(admit(LOCAL, url), Ok(()), "{url}");
        }
        assert!(admit(PUBLIC, "https://127.0.0.1").is_err());
        for url in [
            "http://[::ffff:127.0.0.1]",
            "http://127.0.0.1:9001",
            "http://0.0.0.0",
            "http://0",
        ] {
            assert!(admit(LOCAL, url).is_err(), "{url}");
        }
    }

    #[test]
    fn one_bad_address_refuses_the_name() {
        let all = |guard, name, addresses: &[&str]| {
            let found = addresses
                .iter()
                .map(|a| SocketAddr::new(a.parse().unwrap(), 0))
                .collect();
            vet_all(guard, name, found).is_ok()
        };
        assert!(all(PUBLIC, "example.org", &["8.8.8.8", "2606:4700::1"]));
        assert!(!all(PUBLIC, "example.org", &["8.8.8.8", "10.0.0.1"]));
        assert!(!all(PUBLIC, "example.org", &["64:ff9b::10.0.0.1"]));
        assert!(!all(PUBLIC, "localhost", &["127.0.0.1"]));
        assert!(all(LOCAL, "localhost", &["127.0.0.1", "::1"]));
        assert!(!all(LOCAL, "localhost", &["127.0.0.1", "10.0.0.1"]));
        assert!(
            !all(LOCAL, "rebind.example.org", &["127.0.0.1"]),
            "a public name with a local address"
        );
    }
}
