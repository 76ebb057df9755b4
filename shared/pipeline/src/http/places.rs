//! Places that have evidence of a digest.

use api::places::Place;
use api::{Action, Code, Page, Problem};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use super::{deliveries, materials};
use crate::engine::accept::DIGESTS;
use crate::engine::places::{self, Cursor};
use crate::store::platform::Platform;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/digests/{digest}/places", Action::Read, handler!(list))
            .for_restricted()
            .operation("listPlaces", "List the places that have evidence of a digest")
            .about(
                "Deliveries of each attestation that has the digest, of its envelope or of the bytes as received, or \
                 that names it as a subject's or a material's. Newest attestation first, then newest delivery first. A \
                 page may be empty and have a `next`.",
            )
            .pages::<Place>()
            .refuses(&[Code::InvalidInputs]),
    ]
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    let digest = materials::digest(call)?;
    let cursor = request.cursor(Cursor::parse)?;
    let (may_see, limit) = (|workflow: &_| caller.is_for(workflow), request.limit()?);
    let found = places::find(scope, &digest, may_see, cursor.as_ref(), limit).await?;
    let unknown = || {
        let detail = format!(
            "no attestation has or names {digest}: it is found by its own digests and by the first {DIGESTS} of its \
             subjects and materials"
        );
        Problem::new(Code::NotFound, detail)
    };
    let places::Places { places, next } = found.ok_or_else(unknown)?;
    let (rows, in_receipt): (Vec<_>, Vec<_>) = places
        .into_iter()
        .map(|place| (place.delivery, place.is_in_receipt))
        .unzip();
    let shown = deliveries::listed(call, rows).await.into_iter();
    let items = shown.zip(in_receipt).map(|(delivery, in_receipt)| Place {
        delivery,
        in_receipt,
    });
    let (items, next) = (items.collect(), next.map(|next| next.to_string()));
    Ok(Response::json(200, &Page::<Place> { items, next }))
}
