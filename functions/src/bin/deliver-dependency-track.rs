//! Delivers to Dependency-Track.

use integrations::dependency_track::DependencyTrack;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), aws::Error> {
    aws::deliver::<DependencyTrack>().await
}
