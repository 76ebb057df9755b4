//! The API's functions, each with its routes. A route belongs to the function whose permissions it needs, and so not
//! always to that of its noun's other routes.

use super::{
    Description, Route, attachments, attestations, audit_log, deliveries, intakes, integrations,
    issuers, jobs, materials, organization, places, registrations, tokens, trust_policies,
    workflows,
};
use crate::store::platform::Platform;

pub type Routes<P, D> = Vec<Route<P, D>>;

/// Integrations, registrations and intakes: what has secrets.
pub fn registrations<P: Platform, D: Description>() -> Routes<P, D> {
    together([
        integrations::routes(),
        registrations::routes(),
        registrations::steering(),
        intakes::routes(),
    ])
}

/// Attachments, and what was delivered, looked for at third parties.
pub fn attachments<P: Platform, D: Description>() -> Routes<P, D> {
    together([attachments::routes(), deliveries::checks()])
}

/// Attestations and materials: accepted, and read.
pub fn attestations<P: Platform, D: Description>() -> Routes<P, D> {
    together([
        attestations::routes(),
        materials::routes(),
        intakes::accepting(),
    ])
}

/// Deliveries, where digests went, jobs and the audit log; and tests of a registration, whose checks would make the function that
/// accepts larger.
pub fn deliveries<P: Platform, D: Description>() -> Routes<P, D> {
    together([
        deliveries::routes(),
        registrations::tests(),
        places::routes(),
        jobs::routes(),
        audit_log::routes(),
    ])
}

/// The organization, its tokens, its workflows, and whom it trusts: signers, and issuers of JWTs.
pub fn organization<P: Platform, D: Description>() -> Routes<P, D> {
    together([
        organization::routes(),
        tokens::routes(),
        workflows::routes(),
        trust_policies::routes(),
        issuers::routes(),
    ])
}

fn together<P, D, const N: usize>(modules: [Routes<P, D>; N]) -> Routes<P, D> {
    modules.into_iter().flatten().collect()
}

/// All functions' names and routes.
pub fn all<P: Platform, D: Description>() -> [(&'static str, Routes<P, D>); 5] {
    [
        ("attachments", attachments()),
        ("attestations", attestations()),
        ("deliveries", deliveries()),
        ("organization", organization()),
        ("registrations", registrations()),
    ]
}
