//! `chainloop where`: places that have evidence of a digest.

use serde_json::{Value, json};

use crate::api::{Api, Asked};
use crate::deliveries::{delivery, with};

const HEX: &str = "1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

fn place(id: &str, state: &str) -> Value {
    let more = json!({
        "registration_name": "prod-images", "in_receipt": true, "receipt": { "digest": "sha256:00" },
    });
    with(delivery(id, state), &more)
}

/// These places, and what the third parties say to a check of `d-1` and `d-2`.
fn api(places: &[(&'static str, &'static str)], checked: [&'static str; 2]) -> Api {
    let items: Vec<Value> = places.iter().map(|(id, state)| place(id, state)).collect();
    Api::start(move |_, Asked { line, .. }| {
        let presence = |state: &str| {
            let reason = (state != "there").then_some("as it says");
            json!({ "state": state, "reason": reason })
        };
        let answer = match line.as_str() {
            "POST /v1/deliveries/d-1/check" => presence(checked[0]),
            "POST /v1/deliveries/d-2/check" => presence(checked[1]),
            _ => json!({ "items": items, "next": null }),
        };
        (200, answer.to_string())
    })
}

#[test]
fn where_a_digest_went_is_told_with_what_is_there_to_find_it_by() {
    let api = api(&[("d-1", "delivered"), ("d-2", "failed")], ["there"; 2]);
    let ran = api.run(&["where", HEX]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        api.lines(),
        [format!("GET /v1/digests/sha256:{HEX}/places?limit=50")]
    );
    for text in [
        "prod-images (webhook)",
        "delivered ",
        "shop/nightly",
        "d-2",
        "digest: sha256:00",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let told = api.run(&["where", HEX, "-o", "json"]).json();
    assert_eq!(told[0]["id"], "d-1");
    assert_eq!(told[0]["registrationName"], "prod-images");
    assert_eq!(told[0]["inReceipt"], true);
    assert!(told[0].get("presence").is_none(), "{told}");
}

#[test]
fn the_exit_code_says_whether_a_place_has_it() {
    let there = ["there"; 2];
    for (places, checked, plain, with_check) in [
        (&[("d-1", "delivered"), ("d-3", "failed")][..], there, 0, 0),
        (&[("d-1", "delivered")], ["gone", "there"], 0, 3),
        (&[("d-1", "delivered")], ["unknown", "there"], 0, 0),
        (
            &[("d-1", "delivered"), ("d-2", "delivered")],
            ["gone", "there"],
            0,
            0,
        ),
        (
            &[("d-1", "delivered"), ("d-3", "pending")],
            ["gone", "there"],
            0,
            4,
        ),
        (&[("d-3", "failed"), ("d-4", "pending")], there, 4, 4),
        (&[("d-3", "failed"), ("d-4", "skipped")], there, 3, 3),
        (&[], there, 3, 3),
    ] {
        let api = api(places, checked);
        assert_eq!(api.run(&["where", HEX]).code, plain, "{places:?}");
        let ran = api.run(&["where", HEX, "--check"]);
        assert_eq!(ran.code, with_check, "{places:?} {checked:?}");
    }
}

#[test]
fn what_third_parties_say_is_told_beside_the_state() {
    let api = api(&[("d-1", "delivered"), ("d-3", "failed")], ["gone"; 2]);
    let ran = api.run(&["where", HEX, "--check"]);
    assert!(ran.stdout.contains(", gone"), "{}", ran.stdout);
    assert!(ran.stdout.contains("as it says"), "{}", ran.stdout);
    let told = api.run(&["where", HEX, "--check", "-o", "json"]).json();
    assert_eq!(told[0]["presence"]["state"], "gone");
    assert!(told[1].get("presence").is_none(), "{told}");
}

#[test]
fn a_check_that_is_refused_is_unknown() {
    let api = Api::start(|_, Asked { line, .. }| match line.starts_with("GET") {
        true => {
            let page = json!({ "items": [place("d-1", "delivered")], "next": null });
            (200, page.to_string())
        }
        false => {
            let problem = json!({
                "status": 403, "code": "forbidden", "title": "No", "detail": "not for viewers",
                "request_id": "req-1",
            });
            (403, problem.to_string())
        }
    });
    let ran = api.run(&["where", HEX, "--check", "-o", "json"]);
    let presence = &ran.json()[0]["presence"];
    assert_eq!((ran.code, &presence["state"]), (0, &json!("unknown")));
    let reason = presence["reason"].as_str().unwrap();
    assert!(reason.contains("not for viewers"), "{reason}");
}

#[test]
fn an_unknown_digest_and_a_malformed_one_are_told_apart() {
    let api = Api::start(|_, _| {
        let problem = json!({
            "status": 404, "code": "not-found", "title": "Not found", "detail": "no attestation has it",
            "request_id": "req-1",
        });
        (404, problem.to_string())
    });
    let ran = api.run(&["where", HEX]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("no attestation has it"),
        "{}",
        ran.stderr
    );
    let ran = api.run(&["where", "sha256:12"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}
