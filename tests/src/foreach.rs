//! Expands the loops of `infra/template.yaml` as the transform `AWS::LanguageExtensions` does, but only the functions
//! that the template uses. Anything else is an error, so that nobody takes this for the transform.

use serde_json::{Map, Value, json};

const LOOP: &str = "Fn::ForEach::";

/// Replaces each loop among the resources by the resources that it makes.
pub fn expand(mut template: Value) -> Result<Value, String> {
    let mappings = template["Mappings"].clone();
    let resources = template["Resources"].as_object_mut();
    let resources = resources.ok_or("there are no resources")?;
    let loops: Vec<String> = resources
        .keys()
        .filter(|key| key.starts_with(LOOP))
        .cloned()
        .collect();
    for name in loops {
        let parts = resources.remove(&name).unwrap_or_default();
        let [
            Value::String(variable),
            Value::Array(items),
            Value::Object(body),
        ] = parts.as_array().map_or(&[][..], Vec::as_slice)
        else {
            return Err(format!(
                "{name}: write a variable, a list and the resources"
            ));
        };
        for item in items {
            let round = Round {
                placeholder: format!("${{{variable}}}"),
                variable,
                item: item.as_str().ok_or(format!("{name}: list words"))?,
                mappings: &mappings,
            };
            for (id, resource) in body {
                let made = id.replace(&round.placeholder, round.item);
                if made == *id {
                    return Err(format!("{id}: a loop makes it again and again"));
                }
                let resource = round.value(resource)?;
                if resources.insert(made.clone(), resource).is_some() {
                    return Err(format!("{made} is there twice"));
                }
            }
        }
    }
    Ok(template)
}

/// One iteration of a loop.
struct Round<'a> {
    variable: &'a str,
    /// `${Name}`
    placeholder: String,
    item: &'a str,
    mappings: &'a Value,
}

impl Round<'_> {
    fn value(&self, value: &Value) -> Result<Value, String> {
        match value {
            // CloudFormation leaves it as it stands.
            Value::String(text) if text.contains(&self.placeholder) => {
                Err(format!("{text:?}: write !Sub, or nothing is replaced"))
            }
            Value::Array(all) => all.iter().map(|one| self.value(one)).collect(),
            Value::Object(all) => match single(all) {
                Some((name, argument)) => self.function(name, argument),
                None => self.object(all),
            },
            plain => Ok(plain.clone()),
        }
    }

    fn object(&self, all: &Map<String, Value>) -> Result<Value, String> {
        let pairs = all.iter().map(|(key, value)| {
            if key.starts_with("Fn::") || key.contains(&self.placeholder) {
                return Err(format!("{key}: a loop cannot have it here"));
            }
            Ok((key.clone(), self.value(value)?))
        });
        Ok(Value::Object(pairs.collect::<Result<_, _>>()?))
    }

    fn function(&self, name: &str, argument: &Value) -> Result<Value, String> {
        let is_variable = name == "Ref" && argument == self.variable;
        if is_variable {
            return Ok(json!(self.item));
        }
        if name == "Fn::Sub" {
            return self.sub(argument);
        }
        let argument = self.value(argument)?;
        let texts = argument.as_array().and_then(|all| {
            let texts = all.iter().map(Value::as_str);
            texts.collect::<Option<Vec<&str>>>()
        });
        match (name, texts.as_deref()) {
            ("Fn::FindInMap", Some([map, key, name])) => {
                let found = &self.mappings[map][key][name];
                match found.is_null() {
                    true => Err(format!("the mapping {map} has no {name} of {key}")),
                    false => Ok(found.clone()),
                }
            }
            ("Fn::GetAtt", Some([id, attribute])) => {
                Ok(json!({ "Fn::GetAtt": format!("{id}.{attribute}") }))
            }
            ("Fn::Join", _) => match &argument[1] {
                Value::Array(parts) if argument[0] == "" => {
                    let texts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
                    let texts = texts.ok_or("Fn::Join: join words")?;
                    Ok(json!(texts.concat()))
                }
                _ => Err("Fn::Join: join without a separator".to_owned()),
            },
            ("Ref" | "Fn::GetAtt" | "Fn::FindInMap" | "Fn::If", _) => Ok(json!({ name: argument })),
            _ => Err(format!("{name} in a loop is not understood here")),
        }
    }

    /// Replaces the loop's variable, or the text's own variables.
    fn sub(&self, argument: &Value) -> Result<Value, String> {
        let text = match argument {
            Value::String(text) => text.replace(&self.placeholder, self.item),
            Value::Array(parts) => {
                let [Value::String(text), Value::Object(variables)] = &parts[..] else {
                    return Err("Fn::Sub: write a text and its variables".to_owned());
                };
                // AWS once took it for a resource when another variable stood beside it.
                if text.contains(&self.placeholder) {
                    return Err(format!("{text:?}: give {} another name", self.variable));
                }
                let mut text = text.clone();
                for (name, value) in variables {
                    let value = self.value(value)?;
                    let value = value.as_str().ok_or(format!("Fn::Sub: {name}: a word"))?;
                    text = text.replace(&format!("${{{name}}}"), value);
                }
                text
            }
            other => return Err(format!("Fn::Sub: {other}")),
        };
        match text.contains("${") {
            true => Ok(json!({ "Fn::Sub": text })),
            false => Ok(json!(text)),
        }
    }
}

