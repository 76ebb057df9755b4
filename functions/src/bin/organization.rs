//! The operator's API: whose token it is, the organization's tokens, and the workflows that it has seen.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(pipeline::http::functions::organization()).await
}
