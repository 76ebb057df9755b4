//! Evidence that came with the attestation: an SBOM, a scan, an image, a line of text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::json::{Bytes, Strings, Text, owned};
use crate::{Digest, Error, base64};

pub(crate) const NAME: &str = "chainloop.material.name";
pub(crate) const TYPE: &str = "chainloop.material.type";
pub(crate) const UPLOADED: &str = "chainloop.material.cas";
pub(crate) const INLINE: &str = "chainloop.material.cas.inline";

/// One material, after Chainloop's normalization.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// Its name in the workflow's contract.
    pub name: String,
    pub kind: MaterialType,
    /// The name of the file, where there is one: uploaded or inline.
    pub filename: String,
    /// Stand-in for a material without a file: the text of a `STRING`, the repository of a `CONTAINER_IMAGE`, the name
    /// of a file that was neither uploaded nor put inline.
    pub value: String,
    pub digest: Option<Digest>,
    /// The bytes that came along, inline or as a `STRING`. Never a stand-in: what lies elsewhere has none.
    pub content: Option<Vec<u8>>,
    /// True if Chainloop's artifact store has the material.
    pub uploaded_to_cas: bool,
    pub embedded_inline: bool,
    /// All of them, Chainloop's own under `chainloop.` included, as text.
    pub annotations: BTreeMap<String, String>,
}

impl Material {
    /// A text.
    pub fn string(name: &str, value: &str) -> Material {
        Material {
            value: value.to_owned(),
            content: Some(value.as_bytes().to_vec()),
            ..Material::named(name, MaterialType::STRING)
        }
    }

    /// An image in a registry.
    pub fn image(name: &str, repository: &str, digest: Digest) -> Material {
        Material {
            value: repository.to_owned(),
            digest: Some(digest),
            ..Material::named(name, MaterialType::CONTAINER_IMAGE)
        }
    }

    /// A file whose content is uploaded by its digest.
    pub fn uploaded(name: &str, kind: MaterialType, filename: &str, digest: Digest) -> Material {
        let mut material = Material {
            filename: filename.to_owned(),
            digest: Some(digest),
            uploaded_to_cas: true,
            ..Material::named(name, kind)
        };
        material.annotate(UPLOADED, "true");
        material
    }

    /// A file that travels inside the attestation.
    pub fn inline(name: &str, kind: MaterialType, filename: &str, content: Vec<u8>) -> Material {
        let mut material = Material {
            filename: filename.to_owned(),
            digest: Some(Digest::of(&content)),
            content: Some(content),
            embedded_inline: true,
            ..Material::named(name, kind)
        };
        material.annotate(INLINE, "true");
        material
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(key.to_owned(), value.to_owned());
    }

    fn named(name: &str, kind: MaterialType) -> Material {
        let mut material = Material {
            name: name.to_owned(),
            ..Material::default()
        };
        material.annotate(NAME, name);
        material.annotate(TYPE, kind.as_str());
        material.kind = kind;
        material
    }
}

// Without the bytes of the content, of which there may be megabytes.
impl fmt::Debug for Material {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Material")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("filename", &self.filename)
            .field("value", &self.value)
            .field("digest", &self.digest)
            .field("content_bytes", &self.content.as_ref().map(Vec::len))
            .field("uploaded_to_cas", &self.uploaded_to_cas)
            .field("embedded_inline", &self.embedded_inline)
            .field("annotations", &self.annotations)
            .finish()
    }
}

/// Type of a material. An open set: Chainloop adds several a month, and one that we do not know is delivered to the
/// attachments that name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MaterialType(Cow<'static, str>);

macro_rules! material_types {
    ($($name:ident)*) => {
        impl MaterialType {
            $(pub const $name: MaterialType = MaterialType(Cow::Borrowed(stringify!($name)));)*

            /// Types that Chainloop had when this was written, in the order of its enumeration.
            pub const KNOWN: &[MaterialType] = &[$(MaterialType::$name),*];
        }
    };
}

