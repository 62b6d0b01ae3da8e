// The receiver's guide: what to do with a request, and code that verifies its signature.

import { h, newId, replace } from "../dom.js";
import { card, codeBlock, into, pageHead, table } from "../ui.js";

const LANGUAGES = [["Python", "verify.py"], ["Node.js", "verify.mjs"], ["PHP", "verify.php"], ["Go", "verify.go"]];
const ANSWERS = [
  ["200", "The event is delivered."],
  ["404", "It is never sent again by itself; it is parked."],
  ["429 or 503 with Retry-After", "It comes again, not before that time; so do all others."],
  ["anything else, also 201, 204 and redirects", "It comes again after 32 s, 4 min, 17 min, 52 min and 2 h."],
];
const REQUEST = `POST /events HTTP/1.1
content-type: application/json
webhook-id: 01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e
webhook-timestamp: 1795231199
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=

{"id":"01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e","type":"cdr.completed",
 "timestamp":"2026-11-21T09:59:58Z","tenant":"acme","source":"pbx",
 "subject":"call/8841","data":{"caller":"2001"}}`;

export function guide() {
  const content = [
    pageHead("Receiver’s guide", { lead: "For whoever writes or runs what is behind a webhook’s URL." }),
    card("What comes", h("p", null, "An HTTP POST for each event. The signature is made after Standard Webhooks, over ", h("code", null, "webhook-id.webhook-timestamp.body"), "."),
      codeBlock(REQUEST, "Request", { copy: false })),
    card("What to do with it", h("ol", { class: "steps" }, [
      "Read the body as bytes, and keep them: what is signed is what came, not what a JSON parser makes of it.",
      "Verify signature and timestamp. If they are wrong, answer 401 and do nothing else.",
      "Look whether you have this webhook-id already. If so, answer 200 and do nothing else: the same event can come more than once, and events come in any order.",
      "Store the event, answer 200, and work on it afterwards.",
    ].map((text) => h("li", null, text)))),
    card("What your answer does", table("Answers", ["You answer", "What happens"].map((label) => ({ label })), ANSWERS)),
    verifying(),
  ];
  return { title: "Receiver’s guide", content };
}

/** Code in several languages, chosen like tabs. */
function verifying() {
  const box = h("div", { class: "source", id: newId("source") });
  const buttons = LANGUAGES.map(([language, file]) => h("button", {
    type: "button", class: "small", "aria-pressed": "false", "aria-controls": box.id, onclick: () => choose(language, file),
  }, language));
  const choose = (language, file) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === language));
    return into(box, async () => {
      const response = await fetch(`/portal/guide/${file}`);
      if (!response.ok) throw Object.assign(new Error("The code cannot be loaded."), { status: response.status });
      return codeBlock((await response.text()).trimEnd(), `Code in ${language}`);
    });
  };
  replace(box);
  choose(...LANGUAGES[0]);
  return card("Verify the signature",
    h("p", null, "Nothing but the language’s own library is needed. The signing secret is with each webhook, under ", h("em", null, "Signing secret"), ". Libraries of Standard Webhooks do the same."),
    h("div", { class: "chips", role: "group", "aria-label": "Language" }, buttons), box,
    h("p", { class: "muted" }, "A timestamp more than five minutes off is refused, so that a request that somebody recorded cannot be sent again later: keep the clock right (NTP)."));
}
