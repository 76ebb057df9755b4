// A delivery: how it stands, its attempts, its receipt, and what an operator may do with it.

import * as api from "./api.js";
import {
  action,
  address,
  announce,
  badge,
  code,
  command,
  destination,
  digestLink,
  duration,
  facts,
  h,
  moment,
  plain,
  said,
  short,
  size,
  state,
  tree,
  when,
  workflowName,
} from "./page.js";

// How soon a delivery that is under way is looked at again: less and less often.
const LOOK_MS = 2_000;
const LONGEST_MS = 60_000;
const FINAL = ["delivered", "skipped", "failed", "cancelled"];
const ENDINGS = {
  delivered: ["delivered", "good"],
  skipped: ["skipped", "quiet"],
  retryable: ["refused for now", "open"],
  unanswered: ["no response", "open"],
  permanent: ["refused", "bad"],
  crashed: ["crashed", "bad"],
  cancelled: ["cancelled", "quiet"],
};

function attempt({ number, ending, started_at: at, duration_ms: took, status, sent_bytes: sent, detail, answer }) {
  const [word, tone] = ENDINGS[ending] ?? [ending, "quiet"];
  return h(
    "li",
    { class: tone },
    h("h3", {}, `Attempt ${number} `, badge(word, tone)),
    h("p", {}, when(at), ` · ${duration(took)}`, status ? ` · status ${status}` : "", sent ? ` · ${size(sent)} sent` : ""),
    detail ? h("p", {}, said(detail)) : "",
    answer
      ? [
          h("p", { class: "muted" }, "Response"),
          h("pre", { tabindex: "0" }, h("bdi", {}, plain(answer, { lines: true }))),
        ]
      : "",
  );
}

function timeline(delivery) {
  const { attempts = [], created_at: created, due_at: due, held_at: held, updated_at: updated } = delivery;
  const items = [
    h("li", {}, h("h3", {}, delivery.generation ? "Planned again" : "Planned"), h("p", {}, moment(created))),
  ];
  items.push(...attempts.map(attempt));
  if (held)
    items.push(h("li", { class: "open" }, h("h3", {}, "Held: the registration is paused"), h("p", {}, moment(held))));
  if (due)
    items.push(h("li", { class: "open" }, h("h3", {}, `Attempt ${delivery.attempt} is due`), h("p", {}, moment(due))));
  if (FINAL.includes(delivery.state)) {
    items.push(h("li", {}, h("h3", {}, "Ended ", state(delivery)), h("p", {}, moment(updated))));
  }
  return h("ol", { class: "timeline" }, items);
}

function actions(delivery) {
  const { id } = delivery;
  const isFinal = FINAL.includes(delivery.state);
  const redeliver = async () => {
    const { id: again } = await api.post(["deliveries", id, "redeliver"], undefined, true);
    location.assign(address({ delivery: again }));
  };
  const cancel = async () => {
    await api.post(["deliveries", id, "cancel"]);
    location.reload();
  };
  const to = plain(delivery.registration_name ?? delivery.registration);
  const all = [
    isFinal
      ? action("Redeliver", `Deliver the attestation to ${to} again?`, { label: "Redeliver" }, redeliver)
      : action("Deliver now", `Try ${to} now, before the next attempt is due?`, { label: "Deliver now" }, redeliver),
  ];
  if (delivery.state === "pending") {
    const question = `Cancel this delivery to ${to}? Nothing more is sent.`;
    all.push(action("Cancel", question, { label: "Cancel the delivery", class: "plain" }, cancel));
  }
  return h("div", { class: "actions" }, all);
}

function show({ main, mayOperate }, delivery) {
  const { id, receipt, progress } = delivery;
  const isDelivered = delivery.state === "delivered";
  main.replaceChildren(
    h("h1", { tabindex: "-1" }, "Delivery ", h("code", {}, said(short(id))), " ", state(delivery)),
    delivery.reason
      ? h("p", { class: `notice ${delivery.state === "failed" ? "bad" : "open"}` }, said(delivery.reason))
      : "",
    mayOperate ? actions(delivery) : "",
    facts(
      ["To", destination(delivery)],
      ["Workflow", said(workflowName(delivery.workflow))],
      ["Attached to", said(delivery.selector)],
      ["Attestation", digestLink(delivery.attestation, "attestation")],
      [
        "Bytes sent",
        delivery.received && [code(delivery.received), delivery.size_bytes ? ` (${size(delivery.size_bytes)})` : ""],
      ],
      ["ID", code(id)],
    ),
    h("h2", {}, "Attempts"),
    timeline(delivery),
    receipt ? [h("h2", {}, "Receipt"), h("div", { class: "box" }, tree(receipt))] : "",
    !isDelivered && Object.keys(progress).length
      ? [h("h2", {}, "Finished steps"), h("div", { class: "box" }, tree(progress))]
      : "",
    h("h2", {}, "As a command"),
    command("delivery", "describe", id),
    mayOperate ? command("delivery", "redeliver", id) : "",
    FINAL.includes(delivery.state) ? command("delivery", "receipt", id) : "",
  );
}

/** Looks again while the delivery is under way, and nobody is about to do something. */
async function follow(context, delivery) {
  const { id } = delivery;
  for (let wait = LOOK_MS; !FINAL.includes(delivery.state); wait = Math.min(wait * 1.5, LONGEST_MS)) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (document.hidden || document.querySelector("dialog")) continue;
    const found = await api.get(["deliveries", id]).catch(() => delivery);
    if (found.updated_at === delivery.updated_at) continue;
    const had = context.main.contains(document.activeElement);
    show(context, found);
    if (had) context.main.querySelector("h1").focus();
    announce(`The delivery is ${found.state}`);
    delivery = found;
  }
}

export async function delivery(context) {
  const id = context.query.get("delivery");
  context.title(`Delivery ${short(id)}`);
  const found = await api.get(["deliveries", id]);
  show(context, found);
  follow(context, found);
}
