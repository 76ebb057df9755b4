//! Materials given as files: matches them with the attestation's, checks their digests, uploads them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use api::materials::{NewMaterial, NewUpload};
use attestation::{Digest, Material};

use crate::client::{Call, Client, json};
use crate::failure::Failure;
use crate::global::Global;
use crate::progress;

/// Its address lives for 15 minutes and a connection may break: then another is asked for.
const TRIES: usize = 3;

/// `--material NAME=FILE`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Given {
    pub name: String,
    pub file: PathBuf,
}

impl FromStr for Given {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok(Self {
                name: name.to_owned(),
                file: file.into(),
            }),
            _ => Err("the expected format is NAME=FILE"),
        }
    }
}

/// A file whose bytes are those of a material.
#[derive(Debug)]
pub(crate) struct Checked {
    name: String,
    file: PathBuf,
    digest: Digest,
    size: u64,
}

/// Finds each given file among the attested materials, and checks its digest.
pub(crate) fn check(
    global: &Global,
    attested: &[&Material],
    given: &[Given],
) -> anyhow::Result<Vec<Checked>> {
    given
        .iter()
        .map(|given| check_one(global, attested, given))
        .collect()
}

fn check_one(global: &Global, materials: &[&Material], given: &Given) -> anyhow::Result<Checked> {
    let Given { name, file } = given;
    let called = |material: &&&Material| {
        material.name == *name || material.filename == *name || material.value == *name
    };
    let promised: Vec<Digest> = materials
        .iter()
        .filter(called)
        .filter_map(|material| material.digest)
        .collect();
    let Some(first) = promised.first() else {
        let names: Vec<&str> = materials
            .iter()
            .map(|material| material.name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        let advice = match names.as_slice() {
            [] => "It has no materials.".to_owned(),
            names => format!("It has {}.", names.join(", ")),
        };
        let text = format!("the attestation has no material {name:?} with a digest");
        return Err(Failure::usage(text).advice(advice).into());
    };
    let shown = file.display();
    let mut content =
        File::open(file).with_context(|| format!("failed to open {shown} (material {name:?})"))?;
    let size = content.metadata()?.len();
    let bar = progress::bar(global, size, &format!("check {name}"));
    let digest = digest(&mut bar.wrap_read(&mut content))
        .with_context(|| format!("failed to read {shown} (material {name:?})"))?;
    bar.finish_and_clear();
    if !promised.contains(&digest) {
        let failure = Failure::new(format!(
            "{shown} does not match the attested material {name:?}"
        ));
        return Err(failure
            .faults(vec![
                format!("attested: {first}"),
                format!("file: {digest}"),
            ])
            .advice("Nothing was sent. Pass the file as it was when it was attested.")
            .into());
    }
    Ok(Checked {
        name: name.clone(),
        file: file.clone(),
        digest,
        size,
    })
}

/// Returns the digest of a reader's bytes, without holding them.
pub(crate) fn digest(content: &mut impl Read) -> io::Result<Digest> {
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => sum.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sum.finish().as_ref());
    Ok(bytes.into())
}

/// Uploads a material, unless it is there.
pub(crate) fn upload(global: &Global, client: &Client, material: &Checked) -> anyhow::Result<()> {
    let Checked {
        name,
        file,
        digest,
        size,
    } = material;
    let context = || format!("failed to upload the material {name:?}");
    for attempt in 1.. {
        let path = ["materials", &digest.to_string()];
        let new = json(&NewMaterial { size_bytes: *size })?;
        let answer: NewUpload = client.call(&Call::put(&path, new)).with_context(context)?;
        let upload = match answer {
            NewUpload::Present => {
                global.info(&format!("material {name:?} already uploaded"));
                return Ok(());
            }
            NewUpload::Needed { upload } => upload,
        };
        match send(global, client, &upload, name, file, *size) {
            Ok(()) => break,
            Err(error) if attempt == TRIES => return Err(error).with_context(context),
            Err(error) => {
                global.warn(&format!(
                    "the upload of {name:?} failed, retrying: {error:#}"
                ));
            }
        }
    }
    global.info(&format!("material {name:?} uploaded ({size} bytes)"));
    Ok(())
}

fn send(
    global: &Global,
    client: &Client,
    upload: &api::materials::Upload,
    name: &str,
    file: &Path,
    size: u64,
) -> anyhow::Result<()> {
    let bar = progress::bar(global, size, &format!("upload {name}"));
    // Exactly as many bytes as were promised, also when the file has grown since.
    let mut content = bar.wrap_read(File::open(file)?).take(size);
    let sent = client.upload(upload, &mut content, size);
    bar.finish_and_clear();
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_material_is_given_as_name_and_file() {
        let given: Given = "sbom=a=b.json".parse().unwrap();
        assert_eq!(
            given,
            Given {
                name: "sbom".into(),
                file: "a=b.json".into()
            }
        );
        for text in ["sbom", "=file", "sbom="] {
            assert!(text.parse::<Given>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_streamed_has_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(700_001).collect();
        assert_eq!(digest(&mut bytes.as_slice()).unwrap(), Digest::of(&bytes));
    }
}
