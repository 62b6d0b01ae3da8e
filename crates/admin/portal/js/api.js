// The API under /v1, with the session's cookie.

/** An answer that is no success: RFC 9457, see docs/admin.md. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The administration answered ${status}.`);
    this.status = status;
    this.code = body.code ?? null;
    this.field = body.field ?? null;
    this.body = body;
  }
}

let csrf = null;
let onEnd = () => {};

/** Who is signed in, or null. */
export let session = null;

/** What is done when a session turns out to have ended. */
export function whenSessionEnds(callback) {
  onEnd = callback;
}

function keep(answer) {
  session = answer;
  csrf = answer?.csrf ?? null;
  return session;
}

/** Asks who is signed in. */
export async function resume() {
  try {
    return keep((await request("GET", "/session", { quiet: true })).data);
  } catch (problem) {
    if (problem.status === 401) return keep(null);
    throw problem;
  }
}

/** With `{login, password}` or `{token}`. */
export async function signIn(credentials) {
  return keep((await request("POST", "/session", { body: credentials, quiet: true })).data);
}

export async function signOut() {
  await request("DELETE", "/session", { quiet: true });
  keep(null);
}

/** Whether the session may change things. */
export function mayWrite() {
  return session?.scopes?.includes("write") ?? false;
}

export function isOperator() {
  return session?.account?.role === "operator";
}

/**
 * Sends a request: `{ body, match, quiet, signal }`. `match` is a revision that must be unchanged, or "new".
 * Answers `{ data, etag, status }`, or throws a [`Problem`].
 */
export async function request(method, path, options = {}) {
  const headers = { accept: "application/json" };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  if (options.match === "new") headers["if-none-match"] = "*";
  else if (options.match) headers["if-match"] = options.match;
  if (csrf && method !== "GET") headers["x-csrf-token"] = csrf;
  let response;
  try {
    response = await fetch(`/v1${path}`, {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      credentials: "same-origin",
      cache: "no-store",
      signal: options.signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The administration does not answer. Look whether it is running and reachable, then try again; what you entered is still here.";
    throw new Problem(0, { code: "unreachable", detail });
  }
  const data = await read(response);
  if (response.ok) return { data, etag: response.headers.get("etag"), status: response.status };
  if (response.status === 401 && !options.quiet) {
    keep(null);
    onEnd();
  }
  throw new Problem(response.status, data ?? {});
}

async function read(response) {
  if (response.status === 204) return null;
  const text = await response.text();
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return { detail: `The answer ${response.status} cannot be read. If there is a proxy in front of the administration, look there.` };
  }
}

export const get = async (path, options) => (await request("GET", path, options)).data;
export const post = async (path, body = {}, options) => (await request("POST", path, { body, ...options })).data;
export const remove = async (path, options) => (await request("DELETE", path, options)).data;

/** A path of encoded parts: `path("tenants", id)`. */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/** `?a=1&b=2`, without what is empty. */
export function query(parameters) {
  const entries = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return entries.length === 0 ? "" : `?${new URLSearchParams(entries)}`;
}
