//! Stubs of SQS and Secrets Manager.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A refusal, as the services with JSON say it.
#[derive(Debug)]
pub struct Fault {
    pub kind: &'static str,
    pub message: String,
    /// Fields beside kind and message.
    pub details: Value,
}

impl Fault {
    pub fn new(kind: &'static str, message: &str) -> Self {
        Self {
            kind,
            message: message.to_owned(),
            details: json!({}),
        }
    }
}

/// Bodies of messages, by the last part of the queue's URL.
#[derive(Default)]
pub struct Queues(pub BTreeMap<String, Vec<String>>);

impl Queues {
    pub fn answer(&mut self, operation: &str, input: &Value) -> Result<Value, Fault> {
        if operation != "SendMessageBatch" {
            return Err(Fault::new("UnsupportedOperation", operation));
        }
        let url = input["QueueUrl"].as_str().unwrap_or_default();
        let (_, queue) = url.rsplit_once('/').unwrap_or_default();
        let entries = input["Entries"].as_array().into_iter().flatten();
        let entries: Vec<&Value> = entries.collect();
        if entries.is_empty() || entries.len() > 10 {
            return Err(Fault::new(
                "TooManyEntriesInBatchRequest",
                "1 to 10 entries",
            ));
        }
        let messages = self.0.entry(queue.to_owned()).or_default();
        let mut successful = Vec::new();
        for entry in entries {
            messages.push(entry["MessageBody"].as_str().unwrap_or_default().to_owned());
            let id = format!("message-{}", messages.len());
            successful.push(json!({ "Id": entry["Id"], "MessageId": id, "MD5OfMessageBody": "" }));
        }
        Ok(json!({ "Successful": successful, "Failed": [] }))
    }
}

/// Versions of a secret, the current one last.
#[derive(Default)]
struct Secret {
    versions: Vec<(String, String)>,
    is_deleted: bool,
}

#[derive(Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    pub fn answer(&mut self, operation: &str, input: &Value) -> Result<Value, Fault> {
        let text = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let version = (text("ClientRequestToken"), text("SecretString"));
        if operation == "CreateSecret" {
            let name = text("Name");
            return match self.0.get(&name) {
                Some(one) if one.is_deleted => {
                    Err(Fault::new("InvalidRequestException", "deleted"))
                }
                Some(_) => Err(Fault::new("ResourceExistsException", "it exists")),
                None => {
                    let answer = json!({ "Name": name, "VersionId": version.0 });
                    let secret = self.0.entry(name).or_default();
                    secret.versions.push(version);
                    Ok(answer)
                }
            };
        }
        let not_found = || Fault::new("ResourceNotFoundException", "no such secret or version");
        let name = text("SecretId");
        let secret = self.0.get_mut(&name).ok_or_else(not_found)?;
        if secret.is_deleted != (operation == "RestoreSecret") {
            return Err(Fault::new(
                "InvalidRequestException",
                "deleted, or not deleted",
            ));
        }
        match operation {
            "GetSecretValue" => {
                let wanted = input["VersionId"].as_str();
                let mut versions = secret.versions.iter().rev();
                let found = versions.find(|(id, _)| wanted.is_none_or(|wanted| wanted == id));
                let (id, value) = found.ok_or_else(not_found)?;
                Ok(json!({ "Name": name, "VersionId": id, "SecretString": value }))
            }
            "PutSecretValue" => {
                let answer = json!({ "Name": name, "VersionId": version.0 });
                secret.versions.push(version);
                // The current one and the previous one.
                let old = secret.versions.len().saturating_sub(2);
                secret.versions.drain(..old);
                Ok(answer)
            }
            "DeleteSecret" | "RestoreSecret" => {
                secret.is_deleted = operation == "DeleteSecret";
                Ok(json!({ "Name": name }))
            }
            _ => Err(Fault::new("InvalidParameterException", operation)),
        }
    }
}