/// Returns the function and its argument, if the object is one.
fn single(all: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = all.iter().next()?;
    let is_function = all.len() == 1 && (name == "Ref" || name.starts_with("Fn::"));
    is_function.then_some((name, argument))
}

/// Expands one loop over `A` and `B`, whose resource `${N}Queue` has this property.
fn property(value: &Value) -> Result<Value, String> {
    let queue = json!({ "Properties": { "P": value } });
    let template = json!({
        "Mappings": { "Ids": { "A": { "Id": "a-1" }, "B": { "Id": "b-1" } } },
        "Resources": { "Other": {}, "Fn::ForEach::All": ["N", ["A", "B"], { "${N}Queue": queue }] },
    });
    let expanded = expand(template)?;
    let ids: Vec<&String> = expanded["Resources"].as_object().unwrap().keys().collect();
    assert_eq!(ids, ["AQueue", "BQueue", "Other"]);
    Ok(expanded["Resources"]["BQueue"]["Properties"]["P"].clone())
}

#[test]
fn a_loop_becomes_the_resources_that_it_makes() {
    let id = json!({ "Fn::FindInMap": ["Ids", { "Ref": "N" }, "Id"] });
    for (value, expected) in [
        (json!({ "Ref": "N" }), json!("B")),
        (json!({ "Ref": "Other" }), json!({ "Ref": "Other" })),
        (
            json!({ "Ref": { "Fn::Sub": "${N}Queue" } }),
            json!({ "Ref": "BQueue" }),
        ),
        (
            json!({ "Fn::GetAtt": [{ "Fn::Sub": "${N}Queue" }, "Arn"] }),
            json!({ "Fn::GetAtt": "BQueue.Arn" }),
        ),
        (
            json!({ "Fn::Sub": ["${AWS::StackName}-${Id}", { "Id": id }] }),
            json!({ "Fn::Sub": "${AWS::StackName}-b-1" }),
        ),
        (json!({ "Fn::Join": ["", ["x/", id]] }), json!("x/b-1")),
        (json!([id, 5, "text"]), json!(["b-1", 5, "text"])),
    ] {
        assert_eq!(property(&value).unwrap(), expected, "{value}");
    }
}

#[test]
fn what_the_template_does_not_use_is_an_error() {
    for value in [
        json!("${N}Queue"),
        json!({ "${N}": 1 }),
        json!({ "Fn::Select": [0, ["a"]] }),
        json!({ "Fn::ForEach::More": ["M", ["C"], {}] }),
        json!({ "Fn::FindInMap": ["Ids", { "Ref": "N" }, "Pace"] }),
        json!({ "Fn::Join": ["-", ["a", "b"]] }),
        json!({ "Fn::Join": ["", [{ "Ref": "Other" }]] }),
        json!({ "Fn::Sub": ["${N}-${Id}", { "Id": "a" }] }),
        json!({ "Fn::Sub": ["${Id}", { "Id": { "Ref": "Other" } }] }),
    ] {
        assert!(property(&value).is_err(), "{value}");
    }
    let twice =
        json!({ "Resources": { "AX": {}, "Fn::ForEach::L": ["N", ["A"], { "${N}X": {} }] } });
    assert!(expand(twice).is_err());
    let fixed = json!({ "Resources": { "Fn::ForEach::L": ["N", ["A"], { "X": {} }] } });
    assert!(expand(fixed).is_err());
    let parameter = json!({ "Resources": { "Fn::ForEach::L": ["N", { "Ref": "P" }, {}] } });
    assert!(expand(parameter).is_err());
}
