// The banner that says why a webhook is failing or disabled, since when, and what to do.

import { get, mayWrite, path, post } from "./api.js";
import { read } from "./change.js";
import { append, h } from "./dom.js";
import { ago, number, percent, sentence, span, when } from "./format.js";
import { button, facts, say, stateOf, visit } from "./ui.js";

const HEADS = {
  disabled: "Disabled: its error rate was too high for too long",
  failing: "Failing: most attempts do not arrive",
  paused: "Off: nothing is sent",
};
const ADVICE = {
  disabled: "Look at the newest answers below, repair the receiver, send a test event, then enable the webhook. What was parked meanwhile can be replayed.",
  failing: "Look at the newest answers below and repair the receiver. Deliveries are tried again by themselves; if it goes on failing, the webhook will be disabled.",
  paused: "Events are parked, not lost. When it is on again, you can replay them.",
};

/**
 * A banner for a webhook that does not work, or nothing. `health` is the answer of …/health where it is
 * known; `changed` is called with the webhook as it is after it was enabled.
 */
export function banner(tenant, webhook, { health, brief = false, changed } = {}) {
  const state = stateOf(webhook);
  if (state === "healthy") return null;
  const where = `${path("tenants", tenant)}${path("webhooks", webhook.name)}`;
  const since = health?.since ?? webhook.health?.since;
  const reason = health?.reason ?? webhook.health?.reason;
  const enable = async () => {
    await post(`${where}/${state === "paused" ? "resume" : "enable"}`);
    say("good", `${webhook.title} is on. Events that were parked meanwhile stay parked until you replay them.`,
      { label: "To the parked deliveries", run: () => visit(`/portal${where}/parked`) });
    await changed(await read(where));
  };
  const element = h("div", { class: `banner ${state}`, role: "status" },
    h("div", { class: "banner-text" },
      h("p", { class: "banner-head" }, HEADS[state]),
      state !== "paused" && since && h("p", null, "Since ", when(since), " (", ago(since), ")", reason && `: ${reason}`, "."),
      !brief && h("p", null, h("strong", null, "What to do: "), sentence(health?.advice ?? ADVICE[state]))),
    h("div", { class: "actions" },
      mayWrite() && state !== "failing" && changed && button("Enable", enable, { kind: "primary" }),
      brief && h("a", { class: "button", href: `/portal${where}` }, "See what it answered")));
  if (!brief && health?.window && state !== "paused") append(element, figures(health));
  return element;
}

/** The window that the verdict is made of. */
function figures({ window, policy }) {
  const shown = facts([
    ["Attempts", number(window.attempts)],
    ["Failed", `${number(window.failed)} (${percent(window.failed, window.attempts)})`],
    window.first_failure && ["Failing since", when(window.first_failure)],
    ["Last success", window.last_success ? when(window.last_success) : "none in the window"],
    window.span_seconds && ["Window", span(window.span_seconds * 1000)],
  ], "in-banner");
  return h("details", null, h("summary", null, "Figures behind this"), shown, policy?.failed_percent && thresholds(policy));
}

/** When a webhook is disabled here, in words. */
function thresholds(policy) {
  return h("ul", { class: "steps" },
    h("li", null, `Disabled when ${policy.failed_percent} % of at least ${number(policy.attempts)} attempts within ${policy.window} failed, and none succeeded for ${policy.silence};`),
    h("li", null, `or when all of at least ${number(policy.slow_attempts)} attempts within ${policy.slow_window} failed, for all of that time.`));
}

/** The health of a webhook; null when it cannot be read now. */
export async function healthOf(where) {
  try {
    return await get(`${where}/health`);
  } catch (problem) {
    if (problem.status === 401) throw problem;
    return null;
  }
}
