//! The audit log.

use api::audit_log::Entry;
use api::{Action, Page, Problem};
use serde_json::json;

use super::jobs::id_of_time;
use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::records::audit_log;
use crate::store::platform::Platform;
use crate::store::rows;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/audit-log", Action::Read, handler!(list))
            .operation("listAuditLog", "List a day's entries of the audit log")
            .about("Newest first.")
            .query(
                "day",
                "A day in UTC, as 2026-01-31; default: today.",
                || json!({ "type": "string", "format": "date" }),
            )
            .pages::<Entry>(),
    ]
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let day = match request.query("day") {
        None => scope.platform.now(),
        Some(day) => format!("{day}T00:00:00Z")
            .parse()
            .map_err(|_| Problem::field("day", "must be a day of UTC, as 2026-01-31"))?,
    };
    let (limit, before) = (request.limit()?, request.cursor(id_of_time)?);
    let entries = audit_log::entries(scope, day, before, limit);
    let (rows, next) = entries.await?;
    let items = rows.into_iter().map(Entry::from).collect();
    Ok(Response::json(200, &Page::<Entry> { items, next }))
}

impl From<rows::AuditEntry> for Entry {
    fn from(row: rows::AuditEntry) -> Self {
        Self {
            id: row.id,
            action: row.action,
            subject: row.subject,
            subject_id: row.subject_id,
            detail: row.detail,
            by: row.by,
            token: row.token,
            client: row.client,
            created_at: row.created_at,
        }
    }
}
