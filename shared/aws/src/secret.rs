//! A secret that is not the pipeline's, for whoever configures it from there.

use integrations::SecretText;
use pipeline::store::platform::{SecretValue, Unreachable};

use crate::Aws;
use crate::table::unreachable;

impl Aws {
    /// The text of the secret with this ARN; none when it is not there, or holds no text.
    pub async fn read_secret(&self, arn: &str) -> Result<Option<SecretValue>, Unreachable> {
        let request = self.secrets().get_secret_value().secret_id(arn);
        // Boxed, as the platform's own futures are.
        match Box::pin(request.send()).await {
            Ok(answer) => Ok(answer.secret_string.map(SecretValue::new)),
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_resource_not_found_exception() || error.is_invalid_request_exception()
                }) =>
            {
                Ok(None)
            }
            Err(error) => Err(unreachable("secrets manager", &error)),
        }
    }

    /// The secret that an identity provider has given the console. A newline at its end is none of its letters.
    pub(crate) async fn client_secret(&self, arn: &str) -> Result<SecretText, Unreachable> {
        let secret = self.read_secret(arn).await?.ok_or_else(|| Unreachable {
            what: "client's secret",
            why: "there is none with this ARN".into(),
        })?;
        Ok(secret.expose().trim_end().to_owned().into())
    }
}
