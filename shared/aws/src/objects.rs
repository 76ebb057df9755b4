//! Requests to the bucket, by the few operations of S3 that the functions need: its SDK would be a tenth of their code.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::time::Duration;

use api::Timestamp;
use attestation::Digest;
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http::Request;
use pipeline::store::platform::Unreachable;
use tokio::time::{Instant, sleep, timeout};

use crate::connections::Connections;
use crate::patience::{self, BYTES};
use crate::platform::{now, random};
use crate::signer::{Keys, Parts, Signing, UNSIGNED_PAYLOAD, Uri};

const SERVICE: &str = "s3";
/// Pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// Statuses of a service that may do better in a moment.
const PASSING: [u16; 5] = [429, 500, 502, 503, 504];
/// The same in words, which come with other statuses too.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const PASSING_CODES: [&str; 4] = [
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
];

/// The bucket's objects.
pub(crate) struct Objects {
    connections: Connections,
    /// Address of the bucket, without a slash at its end.
    base: String,
    region: String,
    credentials: Credentials,
    keys: Keys,
}

/// A request, but for its signature.
#[derive(Default)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'static str,
    pub(crate) key: &'a str,
    /// Encoded, its names in order.
    pub(crate) query: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// The signature speaks of no body: its checksum says what is put, and TLS that it arrives. Hashing it once more would
    /// cost as much as all the rest.
    pub(crate) is_unsigned: bool,
}

/// An answer, read whole.
pub(crate) struct Answer {
    /// Without its body.
    response: HttpResponse,
    pub(crate) body: Bytes,
}

/// Reason why a request came to nothing.
#[derive(Debug)]
pub(crate) struct Refused {
    /// None without an answer.
    pub(crate) status: Option<u16>,
    /// S3's word for it.
    pub(crate) code: Option<String>,
    why: String,
}

impl Refused {
    fn without_answer(why: &str) -> Self {
        Self {
            status: None,
            code: None,
            why: why.to_owned(),
        }
    }

    /// The error in an answer. A success has one in it, too, where it began before the work was done.
    fn of(answer: &Answer, has_content: bool) -> Option<Self> {
        let status = answer.response.status().as_u16();
        let is_success = answer.response.status().is_success();
        let document = match is_success && has_content {
            true => "",
            false => str::from_utf8(&answer.body).unwrap_or_default(),
        };
        if is_success && !document.contains("<Error>") {
            return None;
        }
        let code = element(document, "Code");
        let why = match (&code, element(document, "Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.clone(),
            (None, _) => format!("it answered {status}"),
        };
        Some(Self {
            status: Some(status),
            code,
            why,
        })
    }

    fn is_passing(&self) -> bool {
        let is_passing_code = |code: &String| PASSING_CODES.contains(&code.as_str());
        self.status.is_none_or(|status| PASSING.contains(&status))
            || self.code.as_ref().is_some_and(is_passing_code)
    }
}

impl From<Refused> for Unreachable {
    fn from(refused: Refused) -> Self {
        Self {
            what: "bucket",
            why: refused.why,
        }
    }
}

impl Answer {
    async fn read(mut response: HttpResponse) -> Result<Self, BoxError> {
        let body = ByteStream::new(response.take_body()).collect().await?;
        let body = body.into_bytes();
        Ok(Self { response, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)
    }

    /// Returns the text of an element of an answer in XML.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        element(str::from_utf8(&self.body).ok()?, name)
    }
}

/// Returns the text of the first element with this name.
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let names = [
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ];
    let text = names.iter().fold(text.to_owned(), |text, (name, letter)| {
        text.replace(name, letter)
    });
    Some(text.replace("&amp;", "&"))
}

impl Objects {
    pub(crate) fn new(
        connections: Connections,
        base: String,
        region: &str,
        credentials: Credentials,
    ) -> Self {
        Self {
            connections,
            base,
            region: region.to_owned(),
            credentials,
            keys: Keys::default(),
        }
    }

