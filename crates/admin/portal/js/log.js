// The log of deliveries: each attempt with what was sent and what came back, as it happens.

import { get, path, query, resume } from "./api.js";
import { exchange, outcomeBadge } from "./attempt.js";
import { append, h, newId, replace, spoken } from "./dom.js";
import { Field, select, text } from "./form.js";
import { milliseconds, shortId, timeOfDay, upcoming } from "./format.js";
import { busy, button, card, emptiness, trouble } from "./ui.js";

/** Rows that are kept while new ones come in. */
const ROWS_MAX = 300;
const OUTCOMES = [
  ["", "All outcomes"], ["delivered", "Delivered"], ["failed", "Failed"], ["timeout", "Timeout"],
  ["refused", "Connection refused"], ["reset", "Connection reset"], ["dns", "Name not found"], ["tls", "TLS failed"],
];
const HTTP = /^[1-5]\d\d$/;
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** What came of an attempt, and when it is tried again. */
function nextOf(attempt) {
  if (attempt.next === "delivered") return "delivered";
  if (attempt.next?.startsWith("retry.")) {
    return upcoming("again", attempt.next_at, attempt.next.slice("retry.".length));
  }
  return `parked: ${attempt.next}`;
}

const tryOf = (attempt) => [attempt.attempt === 0 ? "first attempt" : `retry ${attempt.attempt}`,
  attempt.run > 0 && `replay ${attempt.run}`].filter(Boolean).join(", ");

const keyOf = (attempt) => `${attempt.event} ${attempt.run} ${attempt.attempt} ${attempt.started}`;

/** One attempt; what was exchanged is made when it is opened. */
export function attemptRow(tenant, attempt, { fresh = false } = {}) {
  const body = h("div", { class: "detail" });
  const summary = h("summary", null,
    timeOfDay(attempt.started),
    outcomeBadge(attempt),
    h("span", { class: "type" }, attempt.type),
    h("span", { class: "mono", title: attempt.event }, shortId(attempt.event)),
    h("span", { class: "took" }, milliseconds(attempt.duration_ms)),
    h("span", { class: "muted" }, tryOf(attempt), attempt.next === "delivered" ? null : [", ", nextOf(attempt)]));
  const details = h("details", null, summary, body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.hasChildNodes()) append(body, exchange(tenant, attempt));
  });
  return h("li", { class: fresh ? "fresh" : null, "data-key": keyOf(attempt) }, details);
}

export class DeliveryLog {
  /** `changed` is called whenever an attempt comes in. */
  constructor(tenant, where, changed) {
    this.tenant = tenant;
    this.where = where;
    this.changed = changed;
    this.cursor = null;
    this.source = null;
    this.held = [];
    this.live = true;
    this.outcome = new Field("outcome", "Outcome", select(OUTCOMES, ""));
    this.status = new Field("status", "Status", text({ inputmode: "numeric", maxlength: "3", placeholder: "such as 503" }));
    this.event = new Field("event", "Event id", text({ placeholder: "whole id" }), { wide: true });
    this.event.element.classList.add("wide");
    this.list = h("ol", { class: "log", "aria-label": "Attempts, newest first" });
    this.box = h("div");
    this.more = button("Show older", () => this.older());
    this.more.hidden = true;
    this.sign = h("span", { class: "live", role: "status" }, "Connecting");
    this.switch = h("button", { type: "button", class: "small", "aria-pressed": "false", onclick: () => this.hold() }, "Hold");
    this.news = spoken();
    this.news.setAttribute("role", "status");
    const filter = h("form", { class: "tools", "aria-label": "Filter" },
      this.outcome.element, this.status.element, this.event.element,
      h("button", { type: "submit" }, "Show"));
    filter.addEventListener("submit", (event) => {
      event.preventDefault();
      busy(filter.querySelector("button"), () => this.load());
    });
    this.outcome.input.addEventListener("change", () => this.load());
    this.element = card(null,
      h("div", { class: "title-row" }, h("h2", null, "Deliveries"), h("div", { class: "actions" }, this.sign, this.switch)),
      filter, this.news, this.box, this.more);
  }

  async begin() {
    await this.load();
    this.listen();
  }

  end() {
    this.ended = true;
    this.source?.close();
    clearTimeout(this.again);
  }

  /** What is wanted; null when what was entered is no filter. */
  parameters() {
    const status = this.status.value.trim();
    const event = this.event.value.trim();
    this.status.complain(status && !HTTP.test(status) ? "A status has three digits, such as 503." : null);
    this.event.complain(event && !UUID.test(event) ? "An event id looks like 01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e." : null);
    if ((status && !HTTP.test(status)) || (event && !UUID.test(event))) return null;
    return { outcome: status || this.outcome.value, event };
  }

