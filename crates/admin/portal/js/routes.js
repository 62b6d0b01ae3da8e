// Which page a path shows.

import { h } from "./dom.js";

const load = (file, name) => async (context) => (await import(`./pages/${file}.js`))[name](context);

const ROUTES = [
  ["/portal/sign-in", load("sign-in", "signIn")],
  ["/portal/me", load("me", "me")],
  ["/portal/tenants", load("tenants", "tenants")],
  ["/portal/operations", load("operations", "failing")],
  ["/portal/operations/lag", load("operations", "lag")],
  ["/portal/operations/dispatchers", load("operations", "dispatchers")],
  ["/portal/accounts", load("accounts", "accounts")],
  ["/portal/changes", load("changes", "changes")],
  ["/portal/tenants/:tenant", load("event-url", "eventUrl")],
  ["/portal/tenants/:tenant/tokens", load("tokens", "tokens")],
  ["/portal/tenants/:tenant/accounts", load("accounts", "accounts")],
  ["/portal/tenants/:tenant/notices", load("notices", "notices")],
  ["/portal/tenants/:tenant/personal-data", load("personal-data", "personalData")],
  ["/portal/tenants/:tenant/changes", load("changes", "changes")],
  ["/portal/tenants/:tenant/guide", load("guide", "guide")],
  ["/portal/tenants/:tenant/events", load("event", "findEvent")],
  ["/portal/tenants/:tenant/events/:event", load("event", "event")],
  ["/portal/tenants/:tenant/new-webhook", load("new-webhook", "newWebhook")],
  ["/portal/tenants/:tenant/webhooks/:webhook", load("webhook", "deliveries")],
  ["/portal/tenants/:tenant/webhooks/:webhook/parked", load("webhook", "parked")],
  ["/portal/tenants/:tenant/webhooks/:webhook/settings", load("webhook", "settings")],
  ["/portal/tenants/:tenant/webhooks/:webhook/signing", load("webhook", "signing")],
].map(([pattern, page]) => [pattern.split("/"), page]);

/** The page of a path, and the parameters in it. */
export function find(pathname) {
  const parts = pathname.replace(/(.)\/$/, "$1").split("/");
  for (const [pattern, page] of ROUTES) {
    if (pattern.length !== parts.length) continue;
    const params = {};
    const fits = pattern.every((part, index) => {
      if (!part.startsWith(":")) return part === parts[index];
      params[part.slice(1)] = decode(parts[index]);
      return params[part.slice(1)] !== "";
    });
    if (fits) return { page, params, tenant: params.tenant ?? null };
  }
  return { page: nothing, params: {}, tenant: null };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function nothing({ home }) {
  const content = [h("h1", { tabindex: "-1" }, "Not found"), h("p", null, "There is no such page. ", h("a", { href: home() }, "To the first page"))];
  return { title: "Not found", content };
}
