//! AWS settings from the environment, for the few commands that call AWS.

use crate::failure::Failure;

/// Returns the settings, in the given region or else in the environment's.
pub(crate) fn settings(table: &str, region: Option<&str>) -> anyhow::Result<aws::Settings> {
    let variable = |name: &str| match (name, region) {
        ("AWS_REGION", Some(region)) => Some(region.to_owned()),
        _ => std::env::var(name).ok(),
    };
    let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
    if !is_set("AWS_ACCESS_KEY_ID") || !is_set("AWS_SECRET_ACCESS_KEY") {
        return Err(Failure::usage("no AWS credentials found")
            .advice("Run `eval \"$(aws configure export-credentials --format env)\"`.")
            .into());
    }
    aws::Settings::of_table(table.to_owned(), variable).map_err(|error| {
        Failure::usage(error.to_string())
            .advice("`make local` and `make deploy` set the variables, and run this command.")
            .into()
    })
}
