// Parts that every page uses: messages, dialogs, badges, copying, tables, progress.

import { append, h, newId, replace, spoken } from "./dom.js";
import { sentence } from "./format.js";

/** Says something at the top: `kind` is good, bad or note. Bad ones stay until they are closed. */
export function say(kind, text, action) {
  const alerts = document.getElementById("alerts");
  const close = () => alert.remove();
  const alert = h("div", { class: `alert ${kind}`, role: kind === "bad" ? "alert" : "status" },
    h("p", null, text),
    action && h("button", { type: "button", class: "small", onclick: () => { close(); action.run(); } }, action.label),
    h("button", { type: "button", class: "close", "aria-label": "Close message", onclick: close }, "×"));
  // The same complaint twice is one complaint.
  for (const other of alerts.children) if (other.querySelector("p").textContent === text) other.remove();
  alerts.append(alert);
  while (alerts.children.length > 4) alerts.firstChild.remove();
  if (kind !== "bad") setTimeout(close, 8000);
}

/** Goes to a page as if a link to it had been followed. */
export function visit(href) {
  const link = h("a", { href, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Closes all messages, because the page they were about is gone. */
export function clearMessages() {
  for (const alert of [...document.querySelectorAll("#alerts .alert.bad")]) alert.remove();
}

/** Says why something did not work. */
export function complain(problem) {
  if (problem.name === "AbortError" || problem.status === 401) return;
  if (problem.status === undefined) console.error(problem);
  say("bad", sentence(problem.message));
}

/** A button that cannot be pressed twice while what it does is under way. */
export function button(label, run, { kind = "", small = false, ...props } = {}) {
  const element = h("button", { type: "button", class: [kind, small && "small"].filter(Boolean).join(" ") || null, ...props }, label);
  element.addEventListener("click", () => busy(element, run));
  return element;
}

/** Runs with the element marked as busy; complains when it fails. */
export async function busy(element, run) {
  if (element.getAttribute("aria-disabled") === "true") return;
  // Not `disabled`: that would drop the keyboard's focus.
  element.setAttribute("aria-disabled", "true");
  try {
    await run();
  } catch (problem) {
    complain(problem);
  } finally {
    element.removeAttribute("aria-disabled");
  }
}

const ICONS = { good: "✓", bad: "✕", warn: "!", idle: "‖", note: "•" };

/** A word in a colour, with a sign for those who do not see colours. */
export function badge(kind, text, title) {
  return h("span", { class: `badge ${kind}`, title }, h("span", { "aria-hidden": "true" }, ICONS[kind] ?? "•"), text);
}

const STATES = {
  healthy: ["good", "Healthy"],
  failing: ["warn", "Failing"],
  disabled: ["bad", "Disabled"],
  paused: ["idle", "Off"],
};

export function stateBadge(state) {
  const [kind, text] = STATES[state] ?? ["note", state];
  return badge(kind, text);
}

/** What a webhook's state is to a person: the switch counts before the verdict. */
export function stateOf(webhook) {
  return webhook.enabled || webhook.health?.state === "disabled" ? webhook.health?.state ?? "healthy" : "paused";
}

export function copyButton(text, what) {
  const said = spoken();
  said.setAttribute("role", "status");
  const label = h("span", null, "Copy");
  const element = h("button", { type: "button", class: "small copy" }, label, spoken(` ${what}`));
  element.addEventListener("click", async () => {
    const done = await copy(text());
    label.textContent = done ? "Copied" : "Press Ctrl+C";
    said.textContent = done ? `${what} copied` : "select the text and copy it";
    setTimeout(() => { label.textContent = "Copy"; said.textContent = ""; }, 2500);
  });
  return h("span", { class: "copying" }, element, said);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no clipboard: the old way.
    const area = h("textarea", { class: "spoken", value: text, "aria-hidden": "true", tabindex: "-1" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Code or a body that can be copied and scrolled with the keyboard. */
export function codeBlock(text, label, { copy: copyable = true } = {}) {
  return h("div", { class: "code" },
    copyable && copyButton(() => text, label),
    h("pre", { tabindex: "0", role: "group", "aria-label": label }, h("code", null, text)));
}

/** A modal dialog; `fill(close)` gives its content. Resolves when it is closed. */
export function dialog(title, fill, { wide = false } = {}) {
  const id = newId("dialog");
  const element = h("dialog", { class: wide ? "wide" : null, "aria-labelledby": id });
  return new Promise((resolve) => {
    let result;
    const close = (value) => { result = value; element.close(); };
    append(element, [
      h("header", null, h("h2", { id }, title),
        h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => close() }, "×")),
      h("div", { class: "dialog-body" }, fill(close))]);
    // Messages come along: what is outside of a modal dialog can neither be heard nor closed.
    const alerts = document.getElementById("alerts");
    element.addEventListener("close", () => {
      document.body.append(alerts);
      element.remove();
      resolve(result);
    });
    document.body.append(element);
    element.append(alerts);
    element.showModal();
    element.querySelector("[autofocus]")?.focus();
  });
}

/** Asks before something that cannot be taken back. */
export function confirm(title, text, label, kind = "danger") {
  return dialog(title, (close) => [
    [text].flat().map((line) => h("p", null, line)),
    h("div", { class: "actions" },
      h("button", { type: "button", onclick: () => close(false) }, "Cancel"),
      h("button", { type: "button", class: kind, onclick: () => close(true) }, label)),
  ]);
}

/** Shows a secret for the only time. */
export function secretOnce(title, lead, secrets) {
  return dialog(title, (close) => [
    h("p", null, lead),
    secrets.map(({ label, text }) => h("div", { class: "secret" },
      h("span", { class: "label" }, label), h("code", { tabindex: "0" }, text), copyButton(() => text, label))),
    h("p", { class: "muted" }, "Keep it where only the receiver’s or program’s operator can read it."),
    h("div", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: () => close() }, "I have it")),
  ]);
}

/** A table that can be scrolled sideways by keyboard when it is too wide. */
export function table(caption, columns, rows, empty) {
  if (rows.length === 0 && empty) return emptiness(empty);
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    h("table", null,
      h("caption", { class: "spoken" }, caption),
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: column.class }, column.label ?? column)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((cell, index) =>
        h("td", { class: columns[index].class, "data-label": columns[index].label ?? columns[index] }, h("div", null, cell))))))));
}

