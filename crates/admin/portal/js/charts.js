// Success and latency of a webhook, drawn by hand, and the same as a table.

import { get, query } from "./api.js";
import { h, replace, svg } from "./dom.js";
import { milliseconds, number, percent } from "./format.js";
import { card, emptiness, facts, into, table } from "./ui.js";

const RANGES = [["1 hour", 3600, 60], ["24 hours", 86_400, 900], ["7 days", 604_800, 7200]];
const WIDTH = 560;
const HEIGHT = 150;
const LEFT = 44;
const BOTTOM = 22;
const TOP = 8;

/** The box with both charts; `refresh` reads them again. */
export function charts(where) {
  let range = RANGES[1];
  const box = h("div");
  const load = async () => {
    const until = new Date();
    const since = new Date(until - range[1] * 1000);
    const stats = await get(`${where}/stats${query({ since: since.toISOString(), until: until.toISOString(), step: range[2] })}`);
    // Whole steps, so that the last is as wide as the others.
    const [first, last, step] = [new Date(stats.since).getTime(), new Date(stats.until).getTime(), range[2] * 1000];
    return draw(stats, first, first + Math.ceil((last - first) / step) * step, range);
  };
  const refresh = async () => {
    // A table that somebody reads, or a chart that cannot be had, is left as it is.
    if (box.querySelector("details[open]")) return;
    try {
      replace(box, await load());
    } catch {
      await into(box, load);
    }
  };
  const choose = RANGES.map((candidate) => h("button", {
    type: "button", class: "small", "aria-pressed": String(candidate === range),
    onclick: (event) => {
      range = candidate;
      for (const other of choose) other.setAttribute("aria-pressed", String(other === event.currentTarget));
      into(box, load);
    },
  }, candidate[0]));
  into(box, load);
  const element = card(null,
    h("div", { class: "title-row" }, h("h2", null, "How it went"), h("div", { class: "actions", role: "group", "aria-label": "Time" }, choose)),
    box);
  return { element, refresh };
}

function draw({ points }, since, until, [name, , step]) {
  const total = points.reduce((sum, point) => sum + point.attempts, 0);
  const delivered = points.reduce((sum, point) => sum + point.delivered, 0);
  if (total === 0) return emptiness(`Nothing was sent in the last ${name}.`);
  const p95 = quantileOf(points, "p95_ms");
  const p50 = quantileOf(points, "p50_ms");
  return h("div", { class: "fields" },
    facts([["Attempts", number(total)], ["Delivered", percent(delivered, total)], ["Failed", number(total - delivered)],
      ["Median", upTo(p50)], ["95 % within", upTo(p95)]], "big"),
    h("div", { class: "two" },
      successChart(points, since, until, step, name, `${percent(delivered, total)} of ${number(total)} attempts delivered`),
      latencyChart(points, since, until, step, name)),
    h("details", null, h("summary", null, "The same as a table"), asTable(points)));
}

/** From the histograms of all points: the bound that this share is within. */
function quantileOf(points, which) {
  const share = which === "p95_ms" ? 0.95 : 0.5;
  const bounds = points[0]?.durations?.up_to_ms ?? [];
  const sums = [];
  for (const point of points) (point.durations?.attempts ?? []).forEach((count, index) => { sums[index] = (sums[index] ?? 0) + count; });
  const all = sums.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [index, count] of sums.entries()) {
    seen += count;
    if (seen >= all * share) return bounds[index] ?? null;
  }
  return null;
}

const upTo = (ms) => (ms === null ? "more than 10 s" : `≤ ${milliseconds(ms)}`);

const x = (at, since, until) => LEFT + ((at - since) / (until - since)) * (WIDTH - LEFT);
const y = (value, most) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);

