// Signing in: with login and password, or with a token.

import { signIn as begin } from "../api.js";
import { h } from "../dom.js";
import { Field, form, password, refuse, text } from "../form.js";

export function signIn({ query, go }) {
  const byToken = query.get("with") === "token";
  const back = query.get("back");
  const login = new Field("login", "Login", text({ autocomplete: "username", autofocus: true }));
  const secret = new Field("password", "Password", password({ autocomplete: "current-password" }));
  const token = new Field("token", "Token", password({ autocomplete: "off", autofocus: true }), {
    hint: "The operator token (up keeps it in ringback-data/operator-token), or a token of a tenant with the scope read or write.",
  });
  const fields = byToken ? [token] : [login, secret];
  const send = async () => {
    const empty = fields.find((field) => !field.value.trim());
    if (empty) throw refuse(empty.name, "Enter this to sign in.");
    try {
      await begin(byToken ? { token: token.value.trim() } : { login: login.value.trim(), password: secret.value });
    } catch (problem) {
      // Which of the two is wrong is nobody's business: it stands at the last.
      problem.field ??= problem.status === 401 ? fields.at(-1).name : null;
      throw problem;
    }
    // Only to pages of ours.
    await go(back?.startsWith("/portal/") ? back : "/portal/", { replace: true });
  };
  const params = new URLSearchParams(query);
  if (byToken) params.delete("with");
  else params.set("with", "token");
  const other = h("a", { href: `/portal/sign-in?${params}` }, byToken ? "Sign in with login and password" : "Sign in with a token");
  const content = h("main", { class: "sign-in", id: "main" },
    h("div", { class: "sign-in-brand" }, h("img", { src: "/portal/icon.svg", alt: "", width: "44", height: "44" }), h("h1", null, "Ringback")),
    query.get("ended") && h("p", { class: "notice", role: "status" }, "Your session has ended. Sign in, and you are back where you were."),
    h("div", { class: "card" },
      h("h2", null, "Sign in"),
      form({ label: "Sign in", fields, children: fields.map((field) => field.element), send, submit: "Sign in", extra: other })));
  return { title: "Sign in", content };
}
