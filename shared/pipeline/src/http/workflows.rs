//! Workflows that attestations came from.

use api::workflows::ListedWorkflow;
use api::{Action, Page};
use attestation::Digest;

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::records::workflows;
use crate::store::platform::Platform;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/workflows", Action::Read, handler!(list))
            .for_restricted()
            .operation("listWorkflows", "List workflows")
            .about("Workflows from which attestations were accepted, in no particular order.")
            .pages::<ListedWorkflow>(),
    ]
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let is_one = |cursor: &str| cursor.parse::<Digest>().is_ok();
    let after = request.cursor(|cursor| is_one(cursor).then_some(cursor))?;
    let limit = request.limit()?;
    let (known, next) = workflows::list(scope, after, limit).await?;
    let own = |one: &workflows::WorkflowActivity| call.caller.is_for(&one.seen.workflow);
    let items = known.into_iter().filter(own);
    let items = items.map(ListedWorkflow::from).collect();
    Ok(Response::json(200, &Page { items, next }))
}

impl From<workflows::WorkflowActivity> for ListedWorkflow {
    fn from(known: workflows::WorkflowActivity) -> Self {
        Self {
            workflow: known.seen.workflow,
            first_seen_at: known.seen.first_seen_at,
            attested_at: known.attested_at,
            attachments: known.attachments,
        }
    }
}
