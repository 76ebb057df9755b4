//! Object store: uploads and downloads by the URLs that the API gives, without our own headers.

use std::io::Read;

use api::materials::{Download, Upload};
use indicatif::ProgressBar;
use ureq::http::{Request, Response};
use ureq::{AsSendBody, Body, SendBody};

use super::Client;
use super::refusal::unreachable;
use crate::failure::Failure;
use crate::output::say;

impl Client {
    /// Uploads bytes as the API said. Succeeds if they are there already.
    pub(crate) fn upload(
        &self,
        upload: &Upload,
        content: &mut dyn Read,
        size: u64,
    ) -> anyhow::Result<()> {
        let mut request = Request::builder()
            .method(upload.method.as_str())
            .uri(&upload.url);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        // A body whose length is not said would go in chunks, which S3 does not take.
        if !upload
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-length"))
        {
            request = request.header("content-length", size);
        }
        let (_, mut answer) = self.exchange(request.body(SendBody::from_reader(content))?)?;
        match answer.status().as_u16() {
            200..=299 | 412 => Ok(()),
            _ => Err(refused(&mut answer).into()),
        }
    }

    pub(crate) fn download(
        &self,
        download: &Download,
        size: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<u8>> {
        let (host, mut answer) = self.exchange(Request::get(&download.url).body(())?)?;
        if answer.status() != 200 {
            return Err(refused(&mut answer).into());
        }
        let body = answer
            .body_mut()
            .with_config()
            .limit(size.saturating_add(1));
        let mut bytes = Vec::new();
        bar.wrap_read(body.reader())
            .read_to_end(&mut bytes)
            .map_err(|error| unreachable(&host, &error.into()))?;
        Ok(bytes)
    }

    /// Sends a request, and returns the store's host and its response.
    fn exchange(
        &self,
        request: Request<impl AsSendBody>,
    ) -> anyhow::Result<(String, Response<Body>)> {
        let method = request.method().clone();
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = self
            .agent
            .run(request)
            .map_err(|error| unreachable(&host, &error))?;
        if self.debug {
            let status = answer.status().as_u16();
            say("DBG", "2", &format!("{method} to {host}: {status}"));
        }
        Ok((host, answer))
    }
}

/// Describes a refusal of the store.
fn refused(answer: &mut Response<Body>) -> Failure {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(16 * 1024);
    let body = body.read_to_string().unwrap_or_default();
    let says = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        rest.split_once("</").map(|(text, _)| text.to_owned())
    };
    let why = says("Message")
        .or_else(|| says("Code"))
        .map(|why| format!(": {why}"));
    let why = why.unwrap_or_default();
    Failure::new(format!(
        "the object store responded with status {status}{why}"
    ))
    .request(says("RequestId").unwrap_or_default())
}
