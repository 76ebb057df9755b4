//! Amazon S3, and what speaks its protocol.
//!
//! `object_store` signs; requests are ours. Its own client holds an object in memory to send it in one PUT, and
//! what GUAC listens for is one PUT, of a gigabyte too.

use std::fmt::Write as _;

use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use attestation::Digest;
use bytes::Bytes;

use super::inputs::{AccessKeyId, Endpoint, Prefix, Region};
use super::{JSON, Object, check_key, code, during, explain, invalid, size_of};
use crate::caller::{AccessKey, Purpose, host, sign};
use crate::http::Response;
use crate::{About, Content, Error, Host, Http, Kind, RoleArn, SecretText};

#[derive(Debug, Clone)]
pub(super) struct S3 {
    pub(super) bucket: String,
    pub(super) region: Region,
    pub(super) access: Access,
}

/// Who writes there.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// Whoever has this key; at Amazon, or at this endpoint.
    Key {
        endpoint: Option<Endpoint>,
        id: AccessKeyId,
        secret: SecretText,
    },
    /// At Amazon alone: nobody may have a role's session sent elsewhere.
    Role(RoleArn),
}

impl S3 {
    /// Always by path: a bucket's name with dots in it has no certificate as a host.
    fn url(&self, http: Option<&Http>) -> Result<String, Error> {
        let region = self.region.as_str();
        let base = match (&self.access, http) {
            (
                Access::Key {
                    endpoint: Some(endpoint),
                    ..
                },
                _,
            ) => endpoint.base().to_owned(),
            (Access::Role(_), Some(http)) => http.caller()?.base("s3", region),
            _ => format!("https://{}", host("s3", region)),
        };
        Ok(format!("{base}/{}", self.bucket))
    }

