// What was exchanged in an attempt: request and response, headers, timing.

import { path } from "./api.js";
import { h } from "./dom.js";
import { milliseconds, pretty, when } from "./format.js";
import { badge, codeBlock, copyButton, facts } from "./ui.js";

/** What outcomes without a status mean. */
const MEANINGS = {
  timeout: "The receiver did not answer in time.",
  refused: "Nothing listens there: the connection was refused.",
  reset: "The connection was closed before an answer came.",
  dns: "The host’s name was not found.",
  resolver: "Our resolver did not answer. This is not counted against the webhook.",
  proxy: "Our proxy failed. This is not counted against the webhook.",
  tls: "The receiver’s certificate was not accepted, or TLS failed.",
  protocol: "What answered does not speak HTTP.",
};

export function outcomeBadge(attempt) {
  const label = attempt.status ? String(attempt.status) : attempt.outcome;
  const good = attempt.next ? attempt.next === "delivered" : attempt.outcome === "200";
  return badge(good ? "good" : "bad", label, MEANINGS[attempt.outcome]);
}

/** Headers as they were; `null`: not kept. */
export function headerList(headers, absent) {
  if (!headers) return h("p", { class: "muted" }, absent);
  if (headers.length === 0) return h("p", { class: "muted" }, "No headers.");
  return h("dl", { class: "headers" }, headers.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

export function bodyBlock(body, label) {
  if (body === null || body === undefined) return h("p", { class: "muted" }, "No body is kept.");
  if (body === "") return h("p", { class: "muted" }, "The body is empty.");
  return codeBlock(pretty(body), label);
}

/** The inside of a row of the log. */
export function exchange(tenant, attempt) {
  const href = `/portal${path("tenants", tenant)}${path("events", attempt.event)}`;
  const kept = "Headers are kept for attempts that failed and for tests.";
  return [
    facts([
      ["Event", h("span", null, h("a", { href, class: "mono" }, attempt.event), " ", copyButton(() => attempt.event, "Event id"))],
      ["Started", when(attempt.started)],
      ["Took", milliseconds(attempt.duration_ms)],
      attempt.next_at && attempt.next !== "delivered" && ["Next attempt", when(attempt.next_at)],
      attempt.next !== "delivered" && ["Then", attempt.next.startsWith("retry.") ? `tried again after ${attempt.next.slice(6)}` : `parked: ${attempt.next}`],
      attempt.stands_for > 1 && ["Stands for", `${attempt.stands_for} attempts (successes are sampled at high rates)`],
      attempt.trace && ["Trace", h("code", null, attempt.trace)],
      ["Sent by", attempt.dispatcher],
    ]),
    (attempt.error || MEANINGS[attempt.outcome]) && h("p", { class: attempt.next === "delivered" ? "notice" : "trouble" },
      [MEANINGS[attempt.outcome], attempt.error].filter(Boolean).join(" ")),
    h("div", { class: "exchange" },
      h("div", null, h("h3", null, "Request"), headerList(attempt.request_headers, kept),
        h("p", { class: "muted" }, "Attempts do not keep the body: it is the event in the webhook’s body format.")),
      h("div", null,
        h("h3", null, attempt.status ? `Response ${attempt.status}` : "No response"),
        attempt.status && headerList(attempt.response_headers, kept),
        attempt.status && bodyBlock(attempt.response ?? "", "Response body"))),
  ];
}

/** Request and response of a test, which are kept whole. */
export function wholeExchange({ request, response, outcome, acknowledged, error, duration_ms: took, started }) {
  return [
    facts([
      ["Outcome", badge(acknowledged ? "good" : "bad", `${response?.status ?? outcome}, ${acknowledged ? "acknowledged" : "not acknowledged"}`)],
      ["Took", milliseconds(took)],
      ["Started", when(started)],
    ]),
    (error || (!response && MEANINGS[outcome])) && h("p", { class: "trouble" }, [MEANINGS[outcome], error].filter(Boolean).join(" ")),
    h("div", { class: "exchange" },
      h("div", null, h("h3", null, "Request"), h("p", { class: "url" }, `${request.method ?? "POST"} ${request.url}`),
        headerList(request.headers, "Not kept."), bodyBlock(request.body, "Request body")),
      h("div", null, h("h3", null, response ? `Response ${response.status}` : "No response"),
        response && headerList(response.headers, "Not kept."), response && bodyBlock(response.body ?? "", "Response body"))),
  ];
}
