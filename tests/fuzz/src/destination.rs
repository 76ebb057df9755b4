//! Destinations: URLs that operators write, addresses that names resolve to, and the pause that an answer asks for.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Uri};
use integrations::http::Guard;
use integrations::{Http, SecretUrl};
use ipnet::IpNet;
use url::Host;

pub const RETRY_WORDS: &[&str] = &[
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Mon, 07 Nov 9999 23:59:60 GMT",
    "-0000",
    "+2359",
    "EST",
    "31 Feb",
    "120",
    "99999999999",
    "-1",
    "1e9",
    "\n",
];

pub const WORDS: &[&str] = &[
    "https://",
    "http://",
    "HTTPS:",
    "ftp://",
    "//",
    "example.org",
    "localhost",
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "017700000001",
    "2130706433",
    "169.254.169.254",
    "0xa9fea9fe",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[fd00:ec2::254]",
    "10.0.0.1",
    ":443",
    ":8443",
    ":80",
    ":9001",
    ":65536",
    ":",
    "@",
    "user:password@",
    "%2e",
    "%00",
    "%40",
    "\\",
    "#",
    "?",
    "/",
    "..",
    ".",
    "\t",
    "\u{3002}",
    "\u{ff0e}",
    "\u{2460}",
    "\u{ff10}",
    "xn--",
    "xn--a",
    "\u{ad}",
    "\u{200d}",
    "\u{df}",
];

pub const LIST_WORDS: &[&str] = &[
    "10.0.0.0/8:443",
    "http:",
    ";",
    "0.0.0.0/0:443",
    "::/0:443",
    "fd00::/8:443",
    "169.254.0.0/16:80",
    "127.0.0.0/8:443",
    ",8443",
    "::ffff:0:0/96:443",
    "64:ff9b::/96:443",
];

/// The longest pause that is kept.
const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// Two lines: `Retry-After` and `Date`. No pause is longer than a delivery lives; seconds are what they say.
pub fn retry_after(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [RETRY_AFTER, DATE] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    for now in [0, 784_111_777, u64::MAX] {
        let pause = integrations::http::retry_after(&headers, now);
        assert!(pause.is_none_or(|pause| pause <= LONGEST_PAUSE));
        let secs = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let Some(secs) = secs {
            assert_eq!(pause, Some(Duration::from_secs(secs).min(LONGEST_PAUSE)));
        }
    }
}

/// By the registries of IANA, and independent of the guard: the ranges that no request goes to unless a list has them.
static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let all = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 \
               192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::/96 \
               64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8";
    all.split_whitespace()
        .map(|net| net.parse().expect("a range"))
        .collect()
});

/// Those that no list may have: of this machine, of its link, of everybody, and of AWS's own services.
static NEVER: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let all = "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 192.0.0.0/24 224.0.0.0/4 240.0.0.0/4 ::/96 fe80::/10 ff00::/8 fd00:ec2::/32";
    all.split_whitespace()
        .map(|net| net.parse().expect("a range"))
        .collect()
});

/// The address that a packet to this one ends at.
fn inside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
            | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
                IpAddr::from([a, b, c, d])
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

fn is_in(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&inside(address)))
}

fn guard(list: &str) -> Guard {
    Guard {
        allowed: list.parse().expect("a list"),
        ..Guard::default()
    }
}

/// Clients as deployed, with an operator's networks, and as on a developer's machine.
static CLIENTS: LazyLock<[Http; 3]> = LazyLock::new(|| {
    let lists = [
        "",
        "10.0.0.0/8:443,8081;http:0.0.0.0/0:80,8080;http:::/0:80",
    ];
    let [deployed, listed] = lists.map(|list| Http::new(guard(list)));
    [
        deployed,
        listed,
        Http::new(Guard {
            allow_loopback: true,
            ..Guard::default()
        }),
    ]
});

/// A URL goes to where it shows that it goes, and to no refused address; of a secret one only the origin is shown.
pub fn url(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Ok(secret) = SecretUrl::try_from(text.to_owned()) {
        let uri: Uri = secret.expose().parse().expect("it was looked at");
        let again = SecretUrl::try_from(secret.expose().to_owned()).expect("it is read again");
        assert_eq!(again.expose(), secret.expose());
        assert_eq!(again.origin(), secret.origin());
        assert!(secret.expose().starts_with(secret.origin()));
        let authority = uri.authority().expect("a host").as_str();
        assert!(!authority.contains('@'), "{authority}");
        assert_eq!(
            secret.origin(),
            format!("{}://{authority}", uri.scheme_str().expect("a scheme"))
        );
        goes_nowhere_else(&uri);
    }
    if let Ok(uri) = text.parse::<Uri>() {
        goes_nowhere_else(&uri);
    }
}

fn goes_nowhere_else(uri: &Uri) {
    let [deployed, listed, local] = &*CLIENTS;
    for client in [deployed, listed, local] {
        let Ok(host) = client.destination(uri) else {
            continue;
        };
        let address = match &host {
            Host::Domain(name) => {
                assert!(
                    name.is_ascii()
                        && !name.is_empty()
                        && !name.contains(['/', '@', '%', ':', ' ']),
                    "{name}"
                );
                // A resolver would take such a name for an address.
                let last = name.strip_suffix('.').unwrap_or(name);
                let last = last.rsplit('.').next().unwrap_or_default();
                let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
                let hexadecimal = last.strip_prefix("0x").unwrap_or("-");
                assert!(
                    !is_number && !hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{name}"
                );
                continue;
            }
            Host::Ipv4(address) => IpAddr::from(*address),
            Host::Ipv6(address) => IpAddr::from(*address),
        };
        let is_own = std::ptr::eq(client, local) && address.is_loopback();
        assert!(is_own || !is_in(&NEVER, address), "{address}");
        assert!(
            is_own || std::ptr::eq(client, listed) || !is_in(&SPECIAL, address),
            "{address}"
        );
    }
}

/// Sixteen bytes of an address, and a list of networks: a refused address is reached by no list.
pub fn address(input: &[u8]) {
    let Some((bytes, list)) = input.split_first_chunk::<16>() else {
        return;
    };
    let list = str::from_utf8(list).unwrap_or_default();
    let v6 = Ipv6Addr::from(*bytes);
    let [.., a, b, c, d] = *bytes;
    for address in [IpAddr::from(v6), IpAddr::from([a, b, c, d])] {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let uri: Uri = format!("https://{host}/").parse().expect("a URL");
        assert_eq!(
            CLIENTS[0].destination(&uri).is_ok(),
            is_public(address),
            "{address}"
        );
        if let Ok(allowed) = list.parse() {
            let client = Http::new(Guard {
                allowed,
                ..Guard::default()
            });
            assert!(
                client.destination(&uri).is_err() || !is_in(&NEVER, address),
                "{address} {list}"
            );
        }
    }
}

/// Of IPv6 only what was given out is public.
fn is_public(address: IpAddr) -> bool {
    let global: IpNet = "2000::/3".parse().expect("a range");
    let is_given_out = match inside(address) {
        IpAddr::V4(_) => true,
        address @ IpAddr::V6(_) => global.contains(&address),
    };
    is_given_out && !is_in(&SPECIAL, address)
}
