// All tenants, for operators.

import { get, path, post, query, remove } from "../api.js";
import { h, replace } from "../dom.js";
import { when } from "../format.js";
import { Field, form, refuse, text } from "../form.js";
import { button, card, dialog, into, pageHead, say, table } from "../ui.js";

export async function tenants({ go }) {
  const list = h("div", { class: "fields" });
  const all = [];
  const load = async (after) => {
    const page = await get(`/tenants${query({ after, limit: 200 })}`);
    all.push(...page.tenants);
    return [shown(all, again), page.next && button("Show more", async () => replace(list, await load(page.next)))];
  };
  const again = () => into(list, () => { all.length = 0; return load(null); });
  await again();
  const content = [
    pageHead("Tenants", { actions: button("Add tenant", () => add(go), { kind: "primary" }), lead: "Each is a company on the PBX, with webhooks, tokens and administrators of its own." }),
    card(null, list)];
  return { title: "Tenants", content };
}

function shown(all, again) {
  return table("Tenants", [{ label: "Company" }, { label: "Id" }, { label: "Webhooks", class: "num" }, { label: "Added", class: "narrow" }, { label: "Remove", class: "narrow" }],
    all.map((tenant) => [
      h("a", { href: `/portal${path("tenants", tenant.id)}` }, tenant.title || tenant.id), h("code", null, tenant.id),
      String(tenant.webhooks ?? "–"), when(tenant.created),
      button("Remove…", () => erase(tenant, again), { small: true, "aria-label": `Remove tenant ${tenant.id}` }),
    ]), "There are no tenants yet. Add the first company.");
}

async function add(go) {
  const made = await dialog("Add tenant", (close) => {
    const id = new Field("id", "Id", text({ placeholder: "acme", autofocus: true }), { hint: "Lower-case letters, digits, - and _. It stays." });
    const title = new Field("title", "Company", text({ placeholder: "Acme Telecom", maxlength: "200" }), { optional: true });
    const send = async () => {
      if (!id.value.trim()) throw refuse("id", "Enter an id, such as acme.");
      close(await post("/tenants", title.value.trim() ? { id: id.value.trim(), title: title.value.trim() } : { id: id.value.trim() }));
    };
    return form({ label: "Add tenant", fields: [id, title], send, submit: "Add tenant", children: [id.element, title.element],
      extra: h("button", { type: "button", onclick: () => close() }, "Cancel") });
  });
  if (!made) return;
  say("good", `Tenant ${made.id} was added.`);
  await go(`/portal${path("tenants", made.id)}`);
}

/** Its id must be typed: this takes everything of a company. */
async function erase(tenant, again) {
  const removed = await dialog(`Remove ${tenant.title || tenant.id}?`, (close) => {
    const id = new Field("confirm", `Type ${tenant.id} to remove it`, text({ autofocus: true }));
    const send = async () => {
      if (id.value.trim() !== tenant.id) throw refuse("confirm", `This is not ${tenant.id}.`);
      await remove(path("tenants", tenant.id));
      close(true);
    };
    return [h("p", null, "All its webhooks and tokens go with it. What is on its way is parked. This cannot be taken back."),
      form({ label: "Remove tenant", fields: [id], send, submit: "Remove", children: id.element, extra: h("button", { type: "button", onclick: () => close() }, "Cancel") })];
  });
  if (!removed) return;
  say("good", `Tenant ${tenant.id} was removed.`);
  await again();
}
