//! Stub of S3: objects of all buckets by their paths, with ranges, preconditions, checksums, copies and uploads in parts.

use std::collections::BTreeMap;

use attestation::Digest;
use receiver::{Answer, Received};

struct Object {
    bytes: Vec<u8>,
    /// SHA-256 in base64, if it was put with one.
    checksum: Option<String>,
    etag: String,
}

#[derive(Default)]
pub struct Bucket {
    objects: BTreeMap<String, Object>,
    puts: usize,
    /// Parts by their numbers, and path of the object, by the upload's ID.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    uploads_begun: usize,
}

fn refused(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
    Answer::status(status)
        .header("content-type", "application/xml")
        .body(body)
}

fn checksum(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(Digest::of(bytes).bytes())
}

impl Bucket {
    /// Puts an object, and returns its etag.
    pub fn put(&mut self, path: &str, bytes: Vec<u8>, checksum: Option<String>) -> String {
        self.puts += 1;
        let etag = format!("\"{}\"", self.puts);
        let object = Object {
            bytes,
            checksum,
            etag: etag.clone(),
        };
        self.objects.insert(path.to_owned(), object);
        etag
    }

    /// Answers a request, and names its operation.
    pub fn answer(&mut self, request: Received) -> (&'static str, Answer) {
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path.to_owned(), query.to_owned()),
            None => (request.path.clone(), String::new()),
        };
        let parameter = |name: &str| {
            let mut all = query
                .split('&')
                .map(|one| one.split_once('=').unwrap_or((one, "")));
            all.find(|(own, _)| *own == name)
                .map(|(_, value)| value.to_owned())
        };
        let upload = parameter("uploadId");
        match (request.method.as_str(), upload) {
            ("GET", None) => ("GetObject", self.get(&path, &request)),
            ("HEAD", None) => ("HeadObject", self.get(&path, &request)),
            ("PUT", None) if request.header("x-amz-copy-source").is_some() => {
                ("CopyObject", self.copy(&path, &request))
            }
            ("PUT", None) => ("PutObject", self.put_object(&path, request)),
            ("POST", None) if parameter("uploads").is_some() => {
                self.uploads_begun += 1;
                let id = format!("upload-{}", self.uploads_begun);
                self.uploads.insert(id.clone(), (path, BTreeMap::new()));
                let body = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                ("CreateMultipartUpload", Answer::status(200).body(body))
            }
            ("PUT", Some(id)) => {
                let number = parameter("partNumber").and_then(|number| number.parse().ok());
                let parts = self.uploads.get_mut(&id).map(|(_, parts)| parts);
                let answer = match number.zip(parts) {
                    None => refused(404, "NoSuchUpload"),
                    Some((number, parts)) => {
                        parts.insert(number, request.body);
                        Answer::status(200).header("etag", format!("\"part-{number}\""))
                    }
                };
                ("UploadPart", answer)
            }
            ("POST", Some(id)) => ("CompleteMultipartUpload", self.complete(&id, &request)),
            ("DELETE", Some(id)) => {
                let answer = match self.uploads.remove(&id) {
                    Some(_) => Answer::status(204),
                    None => refused(404, "NoSuchUpload"),
                };
                ("AbortMultipartUpload", answer)
            }
            _ => ("unknown", refused(501, "NotImplemented")),
        }
    }

    fn get(&self, path: &str, request: &Received) -> Answer {
        let Some(object) = self.objects.get(path) else {
            return refused(404, "NoSuchKey");
        };
        let etag = &object.etag;
        if request
            .header("if-match")
            .is_some_and(|wanted| wanted != etag)
        {
            return refused(412, "PreconditionFailed");
        }
        let size = object.bytes.len();
        let answer = |status: u16| {
            // Nobody has put it a long time ago.
            let modified = "Thu, 01 Jan 2099 00:00:00 GMT";
            Answer::status(status)
                .header("etag", etag)
                .header("last-modified", modified)
        };
        let range = request.header("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let first: usize = first.parse().ok()?;
            let last = last
                .parse()
                .map_or(size, |last: usize| (last + 1).min(size));
            Some((first, last))
        });
        match range {
            Some((first, last)) if first >= last => refused(416, "InvalidRange"),
            Some((first, last)) => answer(206)
                .header(
                    "content-range",
                    format!("bytes {first}-{}/{size}", last - 1),
                )
                .body(&object.bytes[first..last]),
            None => {
                let asks = request.header("x-amz-checksum-mode") == Some("ENABLED");
                let whole = match object.checksum.as_ref().filter(|_| asks) {
                    Some(checksum) => answer(200).header("x-amz-checksum-sha256", checksum),
                    None => answer(200),
                };
                match request.method.as_str() {
                    "HEAD" => whole.header("content-length", size),
                    _ => whole.body(object.bytes.as_slice()),
                }
            }
        }
    }

    fn put_object(&mut self, path: &str, request: Received) -> Answer {
        if request.header("if-none-match") == Some("*") && self.objects.contains_key(path) {
            return refused(412, "PreconditionFailed");
        }
        // Chunks with signatures between them would be kept as they are.
        if request
            .header("content-encoding")
            .is_some_and(|one| one.contains("aws-chunked"))
        {
            return refused(501, "NotImplemented");
        }
        let own = checksum(&request.body);
        let given = request.header("x-amz-checksum-sha256").map(str::to_owned);
        if given.as_ref().is_some_and(|given| *given != own) {
            return refused(400, "BadDigest");
        }
        Answer::status(200).header("etag", self.put(path, request.body, given))
    }

    fn copy(&mut self, path: &str, request: &Received) -> Answer {
        let source = request.header("x-amz-copy-source").unwrap_or_default();
        let found = self
            .objects
            .get(&format!("/{}", source.trim_start_matches('/')));
        let Some(Object {
            bytes, checksum, ..
        }) = found
        else {
            return refused(404, "NoSuchKey");
        };
        let (bytes, checksum) = (bytes.clone(), checksum.clone());
        self.put(path, bytes, checksum);
        Answer::status(200).body("<CopyObjectResult></CopyObjectResult>")
    }

    /// Completes an upload with the parts that the request names, in its order.
    fn complete(&mut self, id: &str, request: &Received) -> Answer {
        let Some((path, parts)) = self.uploads.get_mut(id) else {
            return refused(404, "NoSuchUpload");
        };
        let body = String::from_utf8_lossy(&request.body);
        let numbers = body.split("<PartNumber>").skip(1);
        let mut bytes = Vec::new();
        for number in numbers.filter_map(|rest| rest.split_once('<')?.0.parse().ok()) {
            match parts.remove(&number) {
                Some(part) => bytes.extend(part),
                None => return refused(400, "InvalidPart"),
            }
        }
        let path = std::mem::take(path);
        self.uploads.remove(id);
        self.put(&path, bytes, None);
        let answer = "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
        Answer::status(200).body(answer)
    }
}
