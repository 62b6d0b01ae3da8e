// Reads requests as a receiver in JavaScript would, with the CloudEvents SDK.
//
// Standard input: a JSON array of requests, each with headers and body. Prints the events, a line each.
"use strict";

const { readFileSync } = require("node:fs");
const { HTTP } = require("cloudevents");

for (const { headers, body } of JSON.parse(readFileSync(0, "utf8"))) {
  const event = HTTP.toEvent({ headers, body });
  event.validate();
  const { id, source, type, tenant, data } = event;
  // The SDK does not percent-decode headers.
  const subject = decodeURIComponent(event.subject);
  const time = Date.parse(event.time) / 1000;
  console.log(JSON.stringify({ id, source, type, subject, time, tenant, data }));
}
