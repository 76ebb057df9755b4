//! Delivers to an OCI registry.

use integrations::oci_registry::OciRegistry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<OciRegistry>().await
}
