// What is parked, by reason, and its replay with progress.

import { get, mayWrite, post, query, remove } from "./api.js";
import { h, newId, replace } from "./dom.js";
import { Field, form, select, text } from "./form.js";
import { ago, number } from "./format.js";
import { eventLink } from "./log.js";
import { badge, button, card, complain, dialog, emptiness, into, say, table } from "./ui.js";

export const REASONS = {
  paused: "the webhook was off",
  disabled: "the webhook was disabled",
  exhausted: "the last retry failed",
  expired: "24 hours were over",
  rejected: "the receiver answered 404",
  undeliverable: "it can never be sent",
  removed: "its webhook was removed",
};
/** Between two looks at replays under way, in milliseconds. */
const LOOK = 1000;

export function parkedPanel(where, tenant, first) {
  const state = { reason: first && first in REASONS ? first : "", cursor: null, entries: [], counts: {}, chosen: new Map() };
  const list = h("div", { class: "fields" });
  const jobs = h("div", { class: "fields" });
  const watch = new Replays(where, jobs, () => load());
  const load = () => into(list, async () => {
    const page = await get(`${where}/parked${query({ reason: state.reason, limit: 50 })}`);
    if (page.counts) state.counts = page.counts;
    state.entries = page.parked;
    state.cursor = page.cursor;
    state.chosen.clear();
    return content();
  });
  const older = async () => {
    const page = await get(`${where}/parked${query({ reason: state.reason, limit: 50, cursor: state.cursor })}`);
    state.entries.push(...page.parked);
    state.cursor = page.cursor;
    replace(list, content());
  };
  const begin = async (filter) => {
    const { replay } = await post(`${where}/replay`, filter);
    watch.began(replay);
  };
  const content = () => [
    counts(state, (reason) => { state.reason = reason; load(); }),
    tools(state, begin),
    entries(state, tenant, begin),
    state.cursor && button("Show older", older),
  ];
  load();
  watch.look();
  const element = h("div", { class: "fields" }, jobs, card("Parked deliveries",
    h("p", { class: "muted" }, "Ended without success, and kept for 7 days. A replay sends the same event again, with the same id."), list));
  return { element, end: () => watch.end(), whenReplaying: (listener) => { watch.listener = listener; } };
}

function counts(state, choose) {
  const all = Object.values(state.counts).reduce((sum, count) => sum + count, 0);
  const chip = (reason, label, count) => h("button", {
    type: "button", class: "small", "aria-pressed": String(state.reason === reason), onclick: () => choose(reason),
  }, `${label} ${number(count)}`);
  const known = Object.entries(state.counts).filter(([, count]) => count > 0);
  if (known.length === 0) return null;
  return h("div", { class: "chips", role: "group", "aria-label": "By reason" },
    chip("", "All", all), known.map(([reason, count]) => chip(reason, reason, count)));
}

function tools(state, begin) {
  if (!mayWrite() || state.entries.length === 0) return null;
  const selected = h("button", { type: "button", class: "replay-selected" }, "Replay selected");
  selected.addEventListener("click", async () => {
    const deliveries = [...state.chosen.keys()];
    if (deliveries.length === 0) return say("note", "Select deliveries in the list first.");
    try {
      return await begin({ deliveries });
    } catch (problem) {
      return complain(problem);
    }
  });
  return h("div", { class: "actions" }, selected, button("Replay all…", () => allDialog(state, begin), { kind: "primary" }));
}

/** Which of the parked to replay. */
function allDialog(state, begin) {
  return dialog("Replay parked deliveries", (close) => {
    const reasons = [["", "any reason"], ...Object.entries(REASONS).map(([reason, text]) => [reason, `${reason}: ${text}`])];
    const reason = new Field("reason", "Parked because", select(reasons, state.reason));
    const type = new Field("type", "Event type", text({ placeholder: "all, or such as cdr.completed" }), { optional: true });
    const since = new Field("since", "Parked since", h("input", { type: "datetime-local" }), { optional: true });
    const until = new Field("until", "Parked until", h("input", { type: "datetime-local" }), { optional: true });
    const id = newId("states");
    const states = h("input", { type: "checkbox", id, checked: false });
    const send = async () => {
      const filter = {};
      if (reason.value) filter.reason = reason.value;
      if (type.value.trim()) filter.type = type.value.trim();
      if (since.value) filter.since = new Date(since.value).toISOString();
      if (until.value) filter.until = new Date(until.value).toISOString();
      if (Object.keys(filter).length === 0) filter.all = true;
      filter.states = states.checked;
      await begin(filter);
      close();
    };
    return form({
      label: "Replay", fields: [reason, type, since, until], send, submit: "Replay",
      children: [reason.element, type.element, h("div", { class: "row" }, since.element, until.element),
        h("div", { class: "check" }, states, h("label", { for: id }, "Also states (presence, queue status): old ones may mislead the receiver"))],
      extra: h("button", { type: "button", onclick: () => close() }, "Cancel"),
    });
  });
}

