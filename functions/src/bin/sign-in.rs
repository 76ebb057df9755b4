//! Signs people in at the console, by an identity provider.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::sign_in().await
}
