// The keys that a webhook's requests are signed with: shown on request, copied, rotated.

import { get, mayWrite, post, remove } from "./api.js";
import { h, replace } from "./dom.js";
import { when } from "./format.js";
import { Field, form, select } from "./form.js";
import { button, card, confirm, copyButton, dialog, say, secretOnce, table } from "./ui.js";

const KINDS = { hmac: "HMAC-SHA256 (v1)", ed25519: "Ed25519 (v1a)" };
const GRACES = [["24h", "24 hours"], ["48h", "48 hours"], ["7d", "7 days"], ["30d", "30 days"], ["0", "not at all"]];

export function signingPanel(state) {
  const keys = h("div");
  const reveal = h("div");
  const draw = (signing) => replace(keys, table("Signing keys", ["Kind", "Since", "Signs until"].map((label) => ({ label })),
    signing.map((key) => [KINDS[key.kind] ?? key.kind, when(key.created), key.until ? when(key.until) : "further notice"]),
    "Requests are not signed yet: make a key."));
  draw(state.webhook.signing ?? []);
  const show = async () => {
    const { signing } = await get(`${state.where}/secret`);
    const hide = button("Hide", () => replace(reveal, showButton), { small: true });
    replace(reveal, h("div", { class: "fields" }, signing.map((key) => {
      const label = key.secret ? "Signing secret" : "Public key";
      const shown = key.secret ?? key.public_key;
      return h("div", { class: "secret" }, h("span", { class: "label" }, `${label}, ${KINDS[key.kind] ?? key.kind}${key.until ? ", until it ends" : ""}`),
        h("code", { tabindex: "0" }, shown), copyButton(() => shown, label));
    }), h("div", { class: "actions" }, hide)));
  };
  const showButton = button("Show secret", show);
  replace(reveal, showButton);
  const after = async (answer) => {
    draw(answer.signing);
    replace(reveal, showButton);
    await state.refresh();
  };
  return [
    card("Keys", h("p", { class: "muted" }, "Every request is signed after Standard Webhooks. With the secret, the receiver verifies that it comes from here and was not changed."),
      keys, mayWrite() ? reveal : h("p", { class: "muted" }, "Your access is to read only: secrets are not shown.")),
    mayWrite() && card("Change", h("p", { class: "muted" }, "A new key signs beside the old one for a while, so that the receiver can change without a gap."),
      h("div", { class: "actions" },
        button("Rotate secret…", () => rotate(state, "hmac", after), { kind: "primary" }),
        button("Add Ed25519 key…", () => rotate(state, "ed25519", after)),
        state.webhook.signing?.some((key) => key.kind === "ed25519") && button("Remove Ed25519…", () => noEd25519(state, after), { kind: "danger" }))),
  ];
}

async function rotate(state, kind, after) {
  const hmac = kind === "hmac";
  const answer = await dialog(hmac ? "Rotate the signing secret" : "A new Ed25519 key", (close) => {
    const grace = new Field("grace", "The earlier one signs for", select(GRACES, "24h"));
    return form({
      label: "Rotation", fields: [grace], children: [
        h("p", null, hmac ? "Requests carry signatures of both keys until the time is over. Give the receiver the new secret in that time." : "The receiver only has the public key, so that nobody can sign with what they find there."),
        grace.element],
      send: async () => close(await post(`${state.where}/secret/rotate`, { kind, grace: grace.value })),
      submit: hmac ? "Rotate" : "Make key",
      extra: h("button", { type: "button", onclick: () => close() }, "Cancel"),
    });
  });
  if (!answer) return;
  await after(answer);
  const newest = answer.signing.filter((key) => key.kind === kind && !key.until);
  await secretOnce(hmac ? "The new signing secret" : "The new public key", "Give this to the receiver.",
    newest.map((key) => ({ label: hmac ? "Signing secret" : "Public key", text: key.secret ?? key.public_key })));
}

async function noEd25519(state, after) {
  if (!(await confirm("Sign with Ed25519 no more?", "A receiver that verifies with the public key refuses from then on. HMAC goes on.", "Remove"))) return;
  await after(await remove(`${state.where}/secret/ed25519`));
  say("good", "Requests are signed with HMAC only.");
}
