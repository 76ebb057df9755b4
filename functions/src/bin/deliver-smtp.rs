//! Delivers by mail.

use integrations::smtp::Smtp;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<Smtp>().await
}
