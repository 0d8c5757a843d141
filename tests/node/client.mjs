// A caller in another language: asks a gateway over mutual TLS, and checks the receipt by itself.
//
//   node client.mjs ask --target localhost:50051 --tls FOLDER --vkey FILE --model NAME \
//        --message user:hi [--message system:…] [--max-tokens 64] [--traceparent …] [--cancel-after 1]
//   node client.mjs check < kept.jsonl
//
// `ask` prints one line of JSON: the answer, its frames and the receipt as docs/receipts.md keeps it
// (bytes in lower-case hex). With --cancel-after N it cancels after N deltas, and is content when the
// stream then ends as CANCELLED. `check` takes {receipt, vkey, messages, answer}, one a line, and prints
// one line for each. Exit code: 0 when all is well; 1 with {"error": …, "step" or "code"} when anything
// is not.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import { checkReceipt } from "./receipt.mjs";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const DEADLINE_MS = 120_000;
const OPTIONS = {
  target: { type: "string" },
  tls: { type: "string" },
  vkey: { type: "string" },
  model: { type: "string" },
  message: { type: "string", multiple: true },
  "max-tokens": { type: "string", default: "64" },
  traceparent: { type: "string" },
  "cancel-after": { type: "string" },
};

const { positionals, values } = parseArgs({ allowPositionals: true, options: OPTIONS });
switch (positionals[0]) {
  case "ask":
    await tell(() => ask(values));
    break;
  case "check":
    for (const line of readFileSync(0, "utf8").trim().split("\n")) await tell(() => check(JSON.parse(line)));
    break;
  default:
    await tell(() => { throw new Error("say ask or check"); });
}

async function tell(work) {
  try {
    console.log(JSON.stringify(await work()));
  } catch (failure) {
    const { message, step, code } = failure;
    console.log(JSON.stringify({ error: message, step, code: grpc.status[code] }));
    process.exitCode = 1;
  }
}

async function ask(wanted) {
  const messages = wanted.message.map((text) => {
    const [role, ...content] = text.split(":");
    return { role, content: content.join(":") };
  });
  const cancelAfter = wanted["cancel-after"] === undefined ? Infinity : Number(wanted["cancel-after"]);
  const client = connect(wanted.target, wanted.tls);
  try {
    const call = client.ChatStream(request(wanted, messages), metadata(wanted), {
      deadline: Date.now() + DEADLINE_MS,
    });
    const { deltas, final, code } = await received(call, cancelAfter);
    if (code === grpc.status.CANCELLED) return { cancelled: true, deltas };
    if (cancelAfter !== Infinity) throw new Error("the stream ended before it was cancelled");
    const answer = deltas.join("");
    checkReceipt(final.receipt, readFileSync(wanted.vkey, "utf8"), messages, answer);
    return { answer, deltas, messages, receipt: kept(final.receipt), finish_reason: final.finish_reason };
  } finally {
    client.close();
  }
}

function check({ receipt, vkey, messages, answer }) {
  checkReceipt(unkept(receipt), vkey, messages, answer);
  return { holds: true };
}

function connect(target, folder) {
  const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
  const loaded = loadSync("sealgate/v1/gateway.proto", { ...options, includeDirs: [PROTOS] });
  const { GatewayService } = grpc.loadPackageDefinition(loaded).sealgate.v1;
  const [ca, key, certificate] = ["ca.pem", "client.key", "client.pem"].map((name) =>
    readFileSync(join(folder, name)),
  );
  return new GatewayService(target, grpc.credentials.createSsl(ca, key, certificate));
}

function request(wanted, messages) {
  const turns = messages.map(({ role, content }) => ({ role: `ROLE_${role.toUpperCase()}`, content }));
  const parameters = { max_tokens: Number(wanted["max-tokens"]) };
  return { chat: { model: wanted.model, messages: turns, parameters, no_cache: true } };
}

function metadata(wanted) {
  const sent = new grpc.Metadata();
  if (wanted.traceparent !== undefined) sent.set("traceparent", wanted.traceparent);
  return sent;
}

// All frames of a stream that ended well, or of one that we cancelled. Rejects any other end.
function received(call, cancelAfter) {
  const deltas = [];
  let final;
  return new Promise((resolve, reject) => {
    call.on("data", ({ frame, delta, final: last }) => {
      if (final !== undefined) reject(new Error("a frame came after the final one"));
      else if (frame === "final") final = last;
      else if (frame === "delta" && delta !== "") deltas.push(delta);
      else reject(new Error("a frame is empty or unknown"));
      if (deltas.length >= cancelAfter && final === undefined) call.cancel();
    });
    call.on("error", (failure) => {
      const ours = failure.code === grpc.status.CANCELLED && deltas.length >= cancelAfter;
      if (ours) resolve({ deltas, code: failure.code });
      else reject(failure);
    });
    call.on("end", () => {
      if (final === undefined && deltas.length < cancelAfter) reject(new Error("the stream broke off"));
      else if (final !== undefined) resolve({ deltas, final });
    });
  });
}

// As docs/receipts.md keeps a receipt: bytes in lower-case hex, the index as a number.
function kept({ index, ...rest }) {
  const hex = ([name, value]) => [name, Buffer.isBuffer(value) ? value.toString("hex") : value];
  return { index: Number(index), ...Object.fromEntries(Object.entries(rest).map(hex)) };
}

function unkept(receipt) {
  const { origin, index, ...rest } = receipt;
  const bytes = ([name, hex]) => [name, Buffer.from(hex, "hex")];
  return { origin, index: String(index), ...Object.fromEntries(Object.entries(rest).map(bytes)) };
}
