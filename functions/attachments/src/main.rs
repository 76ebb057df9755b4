//! The operator's API: what is attached to which workflow.

use pipeline::api::attachments::{ROUTES, function};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(ROUTES, function).await
}
