import { createHmac, timingSafeEqual } from "node:crypto";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"; // the webhook's signing secret
const KEY = Buffer.from(SECRET.replace(/^whsec_/, ""), "base64");

// body: a Buffer of the bytes as they came, not parsed (Express: express.raw({ type: "*/*" })).
export function isFromRingback(headers, body) {
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!/^\d+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > 300) return false;
  const expected = createHmac("sha256", KEY)
    .update(`${headers["webhook-id"]}.${sentAt}.`)
    .update(body)
    .digest();
  // While the secret is being changed there are several: one must be right.
  return (headers["webhook-signature"] ?? "").split(" ").some((one) => {
    const [version, text] = one.split(",");
    const given = Buffer.from(text ?? "", "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
}
