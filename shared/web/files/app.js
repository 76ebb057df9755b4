// Asks who it is, and shows the view that the address names: `?delivery=ID`, `?attestation=DIGEST`, `?where=DIGEST`,
// `?registrations`, or deliveries with their filters. A link is a link: each view is loaded anew.

import * as api from "./api.js";
import { announce, exact, failure, h, relative, said } from "./page.js";

// Each is a function of its name in a file of its name, which is loaded when it is looked at.
const VIEWS = {
  delivery: () => import("./delivery.js"),
  attestation: () => import("./attestation.js"),
  registrations: () => import("./registrations.js"),
  where: () => import("./where.js"),
  deliveries: () => import("./deliveries.js"),
};
// Views that are reached from another, and have no link in the navigation.
const BELOW = { delivery: "deliveries", attestation: "deliveries" };

const main = document.getElementById("main");

function title(text) {
  document.title = `${text} · Chainloop Integrations`;
}

function bearerLine({ organization, name, role, workflows, expires_at: until }) {
  const signOut = () => {
    api.forgetToken();
    location.reload();
  };
  const expiry = until && h("time", { datetime: until, title: exact(new Date(until)) }, relative(new Date(until)));
  const own = workflows.length ? [" · ", said(workflows.join(", "))] : [];
  document
    .getElementById("bearer")
    .replaceChildren(
      h(
        "p",
        {},
        h("strong", {}, said(organization)),
        " · ",
        said(name),
        ", ",
        said(role),
        own,
        until ? " · ends " : "",
        expiry ?? "",
      ),
      h("button", { type: "button", class: "plain", click: signOut }, "Sign out"),
    );
}

/** Asks for a token, and says how to get one. */
async function signIn(why) {
  title("Sign in");
  document.getElementById("bearer").replaceChildren();
  const input = h("input", {
    id: "token",
    type: "password",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "how",
  });
  const submit = async (event) => {
    event.preventDefault();
    api.keepToken(input.value);
    await start();
  };
  const button = h("button", {}, "Sign in");
  const form = h(
    "form",
    { class: "sign-in", submit },
    h("label", { for: "token" }, "API token"),
    h("div", { class: "row" }, input, button),
  );
  main.replaceChildren(
    h("h1", {}, "Sign in"),
    why ? h("p", { class: "notice bad", role: "alert" }, said(why)) : "",
    form,
    h(
      "div",
      { id: "how" },
      h(
        "p",
        {},
        "The command ",
        h("code", {}, "chainloop open"),
        " opens this page with a token that ends within an hour.",
      ),
      h(
        "p",
        {},
        "Without the command line, paste a token that an administrator made: with the role viewer to look, or operator to " +
          "redeliver and pause. It stays in this tab, and is forgotten when the tab is closed.",
      ),
    ),
  );
  if (why) announce(why);
  const { offer } = await import("./sign-in.js");
  const offered = await offer();
  if (offered) form.before(offered);
  const first = offered?.querySelector("button");
  if (first) button.className = "plain";
  // Whoever types already goes on where they are.
  if (document.activeElement === document.body) (first ?? input).focus();
}

function mark(view) {
  const link = document.querySelector(`nav a[data-view="${BELOW[view] ?? view}"]`);
  link.setAttribute("aria-current", BELOW[view] ? "true" : "page");
}

/** Completes what the identity provider has sent here. Returns whether somebody is signed in by it. */
async function comeBack(query) {
  main.replaceChildren(h("p", { class: "loading" }, "Signing in…"));
  announce("Signing in");
  const { complete } = await import("./sign-in.js");
  try {
    await complete(query);
    return true;
  } catch (why) {
    signIn(String(why));
    return false;
  }
}

async function start() {
  let query = new URLSearchParams(location.search);
  // No view has such a query.
  if (query.has("state") && (query.has("code") || query.has("error"))) {
    if (!(await comeBack(query))) return;
    query = new URLSearchParams(location.search);
  }
  if (!api.hasToken()) {
    signIn();
    return;
  }
  const name = Object.keys(VIEWS).find((one) => query.has(one)) ?? "deliveries";
  mark(name);
  main.replaceChildren(h("p", { class: "loading" }, "Loading…"));
  announce("Loading");
  try {
    const [bearer, view] = await Promise.all([api.get(["organization"]), VIEWS[name]()]);
    bearerLine(bearer);
    const mayOperate = ["admin", "operator"].includes(bearer.role);
    await view[name]({ main, query, title, mayOperate });
    announce("Loaded");
  } catch (error) {
    if (error.isUnknownToken) {
      api.forgetToken();
      signIn("The token has expired, or is unknown. Get another one.");
      return;
    }
    announce("");
    // A form stays, for its fields to be changed.
    if (main.querySelector("form")) main.append(failure(error));
    else main.replaceChildren(h("h1", {}, "Not shown"), failure(error), retry());
  }
}

const retry = () => h("p", {}, h("button", { type: "button", click: () => location.reload() }, "Try again"));

api.takeToken();
addEventListener("hashchange", () => {
  if (api.takeToken()) start();
});
start();
