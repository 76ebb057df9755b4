//! Every example that `--help` shows, typed as it stands there, in the order of one scenario: somebody sets up a registry,
//! pushes, looks, mends, and takes everything down again.
//!
//! The examples are read from `docs/commands`, which `cli/src/pages.rs` writes from the commands. What stands in them
//! for something of the reader's own is put in its place; nothing else is changed. An example that the scenario does not
//! tell of fails it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::registry::{self, DockerRegistry};
use crate::terminal::{Terminal, fenced, root};

/// Placeholders in examples for the reader's own values.
const API: &str = "https://api.example.org";
const TEST_API: &str = "https://test.example.org";
const REPOSITORY: &str = "us-east1-docker.pkg.dev/my-project/attestations";
const ANOTHER_REPOSITORY: &str = "registry.example.org/attestations";
const USERNAME: &str = "_json_key";
const TABLE: &str = "prod-Table-1A2B3C4D5E6F";
const ATTESTATION: &str = "sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";
const ATTACHMENT: &str = "6f0c1f0e-0000-4000-8000-000000000001";
const DELIVERY: &str = "6f0c1f0e-0000-8000-8000-000000000001";
const JOB: &str = "0198c0de-0000-7000-8000-000000000001";

/// A public key of a signer.
const RELEASE_KEY: &str = include_str!("../../../shared/verify/tests/files/p384.pub.pem");

const NEXT_KEY: &str = include_str!("../../../shared/verify/tests/files/rsa-2048.pub.pem");

const ISSUER: &str = "
name: builds
issuer: http://127.0.0.1:10
audience: https://api.example.org
rules:
- claims: {repository_id: {exact: '74'}}
  role: producer
  workflows: ['shop/*']
";

const POLICY: &str = "
name: nightly
workflow: shop/nightly-build
mode: warn
signers:
- kind: keyless
  name: github
  issuer: https://token.actions.githubusercontent.com
  identity: {prefix: 'https://github.com/acme/shop/'}
";

struct Scenario {
    terminal: Terminal,
    /// Examples of each command that the scenario has not told yet.
    examples: BTreeMap<String, Vec<String>>,
    placed: Vec<(&'static str, String)>,
}

/// End of an example: by itself, without the question that it would ask, or interrupted.
enum Ends {
    ByItself,
    /// It asks whether it should, and nobody is here to be asked.
    Sure,
    /// With Ctrl-C: it follows what goes on by itself, for longer than anybody needs to watch.
    Interrupted,
}

impl Scenario {
    fn begin(terminal: Terminal) -> Self {
        let mut examples = BTreeMap::new();
        for entry in fs::read_dir(root().join("docs/commands")).unwrap() {
            let page = fs::read_to_string(entry.unwrap().path()).unwrap();
            let title = page.lines().find_map(|line| line.strip_prefix("# "));
            let title = title.unwrap().trim_start_matches("chainloop ").to_owned();
            let block = fenced(&page, "sh").remove(0);
            let lines = block.replace("\\\n", "\u{0}");
            let own = lines.lines().map(|line| line.replace('\u{0}', "\\\n"));
            examples.insert(title, own.collect());
        }
        Self {
            terminal,
            examples,
            placed: Vec::new(),
        }
    }

    fn place(&mut self, example: &'static str, own: &str) {
        self.placed.retain(|(known, _)| *known != example);
        self.placed.push((example, own.to_owned()));
    }

    fn tell(&mut self, command: &str) {
        self.tell_of(command, &Ends::ByItself);
    }

    /// Leaves a command's examples out, for a reason.
    fn untold(&mut self, command: &str, why: &str) {
        let examples = self.examples.remove(command);
        assert!(examples.is_some(), "there is no command {command:?}");
        println!("did not run: chainloop {command}, which {why}");
    }

    fn sure(&mut self, command: &str) {
        self.tell_of(command, &Ends::Sure);
    }

