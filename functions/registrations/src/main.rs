//! The operator's API: what is available and what is registered.

use pipeline::api::registrations::{ROUTES, function};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(ROUTES, function).await
}
