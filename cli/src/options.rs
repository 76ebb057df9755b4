//! `--opt key=value`: reads values from their sources, and checks them against the integration's schema.

use api::inputs::Field;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::global::Global;
use crate::source::{Source, Surroundings, is_text, text, value};
use crate::table;

/// Syntax of options, for the help of the commands that have them.
pub(crate) const HELP: &str = "\
Sources of an option's value; a file, standard input or a variable keeps a secret out of the shell's history:
  --opt key=value      the text itself
  --opt key=@file      a file, without the line break at its end
  --opt key=-          standard input
  --opt key=env:NAME   an environment variable
  --opt 'key=\\@text'   the text after the backslash: @text";

/// Given options, as JSON that fits the schema.
#[derive(Debug)]
pub(crate) struct Given {
    pub inputs: Map<String, Value>,
    /// Secret fields whose value anyone on this machine could have seen.
    pub exposed: Vec<String>,
}

/// Reads the options of a command. Warns of exposed secrets, and prints the available options if one is invalid.
pub(crate) fn read(
    global: &Global,
    schema: &Value,
    given: &[String],
) -> anyhow::Result<Map<String, Value>> {
    read_fields(global, &api::inputs::fields(schema), given)
}

/// As [`read`], for some fields of a schema.
pub(crate) fn read_fields(
    global: &Global,
    fields: &[Field],
    given: &[String],
) -> anyhow::Result<Map<String, Value>> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut stdin = std::io::stdin().lock();
    let surroundings = Surroundings {
        stdin: &mut stdin,
        variable: &variable,
    };
    match parse(fields, given, surroundings) {
        Ok(Given { inputs, exposed }) => {
            for name in exposed {
                global.warn(&format!(
                    "{name:?} is a secret, and the shell's history and the process list show it: pass \
                     {name}=@FILE, {name}=- or {name}=env:NAME instead"
                ));
            }
            Ok(inputs)
        }
        Err(failure) => {
            if !fields.is_empty() {
                eprintln!("{}", table::inputs("Available options", fields));
            }
            Err(failure.into())
        }
    }
}

/// As [`read`], for a change: no field is required. Returns a merge patch in which `unset` fields are null. Fields that
/// are `there` can be unset even if the current schema does not know them.
pub(crate) fn read_patch(
    global: &Global,
    mut fields: Vec<Field>,
    given: &[String],
    unset: &[String],
    there: &[&Map<String, Value>],
) -> anyhow::Result<Map<String, Value>> {
    let mut faults = Vec::new();
    for name in unset {
        let is_there = there.iter().any(|inputs| inputs.contains_key(name));
        if !is_there && fields.iter().all(|field| field.name != *name) {
            faults.push(unknown(name, &fields));
        }
        if given
            .iter()
            .any(|option| option.split('=').next() == Some(name))
        {
            faults.push(format!("{name}: is both set and unset"));
        }
    }
    match faults.as_slice() {
        [] => {}
        [fault] => return Err(Failure::usage(fault).into()),
        _ => {
            let failure = Failure::usage("invalid options");
            return Err(failure.faults(faults).into());
        }
    }
    for field in &mut fields {
        field.required = false;
    }
    let mut patch = read_fields(global, &fields, given)?;
    patch.extend(unset.iter().map(|name| (name.clone(), Value::Null)));
    Ok(patch)
}

/// As [`text`], of a secret. Warns if it was an argument.
pub(crate) fn secret(global: &Global, flag: &str, given: &str) -> anyhow::Result<String> {
    if is_text(given) {
        warn_exposed(global, flag);
    }
    text(flag, given)
}

pub(crate) fn warn_exposed(global: &Global, flag: &str) {
    global.warn(&format!(
        "--{flag} is a secret, and the shell's history and the process list show it: pass @FILE, - or \
         env:NAME instead"
    ));
}

