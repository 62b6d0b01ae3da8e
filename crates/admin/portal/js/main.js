// Where the portal begins: who is signed in, which page is wanted, and what is around it.

import { isOperator, resume, session, signOut, whenSessionEnds } from "./api.js";
import { h, replace } from "./dom.js";
import { find } from "./routes.js";
import { clearMessages, complain, say, trouble } from "./ui.js";

const app = document.getElementById("app");
const SIGN_IN = "/portal/sign-in";

let shown = null;
let visit = 0;

/** Goes to a page of the portal. */
export function go(href, { replace: instead = false } = {}) {
  if (instead) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  return show();
}

/** The page a person begins with. */
export function home() {
  if (isOperator()) return "/portal/tenants";
  return `/portal/tenants/${encodeURIComponent(session.account.tenant)}`;
}

function toSignIn(reason) {
  if (location.pathname === SIGN_IN) return;
  const back = location.pathname + location.search;
  const from = back === "/portal/" ? "" : `?back=${encodeURIComponent(back)}${reason ? "&ended=1" : ""}`;
  go(SIGN_IN + from, { replace: true });
}

whenSessionEnds(() => {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  toSignIn(true);
});

async function show() {
  visit += 1;
  const mine = visit;
  shown?.dispose?.();
  shown = null;
  clearMessages();
  if (!session && location.pathname !== SIGN_IN) return toSignIn(false);
  if (session && ["/portal/", "/portal", SIGN_IN].includes(location.pathname)) {
    return go(home(), { replace: true });
  }
  const { page, params, tenant } = find(location.pathname);
  const context = { params, query: new URLSearchParams(location.search), go, home, reload: () => show() };
  if (!session) {
    const made = await page(context);
    replace(app, made.content);
    document.title = `${made.title} · Ringback`;
    made.content.querySelector("[autofocus]")?.focus();
    return;
  }
  const frame = frameFor(tenant ?? session.account.tenant);
  frame.main.setAttribute("aria-busy", "true");
  let made;
  try {
    made = await page(context);
  } catch (problem) {
    if (problem.status === undefined) console.error(problem);
    const title = problem.status === 404 ? "Not found" : "Not now";
    made = { title, content: [h("h1", { tabindex: "-1" }, title), trouble(problem, () => show())] };
  }
  // Somebody went on, or the session ended, while the page was made.
  if (mine !== visit || !session) return made.dispose?.();
  shown = made;
  replace(frame.main, made.content);
  frame.main.removeAttribute("aria-busy");
  document.title = `${made.title} · Ringback`;
  // On a phone there are more tabs than fit.
  for (const here of frame.element.querySelectorAll("nav [aria-current]")) here.scrollIntoView({ block: "nearest", inline: "center" });
  window.scrollTo(0, 0);
  frame.main.querySelector("h1")?.focus({ preventScroll: true });
}

let frame = null;

/** What is around each page; made anew only for another tenant or person. */
function frameFor(tenant) {
  const key = `${session.account.id} ${tenant}`;
  if (frame?.key !== key || !frame.element.isConnected) {
    const main = h("main", { id: "main", tabindex: "-1" });
    const nav = h("nav", { class: "side", "aria-label": "Main" });
    const element = h("div", { class: "frame" },
      h("button", { type: "button", class: "skip", onclick: () => main.focus() }, "Skip to content"),
      top(), nav, main);
    frame = { key, element, main, nav };
    replace(app, element);
  }
  replace(frame.nav, menu(tenant));
  return frame;
}

function top() {
  const { account } = session;
  const leave = async () => {
    try {
      await signOut();
    } catch (problem) {
      return complain(problem);
    }
    await go(SIGN_IN);
    say("good", "You have signed out.");
  };
  return h("header", { class: "top" },
    h("a", { href: "/portal/", class: "brand" }, h("img", { src: "/portal/icon.svg", alt: "", width: "28", height: "28" }), "Ringback"),
    h("div", { class: "who" },
      h("a", { href: "/portal/me" }, h("span", { class: "who-name" }, account.name || account.login),
        h("span", { class: "muted who-role" }, account.role === "operator" ? "Operator" : `Administrator of ${account.tenant}`)),
      h("button", { type: "button", class: "small", onclick: leave }, "Sign out")));
}

function menu(tenant) {
  const here = location.pathname;
  const link = (label, href, ...below) => {
    const inside = [href, ...below].some((start) => here === start || here.startsWith(`${start}/`));
    const current = here === href ? "page" : inside ? "true" : null;
    return h("li", null, h("a", { href, "aria-current": current }, label));
  };
  const groups = [];
  if (isOperator()) {
    groups.push(["Installation", [
      h("li", null, h("a", { href: "/portal/tenants", "aria-current": here === "/portal/tenants" ? "page" : null }, "Tenants")),
      link("Operations", "/portal/operations"),
      link("Accounts", "/portal/accounts"),
      link("Changes", "/portal/changes"),
    ]]);
  }
  if (tenant) {
    const base = `/portal/tenants/${encodeURIComponent(tenant)}`;
    const company = [base, ...["webhooks", "tokens", "accounts", "notices", "personal-data", "changes"].map((part) => `${base}/${part}`)];
    const inside = company.some((start, index) => here === start || (index > 0 && here.startsWith(start)));
    groups.push([isOperator() ? tenant : null, [
      h("li", null, h("a", { href: base, "aria-current": here === base ? "page" : inside ? "true" : null }, "Company")),
      link("Find an event", `${base}/events`),
      link("Receiver’s guide", `${base}/guide`),
    ]]);
  }
  return groups.map(([title, links]) => [title && h("p", { class: "side-title" }, title), h("ul", null, links)]);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  if (link.target || link.origin !== location.origin || !link.pathname.startsWith("/portal/")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
window.addEventListener("popstate", () => show());

try {
  await resume();
  await show();
} catch (problem) {
  replace(app, h("main", { class: "lonely" }, h("h1", null, "Ringback"), trouble(problem, () => location.reload())));
}
