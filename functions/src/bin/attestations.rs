//! Intake: attestations and materials come in.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(pipeline::http::functions::attestations()).await
}
