//! Integrations: what can be registered.

use api::integrations::Integration;
use api::{Action, Code, Page, Problem};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config;
use crate::store::platform::Platform;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/integrations", Action::Follow, handler!(list))
            .for_restricted()
            .operation("listIntegrations", "List available integrations")
            .about("Sorted by ID.")
            .pages::<Integration>(),
        Route::get("/v1/integrations/{id}", Action::Follow, handler!(get))
            .for_restricted()
            .operation(
                "getIntegration",
                "Get an integration and the schemas of its inputs",
            )
            .answers::<Integration>(200, "The integration")
            .refuses(&[Code::IntegrationUnknown]),
    ]
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let request = call.request;
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let all = integrations::ALL.iter();
    let left = all.filter(|one| after.is_none_or(|after| after < one.id));
    let items = left.map(Integration::from).collect();
    let page = Page::first(items, limit, |last: &Integration| last.id.clone());
    Ok(Response::json(200, &page))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let id = call.parameter("id");
    let description = integrations::find(id)
        .ok_or_else(|| Problem::from(config::Error::NoIntegration(id.to_owned())))?;
    Ok(Response::json(200, &Integration::from(description)))
}
