//! The operator's API: what is available and what is registered.

use pipeline::http::functions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(functions::registrations()).await
}
