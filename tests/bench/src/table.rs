//! Stub of DynamoDB: one table with its indexes. Conditions are evaluated, transactions are all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pipeline::store::platform::Index;
use serde_json::{Value, json};

use crate::expression::{About, Row, Unknown};
use crate::services::Fault;

type Key = (String, String);

/// Rows by their keys. Those that only fill the table have their attributes in common.
#[derive(Default)]
pub struct Table(BTreeMap<Key, Arc<Row>>);

fn key(row: &Value) -> Result<Key, Fault> {
    let text = |name: &str| row[name]["S"].as_str().map(str::to_owned);
    let key = text("pk").zip(text("sk"));
    key.ok_or_else(|| invalid("the key has no pk or sk"))
}

/// Key of the row that a write is about.
fn target(write: &Value) -> Result<Key, Fault> {
    key(write.get("Item").unwrap_or(&write["Key"]))
}

fn invalid(message: &str) -> Fault {
    Fault::new("ValidationException", message)
}

impl From<Unknown> for Fault {
    fn from(Unknown(what): Unknown) -> Self {
        invalid(&format!("the stub does not understand {what}"))
    }
}

/// A condition that does not hold, and the row that it is about, if the request wants to see it.
fn refused(input: &Value, row: Option<&Row>) -> Fault {
    let mut fault = Fault::new(
        "ConditionalCheckFailedException",
        "The conditional request failed",
    );
    if let (Some("ALL_OLD"), Some(row)) =
        (input["ReturnValuesOnConditionCheckFailure"].as_str(), row)
    {
        fault.details["Item"] = Value::Object(row.clone());
    }
    fault
}

impl Table {
    /// Puts the same attributes under many keys.
    pub fn fill(&mut self, keys: impl Iterator<Item = Key>, attributes: Row) {
        let attributes = Arc::new(attributes);
        self.0
            .extend(keys.map(|key| (key, Arc::clone(&attributes))));
    }

    /// Sets an attribute, a text, of the rows whose sort key begins so.
    pub fn set(&mut self, prefix: &str, name: &str, text: &str) {
        let rows = self
            .0
            .iter_mut()
            .filter(|((_, sort), _)| sort.starts_with(prefix));
        for (_, row) in rows {
            Arc::make_mut(row).insert(name.to_owned(), json!({ "S": text }));
        }
    }

    pub fn answer(&mut self, operation: &str, input: &Value) -> Result<Value, Fault> {
        match operation {
            "GetItem" => Ok(match self.0.get(&key(&input["Key"])?) {
                Some(row) => json!({ "Item": **row }),
                None => json!({}),
            }),
            "BatchGetItem" => self.batch(input),
            "Query" => self.query(input),
            "PutItem" | "UpdateItem" | "DeleteItem" => {
                self.check(input)?;
                self.write(operation.trim_end_matches("Item"), input)?;
                Ok(json!({}))
            }
            "TransactWriteItems" => self.transact(input),
            _ => Err(invalid(&format!("the stub has no {operation}"))),
        }
    }

