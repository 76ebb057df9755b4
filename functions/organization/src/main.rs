//! The operator's API: whose token it is, the organization's tokens, and the workflows that it has seen.

use pipeline::api::organization::{ROUTES, function};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(ROUTES, function).await
}
