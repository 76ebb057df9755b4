//! Delivers to Slack.

use integrations::slack_webhook::SlackWebhook;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<SlackWebhook>().await
}
