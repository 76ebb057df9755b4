//! Fetches materials that a Chainloop control plane holds.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::fetch_materials().await
}
