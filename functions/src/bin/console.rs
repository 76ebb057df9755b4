//! Hands the console, a page that is a client of the API, to browsers.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::console().await
}