    /// All that a session may do: a role may well permit more.
    fn policy(&self, role: &RoleArn) -> Value {
        let bucket = format!("arn:{}:s3:::{}", role.partition(), self.bucket);
        json!({
            "Version": "2012-10-17",
            "Statement": [
                { "Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": format!("{bucket}/*") },
                { "Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket },
                // Where the bucket is encrypted with a key of its owner's.
                {
                    "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
                    "Condition": { "StringLike": { "kms:ViaService": "s3.*" } },
                },
            ],
        })
    }

    fn purpose(&self, http: &Http) -> Result<Option<Purpose>, Error> {
        match &self.access {
            Access::Key { .. } => Ok(None),
            Access::Role(role) => http.purpose(role, &self.policy(role)).map(Some),
        }
    }

    /// Checks that a role can be assumed, and by this organization alone.
    pub(super) async fn check_role(&self, http: &Http) -> Result<(), Error> {
        http.refuse_own_bucket(&self.url(Some(http))?, &self.bucket)?;
        match self.purpose(http)? {
            Some(purpose) => http.check_role(&purpose).await,
            None => Ok(()),
        }
    }

    async fn key(&self, http: &Http) -> Result<AccessKey, Error> {
        match &self.access {
            Access::Key { id, secret, .. } => Ok(AccessKey {
                id: id.as_str().to_owned(),
                secret: secret.clone(),
                token: None,
            }),
            Access::Role(role) => http.assume(&http.purpose(role, &self.policy(role))?).await,
        }
    }

    /// The PUT as it goes out, but for the signature. Without a client, as a preview shows it.
    pub(super) fn request<'a>(
        &self,
        http: Option<&Http>,
        object: &Object<'a>,
    ) -> Result<Request<Content<'a>>, Error> {
        let mut request = Request::put(format!("{}/{}", self.url(http)?, object.key))
            .header(CONTENT_TYPE, JSON)
            .header(IF_NONE_MATCH, "*")
            .header("x-amz-checksum-sha256", checksum(&object.digest));
        for (name, value) in &object.metadata {
            request = request.header(format!("x-amz-meta-{name}"), value);
        }
        request.body(object.content.clone()).map_err(invalid)
    }

    /// Does the bucket exist, in this region? Whether it may be read is another matter: a key that may only
    /// write is the better one.
    pub(super) async fn find(&self, http: &Http) -> Result<(), Error> {
        let doing = format!("find the bucket {}", self.bucket);
        let request = Request::head(self.url(Some(http))?).body(Bytes::new());
        let response = self.send(http, &doing, request.map_err(invalid)?).await?;
        if response.status == StatusCode::FORBIDDEN {
            return Ok(());
        }
        self.judge(http, &response, &doing, http.unix_secs())
    }

    /// Checks that objects can be written below this prefix: asks to replace an object with an impossible `ETag` at a
    /// new key. S3 tells a client that may write that there is no such object, and refuses
    /// any other client.
    pub(super) async fn try_to_write(&self, http: &Http, prefix: &Prefix) -> Result<(), Error> {
        const BODY: &[u8] = b"{}";
        let now = http.unix_secs();
        let doing = format!("try to write below {}/", prefix.as_str());
        let url = format!("{}/{}", self.url(Some(http))?, check_key(prefix, now));
        let request = Request::put(&url)
            .header(CONTENT_TYPE, JSON)
            .header(IF_MATCH, "\"00000000000000000000000000000000\"")
            .header("x-amz-checksum-sha256", checksum(&Digest::of(BODY)))
            .body(Bytes::from_static(BODY))
            .map_err(invalid)?;
        let response = self.send(http, &doing, request).await?;
        match response.status {
            StatusCode::PRECONDITION_FAILED => Ok(()),
            StatusCode::NOT_FOUND if code(&response) != Some("NoSuchBucket") => Ok(()),
            status if status.is_success() => {
                // A service that ignores conditions has written it after all. Not being able to delete
                // is no reason against writing.
                let request = Request::delete(&url).body(Bytes::new()).map_err(invalid)?;
                let _ = self.send(http, &doing, request).await;
                Ok(())
            }
            // The service has no such conditions: the first delivery will tell.
            StatusCode::NOT_IMPLEMENTED => Ok(()),
            _ => self.judge(http, &response, &doing, now),
        }
    }

    /// Creates the object; `false` when it was there already, which by its key it was with the same bytes.
    pub(super) async fn put(
        &self,
        http: &Http,
        host: &dyn Host,
        object: &Object<'_>,
    ) -> Result<bool, Error> {
        let doing = format!("put {}", object.key);
        let put = async |request: Request<Content<'_>>| {
            let request = self.sign(http, request, &object.digest).await?;
            http.stream(host, request).await.map_err(during(&doing))
        };
        let mut response = put(self.request(Some(http), object)?).await?;
        if response.status == StatusCode::NOT_IMPLEMENTED {
            // A service without conditional writes: look first, and overwrite the bytes with themselves.
            if matches!(self.size_bytes(http, &object.key).await, Ok(Some(_))) {
                return Ok(false);
            }
            let mut request = self.request(Some(http), object)?;
            request.headers_mut().remove(IF_NONE_MATCH);
            response = put(request).await?;
        }
        if response.status == StatusCode::PRECONDITION_FAILED {
            return Ok(false);
        }
        self.judge(http, &response, &doing, host.unix_secs())?;
        Ok(true)
    }

    pub(super) async fn size_bytes(&self, http: &Http, key: &str) -> Result<Option<u64>, Error> {
        let doing = format!("look for {key}");
        let request = Request::head(format!("{}/{key}", self.url(Some(http))?));
        let request = request.body(Bytes::new());
        let response = self.send(http, &doing, request.map_err(invalid)?).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.judge(http, &response, &doing, http.unix_secs())?;
        size_of(&response, &doing).map(Some)
    }

    async fn send(
        &self,
        http: &Http,
        doing: &str,
        request: Request<Bytes>,
    ) -> Result<Response, Error> {
        let digest = Digest::of(request.body());
        let request = self.sign(http, request, &digest).await?;
        http.send(request).await.map_err(during(doing))
    }

    /// Signs the request together with the digest of its body; unless it goes to the stack's own bucket.
    async fn sign<T>(
        &self,
        http: &Http,
        request: Request<T>,
        digest: &Digest,
    ) -> Result<Request<T>, Error> {
        http.refuse_own_bucket(&request.uri().to_string(), &self.bucket)?;
        let key = self.key(http).await?;
        sign(request, digest, &key, "s3", self.region.as_str())
    }

    /// Classifies a response of S3, by the code in its body first and by its status otherwise.
    ///
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
    fn judge(&self, http: &Http, response: &Response, doing: &str, now: u64) -> Result<(), Error> {
        let Err(mut error) = response.check(doing, now) else {
            return Ok(());
        };
        let code = code(response);
        let again = explain(&mut error, code);
        error.kind = match (response.status.as_u16(), code) {
            // Somebody writes the same key now.
            (409, _) => {
                error.about = About::Delivery;
                again
            }
            (_, Some("RequestTimeout" | "RequestTimeTooSkewed" | "SlowDown" | "InternalError")) => {
                again
            }
            // The secret may have been rotated since it was read.
            (
                _,
                Some(
                    "ExpiredToken"
                    | "InvalidToken"
                    | "InvalidAccessKeyId"
                    | "SignatureDoesNotMatch",
                ),
            ) => Kind::Unauthorized,
            _ => error.kind,
        };
        // A session that ended early, too: the next try has another.
        if error.kind == Kind::Unauthorized
            && let Some(purpose) = self.purpose(http)?
        {
            http.forget(&purpose);
        }
        let region = response
            .headers
            .get("x-amz-bucket-region")
            .and_then(|region| region.to_str().ok());
        if let Some(region) = region.filter(|region| *region != self.region.as_str()) {
            let region = response.excerpt(region.as_bytes());
            let _ = write!(error.text, "; the bucket is in the region {region}");
        }
        Err(error)
    }
}

