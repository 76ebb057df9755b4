//! The API as it is, over a table in memory, for what one answer alone does not show.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use pipeline::api;
use pipeline::api::{Caller, Request, Route, attachments, deliveries, idempotency, registrations};
use pipeline::memory::Memory;
use pipeline::rows::{Actor, Client, Role};
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
        // Whoever asked may have gone.
        let _ = answer.send(runtime.block_on(one(&memory, &asked)));
    }
}

async fn one(memory: &Memory, asked: &Asked) -> Answer {
    let (method, target) = asked.line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let routes = [
        registrations::ROUTES,
        attachments::ROUTES,
        deliveries::ROUTES,
    ];
    let found = routes.iter().enumerate().find_map(|(api, routes)| {
        let mut routes = routes.iter();
        routes.find_map(|route| parameters(route, method, path).map(|found| (api, route, found)))
    });
    let Some((which, route, parameters)) = found else {
        return (404, "{}".into());
    };
    let request = Request {
        route: route.route.into(),
        path: parameters,
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        headers: asked.headers.iter().cloned().collect(),
        body: asked.body.clone().into(),
        caller: Some(Caller {
            organization: "acme".into(),
            role: Role::Operator,
            actor: Actor {
                id: "token-1".into(),
                ..Actor::named("ci")
            },
            valid_until: None,
            intake: None,
            action: "",
        }),
        client: Client::default(),
        id: "request-1".into(),
        made: idempotency::Made::default(),
    };
    let routes = routes[which];
    let response = match which {
        0 => api::answer(routes, registrations::function, memory, &request).await,
        1 => api::answer(routes, attachments::function, memory, &request).await,
        _ => api::answer(routes, deliveries::function, memory, &request).await,
    };
    (response.status, response.body.to_string())
}

/// The parameters of a route, where it is this one.
fn parameters(route: &Route, method: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let (own, template) = route.route.split_once(' ')?;
    let (parts, names): (Vec<&str>, Vec<&str>) =
        (path.split('/').collect(), template.split('/').collect());
    if own != method || parts.len() != names.len() {
        return None;
    }
    let mut found = BTreeMap::new();
    for (part, name) in parts.into_iter().zip(names) {
        match name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) => {
                found.insert(name.to_owned(), part.to_owned());
            }
            None if name == part => {}
            None => return None,
        }
    }
    Some(found)
}

/// Lists registrations (`registered`) or attachments (`attached`), as the API returns them.
pub(crate) fn list(api: &Api, what: &str) -> Vec<Value> {
    let ran = api.run(&["integration", what, "list", "-o", "json"]);
    ran.json().as_array().unwrap().clone()
}
