// Changes of a webhook, compare-and-set: when somebody else was faster, one sees what changed and
// chooses.

import { Problem, request } from "./api.js";
import { methodLabel } from "./authentication.js";
import { h } from "./dom.js";
import { dialog, table } from "./ui.js";

const LABELS = {
  url: "URL", authentication: "Authentication", enabled: "Enable", subscription: "Subscription",
  acknowledge: "Acknowledged by", format: "Body format", rate_limit: "Rate limit", headers: "Headers",
  schedule: "Retries", tls: "TLS",
};

/** A setting as people read it. */
export function describe(name, value) {
  if (value === undefined || value === null) return "–";
  if (name === "enabled") return value ? "on" : "off";
  if (name === "authentication") {
    return [methodLabel(value.method), value.username].filter(Boolean).join(", ");
  }
  if (Array.isArray(value)) return value.join(", ") || "none";
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

/** What is of two states of a webhook different, as names of settings. */
export function differences(before, after) {
  return Object.keys(LABELS).filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
}

/**
 * Changes a webhook that was read as `seen` with `etag`. Answers `{ webhook, etag }` as it is then, or
 * null if whoever changes it wants to look again.
 */
export async function change(path, seen, etag, wanted) {
  try {
    const { data, etag: next } = await request("PATCH", path, { body: wanted, match: etag });
    return { webhook: data, etag: next };
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 412) throw problem;
  }
  const { data: now, etag: latest } = await request("GET", path);
  const choice = await ask(seen, now, wanted);
  if (choice === "mine") return change(path, now, latest, wanted);
  return choice === "theirs" ? { webhook: now, etag: latest, theirs: true } : null;
}

function ask(seen, now, wanted) {
  const theirs = differences(seen, now);
  const names = [...new Set([...theirs, ...Object.keys(wanted)])];
  const rows = names.map((name) => [
    LABELS[name] ?? name,
    describe(name, seen[name]),
    h("span", { class: theirs.includes(name) ? "changed" : null }, describe(name, now[name])),
    name in wanted ? describe(name, wanted[name]) : h("span", { class: "muted" }, "as it is now"),
  ]);
  return dialog("Somebody else changed this webhook", (close) => [
    h("p", null, theirs.length > 0
      ? "While you were editing, somebody else saved. Nothing of yours is saved yet; choose what should hold."
      : "While you were editing, somebody else saved, but nothing that you see here (a password or a key, perhaps). Nothing of yours is saved yet."),
    table("What changed", ["Setting", "You saw", "Now", "You want"].map((label) => ({ label })), rows),
    h("div", { class: "actions" },
      h("button", { type: "button", onclick: () => close("edit") }, "Go on editing"),
      h("button", { type: "button", onclick: () => close("theirs") }, "Take what is there now"),
      h("button", { type: "button", class: "primary", onclick: () => close("mine") }, "Save mine")),
  ], { wide: true });
}

/** The settings of `wanted` that differ from what is there. */
export function only(webhook, wanted) {
  return Object.fromEntries(Object.entries(wanted).filter(([name, value]) =>
    value !== undefined && JSON.stringify(webhook[name]) !== JSON.stringify(value)));
}

/** Reads a webhook and its revision. */
export async function read(path) {
  const { data, etag } = await request("GET", path);
  return { webhook: data, etag };
}

/** The tag of a webhook that was read in a list. */
export const etagOf = (webhook) => `"${webhook.revision}"`;

/** What the webhook of a new secret shows once. */
export const secretsOf = (webhook) => (webhook.signing ?? []).filter((key) => key.secret)
  .map((key) => ({ label: "Signing secret", text: key.secret }));

