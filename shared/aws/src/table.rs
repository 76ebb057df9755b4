//! Rows in DynamoDB: keys, conditions on etags, and pages.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::Timestamp;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Delete, KeysAndAttributes, Put,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use futures_util::future::try_join_all;
use pipeline::Platform;
use pipeline::store::platform::{Etag, Expect, Item, Key, Range, Unreachable, Write, WriteError};
use serde_json::Value;

use crate::{Aws, patience};

type Row = HashMap<String, AttributeValue>;

/// The order in which a partition's rows are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    FirstFirst,
    LastFirst,
}

/// Longest pause between tries of a transaction that others were in the way of.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Rows in one `BatchGetItem` (DynamoDB's limit).
const BATCH: usize = 100;

pub(crate) fn unreachable<E>(what: &'static str, error: &SdkError<E>) -> Unreachable
where
    E: ProvideErrorMetadata,
{
    let why = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => match error {
            SdkError::TimeoutError(_) => "it did not answer in time".to_owned(),
            SdkError::DispatchFailure(_) => "no connection".to_owned(),
            _ => "its answer could not be read".to_owned(),
        },
    };
    Unreachable { what, why }
}

fn table(error: &SdkError<impl ProvideErrorMetadata>) -> Unreachable {
    unreachable("table", error)
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn key(key: &Key) -> Row {
    HashMap::from([
        ("pk".into(), text(&key.partition)),
        ("sk".into(), text(&key.sort)),
    ])
}

/// An item in DynamoDB's own types.
fn row(item: &Item) -> Row {
    let attributes = item.iter();
    attributes
        .map(|(name, value)| (name.clone(), attribute(value)))
        .collect()
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(is) => AttributeValue::Bool(*is),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::String(text) => AttributeValue::S(text.clone()),
        Value::Array(values) => AttributeValue::L(values.iter().map(attribute).collect()),
        Value::Object(item) => AttributeValue::M(row(item)),
    }
}

fn item(row: Row) -> Result<Item, Unreachable> {
    let attributes = row.into_iter();
    attributes
        .map(|(name, attribute)| Ok((name, value(attribute)?)))
        .collect()
}

