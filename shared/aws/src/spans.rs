//! Spans, posted to a collector on this machine as OTLP over HTTP with JSON:
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. On AWS it is an extension, which sends them on when the
//! invocation is over.

use std::time::Duration;

use api::Timestamp;
use aws_smithy_types::body::SdkBody;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use pipeline::Platform as _;
use pipeline::store::spans::{Kind, Span};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use crate::Aws;

/// Maximum time that an invocation spends on it.
const EXPORTING: Duration = Duration::from_millis(500);

/// Posts the invocation's spans. What cannot be posted is lost, and told in the log.
pub(crate) async fn tell(aws: &Aws) {
    let spans = aws.meter().spans.take();
    let Some(uri) = aws.settings.collector.clone() else {
        return;
    };
    if spans.is_empty() {
        return;
    }
    let body = exported(&aws.settings.stack, &spans).to_string();
    let mut request = http::Request::new(SdkBody::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let kind = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, kind);
    let posting = aws.connections.to_another(1).post(request);
    let failure = match timeout(EXPORTING, posting).await {
        Ok(Ok(status)) if status.is_success() => return,
        Ok(Ok(status)) => format!("the collector answered {status}"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the collector did not answer in time".to_owned(),
    };
    warn!(spans = spans.len(), failure, "Spans were not exported");
}

fn exported(stack: &str, spans: &[Span]) -> Value {
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [
                attribute("service.name", &"chainloop-integrations".into()),
                attribute("service.namespace", &stack.into()),
                attribute("service.version", &env!("CARGO_PKG_VERSION").into()),
                attribute("faas.name", &function.into()),
                attribute("cloud.provider", &"aws".into()),
            ] },
            "scopeSpans": [{
                "scope": { "name": "chainloop-integrations" },
                "spans": spans,
            }],
        }],
    })
}

fn span(span: &Span) -> Value {
    let kind = match span.kind {
        Kind::Server => 2,
        Kind::Consumer => 5,
    };
    let attributes = span.attributes.iter();
    let attributes: Vec<Value> = attributes
        .map(|(name, value)| attribute(name, value))
        .collect();
    let mut exported = json!({
        "traceId": span.trace.id(),
        "spanId": span.trace.span(),
        "parentSpanId": span.parent.span(),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanos(span.began_at),
        "endTimeUnixNano": nanos(span.ended_at),
        "attributes": attributes,
    });
    if let Some(failure) = &span.failure {
        exported["status"] = json!({ "code": 2, "message": failure });
    }
    exported
}

/// A number of 64 bits is text in this encoding.
fn nanos(at: Timestamp) -> String {
    format!("{}000000", at.millis())
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_exported_as_otlp_has_it() {
        let parent: api::Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            .parse()
            .unwrap();
        let failed = Span {
            trace: parent.with_span([1; 8]),
            parent,
            name: "deliver webhook".to_owned(),
            kind: Kind::Consumer,
            began_at: Timestamp::from_millis(1_700_000_000_123),
            ended_at: Timestamp::from_millis(1_700_000_000_200),
            attributes: vec![("a", "text".into()), ("n", 7.into())],
            failure: Some("answered 500".to_owned()),
        };
        let all = exported("prod", std::slice::from_ref(&failed));
        let resource = &all["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][1],
            json!({ "key": "service.namespace", "value": { "stringValue": "prod" } })
        );
        let spans = &resource["scopeSpans"][0]["spans"];
        assert_eq!(
            *spans,
            json!([{
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "0101010101010101",
                "parentSpanId": "00f067aa0ba902b7",
                "name": "deliver webhook",
                "kind": 5,
                "startTimeUnixNano": "1700000000123000000",
                "endTimeUnixNano": "1700000000200000000",
                "attributes": [
                    { "key": "a", "value": { "stringValue": "text" } },
                    { "key": "n", "value": { "intValue": "7" } },
                ],
                "status": { "code": 2, "message": "answered 500" },
            }])
        );
        let went_well = Span {
            failure: None,
            ..failed
        };
        assert_eq!(span(&went_well)["status"], Value::Null);
    }
}
