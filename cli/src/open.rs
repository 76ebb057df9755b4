//! `chainloop open`: opens the console in a browser, signed in with a token that ends within an hour.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::tokens::Created;
use api::{Role, Timestamp};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::auth::expiry;
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::global::Global;
use crate::ids::{self, Given};
use crate::output::{self, Format};

pub(crate) const HELP: &str = "\
The browser gets a token of its own, exchanged for the one in use, with the role viewer and the same workflows. It ends \
within an hour. Where no browser can be opened, and with -o json, the address is printed: whoever has it has the token.

Examples:
  chainloop open
  chainloop open delivery 6f0c1f0e-0000-8000-8000-000000000001 --act
  chainloop open registrations prod-images
  chainloop open attestation --print \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Open {
    /// View to open; the deliveries by default
    view: Option<View>,
    /// ID of the delivery, digest of the attestation or of what is looked for, name of the registration
    id: Option<String>,
    /// Permit redelivering, cancelling, pausing and resuming: a token with the role operator
    #[arg(long)]
    act: bool,
    /// Print the address, and open nothing
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum View {
    Delivery,
    Attestation,
    Where,
    Registrations,
}

/// Time in which an opener that finds no browser says so.
const OPENING: Duration = Duration::from_secs(3);

/// The address as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    url: &'a str,
    role: Role,
    expires_at: Option<Timestamp>,
}

impl Open {
    pub(crate) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let query = self.query(&client)?;
        let role = if self.act {
            Role::Operator
        } else {
            Role::Viewer
        };
        let Created { text, token } = client
            .exchange_token(role)
            .with_context(|| format!("failed to get a token with the role {role}"))?;
        let page = format!("{}/console{query}", client.base());
        let url = format!("{page}#token={}", encoded(&text));
        if global.output == Format::Json {
            return output::json(&Address {
                url: &url,
                role,
                expires_at: token.expires_at,
            });
        }
        if self.print || !browse(&url) {
            if !self.print {
                global.info("no browser found: open this address");
            }
            return output::line(&url);
        }
        let until = expiry(token.expires_at);
        global.info(&format!("opened {page}, with role {role} until {until}"));
        Ok(())
    }

    fn query(&self, client: &Client) -> anyhow::Result<String> {
        let query = match (self.view, &self.id) {
            (None, None) => return Ok(String::new()),
            (Some(View::Registrations), None) => "?registrations".to_owned(),
            (Some(View::Delivery), Some(id)) => {
                let id = ids::whole(client, "deliveries", id)?;
                format!("?delivery={}", encoded(&id))
            }
            (Some(View::Attestation), Some(id)) => {
                format!("?attestation={}", digest(id, client)?)
            }
            (Some(View::Where), Some(id)) => format!("?where={}", digest(id, client)?),
            (Some(View::Registrations), Some(name)) => {
                let name = ids::whole(client, "registrations", name)?;
                format!("?registrations={}", encoded(&name))
            }
            (_, None) => {
                return Err(Failure::usage("no ID given")
                    .advice("Pass the ID of the delivery, or a digest.")
                    .into());
            }
            (None, Some(_)) => unreachable!("the first word is the view"),
        };
        Ok(query)
    }
}

fn digest(text: &str, client: &Client) -> anyhow::Result<String> {
    let given: Given = text
        .parse()
        .map_err(|error| Failure::usage(format!("{text:?} is no digest: {error}")))?;
    Ok(given.whole(client)?.to_string())
}

/// Opens a browser. Reports whether one was found: the desktop's opener without a desktop would take over the terminal.
fn browse(url: &str) -> bool {
    let is_mac = cfg!(target_os = "macos");
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_mac && !is_set("DISPLAY") && !is_set("WAYLAND_DISPLAY") {
        return false;
    }
    let opener = if is_mac { "open" } else { "xdg-open" };
    let mut command = Command::new(opener);
    command.arg(url).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut opener) = command.spawn() else {
        return false;
    };
    // Without a desktop it may be the browser itself, which goes on.
    let until = Instant::now() + OPENING;
    while Instant::now() < until {
        if let Ok(Some(status)) = opener.try_wait() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}
