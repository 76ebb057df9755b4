//! The operator's API: what became of each delivery.

use pipeline::api::deliveries::{ROUTES, function};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(ROUTES, function).await
}
