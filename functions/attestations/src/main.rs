//! Intake: attestations and materials come in.

use pipeline::api::attestations::{ROUTES, function};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(ROUTES, function).await
}
