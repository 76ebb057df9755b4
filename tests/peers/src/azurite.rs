//! Azure Blob Storage on loopback: Microsoft's own Azurite, which checks signatures and SAS tokens.

use std::process::Command;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request};
use integrations::http::Response;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequestBody;

use crate::{Process, free_port, http, tool};

/// One account with one container, [`CONTAINER`](Self::CONTAINER).
pub struct Azurite {
    /// With the account in its path, as Azurite wants it.
    pub endpoint: String,
    /// Ends with it.
    _process: Process,
}

impl Azurite {
    pub const ACCOUNT: &str = "shop";
    /// Base64, as Azure hands it out.
    pub const KEY: &str = "a2V5LW9mLXRoZS1wZWVyLWZvci10ZXN0cw==";
    pub const CONTAINER: &str = "sboms";

    pub async fn start() -> Self {
        let port = free_port();
        let mut command = Command::new(tool("azurite/node_modules/.bin/azurite-blob"));
        command
            .args(["--inMemoryPersistence", "--disableTelemetry", "--silent"])
            // It knows versions of the API up to its own release; what we use is older than all of them.
            .arg("--skipApiVersionCheck")
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .env(
                "AZURITE_ACCOUNTS",
                format!("{}:{}", Self::ACCOUNT, Self::KEY),
            );
        let process = Process::start(&mut command, &[port]);
        let azurite = Self {
            endpoint: format!("http://127.0.0.1:{port}/{}", Self::ACCOUNT),
            _process: process,
        };
        let answer = azurite.ask(Method::PUT, "?restype=container").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        azurite
    }

    /// A request to the container with the account's key.
    async fn ask(&self, method: Method, rest: &str) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/{}{rest}", self.endpoint, Self::CONTAINER))
            .body(HttpRequestBody::empty())
            .unwrap();
        let key = AzureAccessKey::try_new(Self::KEY).unwrap();
        AzureAuthorizer::new(&AzureCredential::AccessKey(key), Self::ACCOUNT)
            .try_authorize(&mut request)
            .unwrap();
        // Signed as nothing, and sent as 0.
        request.headers_mut().insert(CONTENT_LENGTH, 0.into());
        http().send(request.map(|_| Bytes::new())).await.unwrap()
    }

    /// A SAS token that may do this much in the container.
    ///
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>
    pub fn sas(permissions: &str) -> String {
        let (version, expires) = ("2023-11-03", "2099-01-01T00:00:00Z");
        let resource = format!("/blob/{}/{}", Self::ACCOUNT, Self::CONTAINER);
        let signed = [
            permissions,
            "",
            expires,
            &resource,
            "",
            "",
            "",
            version,
            "c",
        ];
        let signed = signed.join("\n") + &"\n".repeat(7);
        let key = base64_simd::STANDARD.decode_to_vec(Self::KEY).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let signature = ring::hmac::sign(&key, signed.as_bytes());
        let signature = base64_simd::STANDARD.encode_to_string(signature.as_ref());
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("sv", version),
                ("se", expires),
                ("sr", "c"),
                ("sp", permissions),
            ])
            .append_pair("sig", &signature)
            .finish()
    }

    /// The names of the container's blobs, sorted.
    pub async fn names(&self) -> Vec<String> {
        let answer = self.ask(Method::GET, "?restype=container&comp=list").await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let mut names: Vec<_> = text
            .split("<Name>")
            .skip(1)
            .map(|rest| rest.split("</Name>").next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Returns the length of a blob, its content type and the metadata `digest`.
    pub async fn properties(&self, name: &str) -> (u64, String, String) {
        let answer = self.ask(Method::HEAD, &format!("/{name}")).await;
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        (
            header("content-length").parse().unwrap(),
            header("content-type"),
            header("x-ms-meta-digest"),
        )
    }

    /// The first 64 KiB of a blob.
    pub async fn beginning(&self, name: &str) -> Bytes {
        self.ask(Method::GET, &format!("/{name}")).await.body
    }
}

#[cfg(test)]
mod tests {
    use attestation::Digest;
    use integrations::Kind;
    use serde_json::{Value, json};

    use super::*;
    use crate::export::{self, Export};

    fn registration(azurite: &Azurite, credentials: &str) -> Value {
        json!({
            "provider": "azure", "account": Azurite::ACCOUNT, "bucket": Azurite::CONTAINER,
            "endpoint": azurite.endpoint, "credentials": credentials,
        })
    }

    #[tokio::test]
    async fn sboms_arrive_byte_for_byte_and_once() {
        let azurite = Azurite::start().await;
        let export = Export::new(registration(&azurite, Azurite::KEY));
        export.check().await.unwrap();
        assert!(
            azurite.names().await.is_empty(),
            "a check leaves nothing to be seen"
        );
        assert_eq!(export.deliver().await.unwrap(), [true, true, true]);
        let expected = export::expected();
        let names: Vec<_> = expected.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(azurite.names().await, names);
        for (name, bytes) in &expected {
            let (size_bytes, kind, digest) = azurite.properties(name).await;
            assert_eq!(size_bytes, bytes.len() as u64);
            assert_eq!(kind, "application/json");
            assert_eq!(digest, Digest::of(bytes).to_string());
            let beginning = azurite.beginning(name).await;
            assert!(bytes.starts_with(&beginning) && !beginning.is_empty());
        }
        assert_eq!(export.deliver().await.unwrap(), [false, false, false]);
        assert_eq!(azurite.names().await, names);
    }

    #[tokio::test]
    async fn a_wrong_key_and_a_missing_container_are_refused_with_the_reason() {
        let azurite = Azurite::start().await;
        let export = Export::new(registration(&azurite, "Y2FuYXJ5"));
        let error = export.check().await.unwrap_err();
        // Azure itself says AuthenticationFailed.
        assert_eq!(
            error.text,
            "try to write below chainloop/: answered 403 Forbidden (AuthorizationFailure)"
        );
        let excerpt = error.answer.unwrap().excerpt;
        assert!(excerpt.contains("failed to authenticate"), "{excerpt}");
        assert!(export.deliver().await.is_err());

        let mut registration = registration(&azurite, Azurite::KEY);
        registration["bucket"] = json!("others");
        let error = Export::new(registration).check().await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(
            error.text,
            "find the container others: answered 404 Not Found (ContainerNotFound)"
        );
    }

    #[tokio::test]
    async fn a_sas_token_that_may_create_is_enough_and_one_that_may_read_is_not() {
        let azurite = Azurite::start().await;
        let export = Export::new(registration(&azurite, &Azurite::sas("cw")));
        export.check().await.unwrap();
        assert_eq!(export.deliver().await.unwrap(), [true, true, true]);
        assert_eq!(azurite.names().await.len(), 3);

        let sas = Azurite::sas("r");
        let export = Export::new(registration(&azurite, &sas));
        let error = export.check().await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent, "{error:?}");
        assert!(
            error.text.contains("(AuthorizationPermissionMismatch)"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("sig="), "{error:?}");
    }
}
