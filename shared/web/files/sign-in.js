// Signs in at the organization's identity provider: authorization code with PKCE. Beside this page a function speaks to
// the provider, where the stack has one; the page itself speaks to its own origin alone.

import * as api from "./api.js";
import { failure, h, said } from "./page.js";

const FUNCTION = new URL("../sign-in", import.meta.url);
const BEGUN = "chainloop-sign-in";
const ORGANIZATION = "chainloop-organization";
// A new issuer's keys come within seconds.
const KEYS_TRIES = 6;
const KEYS_AFTER_SECS = 5;

/** In base64url, without padding. */
function encode(buffer) {
  const letters = btoa(String.fromCharCode(...new Uint8Array(buffer)));
  return letters.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));
const digest = async (text) => encode(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));

/** Nobody makes the state of a sign-in without its verifier, which only its tab has. The function checks it as well. */
const stateOf = ({ verifier, nonce }) => digest(`${verifier}.${nonce}`);

/** The address that the provider knows: this page, without what it shows. */
const here = () => location.origin + location.pathname;

const host = (address) => new URL(address).host;

/** Goes to the provider, to come back to what is shown now. */
async function begin({ issuer, authorization_endpoint: endpoint, client_id, scope }, organization) {
  const begun = { verifier: random(), nonce: random(), issuer, organization, place: location.search };
  sessionStorage.setItem(BEGUN, JSON.stringify(begun));
  localStorage.setItem(ORGANIZATION, organization);
  const url = new URL(endpoint);
  const asked = {
    response_type: "code",
    client_id,
    redirect_uri: here(),
    scope,
    state: await stateOf(begun),
    nonce: begun.nonce,
    code_challenge: await digest(begun.verifier),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  location.assign(url);
}

/** Builds the form that leads to the provider; nothing where the stack has none. */
export async function offer() {
  let provider;
  try {
    provider = await api.request("GET", FUNCTION);
  } catch (error) {
    if (error.status === 404) return null;
    return h("p", { class: "notice open" }, "No sign-in at the identity provider: ", said(error.detail || error.title));
  }
  const input = h("input", {
    id: "organization",
    value: localStorage.getItem(ORGANIZATION) ?? "default",
    required: true,
    autocomplete: "organization",
    spellcheck: "false",
    "aria-describedby": "provider",
  });
  const button = h("button", {}, "Sign in with ", said(host(provider.issuer)));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    form.querySelector("[role=alert]")?.remove();
    try {
      await begin(provider, input.value.trim());
    } catch (error) {
      // A browser without storage, or one that encrypts nothing because the page came in the clear.
      button.disabled = false;
      form.append(failure(error));
    }
  };
  const form = h(
    "form",
    { class: "sign-in", submit },
    h("label", { for: "organization" }, "Organization"),
    h("div", { class: "row" }, input, button),
    h("p", { id: "provider", class: "muted" }, "For an hour. Signing out here leaves you signed in there."),
  );
  return form;
}

/** Completes a sign-in, and goes back to where it began. Throws the sentence that says why not. */
export async function complete(query) {
  const begun = JSON.parse(sessionStorage.getItem(BEGUN) ?? "null");
  sessionStorage.removeItem(BEGUN);
  // Gone from the address before anything else happens. The place is one of this page, whatever it says.
  history.replaceState(null, "", location.pathname + (begun?.place ?? ""));
  const isOurs = begun && query.get("state") === (await stateOf(begun));
  // RFC 9207: of a provider that says who it is.
  const isIssuers = [null, begun?.issuer].includes(query.get("iss"));
  if (!isOurs || !isIssuers) throw "This sign-in was not begun in this tab, or was begun anew since. Sign in again.";
  if (query.has("error")) throw denial(query);
  const { verifier, nonce, issuer, organization } = begun;
  const brought = { code: query.get("code"), state: query.get("state"), verifier, nonce, redirect_uri: here() };
  try {
    const { jwt } = await api.request("POST", FUNCTION, { body: brought });
    const { text } = await exchanged({ jwt, organization });
    api.keepToken(text);
  } catch (error) {
    throw refusal(error, host(issuer), organization);
  }
}

/** Exchanges an ID token for a token of ours, once the issuer's keys are there. */
async function exchanged(body) {
  for (let left = KEYS_TRIES - 1; ; left -= 1) {
    try {
      return await api.post(["tokens", "exchange"], body);
    } catch (error) {
      if (error.code !== "keys-pending" || !left) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, KEYS_AFTER_SECS * 1_000));
  }
}

function denial(query) {
  const error = query.get("error");
  if (error === "access_denied") {
    return "The identity provider denied access. Ask whoever manages it, or sign in as somebody else.";
  }
  const why = query.get("error_description");
  return `The identity provider answered ${error}${why ? `: ${why}` : ""}. Sign in again, or ask whoever manages it.`;
}

function refusal(error, provider, organization) {
  const sentences = {
    "no-rule-matches":
      `${provider} knows you, and no rule of the organization "${organization}" lets you in. ` +
      "Ask an administrator for a rule that fits you, or one of your groups.",
    "issuer-unknown":
      `There is no organization "${organization}" that lets people of ${provider} in. Check its name; an administrator ` +
      "adds the provider by chainloop trust issuer add.",
    "keys-pending": `The keys of ${provider} have not come yet. Sign in again in a minute.`,
  };
  return sentences[error.code] ?? `${error.title}: ${error.detail || "no reason was given"}. Sign in again.`;
}
