// Registrations: which are paused, what is attached to them; and testing, pausing and resuming them.

import * as api from "./api.js";
import { health } from "./health.js";
import { action, address, badge, code, command, facts, failure, h, said, table, tree, when } from "./page.js";

function standing({ paused, circuit }) {
  if (!paused && circuit?.state === "open") return badge("down", "bad");
  if (!paused) return badge("active", "good");
  const by = paused.by ? [", by ", said(paused.by)] : ", since it failed";
  return [badge("paused", "open"), " ", when(paused.since), by, paused.reason ? [": ", said(paused.reason)] : ""].flat(
    2,
  );
}

const described = ({ description }) => (description ? h("p", { class: "muted" }, said(description)) : null);

function actions({ id, name, paused }) {
  const path = ["registrations", id];
  const test = async () => {
    const { delivery } = await api.post([...path, "test"], undefined, true);
    location.assign(address({ delivery }));
  };
  const pause = async (reason) => {
    await api.post([...path, "pause"], { reason });
    location.reload();
  };
  const resume = async () => {
    await api.post([...path, "resume"], undefined, true);
    location.reload();
  };
  return h(
    "div",
    { class: "actions" },
    paused
      ? action("Resume", [said(name), " gets what was held for it, ten deliveries a second. Resume?"], {}, resume)
      : action("Test", ["Send a test attestation to ", said(name), "?"], {}, test),
    paused
      ? null
      : action(
          "Pause",
          ["Hold what goes to ", said(name), " until it is resumed?"],
          { reason: true, class: "plain" },
          pause,
        ),
  );
}

function attached(attachments) {
  if (!attachments.length) return h("p", { class: "muted" }, "Attached to no workflow: nothing goes to it.");
  return h(
    "div",
    { class: "box" },
    table(
      "Attachments",
      [
        ["Workflow", (one) => said(one.workflow)],
        ["Inputs", (one) => (Object.keys(one.config).length ? tree(one.config) : "–")],
        ["Attached by", (one) => [said(one.created_by), " ", when(one.created_at)]],
        ["ID", (one) => code(one.id)],
      ],
      attachments,
    ),
  );
}

function details(registration, attachments, stands, mayOperate) {
  return [
    mayOperate ? actions(registration) : "",
    facts(
      ["State", standing(registration)],
      ["Integration", [said(registration.integration), " ", said(registration.version)]],
      ["Description", said(registration.description)],
      ["Deliveries", h("a", { href: address({ registration: registration.id }) }, "newest first")],
      ["Registered", [said(registration.created_by), " ", when(registration.created_at)]],
      ["ID", code(registration.id)],
    ),
    h("h2", {}, "The last 24 hours"),
    stands,
    h("h2", {}, "Inputs"),
    h("div", { class: "box" }, tree({ ...registration.config, ...registration.secrets })),
    h("h2", {}, "Attachments"),
    attached(attachments),
    h("h2", {}, "As a command"),
    command("integration", "registered", "describe", registration.name),
  ];
}

export async function registrations({ main, query, title, mayOperate }) {
  const id = query.get("registrations");
  if (id) {
    title("Registration");
    const [one, attachments, stands] = await Promise.all([
      api.get(["registrations", id]),
      api.all(["attachments"], { registration: id }),
      // Whoever comes to pause it can, whatever this answers.
      api.get(["registrations", id, "health"]).then(health, failure),
    ]);
    title(`Registration ${one.name}`);
    main.replaceChildren(
      h("h1", {}, "Registration ", said(one.name)),
      ...details(one, attachments, stands, mayOperate).flat(),
    );
    return;
  }
  title("Registrations");
  const [all, attachments] = await Promise.all([
    api.all(["registrations"], { circuits: true }),
    api.all(["attachments"]),
  ]);
  if (!all.length) {
    main.replaceChildren(
      h("h1", {}, "Registrations"),
      h("p", { class: "empty" }, "Nothing is registered yet. Available integrations, and how to register one:"),
      command("integration", "available", "list"),
    );
    return;
  }
  const workflows = (own) =>
    attachments.filter((one) => one.registration.id === own.id).map((one) => h("div", {}, said(one.workflow)));
  main.replaceChildren(
    h("h1", {}, "Registrations"),
    h(
      "div",
      { class: "box" },
      table(
        "Registrations, by name",
        [
          ["Name", (one) => [h("a", { href: address({ registrations: one.id }) }, said(one.name)), described(one)]],
          ["Integration", (one) => said(one.integration)],
          ["State", standing],
          ["Attached to", (one) => (workflows(one).length ? workflows(one) : "no workflow")],
          [
            "Deliveries",
            (one) =>
              h(
                "a",
                { href: address({ registration: one.id }), "aria-label": `Deliveries of ${one.name}` },
                "Deliveries",
              ),
          ],
        ],
        all,
      ),
    ),
    h("h2", {}, "As a command"),
    command("integration", "registered", "list"),
  );
}
