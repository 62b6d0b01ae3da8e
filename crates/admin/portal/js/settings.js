// All settings of a webhook, and its removal.

import { mayWrite, path, remove } from "./api.js";
import { AuthenticationFields } from "./authentication.js";
import { change, only } from "./change.js";
import { h } from "./dom.js";
import { Field, area, form, refuse, select, text } from "./form.js";
import { button, card, confirm, say, toggle } from "./ui.js";

const ACKNOWLEDGE = [["200", "200 only"], ["2xx", "any 2xx status"]];
const FORMATS = [["standard", "standard: id, type, timestamp and data in one object"], ["cloudevents", "cloudevents: CloudEvents over HTTP, binary mode"], ["raw", "raw: the data alone, byte for byte"]];

/** The fields that a new webhook and a present one share. */
export class WebhookFields {
  constructor(webhook) {
    this.authentication = new AuthenticationFields(webhook?.authentication);
    this.url = new Field("url", webhook?.preset === "cdr" ? "CDR URL" : "Event URL", text({ value: webhook?.url ?? "", inputmode: "url", placeholder: "https://" }),
      { hint: "Must be reachable from the PBX. We strongly advise https." });
    this.subscription = new Field("subscription", "Events", area({ value: (webhook?.subscription ?? []).join("\n"), rows: "3", placeholder: "call.*\nrecording.completed" }),
      { hint: "One per line: a type such as cdr.completed, a prefix such as queue.*, or * for all." });
    this.acknowledge = new Field("acknowledge", "Acknowledged by", select(ACKNOWLEDGE, webhook?.acknowledge));
    this.format = new Field("format", "Body format", select(FORMATS, webhook?.format));
    this.rateLimit = new Field("rate_limit", "Rate limit, events per second", text({ value: webhook?.rate_limit ?? "", inputmode: "numeric" }),
      { optional: true, hint: "Empty: as fast as the receiver answers." });
    this.schedule = new Field("schedule", "Waits before retries", text({ value: (webhook?.schedule ?? []).join(", "), placeholder: "32s, 4m, 17m, 52m, 2h" }),
      { optional: true, hint: "Empty: those of the installation. Only its tiers can be used." });
    this.headers = new Field("headers", "Further headers", area({ value: Object.entries(webhook?.headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n"), rows: "3", placeholder: "x-source: pbx" }),
      { optional: true, hint: "One per line, name: value. No place for secrets." });
    this.ca = new Field("tls.ca", "Authorities (PEM)", area({ value: webhook?.tls?.ca ?? "", rows: "3" }),
      { optional: true, hint: "The only authorities that the receiver’s certificate may come from." });
    this.certificate = new Field("tls.certificate", "Client certificate (PEM)", area({ value: webhook?.tls?.certificate ?? "", rows: "3" }), { optional: true });
    this.key = new Field("tls.key", "Client key (PEM)", area({ rows: "3" }),
      { optional: true, hint: webhook?.tls?.key?.set ? "Set. Leave empty to keep it." : "Never shown again." });
    this.enable = toggle("Enable", { checked: webhook?.enabled ?? true });
    this.webhook = webhook;
    this.fields = [this.url, ...this.authentication.fields, this.subscription, this.acknowledge, this.format, this.rateLimit, this.schedule, this.headers, this.ca, this.certificate, this.key];
  }

  /** The parts of a form. */
  elements() {
    return h("fieldset", { disabled: !mayWrite() }, h("legend", { class: "spoken" }, "Settings"),
      this.authentication.element, this.url.element, this.subscription.element, this.enable.element,
      h("details", null, h("summary", null, "More settings"),
        h("div", { class: "fields" },
          h("div", { class: "row" }, this.acknowledge.element, this.format.element, this.rateLimit.element, this.schedule.element),
          this.headers.element,
          h("div", { class: "row" }, this.ca.element, this.certificate.element, this.key.element))));
  }

  /** What the API is sent of them. */
  value() {
    const url = this.url.value.trim();
    if (!url) throw refuse("url", "Enter the URL that events are posted to, such as https://crm.example.com/events.");
    return {
      url,
      authentication: this.authentication.value(),
      subscription: lines(this.subscription.value),
      enabled: this.enable.input.checked,
      acknowledge: this.acknowledge.value,
      format: this.format.value,
      rate_limit: this.limit(),
      schedule: this.schedule.value.trim() ? this.schedule.value.split(",").map((wait) => wait.trim()).filter(Boolean) : this.webhook?.schedule?.length === 0 ? [] : null,
      headers: this.headerObject(),
      tls: this.tls(),
    };
  }

  limit() {
    const given = this.rateLimit.value.trim();
    if (!given) return null;
    if (!/^[1-9]\d{0,8}$/.test(given)) throw refuse("rate_limit", "Enter a whole number of events per second, at least 1, or leave it empty.");
    return Number(given);
  }

  headerObject() {
    const headers = {};
    for (const line of lines(this.headers.value)) {
      const at = line.indexOf(":");
      if (at < 1) throw refuse("headers", `Write each header as name: value; this is none: ${line}`);
      headers[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    }
    return headers;
  }

  tls() {
    const given = { ca: this.ca.value.trim(), certificate: this.certificate.value.trim(), key: this.key.value.trim() };
    const present = this.webhook?.tls;
    const same = given.ca === (present?.ca ?? "").trim() && given.certificate === (present?.certificate ?? "").trim() && !given.key;
    if (same) return undefined;
    const tls = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
    return Object.keys(tls).length === 0 ? null : tls;
  }
}

const lines = (value) => value.split("\n").map((line) => line.trim()).filter(Boolean);

/** The settings' tab. `shown` draws it again. */
export function settingsForm(state, { go, shown }) {
  const { webhook, where, tenant } = state;
  const fields = new WebhookFields(webhook);
  const send = async () => {
    const changes = only(webhook, fields.value());
    if (Object.keys(changes).length === 0) return say("note", "Nothing was changed.");
    const changed = await change(where, webhook, state.etag, changes);
    if (!changed) return undefined;
    await state.set(changed);
    shown();
    return say(changed.theirs ? "note" : "good", changed.theirs ? "The settings are shown as they are now." : "Saved. Dispatchers obey within 2 seconds.");
  };
  const save = form({ label: "Settings", fields: fields.fields, children: fields.elements(), send });
  if (!mayWrite()) save.querySelector("button[type=submit]").hidden = true;
  const erase = async () => {
    const sure = await confirm(`Remove ${webhook.title}?`,
      ["Nothing more is sent to it, and its signing secret is gone.", "What is on its way is parked, where only an operator finds it."], "Remove");
    if (!sure) return;
    await remove(where, { match: state.etag });
    say("good", `${webhook.title} was removed.`);
    await go(`/portal${path("tenants", tenant)}`);
  };
  return h("div", { class: "fields" }, card("Settings", save),
    mayWrite() && card("Remove", h("p", { class: "muted" }, webhook.preset ? "It can be set up again at any time, with a new signing secret." : "A webhook that is only to rest can be switched off instead."),
      h("div", { class: "actions" }, button("Remove webhook…", erase, { kind: "danger" }))));
}

