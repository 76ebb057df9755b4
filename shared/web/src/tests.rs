use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let mut all = response.headers.iter();
    let found = all.find(|(own, _)| *own == name);
    &found.unwrap_or_else(|| panic!("no header {name}")).1
}

fn below(name: &str) -> Response {
    answer(&format!("/console/{}/{name}", *VERSION), None)
}

/// Every text, with its name.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = FILES.iter().map(|file| (file.name, file.text));
    files.chain([("index.html", PAGE)])
}

/// The texts between two words.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    let rest = text.split(begin).skip(1);
    rest.map(|rest| rest.split(end).next().unwrap()).collect()
}

#[test]
fn the_page_and_each_of_its_files_are_served_with_their_type() {
    let page = answer("/console", None);
    assert_eq!(page.status, 200);
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    for file in FILES {
        let (_, ending) = file.name.rsplit_once('.').unwrap();
        let kind = match ending {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{other}: say its media type here"),
        };
        let response = below(file.name);
        assert_eq!((response.status, response.body), (200, file.text));
        assert_eq!(header(&response, "content-type"), kind, "{}", file.name);
    }
}

#[test]
fn every_file_of_the_folder_is_served() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
    let there = fs::read_dir(folder).unwrap();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let served = all().map(|(name, _)| name.to_owned());
    assert_eq!(
        there.collect::<BTreeSet<_>>(),
        served.collect::<BTreeSet<_>>()
    );
}

#[test]
fn the_page_and_its_scripts_name_every_file_and_no_other() {
    let page = answer("/console", None).body;
    let addresses = [
        between(page, "href=\"", "\""),
        between(page, "src=\"", "\""),
    ]
    .concat();
    let below_version = format!("console/{}/", *VERSION);
    let of_page = addresses.iter();
    let of_page = of_page.filter_map(|address| address.strip_prefix(&below_version));
    let mut named: BTreeSet<&str> = of_page.collect();
    for file in FILES.iter().filter(|file| file.kind == SCRIPT) {
        let imported = between(file.text, " from \"./", "\"");
        let imports = file.text.matches("\nimport ").count();
        assert_eq!(imported.len(), imports, "{}: import by ./", file.name);
        let when_looked_at = between(file.text, "import(\"./", "\")");
        let imports = file.text.matches("import(").count();
        assert_eq!(when_looked_at.len(), imports, "{}: import by ./", file.name);
        named.extend(imported.into_iter().chain(when_looked_at));
    }
    let served: BTreeSet<&str> = FILES.iter().map(|file| file.name).collect();
    assert_eq!(named, served);
}

#[test]
fn what_is_not_there_is_not_found() {
    for path in [
        "/",
        "/console/",
        "/console/app.js",
        "/console/0000000000000000/app.js",
        "/v1/deliveries",
        "/consoles",
    ] {
        assert_eq!(answer(path, None).status, 404, "{path}");
    }
    for name in ["", "index.html", "../Cargo.toml", "app.js/", "lib.rs"] {
        assert_eq!(below(name).status, 404, "{name}");
    }
}

#[test]
fn a_mapping_of_a_domain_name_may_stand_before_the_path() {
    assert_eq!(answer("/chainloop/console", None).status, 200);
    let path = format!("/chainloop/console/{}/app.js", *VERSION);
    assert_eq!(answer(&path, None).status, 200);
}

#[test]
fn browsers_ask_for_the_page_each_time_and_keep_its_files() {
    let page = answer("/console", None);
    assert_eq!(header(&page, "cache-control"), "no-cache");
    let tag = header(&page, "etag").to_owned();
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"of-yesterday\", {tag}"),
    ] {
        let again = answer("/console", Some(&known));
        assert_eq!((again.status, again.body), (304, ""), "{known}");
        assert_eq!(header(&again, "etag"), tag);
    }
    assert_eq!(answer("/console", Some("\"of-yesterday\"")).status, 200);
    let script = below("app.js");
    assert_eq!(
        header(&script, "cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert!(!page.body.contains("VERSION"), "{}", page.body);
}

#[test]
fn every_response_keeps_to_its_own_origin() {
    let responses = [
        answer("/console", None),
        answer("/elsewhere", None),
        below("app.js"),
    ];
    for response in responses {
        let policy = header(&response, "content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.split("; ").any(|own| own == part), "{part}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "referrer-policy"), "no-referrer");
    }
}

#[test]
fn no_file_refers_to_another_origin() {
    for (name, text) in all() {
        let addresses = between(text, "://", "\"").len();
        // The name of SVG's language is written as an address, and nobody goes there.
        let of_svg = text.matches("\"http://www.w3.org/2000/svg\"").count();
        assert_eq!(addresses, of_svg, "{name} names another origin");
        for begin in ["\"//", "'//", "(//", "url(", "@import"] {
            assert!(!text.contains(begin), "{name}: {begin}");
        }
    }
}

#[test]
fn no_file_has_script_or_style_within_markup() {
    for (name, text) in all().filter(|(name, _)| *name != "console.css") {
        assert!(!text.contains("<style"), "{name}");
        for (begin, why) in [
            (" style=", "a style within markup"),
            ("javascript:", "a script in an address"),
            ("innerHTML", "text that becomes markup"),
            ("outerHTML", "text that becomes markup"),
            ("insertAdjacentHTML", "text that becomes markup"),
            ("document.write", "text that becomes markup"),
            ("eval(", "text that becomes a script"),
            ("new Function", "text that becomes a script"),
        ] {
            assert!(!text.contains(begin), "{name}: {why}: {begin}");
        }
    }
    for script in between(PAGE, "<script", "</script>") {
        assert!(script.ends_with('>'), "a script within the page: {script}");
    }
    let handlers = PAGE
        .split_whitespace()
        .filter(|word| word.starts_with("on"));
    let handlers: Vec<&str> = handlers.filter(|word| word.contains("=\"")).collect();
    assert!(handlers.is_empty(), "{handlers:?}");
}

/// Bounds all of it, of which the first view needs a part.
#[test]
fn the_whole_is_small() {
    let bytes: usize = all().map(|(_, text)| text.len()).sum();
    assert!(bytes < 100_000, "{bytes} bytes");
}
