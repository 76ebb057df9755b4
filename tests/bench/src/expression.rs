//! DynamoDB's expressions, as far as the functions use them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

pub type Row = Map<String, Value>;

/// Names and values that an expression speaks of, and the row that it is about.
pub struct About<'a> {
    pub input: &'a Value,
    pub row: Option<&'a Row>,
}

/// An expression that is not understood.
#[derive(Debug)]
pub struct Unknown(pub String);

/// Orders two attributes of the same type.
pub fn order(a: &Value, b: &Value) -> Option<Ordering> {
    let number = |value: &Value| value["N"].as_str()?.parse::<f64>().ok();
    match (a["S"].as_str(), b["S"].as_str()) {
        (Some(a), Some(b)) => Some(a.cmp(b)),
        _ => number(a)?.partial_cmp(&number(b)?),
    }
}

impl<'a> About<'a> {
    /// Resolves an attribute's name, which may be written as `#name`.
    pub fn name(&self, word: &'a str) -> &'a str {
        let names = &self.input["ExpressionAttributeNames"];
        names[word].as_str().unwrap_or(word)
    }

    /// Resolves `:value`, or else an attribute of the row.
    pub fn value(&self, word: &'a str) -> Option<&'a Value> {
        match word.starts_with(':') {
            true => self.input["ExpressionAttributeValues"].get(word),
            false => self.row?.get(self.name(word)),
        }
    }

    /// Evaluates a condition: terms with `AND` and `OR` between them, without parentheses.
    pub fn holds(&self, condition: &'a str) -> Result<bool, Unknown> {
        let mut holds = false;
        for all in condition.split(" OR ") {
            let mut every = true;
            for term in all.split(" AND ") {
                every &= self.term(term.trim())?;
            }
            holds |= every;
        }
        Ok(holds)
    }

    fn term(&self, term: &'a str) -> Result<bool, Unknown> {
        let unknown = || Unknown(format!("the condition {term}"));
        if let Some((function, arguments)) = term.split_once('(') {
            let arguments = arguments.strip_suffix(')').ok_or_else(unknown)?;
            let mut arguments = arguments.split(',').map(|word| self.value(word.trim()));
            let mut next = || arguments.next().flatten();
            return match function {
                "attribute_exists" => Ok(next().is_some()),
                "attribute_not_exists" => Ok(next().is_none()),
                "begins_with" => {
                    let mut text = || next()?["S"].as_str();
                    let (whole, prefix) = (text(), text().ok_or_else(unknown)?);
                    Ok(whole.is_some_and(|whole| whole.starts_with(prefix)))
                }
                _ => Err(unknown()),
            };
        }
        let words: Vec<&str> = term.split_whitespace().collect();
        let [left, operator, right] = words[..] else {
            return Err(unknown());
        };
        let both = self.value(left).zip(self.value(right));
        let order = both.and_then(|(left, right)| order(left, right));
        let fits: fn(Ordering) -> bool = match operator {
            "=" => Ordering::is_eq,
            "<>" => Ordering::is_ne,
            "<" => Ordering::is_lt,
            "<=" => Ordering::is_le,
            ">" => Ordering::is_gt,
            ">=" => Ordering::is_ge,
            _ => return Err(unknown()),
        };
        // A comparison with what is not there does not hold.
        Ok(order.is_some_and(fits))
    }

    /// Changes a row by `SET name = :value, …` and `ADD name :value, …`, in this order.
    pub fn update(&self, expression: &'a str, row: &mut Row) -> Result<(), Unknown> {
        let unknown = || Unknown(format!("the update {expression}"));
        let (set, add) = match expression.split_once("ADD ") {
            Some((set, add)) => (set, add),
            None => (expression, ""),
        };
        let set = set.trim().strip_prefix("SET ").unwrap_or(set.trim());
        let parts = |list: &'a str| list.split(',').map(str::trim).filter(|one| !one.is_empty());
        for one in parts(set) {
            let (name, value) = one.split_once(" = ").ok_or_else(unknown)?;
            let value = self.value(value).ok_or_else(unknown)?;
            row.insert(self.name(name).to_owned(), value.clone());
        }
        for one in parts(add) {
            let (name, value) = one.split_once(' ').ok_or_else(unknown)?;
            let number = |value: &Value| value["N"].as_str()?.parse::<i128>().ok();
            let added = self.value(value).and_then(number).ok_or_else(unknown)?;
            let name = self.name(name);
            let sum = row.get(name).and_then(number).unwrap_or_default() + added;
            let sum = serde_json::json!({ "N": sum.to_string() });
            row.insert(name.to_owned(), sum);
        }
        Ok(())
    }
}
