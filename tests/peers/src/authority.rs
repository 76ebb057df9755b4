//! An authority for tests alone. Its own key is gone; that of its one certificate, for `localhost`, is no secret.

use std::path::PathBuf;

/// The authority's certificate in PEM, for clients to trust.
pub const CERTIFICATE: &str = include_str!("../tls/authority.pem");

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tls")
        .join(name)
}

/// The same, as a file.
pub fn own() -> PathBuf {
    file("authority.pem")
}

/// A server's certificate for `localhost`.
pub fn certificate() -> PathBuf {
    file("localhost.pem")
}

/// The certificate's key.
pub fn key() -> PathBuf {
    file("localhost.test.key")
}
