//! The operator's API: what became of each delivery.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(pipeline::http::functions::deliveries()).await
}
