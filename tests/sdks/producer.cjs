// A producer in JavaScript: one event in each mode over HTTP, made by the CloudEvents SDK.
//
// Arguments: the ingest's URL and a token. Prints the ids it gave, one a line, when everything was
// acknowledged.
"use strict";

const { CloudEvent, HTTP } = require("cloudevents");

const [ingest, token] = process.argv.slice(2);

// The SDK does not percent-encode headers, and fetch refuses letters beyond Latin-1 in them.
const event = (mode, subject) =>
  new CloudEvent({
    id: `javascript-${mode}`,
    source: "/pbx/1",
    type: "cdr.completed",
    subject,
    datacontenttype: "application/json",
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    sampledrate: 5,
    data: { text: "héllo €", cost: 1.5 },
  });

async function post(headers, body) {
  const authorization = `Bearer ${token}`;
  const answer = await fetch(ingest, {
    method: "POST",
    headers: { ...headers, authorization },
    body,
    signal: AbortSignal.timeout(30_000),
  });
  if (answer.status !== 202) throw new Error(`${answer.status}: ${await answer.text()}`);
}

async function main() {
  const binary = HTTP.binary(event("http-binary", "call/Zoe 1 100%"));
  await post(binary.headers, binary.body);
  const full = 'call/Zoë "1" 100%';
  const structured = HTTP.structured(event("http-structured", full));
  await post(structured.headers, structured.body);
  // The SDK reads batches, but writes none: they are arrays of what it writes.
  const batch = [0, 1].map((n) => HTTP.structured(event(`http-batch-${n}`, full)).body);
  await post({ "content-type": "application/cloudevents-batch+json" }, `[${batch.join(",")}]`);
  const modes = ["http-binary", "http-structured", "http-batch-0", "http-batch-1"];
  console.log(modes.map((mode) => `javascript-${mode}`).join("\n"));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
