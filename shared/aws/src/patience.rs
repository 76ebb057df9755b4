//! Timeouts of calls to AWS, shorter than that of the function that makes them, so that its caller gets an answer rather than
//! a function that was cut off.

use std::time::Duration;

use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

/// Timeouts of a call.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one attempt, the connection among it.
    pub attempt: Duration,
    /// For all attempts, with the pauses between them.
    pub call: Duration,
    pub(crate) attempts: u32,
}

/// Time for connecting, of which each attempt has its own.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);

/// DynamoDB, SQS and Secrets Manager answer within milliseconds. What is throttled is repeated until the time is over.
pub const SHORT: Patience = Patience {
    attempt: Duration::from_secs(2),
    call: Duration::from_secs(8),
    attempts: 10,
};

/// The bucket's calls carry up to 8 MB.
pub const BYTES: Patience = Patience {
    attempt: Duration::from_secs(20),
    call: Duration::from_secs(25),
    attempts: 4,
};

/// Invoking a delivery function: longer than a check may take, shorter than the gateway waits. Once: what it asks the third
/// party must not be asked twice.
pub const INVOKE: Patience = Patience {
    attempt: Duration::from_secs(27),
    call: Duration::from_secs(27),
    attempts: 1,
};

impl Patience {
    pub(crate) fn timeouts(self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(self.attempt)
            .operation_timeout(self.call)
            .build()
    }

    pub(crate) fn retries(self) -> RetryConfig {
        RetryConfig::standard()
            .with_max_attempts(self.attempts)
            .with_initial_backoff(Duration::from_millis(50))
    }
}
