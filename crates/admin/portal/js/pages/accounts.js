// Accounts of people: a tenant's administrators, and for operators everybody.

import { get, isOperator, mayWrite, path, post, query, remove, request, session } from "../api.js";
import { companyHead } from "../company.js";
import { h } from "../dom.js";
import { when } from "../format.js";
import { Field, form, refuse, select, text } from "../form.js";
import { button, card, confirm, dialog, into, pageHead, say, secretOnce, table } from "../ui.js";

const ROLES = { operator: "Operator", tenant_administrator: "Tenant administrator" };

export async function accounts({ params: { tenant } }) {
  const list = h("div");
  const load = () => into(list, async () => {
    const { accounts: all } = await get(`/accounts${query({ tenant })}`);
    const shown = tenant ? all.filter((account) => account.tenant === tenant) : all;
    const columns = [{ label: "Login" }, { label: "Name" }, { label: "Role" }, !tenant && { label: "Tenant" },
      { label: "Added", class: "narrow" }, { label: "Actions", class: "narrow" }].filter(Boolean);
    return table("Accounts", columns, shown.map((account) => [
      account.login, account.name ?? "", ROLES[account.role] ?? account.role, tenant ? undefined : account.tenant ?? "–",
      when(account.created),
      actions(account, load),
    ].filter((cell) => cell !== undefined)), "There are no accounts yet.");
  });
  await load();
  const box = card(null,
    h("div", { class: "title-row" }, h("h2", null, "Accounts"), mayWrite() && button("Add account", () => add(tenant, load), { kind: "primary" })),
    h("p", { class: "muted" }, tenant ? "People who may sign in here and administer this company’s webhooks." : "Operators, and the administrators of all tenants."), list);
  const head = tenant ? await companyHead(tenant) : pageHead("Accounts");
  return { title: "Accounts", content: [head, box] };
}

function actions(account, load) {
  if (!mayWrite()) return "";
  const own = account.id === session.account.id;
  return h("div", { class: "actions" },
    button("New password…", () => renew(account), { small: true, "aria-label": `New password for ${account.login}` }),
    !own && button("Remove…", () => erase(account, load), { small: true, "aria-label": `Remove ${account.login}` }));
}

async function add(tenant, load) {
  const made = await dialog("Add account", (close) => {
    const login = new Field("login", "Login", text({ autofocus: true, maxlength: "200" }), { hint: "Such as an e-mail address." });
    const name = new Field("name", "Name", text({ maxlength: "200" }), { optional: true });
    const roles = tenant ? [["tenant_administrator", ROLES.tenant_administrator]] : Object.entries(ROLES);
    const role = new Field("role", "Role", select(roles, "tenant_administrator"));
    const whose = new Field("tenant", "Tenant", text({ value: tenant ?? "" }));
    const arrange = () => whose.show(!tenant && isOperator() && role.value !== "operator");
    role.input.addEventListener("change", arrange);
    role.show(!tenant);
    arrange();
    const send = async () => {
      if (!login.value.trim()) throw refuse("login", "Enter a login, such as an e-mail address.");
      const body = { login: login.value.trim(), role: role.value };
      if (name.value.trim()) body.name = name.value.trim();
      if (role.value !== "operator") body.tenant = whose.value.trim();
      close(await post("/accounts", body));
    };
    return form({ label: "Add account", fields: [login, name, role, whose], send, submit: "Add account",
      children: [login.element, name.element, role.element, whose.element],
      extra: h("button", { type: "button", onclick: () => close() }, "Cancel") });
  });
  if (!made) return;
  await load();
  const { login, password } = made;
  if (password) await secretOnce(`Account ${login}`, "Hand over this first password. It is shown now and never again.", [{ label: "Password", text: password }]);
}

async function renew(account) {
  if (!(await confirm(`New password for ${account.login}?`, "The present one is good no more, and sessions of this account end.", "Make a new password", "primary"))) return;
  const { data } = await request("PATCH", `/accounts${path(account.id)}`, { body: { new_password: true } });
  await secretOnce(`Account ${account.login}`, "Hand over this password. It is shown now and never again.", [{ label: "Password", text: data.password }]);
}

async function erase(account, load) {
  if (!(await confirm(`Remove account ${account.login}?`, "Its sessions end at once. What it changed stays in the record of changes.", "Remove"))) return;
  await remove(`/accounts${path(account.id)}`);
  say("good", `Account ${account.login} was removed.`);
  await load();
}
