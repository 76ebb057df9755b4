//! Outcomes of a delivery: which recipients have the mail, by this attempt and those before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::addresses::Address;
use super::reply::{Fate, Why};
use super::server::Server;
use crate::{Error, Kind, Outcome};

/// Outcomes of a recipient in a receipt.
const ACCEPTED: &str = "accepted";
const REFUSED: &str = "refused";
/// Nobody knows whether the mail arrived.
const UNKNOWN: &str = "unknown";

/// Bytes of a reply that a receipt keeps for each recipient: all receipts together have 8 KB.
const KEPT_BYTES: usize = 80;

/// Most recipients without the mail that a note names.
const NAMED: usize = 4;

/// Begin of the step that is kept when no reply came to a domain's mail; no domain has a space.
const UNANSWERED: &str = "unanswered ";

/// Outcome for each recipient, by this attempt and those before.
pub(super) struct Outcomes<'a> {
    server: &'a Server<'a>,
    progress: &'a BTreeMap<String, Value>,
    /// Receipts of those for whom it is over, by domain.
    settled: BTreeMap<String, Vec<Value>>,
    /// First error of each kind, the most telling last.
    refused: Option<Error>,
    deferred: Option<Error>,
    unanswered: Option<Error>,
    /// Error that ended the attempt early.
    pub(super) stopped: Option<Error>,
    /// The rest is for another attempt, for want of time.
    pub(super) is_cut: bool,
}

impl<'a> Outcomes<'a> {
    pub(super) fn new(server: &'a Server<'a>, progress: &'a BTreeMap<String, Value>) -> Self {
        let settled = progress.iter().filter_map(|(domain, receipt)| {
            let recipients = receipt["recipients"].as_array()?;
            Some((domain.clone(), recipients.clone()))
        });
        Self {
            server,
            progress,
            settled: settled.collect(),
            refused: None,
            deferred: None,
            unanswered: None,
            stopped: None,
            is_cut: false,
        }
    }

    /// Keeps those for whom it is not over.
    pub(super) fn keep_open(&self, domain: &str, recipients: &mut Vec<&Address>) {
        let settled = self.settled.get(domain).map(Vec::as_slice);
        recipients.retain(|recipient| {
            let fingerprint = recipient.fingerprint();
            let mut settled = settled.unwrap_or_default().iter();
            !settled.any(|one| one["fingerprint"] == fingerprint.as_str())
        });
    }

    /// Returns the steps that are to be kept: for whom it is over, and that nobody knows whether a mail arrived.
    pub(super) fn settle(
        &mut self,
        domain: &str,
        recipients: &[&Address],
        fates: Vec<Fate>,
    ) -> Vec<(String, Value)> {
        let unanswered = format!("{UNANSWERED}{domain}");
        let is_repeat = self.progress.contains_key(&unanswered);
        let mut steps = BTreeMap::new();
        for (recipient, fate) in recipients.iter().zip(fates) {
            let fate = match fate {
                Fate::Indeterminate(reason) if is_repeat => Fate::Lost(reason),
                fate => fate,
            };
            let settled = match &fate {
                Fate::Accepted(reply) => Some((ACCEPTED, reply.shown(KEPT_BYTES))),
                Fate::Refused(Why::Said(reply)) => Some((REFUSED, reply.shown(KEPT_BYTES))),
                Fate::Refused(why) => Some((REFUSED, why.to_string())),
                Fate::Lost(reason) => Some((UNKNOWN, (*reason).to_owned())),
                Fate::Indeterminate(_) => {
                    steps.insert(unanswered.clone(), json!(true));
                    None
                }
                Fate::Deferred(_) => None,
            };
            if let Some((outcome, reply)) = settled {
                let receipts = self.settled.entry(domain.to_owned()).or_default();
                receipts.push(json!({
                    "recipient": recipient.mask(),
                    "fingerprint": recipient.fingerprint(),
                    "outcome": outcome,
                    "reply": reply,
                }));
                steps.insert(domain.to_owned(), json!({ "recipients": receipts }));
            }
            let error = error(self.server, domain, recipient, &fate);
            let place = match fate {
                Fate::Accepted(_) => continue,
                Fate::Refused(_) | Fate::Lost(_) => &mut self.refused,
                Fate::Deferred(_) => &mut self.deferred,
                Fate::Indeterminate(_) => &mut self.unanswered,
            };
            *place = place.take().or(error);
        }
        steps.into_iter().collect()
    }