fn parse(
    fields: &[Field],
    given: &[String],
    mut surroundings: Surroundings<'_>,
) -> Result<Given, Failure> {
    let mut read = Given {
        inputs: Map::new(),
        exposed: Vec::new(),
    };
    let mut faults = Vec::new();
    for option in given {
        let Some((name, text)) = option.split_once('=') else {
            faults.push(format!(
                "invalid option {option:?}, the expected format is key=value"
            ));
            continue;
        };
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            faults.push(unknown(name, fields));
            continue;
        };
        let source = Source::of(text);
        if field.secret && matches!(source, Source::Here(text) if !text.is_empty()) {
            read.exposed.push(name.to_owned());
        }
        let cast = value(&source, &mut surroundings).and_then(|text| cast(field, &text));
        match cast {
            Ok(value) => {
                read.inputs.insert(name.to_owned(), value);
            }
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    // An invalid option is not reported as missing too.
    let is_named = |name: &str| {
        given
            .iter()
            .any(|option| option.split('=').next() == Some(name))
    };
    let missing = fields.iter().filter(|field| field.is_missing(is_named));
    faults.extend(missing.map(|field| format!("{}: {}", field.name, field.missing())));
    match faults.as_slice() {
        [] => Ok(read),
        [fault] => Err(Failure::usage(fault)),
        _ => Err(Failure::usage("invalid options").faults(faults)),
    }
}

fn cast(field: &Field, text: &str) -> Result<Value, String> {
    let value = api::inputs::cast(field, text).map_err(|fault| fault.detail)?;
    if !field.choices.is_empty() && !field.choices.iter().any(|choice| choice == text) {
        return Err(format!("must be one of {}", field.choices.join(", ")));
    }
    Ok(value)
}

fn unknown(name: &str, fields: &[Field]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    match api::inputs::nearest(name, &names) {
        Some(nearest) => format!("{name}: is not known; did you mean {nearest:?}?"),
        None if fields.is_empty() => {
            format!("{name}: is not known; the integration takes no options")
        }
        None => format!("{name}: is not known"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn schema() -> Vec<Field> {
        api::inputs::fields(&json!({
            "type": "object",
            "required": ["repository"],
            "properties": {
                "repository": { "type": "string" },
                "password": { "type": "string", "format": "password", "writeOnly": true },
                "port": { "type": "integer" },
                "ratio": { "type": "number" },
                "plain": { "type": "boolean" },
                "mode": { "type": "string", "enum": ["one", "two"] },
            },
        }))
    }

    fn parsed(given: &[&str]) -> Result<Given, String> {
        let given: Vec<String> = given.iter().copied().map(Into::into).collect();
        let variable = |name: &str| (name == "SECRET").then(|| "from env".to_owned());
        let surroundings = Surroundings {
            stdin: &mut &b"from stdin\n"[..],
            variable: &variable,
        };
        parse(&schema(), &given, surroundings)
            .map_err(|failure| crate::failure::text(&failure.into()))
    }

    fn inputs_of(given: &[&str]) -> Value {
        Value::Object(parsed(given).unwrap().inputs)
    }

    #[test]
    fn the_first_equals_sign_splits_and_commas_do_not() {
        assert_eq!(
            inputs_of(&["repository=a=b,c=d"]),
            json!({ "repository": "a=b,c=d" })
        );
    }

    #[test]
    fn the_last_of_two_wins() {
        assert_eq!(
            inputs_of(&["repository=a", "repository=b"]),
            json!({ "repository": "b" })
        );
    }

    #[test]
    fn values_get_the_type_of_their_field() {
        let given = [
            "repository=12",
            "port=25",
            "ratio=0.5",
            "plain=T",
            "mode=two",
        ];
        assert_eq!(
            inputs_of(&given),
            json!({ "repository": "12", "port": 25, "ratio": 0.5, "plain": true, "mode": "two" })
        );
    }

    #[test]
    fn a_value_can_come_from_a_file_from_stdin_and_from_a_variable() {
        let path = std::env::temp_dir().join(format!("chainloop-option-{}", std::process::id()));
        fs::write(&path, "from file\r\n").unwrap();
        let read = parsed(&[&format!("repository=@{}", path.display()), "password=-"]).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            Value::Object(read.inputs),
            json!({ "repository": "from file", "password": "from stdin" })
        );
        assert!(read.exposed.is_empty());
        assert_eq!(
            inputs_of(&["repository=env:SECRET"]),
            json!({ "repository": "from env" })
        );
    }

    #[test]
    fn a_backslash_keeps_a_value_as_it_is_where_that_is_needed() {
        for (given, value) in [
            (r"\@name", "@name"),
            (r"\-", "-"),
            (r"\env:X", "env:X"),
            (r"\\@name", r"\@name"),
            (r"\\server", r"\\server"),
            ("-x", "-x"),
        ] {
            let given = format!("repository={given}");
            assert_eq!(
                inputs_of(&[&given]),
                json!({ "repository": value }),
                "{given}"
            );
        }
    }

    #[test]
    fn a_secret_on_the_command_line_works_and_is_noticed() {
        let read = parsed(&["repository=a", "password=hunter2"]).unwrap();
        assert_eq!(read.inputs["password"], "hunter2");
        assert_eq!(read.exposed, ["password"]);
    }

    #[test]
    fn what_is_wrong_is_told_all_at_once() {
        for (given, text) in [
            (
                &["repository"][..],
                "invalid option \"repository\", the expected format is key=value",
            ),
            (
                &["repository=a", "repo=b"],
                "repo: is not known; did you mean \"repository\"?",
            ),
            (&["repository=a", "zzz=b"], "zzz: is not known"),
            (
                &["repository=a", "plain=perhaps"],
                "plain: invalid option \"perhaps\", the expected format is \"boolean\"",
            ),
            (
                &["repository=a", "mode=three"],
                "mode: must be one of one, two",
            ),
            (&[], "repository: is required"),
            (
                &["repository=env:NONE"],
                "repository: the environment variable \"NONE\" is not set",
            ),
            (
                &["port=x", "plan=true"],
                "invalid options\n    port: invalid option \"x\", the expected format is \
                 \"integer\"\n    plan: is not known; did you mean \"plain\"?\n    repository: is required",
            ),
        ] {
            assert_eq!(parsed(given).unwrap_err(), text, "{given:?}");
        }
    }
}