  async load() {
    const wanted = this.parameters();
    if (!wanted) return;
    this.wanted = wanted;
    this.held = [];
    try {
      const page = await get(`${this.where}/attempts${query({ ...wanted, limit: 50 })}`);
      this.cursor = page.cursor;
      replace(this.list, page.attempts.map((attempt) => attemptRow(this.tenant, attempt)));
      this.settle();
    } catch (problem) {
      if (problem.status === 401) throw problem;
      this.more.hidden = true;
      replace(this.box, trouble(problem, () => this.load()));
    }
  }

  async older() {
    const page = await get(`${this.where}/attempts${query({ ...this.wanted, limit: 50, cursor: this.cursor })}`);
    this.cursor = page.cursor;
    const known = new Set([...this.list.children].map((row) => row.dataset.key));
    append(this.list, page.attempts.filter((attempt) => !known.has(keyOf(attempt))).map((attempt) => attemptRow(this.tenant, attempt)));
    this.settle();
  }

  /** Shows the list, or that there is nothing. */
  settle() {
    this.more.hidden = this.cursor === null;
    if (this.list.children.length > 0) {
      if (this.list.parentNode !== this.box) replace(this.box, this.list);
      return;
    }
    const filtered = this.wanted.outcome || this.wanted.event;
    replace(this.box, this.cursor
      ? emptiness("Nothing among the newest; there may be more further back.")
      : filtered ? emptiness("No attempt is like that.") : emptiness("Nothing was sent yet. Events appear here as soon as they are; a test event shows whether the receiver answers."));
  }

  /** Follows what happens from now on. */
  listen() {
    if (this.ended) return;
    const source = new EventSource(`/v1${this.where}/attempts/stream`);
    this.source = source;
    source.addEventListener("open", () => this.say(true));
    source.addEventListener("attempt", (event) => this.arrived(JSON.parse(event.data)));
    // Some were missed while the connection was lost.
    source.addEventListener("gap", () => this.load());
    source.addEventListener("error", () => {
      this.say(false);
      // A lost connection is made again by the browser; a refusal is not.
      if (source.readyState === EventSource.CLOSED) this.reconnect();
    });
  }

  reconnect() {
    clearTimeout(this.again);
    this.again = setTimeout(async () => {
      if (this.ended) return;
      try {
        // When the session is over, any request says so and leads to signing in.
        if (!(await resume())) await get(this.where);
        else if (!this.ended) { await this.load(); this.listen(); }
      } catch (problem) {
        if (problem.status !== 401) this.reconnect();
      }
    }, 3000);
  }

  say(on) {
    this.sign.classList.toggle("on", on && this.live);
    const text = !on ? "Connecting" : this.live ? "Live" : "Held";
    if (this.sign.textContent !== text) this.sign.textContent = text;
  }

  hold() {
    this.live = !this.live;
    this.switch.setAttribute("aria-pressed", String(!this.live));
    this.say(true);
    if (!this.live) return;
    const held = this.held.splice(0);
    for (const attempt of held) this.insert(attempt);
    this.switch.textContent = "Hold";
  }

  arrived(attempt) {
    this.changed();
    if (!this.fits(attempt)) return;
    if (this.live) return this.insert(attempt);
    this.held.push(attempt);
    if (this.held.length > ROWS_MAX) this.held.shift();
    this.switch.textContent = `Hold (${this.held.length} new)`;
  }

  fits(attempt) {
    const { outcome, event } = this.wanted ?? {};
    if (event && event.toLowerCase() !== attempt.event) return false;
    if (!outcome) return true;
    if (outcome === "delivered") return attempt.next === "delivered";
    if (outcome === "failed") return attempt.next !== "delivered";
    return String(attempt.status ?? "") === outcome || attempt.outcome === outcome;
  }

  insert(attempt) {
    const key = keyOf(attempt);
    for (const row of this.list.children) if (row.dataset.key === key) return;
    this.list.prepend(attemptRow(this.tenant, attempt, { fresh: true }));
    while (this.list.children.length > ROWS_MAX) {
      this.list.lastChild.remove();
      // What fell off is still there, a reload away.
      this.more.hidden = true;
    }
    if (this.list.parentNode !== this.box) replace(this.box, this.list);
    this.news.textContent = `New: ${attempt.type}, ${attempt.status ?? attempt.outcome}`;
  }
}

/** A link to an event. */
export function eventLink(tenant, id) {
  return h("a", { href: `/portal${path("tenants", tenant)}${path("events", id)}`, class: "mono", id: newId("event") }, shortId(id), spoken(` ${id}`));
}
