// The guide's code does what it says: it takes what Ringback sends, and nothing else.

import { execFileSync, spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { Installation, eventually, expect, test } from "../rig.mjs";

const SAMPLE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

let installation;
let server;
let dir;
let secret;
const requests = [];

test.beforeAll(async () => {
  installation = await Installation.start();
  await installation.tenant();
  dir = mkdtempSync(path.join(tmpdir(), "ringback-guide-"));
  server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    requests.push({ headers: request.headers, body: Buffer.concat(chunks).toString("base64") });
    response.writeHead(200).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const made = await installation.api("POST", "/tenants/acme/webhooks", { name: "cdr", url: `http://127.0.0.1:${server.address().port}/` });
  secret = made.signing[0].secret;
  await installation.send("cdr.completed", [{ caller: "Zoë <2001>" }]);
  await eventually("the event arrived", () => requests[0]);
});
test.afterAll(async () => {
  server?.close();
  if (dir) rmSync(dir, { recursive: true, force: true });
  await installation?.end();
});

/** The request as it came, and others that must be refused. */
function cases() {
  const good = requests[0];
  const other = { ...good, body: Buffer.from(`${Buffer.from(good.body, "base64")} `).toString("base64") };
  const old = String(Number(good.headers["webhook-timestamp"]) - 3600);
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  const signed = createHmac("sha256", key).update(`${good.headers["webhook-id"]}.${old}.`).update(Buffer.from(good.body, "base64")).digest("base64");
  return [
    [true, good],
    [true, { ...good, headers: { ...good.headers, "webhook-signature": `v1a,AAAA v1,AAAA ${good.headers["webhook-signature"]}` } }],
    [false, other],
    [false, { ...good, headers: { ...good.headers, "webhook-timestamp": old, "webhook-signature": `v1,${signed}` } }],
    [false, { ...good, headers: { ...good.headers, "webhook-signature": "v1,AAAA" } }],
    [false, { ...good, headers: { ...good.headers, "webhook-signature": "" } }],
    [false, { ...good, headers: { ...good.headers, "webhook-timestamp": "now" } }],
  ];
}

const PYTHON = `
import base64, json, sys
for one in json.load(sys.stdin):
    print(str(is_from_ringback(one["headers"], base64.b64decode(one["body"]))).lower())
`;
const NODE = `
import { readFileSync } from "node:fs";
// Not to the console, which the runner of the stories makes coloured.
for (const one of JSON.parse(readFileSync(0))) process.stdout.write(isFromRingback(one.headers, Buffer.from(one.body, "base64")) + "\\n");
`;
const PHP = `
foreach (json_decode(file_get_contents('php://stdin'), true) as $one) {
    echo json_encode(is_from_ringback($one['headers'], base64_decode($one['body']))), "\\n";
}
`;
const GO = `package receiver
import ("encoding/base64"; "encoding/json"; "fmt"; "net/http"; "os"; "testing")
func TestAll(t *testing.T) {
	var all []struct { Headers map[string]string; Body string }
	text, _ := os.ReadFile("cases.json")
	if err := json.Unmarshal(text, &all); err != nil { t.Fatal(err) }
	for _, one := range all {
		headers := http.Header{}
		for name, value := range one.Headers { headers.Set(name, value) }
		body, _ := base64.StdEncoding.DecodeString(one.Body)
		fmt.Println(IsFromRingback(headers, body))
	}
}
`;

const LANGUAGES = {
  "verify.py": { program: "python3", run: (code) => [write("verify.py", code + PYTHON)] },
  "verify.mjs": { program: process.execPath, run: (code) => [write("verify.mjs", code + NODE)] },
  "verify.php": { program: "php", version: "--version", run: (code) => [write("verify.php", code + PHP)] },
  "verify.go": {
    program: "go", version: "version", run: (code) => {
      write("go.mod", "module receiver\n\ngo 1.20\n");
      write("verify.go", code);
      write("verify_test.go", GO);
      // A test has no standard input.
      write("cases.json", JSON.stringify(cases().map(([, request]) => request)));
      return ["test", "-v", "-count=1", "."];
    },
  },
};

function write(name, text) {
  const file = path.join(dir, name);
  writeFileSync(file, text);
  return file;
}

for (const [file, { program, version = "--version", run }] of Object.entries(LANGUAGES)) {
  test(`the guide's ${file}`, async () => {
    const there = spawnSync(program, [version]).status === 0;
    // Nothing else here needs Go, and it is large.
    test.skip(!there && program === "go", "Go is not on this machine");
    const response = await fetch(`${installation.url}/portal/guide/${file}`);
    const code = await response.text();
    expect(code).toContain(SAMPLE);
    const all = cases();
    const input = JSON.stringify(all.map(([, request]) => request));
    const printed = execFileSync(program, run(code.replace(SAMPLE, secret)), { cwd: dir, input, encoding: "utf8" });
    const answers = printed.split("\n").filter((line) => ["true", "false"].includes(line)).map((line) => line === "true");
    expect(answers).toEqual(all.map(([good]) => good));
  });
}
