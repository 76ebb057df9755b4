//! The in-toto statement: what is attested, and by which kind of predicate.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json::{Object, Objects, Strings, Text, owned};
use crate::scan::{self, Unfit};
use crate::{Error, MAX_DEPTH, MAX_ENTRIES, MAX_SUBJECTS, Predicate, predicate};

/// The predicate that this crate reads. The one before it, v0.1, went out of use in 2023 and is carried
/// like any other type.
pub const CHAINLOOP_PREDICATE_TYPE: &str = "chainloop.dev/attestation/v0.2";

const STATEMENT_TYPES: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];

/// A statement about subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    pub subjects: Vec<Subject>,
    pub predicate_type: String,
    /// Predicate of type [`CHAINLOOP_PREDICATE_TYPE`]; others are accepted unread.
    pub predicate: Option<Predicate>,
}

/// Subject of a statement. Chainloop lists the workflow first, then the commit, then the build's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub name: String,
    /// Algorithm to hexadecimal digest. Any algorithm: `git.head` has `sha1`.
    pub digests: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

// Unknown fields are ignored here and in the predicate, as in-toto asks; Chainloop's own reader refuses
// some. Both of its spellings are read.
#[derive(Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
struct Wire<'a, P> {
    #[serde(borrow, rename = "_type", alias = "type")]
    statement_type: Option<Text<'a>>,
    subject: Option<Objects<WireSubject, MAX_SUBJECTS>>,
    #[serde(borrow, rename = "predicateType", alias = "predicate_type")]
    predicate_type: Option<Text<'a>>,
    predicate: Option<P>,
}

#[derive(Deserialize)]
struct WireSubject {
    name: Option<String>,
    digest: Option<Strings>,
    annotations: Option<Strings>,
}

impl Statement {
    pub(crate) fn parse(payload: &[u8]) -> Result<Statement, Error> {
        let entries = scan::check(payload, MAX_DEPTH).map_err(|unfit| match unfit {
            Unfit::TooDeep => Error::TooDeep("the payload"),
            Unfit::NotUtf8 => Error::StatementInvalid("it is not UTF-8".to_owned()),
        })?;
        let is_crowded = entries > MAX_ENTRIES;
        if is_crowded {
            Parts::of(payload)?.check()?;
        }
        // Which predicate it is may stand after it. Guessing that it is Chainloop's saves a pass over it;
        // where the guess fails, the second reading knows whether that is an error, and whose.
        // Not where most of it is something else, which would be read as Chainloop's.
        if !is_crowded
            && let Ok(Object(wire)) = serde_json::from_slice::<Object<Wire<'_, Object<_>>>>(payload)
        {
            return Statement::from_wire(wire, |Object(predicate)| Predicate::from_wire(predicate));
        }
        let Object(wire) = serde_json::from_slice::<Object<Wire<'_, &RawValue>>>(payload)
            .map_err(|error| Error::of_json(&error, Error::StatementInvalid))?;
        Statement::from_wire(wire, |predicate| Predicate::parse(predicate.get()))
    }

    fn from_wire<P>(
        wire: Wire<'_, P>,
        read: impl FnOnce(P) -> Result<Predicate, Error>,
    ) -> Result<Statement, Error> {
        let missing = |what| Err(Error::StatementInvalid(format!("it has no {what}")));
        match wire.statement_type.as_deref() {
            None => return missing("`_type`"),
            Some(known) if STATEMENT_TYPES.contains(&known) => {}
            Some(unknown) => {
                return Err(Error::StatementTypeUnknown(crate::error::clip(unknown)));
            }
        }
        let predicate_type = owned(wire.predicate_type);
        if predicate_type.is_empty() {
            return missing("`predicateType`");
        }
        let Some(subjects) = wire.subject.filter(|subjects| subjects.count > 0) else {
            return missing("subject");
        };
        if subjects.count > MAX_SUBJECTS {
            return Err(Error::TooManySubjects(subjects.count));
        }
        let predicate = match wire.predicate {
            _ if predicate_type != CHAINLOOP_PREDICATE_TYPE => None,
            Some(predicate) => Some(read(predicate)?),
            None => return Err(Error::PredicateInvalid("it is missing".to_owned())),
        };
        Ok(Statement {
            subjects: subjects.items.into_iter().map(Subject::from).collect(),
            predicate_type,
            predicate,
        })
    }
}

/// The parts of a statement that may have many entries.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow, rename = "predicateType", alias = "predicate_type")]
    predicate_type: Option<Text<'a>>,
    #[serde(borrow)]
    predicate: Option<&'a RawValue>,
}

impl Parts<'_> {
    fn of(payload: &[u8]) -> Result<Parts<'_>, Error> {
        let Object(parts) = serde_json::from_slice(payload)
            .map_err(|error| Error::of_json(&error, Error::StatementInvalid))?;
        Ok(parts)
    }

    /// Refuses more entries than may be kept. Predicates of others are not read, and need no limit.
    fn check(&self) -> Result<(), Error> {
        let subject = self.subject.map_or("[]", RawValue::get);
        let subjects: Objects<IgnoredAny, 0> = serde_json::from_str(subject)
            .map_err(|error| Error::of_json(&error, Error::StatementInvalid))?;
        if subjects.count > MAX_SUBJECTS {
            return Err(Error::TooManySubjects(subjects.count));
        }
        let mut kept = scan::entries(subject);
        if self.predicate_type.as_deref() == Some(CHAINLOOP_PREDICATE_TYPE) {
            kept += predicate::entries(self.predicate.map_or("{}", RawValue::get));
        }
        if kept > MAX_ENTRIES {
            return Err(Error::TooManyEntries(kept));
        }
        Ok(())
    }
}

impl From<WireSubject> for Subject {
    fn from(wire: WireSubject) -> Subject {
        Subject {
            name: wire.name.unwrap_or_default(),
            digests: wire.digest.unwrap_or_default().0,
            annotations: wire.annotations.unwrap_or_default().0,
        }
    }
}
