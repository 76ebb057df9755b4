//! The operator's API: whose token it is, the organization's tokens, and the workflows that it has seen.

use pipeline::http::functions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(functions::organization()).await
}
