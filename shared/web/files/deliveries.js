// The newest deliveries, failed ones first; what is paused or down; and the last audit.

import * as api from "./api.js";
import {
  address,
  attempt,
  command,
  count,
  deliveryLink,
  destination,
  failure,
  h,
  said,
  state,
  table,
  when,
  workflowName,
} from "./page.js";

const STATES = ["failed", "pending", "delivering", "delivered", "skipped", "cancelled"];
const FILTERS = ["state", "registration", "integration", "status", "workflow", "since", "until"];
const AGE = /^([0-9]+)([mhd])$/;
const UNIT_MS = { m: 60_000, h: 3_600_000, d: 86_400_000 };

const COLUMNS = [
  ["ID", (one) => deliveryLink(one.id)],
  ["State", state],
  ["To", destination],
  ["Workflow", (one) => said(workflowName(one.workflow))],
  ["Attempt", attempt],
  ["Next", (one) => when(one.due_at)],
  ["When", (one) => when(one.created_at)],
  ["Reason", (one) => said(one.reason)],
];

/** A moment as it is typed: RFC 3339, or an age such as 30m, 2h or 7d. */
function moment(field, text) {
  if (!text) return undefined;
  const [, number, unit] = AGE.exec(text) ?? [];
  const at = unit ? new Date(Date.now() - Number(number) * UNIT_MS[unit]) : new Date(text);
  if (!Number.isNaN(at.getTime())) return at.toISOString();
  const detail = "must be a time such as 2026-01-31T12:00:00Z, or an age such as 30m, 2h or 7d";
  throw new api.Problem({ status: 422, title: "Invalid filter", faults: [{ field, detail }] });
}

function asked(query) {
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name)?.trim()]));
  return { filter, isFiltered: Object.values(filter).some(Boolean) };
}

const queryOf = (filter) => ({
  ...filter,
  since: moment("since", filter.since),
  until: moment("until", filter.until),
});

function form(filter, integrations) {
  const select = (name, label, values) =>
    h(
      "label",
      {},
      label,
      h(
        "select",
        { name },
        h("option", { value: "" }, "Any"),
        values.map((value) => h("option", { value, selected: value === filter[name] }, said(value))),
      ),
    );
  const text = (name, label, placeholder) =>
    h(
      "label",
      {},
      label,
      h("input", { name, placeholder, value: filter[name] ?? "", autocomplete: "off", spellcheck: "false" }),
    );
  // The address says only what is asked for.
  const formdata = ({ formData }) => {
    for (const [name, value] of [...formData]) if (!value.trim()) formData.delete(name);
  };
  return h(
    "form",
    { class: "filters", method: "get", role: "search", "aria-label": "Filter deliveries", formdata },
    select("state", "State", STATES),
    text("registration", "Registration", "name or ID"),
    select("integration", "Integration", integrations),
    text("status", "Status", "404, 5xx or none"),
    text("workflow", "Workflow", "project/name"),
    text("since", "Since", "2h or a time"),
    text("until", "Until", "a time"),
    h("p", { class: "actions" }, h("button", {}, "Filter"), h("a", { href: "?" }, "Clear")),
  );
}

/** A page of a list, with a button for the next one. */
function list(caption, { items, next }, query) {
  const rows = table(caption, COLUMNS, items);
  const section = h("section", { class: "box" }, rows);
  const more = async () => {
    button.disabled = true;
    try {
      const page = await api.page(["deliveries"], { ...query, cursor: next });
      rows.addRows(page.items);
      next = page.next;
      button.hidden = !next;
    } catch (error) {
      section.append(failure(error));
    }
    button.disabled = false;
  };
  const button = h("button", { type: "button", class: "plain more", hidden: !next, click: more }, "More");
  section.append(button);
  return section;
}

/** What holds deliveries back: paused registrations, and destinations that are down. */
function banner(registrations) {
  const link = ({ id, name }) => h("a", { href: address({ registrations: id }) }, said(name));
  const paused = registrations.filter((one) => one.paused);
  const down = registrations.filter((one) => !one.paused && one.circuit?.state === "open");
  const lines = [
    ...paused.map((one) => {
      const { since, reason } = one.paused;
      return [link(one), " was paused ", when(since), reason ? [": ", said(reason)] : ""];
    }),
    ...down.map((one) => [
      link(one),
      " is down: its circuit is open, and what is for it waits; tried again ",
      when(one.circuit.open_until),
    ]),
  ];
  if (!lines.length) return null;
  return h(
    "ul",
    { class: "notice open", "aria-label": "Held back" },
    lines.map((line) => h("li", {}, line.flat())),
  );
}

/** What the last audit found. */
function lastAudit(jobs) {
  const last = jobs.find((job) => job.kind === "audit" && job.state === "done");
  if (!last)
    return h(
      "p",
      { class: "muted" },
      "None of the newest jobs is a finished audit, which checks that every delivery is accounted for: ",
      h("code", {}, "chainloop delivery audit"),
    );
  const { done, skipped, violations, updated_at: at } = last;
  const found = `: ${count(done, "attestation")} accounted for, ${skipped.toLocaleString("en")} not`;
  return h(
    "div",
    { class: skipped ? "notice bad" : null },
    h("p", {}, "Last audit, ", when(at), found),
    violations.length
      ? h(
          "ul",
          {},
          violations.map((one) => h("li", {}, said(one))),
        )
      : "",
  );
}

function asCommand(filter) {
  const options = { registration: "integration", integration: "kind" };
  const words = FILTERS.filter((name) => filter[name]).flatMap((name) => [`--${options[name] ?? name}`, filter[name]]);
  return command("delivery", "list", ...words);
}

export async function deliveries({ main, query: parameters, title }) {
  title("Deliveries");
  const { filter, isFiltered } = asked(parameters);
  const registrations = await api.ifPermitted(api.all(["registrations"], { circuits: true }), []);
  const integrations = new Set([...registrations.map((one) => one.integration), filter.integration].filter(Boolean));
  main.replaceChildren(h("h1", {}, "Deliveries"), form(filter, [...integrations].sort()));
  const query = queryOf(filter);

  if (isFiltered) {
    const found = await api.page(["deliveries"], query);
    const empty = h(
      "p",
      { class: "empty" },
      "No delivery matches. Take a filter away, or ",
      h("a", { href: "?" }, "show all"),
      ".",
    );
    main.append(
      found.items.length ? list("Matching deliveries, newest first", found, query) : empty,
      asCommand(filter),
    );
    return;
  }
  const failed = { state: "failed", limit: 10 };
  const [all, failures, jobs] = await Promise.all([
    api.page(["deliveries"], {}),
    api.page(["deliveries"], failed),
    api.ifPermitted(api.get(["jobs"]), null),
  ]);
  main.append(banner(registrations) ?? "", jobs ? lastAudit(jobs.items) : "");
  if (!all.items.length) {
    main.append(
      h(
        "p",
        { class: "empty" },
        "Nothing was delivered yet. Attach a registration to a workflow, and push an attestation:",
      ),
      command("attestation", "push", "attestation.json"),
    );
    return;
  }
  main.append(
    failures.items.length
      ? list("Failed, newest first", failures, failed)
      : h("p", { class: "notice good" }, "No delivery failed."),
    list("All, newest first", all, {}),
    asCommand(filter),
  );
}
