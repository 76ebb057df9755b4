//! What AWS asks for, and what no test can count.

/// Month in which these were written down, from memory. They are list prices of us-east-1, for arm64, without any free tier.
pub const DATE: &str = "November 2026";

/// A price in US dollars, with what it is for.
#[derive(Debug)]
pub struct Price {
    pub service: &'static str,
    pub what: &'static str,
    pub dollars: f64,
    /// In so many.
    pub per: f64,
    pub unit: &'static str,
}

impl Price {
    pub fn of(&self, count: f64) -> f64 {
        count * self.dollars / self.per
    }
}

const fn price(
    service: &'static str,
    what: &'static str,
    dollars: f64,
    per: f64,
    unit: &'static str,
) -> Price {
    Price {
        service,
        what,
        dollars,
        per,
        unit,
    }
}

const MILLION: f64 = 1_000_000.0;

pub static WRITE: Price = price(
    "DynamoDB",
    "write request units, on demand",
    0.625,
    MILLION,
    "million",
);
pub static READ: Price = price(
    "DynamoDB",
    "read request units, on demand",
    0.125,
    MILLION,
    "million",
);
pub static ROWS: Price = price("DynamoDB", "storage", 0.25, 1.0, "GB-month");
pub static RECOVERY: Price = price("DynamoDB", "point-in-time recovery", 0.20, 1.0, "GB-month");
pub static S3_PUT: Price = price("S3", "PUT, COPY, POST, LIST", 0.005, 1_000.0, "thousand");
pub static S3_GET: Price = price("S3", "GET, HEAD", 0.0004, 1_000.0, "thousand");
pub static OBJECTS: Price = price("S3", "storage", 0.023, 1.0, "GB-month");
pub static SQS: Price = price("SQS", "requests, of 64 KB each", 0.40, MILLION, "million");
pub static SECRET_CALL: Price = price(
    "Secrets Manager",
    "API calls",
    0.05,
    10_000.0,
    "ten thousand",
);
pub static SECRET: Price = price("Secrets Manager", "a secret", 0.40, 1.0, "month");
pub static KEY: Price = price("KMS", "a key, for receipts", 1.0, 1.0, "month");
pub static SIGNATURE: Price = price(
    "KMS",
    "signatures, of receipts, and reads of the public key",
    0.15,
    10_000.0,
    "ten thousand",
);
pub static INVOCATION: Price = price("Lambda", "requests", 0.20, MILLION, "million");
pub static COMPUTE: Price = price(
    "Lambda",
    "GB-seconds, arm64",
    0.000_013_333_4,
    1.0,
    "GB-second",
);
pub static GATEWAY: Price = price(
    "API Gateway",
    "requests of an HTTP API, of 512 KB each",
    1.0,
    MILLION,
    "million",
);
pub static LOG: Price = price("CloudWatch", "logs taken in", 0.50, 1.0, "GB");
pub static LOG_KEPT: Price = price("CloudWatch", "logs kept", 0.03, 1.0, "GB-month");
pub static METRIC: Price = price("CloudWatch", "a custom metric", 0.30, 1.0, "month");
pub static ALARM: Price = price(
    "CloudWatch",
    "a metric that an alarm looks at",
    0.10,
    1.0,
    "month",
);
pub static TRACE: Price = price("X-Ray", "traces recorded", 5.0, MILLION, "million");
pub static SCHEDULE: Price = price(
    "EventBridge Scheduler",
    "invocations",
    1.0,
    MILLION,
    "million",
);

pub static ALL: [&Price; 21] = [
    &WRITE,
    &READ,
    &ROWS,
    &RECOVERY,
    &S3_PUT,
    &S3_GET,
    &OBJECTS,
    &SQS,
    &SECRET_CALL,
    &SECRET,
    &KEY,
    &SIGNATURE,
    &INVOCATION,
    &COMPUTE,
    &GATEWAY,
    &LOG,
    &LOG_KEPT,
    &METRIC,
    &ALARM,
    &TRACE,
    &SCHEDULE,
];

/// Milliseconds for which an invocation is billed. Nothing was measured on AWS.
pub const ACCEPT_MS: f64 = 80.0;
pub const AUTHORIZE_MS: f64 = 15.0;
pub const DELIVER_MS: f64 = 300.0;
pub const RECONCILE_MS: f64 = 150.0;

/// Seconds for which the gateway remembers a token.
pub const TOKEN_SECS: f64 = 30.0;

/// Bytes of what Lambda logs of an invocation (`platform.start`, `platform.report`), of what surrounds one line of ours,
/// and of one line of the gateway's.
pub const INVOCATION_LOG_BYTES: f64 = 900.0;
pub const LINE_BYTES: f64 = 120.0;
pub const ACCESS_LOG_BYTES: f64 = 350.0;

/// DynamoDB bills so many bytes more for each row and for each entry of an index that it keeps.
pub const ROW_OVERHEAD_BYTES: usize = 100;

/// Lambda asks a queue that is empty with so many pollers, each for so long.
pub const POLLERS: f64 = 5.0;
pub const POLL_SECS: f64 = 20.0;

pub const MONTH_SECS: f64 = 30.0 * 86_400.0;
