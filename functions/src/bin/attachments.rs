//! The operator's API: what is attached to which workflow.

use pipeline::http::functions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(functions::attachments()).await
}
