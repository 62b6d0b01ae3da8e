// A further webhook, for the events that it subscribes to.

import { path, request } from "../api.js";
import { secretsOf } from "../change.js";
import { h } from "../dom.js";
import { Field, form, refuse, text } from "../form.js";
import { sentence } from "../format.js";
import { WebhookFields } from "../settings.js";
import { card, pageHead, say, secretOnce } from "../ui.js";

export function newWebhook({ params: { tenant }, go }) {
  const base = path("tenants", tenant);
  const name = new Field("name", "Name", text({ placeholder: "crm", autofocus: true }), { hint: "Lower-case letters, digits, - and _. It stays." });
  const fields = new WebhookFields(null);
  const send = async () => {
    if (!name.value.trim()) throw refuse("name", "Enter a name, such as crm.");
    const wanted = { name: name.value.trim(), ...fields.value() };
    if (wanted.subscription.length === 0) throw refuse("subscription", "Enter the events it is for, such as call.* or *.");
    const body = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== null && value !== undefined));
    const { data } = await request("POST", `${base}/webhooks`, { body });
    for (const warning of data.warnings ?? []) say("note", sentence(warning));
    await secretOnce(`${data.title} is set up`, "Give this signing secret to the receiver: with it, it verifies that requests come from here.", secretsOf(data));
    await go(`/portal${base}${path("webhooks", data.name)}`);
  };
  const content = [
    pageHead("Add webhook", { crumbs: [["Event URL", `/portal${base}`]] }),
    card(null, form({ label: "Add webhook", fields: [name, ...fields.fields], send, submit: "Add webhook",
      children: [name.element, fields.elements()], extra: h("a", { href: `/portal${base}` }, "Cancel") })),
  ];
  return { title: "Add webhook", content };
}
