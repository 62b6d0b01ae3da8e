// Company → Event URL: the two named webhooks as the PBX knows them, and the others beside them.

import { get, mayWrite, path, request } from "../api.js";
import { AuthenticationFields } from "../authentication.js";
import { change, etagOf, only, secretsOf } from "../change.js";
import { h, replace } from "../dom.js";
import { ago, sentence } from "../format.js";
import { Field, form, refuse, text } from "../form.js";
import { banner } from "../health.js";
import { companyHead } from "../company.js";
import { testDialog } from "../test-send.js";
import { button, card, emptiness, say, secretOnce, stateBadge, stateOf, table, toggle } from "../ui.js";

const PRESETS = [
  { name: "cdr", title: "CDR Events", url: "CDR URL",
    lead: "A call detail record whenever a call is completed or updated." },
  { name: "extension", title: "Extension Events", url: "Event URL",
    lead: "Extension call status, presence, online and offline status, and the status of queues." },
];

export async function eventUrl({ params: { tenant } }) {
  const base = path("tenants", tenant);
  const { webhooks } = await get(`${base}/webhooks`);
  const named = new Map(webhooks.map((webhook) => [webhook.name, webhook]));
  const presets = h("div", { class: "two" }, PRESETS.map((preset) => presetCard(tenant, preset, named.get(preset.name))));
  const others = webhooks.filter((webhook) => !webhook.preset);
  const add = mayWrite() && h("a", { class: "button", href: `/portal${base}/new-webhook` }, "Add webhook");
  const custom = card(null,
    h("div", { class: "title-row" }, h("h2", null, "Custom webhooks"), add),
    h("p", { class: "muted" }, "Further receivers, each for the events that it subscribes to."),
    others.length === 0
      ? emptiness("There are none. Calls, messages, recordings and every other event can go to receivers of their own.")
      : table("Custom webhooks", ["Name", "URL", "Events", "State"].map((label) => ({ label })), others.map((webhook) => [
        h("a", { href: `/portal${base}${path("webhooks", webhook.name)}` }, webhook.name),
        h("span", { class: "url" }, webhook.url),
        webhook.subscription.join(", "),
        stateBadge(stateOf(webhook)),
      ])));
  const content = [await companyHead(tenant), presets, custom];
  return { title: `Event URL · ${tenant}`, content };
}

function presetCard(tenant, preset, webhook) {
  const where = `${path("tenants", tenant)}${path("webhooks", preset.name)}`;
  const box = h("section", { class: "card preset", "aria-label": preset.title });
  const draw = (found) => replace(box, presetForm(tenant, preset, where, found, draw));
  draw(webhook ? { webhook, etag: etagOf(webhook) } : null);
  return box;
}

/** `found`: the webhook and its revision, or null when it is not set up yet. */
function presetForm(tenant, preset, where, found, draw) {
  const webhook = found?.webhook;
  const authentication = new AuthenticationFields(webhook?.authentication);
  const url = new Field("url", preset.url, text({ value: webhook?.url ?? "", inputmode: "url", placeholder: "https://" }), {
    hint: "Must be reachable from the PBX. We strongly advise https.",
  });
  const enable = toggle("Enable", { checked: webhook?.enabled ?? true });
  const fields = [...authentication.fields, url];
  const send = async () => {
    if (!url.value.trim()) throw refuse("url", "Enter the URL that events are posted to, such as https://crm.example.com/events.");
    const wanted = { url: url.value.trim(), authentication: authentication.value(), enabled: enable.input.checked };
    if (!webhook) return create(wanted);
    const changes = only(webhook, wanted);
    if (Object.keys(changes).length === 0) return say("note", `${preset.title}: nothing was changed.`);
    const changed = await change(where, webhook, found.etag, changes);
    if (!changed) return undefined;
    tell(changed);
    draw(changed);
    return refocus();
  };
  const create = async (wanted) => {
    const { data, etag } = await request("PUT", where, { body: wanted, match: "new" });
    tell({ webhook: data });
    draw({ webhook: data, etag });
    await secretOnce(`${preset.title} is set up`,
      "Give this signing secret to the receiver: with it, it verifies that requests come from here. The receiver’s guide has code for it.",
      secretsOf(data));
    refocus();
  };
  const refocus = () => document.querySelector(`section[aria-label="${preset.title}"] button[type=submit]`)?.focus();
  const tell = ({ webhook: now, theirs }) => {
    if (theirs) return say("note", `${preset.title} is shown as it is now.`);
    say("good", `${preset.title} saved.${now.enabled ? "" : " It is off: events are parked until it is on again."}`);
    for (const warning of now.warnings ?? []) say("note", `${preset.title}: ${sentence(warning)}`);
    return undefined;
  };
  const page = `/portal${where}`;
  const written = mayWrite();
  const made = form({
    label: preset.title, fields, send, class: written ? null : "readonly",
    children: h("fieldset", { disabled: !written }, h("legend", { class: "spoken" }, preset.title), authentication.element, url.element, enable.element),
    extra: webhook && [
      written && button("Send test", () => testDialog(where, webhook), { "aria-label": `Send test to ${preset.title}` }),
      h("a", { href: page }, "Deliveries and settings"),
    ],
  });
  if (!written) made.querySelector("button[type=submit]").hidden = true;
  return [
    h("div", { class: "title-row" }, h("h2", null, preset.title),
      webhook ? stateBadge(stateOf(webhook)) : h("span", { class: "badge idle" }, "Not set up")),
    h("p", { class: "muted" }, preset.lead),
    webhook && banner(tenant, webhook, { brief: true, changed: (now) => draw(now) }),
    made,
    webhook && h("p", { class: "muted foot" }, "Last changed ", ago(webhook.updated)),
  ];
}