function entries(state, tenant, begin) {
  if (state.entries.length === 0) {
    return emptiness(state.reason ? "Nothing is parked for this reason." : "Nothing is parked: every delivery arrived, or is still under way.");
  }
  const write = mayWrite();
  const columns = [write && { label: "Select", class: "narrow" }, { label: "Event" }, { label: "Type" }, { label: "Parked", class: "narrow" },
    { label: "Why" }, { label: "Attempts", class: "num" }, { label: "Replayed", class: "narrow" }, write && { label: "Replay", class: "narrow" }].filter(Boolean);
  const shown = table("Parked deliveries, newest first", columns, state.entries.map((entry) => {
    const box = write && h("input", { type: "checkbox", "aria-label": `Select ${entry.event}`, checked: state.chosen.has(entry.event) });
    box && box.addEventListener("change", () => {
      if (box.checked) state.chosen.set(entry.event, entry);
      else state.chosen.delete(entry.event);
    });
    return [
      write && box,
      eventLink(tenant, entry.event),
      entry.type,
      ago(entry.parked),
      h("span", null, h("strong", null, entry.reason ?? "–"), entry.reason && `: ${REASONS[entry.reason] ?? ""}`, entry.detail && h("span", { class: "muted" }, ` (${entry.detail})`)),
      String(entry.attempts),
      entry.replayed === true ? badge("good", "yes") : entry.replayed === false ? "no" : "?",
      write && button("Replay", () => begin({ deliveries: [entry.event] }), { small: true, "aria-label": `Replay ${entry.event}` }),
    ].filter((cell) => cell !== false);
  }));
  if (!write) return shown;
  const id = newId("all");
  const all = h("input", { type: "checkbox", id });
  all.addEventListener("change", () => {
    for (const box of shown.querySelectorAll("tbody input[type=checkbox]")) {
      if (box.checked !== all.checked) box.click();
    }
  });
  return [h("div", { class: "check" }, all, h("label", { for: id }, "Select all that are shown")), shown];
}

/** Replays under way and the last that ended. */
class Replays {
  constructor(where, box, ended) {
    this.where = where;
    this.box = box;
    this.ended = ended;
    this.listener = () => {};
    this.running = new Set();
    this.own = new Set();
  }

  /** One was begun here. */
  began(replay) {
    this.own.add(replay.id);
    this.running.add(replay.id);
    this.look();
  }

  end() {
    this.over = true;
    clearTimeout(this.timer);
  }

  async look() {
    clearTimeout(this.timer);
    let replays;
    try {
      replays = (await get(`${this.where}/replays`)).replays;
    } catch (problem) {
      if (problem.status !== 404) complain(problem);
      return;
    }
    if (this.over) return;
    const shown = replays.filter((replay) => replay.state === "running" || this.own.has(replay.id) || isFresh(replay)).slice(0, 3);
    replace(this.box, shown.map((replay) => this.job(replay)));
    const done = replays.filter((replay) => replay.state !== "running" && this.running.has(replay.id));
    for (const replay of done) {
      this.running.delete(replay.id);
      const text = `Replay ${replay.state}: ${number(replay.sent)} of ${number(replay.found)} sent again.`;
      say(replay.state === "failed" ? "bad" : "good", text);
    }
    if (done.length > 0) this.ended();
    for (const replay of replays) if (replay.state === "running") this.running.add(replay.id);
    // After the last was sent, what comes of it is still on its way.
    const settling = shown.some((replay) => isFresh(replay) && typeof replay.delivered === "number" && replay.delivered + replay.failed < replay.sent);
    if (this.running.size > 0 || settling) {
      this.listener();
      this.timer = setTimeout(() => this.look(), LOOK);
    }
  }

  job(replay) {
    const cancel = button("Cancel", async () => {
      await remove(`${this.where}/replays/${encodeURIComponent(replay.id)}`);
      this.look();
    }, { small: true });
    const kind = { running: "note", done: "good", cancelled: "idle", failed: "bad" }[replay.state] ?? "note";
    const running = replay.state === "running";
    const counts = [["found", replay.found], ["sent", replay.sent], ["delivered", replay.delivered], ["failed", replay.failed],
      ["already replayed", replay.already || null], ["unreadable", replay.unreadable || null]]
      .filter(([, count]) => count !== null && count !== undefined)
      .map(([label, count]) => `${number(count)} ${label}`);
    return h("div", { class: "job", role: "group", "aria-label": "Replay" },
      h("div", { class: "title-row" }, h("div", { class: "title" }, h("strong", null, "Replay"), badge(kind, replay.cancelling ? "ending" : replay.state),
        h("span", { class: "muted" }, "begun ", ago(replay.started), replay.by && ` by ${typeof replay.by === "object" ? replay.by.name : replay.by}`)),
      running && mayWrite() && cancel),
      h("progress", { max: "1", value: running ? replay.progress ?? 0 : 1, "aria-label": "How much of what was parked is gone through" }),
      h("p", null, counts.join(", ")),
      replay.error && h("p", { class: "error" }, replay.error));
  }
}

const isFresh = (replay) => replay.ended && Date.now() - new Date(replay.ended) < 600_000;
