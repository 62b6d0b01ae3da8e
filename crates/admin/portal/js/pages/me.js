// One's own account: the password.

import { isOperator, request, resume, session } from "../api.js";
import { h } from "../dom.js";
import { when } from "../format.js";
import { Field, form, password, refuse } from "../form.js";
import { card, facts, pageHead, say } from "../ui.js";

export function me() {
  const { account, expires, scopes } = session;
  const current = new Field("current", "Present password", password({ autocomplete: "current-password" }));
  const next = new Field("new", "New password", password(), { hint: "At least 12 characters; a sentence is good." });
  const again = new Field("again", "New password again", password());
  const send = async () => {
    if (!next.value) throw refuse("new", "Enter the new password.");
    if (next.value !== again.value) throw refuse("again", "This is not the same as above.");
    await request("PUT", "/session/password", { body: { current: current.value, new: next.value } });
    // Its other sessions are over; this one has changed, too.
    await resume();
    for (const field of [current, next, again]) field.input.value = "";
    say("good", "Your password was changed.");
  };
  // Who signed in with a token has none.
  const change = account.login && card("Change password", form({ label: "Change password", fields: [current, next, again], send, submit: "Change password",
    children: h("div", { class: "row" }, current.element, next.element, again.element) }));
  const content = [
    pageHead(account.name || account.login),
    card("Account", facts([account.login ? ["Login", account.login] : ["Signed in with", "a token"], ["Role", isOperator() ? "Operator" : "Tenant administrator"],
      account.tenant && ["Tenant", account.tenant], ["May", scopes.join(", ")], expires && ["Session until", when(expires)]])),
    change,
  ];
  return { title: "Account", content };
}