    fn tell_of(&mut self, command: &str, ends: &Ends) {
        for typed in self.typed(command, ends) {
            self.run(&typed);
        }
    }

    /// Side by side, since each has to wait for the reconciler's next minute.
    fn meanwhile(&mut self, commands: &[(&str, Ends)]) {
        let typed: Vec<_> = commands
            .iter()
            .map(|(command, ends)| self.typed(command, ends))
            .collect();
        let scenario = &*self;
        std::thread::scope(|scope| {
            for own in &typed {
                scope.spawn(move || own.iter().for_each(|typed| scenario.run(typed)));
            }
        });
    }

    /// A command's examples, as they are typed here.
    fn typed(&mut self, command: &str, ends: &Ends) -> Vec<String> {
        let examples = self.examples.remove(command);
        let examples = examples.unwrap_or_else(|| {
            panic!("there is no command {command:?} any more: take it out of this scenario")
        });
        // Somebody else's command is not ours to try.
        let own = examples.iter().filter(|line| line.contains("chainloop "));
        let typed = own.map(|example| {
            let places = self.placed.iter();
            let typed = places.fold(example.clone(), |typed, (example, own)| {
                typed.replace(example, own)
            });
            match ends {
                Ends::Sure => format!("{typed} -y"),
                Ends::Interrupted if !typed.contains("--until-final") => {
                    format!("timeout --preserve-status --signal INT 4 {typed}")
                }
                _ => typed,
            }
        });
        typed.collect()
    }

    fn run(&self, typed: &str) {
        let began = std::time::Instant::now();
        let ended = self.terminal.run(typed);
        // Shown with --nocapture: what a reader would wait for.
        println!("{:6.1} s  {typed}", began.elapsed().as_secs_f64());
        let expected = if typed.starts_with("timeout ") {
            130
        } else {
            0
        };
        assert_eq!(
            ended.code, expected,
            "an example does not work:\n$ {typed}\n{}{}",
            ended.stdout, ended.stderr
        );
    }

