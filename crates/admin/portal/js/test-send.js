// A test event to one webhook, with the whole answer shown.

import { post } from "./api.js";
import { wholeExchange } from "./attempt.js";
import { h, replace } from "./dom.js";
import { Field, form, text } from "./form.js";
import { dialog } from "./ui.js";

export function testDialog(where, webhook) {
  return dialog(`Send a test to ${webhook.title ?? webhook.name}`, (close) => {
    const message = new Field("message", "Message", text({ value: "This is a test from Ringback.", maxlength: "1000", autofocus: true }));
    const result = h("div", { class: "dialog-result", "aria-live": "polite" });
    const send = async () => {
      replace(result, h("p", { class: "muted" }, "Sent; waiting for the answer…"));
      try {
        const answer = await post(`${where}/test`, message.value ? { message: message.value } : {});
        replace(result, answer.exchange ? shown(answer) : waiting(answer));
      } catch (problem) {
        replace(result);
        throw problem;
      }
    };
    return [
      h("p", { class: "muted" }, "An event ", h("code", null, "webhook.test"), " goes through the whole pipeline to this webhook alone, and is signed and authenticated as every other."),
      form({ label: "Test event", fields: [message], children: message.element, send, submit: "Send test",
        extra: h("button", { type: "button", onclick: () => close() }, "Close") }),
      result,
    ];
  }, { wide: true });
}

const shown = (answer) => [h("h3", { class: "spoken" }, "Answer"), wholeExchange(answer.exchange)]
  .concat((answer.warnings ?? []).map((warning) => h("p", { class: "notice" }, warning)));

function waiting(answer) {
  const warnings = answer.warnings ?? [];
  return h("div", { class: "trouble" }, warnings.length > 0
    ? warnings.map((warning) => h("p", null, `${warning}.`))
    : h("p", null, "No answer came in time. It appears in the log of deliveries when it does."));
}
