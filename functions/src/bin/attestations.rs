//! Intake: attestations and materials come in.

use pipeline::http::functions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(functions::attestations()).await
}
