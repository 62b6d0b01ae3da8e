// Forms: fields with their hints, and the API's complaints at the field at fault.

import { h, newId, replace } from "./dom.js";
import { sentence } from "./format.js";
import { busy, clearMessages, complain, say } from "./ui.js";

/** One input with label, hint and place for its error. `name` is the API's name of the field. */
export class Field {
  constructor(name, label, input, { hint, optional = false, wide = false } = {}) {
    const id = input.id || newId("field");
    input.id = id;
    this.name = name;
    this.input = input;
    this.error = h("p", { class: "error", id: `${id}-error`, hidden: true });
    const hintId = hint ? `${id}-hint` : null;
    this.hintId = hintId;
    if (hintId) input.setAttribute("aria-describedby", hintId);
    this.element = h("div", { class: wide ? "field wide" : "field" },
      h("label", { for: id }, label, optional && h("span", { class: "muted" }, " (optional)")),
      input,
      hint && h("p", { class: "hint", id: hintId }, hint),
      this.error);
    input.addEventListener("input", () => this.complain(null));
  }

  get value() {
    return this.input.value;
  }

  /** Shows what is wrong here; null: nothing. */
  complain(text) {
    this.error.hidden = !text;
    replace(this.error, text);
    const described = [this.hintId, text && this.error.id].filter(Boolean).join(" ");
    if (described) this.input.setAttribute("aria-describedby", described);
    else this.input.removeAttribute("aria-describedby");
    if (text) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  show(visible) {
    this.element.hidden = !visible;
  }
}

export const text = (props) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...props });
export const password = (props) => h("input", { type: "password", autocomplete: "new-password", ...props });
export const area = (props) => h("textarea", { rows: "4", spellcheck: "false", ...props });

/** A list to choose from: `[[value, label]]`. */
export function select(options, value, props) {
  const element = h("select", props, options.map(([name, label]) => h("option", { value: name }, label)));
  element.value = value ?? options[0][0];
  return element;
}

/**
 * A form that is sent by `send`, with the fields that complaints of the API can be about. What is not
 * about a shown field appears among the messages.
 */
export function form({ label, fields, children, send, submit = "Save", extra, class: kind }) {
  const save = h("button", { type: "submit", class: "primary" }, submit);
  const element = h("form", { novalidate: true, "aria-label": label, class: kind },
    children, h("div", { class: "actions" }, save, extra));
  const complainAt = (problem) => {
    const field = fieldOf(fields, problem);
    if (!field) return complain(problem);
    const details = field.element.closest("details");
    if (details) details.open = true;
    field.complain(sentence(problem.message));
    field.input.focus();
    say("bad", sentence(problem.message));
  };
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(save, async () => {
      for (const field of fields) field.complain(null);
      // What was wrong with the last try is no news any more.
      clearMessages();
      try {
        await send();
      } catch (problem) {
        complainAt(problem);
      }
    });
  });
  return element;
}

/** `authentication.password` is also found as `password`, `subscription[2]` as `subscription`. */
function fieldOf(fields, problem) {
  if (!problem.field) return null;
  const wanted = String(problem.field).replace(/^\//, "").replaceAll("/", ".").replace(/\[\d+\]/g, "");
  const last = wanted.split(".").pop();
  const shown = fields.filter((field) => !field.element.closest("[hidden]"));
  const candidates = [wanted, last, wanted.split(".")[0]];
  for (const name of candidates) {
    const found = shown.find((field) => field.name === name || field.name.split(".").pop() === name);
    if (found) return found;
  }
  return null;
}

/** A complaint of our own about a field, before anything is sent. */
export function refuse(field, detail) {
  const problem = new Error(detail);
  problem.status = 400;
  problem.field = field;
  return problem;
}
