//! Routes. Each is declared once, with its handler: the router, the audit log, idempotency and the API's description
//! follow from the declaration.

use api::{Action, Code, Page};
use futures_util::future::LocalBoxFuture;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::request::{Answer, Call, Parameters};

/// Treatment of a route by the audit log. A request that is refused, or that repeats another, leaves no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// One entry with this action, unless the request turns out to change nothing.
    As(&'static str),
    /// No entry, for this reason.
    Not(&'static str),
}

/// A method and a path, its permission, and its handler. `D` is the route's [description](Description).
pub struct Route<P, D = ()> {
    pub method: &'static str,
    /// A template, as `/v1/deliveries/{delivery}`.
    pub path: &'static str,
    pub action: Action,
    pub audited: Audited,
    /// Heeds an `Idempotency-Key`: for routes that create something without a name of
    /// its own, begin a job, or change something only as it was read. Not for those that answer with a token, which
    /// must not be kept.
    pub is_keyed: bool,
    /// Takes tokens that are restricted to workflows: its handler shows and changes nothing of others.
    pub is_for_restricted: bool,
    pub description: D,
    pub(super) handler: Handler<P>,
}

/// Answers a route.
pub type Handler<P> = for<'a> fn(Call<'a, P>) -> LocalBoxFuture<'a, Answer>;

/// The handler that a named function is. Boxed: one inside the other, futures are too deep for the compiler.
macro_rules! handler {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}

pub(super) use handler;

/// Contents of the API's description of a route. A function that serves needs none: it declares its routes with `()`,
/// and so carries no schemas of its responses.
pub trait Description: Default {
    fn operation(&mut self, _id: &'static str, _summary: &'static str) {}
    fn about(&mut self, _sentences: &'static str) {}
    fn keyed(&mut self) {}
    fn body<T: JsonSchema>(&mut self, _is_required: bool) {}
    fn answers<T: JsonSchema>(&mut self, _status: u16, _description: &'static str) {}
    fn query(&mut self, _name: &'static str, _description: &'static str, _schema: fn() -> Value) {}
    fn tagged(&mut self) {}
    fn conditional(&mut self) {}
    fn refuses(&mut self, _codes: &[Code]) {}
    fn refuses_attestations(&mut self) {}
    fn never_refuses(&mut self, _code: Code) {}
}

impl Description for () {}

/// Reason why most routes leave no audit entry.
const READS: &str = "it changes nothing, and shows what its role may see";
/// A route that changes something gives its action or a reason; a test finds those that give neither.
const UNSAID: &str = "";

impl<P, D: Description> Route<P, D> {
    fn new(
        (method, path): (&'static str, &'static str),
        action: Action,
        audited: Audited,
        handler: Handler<P>,
    ) -> Self {
        Self {
            method,
            path,
            action,
            audited,
            is_keyed: false,
            is_for_restricted: false,
            description: D::default(),
            handler,
        }
    }

    /// A route that reads. It is not audited unless it says so.
    pub fn get(path: &'static str, action: Action, handler: Handler<P>) -> Self {
        Self::new(("GET", path), action, Audited::Not(READS), handler)
    }

    pub fn post(path: &'static str, action: Action, handler: Handler<P>) -> Self {
        Self::new(("POST", path), action, Audited::Not(UNSAID), handler)
    }

    pub fn put(path: &'static str, action: Action, handler: Handler<P>) -> Self {
        Self::new(("PUT", path), action, Audited::Not(UNSAID), handler)
    }

    pub fn patch(path: &'static str, action: Action, handler: Handler<P>) -> Self {
        Self::new(("PATCH", path), action, Audited::Not(UNSAID), handler)
    }

    pub fn delete(path: &'static str, action: Action, handler: Handler<P>) -> Self {
        Self::new(("DELETE", path), action, Audited::Not(UNSAID), handler)
    }

    /// Leaves an entry with this action in the audit log.
    #[must_use]
    pub fn audited(mut self, action: &'static str) -> Self {
        self.audited = Audited::As(action);
        self
    }

    /// Leaves no entry in the audit log, for this reason.
    #[must_use]
    pub fn unaudited(mut self, reason: &'static str) -> Self {
        self.audited = Audited::Not(reason);
        self
    }

    /// Heeds an `Idempotency-Key`.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        self.is_keyed = true;
        self.describe(D::keyed)
    }

    /// Takes tokens that are restricted to workflows too.
    #[must_use]
    pub fn for_restricted(mut self) -> Self {
        self.is_for_restricted = true;
        self
    }

    fn describe(mut self, describe: impl FnOnce(&mut D)) -> Self {
        describe(&mut self.description);
        self
    }

    /// The operation's ID and summary.
    #[must_use]
    pub fn operation(self, id: &'static str, summary: &'static str) -> Self {
        self.describe(|one| one.operation(id, summary))
    }

    /// Details, in whole sentences.
    #[must_use]
    pub fn about(self, sentences: &'static str) -> Self {
        self.describe(|one| one.about(sentences))
    }

    /// Takes a JSON body.
    #[must_use]
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.describe(|one| one.body::<T>(true))
    }