material_types! {
    STRING CONTAINER_IMAGE ARTIFACT SBOM_CYCLONEDX_JSON SBOM_SPDX_JSON JUNIT_XML OPENVEX CSAF_VEX SARIF
    HELM_CHART EVIDENCE ATTESTATION CSAF_INFORMATIONAL_ADVISORY CSAF_SECURITY_ADVISORY
    CSAF_SECURITY_INCIDENT_RESPONSE GITLAB_SECURITY_REPORT ZAP_DAST_ZIP BLACKDUCK_SCA_JSON
    TWISTCLI_SCAN_JSON GHAS_CODE_SCAN GHAS_SECRET_SCAN GHAS_DEPENDENCY_SCAN JACOCO_XML SLSA_PROVENANCE
    CHAINLOOP_RUNNER_CONTEXT CHAINLOOP_PR_INFO GITLEAKS_JSON CHAINLOOP_AI_AGENT_CONFIG
    CHAINLOOP_AI_CODING_SESSION OPENAPI_SPEC ASYNCAPI_SPEC GRAPHQL_SPEC YELP_DETECT_SECRETS_BASELINE
    SYSINTERNALS_SIGCHECK SYSINTERNALS_ACCESSCHK CERTCC_DRANZER OSSF_SCORECARD_JSON RADAMSA_REPORT
    RADAMSA_CRASHES TRUFFLEHOG_JSON COBERTURA_XML CHECKMARX_JSON
}

impl MaterialType {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for MaterialType {
    fn from(name: String) -> MaterialType {
        MaterialType(Cow::Owned(name))
    }
}

impl From<&str> for MaterialType {
    fn from(name: &str) -> MaterialType {
        MaterialType::from(name.to_owned())
    }
}

impl fmt::Display for MaterialType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Debug for MaterialType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A material as it stands in the predicate: in-toto's resource descriptor.
#[derive(Deserialize)]
pub(crate) struct Wire<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    digest: Option<Strings>,
    #[serde(borrow)]
    content: Option<Bytes<'a>>,
    annotations: Option<Strings>,
}

