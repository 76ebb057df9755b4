//! Delivers to Discord.

use integrations::discord_webhook::DiscordWebhook;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<DiscordWebhook>().await
}