    fn accepted(&self) -> usize {
        let all = self.settled.values().flatten();
        all.filter(|one| one["outcome"] == ACCEPTED).count()
    }

    pub(super) fn outcome(self, message_id: &str) -> Result<Outcome, Error> {
        let (accepted, note) = (self.accepted(), self.note());
        let (stopped, for_good) = match self.stopped {
            Some(error) if !matches!(error.kind, Kind::Retryable { .. }) => (None, Some(error)),
            stopped => (stopped, None),
        };
        // First what another attempt does not change, then what somebody may have twice.
        let again = for_good.or(self.unanswered).or(stopped).or(self.deferred);
        if let Some(error) = again {
            return Err(error);
        }
        if self.is_cut {
            return Ok(Outcome::ContinueAfter {
                delay: Duration::from_secs(1),
                reason: format!("{} is slow; the other domains follow", self.server.place),
            });
        }
        if accepted == 0 {
            let again = || Error::permanent(format!("mail by {}: refused", self.server.place));
            return Err(self.refused.unwrap_or_else(again));
        }
        let is_repeat = self
            .progress
            .keys()
            .any(|step| step.starts_with(UNANSWERED));
        let domains = self
            .settled
            .into_iter()
            .map(|(domain, recipients)| (domain, json!({ "recipients": recipients })))
            .collect::<Map<_, _>>();
        let mut receipt = Map::from_iter([
            ("message_id".to_owned(), json!(message_id)),
            ("domains".to_owned(), Value::Object(domains)),
        ]);
        if is_repeat {
            receipt.insert("possibly_duplicated".to_owned(), json!(true));
        }
        Ok(match note {
            Some(note) => Outcome::PartlyDelivered { receipt, note },
            None => Outcome::Delivered(receipt),
        })
    }

    /// `accepted for 1 of 2 recipients; a…@example.org refused: 550 5.1.1 unknown`
    fn note(&self) -> Option<String> {
        let all = self.settled.values().flatten();
        let without: Vec<_> = all.filter(|one| one["outcome"] != ACCEPTED).collect();
        if without.is_empty() {
            return None;
        }
        let accepted = self.accepted();
        let count = accepted + without.len();
        let mut note = format!("accepted for {accepted} of {count} recipients");
        for one in without.iter().take(NAMED) {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            let [recipient, outcome, reply] = ["recipient", "outcome", "reply"].map(text);
            write!(note, "; {recipient} {outcome}: {reply}").expect("a string takes all");
        }
        if without.len() > NAMED {
            let more = without.len() - NAMED;
            write!(note, "; and {more} more").expect("a string takes all");
        }
        Some(note)
    }
}

/// Returns the reason why one recipient does not have the mail.
pub(super) fn error(
    server: &Server<'_>,
    domain: &str,
    recipient: &Address,
    fate: &Fate,
) -> Option<Error> {
    let doing = format!("mail {} by {}", recipient.mask(), server.place);
    let (kind, reason, answer) = match fate {
        Fate::Accepted(_) => return None,
        Fate::Refused(why) => (Kind::Permanent, why.to_string(), why.answer()),
        Fate::Deferred(why) => {
            let kind = Kind::Retryable { after: None };
            (kind, why.to_string(), why.answer())
        }
        Fate::Indeterminate(reason) => {
            let reason = format!("the mail for {domain} was sent, but {reason}");
            (Kind::Indeterminate, reason, None)
        }
        Fate::Lost(reason) => {
            let reason = format!(
                "the mail for {domain} was sent, but {reason}, for the second time: it may have arrived twice, once or not at all"
            );
            (Kind::Permanent, reason, None)
        }
    };
    let mut error = Error::new(kind, format!("{doing}: {reason}")).about(fate.about());
    error.answer = answer;
    Some(error)
}
