// Tokens of a tenant: for programs that publish, read or write.

import { get, mayWrite, path, post, query, remove } from "../api.js";
import { companyHead } from "../company.js";
import { h, newId } from "../dom.js";
import { ago, when } from "../format.js";
import { Field, form, refuse, text } from "../form.js";
import { button, card, confirm, dialog, into, say, secretOnce, table } from "../ui.js";

const SCOPES = [
  ["publish", "publish: hand in events"],
  ["read", "read: look at webhooks, deliveries and parked, never at a secret"],
  ["write", "write: read, and change webhooks, secrets and tokens, test, replay"],
];

export async function tokens({ params: { tenant } }) {
  const list = h("div");
  const load = () => into(list, async () => {
    const { tokens: all } = await get(`/tokens${query({ tenant })}`);
    const used = all.some((token) => "last_used" in token);
    const columns = [{ label: "Name" }, { label: "Scopes" }, { label: "Made", class: "narrow" }, used && { label: "Last used", class: "narrow" }, { label: "Remove", class: "narrow" }].filter(Boolean);
    return table("Tokens", columns,
      all.map((token) => [
        token.name, token.scopes.join(", "), when(token.created),
        used ? ago(token.last_used) : undefined,
        mayWrite() ? button("Remove…", () => revoke(token, load), { small: true, "aria-label": `Remove token ${token.name}` }) : "",
      ].filter((cell) => cell !== undefined)), "There are no tokens. A program that hands in events needs one.");
  });
  await load();
  const content = [await companyHead(tenant), card(null,
    h("div", { class: "title-row" }, h("h2", null, "Tokens"), mayWrite() && button("Add token", () => add(tenant, load), { kind: "primary" })),
    h("p", { class: "muted" }, "Programs send them as ", h("code", null, "Authorization: Bearer …"), ". Only a hash of each is kept."), list)];
  return { title: `Tokens · ${path(tenant).slice(1)}`, content };
}

async function add(tenant, load) {
  const made = await dialog("Add token", (close) => {
    const name = new Field("name", "Name", text({ placeholder: "what uses it", autofocus: true, maxlength: "200" }));
    const boxes = SCOPES.map(([scope, label], index) => {
      const id = newId("scope");
      const input = h("input", { type: "checkbox", id, value: scope, checked: index === 0 });
      return { input, element: h("div", { class: "check" }, input, h("label", { for: id }, label)) };
    });
    const send = async () => {
      if (!name.value.trim()) throw refuse("name", "Enter a name, so that one knows later what uses it.");
      const scopes = boxes.filter(({ input }) => input.checked).map(({ input }) => input.value);
      close(await post("/tokens", { tenant, name: name.value.trim(), scopes }));
    };
    return form({ label: "Add token", fields: [name], send, submit: "Add token",
      children: [name.element, h("fieldset", null, h("legend", null, "Scopes"), boxes.map(({ element }) => element))],
      extra: h("button", { type: "button", onclick: () => close() }, "Cancel") });
  });
  if (!made) return;
  await load();
  await secretOnce(`Token ${made.name}`, "This is shown now and never again.", [{ label: "Token", text: made.token }]);
}

async function revoke(token, load) {
  if (!(await confirm(`Remove token ${token.name}?`, "Whatever uses it is refused from then on.", "Remove"))) return;
  await remove(`/tokens${path(token.id)}`);
  say("good", `Token ${token.name} was removed.`);
  await load();
}
