// One event with all its deliveries.

import { get, mayWrite, path, query } from "../api.js";
import { h } from "../dom.js";
import { Field, form, refuse, text } from "../form.js";
import { pretty, when } from "../format.js";
import { attemptRow } from "../log.js";
import { REASONS } from "../parked.js";
import { badge, card, codeBlock, copyButton, facts, pageHead } from "../ui.js";

export function findEvent({ params: { tenant }, go }) {
  const id = new Field("event", "Event id", text({ placeholder: "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e", autofocus: true }),
    { hint: "The receiver knows it as webhook-id; it is in every body as id." });
  const send = async () => {
    const wanted = id.value.trim().toLowerCase();
    if (!/^[0-9a-f-]{36}$/.test(wanted)) throw refuse("event", "An event id looks like 01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e.");
    await go(`/portal${path("tenants", tenant)}${path("events", wanted)}`);
  };
  const content = [pageHead("Find an event", { lead: "Where an event went, what each receiver answered, and what comes next." }),
    card(null, form({ label: "Find an event", fields: [id], children: id.element, send, submit: "Find" }))];
  return { title: "Find an event", content };
}

const STATES = { delivered: ["good", "Delivered"], parked: ["bad", "Parked"], waiting: ["warn", "Waiting"] };

export async function event({ params: { tenant, event: id } }) {
  const base = path("tenants", tenant);
  const [found, { webhooks }] = await Promise.all([get(`${base}${path("events", id)}`), get(`${base}/webhooks`)]);
  const named = new Map(webhooks.map((webhook) => [webhook.id, webhook]));
  const data = await dataOf(base, found, named);
  const type = found.type ?? found.deliveries[0]?.attempts[0]?.type ?? found.deliveries[0]?.parked?.type;
  const subject = found.deliveries.flatMap((delivery) => [delivery.parked, ...delivery.attempts]).find((part) => part?.subject)?.subject;
  const content = [
    pageHead(type ?? "Event", {
      crumbs: [["Find an event", `/portal${base}/events`]],
      lead: h("span", null, h("code", null, found.event), " ", copyButton(() => found.event, "Event id")),
    }),
    found.truncated && h("p", { class: "notice" }, "There is more than is shown here."),
    subject && card(null, facts([["Subject", h("span", null, h("code", null, subject), " ", copyButton(() => subject, "Subject"), " ",
      mayWrite() && h("a", { href: `/portal${base}/personal-data${query({ subject })}` }, "Erase…"))]])),
    data !== null && card("Data", codeBlock(pretty(data), "Event data")),
    found.deliveries.map((delivery) => deliveryCard(tenant, base, delivery, named)),
  ];
  return { title: `Event ${id.slice(0, 8)}`, content };
}

/** The log keeps the data of what is parked; of what arrived, the receiver has it. */
async function dataOf(base, found, named) {
  const parked = found.deliveries.find((delivery) => delivery.state === "parked" && named.has(delivery.webhook));
  if (!parked) return null;
  const where = `${base}${path("webhooks", named.get(parked.webhook).name)}`;
  const page = await get(`${where}/parked${query({ event: found.event, limit: 1 })}`);
  return page.parked[0]?.data ?? null;
}

function deliveryCard(tenant, base, delivery, named) {
  const webhook = named.get(delivery.webhook);
  const name = delivery.name ?? webhook?.name;
  const title = webhook?.title ?? name ?? "A removed webhook";
  const [kind, label] = STATES[delivery.state] ?? ["note", delivery.state];
  return card(delivery.run > 0 ? `${title}, replay ${delivery.run}` : title,
    h("div", { class: "title" }, badge(kind, label),
      delivery.reason && h("span", null, `${delivery.reason}: ${REASONS[delivery.reason] ?? ""}`),
      delivery.next && h("span", null, `next: ${delivery.next}`),
      webhook && h("a", { href: `/portal${base}${path("webhooks", name)}` }, "To the webhook")),
    facts([delivery.parked && ["Parked", when(delivery.parked.parked ?? delivery.parked)], delivery.next_at && ["Next attempt", when(delivery.next_at)], delivery.detail && ["Detail", delivery.detail]]),
    delivery.attempts.length > 0
      ? h("ol", { class: "log", "aria-label": `Attempts, ${title}` }, delivery.attempts.map((attempt) => attemptRow(tenant, attempt)))
      : h("p", { class: "muted" }, "No attempt was made."));
}
