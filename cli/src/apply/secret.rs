//! Sources of secrets: the configuration file names only the place to read each from.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::account;

/// As much as Secrets Manager takes.
const SECRET_MOST_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Env(String),
    File {
        path: PathBuf,
        /// As it stands in the file.
        written: String,
    },
    Secret(Arn),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(formatter, "env {name}"),
            Self::File { written, .. } => write!(formatter, "file {written}"),
            Self::Secret(arn) => write!(formatter, "secret {arn}"),
        }
    }
}

/// As it is written in a file.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Env(name) => json!({ "env": name }),
            Self::File { written, .. } => json!({ "file": written }),
            Self::Secret(arn) => json!({ "secret": arn.to_string() }),
        }
        .serialize(serializer)
    }
}

/// A secret in Secrets Manager, or one value of the JSON object in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arn {
    /// Without the key.
    secret: String,
    region: String,
    key: Option<String>,
}

impl FromStr for Arn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (arn, key) = match text.split_once('#') {
            Some((arn, key)) if !key.is_empty() => (arn, Some(key.to_owned())),
            Some(_) => return Err(()),
            None => (text, None),
        };
        let parts: Vec<&str> = arn.splitn(7, ':').collect();
        match parts[..] {
            [
                "arn",
                partition,
                "secretsmanager",
                region,
                account,
                "secret",
                name,
            ] if ![partition, region, account, name].contains(&"") => Ok(Self {
                secret: arn.to_owned(),
                region: region.to_owned(),
                key,
            }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.secret)?;
        match &self.key {
            Some(key) => write!(formatter, "#{key}"),
            None => Ok(()),
        }
    }
}

/// Reads a secret; the error holds nothing of it.
pub(super) fn read(source: &Source) -> Result<String, String> {
    match source {
        Source::Env(name) => match std::env::var(name) {
            Ok(text) if text.is_empty() => Err(format!("the environment variable {name} is empty")),
            Ok(text) => Ok(text),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {name} is not set"))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {name} is not UTF-8"))
            }
        },
        Source::File { path, written } => {
            file(path).map_err(|error| format!("failed to read the file {written}: {error}"))
        }
        Source::Secret(arn) => {
            let why = |why: String| format!("failed to read the secret {}: {why}", arn.secret);
            let text = account::read_secret(&arn.region, &arn.secret)
                .map_err(|error| why(crate::failure::text(&error)))?;
            match &arn.key {
                None => Ok(text),
                Some(key) => value(&text, key).map_err(|text| why(text.to_owned())),
            }
        }
    }
}

fn file(path: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(SECRET_MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_MOST_BYTES {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    // As options do it: editors end a file with a line break, and a password has none.
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(text.to_owned())
}

/// One value of a JSON object.
fn value(text: &str, key: &str) -> Result<String, &'static str> {
    let Ok(Value::Object(mut object)) = serde_json::from_str(text) else {
        return Err("it is not a JSON object, so it has no keys");
    };
    match object.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err("the value of that key is not a string"),
        None => Err("it has no such key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/hook-a1b2c3";

    #[test]
    fn an_arn_may_name_a_value_of_a_json_object() {
        let arn: Arn = ARN.parse().unwrap();
        assert_eq!(
            (arn.region.as_str(), arn.key.as_deref()),
            ("eu-central-1", None)
        );
        let arn: Arn = format!("{ARN}#user:name").parse().unwrap();
        assert_eq!(arn.key.as_deref(), Some("user:name"));
        assert_eq!(arn.to_string(), format!("{ARN}#user:name"));
        for text in [
            "canary",
            "arn:aws:s3:::bucket",
            "arn:aws:secretsmanager::123456789012:secret:x",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:",
            &format!("{ARN}#"),
        ] {
            assert!(text.parse::<Arn>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_is_taken_from_a_json_object_and_nothing_else() {
        let text = r#"{"user": "ci", "port": 25, "list": [1], "none": null}"#;
        assert_eq!(value(text, "user"), Ok("ci".to_owned()));
        assert_eq!(value(text, "port"), Ok("25".to_owned()));
        for (text, key) in [
            (text, "list"),
            (text, "none"),
            (text, "canary"),
            ("canary", "user"),
        ] {
            let error = value(text, key).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_without_the_line_break_at_its_end() {
        let path = std::env::temp_dir().join(format!("chainloop-secret-{}", std::process::id()));
        let source = Source::File {
            path: path.clone(),
            written: "key".into(),
        };
        std::fs::write(&path, "from file\r\n").unwrap();
        assert_eq!(read(&source).unwrap(), "from file");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(
            read(&source).unwrap_err(),
            "failed to read the file key: it is empty"
        );
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(read(&source).unwrap_err().ends_with("larger than 64 KiB"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&source).is_err());
    }
}
