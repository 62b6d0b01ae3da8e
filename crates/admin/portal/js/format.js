// Times, durations and numbers for people.

import { h } from "./dom.js";

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const numbers = new Intl.NumberFormat();
const UNITS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];

export const number = (value) => (value === null || value === undefined ? "–" : numbers.format(value));

export function percent(part, whole) {
  if (!whole) return "–";
  const share = (100 * part) / whole;
  // 99.99 % is not 100 %: somebody is missing an event.
  const digits = share > 99 && share < 100 ? 2 : share >= 10 ? 0 : 1;
  return `${(Math.floor(share * 100) / 100).toFixed(digits)} %`;
}

/** `1.2 s`, `340 ms`. */
export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : span(ms);
}

/** The two largest units of a duration: `2 h 5 min`. */
export function span(ms) {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return "0 s";
  const parts = [];
  let rest = ms;
  for (const [unit, size] of UNITS) {
    const count = Math.floor(rest / size);
    if (count > 0) parts.push(`${count} ${unit}`);
    rest -= count * size;
    if (parts.length === 2 || (parts.length === 1 && count === 0)) break;
  }
  return parts.join(" ");
}

export const seconds = (value) => (value === null || value === undefined ? "–" : span(value * 1000));

/** Beginning and end of what was left out in an id. */
export const shortId = (id) => (id && id.length > 14 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

function relation(then) {
  const ms = Date.now() - then;
  if (Math.abs(ms) < 2000) return "now";
  // Beyond a minute nobody counts seconds.
  const size = Math.abs(ms) < 60_000 ? Math.abs(ms) : Math.abs(ms) - (Math.abs(ms) % 60_000);
  return ms > 0 ? `${span(size)} ago` : `in ${span(size)}`;
}

/** A time as `3 min ago`, kept right, with the whole date behind it. */
export function ago(value) {
  if (!value) return h("span", { class: "muted" }, "never");
  const then = new Date(value).getTime();
  return h("time", { datetime: new Date(then).toISOString(), title: absolute.format(then), "data-then": then }, relation(then));
}

const untilThen = (word, then, wait) =>
  (then > Date.now() ? `${word} in ${span(Math.max(1000, then - Date.now()))}` : `${word} after ${wait}`);

/** `again in 31 s`, and when that is over `again after 32s`. */
export function upcoming(word, value, wait) {
  const then = value ? new Date(value).getTime() : 0;
  return h("span", { "data-until": then, "data-word": word, "data-wait": wait }, untilThen(word, then, wait));
}

/** The whole date and time. */
export function when(value) {
  if (!value) return h("span", { class: "muted" }, "never");
  const then = new Date(value);
  return h("time", { datetime: then.toISOString() }, absolute.format(then));
}

/** The time of day, with the date behind it. */
export function timeOfDay(value) {
  const then = new Date(value);
  return h("time", { datetime: then.toISOString(), title: absolute.format(then) }, clock.format(then));
}

setInterval(() => {
  for (const element of document.querySelectorAll("time[data-then]")) {
    const text = relation(Number(element.dataset.then));
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    const text = untilThen(element.dataset.word, Number(element.dataset.until), element.dataset.wait);
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);

/** Text of JSON with indentation; what is no JSON as it is. */
export function pretty(text) {
  if (typeof text !== "string") return JSON.stringify(text, null, 2);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** A sentence of the API as one reads it. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
