//! Documents that are fetched whole: small ones, as JSON. Redirects are not followed.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, request};
use url::{Url, form_urlencoded};

use crate::http::{Response, origin};
use crate::{Error, Http, SecretText};

/// Fetches a document of at most so many bytes.
pub async fn get(http: &Http, url: &str, most: usize) -> Result<Bytes, Error> {
    let response = whole(http, url, Request::get(url), Bytes::new(), most).await?;
    match response.status {
        StatusCode::OK => Ok(response.body),
        status => {
            let (place, status) = (place(url)?, status.as_u16());
            Err(Error::retryable(format!(
                "fetch from {place}: answered {status}"
            )))
        }
    }
}

/// Posts the fields of a form. Returns the status, and the document that came with it, of at most so many bytes.
/// `credentials`, a name and a password, go into the header, each encoded as a form's field, as RFC 6749 asks for.
pub async fn post(
    http: &Http,
    url: &str,
    fields: &[(&str, &str)],
    credentials: Option<(&str, &SecretText)>,
    most: usize,
) -> Result<(u16, Bytes), Error> {
    let mut request = Request::post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some((name, password)) = credentials {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let (name, password): (String, String) = (encode(name), encode(password.expose()));
        let pair = base64_simd::STANDARD.encode_to_string(format!("{name}:{password}"));
        let mut value =
            HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is a header's value");
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let response = whole(http, url, request, body.into(), most).await?;
    Ok((response.status.as_u16(), response.body))
}

fn place(url: &str) -> Result<String, Error> {
    let url = Url::parse(url).map_err(|_| Error::permanent("fetch a document: not a valid URL"))?;
    Ok(origin(&url))
}

/// Sends a request whose response has to come whole.
async fn whole(
    http: &Http,
    url: &str,
    request: request::Builder,
    body: Bytes,
    most: usize,
) -> Result<Response, Error> {
    let place = place(url)?;
    let request = request
        .header(ACCEPT, "application/json")
        .body(body)
        .map_err(|_| Error::permanent(format!("fetch from {place}: not a valid URL")))?;
    let response = http.fetch(request, most).await?;
    match response.truncated {
        true => Err(Error::permanent(format!(
            "fetch from {place}: it is too large, or its end did not come in time"
        ))),
        false => Ok(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Peer, http};

    #[tokio::test]
    async fn a_form_is_posted_with_credentials_that_are_encoded_as_its_fields() {
        let party = Peer::start(&["HTTP/1.1 400 x\r\ncontent-length: 2\r\n\r\n{}"]);
        let secret = SecretText::from("p:w +~".to_owned());
        let fields = [("code", "a&b=c"), ("redirect_uri", "https://x/y")];
        let posted = post(&http(), &party.origin, &fields, Some(("a b", &secret)), 64).await;
        assert_eq!(posted.unwrap(), (400, Bytes::from("{}")));
        let received = &party.received()[0];
        assert_eq!(
            received.body,
            b"code=a%26b%3Dc&redirect_uri=https%3A%2F%2Fx%2Fy"
        );
        // printf 'a+b:p%%3Aw+%%2B%%7E' | base64
        assert_eq!(
            received.headers["authorization"],
            "Basic YStiOnAlM0F3KyUyQiU3RQ=="
        );
    }

    #[tokio::test]
    async fn a_document_comes_whole_or_not_at_all() {
        let ok = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let answers = [
            (ok("{}"), Ok("{}")),
            (
                ok(&"x".repeat(65)),
                Err("it is too large, or its end did not come in time"),
            ),
            (
                "HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n".into(),
                Err("answered 404"),
            ),
            (
                "HTTP/1.1 302 x\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n".into(),
                Err("answered 302"),
            ),
        ];
        for (answer, wanted) in answers {
            let party = Peer::start(&[&answer]);
            let got = get(&http(), &format!("{}/x", party.origin), 64).await;
            match (got, wanted) {
                (Ok(bytes), Ok(wanted)) => assert_eq!(bytes, wanted),
                (Err(error), Err(wanted)) => assert!(error.text.ends_with(wanted), "{error}"),
                (got, wanted) => panic!("{got:?}, not {wanted:?}"),
            }
            assert_eq!(party.received()[0].target, "/x");
        }
        let refused = get(&http(), "http://10.0.0.1/x", 64).await.unwrap_err();
        assert!(
            refused.text.contains("a private address is not allowed"),
            "{refused}"
        );
    }
}
