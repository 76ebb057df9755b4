//! For third parties that cannot tell a repeat from something new, as chats cannot: what may have arrived is sent
//! once more and no third time, and the receipt says so.

use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::{Delivery, Error, Host, Http, Integration, Kind};

/// The step that is kept when no answer came.
const UNANSWERED: &str = "unanswered";

/// [`Http::send`]: without an answer it is tried again, and without one to that either it is given up.
pub(crate) async fn send<I: Integration>(
    http: &Http,
    host: &dyn Host,
    delivery: &Delivery<'_, I>,
    request: Request<Bytes>,
) -> Result<Response, Error> {
    let error = match http.send(request).await {
        Err(error) if error.kind == Kind::Indeterminate => error,
        result => return result,
    };
    if is_repeat(delivery) {
        return Err(Error {
            kind: Kind::Permanent,
            text: format!(
                "{}, for the second time: it may have arrived twice, once or not at all",
                error.text
            ),
            ..error
        });
    }
    host.record(UNANSWERED, json!(true)).await?;
    Err(error)
}

/// Adds to a receipt that what it is for may have arrived before.
pub(crate) fn note<I: Integration>(delivery: &Delivery<'_, I>, receipt: &mut Map<String, Value>) {
    if is_repeat(delivery) {
        receipt.insert("possibly_duplicated".to_owned(), json!(true));
    }
}

fn is_repeat<I: Integration>(delivery: &Delivery<'_, I>) -> bool {
    delivery.progress.contains_key(UNANSWERED)
}
