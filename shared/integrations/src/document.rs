//! Documents that are fetched whole: small ones, without credentials.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use url::Url;

use crate::http::origin;
use crate::{Error, Http};

/// Fetches a JSON document of at most so many bytes. Redirects are not followed.
pub async fn get(http: &Http, url: &str, most: usize) -> Result<Bytes, Error> {
    let place =
        Url::parse(url).map_err(|_| Error::permanent("fetch a document: not a valid URL"))?;
    let place = origin(&place);
    let request = Request::get(url).header(ACCEPT, "application/json");
    let request = request
        .body(Bytes::new())
        .map_err(|_| Error::permanent(format!("fetch from {place}: not a valid URL")))?;
    let response = http.fetch(request, most).await?;
    match response.status {
        StatusCode::OK if response.truncated => Err(Error::permanent(format!(
            "fetch from {place}: it is too large, or its end did not come in time"
        ))),
        StatusCode::OK => Ok(response.body),
        status => {
            let status = status.as_u16();
            Err(Error::retryable(format!(
                "fetch from {place}: answered {status}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Peer, http};

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
