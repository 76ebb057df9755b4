//! Delivers to any webhook.

use integrations::webhook::Webhook;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<Webhook>().await
}
