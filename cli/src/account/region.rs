//! Region of the account, from where AWS's own tools take it: a variable, or the profile.

use std::path::{Path, PathBuf};

/// Returns the configured region, given how variables and files are read.
pub(super) fn configured(
    variable: impl Fn(&str) -> Option<String>,
    read: impl Fn(&Path) -> Option<String>,
) -> Option<String> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(region) = given("AWS_REGION").or_else(|| given("AWS_DEFAULT_REGION")) {
        return Some(region);
    }
    let profile = given("AWS_PROFILE").or_else(|| given("AWS_DEFAULT_PROFILE"));
    let profile = profile.as_deref().unwrap_or("default");
    let places = [
        ("AWS_CONFIG_FILE", ".aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
    ];
    places.into_iter().find_map(|(name, usual)| {
        let path = given(name).map(PathBuf::from);
        let path = path.or_else(|| Some(Path::new(&given("HOME")?).join(usual)))?;
        in_profile(&read(&path)?, profile)
    })
}

/// Returns the region in the section of a profile. The section is called `profile <name>` in the one file and `<name>` in
/// the other; indented lines belong to a setting with parts, such as `s3`.
fn in_profile(text: &str, profile: &str) -> Option<String> {
    let mut is_ours = false;
    for line in text.lines() {
        let section = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if let Some((section, _)) = section {
            let section = section.trim();
            let name = section.strip_prefix("profile ").map_or(section, str::trim);
            is_ours = name.trim_matches(['"', '\'']) == profile;
        } else if let Some((key, value)) = line.split_once('=')
            && is_ours
            && key.trim_end() == "region"
            && !value.trim().is_empty()
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# ours
[default]
region = eu-central-1
[profile prod]
output = json
s3 =
    region = nowhere
region=eu-west-3
[sso-session prod-login]
region = us-east-2
[profile bare]
output = json
";

    fn region(variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        configured(variable, |path| match path.to_str()? {
            "/home/op/.aws/config" => Some(CONFIG.to_owned()),
            "/home/op/.aws/credentials" => Some("[bare]\nregion = ap-south-1\n".to_owned()),
            "/etc/aws" => Some("[default]\nregion = sa-east-1\n".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn a_variable_wins_over_the_profile_and_the_first_over_the_second() {
        let home = ("HOME", "/home/op");
        let (first, second) = (("AWS_REGION", "a"), ("AWS_DEFAULT_REGION", "b"));
        let empty = ("AWS_REGION", "");
        for (variables, expected) in [
            (&[home, second, first][..], Some("a")),
            (&[home, second], Some("b")),
            (&[home, empty, second], Some("b")),
            (&[home], Some("eu-central-1")),
            (&[home, ("AWS_PROFILE", "prod")], Some("eu-west-3")),
            (&[home, ("AWS_DEFAULT_PROFILE", "prod")], Some("eu-west-3")),
            (&[home, ("AWS_PROFILE", "bare")], Some("ap-south-1")),
            (&[home, ("AWS_PROFILE", "absent")], None),
            (&[home, ("AWS_CONFIG_FILE", "/etc/aws")], Some("sa-east-1")),
            (&[], None),
        ] {
            assert_eq!(region(variables).as_deref(), expected, "{variables:?}");
        }
    }
}
