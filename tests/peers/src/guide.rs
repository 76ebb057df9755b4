//! The guide, `docs/guide.md`, typed from its beginning to its end as it stands there, so that it cannot rot.

use std::fs;
use std::time::Duration;

use crate::all::AllPeers;
use crate::terminal::{Terminal, fenced, given, root};

/// Commands of the guide whose work `make test` does itself: it builds, deploys, and takes down.
const DONE: [&str; 3] = ["make local", "make peers", "make local-down"];

#[test]
fn the_guide_works_as_it_is_typed_and_what_it_registers_delivers() {
    let guide = fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let mut script = "set -eu\n".to_owned();
    for block in fenced(&guide, "sh") {
        for line in block.lines() {
            let command = line.split('#').next().unwrap().trim_end();
            if DONE.contains(&command) {
                continue;
            }
            assert!(!line.starts_with("make "), "who runs {line:?} in a test?");
            script.push_str(line);
            script.push('\n');
        }
    }
    // Not necessarily all: a new integration works without a place in the guide.
    let registered = integrations::ALL.iter().filter(|one| {
        let registers = format!("chainloop integration registered add {} ", one.id);
        guide.contains(&registers)
    });
    let registered = registered.count();
    assert!(registered > 0, "the guide registers nothing");

    // What `make local` and `make peers` leave.
    let terminal = Terminal::new("guide");
    let local = terminal.path().join(".local");
    fs::create_dir_all(local.join("peers")).unwrap();
    let url = given("CHAINLOOP_INTEGRATIONS_URL");
    fs::write(
        local.join("env"),
        format!("export CHAINLOOP_INTEGRATIONS_URL='{url}'\n"),
    )
    .unwrap();
    let peers = AllPeers::start(&local.join("peers"));

    let (sender, typed) = std::sync::mpsc::channel();
    let ended = std::thread::scope(|scope| {
        let terminal = &terminal;
        scope.spawn(move || sender.send(terminal.run(&script)));
        loop {
            peers.keep();
            if let Ok(ended) = typed.recv_timeout(Duration::from_millis(100)) {
                break ended;
            }
        }
    });
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    peers.keep();
    let received = fs::read_dir(peers.received()).unwrap();
    assert_eq!(
        received.count(),
        registered,
        "each third party was sent something: {}",
        ended.stdout
    );
}
