//! The key in KMS that signs receipts.

use attestation::Digest;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use pipeline::store::platform::Unreachable;

use crate::Aws;
use crate::table::unreachable;

const KEY: &str = "receipt key";

impl Aws {
    /// KMS takes messages of up to 4 KB, and so gets the digest.
    pub(crate) async fn sign_digest(&self, digest: &Digest) -> Result<Vec<u8>, Unreachable> {
        let request = self.kms().sign().key_id(self.receipt_key_id()?);
        let request = request
            .message(Blob::new(digest.bytes()))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let signed = request.send().await;
        let signed = signed.map_err(|error| unreachable(KEY, &error))?;
        given(signed.signature)
    }

    pub(crate) async fn public_key(&self) -> Result<Vec<u8>, Unreachable> {
        if let Some(known) = self.receipt_key.get() {
            return Ok(known.clone());
        }
        let request = self.kms().get_public_key().key_id(self.receipt_key_id()?);
        let answer = request.send().await;
        let answer = answer.map_err(|error| unreachable(KEY, &error))?;
        let key = given(answer.public_key)?;
        Ok(self.receipt_key.get_or_init(|| key).clone())
    }

    fn receipt_key_id(&self) -> Result<&str, Unreachable> {
        let id = self.settings.receipt_key.as_deref();
        id.ok_or_else(|| failed("this function has none"))
    }
}

fn given(bytes: Option<Blob>) -> Result<Vec<u8>, Unreachable> {
    let bytes = bytes.map(Blob::into_inner);
    bytes.ok_or_else(|| failed("its answer is empty"))
}

fn failed(why: &str) -> Unreachable {
    Unreachable {
        what: KEY,
        why: why.to_owned(),
    }
}
