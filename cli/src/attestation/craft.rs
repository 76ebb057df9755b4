//! `attestation craft`: creates an attestation in Chainloop's format over files, for trials.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use attestation::{Material, MaterialType, Metadata, Predicate, Subject, compose};
use clap::{Args, ValueEnum};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::materials;
use crate::global::Global;
use crate::output;
use crate::time;

#[derive(Debug, Args)]
pub(crate) struct Craft {
    /// Output file; standard output by default
    file: Option<PathBuf>,
    /// Name of the workflow
    #[arg(long)]
    workflow: String,
    /// Project of the workflow
    #[arg(long)]
    project: String,
    /// ID of the workflow, a UUID, if it has one
    #[arg(long, default_value = "", hide_default_value = true)]
    workflow_id: String,
    /// Material; can be repeated
    #[arg(long = "material", value_name = "NAME=TYPE:FILE")]
    materials: Vec<Wanted>,
    /// Annotation of the attestation; can be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Embed files in the attestation instead of expecting their upload
    #[arg(long)]
    inline: bool,
    /// Output format
    #[arg(long, default_value = "bundle")]
    form: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Bundle,
    Envelope,
}

/// `NAME=TYPE:CONTENT`.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    name: String,
    kind: String,
    content: String,
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(name, rest)| {
            let (kind, content) = rest.split_once(':')?;
            Some((name, kind, content))
        });
        match parts {
            Some((name, kind, content)) if ![name, kind, content].contains(&"") => Ok(Self {
                name: name.into(),
                kind: kind.into(),
                content: content.into(),
            }),
            _ => Err("the expected format is NAME=TYPE:FILE"),
        }
    }
}

fn annotation(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("the expected format is KEY=VALUE"),
    }
}

impl Craft {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let random = SystemRandom::new();
        let materials: Vec<Material> = self
            .materials
            .iter()
            .map(|wanted| wanted.material(self.inline))
            .collect::<Result<_, _>>()?;
        let now = time::now().to_string();
        let predicate = Predicate {
            metadata: Metadata {
                name: self.workflow.clone(),
                workflow_name: self.workflow.clone(),
                project: self.project.clone(),
                workflow_id: self.workflow_id.clone(),
                workflow_run_id: uuid(&random)?,
                initialized_at: now.clone(),
                finished_at: now,
                ..Metadata::default()
            },
            builder_id: concat!("chainloop.dev/cli/", env!("CARGO_PKG_VERSION")).to_owned(),
            build_type: "chainloop.dev/workflowrun/v0.1".to_owned(),
            runner_type: "RUNNER_TYPE_UNSPECIFIED".to_owned(),
            annotations: self.annotations.into_iter().collect(),
            materials,
            ..Predicate::default()
        };
        let subjects: Vec<Subject> = head().into_iter().collect();
        let key = Ed25519KeyPair::generate_pkcs8(&random)
            .ok()
            .and_then(|document| Ed25519KeyPair::from_pkcs8(document.as_ref()).ok())
            .ok_or_else(|| anyhow!("failed to create a signing key"))?;
        let keyid = attestation::Digest::of(key.public_key().as_ref()).to_string();
        let statement = compose::statement(&predicate, &subjects);
        let envelope =
            compose::envelope(statement, &keyid, |bytes| key.sign(bytes).as_ref().to_vec());
        let bytes = match self.form {
            Form::Bundle => compose::bundle(&envelope),
            Form::Envelope => envelope.compact(),
        };
        match &self.file {
            None => output::bytes(&bytes)?,
            Some(file) => {
                fs::write(file, &bytes)
                    .with_context(|| format!("failed to write {}", file.display()))?;
                global.info(&format!(
                    "wrote attestation {} to {}",
                    envelope.hash(),
                    file.display()
                ));
            }
        }
        Ok(())
    }
}

impl Wanted {
    fn material(&self, inline: bool) -> anyhow::Result<Material> {
        let Self {
            name,
            kind,
            content,
        } = self;
        let kind = MaterialType::from(kind.as_str());
        if kind == MaterialType::STRING {
            return Ok(Material::string(name, content));
        }
        if kind == MaterialType::CONTAINER_IMAGE {
            let image = content.split_once('@').and_then(|(repository, digest)| {
                Some(Material::image(name, repository, digest.parse().ok()?))
            });
            return image.ok_or_else(|| {
                anyhow!("the image {content:?} has no digest: pass it as repository@sha256:…")
            });
        }
        let path = PathBuf::from(content);
        let filename = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let context = || format!("failed to read {content} (material {name:?})");
        let mut material = if inline {
            Material::inline(
                name,
                kind,
                &filename,
                fs::read(&path).with_context(context)?,
            )
        } else {
            let mut file = fs::File::open(&path).with_context(context)?;
            let digest = materials::digest(&mut file).with_context(context)?;
            Material::uploaded(name, kind, &filename, digest)
        };
        let size = fs::metadata(&path).with_context(context)?.len();
        material.annotate("chainloop.material.size", &size.to_string());
        Ok(material)
    }
}

fn uuid(random: &SystemRandom) -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("failed to get random bytes from the system"))?;
    Ok(uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string())
}

/// The commit that is checked out here, if one is.
fn head() -> Option<Subject> {
    let output = process::Command::new("git")
        .args(["log", "-1", "--format=%H%x00%aI%x00%ae%x00%an%x00%s"])
        .stderr(process::Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut fields = text.trim_end().split('\0');
    let commit = fields.next().filter(|commit| commit.len() == 40)?;
    let mut subject = Subject {
        name: "git.head".into(),
        ..Subject::default()
    };
    subject.digests.insert("sha1".into(), commit.into());
    for (name, value) in ["date", "author.email", "author.name", "message"]
        .into_iter()
        .zip(fields)
    {
        subject.annotations.insert(name.into(), value.into());
    }
    Some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_material_is_wanted_by_name_type_and_content() {
        let wanted: Wanted = "image=CONTAINER_IMAGE:example.org:5000/shop@sha256:00"
            .parse()
            .unwrap();
        let content = "example.org:5000/shop@sha256:00".into();
        assert_eq!(
            wanted,
            Wanted {
                name: "image".into(),
                kind: "CONTAINER_IMAGE".into(),
                content
            }
        );
        for text in ["sbom", "sbom=file", "sbom=:file", "=A:b", "a=B:"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
