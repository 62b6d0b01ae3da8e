// Who changed what, and what it was before.

import { get, path, query } from "../api.js";
import { companyHead } from "../company.js";
import { h, replace } from "../dom.js";
import { when } from "../format.js";
import { button, card, into, pageHead, table } from "../ui.js";

const KINDS = { operator_token: "operator token", token: "token", account: "", ringback: "Ringback itself" };

export async function changes({ params: { tenant } }) {
  const from = tenant ? `${path("tenants", tenant)}/audit` : "/audit";
  const box = h("div", { class: "fields" });
  const all = [];
  const load = async (before) => {
    const page = await get(`${from}${query({ before, limit: 50 })}`);
    all.push(...page.entries);
    return [shown(all, !tenant), page.next && button("Show older", async () => replace(box, await load(page.next)))];
  };
  await into(box, () => { all.length = 0; return load(null); });
  const content = [tenant ? await companyHead(tenant) : pageHead("Changes"),
    card("Changes", h("p", { class: "muted" }, "Every change of configuration, newest first. Secrets are named, never shown."), box)];
  return { title: "Changes", content };
}

function shown(entries, withTenant) {
  const columns = [{ label: "Time", class: "narrow" }, { label: "Who" }, withTenant && { label: "Tenant" }, { label: "What" }, { label: "Before and after" }].filter(Boolean);
  return table("Changes, newest first", columns, entries.map((entry) => [
    when(entry.time), who(entry.actor), withTenant ? entry.tenant ?? "–" : undefined,
    [h("strong", null, words(entry.action)), " ", entry.target?.name ?? entry.target?.id ?? ""],
    difference(entry.before ?? {}, entry.after ?? {}),
  ].filter((cell) => cell !== undefined)), "Nothing was changed yet.");
}

function who(actor) {
  const kind = KINDS[actor?.kind] ?? actor?.kind;
  const name = actor?.kind === "ringback" ? null : actor?.name ?? actor?.id;
  return [name, name !== kind && kind].filter(Boolean).join(", ") || "–";
}

/** `webhook.change` as people say it. */
const words = (action) => String(action).split(".").reverse().join(" ").replaceAll("_", " ");

const one = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

/** Only what differs, member by member. */
function difference(before, after) {
  const left = flat(before);
  const right = flat(after);
  const names = [...new Set([...left.keys(), ...right.keys()])].filter((name) => left.get(name) !== right.get(name));
  if (names.length === 0) return h("span", { class: "muted" }, "–");
  return h("dl", { class: "headers" }, names.map((name) => h("div", null, h("dt", null, name),
    h("dd", null, left.has(name) && h("del", null, left.get(name)), left.has(name) && " → ", right.has(name) ? h("ins", null, right.get(name)) : "gone"))));
}

function flat(value, name = "", into = new Map()) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value)) flat(inner, name ? `${name}.${key}` : key, into);
  } else {
    into.set(name, Array.isArray(value) ? value.map(one).join(", ") : String(value));
  }
  return into;
}
