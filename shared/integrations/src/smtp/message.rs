//! A mail's bytes: what an attestation's words become between the servers.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use attestation::Digest;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};

use super::{Address, Registration, Smtp};
use crate::summary::{Detail, Summary};
use crate::{Delivery, Error, Integration, Template, Workflow, facts};

/// More of a text than this nobody reads in a mail.
const TEXT_BYTES: usize = 64 * 1024;
const SUBJECT_BYTES: usize = 1024;

/// Returns the mail of a delivery.
pub(super) fn of(delivery: &Delivery<'_, Smtp>, unix_secs: u64) -> Result<Vec<u8>, Error> {
    let (registration, attachment) = (delivery.registration, delivery.attachment);
    let facts = facts(delivery.pushed, None);
    let render = |template: &Template, what: &str, most: usize| {
        template
            .render(&facts, most)
            .map_err(|reason| Error::permanent(format!("write the mail's {what}: {reason}")))
    };
    let detail = Detail {
        inline_content: attachment.inline_content,
        emails: attachment.emails,
    };
    let summary = Summary::of(delivery.pushed, &detail);
    let subject = match &attachment.subject {
        Some(template) => render(template, "subject", SUBJECT_BYTES)?,
        // `[chainloop] New attestation of shop/nightly-build (Blocked: 1 violation in 2 policy evaluations)`
        None => format!("[chainloop] {} ({})", summary.title, summary.verdict),
    };
    let (text, links) = match &attachment.template {
        Some(template) => (render(template, "text", TEXT_BYTES)?, String::new()),
        None => (summary.text(TEXT_BYTES), links(&summary)),
    };
    let list = list(delivery.pushed.workflow);
    let letter = Letter {
        id: &id(delivery.id, &registration.from),
        unix_secs,
        from: &registration.from,
        to: registration.to.as_slice(),
        cc: attachment.copies(),
        subject: &subject,
        html: &format!("{links}<pre>{}</pre>", escape(&text)),
        text: &text,
        list: list.as_deref(),
    };
    letter.bytes()
}

fn links(summary: &Summary) -> String {
    let page = summary.page.as_deref();
    let page = page.map(|page| (page, "View the attestation"));
    let links = summary.links.iter();
    let links = links.map(|link| (link.url.as_str(), link.label));
    let paragraph = |(url, label)| {
        let (url, label) = (escape(url), escape(label));
        format!("<p><a href=\"{url}\">{label}</a></p>\n")
    };
    links.chain(page).map(paragraph).collect()
}

/// Returns the mail of a check, as Chainloop sends one for each registration.
pub(super) fn test(registration: &Registration, unix_secs: u64) -> Result<Vec<u8>, Error> {
    let text = format!(
        "This address has been registered to be mailed a summary of attestations.\n\n\
         Integration: {} {}\nServer: {}\nFrom: {}\n",
        Smtp::ID,
        Smtp::VERSION,
        registration.place(),
        registration.from.as_str(),
    );
    let letter = Letter {
        id: &format!("<test-{unix_secs}@{}>", registration.from.domain()),
        unix_secs,
        from: &registration.from,
        to: registration.to.as_slice(),
        cc: &[],
        subject: "[chainloop] New SMTP integration added!",
        html: &format!("<pre>{}</pre>", escape(&text)),
        text: &text,
        list: None,
    };
    letter.bytes()
}

/// One mail, the same for all who receive it.
#[derive(Debug)]
struct Letter<'a> {
    id: &'a str,
    unix_secs: u64,
    from: &'a Address,
    to: &'a [Address],
    cc: &'a [Address],
    subject: &'a str,
    text: &'a str,
    /// Without what stands around the body of a page.
    html: &'a str,
    /// By which a mailbox can sort it: the workflow.
    list: Option<&'a str>,
}

/// Headers that tell other mail programs that no person wrote this mail or waits for a reply.
const NO_PERSON: &[(HeaderName, &str)] = &[
    (
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated",
    ),
    (
        HeaderName::new_from_ascii_str("X-Auto-Response-Suppress"),
        "All",
    ),
];
const LIST_ID: HeaderName = HeaderName::new_from_ascii_str("List-Id");

impl Letter<'_> {
    /// Returns the mail in lines that every server takes; in ASCII, unless an address is not.
    fn bytes(&self) -> Result<Vec<u8>, Error> {
        let mailbox = |address: &Address| Mailbox::new(None, address.parsed().clone());
        let mut message = Message::builder()
            .from(mailbox(self.from))
            .date(UNIX_EPOCH + Duration::from_secs(self.unix_secs))
            .message_id(Some(self.id.to_owned()))
            .subject(subject(self.subject));
        for to in self.to {
            message = message.to(mailbox(to));
        }
        for cc in self.cc {
            message = message.cc(mailbox(cc));
        }
        for (name, value) in NO_PERSON {
            message = message.raw_header(HeaderValue::new(name.clone(), (*value).to_owned()));
        }
        if let Some(list) = self.list {
            message = message.raw_header(HeaderValue::new(LIST_ID, list.to_owned()));
        }
        let page = format!(
            "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{}\n</body></html>\n",
            self.html
        );
        // Chosen by the mail's id, so that a preview has the bytes that are sent.
        let boundary = Digest::of(self.id.as_bytes()).hex()[..32].to_owned();
        let body = MultiPart::alternative()
            .boundary(boundary)
            .singlepart(SinglePart::plain(lines(self.text)))
            .singlepart(SinglePart::html(lines(&page)));
        message
            .multipart(body)
            .map(|message| message.formatted())
            .map_err(|error| Error::permanent("write the mail").source(error))
    }
}

/// The longest subject, in characters.
const SUBJECT: usize = 320;

