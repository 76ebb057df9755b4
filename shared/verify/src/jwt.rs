//! JWTs of OpenID Connect issuers, as CI systems give them to their jobs: read, and verified with the issuer's keys.
//!
//! Algorithm and key ID are all that is taken from the header: a key that comes with a token, or the address of one,
//! proves nothing. Time is an argument.

use api::Timestamp;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest JWT that is read. GitHub's have some 2,000 bytes.
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// The largest key set that is read.
pub const MAX_KEY_SET_BYTES: usize = 64 * 1024;
/// Number of keys that are kept of a set, in its order.
pub const MAX_KEYS: usize = 32;
/// The longest time since a JWT was issued.
pub const MAX_AGE_SECS: u64 = 15 * 60;
/// Difference between the issuer's clock and ours that is let pass.
pub const SKEW_SECS: u64 = 60;

/// The longest key ID, and the longest `jti`.
const MAX_ID_BYTES: usize = 512;

/// Reason why a JWT is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtFault {
    /// It cannot be read: the text completes "the JWT …".
    Malformed(&'static str),
    /// Its algorithm is neither RS256 nor ES256.
    Algorithm,
    Audience,
    Expired,
    TooOld,
    NotYetValid,
    /// The issuer has no such key.
    KeyUnknown,
    Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

/// A public key of an issuer: the parts of a JWK that a verification needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kid: String,
    #[serde(flatten)]
    numbers: Numbers,
}

/// In base64url, as a JWK has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Numbers {
    Rsa { n: String, e: String },
    P256 { x: String, y: String },
}

/// Reads the keys of a set that RS256 or ES256 can use; others are left out. None when it is no key set.
pub fn key_set(bytes: &[u8]) -> Option<Vec<Jwk>> {
    if bytes.len() > MAX_KEY_SET_BYTES {
        return None;
    }
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let keys = document.get("keys")?.as_array()?;
    Some(keys.iter().filter_map(jwk).take(MAX_KEYS).collect())
}

fn jwk(key: &Value) -> Option<Jwk> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is = |name: &str, wanted: &str| text(name).is_none_or(|own| own == wanted);
    let kid = text("kid").filter(|kid| is_id(kid))?;
    let number = |name: &str| text(name).map(str::to_owned);
    let (algorithm, numbers) = match text("kty")? {
        "RSA" => (
            "RS256",
            Numbers::Rsa {
                n: number("n")?,
                e: number("e")?,
            },
        ),
        "EC" if text("crv") == Some("P-256") => (
            "ES256",
            Numbers::P256 {
                x: number("x")?,
                y: number("y")?,
            },
        ),
        _ => return None,
    };
    (is("use", "sig") && is("alg", algorithm)).then(|| Jwk {
        kid: kid.to_owned(),
        numbers,
    })
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID_BYTES
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).ok()
}

