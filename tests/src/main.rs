//! Tests of the whole: contracts of every integration, the flow over memory, the template against the code,
//! events, and the stack as it is deployed on the local cloud.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod artifacts;
mod asking;
mod assumed;
mod attaching;
mod audited;
mod bundles;
mod calls;
mod canary;
mod ci;
mod contract;
mod cost;
mod deployed;
mod events;
mod exchange;
mod flow;
mod following;
mod foreach;
mod forwarding;
mod health;
mod layers;
mod listing;
mod naming;
mod notices;
mod openapi;
mod operations;
mod pages;
mod places;
mod platforms;
mod promise;
mod prose;
mod quotas;
mod receipts;
mod receiver;
mod repeats;
mod requests;
mod roles;
mod samples;
mod sign_in;
mod signatures;
mod steps;
mod template;
mod threats;
mod tokens;
mod trust;
mod updates;
mod world;