fn checksum(digest: &Digest) -> String {
    base64_simd::STANDARD.encode_to_string(digest.bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{
        S3 as Server, attachment, deliver, receipt, registration, registration_of,
    };
    use super::super::{Guac, Registration};
    use crate::fixture::{self, Peer, Stage};
    use crate::{Error, Integration, Kind, LOOKED_FOR, Outcome, Presence, PresenceState};
    use attestation::Digest;

    #[tokio::test]
    async fn a_good_registration_passes_and_leaves_nothing_behind() {
        let s3 = Server::start("register").await;
        let before = s3.objects();
        Guac::register(&fixture::http(), &s3.registration())
            .await
            .unwrap();
        let attachment = attachment(json!({ "prefix": "team" }));
        Guac::attach(&fixture::http(), &s3.registration(), &attachment)
            .await
            .unwrap();
        assert_eq!(s3.objects(), before);
    }

    #[tokio::test]
    async fn a_wrong_secret_is_refused() {
        let s3 = Server::start("wrong").await;
        let registration = registration_of(
            json!({ "endpoint": s3.endpoint, "credentials": "canary-of-another-key" }),
        );
        let error = Guac::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized, "{error:?}");
        assert_eq!(
            error.text,
            "try to write below chainloop/: answered 403 Forbidden (SignatureDoesNotMatch)"
        );
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }

    #[tokio::test]
    async fn a_missing_bucket_is_refused() {
        let s3 = Server::start("missing").await;
        let registration = registration_of(json!({ "endpoint": s3.endpoint, "bucket": "other" }));
        let error = Guac::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(error.text, "find the bucket other: answered 404 Not Found");
    }

    async fn answered(answers: &[&str]) -> (Result<Outcome, Error>, Vec<fixture::Received>) {
        let registration = |party: &Peer| registration(&party.origin);
        super::super::fixture::answered(registration, answers).await
    }

    fn s3_error(status: &str, code: &str) -> String {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"
        );
        format!(
            "HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn each_answer_of_s3_has_its_class() {
        use std::time::Duration;
        let again = Kind::Retryable { after: None };
        let after = Kind::Retryable {
            after: Some(Duration::from_secs(7)),
        };
        for (status, code, kind) in [
            ("400 Bad Request", "InvalidRequest", Kind::Permanent),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                Kind::Permanent,
            ),
            ("400 Bad Request", "ExpiredToken", Kind::Unauthorized),
            ("400 Bad Request", "RequestTimeout", again),
            ("403 Forbidden", "AccessDenied", Kind::Permanent),
            ("403 Forbidden", "InvalidAccessKeyId", Kind::Unauthorized),
            ("403 Forbidden", "SignatureDoesNotMatch", Kind::Unauthorized),
            ("403 Forbidden", "RequestTimeTooSkewed", again),
            ("404 Not Found", "NoSuchBucket", Kind::Permanent),
            ("409 Conflict", "ConditionalRequestConflict", again),
            (
                "301 Moved Permanently",
                "PermanentRedirect",
                Kind::Permanent,
            ),
            ("500 Internal Server Error", "InternalError", after),
            ("503 Slow Down", "SlowDown", after),
        ] {
            let (outcome, _) = answered(&[&s3_error(status, code)]).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {code}: {error:?}");
            assert!(error.text.ends_with(&format!("({code})")), "{error}");
            assert!(error.answer.unwrap().excerpt.contains(code));
        }
    }

    #[tokio::test]
    async fn an_object_that_is_there_already_is_delivered() {
        let (outcome, _) =
            answered(&[&s3_error("412 Precondition Failed", "PreconditionFailed")]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], false);
    }

    #[tokio::test]
    async fn a_wrong_region_is_named() {
        let answer = "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n";
        let (outcome, _) = answered(&[answer]).await;
        let text = outcome.unwrap_err().text;
        assert!(
            text.ends_with("answered 301 Moved Permanently; the bucket is in the region eu-west-3"),
            "{text}"
        );
    }

    const OK: &str = "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn without_conditional_writes_the_object_is_looked_for_first() {
        let no = s3_error("501 Not Implemented", "NotImplemented");
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let (outcome, received) = answered(&[&no, gone, OK]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], true);
        let methods: Vec<_> = received
            .iter()
            .map(|request| request.method.as_str())
            .collect();
        assert_eq!(methods, ["PUT", "HEAD", "PUT"]);
        assert_eq!(received[0].headers["if-none-match"], "*");
        assert!(!received[2].headers.contains_key("if-none-match"));

        let there = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        let (outcome, received) = answered(&[&no, there]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], false);
        assert_eq!(received.len(), 2);
    }

    #[tokio::test]
    async fn a_service_that_ignores_conditions_is_cleaned_up_after_the_check() {
        let gone = "HTTP/1.1 204 No Content\r\n\r\n";
        let party = Peer::start(&[OK, OK, gone]);
        Guac::register(&fixture::http(), &registration(&party.origin))
            .await
            .unwrap();
        let received = party.received();
        let methods: Vec<_> = received
            .iter()
            .map(|request| request.method.as_str())
            .collect();
        assert_eq!(methods, ["HEAD", "PUT", "DELETE"]);
        assert_eq!(received[1].target, received[2].target);
        assert_eq!(
            received[1].headers["if-match"],
            "\"00000000000000000000000000000000\""
        );
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent() {
        let party = Peer::start(&[OK]);
        let mut stage = Stage::new();
        stage.materials.truncate(1);
        let (registration, attachment) = (registration(&party.origin), attachment(json!({})));
        let previews = Guac::preview(&stage, &stage.delivery(&registration, &attachment))
            .await
            .unwrap();
        deliver(&stage, &registration, &attachment).await.unwrap();

        let [preview] = &previews[..] else {
            panic!("{previews:?}")
        };
        let [sent] = &party.received()[..] else {
            panic!()
        };
        assert_eq!(preview.method, sent.method);
        assert_eq!(preview.target, format!("{}{}", party.origin, sent.target));
        assert_eq!(preview.body.as_bytes(), sent.body);
        assert_eq!(preview.digest, Digest::of(&sent.body));
        for (name, value) in &preview.headers {
            assert_eq!(sent.headers[name], *value, "{name}");
        }
        let mut more: Vec<_> = sent
            .headers
            .keys()
            .filter(|name| !preview.headers.contains_key(*name))
            .collect();
        more.sort();
        let signing = [
            "accept",
            "authorization",
            "content-length",
            "host",
            "user-agent",
            "x-amz-content-sha256",
            "x-amz-date",
        ];
        assert_eq!(more, signing);
        fixture::compare(
            "guac-preview.json",
            &serde_json::to_string_pretty(&json!({
                "target": sent.target, "headers": preview.headers, "size_bytes": preview.size_bytes,
            }))
            .unwrap(),
        );
    }

    #[tokio::test]
    async fn objects_are_there_until_one_is_gone_or_has_another_size() {
        let s3 = Server::start("look").await;
        let (registration, attachment) = (s3.registration(), attachment(json!({})));
        let outcome = deliver(&Stage::new(), &registration, &attachment).await;
        let receipt = receipt(outcome.unwrap());
        let look = async |registration: &Registration| {
            let found = Guac::look_for(&fixture::http(), registration, &receipt).await;
            found.unwrap().state
        };
        assert_eq!(look(&registration).await, PresenceState::There);
        let other = registration_of(json!({ "endpoint": s3.endpoint, "bucket": "others" }));
        assert_eq!(look(&other).await, PresenceState::Unknown);
        let (key, _) = s3.objects().remove(0);
        let path = s3.root.join("sboms").join(key);
        std::fs::write(&path, b"other bytes").unwrap();
        assert_eq!(look(&registration).await, PresenceState::Gone);
        std::fs::remove_file(path).unwrap();
        assert_eq!(look(&registration).await, PresenceState::Gone);
        let wrong = registration_of(json!({ "endpoint": s3.endpoint, "credentials": "wrong" }));
        let refused = Guac::look_for(&fixture::http(), &wrong, &receipt).await;
        assert!(refused.is_err());
    }

    #[tokio::test]
    async fn more_objects_than_an_operator_waits_for_are_not_all_looked_for() {
        let there = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let party = Peer::start(&[there; LOOKED_FOR]);
        let object = |number| json!({ "key": format!("a/{number}.json"), "size_bytes": 5 });
        let objects: Vec<_> = (0..=LOOKED_FOR).map(object).collect();
        let receipt = json!({ "bucket": "sboms", "objects": objects });
        let receipt = receipt.as_object().unwrap();
        let found = Guac::look_for(&fixture::http(), &registration(&party.origin), receipt).await;
        let Presence { state, reason } = found.unwrap();
        assert_eq!(
            (state, reason.as_deref()),
            (
                PresenceState::Unknown,
                Some("the first 50 of 51 objects are there; the others were not looked for")
            )
        );
    }
}
