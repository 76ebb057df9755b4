//! Spans of traces that somebody named, of the invocation that is under way.

use std::cell::RefCell;
use std::rc::Rc;

use api::{Timestamp, Trace};
use serde_json::Value;

/// Part of a trace: a request that was answered, or an attempt to deliver.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace, and this span in it.
    pub trace: Trace,
    /// The trace, and the span that asked for this one.
    pub parent: Trace,
    pub name: String,
    pub kind: Kind,
    pub began_at: Timestamp,
    pub ended_at: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answered a request.
    Server,
    /// Took a message from a queue.
    Consumer,
}

/// Spans that wait for their export; none where nothing exports them.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Rc<RefCell<Vec<Span>>>>);

impl Spans {
    pub fn exported() -> Self {
        Self(Some(Rc::default()))
    }

    /// Reports whether spans of this trace are exported: whoever began it decides that as well.
    pub(crate) fn wants(&self, trace: &Trace) -> bool {
        self.0.is_some() && trace.is_recorded()
    }

    pub(crate) fn add(&self, span: Span) {
        if let Some(spans) = &self.0 {
            spans.borrow_mut().push(span);
        }
    }

    pub fn take(&self) -> Vec<Span> {
        self.0
            .as_ref()
            .map(|spans| spans.take())
            .unwrap_or_default()
    }
}