    fn end(self) {
        let left: Vec<_> = self.examples.keys().collect();
        assert!(
            left.is_empty(),
            "tell of these commands' examples in this scenario, tests/peers/src/examples.rs: {left:?}"
        );
    }
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value:#}"))
}

#[test]
fn every_example_works_as_it_stands() {
    let server = DockerRegistry::with_password();
    let terminal = Terminal::new("examples");
    terminal.write("service-account.json", registry::PASSWORD.as_bytes());
    terminal.write("cas-token.txt", b"token-of-another-system\n");
    let token = terminal.variable("CHAINLOOP_INTEGRATIONS_TOKEN").to_owned();
    terminal.write("token.txt", token.as_bytes());
    terminal.write("release.pub", RELEASE_KEY.as_bytes());
    terminal.write("next.pub", NEXT_KEY.as_bytes());
    terminal.write("policy.yaml", POLICY.as_bytes());
    terminal.write("issuer.yaml", ISSUER.as_bytes());
    let completions = ".local/share/bash-completion/completions";
    fs::create_dir_all(terminal.path().join(completions)).unwrap();
    let (api, table) = ("CHAINLOOP_INTEGRATIONS_URL", "CHAINLOOP_INTEGRATIONS_TABLE");
    let (api, table) = (terminal.variable(api), terminal.variable(table));
    let (api, table) = (format!("'{api}'"), table.to_owned());

    let mut scenario = Scenario::begin(terminal);
    scenario.place(API, &api);
    scenario.place(TEST_API, &api);
    scenario.place(TABLE, &table);
    scenario.place(REPOSITORY, &server.repository("acme/attestations"));
    scenario.place(ANOTHER_REPOSITORY, &server.repository("acme/others"));
    scenario.place(USERNAME, registry::USERNAME);

    begin(&mut scenario);

    scenario.tell("integration available list");
    scenario.tell("integration available describe");
    scenario.tell("integration registered add");
    scenario.tell("integration registered list");
    scenario.tell("integration registered describe");
    scenario.tell("integration registered test");
    scenario.tell("integration registered rotate");
    scenario.tell("integration attached add");
    scenario.tell("integration attached list");

    scenario.tell("attestation craft");
    scenario.tell("attestation push");
    scenario.tell("attestation list");
    scenario.tell("workflow list");
    let pushed = scenario.terminal.ask("attestation list");
    scenario.place(ATTESTATION, text(&pushed[0]["attestation"]));
    let attached = scenario.terminal.ask("integration attached list");
    scenario.place(ATTACHMENT, text(&attached[0]["id"]));
    let delivered = scenario.terminal.ask("delivery list --state delivered");
    scenario.place(DELIVERY, text(&delivered[0]["id"]));
    scenario.tell("attestation describe");
    scenario.tell("integration attached preview");
    scenario.terminal.shown("rm attestation.json shop.cdx.json");
    scenario.tell("attestation download");

    scenario.tell("where");
    scenario.tell("open");
    scenario.tell("delivery list");
    scenario.tell("delivery describe");
    scenario.tell("delivery receipt");
    scenario.tell("delivery receipt-key");
    scenario.tell_of("delivery follow", &Ends::Interrupted);
    scenario.tell("integration registered pause");
    let again = "chainloop attestation craft again.json --project shop --workflow nightly-build";
    scenario.terminal.shown(again);
    scenario
        .terminal
        .shown("chainloop attestation push again.json");
    let waiting = scenario.terminal.ask("delivery list --state pending");
    let first = text(&delivered[0]["id"]).to_owned();
    scenario.place(DELIVERY, text(&waiting[0]["id"]));
    scenario.sure("delivery cancel");
    scenario.tell("integration registered resume");
    scenario.place(DELIVERY, &first);
    scenario.meanwhile(&[
        ("delivery redeliver", Ends::Sure),
        ("integration attached backfill", Ends::Sure),
        ("delivery audit", Ends::ByItself),
    ]);

    scenario.tell("job list");
    let jobs = scenario.terminal.ask("job list");
    scenario.place(JOB, text(&jobs[0]["id"]));
    scenario.tell("job describe");
    scenario.tell("job cancel");
    scenario.tell("audit list");

    scenario.tell("intake create");
    scenario.tell("intake list");
    scenario.tell("intake rotate");
    scenario.tell("intake delete");
    scenario.tell("organization api-token create");
    scenario.tell("organization api-token list");
    scenario.tell("organization api-token rotate");
    scenario.sure("organization api-token revoke");
    scenario.tell("organization quota");
    trust(&mut scenario);

    scenario.tell("export");
    scenario.sure("apply");
    scenario.tell("integration attached describe");
    scenario.tell("integration attached update");
    scenario.tell("integration registered update");
    scenario.sure("integration attached delete");
    scenario.sure("integration registered delete");
    scenario.end();
}

/// Commands before the first registration.
fn begin(scenario: &mut Scenario) {
    scenario.tell("version");
    scenario.tell("completion");
    scenario.tell("man");
    scenario.tell("bootstrap");
    scenario.tell("auth login");
    scenario.tell("auth status");
    scenario.tell("auth logout");
    scenario.tell("profile add");
    scenario.tell("profile list");
    scenario.tell("profile use");
    scenario.tell("profile delete");
}

fn trust(scenario: &mut Scenario) {
    scenario.tell("trust policy add");
    scenario.tell("trust policy list");
    scenario.tell("trust policy describe");
    scenario.tell("trust policy preview");
    scenario.tell("trust policy update");
    scenario.tell("trust policy delete");
    // Nobody asks the internet for keys.
    let issuer = "https://token.actions.githubusercontent.com";
    scenario.place(issuer, "http://127.0.0.1:9");
    scenario.tell("trust issuer add");
    scenario.tell("trust issuer list");
    scenario.tell("trust issuer describe");
    scenario.tell("trust issuer delete");
    scenario.untold("auth exchange", "needs the token of a CI job");
}
