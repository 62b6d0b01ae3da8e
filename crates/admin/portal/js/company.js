// What is above the pages of a company (a tenant).

import { get, path } from "./api.js";
import { h } from "./dom.js";
import { pageHead, tabs } from "./ui.js";

/** The head with the tabs of the company. */
export async function companyHead(tenant) {
  const base = path("tenants", tenant);
  const shown = await get(base);
  const title = shown.title || shown.id;
  return [
    pageHead(title, { badges: title === shown.id ? null : h("span", { class: "muted" }, shown.id) }),
    tabs("Company", [
      ["Event URL", `/portal${base}`],
      ["Tokens", `/portal${base}/tokens`],
      ["Accounts", `/portal${base}/accounts`],
      ["Notices", `/portal${base}/notices`],
      ["Personal data", `/portal${base}/personal-data`],
      ["Changes", `/portal${base}/changes`],
    ]),
  ];
}
