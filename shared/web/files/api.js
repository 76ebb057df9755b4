// Calls the API with the token of this tab.

const BASE = new URL("../../v1/", import.meta.url);
const TOKEN = "chainloop-token";
// Longer than the gateway waits for a function.
const ANSWER_MS = 40_000;

/** A refused request, or one without a response. */
export class Problem extends Error {
  constructor({ status = 0, code = "", title = "", detail = "", faults = [], request_id = "" }) {
    super(title);
    this.status = status;
    this.code = code;
    this.title = title;
    this.detail = detail;
    this.faults = faults;
    this.requestId = request_id;
  }

  /** The gateway refuses unknown tokens with a 403 of its own, which has no code. */
  get isUnknownToken() {
    return this.status === 401 || (this.status === 403 && !this.code);
  }

  /** The token is valid, and its role or its workflows do not permit the request. */
  get isForbidden() {
    return this.status === 403 && !this.isUnknownToken;
  }
}

/** Moves the token of `#token=…` into the tab's storage, and removes it from the address. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return false;
  keepToken(token);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN));
export const keepToken = (token) => sessionStorage.setItem(TOKEN, token.trim());
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** Calls `/v1/<path>`, whose segments may hold anything, with the token, and returns the response's JSON. */
export function call(method, path, { query = {}, body = undefined, isKeyed = false } = {}) {
  // Addresses resolve these.
  if (path.some((segment) => segment === "." || segment === "..")) {
    throw new Problem({ status: 404, code: "not-found", title: "Not found" });
  }
  const url = new URL(path.map(encodeURIComponent).join("/"), BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value) url.searchParams.set(name, value);
  }
  const headers = {};
  if (hasToken()) headers.authorization = `Bearer ${sessionStorage.getItem(TOKEN)}`;
  if (isKeyed) headers["idempotency-key"] = crypto.randomUUID();
  return request(method, url, { body, headers });
}

/** Requests an address of this origin, and returns the response's JSON. */
export async function request(method, url, { body = undefined, headers = {} } = {}) {
  const type = body ? { "content-type": "application/json" } : {};
  /** @type {RequestInit} */
  const options = {
    method,
    headers: { accept: "application/json", ...type, ...headers },
    body: body && JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(ANSWER_MS),
  };
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    const isLate = error.name === "TimeoutError";
    const detail = isLate ? "It took too long." : "The network, or the API, is down.";
    throw new Problem({ title: "No response from the API", detail });
  }
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  throw new Problem({ title: `The API responded with status ${response.status}`, ...said, status: response.status });
}

export const get = (path, query) => call("GET", path, { query });
export const post = (path, body, isKeyed) => call("POST", path, { body, isKeyed });

/**
 * Returns a page of a list, and the cursor of the next one. A filter may leave pages empty: a few of these are passed
 * over.
 */
export async function page(path, query) {
  let answer = await get(path, query);
  for (let empty = 0; !answer.items.length && answer.next && empty < 5; empty += 1) {
    answer = await get(path, { ...query, cursor: answer.next });
  }
  return answer;
}

/** Returns the whole of a short list. */
export async function all(path, query) {
  const items = [];
  let cursor;
  do {
    const answer = await get(path, { ...query, limit: 100, cursor });
    items.push(...answer.items);
    cursor = answer.next;
  } while (cursor && items.length < 1000);
  return items;
}

/** Returns nothing where the token's role or its workflows do not permit the request. */
export async function ifPermitted(promise, otherwise) {
  try {
    return await promise;
  } catch (error) {
    if (error.isForbidden) return otherwise;
    throw error;
  }
}