function base(title, description, since, until, labels) {
  const days = until - since > 90_000_000;
  const format = new Intl.DateTimeFormat(undefined, days ? { weekday: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" });
  const ticks = [0, 1, 2, 3].map((index) => since + ((until - since) * (index + 0.5)) / 4);
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${description}` },
    labels.map(([value, text]) => [
      svg("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: value, y2: value }),
      svg("text", { x: LEFT - 6, y: value + 4, "text-anchor": "end" }, text)]),
    ticks.map((at) => svg("text", { x: x(at, since, until), y: HEIGHT - 5, "text-anchor": "middle" }, format.format(at))));
}

function successChart(points, since, until, step, name, description) {
  const most = nice(Math.max(...points.map((point) => point.attempts)));
  const chart = base(`Attempts in the last ${name}`, description, since, until,
    [[y(0, most), "0"], [y(most / 2, most), number(most / 2)], [y(most, most), number(most)]]);
  const wide = Math.max(2, ((step * 1000) / (until - since)) * (WIDTH - LEFT) - 1);
  for (const point of points) {
    const left = Math.max(LEFT, x(new Date(point.at).getTime(), since, until));
    const failed = point.attempts - point.delivered;
    const bar = (from, count, kind) => count > 0 && chart.append(svg("rect", {
      class: kind, x: left, width: Math.min(wide, WIDTH - left), y: y(from + count, most), height: Math.max(1, y(from, most) - y(from + count, most)) }));
    bar(0, point.delivered, "bar-good");
    bar(point.delivered, failed, "bar-bad");
  }
  return h("figure", { class: "chart" }, h("figcaption", { class: "label" }, "Attempts"), chart,
    legend([["bar-good", "delivered"], ["bar-bad", "failed"]]));
}

function latencyChart(points, since, until, step, name) {
  const values = points.flatMap((point) => [point.p50_ms, point.p95_ms]).filter((value) => value !== null);
  const most = nice(Math.max(10, ...values));
  const slow = points.some((point) => point.p95_ms === null);
  const description = `Half within ${upTo(quantileOf(points, "p50_ms"))}, 95 % within ${upTo(quantileOf(points, "p95_ms"))}`;
  const chart = base(`How long answers took in the last ${name}`, description, since, until,
    [[y(0, most), "0"], [y(most / 2, most), milliseconds(most / 2)], [y(most, most), milliseconds(most)]]);
  for (const [key, kind] of [["p50_ms", "p50"], ["p95_ms", "p95"]]) {
    for (const part of runsOf(points, key, step)) {
      const places = part.map(([at, value]) => [Math.max(LEFT, x(at + (step * 500), since, until)), y(Math.min(value, most), most)]);
      if (places.length === 1) chart.append(svg("circle", { class: kind, cx: places[0][0], cy: places[0][1], r: 3 }));
      else chart.append(svg("polyline", { class: `line ${kind}`, points: places.map((place) => place.map((n) => n.toFixed(1)).join(",")).join(" ") }));
    }
  }
  return h("figure", { class: "chart" }, h("figcaption", { class: "label" }, "Time to answer"), chart,
    legend([["p50", "median"], ["p95", "95 %"]]), slow && h("p", { class: "hint" }, "Some answers took longer than what is measured."));
}

/** Points that follow each other: where nothing was sent there is no line. */
function runsOf(points, key, step) {
  const runs = [];
  let last = null;
  for (const point of points) {
    const at = new Date(point.at).getTime();
    if (point[key] === null) { last = null; continue; }
    if (last === null || at - last > step * 1500) runs.push([]);
    runs.at(-1).push([at, point[key]]);
    last = at;
  }
  return runs;
}

function nice(most) {
  const size = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [2, 4, 5, 10].map((factor) => factor * size).find((bound) => bound >= most) ?? most;
}

const legend = (entries) => h("div", { class: "legend" }, entries.map(([kind, text]) =>
  h("span", null, h("i", { class: kind, "aria-hidden": "true" }), text)));

function asTable(points) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
  const columns = [{ label: "From" }, ...["Attempts", "Delivered", "Failed", "Median", "95 %"].map((label) => ({ label, class: "num" }))];
  return table("Attempts and latency", columns, [...points].reverse().map((point) => [
    format.format(new Date(point.at)), number(point.attempts), number(point.delivered), number(point.attempts - point.delivered),
    upTo(point.p50_ms), upTo(point.p95_ms)]));
}
