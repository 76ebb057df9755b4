//! JWTs of issuers, and the key sets that they are verified with.

use std::sync::LazyLock;

use api::Timestamp;
use serde_json::Value;
use verify::{Jwk, Jwt, MAX_JWT_BYTES, MAX_KEYS, key_set};

pub const WORDS: &[&str] = &[
    "alg",
    "RS256",
    "ES256",
    "none",
    "kid",
    "rsa",
    "crit",
    "jwk",
    "jku",
    "x5u",
    "iss",
    "aud",
    "iat",
    "exp",
    "nbf",
    "jti",
    "sub",
    "keys",
    "kty",
    "RSA",
    "EC",
    "crv",
    "P-256",
    "use",
    "sig",
    "n",
    "e",
    "x",
    "y",
    "eyJ",
    ".",
    "==",
    "-",
    "_",
    "AQAB",
    "9223372036854775807",
    "1e999",
];

/// A text that was signed, and the keys of its issuer. Nobody has the private one.
static SIGNED: LazyLock<(String, Vec<Jwk>)> = LazyLock::new(|| {
    let file = include_str!("../../../shared/verify/tests/files/rs256.json");
    let file: Value = serde_json::from_str(file).expect("JSON");
    let keys = key_set(file["jwks"].to_string().as_bytes()).expect("a key set");
    (file["signed"].as_str().expect("a text").to_owned(), keys)
});

/// A key set is read within its bounds, and a JWT is verified only if it says what was signed.
pub fn jwt(input: &[u8]) {
    if let Some(keys) = key_set(input) {
        assert!(keys.len() <= MAX_KEYS);
    }
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let Ok(jwt) = Jwt::parse(text) else {
        return;
    };
    assert!(text.len() <= MAX_JWT_BYTES);
    assert!(!jwt.key_id().is_empty() && !jwt.id().is_empty());
    let _ = jwt.check(
        "https://api.example.org",
        Timestamp::from_millis(1_780_272_000_000),
    );
    let (signed, keys) = &*SIGNED;
    if jwt.verify(keys).is_ok() {
        let said = text.rsplit_once('.').map(|(said, _)| said);
        assert_eq!(said, Some(signed.as_str()));
    }
}
