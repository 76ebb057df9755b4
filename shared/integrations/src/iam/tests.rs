//! Roles over an STS that answers as AWS's reference says; `tests/peers` has the whole of it.

use super::*;
use crate::caller::host;

#[test]
fn a_role_is_called_by_its_arn() {
    let role = |text: &str| RoleArn::try_from(text.to_owned());
    for text in [
        "arn:aws:iam::111122223333:role/chainloop-sboms",
        "arn:aws-cn:iam::111122223333:role/team/a/chainloop-sboms",
        "arn:aws-us-gov:iam::111122223333:role/a+=,.@_-b",
    ] {
        assert_eq!(role(text).unwrap().as_str(), text);
    }
    for text in [
        "",
        "chainloop-sboms",
        "arn:aws:iam::111122223333:user/chainloop-sboms",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role//chainloop",
        "arn:aws:iam::111122223333:role/chainloop-*",
        "arn:aws:iam::1111:role/chainloop-sboms",
        "arn:aws:iam:eu-central-1:111122223333:role/chainloop-sboms",
        "arn:aws:sts::111122223333:assumed-role/chainloop/x",
        "arn:evil\":iam::111122223333:role/chainloop-sboms",
        "arn:aws:iam::111122223333:role/chainloop sboms",
    ] {
        assert!(role(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_compared_as_iam_compares_them() {
    for (text, pattern, expected) in [
        (
            "arn:aws:iam::1:role/chainloop-a",
            "arn:aws:iam::*:role/chainloop-*",
            true,
        ),
        (
            "arn:aws:iam::1:role/x/chainloop-a",
            "arn:aws:iam::*:role/chainloop-*",
            false,
        ),
        (
            "arn:aws:iam::1:role/x:role/chainloop-a",
            "arn:aws:iam::*:role/chainloop-*",
            true,
        ),
        (
            "arn:aws-cn:iam::1:role/chainloop-a",
            "arn:aws:iam::*:role/chainloop-*",
            false,
        ),
        ("chainloop", "chainloop-*", false),
        ("chainloop-", "chainloop-*", true),
        ("abc", "a?c", true),
        ("ac", "a?c", false),
        ("aab", "*ab", true),
        ("", "*", true),
        ("", "", true),
        ("a", "", false),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} like {pattern}");
    }
    // No pattern costs more than its length times the text's.
    assert!(!is_like(
        &"a".repeat(500),
        &format!("{}b", "a*".repeat(100))
    ));
}

#[test]
fn each_partition_has_its_own_hosts() {
    assert_eq!(
        host("sts", "eu-central-1"),
        "sts.eu-central-1.amazonaws.com"
    );
    assert_eq!(host("s3", "cn-north-1"), "s3.cn-north-1.amazonaws.com.cn");
    assert_eq!(
        host("ecr-fips", "us-gov-west-1"),
        "ecr-fips.us-gov-west-1.amazonaws.com"
    );
}

fn caller() -> Caller {
    let key = AccessKey {
        id: "ASIAFUNCTION".to_owned(),
        secret: "canary-of-the-function".to_owned().into(),
        token: None,
    };
    Caller {
        bucket: "prod-bucket-1a2b".to_owned(),
        ..Caller::new("eu-central-1", key)
    }
}

#[test]
fn the_stacks_own_bucket_is_refused_by_each_of_its_names() {
    let http = crate::fixture::http().calling_as(caller());
    let refused = |url: &str, bucket: &str| http.refuse_own_bucket(url, bucket).is_err();
    for (url, bucket) in [
        (
            "https://s3.eu-central-1.amazonaws.com/prod-bucket-1a2b/k",
            "prod-bucket-1a2b",
        ),
        (
            "https://s3.eu-central-1.amazonaws.com/prod-bucket-1a2b/acme/k",
            "acme",
        ),
        (
            "https://s3.eu-central-1.amazonaws.com/prod%2Dbucket-1a2b/acme/k",
            "acme",
        ),
        (
            "https://s3.eu-central-1.amazonaws.com/x/..%2Fprod-bucket-1a2b/acme",
            "acme",
        ),
        (
            "https://prod-bucket-1a2b.s3.eu-central-1.amazonaws.com/acme/k",
            "acme",
        ),
        (
            "https://PROD-bucket-1a2b.s3.amazonaws.com:443/acme/k",
            "acme",
        ),
    ] {
        assert!(refused(url, bucket), "{url}");
    }
    for (url, bucket) in [
        ("https://s3.eu-central-1.amazonaws.com/sboms/k", "sboms"),
        (
            "https://s3.eu-central-1.amazonaws.com/prod-bucket-1a2bc/k",
            "prod-bucket-1a2bc",
        ),
    ] {
        assert!(!refused(url, bucket), "{url}");
    }
}