    /// Address of the bucket.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn signing(&self, payload: String) -> Signing<'_> {
        Signing {
            credentials: &self.credentials,
            region: &self.region,
            service: SERVICE,
            payload,
            tells_payload: true,
        }
    }

    /// Sends a request, and reads its answer. Repeats it, where a failure may pass, as often and as long as the bucket's
    /// [`BYTES`] say.
    pub(crate) async fn send(&self, asked: &Asked<'_>) -> Result<Answer, Refused> {
        let until = Instant::now() + BYTES.call;
        let mut pause = PAUSE;
        for attempt in 1.. {
            let within = BYTES.attempt.min(until - Instant::now());
            let answered = match timeout(within, self.attempt(asked)).await {
                Ok(answered) => answered,
                Err(_) => Err(Refused::without_answer("it did not answer in time")),
            };
            // Those that failed together come again at different times.
            let jitter = u32::try_from(random() % 100).unwrap_or_default();
            let next = pause + pause * jitter / 100;
            match answered {
                Err(refused)
                    if refused.is_passing()
                        && attempt < BYTES.attempts
                        && Instant::now() + next < until => {}
                answered => return answered,
            }
            sleep(next).await;
            pause *= 2;
        }
        unreachable!("attempts have an end")
    }

    async fn attempt(&self, asked: &Asked<'_>) -> Result<Answer, Refused> {
        let request = self.request(asked, now());
        let request = request.map_err(|error| Refused::without_answer(&error.to_string()))?;
        let connections = self.connections.clone();
        let sent = connections.send(request, Some(patience::CONNECT)).await;
        let response = sent.map_err(|_| Refused::without_answer("no connection"))?;
        let answer = Answer::read(response).await;
        let answer = answer.map_err(|_| Refused::without_answer("its answer broke off"))?;
        match Refused::of(&answer, asked.method == "GET") {
            None => Ok(answer),
            Some(refused) => Err(refused),
        }
    }

    fn uri(&self, key: &str, query: &str) -> String {
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/{key}{mark}{query}", self.base)
    }

    fn request(&self, asked: &Asked<'_>, now: Timestamp) -> Result<HttpRequest, BoxError> {
        let uri = self.uri(asked.key, asked.query);
        let parts = Parts {
            method: asked.method,
            uri: Uri::of(&uri).ok_or("an address without a host")?,
            headers: borrowed(&asked.headers),
        };
        let payload = match asked.is_unsigned {
            true => UNSIGNED_PAYLOAD.to_owned(),
            false => Digest::of(&asked.body).hex(),
        };
        let added = self.keys.headers(&parts, &self.signing(payload), now)?;
        let mut request = Request::builder().method(asked.method).uri(&uri);
        for (name, value) in &asked.headers {
            request = request.header(*name, value);
        }
        for (name, value) in added {
            request = request.header(name, value);
        }
        Ok(request
            .body(SdkBody::from(asked.body.clone()))?
            .try_into()?)
    }

    /// Returns an address by which anybody may ask for so long, with these headers and no others that the signature is about.
    pub(crate) fn presigned(
        &self,
        method: &'static str,
        key: &str,
        headers: &[(&'static str, String)],
        lifetime: Duration,
    ) -> String {
        self.presigned_at(now(), method, key, headers, lifetime)
    }

    fn presigned_at(
        &self,
        now: Timestamp,
        method: &'static str,
        key: &str,
        headers: &[(&'static str, String)],
        lifetime: Duration,
    ) -> String {
        let uri = self.uri(key, "");
        let parts = Parts {
            method,
            uri: Uri::of(&uri).expect("the bucket's address has a host"),
            headers: borrowed(headers),
        };
        let signing = self.signing(UNSIGNED_PAYLOAD.to_owned());
        let query = self.keys.query(&parts, &signing, lifetime, now);
        format!("{uri}?{query}")
    }
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let headers = headers.iter();
    headers
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use aws_sigv4::http_request::SignableBody;
    use receiver::{Answer as Given, Server};

    use super::*;
    use crate::fixture::{REGION, by_the_sdk, is_as_by_the_sdk, keys};

    const HOST: &str = "https://bucket.s3.eu-central-1.amazonaws.com";
    const PATH: &str = "http://127.0.0.1:4566/bucket";

    fn objects(base: &str, credentials: Credentials) -> Objects {
        Objects::new(Connections::new(2), base.into(), REGION, credentials)
    }

    #[test]
    fn a_signature_is_the_one_that_the_sdk_would_make() {
        let range = vec![("range", "bytes=0-9".to_owned())];
        let put = vec![
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", "c2hhMjU2+/8=".to_owned()),
        ];
        let upload = format!(
            "partNumber=7&uploadId={}",
            crate::signer::encoded("an/id+with=signs ~")
        );
        for (base, credentials) in [HOST, PATH]
            .into_iter()
            .flat_map(|base| keys().map(|key| (base, key)))
        {
            let objects = objects(base, credentials);
            for (method, query, headers, body, is_unsigned) in [
                ("GET", "", Vec::new(), "", false),
                ("GET", "", range.clone(), "", false),
                ("HEAD", "", Vec::new(), "", false),
                ("PUT", "", put.clone(), "some bytes", true),
                ("PUT", upload.as_str(), Vec::new(), "a part", true),
                ("POST", "uploads=", Vec::new(), "", false),
                ("POST", "uploadId=1", Vec::new(), "<Parts/>", false),
            ] {
                let asked = Asked {
                    method,
                    key: "acme/sha256/00ff",
                    query,
                    headers,
                    body: Bytes::from_static(body.as_bytes()),
                    is_unsigned,
                };
                let request = objects.request(&asked, now()).unwrap();
                is_as_by_the_sdk(&request);
                let told = request.headers().get("x-amz-content-sha256");
                assert_eq!(told == Some(UNSIGNED_PAYLOAD), is_unsigned);
            }
        }
    }

    #[test]
    fn an_address_is_the_one_that_the_sdk_would_make() {
        let now: Timestamp = "2026-11-30T12:00:00.000Z".parse().unwrap();
        let lifetime = Duration::from_mins(15);
        let put = [
            ("content-length", "5".to_owned()),
            ("x-amz-checksum-sha256", "c2hhMjU2+/8=".to_owned()),
        ];
        for (method, headers) in [("GET", &[][..]), ("PUT", &put)] {
            for (base, credentials) in [HOST, PATH]
                .into_iter()
                .flat_map(|base| keys().map(|key| (base, key)))
            {
                let id = credentials.access_key_id().to_owned();
                let objects = objects(base, credentials);
                let own = objects.presigned_at(now, method, "acme/sha256/00ff", headers, lifetime);
                let (uri, query) = own.split_once('?').unwrap();
                let parts = ["20261130T120000Z", id.as_str(), "s3"];
                let body = SignableBody::UnsignedPayload;
                let added = by_the_sdk(
                    [method, uri],
                    &borrowed(headers),
                    body,
                    parts,
                    Some(lifetime),
                );
                let added = added.into_iter();
                let mut added: Vec<_> = added
                    .map(|(name, value)| format!("{name}={}", crate::signer::encoded(&value)))
                    .collect();
                let mut own: Vec<_> = query.split('&').map(str::to_owned).collect();
                added.sort();
                own.sort();
                assert_eq!(own, added);
            }
        }
    }

    fn asked() -> Asked<'static> {
        Asked {
            method: "GET",
            key: "key",
            ..Asked::default()
        }
    }

    /// Answers the first request so and the others otherwise; returns what became of it, with the number of requests.
    async fn after(first: fn() -> Given, asked: Asked<'_>) -> (Result<Answer, Refused>, usize) {
        let server = Server::start(move |earlier, _| match earlier {
            0 => first(),
            _ => Given::status(200).header("etag", "\"1\"").body("bytes"),
        });
        let [key, _] = keys();
        let base = format!("{}/bucket", server.origin());
        let answered = objects(&base, key).send(&asked).await;
        (answered, server.received().len())
    }

    fn refusal(status: u16, code: &str) -> Given {
        let document = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a &amp; b</Message></Error>"
        );
        Given::status(status).body(document)
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_for_again() {
        for first in [
            || refusal(503, "SlowDown"),
            || refusal(500, "InternalError"),
            || refusal(400, "RequestTimeout"),
            || Given::status(502),
            || Given::silence(Duration::ZERO),
        ] {
            let (answered, count) = after(first, asked()).await;
            let answer = answered.unwrap();
            assert_eq!(
                (&answer.body[..], answer.header("etag")),
                (&b"bytes"[..], Some("\"1\""))
            );
            assert_eq!(count, 2);
        }
    }

    #[tokio::test]
    async fn what_is_refused_for_good_says_why_and_is_not_repeated() {
        for (first, status, why) in [
            (
                (|| refusal(404, "NoSuchKey")) as fn() -> Given,
                404,
                "NoSuchKey: a & b",
            ),
            (|| refusal(403, "AccessDenied"), 403, "AccessDenied: a & b"),
            (|| Given::status(412), 412, "it answered 412"),
        ] {
            let (answered, count) = after(first, asked()).await;
            let Err(refused) = answered else {
                panic!("{why}")
            };
            assert_eq!(
                (refused.status, refused.why.as_str(), count),
                (Some(status), why, 1)
            );
        }
    }

    #[tokio::test]
    async fn a_success_with_an_error_inside_is_none_unless_it_is_an_object() {
        let inside = || refusal(200, "InternalError");
        let post = Asked {
            method: "POST",
            ..asked()
        };
        let (answered, count) = after(inside, post).await;
        assert_eq!((answered.is_ok(), count), (true, 2));
        let (answered, count) = after(inside, asked()).await;
        assert!(answered.unwrap().body.starts_with(b"<?xml"));
        assert_eq!(count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_there_is_told_after_a_few_attempts() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/bucket", listener.local_addr().unwrap());
        drop(listener);
        let [key, _] = keys();
        let refused = objects(&base, key).send(&asked()).await.err().unwrap();
        assert_eq!(
            (refused.status, refused.why.as_str()),
            (None, "no connection")
        );
    }
}