impl Wire<'_> {
    /// The material, or none where Chainloop would drop the descriptor: without a name and a type in its
    /// annotations; a `STRING` without content; anything else without a file name and a SHA-256.
    pub(crate) fn normalize(self) -> Result<Option<Material>, Error> {
        let annotations = self.annotations.unwrap_or_default().0;
        let flag = |key| annotations.get(key).is_some_and(|value| value == "true");
        let (uploaded_to_cas, embedded_inline) = (flag(UPLOADED), flag(INLINE));
        let (Some(name), Some(kind)) = (annotations.get(NAME), annotations.get(TYPE)) else {
            return Ok(None);
        };
        let digest = self
            .digest
            .and_then(|Strings(digests)| digests.get("sha256")?.parse().ok());
        let mut material = Material {
            name: name.clone(),
            kind: kind.as_str().into(),
            digest,
            annotations,
            ..Material::default()
        };
        let decoded = |content: &Bytes<'_>| {
            base64::decode(content).ok_or_else(|| {
                let name = crate::error::clip(&material.name);
                Error::PredicateInvalid(format!("the content of material {name:?} is not base64"))
            })
        };
        if material.kind == MaterialType::STRING {
            let Some(content) = &self.content else {
                return Ok(None);
            };
            let content = decoded(content)?;
            str::from_utf8(&content)
                .unwrap_or_default()
                .clone_into(&mut material.value);
            material.content = Some(content);
            return Ok(Some(material));
        }
        let filename = owned(self.name);
        if material.digest.is_none() || filename.is_empty() {
            return Ok(None);
        }
        if embedded_inline {
            material.content = self.content.as_ref().map(decoded).transpose()?;
        }
        material.uploaded_to_cas = uploaded_to_cas;
        material.embedded_inline = embedded_inline;
        if uploaded_to_cas || embedded_inline {
            material.filename = filename;
        } else {
            material.value = filename;
        }
        Ok(Some(material))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "5555555555555555555555555555555555555555555555555555555555555555";

    fn normalize(descriptor: &str) -> Option<Material> {
        let descriptor = descriptor.replace("SHA", SHA);
        let wire: Wire<'_> = serde_json::from_str(&descriptor).unwrap();
        wire.normalize().unwrap()
    }

    #[test]
    fn a_string_is_its_content() {
        let note = normalize(
            r#"{"annotations":{"chainloop.material.name":"note","chainloop.material.type":"STRING"},"content":"aGVsbG8="}"#,
        );
        assert_eq!(note, Some(Material::string("note", "hello")));
    }

    #[test]
    fn an_image_is_its_repository() {
        let image = normalize(
            r#"{"name":"registry.example.org/shop","digest":{"sha256":"SHA"},"annotations":{"chainloop.material.name":"image","chainloop.material.type":"CONTAINER_IMAGE","chainloop.material.image.is_latest_tag":false}}"#,
        );
        let mut expected =
            Material::image("image", "registry.example.org/shop", SHA.parse().unwrap());
        expected.annotate("chainloop.material.image.is_latest_tag", "false");
        assert_eq!(image, Some(expected));
    }

    #[test]
    fn an_uploaded_file_has_a_name_and_no_value() {
        let sbom = normalize(
            r#"{"name":"shop.cdx.json","digest":{"sha256":"SHA"},"content":"","annotations":{"chainloop.material.name":"sbom","chainloop.material.type":"SBOM_CYCLONEDX_JSON","chainloop.material.cas":true}}"#,
        );
        let digest = SHA.parse().unwrap();
        let expected = Material::uploaded(
            "sbom",
            MaterialType::SBOM_CYCLONEDX_JSON,
            "shop.cdx.json",
            digest,
        );
        assert_eq!(sbom, Some(expected));
    }

    #[test]
    fn an_inline_file_brings_its_content() {
        let lint = normalize(
            r#"{"name":"lint.sarif","digest":{"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"content":"e30=","annotations":{"chainloop.material.name":"lint","chainloop.material.type":"SARIF","chainloop.material.cas.inline":true}}"#,
        );
        assert_eq!(
            lint,
            Some(Material::inline(
                "lint",
                MaterialType::SARIF,
                "lint.sarif",
                b"{}".to_vec()
            ))
        );
    }

    #[test]
    fn a_file_that_is_nowhere_has_no_content() {
        let file = normalize(r#"{"name":"a.zip","digest":{"sha256":"SHA"},"content":"e30=","annotations":{"chainloop.material.name":"a","chainloop.material.type":"ARTIFACT"}}"#).unwrap();
        assert_eq!(
            (&*file.value, &*file.filename, file.content),
            ("a.zip", "", None)
        );
    }

    #[test]
    fn a_descriptor_without_what_its_type_needs_is_dropped() {
        let named =
            r#""annotations":{"chainloop.material.name":"a","chainloop.material.type":"SARIF"}"#;
        for descriptor in [
            "{}".to_owned(),
            r#"{"name":"f","digest":{"sha256":"SHA"}}"#.to_owned(),
            r#"{"name":"f","digest":{"sha256":"SHA"},"annotations":{"chainloop.material.name":"a"}}"#.to_owned(),
            r#"{"name":"f","digest":{"sha256":"SHA"},"annotations":{"chainloop.material.type":"SARIF"}}"#.to_owned(),
            format!(r#"{{"name":"f",{named}}}"#),
            format!(r#"{{"name":"f","digest":{{"sha1":"SHA"}},{named}}}"#),
            format!(r#"{{"name":"f","digest":{{"sha256":"nonsense"}},{named}}}"#),
            format!(r#"{{"digest":{{"sha256":"SHA"}},{named}}}"#),
            format!(r#"{{"name":"f","digest":{{"sha256":"SHA"}},{}}}"#, named.replace("SARIF", "STRING")),
        ] {
            assert_eq!(normalize(&descriptor), None, "{descriptor}");
        }
    }

    #[test]
    fn content_that_is_not_base64_is_refused_by_name() {
        let descriptor = r#"{"content":"*","annotations":{"chainloop.material.name":"note","chainloop.material.type":"STRING"}}"#;
        let wire: Wire<'_> = serde_json::from_str(descriptor).unwrap();
        let error = wire.normalize().unwrap_err();
        assert_eq!(
            error.to_string(),
            "read the predicate: the content of material \"note\" is not base64"
        );
    }

    #[test]
    fn a_type_that_we_do_not_know_passes_through() {
        let unknown = MaterialType::from("NEXT_YEARS_SBOM");
        assert_eq!(
            serde_json::to_string(&unknown).unwrap(),
            "\"NEXT_YEARS_SBOM\""
        );
        assert_eq!(
            serde_json::from_str::<MaterialType>("\"SARIF\"").unwrap(),
            MaterialType::SARIF
        );
        assert_eq!(MaterialType::KNOWN.len(), 42);
    }
}