impl Jwk {
    fn signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.numbers, algorithm) {
            (Numbers::Rsa { n, e }, Algorithm::Rs256) => {
                let (Some(n), Some(e)) = (decode(n), decode(e)) else {
                    return false;
                };
                // Some issuers write zeros before a number, which ring takes for a malformed one.
                let zeros = n.iter().take_while(|byte| **byte == 0).count();
                let key = RsaPublicKeyComponents {
                    n: &n[zeros..],
                    e: &e,
                };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                    .is_ok()
            }
            (Numbers::P256 { x, y }, Algorithm::Es256) => {
                let (Some(x), Some(y)) = (decode(x), decode(y)) else {
                    return false;
                };
                let is_point = x.len() == 32 && y.len() == 32;
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                is_point && key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A JWT that was read. Nothing in it is proven.
#[derive(Clone)]
pub struct Jwt<'a> {
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: String,
    claims: Map<String, Value>,
}

/// The claims of a JWT that was verified.
#[derive(Debug, Clone)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// A claim as text: numbers and truth values too, lists and objects never.
    pub fn text(&self, name: &str) -> Option<String> {
        text(self.0.get(name)?)
    }

    /// The texts of a claim: one, or those of a list, such as the groups of a person. Lists and objects in a list are none.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
            Some(one) => text(one).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

impl<'a> Jwt<'a> {
    pub fn parse(text: &'a str) -> Result<Self, JwtFault> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwtFault::Malformed("has more than 16 KiB"));
        }
        let parts = text.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, claims) = signed.split_once('.')?;
            (!claims.contains('.')).then_some((signed, header, claims, signature))
        });
        let three = "is not three parts with dots between them";
        let (signed, header, claims, signature) = parts.ok_or(JwtFault::Malformed(three))?;
        let header = object(header).ok_or(JwtFault::Malformed("has no readable header"))?;
        let claims = object(claims).ok_or(JwtFault::Malformed("has no readable claims"))?;
        let signature =
            decode(signature).ok_or(JwtFault::Malformed("has no readable signature"))?;
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("RS256") => Algorithm::Rs256,
            Some("ES256") => Algorithm::Es256,
            _ => return Err(JwtFault::Algorithm),
        };
        if header.contains_key("crit") {
            // Extensions that have to be understood, and none is.
            return Err(JwtFault::Malformed("has critical extensions"));
        }
        let kid = header.get("kid").and_then(Value::as_str);
        let kid = kid.filter(|kid| is_id(kid));
        Ok(Self {
            signed,
            signature,
            algorithm,
            kid: kid.ok_or(JwtFault::Malformed("has no key ID"))?.to_owned(),
            claims,
        })
    }

    /// The issuer that it names.
    pub fn issuer(&self) -> &str {
        let issuer = self.claims.get("iss").and_then(Value::as_str);
        issuer.unwrap_or_default()
    }

    /// ID of the key that signed it, as it says.
    pub fn key_id(&self) -> &str {
        &self.kid
    }

    /// Identity by which it is exchanged once: its `jti`, or else all that is signed. Its signature is no part of it, since several may fit.
    pub fn id(&self) -> &str {
        let jti = self.claims.get("jti").and_then(Value::as_str);
        jti.filter(|jti| is_id(jti)).unwrap_or(self.signed)
    }

    /// The nonce of the sign-in that it was issued for, if it was.
    pub fn nonce(&self) -> Option<&str> {
        self.claims.get("nonce")?.as_str()
    }

    /// Checks that it is for this audience, and that its time has come and is not over.
    pub fn check(&self, audience: &str, now: Timestamp) -> Result<(), JwtFault> {
        let is_for = match self.claims.get("aud") {
            Some(Value::String(own)) => own == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !is_for {
            return Err(JwtFault::Audience);
        }
        let time = |name: &str, missing| match self.claims.get(name) {
            None => missing,
            Some(time) => time
                .as_u64()
                .ok_or(JwtFault::Malformed("has a malformed time")),
        };
        let now = now.secs();
        let issued = time("iat", Err(JwtFault::Malformed("has no `iat`")))?;
        let expires = time("exp", Err(JwtFault::Malformed("has no `exp`")))?;
        let begins = time("nbf", Ok(0))?;
        if expires <= now {
            return Err(JwtFault::Expired);
        }
        if issued.max(begins) > now.saturating_add(SKEW_SECS) {
            return Err(JwtFault::NotYetValid);
        }
        if now.saturating_sub(issued) > MAX_AGE_SECS + SKEW_SECS {
            return Err(JwtFault::TooOld);
        }
        Ok(())
    }

    /// Verifies its signature by the key that it names.
    pub fn verify(self, keys: &[Jwk]) -> Result<Claims, JwtFault> {
        let mut named = keys.iter().filter(|key| key.kid == self.kid).peekable();
        if named.peek().is_none() {
            return Err(JwtFault::KeyUnknown);
        }
        let message = self.signed.as_bytes();
        match named.any(|key| key.signed(self.algorithm, message, &self.signature)) {
            true => Ok(Claims(self.claims)),
            false => Err(JwtFault::Signature),
        }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode(part)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const AUDIENCE: &str = "https://api.example.org";
    const NOW: u64 = 1_780_272_000;

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
    }

    /// An issuer's key.
    struct Key {
        pair: EcdsaKeyPair,
        jwk: Value,
    }

    impl Key {
        fn new(kid: &str) -> Self {
            let random = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref();
            let jwk = json!({
                "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
                "x": encode(&point[1..33]), "y": encode(&point[33..]),
            });
            Self { pair, jwk }
        }

        fn set(&self) -> Vec<Jwk> {
            key_set(json!({ "keys": [self.jwk] }).to_string().as_bytes()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let signed = format!(
                "{}.{}",
                encode(header.to_string()),
                encode(claims.to_string())
            );
            let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
            format!("{signed}.{}", encode(signature.unwrap()))
        }
    }

    fn header() -> Value {
        json!({ "alg": "ES256", "typ": "JWT", "kid": "a" })
    }

    fn claims() -> Value {
        json!({
            "iss": "https://issuer.example.org", "aud": AUDIENCE, "iat": NOW - 5, "nbf": NOW - 5,
            "exp": NOW + 300, "jti": "1", "repository_id": "74", "attempt": 2, "protected": true,
            "list": ["74", 2, ["75"], { "75": "75" }, null],
        })
    }

    fn verified(text: &str, keys: &[Jwk], now: u64) -> Result<Claims, JwtFault> {
        let jwt = Jwt::parse(text)?;
        jwt.check(AUDIENCE, Timestamp::from_millis(now * 1000))?;
        jwt.verify(keys)
    }

    #[test]
    fn a_jwt_of_the_issuers_key_is_verified_and_its_claims_are_texts() {
        let key = Key::new("a");
        let text = key.sign(&header(), &claims());
        let claims = verified(&text, &key.set(), NOW).unwrap();
        assert_eq!(claims.text("repository_id").as_deref(), Some("74"));
        assert_eq!(claims.text("attempt").as_deref(), Some("2"));
        assert_eq!(claims.text("protected").as_deref(), Some("true"));
        assert_eq!((claims.text("list"), claims.text("none")), (None, None));
        for (name, texts) in [
            ("list", &["74", "2"][..]),
            ("repository_id", &["74"]),
            ("none", &[]),
        ] {
            assert_eq!(claims.texts(name), texts, "{name}");
        }
    }

    /// Signed by OpenSSL.
    #[test]
    fn a_signature_of_an_rsa_key_is_verified() {
        let file = include_str!("../tests/files/rs256.json");
        let file: Value = serde_json::from_str(file).unwrap();
        let text = |name: &str| file[name].as_str().unwrap();
        let keys = key_set(file["jwks"].to_string().as_bytes()).unwrap();
        let (message, signature) = (
            text("signed").as_bytes(),
            decode(text("signature")).unwrap(),
        );
        assert!(keys[0].signed(Algorithm::Rs256, message, &signature));
        assert!(!keys[0].signed(Algorithm::Es256, message, &signature));
        assert!(!keys[0].signed(Algorithm::Rs256, &message[1..], &signature));
    }

    #[test]
    fn each_reason_to_refuse_one_is_told_apart() {
        let key = Key::new("a");
        let with = |header: &Value, name: &str, value: Value| {
            let mut claims = claims();
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value,
            }
            verified(&key.sign(header, &claims), &key.set(), NOW).unwrap_err()
        };
        let claim = |name: &str, value: Value| with(&header(), name, value);
        assert_eq!(
            claim("aud", json!("https://other.example.org")),
            JwtFault::Audience
        );
        assert_eq!(claim("aud", json!(["x"])), JwtFault::Audience);
        assert_eq!(claim("aud", json!(null)), JwtFault::Audience);
        assert_eq!(claim("exp", json!(NOW)), JwtFault::Expired);
        assert_eq!(claim("nbf", json!(NOW + 61)), JwtFault::NotYetValid);
        assert_eq!(claim("iat", json!(NOW + 61)), JwtFault::NotYetValid);
        assert_eq!(claim("iat", json!(NOW - 961)), JwtFault::TooOld);
        for (name, value) in [
            ("iat", json!(null)),
            ("exp", json!(null)),
            ("exp", json!("9")),
        ] {
            assert!(
                matches!(claim(name, value), JwtFault::Malformed(_)),
                "{name}"
            );
        }
        let headed = |name: &str, value: Value| {
            let mut header = header();
            header[name] = value;
            with(&header, "jti", json!("1"))
        };
        for algorithm in [json!("none"), json!("HS256"), json!("RS512"), json!(null)] {
            assert_eq!(headed("alg", algorithm), JwtFault::Algorithm);
        }
        assert_eq!(headed("alg", json!("RS256")), JwtFault::Signature);
        assert_eq!(headed("kid", json!("b")), JwtFault::KeyUnknown);
        assert!(matches!(
            headed("crit", json!(["exp"])),
            JwtFault::Malformed(_)
        ));
        assert!(matches!(headed("kid", json!(1)), JwtFault::Malformed(_)));
        let stranger = Key::new("a").sign(&header(), &claims());
        assert_eq!(
            verified(&stranger, &key.set(), NOW).unwrap_err(),
            JwtFault::Signature
        );
    }

    #[test]
    fn a_key_that_comes_with_a_jwt_is_not_looked_at() {
        let (own, stranger) = (Key::new("a"), Key::new("b"));
        for name in ["jwk", "jku", "x5u", "x5c"] {
            let mut header = header();
            header[name] = stranger.jwk.clone();
            for (kid, fault) in [("a", JwtFault::Signature), ("b", JwtFault::KeyUnknown)] {
                header["kid"] = kid.into();
                let text = stranger.sign(&header, &claims());
                assert_eq!(
                    verified(&text, &own.set(), NOW).unwrap_err(),
                    fault,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn without_a_jti_the_signed_text_stands_for_it() {
        let key = Key::new("a");
        let mut claims = claims();
        assert_eq!(Jwt::parse(&key.sign(&header(), &claims)).unwrap().id(), "1");
        claims.as_object_mut().unwrap().remove("jti");
        let (one, other) = (key.sign(&header(), &claims), key.sign(&header(), &claims));
        let id = |text| Jwt::parse(text).unwrap().id().to_owned();
        // Each signature is another, with a random number in it.
        assert!(one != other && id(&one) == id(&other));
    }

    #[test]
    fn a_key_set_has_what_can_be_used_and_no_more_than_so_much() {
        let key = Key::new("a").jwk;
        let with = |name: &str, value: &str| {
            let mut key = key.clone();
            key[name] = value.into();
            key
        };
        let read = |keys: Vec<Value>| key_set(json!({ "keys": keys }).to_string().as_bytes());
        let unusable = vec![
            with("use", "enc"),
            with("alg", "ES384"),
            with("crv", "P-384"),
            with("kty", "oct"),
            with("kid", ""),
            json!("x"),
        ];
        assert_eq!(read(unusable), Some(Vec::new()));
        assert_eq!(
            read(vec![key.clone(); 40]).map(|keys| keys.len()),
            Some(MAX_KEYS)
        );
        assert_eq!(
            read(vec![with("kid", &"x".repeat(MAX_KEY_SET_BYTES))]),
            None
        );
        assert_eq!(key_set(b"[]"), None);
        assert_eq!(key_set(b"<html>"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic_or_is_verified(text in ".{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,60}", 0..5)) {
            let keys = Key::new("a").set();
            for text in [text, parts.join(".")] {
                prop_assert!(verified(&text, &keys, NOW).is_err());
            }
        }

        #[test]
        fn no_json_in_its_parts_makes_it_panic_or_is_verified(header in "[\\[\\]{}\",:a-z0-9]{0,64}", claims in "[\\[\\]{}\",:a-z0-9]{0,64}") {
            let key = Key::new("a");
            let signed = format!("{}.{}", encode(&header), encode(&claims));
            let signature = key.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            let text = format!("{signed}.{}", encode(signature));
            prop_assert!(verified(&text, &key.set(), NOW).is_err());
        }

        /// Whatever is cut, put in or changed: what is verified is what was signed.
        #[test]
        fn a_mutated_jwt_is_never_verified_as_another(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0_u8..3), 1..4),
        ) {
            let key = Key::new("a");
            let signed = key.sign(&header(), &claims());
            let mut letters: Vec<char> = signed.chars().collect();
            for (index, letter, edit) in edits {
                let place = index.index(letters.len());
                match edit {
                    0 => letters[place] = letter,
                    1 => letters.insert(place, letter),
                    _ => letters.truncate(place.max(1)),
                }
            }
            let text: String = letters.into_iter().collect();
            if verified(&text, &key.set(), NOW).is_ok() {
                let before = |text: &str| text.rsplit_once('.').unwrap().0.to_owned();
                prop_assert_eq!(before(&text), before(&signed));
            }
        }

        #[test]
        fn no_key_set_makes_it_panic(bytes: Vec<u8>, n in "[A-Za-z0-9_-]{0,400}", e in "[A-Za-z0-9_-]{0,12}") {
            let _ = key_set(&bytes);
            let key = json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": n, "e": e }] });
            let keys = key_set(key.to_string().as_bytes()).unwrap();
            prop_assert!(!keys[0].signed(Algorithm::Rs256, b"message", &[1; 256]));
        }
    }
}
