//! The operator's API: what became of each delivery.

use pipeline::http::functions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(functions::deliveries()).await
}
