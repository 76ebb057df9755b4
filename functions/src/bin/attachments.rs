//! The operator's API: what is attached to which workflow.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::api(pipeline::http::functions::attachments()).await
}
