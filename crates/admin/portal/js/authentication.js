// How a webhook authenticates: the fields of a form, and what the API is sent.

import { h } from "./dom.js";
import { Field, password, refuse, select, text } from "./form.js";

export const METHODS = [
  ["none", "Disable"],
  ["basic", "Basic Authentication"],
  ["digest", "Digest Authentication"],
  ["bearer", "Bearer Authentication"],
];
const HINTS = {
  none: "Requests carry no credentials. Their signature still proves that they come from here.",
  basic: "User name and password are sent with every request: use https.",
  digest: "The password proves itself without being sent.",
  bearer: "The token is sent with every request: use https.",
};
const KEPT = "Set. Leave empty to keep it.";

export const methodLabel = (method) => METHODS.find(([name]) => name === method)?.[1] ?? method;

/** The fields for what `current` (as the API shows it) is now. */
export class AuthenticationFields {
  constructor(current) {
    this.current = current ?? { method: "none" };
    this.method = new Field("authentication.method", "Authentication Method", select(METHODS, this.current.method), { hint: " " });
    this.username = new Field("authentication.username", "User name", text({ value: this.current.username ?? "", autocomplete: "off" }));
    this.password = new Field("authentication.password", "Password", password(), { hint: " " });
    this.token = new Field("authentication.token", "Bearer token", password(), { hint: " " });
    this.fields = [this.method, this.username, this.password, this.token];
    this.element = h("div", { class: "fields" }, this.fields.map((field) => field.element));
    this.method.input.addEventListener("change", () => this.arrange());
    this.arrange();
  }

  arrange() {
    const method = this.method.value;
    const login = method === "basic" || method === "digest";
    this.username.show(login);
    this.password.show(login);
    this.token.show(method === "bearer");
    const kept = method === this.current.method;
    hintOf(this.method).textContent = HINTS[method];
    hintOf(this.password).textContent = kept && login ? KEPT : "";
    hintOf(this.token).textContent = kept ? KEPT : "";
  }

  /** What the API is sent; undefined when nothing changed. */
  value() {
    const method = this.method.value;
    const same = method === this.current.method;
    if (method === "none") return same ? undefined : { method };
    if (method === "bearer") {
      if (!this.token.value && same) return undefined;
      if (!this.token.value) throw refuse("authentication.token", "Enter the token that the receiver expects.");
      return { method, token: this.token.value };
    }
    const username = this.username.value;
    if (!username) throw refuse("authentication.username", "Enter the user name that the receiver expects.");
    if (!this.password.value) {
      if (same && username === this.current.username) return undefined;
      if (same) return { method, username, password: { set: true } };
      throw refuse("authentication.password", "Enter the password that the receiver expects.");
    }
    return { method, username, password: this.password.value };
  }
}

function hintOf(field) {
  return field.element.querySelector(".hint");
}
