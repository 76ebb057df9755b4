//! The API as it is, over a table in memory, for what one answer alone does not show.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use api::{Actor, Client, Role};
use memory::Memory;
use percent_encoding::percent_decode_str;
use pipeline::http::{self, Caller, Request, functions};
use serde_json::{Value, json};

use crate::api::{Api, Asked};

type Answer = (u16, String);

/// An API with nothing in it. A third party refuses each registration whose inputs hold the word `refused`.
pub(crate) fn start() -> Api {
    start_with(|_| None)
}

/// As [`start`]; before it answers a request, somebody else asks what `meanwhile` says.
pub(crate) fn start_with(
    meanwhile: impl Fn(&Asked) -> Option<Asked> + Send + Sync + 'static,
) -> Api {
    let (ask, asked) = channel::<(Asked, Sender<Answer>)>();
    // The memory is of one thread.
    std::thread::spawn(move || serve(&asked));
    let ask = Mutex::new(ask);
    let send = move |asked: &Asked| {
        let (answer, answered) = channel();
        let sent = ask.lock().unwrap().send((asked.clone(), answer));
        sent.unwrap();
        answered.recv().unwrap()
    };
    Api::start(move |_, asked| {
        if let Some(other) = meanwhile(asked) {
            let (status, body) = send(&other);
            assert!(status < 300, "{body}");
        }
        send(asked)
    })
}

fn serve(asked: &Receiver<(Asked, Sender<Answer>)>) {
    let memory = Memory::new(|_, _, event| {
        let verdict = match event.to_string().contains("refused") {
            true => json!({ "refused": { "text": "reach it", "status": 403, "answer": null } }),
            false => json!({ "works": {} }),
        };
        Box::pin(std::future::ready(Ok(verdict)))
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    while let Ok((asked, answer)) = asked.recv() {
        // The client may have closed the connection.
        let _ = answer.send(runtime.block_on(one(&memory, &asked)));
    }
}

async fn one(memory: &Memory, asked: &Asked) -> Answer {
    let (method, target) = asked.line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: method.into(),
        path: path.into(),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                let value = percent_decode_str(value).decode_utf8().unwrap();
                (name.to_owned(), value.into_owned())
            })
            .collect(),
        headers: asked.headers.iter().cloned().collect(),
        body: asked.body.clone().into(),
        caller: Some(Caller {
            organization: "acme".into(),
            role: Role::Admin,
            workflows: Vec::new(),
            actor: Actor {
                id: "token-1".into(),
                ..Actor::named("ci")
            },
            valid_until: None,
            is_use_due: false,
            intake: None,
        }),
        client: Client::default(),
        id: "request-1".into(),
    };
    let all = functions::all::<Memory, ()>().into_iter();
    let routes: Vec<_> = all.flat_map(|(_, routes)| routes).collect();
    let response = http::answer(&routes, memory, &request).await;
    (response.status, response.body.to_string())
}

/// Lists registrations (`registered`) or attachments (`attached`), as the API returns them.
pub(crate) fn list(api: &Api, what: &str) -> Vec<Value> {
    let ran = api.run(&["integration", what, "list", "-o", "json"]);
    ran.json().as_array().unwrap().clone()
}