    /// Takes a JSON body that may be left out.
    #[must_use]
    pub fn may_take<T: JsonSchema>(self) -> Self {
        self.describe(|one| one.body::<T>(false))
    }

    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: u16, description: &'static str) -> Self {
        self.describe(|one| one.answers::<T>(status, description))
    }

    /// Answers a list, a page at a time.
    #[must_use]
    pub fn pages<T: JsonSchema>(self) -> Self {
        self.query(
            "limit",
            "Maximum number of items of the page.",
            || json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 50 }),
        )
        .query(
            "cursor",
            "The `next` of the page before; without it the list begins.",
            || json!({ "type": "string" }),
        )
        .answers::<Page<T>>(200, "A page of the list")
        .refuses(&[Code::BadCursor])
    }

    #[must_use]
    pub fn query(
        self,
        name: &'static str,
        description: &'static str,
        schema: fn() -> Value,
    ) -> Self {
        self.describe(|one| one.query(name, description, schema))
    }

    /// Answers a workflow's things alone, if the query names one.
    #[must_use]
    pub fn of_workflow(self) -> Self {
        self.query(
            "workflow",
            "A workflow: `project/name`, or its name alone with `project`.",
            text,
        )
        .query("project", PROJECT, text)
    }

    /// Answers with an `ETag`.
    #[must_use]
    pub fn tagged(self) -> Self {
        self.describe(D::tagged)
    }

    /// Heeds `If-Match`.
    #[must_use]
    pub fn conditional(self) -> Self {
        self.describe(D::conditional)
    }

    /// Refuses requests with these problems, besides those that follow from the rest.
    #[must_use]
    pub fn refuses(self, codes: &[Code]) -> Self {
        self.describe(|one| one.refuses(codes))
    }

    /// Refuses attestations that cannot be accepted, for all of the reasons that there are.
    #[must_use]
    pub fn refuses_attestations(self) -> Self {
        self.describe(D::refuses_attestations)
    }

    /// Never refuses with a problem that would follow from the rest.
    #[must_use]
    pub fn never_refuses(self, code: Code) -> Self {
        self.describe(|one| one.never_refuses(code))
    }
}

pub(super) const PROJECT: &str = "The workflow's project.";

/// The schema of a text that is not empty, as a query has it.
pub(super) fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 512 })
}

pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

impl<P, D> Route<P, D> {
    /// The method and the template of the path, as `GET /v1/deliveries/{delivery}`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Matches a request's path.
    pub fn parameters(&self, path: &str) -> Option<Parameters> {
        let (mut own, mut parts) = (self.path.split('/'), path.split('/'));
        let mut found = Parameters::new();
        loop {
            let (own, part) = match (own.next(), parts.next()) {
                (Some(own), Some(part)) => (own, part),
                (None, None) => return Some(found),
                _ => return None,
            };
            match own.strip_prefix('{').and_then(|own| own.strip_suffix('}')) {
                Some(name) if !part.is_empty() => {
                    found.insert(
                        name,
                        percent_encoding::percent_decode_str(part)
                            .decode_utf8()
                            .ok()?
                            .into_owned(),
                    );
                }
                None if own == part => {}
                _ => return None,
            }
        }
    }
}
