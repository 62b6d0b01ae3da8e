// A webhook: its head with banner and tabs, and what is on each of them.

import { mayWrite, path } from "../api.js";
import { read } from "../change.js";
import { charts } from "../charts.js";
import { h, replace } from "../dom.js";
import { sentence } from "../format.js";
import { banner, healthOf } from "../health.js";
import { DeliveryLog } from "../log.js";
import { parkedPanel } from "../parked.js";
import { settingsForm } from "../settings.js";
import { signingPanel } from "../signing.js";
import { testDialog } from "../test-send.js";
import { button, complain, pageHead, stateBadge, stateOf, tabs } from "../ui.js";

/** Between two looks at figures while deliveries come in, in milliseconds. */
const LOOK = 2000;
/** Between two looks at the verdict when nothing comes in. */
const REST = 10_000;

/** What all tabs have: reads the webhook, and draws its head again whenever it changes. */
async function frame({ tenant, webhook: name }) {
  const base = path("tenants", tenant);
  const where = `${base}${path("webhooks", name)}`;
  const head = h("div", { class: "page-head" });
  const state = { tenant, where, head, ...(await read(where)), listeners: [] };
  state.set = (found) => {
    Object.assign(state, found);
    return state.refresh();
  };
  state.refresh = async () => {
    const health = await healthOf(where);
    // The verdict may be newer than the webhook that was read.
    const webhook = health?.state && health.state !== "paused" ? { ...state.webhook, health } : state.webhook;
    draw(state, webhook, health);
    for (const listener of state.listeners) listener(webhook);
  };
  await state.refresh();
  // A verdict can come after the last attempt.
  const timer = setInterval(() => document.hidden || state.refresh().catch(() => {}), REST);
  state.dispose = () => clearInterval(timer);
  return state;
}

function draw(state, webhook, health) {
  const { tenant, where, head } = state;
  const page = `/portal${where}`;
  const focused = head.contains(document.activeElement) && document.activeElement.tagName !== "H1";
  const shown = banner(tenant, webhook, { health, changed: (found) => state.set(found) });
  // A banner whose details somebody reads is left as it is.
  const key = JSON.stringify([webhook.revision, webhook.health?.state, webhook.health?.since, health?.window]);
  if (state.drawn === key) return;
  if (state.drawn && head.querySelector("details[open]") && state.state === stateOf(webhook)) return;
  state.drawn = key;
  state.state = stateOf(webhook);
  replace(head,
    pageHead(webhook.title ?? webhook.name, {
      crumbs: [["Event URL", `/portal${path("tenants", tenant)}`]],
      badges: stateBadge(stateOf(webhook)),
      actions: mayWrite() && button("Send test", () => testDialog(where, webhook)),
      lead: h("span", { class: "url" }, webhook.url),
    }),
    shown,
    (webhook.warnings ?? []).map((warning) => h("p", { class: "notice warn" }, sentence(warning))),
    tabs(webhook.title ?? webhook.name, [
      ["Deliveries", page],
      ["Parked", `${page}/parked`],
      ["Settings", `${page}/settings`],
      ["Signing secret", `${page}/signing`],
    ]));
  if (focused) head.querySelector("h1")?.focus({ preventScroll: true });
}

const titleOf = (state, tab) => `${tab} · ${state.webhook.title ?? state.webhook.name}`;

/** Charts, and the log of deliveries as they happen. */
export async function deliveries({ params }) {
  const state = await frame(params);
  const figures = charts(state.where);
  const later = lately(() => Promise.all([state.refresh(), figures.refresh()]));
  const log = new DeliveryLog(params.tenant, state.where, () => later.soon());
  await log.begin();
  const dispose = () => { state.dispose(); log.end(); later.end(); };
  return { title: titleOf(state, "Deliveries"), content: [state.head, figures.element, log.element], dispose };
}

export async function parked({ params, query }) {
  const state = await frame(params);
  const panel = parkedPanel(state.where, params.tenant, query.get("reason"));
  const later = lately(() => state.refresh());
  panel.whenReplaying(() => later.soon());
  return { title: titleOf(state, "Parked"), content: [state.head, panel.element], dispose: () => { state.dispose(); panel.end(); later.end(); } };
}

export async function settings({ params, go }) {
  const state = await frame(params);
  const box = h("div");
  const show = () => replace(box, settingsForm(state, { go, shown: show }));
  show();
  return { title: titleOf(state, "Settings"), content: [state.head, box], dispose: state.dispose };
}

export async function signing({ params }) {
  const state = await frame(params);
  return { title: titleOf(state, "Signing secret"), content: [state.head, signingPanel(state)], dispose: state.dispose };
}

/** Does something soon, however often it is asked for, and not while it is under way. */
function lately(run) {
  let timer = null;
  let ended = false;
  const soon = () => {
    if (timer || ended) return;
    timer = setTimeout(async () => {
      try {
        await run();
      } catch (problem) {
        complain(problem);
      }
      timer = null;
    }, LOOK);
  };
  return { soon, end: () => { ended = true; clearTimeout(timer); } };
}
