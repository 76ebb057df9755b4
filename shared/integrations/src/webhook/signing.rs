//! Signatures of Standard Webhooks, and the secrets that they are made with.

use ring::hmac::{Context, HMAC_SHA256, Key};
use serde::Deserialize;

use crate::SecretText;

/// The key of <https://www.standardwebhooks.com>: what follows `whsec_` is base64 of 24 to 64 bytes, and text
/// without that prefix is the key itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretText")]
pub struct SigningSecret(SecretText);

impl SigningSecret {
    /// The secrets in it: one, or two behind `whsec_` each. Spaces and commas in any other text are its own.
    fn each(&self) -> Vec<&str> {
        let text = self.0.expose();
        let parts: Vec<_> = text
            .split([' ', ',', '\n'])
            .filter(|part| !part.is_empty())
            .collect();
        match parts.iter().all(|part| part.starts_with(PREFIX)) {
            true => parts,
            false => vec![text],
        }
    }

    fn key(text: &str) -> Option<Vec<u8>> {
        match text.strip_prefix(PREFIX) {
            Some(encoded) => base64_simd::STANDARD.decode_to_vec(encoded).ok(),
            None => Some(text.as_bytes().to_vec()),
        }
    }

    /// A signature that waits for the body's bytes.
    pub(super) fn sign(&self, id: &str, unix_secs: u64) -> Signature {
        let begin = |secret: &str| {
            let key = Self::key(secret).expect("checked when it was made");
            let mut mac = Context::with_key(&Key::new(HMAC_SHA256, &key));
            mac.update(format!("{id}.{unix_secs}.").as_bytes());
            mac
        };
        Signature(self.each().into_iter().map(begin).collect())
    }
}

const PREFIX: &str = "whsec_";

/// One for each secret: while one replaces the other, a receiver finds its own among them.
pub(super) struct Signature(Vec<Context>);

impl Signature {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|mac| mac.update(bytes));
    }

    pub(super) fn value(self) -> String {
        let signatures = self.0.into_iter().map(|mac| {
            let signature = mac.sign();
            format!(
                "v1,{}",
                base64_simd::STANDARD.encode_to_string(signature.as_ref())
            )
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<SecretText> for SigningSecret {
    type Error = &'static str;

    fn try_from(secret: SecretText) -> Result<Self, Self::Error> {
        let secret = Self(secret);
        let all = secret.each();
        if all.len() > 2 {
            return Err("must be one secret, or two while one replaces the other");
        }
        for text in all {
            match Self::key(text) {
                Some(key) if key.len() >= 24 => {}
                Some(_) => {
                    return Err("must have at least 24 characters, or 24 bytes behind whsec_");
                }
                None => return Err("must have base64 behind whsec_"),
            }
        }
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    // The example of the specification's own libraries.
    #[test]
    fn requests_are_signed_as_standard_webhooks_asks() {
        let secret = SigningSecret(SECRET.to_owned().into());
        let mut signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        signature.update(br#"{"test": "#);
        signature.update(b"2432232314}");
        assert_eq!(
            signature.value(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn while_one_secret_replaces_the_other_both_sign() {
        let other = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let alone = |text: &str| {
            let secret = SigningSecret::try_from(SecretText::from(text.to_owned())).unwrap();
            let mut signature = secret.sign("id", 1);
            signature.update(b"{}");
            signature.value()
        };
        let both = format!("{} {}", alone(SECRET), alone(other));
        assert_eq!(alone(&format!("{SECRET} {other}")), both);
        assert_eq!(alone(&format!("{SECRET},{other}")), both);
        assert!(!alone("one secret of many words, and no more").contains(' '));
        let three = SecretText::from(format!("{SECRET} {other} {SECRET}"));
        assert_eq!(
            SigningSecret::try_from(three).unwrap_err(),
            "must be one secret, or two while one replaces the other"
        );
    }
}
