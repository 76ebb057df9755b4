//! Every minute, and on dead letters: sends what is due and finishes what was cut off.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::reconciler().await
}