    fn batch(&self, input: &Value) -> Result<Value, Fault> {
        let mut responses = json!({});
        for (table, wanted) in input["RequestItems"].as_object().into_iter().flatten() {
            let keys = wanted["Keys"].as_array().into_iter().flatten().map(key);
            let keys = keys.collect::<Result<Vec<Key>, Fault>>()?;
            if keys.len() > 100 || keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
                return Err(invalid("at most 100 keys, none of them twice"));
            }
            responses[table] = keys
                .iter()
                .filter_map(|key| self.0.get(key))
                .map(|row| Value::Object((**row).clone()))
                .collect();
        }
        Ok(json!({ "Responses": responses, "UnprocessedKeys": {} }))
    }

    fn query(&self, input: &Value) -> Result<Value, Fault> {
        let index = input["IndexName"].as_str();
        let (hash, sort) = match index {
            None => ("pk", "sk"),
            Some(name) => {
                let mut all = Index::ALL.into_iter();
                let found = all.find(|index| index.name() == name);
                found.ok_or_else(|| invalid("no such index"))?.attributes()
            }
        };
        let condition = input["KeyConditionExpression"].as_str().unwrap_or_default();
        // Its first term is about the hash: other partitions are passed over without a look at the rest.
        let value = condition.split_whitespace().nth(2).unwrap_or_default();
        let partition = About { input, row: None }.value(value);
        let partition = partition.ok_or_else(|| invalid("the condition has no hash"))?;
        let mut found = Vec::new();
        for (key, row) in self
            .0
            .iter()
            .filter(|(_, row)| row.get(hash) == Some(partition))
        {
            let about = About {
                input,
                row: Some(row),
            };
            if about.holds(condition)? {
                found.push((row[sort]["S"].as_str().unwrap_or_default(), key, row));
            }
        }
        let place = |(sort, key, _): &(&str, &Key, &Arc<Row>)| ((*sort).to_owned(), (*key).clone());
        found.sort_by_key(place);
        let is_backward = input["ScanIndexForward"] == false;
        if is_backward {
            found.reverse();
        }
        if let Some(start) = input.get("ExclusiveStartKey") {
            let at = start[sort]["S"].as_str().unwrap_or_default().to_owned();
            let start = (at, key(start)?);
            found.retain(|one| {
                if is_backward {
                    place(one) < start
                } else {
                    place(one) > start
                }
            });
        }
        let keys = |row: &Row| -> Row {
            let names = ["pk", "sk", sort];
            let kept = row
                .iter()
                .filter(|(name, _)| names.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        let limit = input["Limit"]
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.unwrap_or(usize::MAX);
        let rows = found.iter().take(limit).map(|(_, _, row)| match index {
            None => (***row).clone(),
            // The indexes hold keys alone.
            Some(_) => keys(row),
        });
        let rows: Vec<Row> = rows.collect();
        let mut answer = json!({ "Count": rows.len() });
        // As DynamoDB does, also when nothing comes behind.
        if rows.len() == limit
            && let Some(last) = rows.last()
        {
            answer["LastEvaluatedKey"] = Value::Object(keys(last));
        }
        answer["Items"] = rows.into_iter().map(Value::Object).collect();
        Ok(answer)
    }

    /// Evaluates the condition of a write.
    fn check(&self, input: &Value) -> Result<(), Fault> {
        let row = self.0.get(&target(input)?).map(|row| &**row);
        let Some(condition) = input["ConditionExpression"].as_str() else {
            return Ok(());
        };
        match (About { input, row }).holds(condition)? {
            true => Ok(()),
            false => Err(refused(input, row)),
        }
    }

    fn write(&mut self, kind: &str, input: &Value) -> Result<(), Fault> {
        match kind {
            "Put" => {
                let item = input["Item"].as_object().cloned().unwrap_or_default();
                self.0.insert(key(&input["Item"])?, Arc::new(item));
            }
            "Delete" => drop(self.0.remove(&key(&input["Key"])?)),
            "Update" => {
                let at = key(&input["Key"])?;
                let found = self.0.get(&at).cloned();
                let mut row = found
                    .as_deref()
                    .cloned()
                    .unwrap_or_else(|| input["Key"].as_object().cloned().unwrap_or_default());
                let expression = input["UpdateExpression"].as_str().unwrap_or_default();
                let about = About {
                    input,
                    row: found.as_deref(),
                };
                about.update(expression, &mut row)?;
                self.0.insert(at, Arc::new(row));
            }
            "ConditionCheck" => {}
            _ => return Err(invalid(&format!("the stub has no {kind}"))),
        }
        Ok(())
    }

    fn transact(&mut self, input: &Value) -> Result<Value, Fault> {
        let items = input["TransactItems"].as_array();
        let items: Vec<(&String, &Value)> = items
            .into_iter()
            .flatten()
            .filter_map(|item| item.as_object()?.iter().next())
            .collect();
        if items.len() > 100 {
            return Err(invalid("at most 100 writes"));
        }
        let keys = items.iter().map(|(_, write)| target(write));
        if keys.collect::<Result<BTreeSet<Key>, Fault>>()?.len() < items.len() {
            return Err(invalid("a transaction writes a row once"));
        }
        let mut is_cancelled = false;
        let mut reasons = Vec::new();
        for (_, write) in &items {
            reasons.push(match self.check(write) {
                Ok(()) => json!({ "Code": "None" }),
                Err(fault) if fault.kind == "ConditionalCheckFailedException" => {
                    is_cancelled = true;
                    let mut reason = fault.details;
                    reason["Code"] = "ConditionalCheckFailed".into();
                    reason["Message"] = fault.message.into();
                    reason
                }
                Err(fault) => return Err(fault),
            });
        }
        if is_cancelled {
            let message = "Transaction cancelled, please refer cancellation reasons";
            let mut fault = Fault::new("TransactionCanceledException", message);
            fault.details["CancellationReasons"] = reasons.into();
            return Err(fault);
        }
        for (kind, write) in items {
            self.write(kind, write)?;
        }
        Ok(json!({}))
    }
}