fn value(attribute: AttributeValue) -> Result<Value, Unreachable> {
    Ok(match attribute {
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Bool(is) => Value::Bool(is),
        AttributeValue::N(number) => {
            let number = number
                .parse()
                .map_err(|_| refused(format!("{number} is no number")))?;
            Value::Number(number)
        }
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::L(values) => {
            let values = values.into_iter().map(value);
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        AttributeValue::M(row) => Value::Object(item(row)?),
        _ => return Err(refused("a row has bytes or a set in it".into())),
    })
}

/// A condition, and the values that it speaks of.
fn condition(expect: &Expect, now_secs: u64) -> (&'static str, Option<Row>) {
    match expect {
        // TTL removes rows up to days after their time: such a row is as good as gone.
        Expect::Absent => {
            let now = AttributeValue::N(now_secs.to_string());
            let values = HashMap::from([(":now".into(), now)]);
            (
                "attribute_not_exists(pk) OR expires_at < :now",
                Some(values),
            )
        }
        Expect::Unchanged(etag) => unchanged(etag),
    }
}

fn unchanged(Etag(etag): &Etag) -> (&'static str, Option<Row>) {
    (
        "etag = :etag",
        Some(HashMap::from([(":etag".into(), text(etag))])),
    )
}

/// Reports whether this same write put the row that failed the condition: the write succeeded, its response was lost,
/// and the SDK retried.
fn is_own(write: &Write, found: Option<&Row>) -> bool {
    let Write::Put { etag, .. } = write else {
        return false;
    };
    found.and_then(|row| row.get("etag")?.as_s().ok()) == Some(&etag.0)
}

/// Reports whether a transaction in progress held the row. The SDK does not retry then; [`Aws::transact`] does.
fn is_held(error: &SdkError<impl ProvideErrorMetadata>) -> bool {
    error.code() == Some("TransactionConflictException")
}

fn refused(why: String) -> Unreachable {
    Unreachable { what: "table", why }
}

/// Meaning of the reasons, one for each write, for which DynamoDB cancelled a transaction.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
#[derive(Debug, PartialEq, Eq)]
enum Cancelled {
    /// It had been done, and its answer was lost.
    Done,
    /// A condition did not hold.
    Conflict,
    /// Another transaction held a row, or the table was too busy for one.
    Busy(String),
    /// The same again would be refused again.
    Refused(String),
}

impl Cancelled {
    fn read(writes: &[Write], reasons: &[CancellationReason]) -> Self {
        let mut conflicts = false;
        let (mut busy, mut refused) = (None, None);
        for (write, reason) in writes.iter().zip(reasons) {
            let text = || match (reason.code(), reason.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (code, _) => code.unwrap_or_default().to_owned(),
            };
            match reason.code().unwrap_or("None") {
                "None" => {}
                "ConditionalCheckFailed" => {
                    // All of them or none: one row of ours is enough to know that it was done.
                    if is_own(write, reason.item()) {
                        return Self::Done;
                    }
                    conflicts = true;
                }
                "TransactionConflict" | "ProvisionedThroughputExceeded" | "ThrottlingError" => {
                    busy.get_or_insert_with(text);
                }
                _ => {
                    refused.get_or_insert_with(text);
                }
            }
        }
        match (conflicts, refused) {
            (true, _) => Self::Conflict,
            (false, Some(why)) => Self::Refused(why),
            (false, None) => Self::Busy(busy.unwrap_or_else(|| "it gave no reason".to_owned())),
        }
    }
}

impl Aws {
    pub(crate) async fn get_row(&self, at: &Key) -> Result<Option<Item>, Unreachable> {
        let request = self.dynamodb().get_item().table_name(&self.settings.table);
        let answer = request
            .set_key(Some(key(at)))
            .consistent_read(true)
            .send()
            .await;
        answer
            .map_err(|error| table(&error))?
            .item
            .map(item)
            .transpose()
    }

    pub(crate) async fn get_rows(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        // The same key twice in one request is refused.
        let mut keys: Vec<&Key> = keys.iter().collect();
        keys.sort();
        keys.dedup();
        let batches = try_join_all(keys.chunks(BATCH).map(|batch| self.get_batch(batch))).await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn get_batch(&self, keys: &[&Key]) -> Result<Vec<Item>, Unreachable> {
        let mut items = Vec::with_capacity(keys.len());
        let mut wanted: Vec<Row> = keys.iter().map(|at| key(at)).collect();
        let mut pause = Duration::from_millis(20);
        loop {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .expect("keys are set");
            let answer = self
                .dynamodb()
                .batch_get_item()
                .request_items(&self.settings.table, request)
                .send()
                .await
                .map_err(|error| table(&error))?;
            for row in answer.responses.unwrap_or_default().into_values().flatten() {
                items.push(item(row)?);
            }
            // What did not fit into 16 MB or into the capacity comes next.
            let rest = answer
                .unprocessed_keys
                .unwrap_or_default()
                .into_values()
                .next();
            match rest {
                Some(rest) if !rest.keys.is_empty() => wanted = rest.keys,
                _ => return Ok(items),
            }
            if pause > Duration::from_secs(2) {
                let why = "it is too busy to read all rows".to_owned();
                return Err(Unreachable { what: "table", why });
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    pub(crate) async fn list_rows(
        &self,
        partition: &str,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        order: Order,
    ) -> Result<Vec<Item>, Unreachable> {
        let mut start = from.map(|from| key(&Key::new(partition, from)));
        let mut items = Vec::new();
        loop {
            let request = self
                .dynamodb()
                .query()
                .table_name(&self.settings.table)
                .consistent_read(true)
                .scan_index_forward(order == Order::FirstFirst)
                .expression_attribute_values(":pk", text(partition))
                .limit(i32::try_from(limit - items.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let request = if prefix.is_empty() {
                request.key_condition_expression("pk = :pk")
            } else {
                request
                    .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", text(prefix))
            };
            let answer = request.send().await.map_err(|error| table(&error))?;
            for row in answer.items.unwrap_or_default() {
                items.push(item(row)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() || items.len() >= limit {
                return Ok(items);
            }
        }
    }

    pub(crate) async fn range_keys(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        let (hash, sort) = range.index.attributes();
        let mut start = None;
        let mut keys = Vec::new();
        loop {
            let answer = self
                .dynamodb()
                .query()
                .table_name(&self.settings.table)
                .index_name(range.index.name())
                .key_condition_expression("#hash = :hash AND #sort <= :until")
                .expression_attribute_names("#hash", hash)
                .expression_attribute_names("#sort", sort)
                .expression_attribute_values(":hash", text(range.hash))
                .expression_attribute_values(":until", text(range.until))
                .scan_index_forward(!range.newest_first)
                .limit(i32::try_from(range.limit - keys.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| table(&error))?;
            for row in answer.items.unwrap_or_default() {
                let field = |name: &str| row.get(name)?.as_s().ok().cloned();
                if let (Some(partition), Some(sort)) = (field("pk"), field("sk")) {
                    keys.push(Key { partition, sort });
                }
            }
            start = answer.last_evaluated_key;
            if start.is_none() || keys.len() >= range.limit {
                return Ok(keys);
            }
        }
    }

    pub(crate) async fn add_numbers(
        &self,
        at: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        let number = |number: u64| AttributeValue::N(number.to_string());
        let mut request = self
            .dynamodb()
            .update_item()
            .table_name(&self.settings.table)
            .set_key(Some(key(at)))
            .expression_attribute_names("#expires", "expires_at")
            .expression_attribute_values(":expires", number(expires_at.secs()));
        let mut added = Vec::new();
        for (index, (name, amount)) in amounts.iter().enumerate() {
            request = request
                .expression_attribute_names(format!("#{index}"), *name)
                .expression_attribute_values(format!(":{index}"), number(*amount));
            added.push(format!("#{index} :{index}"));
        }
        let expression = format!("SET #expires = :expires ADD {}", added.join(", "));
        let sent = request.update_expression(expression).send().await;
        sent.map(drop).map_err(|error| table(&error))
    }

    pub(crate) async fn write_rows(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        match <[Write; 1]>::try_from(writes) {
            // Half the price of a transaction of one.
            Ok([write]) => self.write_row(&write).await,
            Err(writes) => self.transact(&writes).await,
        }
    }

    async fn write_row(&self, write: &Write) -> Result<(), WriteError> {
        let name = &self.settings.table;
        let old = ReturnValuesOnConditionCheckFailure::AllOld;
        match write {
            Write::Put { item, expect, .. } => {
                let (condition, values) = condition(expect, self.now().secs());
                let result = self
                    .dynamodb()
                    .put_item()
                    .table_name(name)
                    .set_item(Some(row(item)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(old)
                    .send()
                    .await;
                let Err(error) = result else { return Ok(()) };
                match error.as_service_error() {
                    Some(refused) if refused.is_conditional_check_failed_exception() => {
                        use aws_sdk_dynamodb::operation::put_item::PutItemError;
                        let found = match refused {
                            PutItemError::ConditionalCheckFailedException(refused) => {
                                refused.item.as_ref()
                            }
                            _ => None,
                        };
                        if is_own(write, found) {
                            Ok(())
                        } else {
                            Err(WriteError::Conflict)
                        }
                    }
                    _ if is_held(&error) => self.transact(std::slice::from_ref(write)).await,
                    _ => Err(table(&error).into()),
                }
            }
            Write::Delete { key: at, etag } => {
                let (condition, values) = unchanged(etag);
                let result = self
                    .dynamodb()
                    .delete_item()
                    .table_name(name)
                    .set_key(Some(key(at)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(old)
                    .send()
                    .await;
                let Err(error) = result else { return Ok(()) };
                match error.as_service_error() {
                    // No row to be found: it is deleted, by us or by another.
                    Some(DeleteItemError::ConditionalCheckFailedException(refused)) => {
                        match &refused.item {
                            None => Ok(()),
                            Some(_) => Err(WriteError::Conflict),
                        }
                    }
                    _ if is_held(&error) => self.transact(std::slice::from_ref(write)).await,
                    _ => Err(table(&error).into()),
                }
            }
            Write::Check { .. } => self.transact(std::slice::from_ref(write)).await,
        }
    }

    async fn transact(&self, writes: &[Write]) -> Result<(), WriteError> {
        let mut pause = Duration::from_millis(20);
        let begun = Instant::now();
        loop {
            let actions = writes.iter().map(|write| self.action(write)).collect();
            let request = self.dynamodb().transact_write_items();
            let result = request.set_transact_items(Some(actions)).send().await;
            let Err(error) = result else { return Ok(()) };
            let why = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    match Cancelled::read(writes, cancelled.cancellation_reasons()) {
                        Cancelled::Done => return Ok(()),
                        Cancelled::Conflict => return Err(WriteError::Conflict),
                        Cancelled::Refused(why) => return Err(refused(why).into()),
                        Cancelled::Busy(why) => why,
                    }
                }
                Some(TransactWriteItemsError::TransactionInProgressException(_)) => {
                    "the same transaction is in progress".to_owned()
                }
                _ => return Err(table(&error).into()),
            };
            // Nothing was decided. Those that met come again at different times.
            let jitter = pause * u32::try_from(self.random() % 100).unwrap_or_default() / 100;
            if begun.elapsed() + pause + jitter > patience::SHORT.call {
                return Err(refused(why).into());
            }
            tokio::time::sleep(pause + jitter).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn action(&self, write: &Write) -> TransactWriteItem {
        let name = &self.settings.table;
        let old = ReturnValuesOnConditionCheckFailure::AllOld;
        let action = TransactWriteItem::builder();
        let proof = "table, key and condition are set";
        match write {
            Write::Put { item, expect, .. } => {
                let (condition, values) = condition(expect, self.now().secs());
                let put = Put::builder()
                    .table_name(name)
                    .set_item(Some(row(item)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(old)
                    .build();
                action.put(put.expect(proof)).build()
            }
            Write::Delete { key: at, etag } => {
                let (condition, values) = unchanged(etag);
                let delete = Delete::builder()
                    .table_name(name)
                    .set_key(Some(key(at)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .build();
                action.delete(delete.expect(proof)).build()
            }
            Write::Check { key: at, etag } => {
                let (condition, values) = unchanged(etag);
                let check = ConditionCheck::builder()
                    .table_name(name)
                    .set_key(Some(key(at)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .build();
                action.condition_check(check.expect(proof)).build()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cancelled_transaction_is_repeated_where_that_may_help_and_says_its_own_reason() {
        let write = |etag: &str| Write::Put {
            key: Key::new("a", etag),
            item: Item::new(),
            etag: Etag(etag.into()),
            expect: Expect::Absent,
        };
        let writes = [write("1"), write("2")];
        let reason = |code: &str| CancellationReason::builder().code(code).build();
        let told = |code: &str, message: &str| {
            let reason = CancellationReason::builder().code(code);
            reason.message(message).build()
        };
        let read = |second| Cancelled::read(&writes, &[reason("None"), second]);
        assert_eq!(read(reason("ConditionalCheckFailed")), Cancelled::Conflict);
        let own = Row::from([("etag".to_owned(), text("2"))]);
        let own = CancellationReason::builder()
            .code("ConditionalCheckFailed")
            .set_item(Some(own));
        assert_eq!(read(own.build()), Cancelled::Done);
        for busy in [
            "TransactionConflict",
            "ProvisionedThroughputExceeded",
            "ThrottlingError",
        ] {
            assert_eq!(read(reason(busy)), Cancelled::Busy(busy.to_owned()));
        }
        let too_large = "Item size has exceeded the maximum allowed size";
        let why = format!("ValidationError: {too_large}");
        assert_eq!(
            read(told("ValidationError", too_large)),
            Cancelled::Refused(why.clone())
        );
        // Whatever else there is, the same again would be refused again.
        let both = [
            reason("ThrottlingError"),
            told("ValidationError", too_large),
        ];
        assert_eq!(Cancelled::read(&writes, &both), Cancelled::Refused(why));
        let both = [reason("ConditionalCheckFailed"), reason("ThrottlingError")];
        assert_eq!(Cancelled::read(&writes, &both), Cancelled::Conflict);
    }

    #[test]
    fn rows_survive_the_way_through_dynamodbs_own_types() {
        let whole = json!({
            "pk": "org/a/delivery/b", "sk": "delivery", "etag": "00ff", "attempt": 3,
            "progress": {"attestation": {"status": 200, "size_bytes": 4_033_582}},
            "plan": [{"attachment": "x"}, {"attachment": "y"}], "unsent": true, "empty": "",
        });
        let serde_json::Value::Object(whole) = whole else {
            unreachable!()
        };
        let there = row(&whole);
        assert_eq!(there["attempt"], AttributeValue::N("3".into()));
        assert_eq!(item(there).unwrap(), whole);
    }

    #[test]
    fn a_writer_whose_answer_was_lost_knows_its_own_write() {
        let etag = Etag("00ff".into());
        let at = Key::new("a", "b");
        let put = Write::Put {
            key: at.clone(),
            item: Item::new(),
            etag,
            expect: Expect::Absent,
        };
        let found = |etag: &str| HashMap::from([("etag".to_owned(), text(etag))]);
        assert!(is_own(&put, Some(&found("00ff"))));
        assert!(!is_own(&put, Some(&found("ff00"))));
        assert!(!is_own(&put, None));
        assert!(!is_own(
            &Write::Check {
                key: at,
                etag: Etag("00ff".into())
            },
            Some(&found("00ff"))
        ));
    }
}