/// One line, which does not decode to another one.
fn subject(text: &str) -> String {
    let text = crate::text::line(text, SUBJECT, true);
    // An encoded word (RFC 2047) that we did not write could hold whatever it likes.
    text.replace("=?", "= ?")
}

/// Its lines end alike, so that no end of a mail stands among them.
fn lines(text: &str) -> String {
    let mut lines = text.replace("\r\n", "\n").replace(['\r', '\0'], " ");
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

/// As text that holds no markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// `<nightly-build.shop.chainloop-integrations.invalid>`: no host of anybody's.
fn list(workflow: &Workflow) -> Option<String> {
    let mut list = "<".to_owned();
    for part in [&workflow.name, &workflow.project] {
        let label = label(part);
        if !label.is_empty() {
            write!(list, "{label}.").expect("a string takes all");
        }
    }
    list.push_str("chainloop-integrations.invalid>");
    (list.matches('.').count() > 1).then_some(list)
}

fn label(text: &str) -> String {
    let mut label = String::new();
    for letter in text.chars().take(256) {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => label.push(letter),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    label.truncate(63);
    label.trim_end_matches('-').to_owned()
}

/// Made of the delivery's id alone: the same for each attempt, so that who receives two sees one.
pub(super) fn id(delivery: &str, from: &Address) -> String {
    let mut id: String = delivery
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    id.truncate(64);
    format!("<{id}.attestation@{}>", from.domain())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        Address::try_from(text).unwrap()
    }

    fn bytes(text: &str, subject: &str) -> String {
        let (from, to, cc) = (
            address("ci@example.org"),
            [address("a@example.org"), address("b@example.com")],
            [address("c@example.net")],
        );
        let letter = Letter {
            id: "<5d1e.attestation@example.org>",
            unix_secs: 1_767_323_400,
            from: &from,
            to: &to,
            cc: &cc,
            subject,
            text,
            html: &format!("<pre>{}</pre>", escape(text)),
            list: Some("<nightly-build.shop.chainloop-integrations.invalid>"),
        };
        String::from_utf8(letter.bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_mail_is_written_like_this() {
        crate::fixture::compare(
            "smtp-message.eml",
            &bytes("A line & <b>another</b>\nDépôt\n", "Büro: passed"),
        );
    }

    /// Splits a mail into its header fields, unfolded and by name, and its body.
    fn read(mail: &str) -> (Vec<(String, String)>, &str) {
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        let head = head.replace("\r\n ", " ");
        let fields = head.split("\r\n").map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        (fields.collect(), body)
    }

    const FIELDS: [&str; 10] = [
        "From",
        "Date",
        "Message-ID",
        "Subject",
        "To",
        "Cc",
        "Auto-Submitted",
        "X-Auto-Response-Suppress",
        "List-Id",
        "MIME-Version",
    ];

    fn check(mail: &str) {
        assert!(mail.is_ascii());
        assert!(!mail.replace("\r\n", "").contains(['\r', '\n', '\0']));
        for line in mail.split("\r\n") {
            assert!(line.len() <= 998, "{line}");
        }
        let (fields, _) = read(mail);
        let mut names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.pop(), Some("Content-Type"), "{mail}");
        assert_eq!(names, FIELDS, "{mail}");
        let (_, kind) = fields.last().unwrap();
        let boundary = kind.split('"').nth(1).unwrap();
        // Two that begin a part, and one that ends them.
        let boundaries = mail.matches(&format!("\r\n--{boundary}")).count();
        assert_eq!(boundaries, 3, "{mail}");
    }

    #[test]
    fn no_text_ends_the_mail_or_adds_a_field() {
        for text in [
            "--",
            "\r\n.\r\n",
            "\n.\n",
            "\r.\r",
            ".",
            "a\0b",
            "Bcc: canary@example.org\r\n\r\nbody",
            "=?utf-8?q?canary=0D=0ABcc:_a=40example.org?=",
            &"x".repeat(3000),
            &"ä".repeat(3000),
            "\u{2028}\u{85}\u{b}\u{c}",
            "",
        ] {
            let mail = bytes(text, text);
            check(&mail);
            let (fields, _) = read(&mail);
            let subject = &fields[3].1;
            assert!(!subject.starts_with("=?utf-8?q?canary"), "{subject}");
        }
    }

    proptest! {
        #[test]
        fn any_text_stays_inside_its_mail(text in "\\PC*|[\\x00-\\x7f]*", subject in "\\PC*|[\\x00-\\x7f]*") {
            check(&bytes(&text, &subject));
        }

        #[test]
        fn escaped_text_holds_no_markup(text in "\\PC*") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }

    #[test]
    fn a_list_is_named_by_its_workflow_in_letters_of_a_host() {
        let list = |project: &str, name: &str| {
            list(&Workflow {
                project: project.into(),
                name: name.into(),
                ..Workflow::default()
            })
        };
        assert_eq!(
            list("shop", "Nightly build!").unwrap(),
            "<nightly-build.shop.chainloop-integrations.invalid>"
        );
        assert_eq!(
            list("", "a\r\nb: <c>").unwrap(),
            "<a-b-c.chainloop-integrations.invalid>"
        );
        assert_eq!(list("", "€"), None);
        assert!(list(&"p".repeat(500), &"n".repeat(500)).unwrap().len() < 200);
    }

    #[test]
    fn an_id_is_made_of_the_delivery_alone() {
        let from = address("alice@example.org");
        assert_eq!(id("sha256:5d1e", &from), "<5d1e.attestation@example.org>");
        assert!(!id("sha256:5d1e", &from).contains("alice"));
        assert_eq!(id("a>\r\nb", &from), "<ab.attestation@example.org>");
    }
}