/** Where there is nothing yet, and what to do about it. */
export function emptiness(text, ...more) {
  return h("div", { class: "empty" }, h("p", null, text), more);
}

/** A heading with what can be done beside it. */
export function pageHead(title, { lead, badges, actions, crumbs } = {}) {
  return h("div", { class: "page-head" },
    crumbs && h("nav", { class: "crumbs", "aria-label": "You are here" }, crumbs.map(([label, href], index) =>
      [index > 0 && h("span", { "aria-hidden": "true" }, " / "), h("a", { href }, label)])),
    h("div", { class: "title-row" },
      h("div", { class: "title" }, h("h1", { tabindex: "-1" }, title), badges),
      actions && h("div", { class: "actions" }, actions)),
    lead && h("p", { class: "lead" }, lead));
}

/** Links that look like tabs: `[label, href]`. */
export function tabs(label, links) {
  const here = location.pathname;
  return h("nav", { class: "tabs", "aria-label": label }, h("ul", null, links.map(([text, href, extra]) =>
    h("li", null, h("a", { href, "aria-current": href === here ? "page" : null }, text, extra)))));
}

/** A box with a heading. */
export function card(title, ...children) {
  const id = newId("card");
  return h("section", { class: "card", "aria-labelledby": title ? id : null },
    title && h("h2", { id }, title), children);
}

/** Terms and what they are. */
export function facts(entries, kind = "") {
  return h("dl", { class: `facts ${kind}` }, entries.filter(Boolean).map(([term, value]) =>
    h("div", null, h("dt", null, term), h("dd", null, value))));
}

/** Loads into a box, and shows why if that fails. `load` gives the content. */
export async function into(box, load) {
  box.setAttribute("aria-busy", "true");
  try {
    replace(box, await load());
  } catch (problem) {
    if (problem.name === "AbortError") return;
    if (problem.status === undefined) console.error(problem);
    replace(box, trouble(problem, () => into(box, load)));
  } finally {
    box.removeAttribute("aria-busy");
  }
}

const DEGRADED = ["no_projection", "projection_unavailable"];

/** Why something cannot be shown, and that the rest goes on. */
export function trouble(problem, again) {
  const degraded = DEGRADED.includes(problem.code);
  return h("div", { class: "trouble", role: "status" },
    h("p", null, h("strong", null, degraded ? "History cannot be shown now. " : "This cannot be shown. "), sentence(problem.message)),
    degraded && h("p", { class: "muted" }, "Deliveries and configuration are not affected."),
    again && button("Try again", again, { small: true }));
}

/** A switch: a checkbox that says on or off. */
export function toggle(label, props) {
  const id = newId("switch");
  const input = h("input", { type: "checkbox", role: "switch", id, ...props });
  return { input, element: h("div", { class: "switch" }, input, h("label", { for: id }, label)) };
}
