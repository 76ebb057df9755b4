// Elements of the page. Strings become text and never markup; what comes from the API goes through `said`.

const SECOND = 1_000;
/** @type {[number, string][]} */
const UNITS = [
  [86_400, "day"],
  [3_600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** Gives an element attributes: functions are listeners, `true` is an attribute without a value, `false` and null none. */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** Builds an element. */
export const h = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

const SVG = "http://www.w3.org/2000/svg";

/** Builds an element of a drawing. */
export const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** Control characters, and those that turn or hide what stands beside them. Tabs and line breaks stay where `lines`. */
const HIDDEN = /[\p{Cc}\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e01ef}]/gu;

const shown = (character) => `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

/** Makes hidden characters of a text visible. */
export function plain(value, { lines = false } = {}) {
  return String(value).replace(HIDDEN, (one) => (lines && (one === "\n" || one === "\t") ? one : shown(one)));
}

/** A value of the API: text whose direction is its own. */
export const said = (value) => (value == null || value === "" ? null : h("bdi", {}, plain(value)));

export const code = (value) => h("code", {}, said(value));

/** Formats a distance in its largest unit: `3 minutes ago`, `in 2 hours`. */
export function relative(moment, now = Date.now()) {
  const secs = Math.floor(Math.abs(moment - now) / SECOND);
  const [size, unit] = UNITS.find(([size]) => secs >= size) ?? [1, ""];
  if (!unit) return "just now";
  const count = Math.floor(secs / size);
  const told = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return moment > now ? `in ${told}` : `${told} ago`;
}

export const exact = (moment) => `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** A moment, relative to now, whose title says it exactly. */
export function when(text) {
  if (!text) return null;
  const moment = new Date(text);
  return h("time", { datetime: text, title: exact(moment) }, relative(moment));
}

/** A moment in full: `2026-01-02 03:04:05 UTC (3 minutes ago)`. */
export function moment(text) {
  if (!text) return null;
  const at = new Date(text);
  return h("time", { datetime: text }, `${exact(at)} (${relative(at)})`);
}

export const duration = (ms) => (ms < 1_000 ? `${ms} ms` : `${Math.floor(ms / 100) / 10} s`);

export function size(bytes) {
  if (bytes == null) return null;
  const units = ["B", "KiB", "MiB", "GiB"];
  const at = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${at ? (bytes / 1024 ** at).toFixed(1) : bytes} ${units[at]}`;
}

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** An address of the page, whose values may hold anything. */
export const address = (query) => `?${new URLSearchParams(query)}`;

/** The first characters of an ID or a digest, as the command line shows them. */
export const short = (id) => id.replace(/^sha256:/, "").slice(0, id.startsWith("sha256:") ? 12 : 8);

export const digestLink = (digest, view = "where") => h("a", { href: address({ [view]: digest }) }, code(digest));

export const workflowName = ({ id, project, name }) => (name ? (project ? `${project}/${name}` : name) : id);

/** A word with a colour that says the same. */
export const badge = (word, tone) => h("span", { class: `badge ${tone}` }, said(word));

const TONES = { delivered: "good", failed: "bad", pending: "open", delivering: "open" };

/** The state of a delivery; tells those that are held, and those that arrived in part. */
export function state(delivery) {
  const isPartial = delivery.state === "delivered" && delivery.reason;
  const suffix = delivery.held_at ? " (held)" : isPartial ? " (partial)" : "";
  return badge(delivery.state + suffix, isPartial ? "open" : (TONES[delivery.state] ?? "quiet"));
}

/** The destination of a delivery: its registration by name, or by ID where its row is gone, and its integration. */
export function destination({ registration, registration_name: name, integration }) {
  const link = name && h("a", { href: address({ registrations: registration }) }, said(name));
  return [link ?? said(registration), " ", h("span", { class: "muted" }, "(", said(integration), ")")];
}

export const deliveryLink = (id) =>
  h("a", { href: address({ delivery: id }), class: "id" }, h("code", {}, said(short(id))));

/**
 * A table of columns `[heading, cell]`, which becomes a list where the window is narrow. Roles are explicit, since a
 * table whose display changes loses them.
 */
export function table(caption, columns, items) {
  const headings = columns.map(([heading]) => h("th", { scope: "col", role: "columnheader" }, heading));
  const row = (item) => {
    const cells = columns.map(([heading, cell]) => {
      const content = [cell(item)].flat().filter((one) => one != null && one !== "");
      const isEmpty = !content.length;
      return h("td", { role: "cell", "data-heading": heading, class: isEmpty ? "empty" : null }, h("div", {}, content));
    });
    return h("tr", { role: "row" }, cells);
  };
  const body = h("tbody", { role: "rowgroup" }, items.map(row));
  const element = h(
    "table",
    { role: "table" },
    h("caption", {}, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings)),
    body,
  );
  element.addRows = (more) => body.append(...more.map(row));
  return element;
}

/** The number of a delivery's attempt. */
export const attempt = (one) => `${one.attempt}${one.generation ? " (redelivery)" : ""}`;

/** The deliveries of an attestation, or of a digest: each with how it stands. */
export const outcomes = (caption, deliveries, ...more) =>
  table(
    caption,
    [
      ["ID", (one) => deliveryLink(one.id)],
      ["State", state],
      ["To", destination],
      ...more,
      ["Attempt", attempt],
      ["When", (one) => when(one.updated_at)],
      ["Reason", (one) => said(one.reason)],
    ],
    deliveries,
  );

/** Terms with their values; those without a value are left out. */
export function facts(...pairs) {
  const given = pairs.filter(([, value]) => [value].flat().some((one) => one != null && one !== ""));
  return h(
    "dl",
    { class: "facts" },
    given.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A value of a receipt: what is nested becomes a list, and a web address a link. */
export function tree(value) {
  if (Array.isArray(value))
    return h(
      "ul",
      {},
      value.map((one) => h("li", {}, tree(one))),
    );
  if (value && typeof value === "object") {
    return facts(...Object.entries(value).map(([name, one]) => [said(name), tree(one)]));
  }
  const isAddress = typeof value === "string" && /^https?:\/\/[^\s]+$/i.test(value) && URL.canParse(value);
  if (isAddress) return h("a", { href: value, rel: "noopener noreferrer" }, said(value));
  return said(value);
}

const quoted = (word) => (/^[\w./:@+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** The same as a command, to be copied. */
export function command(...words) {
  const text = ["chainloop", ...words].map(quoted).join(" ");
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    announce("Copied");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2_000);
  };
  const button = h("button", { type: "button", class: "plain", "aria-label": "Copy the command", click: copy }, "Copy");
  // Whoever pastes gets what stands here, and no hidden character that a terminal obeys.
  const isAsShown = plain(text) === text;
  return h("p", { class: "command" }, h("code", {}, said(text)), " ", isAsShown ? button : "");
}

/** Tells assistive technology, and nobody else. */
export function announce(text) {
  document.getElementById("status").textContent = plain(text);
}

const ADVICE = {
  400: "Change what is named.",
  404: "It may be older than the retention, or another organization's. Check the address, and whose token this is.",
  409: "Reload the page to see how it stands now.",
  422: "Change what is named.",
};

function advice(error) {
  if (error.isUnknownToken) return "Reload the page, and sign in again.";
  if (error.isForbidden)
    return "Sign in with a token that may: chainloop open, with --act where something is to be changed.";
  return ADVICE[error.status] ?? "Try again in a moment.";
}

/** What went wrong, and what to do. */
export function failure(error) {
  const title = error.title || "This page failed";
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("h2", {}, said(title)),
    h("p", {}, said(error.detail || (error.title ? "" : error.message))),
    error.faults?.length
      ? h(
          "ul",
          {},
          error.faults.map((one) => h("li", {}, code(one.field), " ", said(one.detail))),
        )
      : null,
    h("p", {}, advice(error)),
    error.requestId ? h("p", { class: "muted" }, "Request ", code(error.requestId)) : null,
  );
}

/** Asks before something is changed; answers null, or the text that was asked for. */
export function sure(question, { label, reason = false }) {
  return new Promise((resolve) => {
    const close = () => {
      dialog.remove();
      resolve(null);
    };
    const input = reason && h("input", { name: "reason", maxlength: "512", autocomplete: "off" });
    const dialog = h(
      "dialog",
      { "aria-labelledby": "question", close },
      h(
        "form",
        { method: "dialog", submit: () => resolve(input ? input.value : "") },
        h("p", { id: "question" }, question),
        input && h("label", {}, "Reason", input),
        h(
          "p",
          { class: "actions" },
          h("button", {}, label),
          h("button", { type: "button", class: "plain", click: () => dialog.close() }, "Back"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that asks, and then changes something. Failures stand where it stands. */
export function action(label, question, options, act) {
  const click = async () => {
    const given = await sure(question, { label, ...options });
    if (given === null) return;
    button.disabled = true;
    place.querySelector(".notice")?.remove();
    announce(`${label}…`);
    try {
      await act(given);
    } catch (error) {
      place.append(failure(error));
    }
    button.disabled = false;
  };
  const button = h("button", { type: "button", class: options.class, click }, label);
  const place = h("div", { class: "action" }, button);
  return place;
}
