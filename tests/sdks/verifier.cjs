// Verifies requests as a receiver in JavaScript would: HMAC with the library of Standard Webhooks,
// Ed25519, which that does not have, with Node's own crypto (OpenSSL).
//
// Standard input: a JSON array of requests, each with secret (whsec_... or whpk_...), headers and body.
// Prints for each "good", or why it is refused.
"use strict";

const { readFileSync } = require("node:fs");
const { createPublicKey, verify } = require("node:crypto");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

/** Whether one of the signatures v1a is made with the key whpk_... */
function isSigned(whpk, headers, body) {
  const x = Buffer.from(whpk.slice("whpk_".length), "base64").toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const content = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  return headers["webhook-signature"]
    .split(" ")
    .map((signature) => signature.split(","))
    .some(([version, text]) => version === "v1a" && verify(null, content, key, Buffer.from(text, "base64")));
}

for (const { secret, headers, body } of JSON.parse(readFileSync(0, "utf8"))) {
  if (secret.startsWith("whpk_")) {
    console.log(isSigned(secret, headers, body) ? "good" : "refused: No matching signature found");
    continue;
  }
  try {
    new Webhook(secret).verify(body, headers);
    console.log("good");
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    console.log(`refused: ${error.message}`);
  }
}
