//! The operator's API: what is available and what is registered.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(pipeline::http::functions::registrations()).await
}
