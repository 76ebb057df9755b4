//! Intake: attestations and materials come in.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::accept(pipeline::http::functions::attestations()).await
}
