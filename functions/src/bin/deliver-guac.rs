//! Delivers to a bucket that GUAC collects from.

use integrations::guac::Guac;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<Guac>().await
}
