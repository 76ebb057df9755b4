//! Finds out whose token it is, for every route of the API.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::authorizer().await
}
