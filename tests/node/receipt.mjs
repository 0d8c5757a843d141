// Checks a receipt by docs/receipts.md alone: SHA-256, HMAC and Ed25519 from node:crypto.
//
//   checkReceipt(receipt, vkey, messages, answer)   throws ReceiptInvalid, `step` as the page numbers them
//
// `receipt`: the fields of the page, bytes as Buffer, `index` as a decimal string, as proto-loader gives
// a uint64 when told `longs: String` (a number of JavaScript holds 53 bits).

import { createHash, createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";

export class ReceiptInvalid extends Error {
  constructor(step, why) {
    super(`step ${step}: ${why}`);
    this.step = step;
  }
}

const BYTES = { leaf_hash: 32, call_id: 16, trace_id: 16, key: 32, signature: 64 };
const ENDORSEMENT = 68; // a key id and a signature: once for each key of the log in force, 4 at most
const INDEX_MAX = 2n ** 63n - 1n;

export function checkReceipt(receipt, vkey, messages, answer) {
  must(0, receipt != null, "there is no receipt");

  const keys = new Map(); // 1: one key a line
  for (const log of vkey.trim().split("\n").map(verifierKey)) {
    must(1, log.name === receipt.origin, "receipt is another log's");
    keys.set(log.keyId, log.key);
  }

  const index = wellFormed(receipt); // 2

  const endorsed = `sealgate/receipt-key/v1\n${receipt.origin}\n${receipt.key.toString("base64")}\n`; // 3
  const known = endorsements(receipt).filter(({ keyId }) => keys.has(keyId));
  must(3, known.length > 0, "log does not endorse the receipt key");
  for (const { keyId, signature } of known) {
    must(3, signed(keys.get(keyId), signature, Buffer.from(endorsed)), "log does not endorse the receipt key");
  }

  must(4, signed(receipt.key, receipt.signature, signedBytes(receipt, index)), "receipt is not signed by its key"); // 4

  const { prompt_salt, prompt_commitment, answer_salt, answer_commitment } = receipt;
  must(5, opens(prompt_salt, prompt_commitment, promptBytes(messages)), "receipt is about another prompt"); // 5
  must(6, opens(answer_salt, answer_commitment, answerBytes(answer)), "receipt is about another answer"); // 6
}

// "name+key id+base64(0x01, public key)"; key id: SHA-256(name, \n, 0x01, public key), first 4 bytes.
function verifierKey(vkey) {
  const parts = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(vkey.trim());
  must(1, parts !== null, "verifier key is malformed");
  const [, name, keyId, encoded] = parts;
  const raw = Buffer.from(encoded, "base64");
  must(1, raw.toString("base64") === encoded, "verifier key is not canonical base64");
  must(1, raw.length === 33 && raw[0] === 1, "verifier key is not Ed25519");
  const digest = createHash("sha256").update(`${name}\n`).update(raw).digest();
  must(1, digest.subarray(0, 4).toString("hex") === keyId, "verifier key has another key's id");
  return { name, keyId, key: raw.subarray(1) };
}

function endorsements({ key_endorsement: all }) {
  return Array.from({ length: all.length / ENDORSEMENT }, (_, at) => {
    const one = all.subarray(at * ENDORSEMENT, (at + 1) * ENDORSEMENT);
    return { keyId: one.subarray(0, 4).toString("hex"), signature: one.subarray(4) };
  });
}

function wellFormed(receipt) {
  for (const [name, length] of Object.entries(BYTES)) {
    must(2, receipt[name]?.length === length, `${name} is not ${length} bytes`);
  }
  const count = receipt.key_endorsement?.length / ENDORSEMENT;
  must(2, [1, 2, 3, 4].includes(count), "key_endorsement has a wrong length");
  for (const text of ["prompt", "answer"]) {
    const lengths = `${receipt[`${text}_salt`]?.length},${receipt[`${text}_commitment`]?.length}`;
    must(2, ["0,0", "0,32", "32,32"].includes(lengths), `${text} salt or commitment has a wrong length`);
  }
  must(2, /^(0|[1-9][0-9]{0,18})$/.test(receipt.index), "index is no number");
  const index = BigInt(receipt.index);
  must(2, index <= INDEX_MAX, "index is too large");
  return index;
}

function signedBytes(receipt, index) {
  const place = Buffer.alloc(8);
  place.writeBigUInt64BE(index);
  const { leaf_hash, call_id, trace_id, prompt_commitment, answer_commitment, key } = receipt;
  const parts = [Buffer.from(receipt.origin), place, leaf_hash, call_id, trace_id];
  return Buffer.concat([
    Buffer.from("sealgate/receipt/v1\0"),
    framed(...parts, prompt_commitment, answer_commitment, key),
  ]);
}

export function promptBytes(messages) {
  const parts = messages.flatMap(({ role, content }) => [Buffer.from(role), Buffer.from(content)]);
  return Buffer.concat([Buffer.from("sealgate/prompt/v1\0"), framed(...parts)]);
}

export function answerBytes(answer) {
  return Buffer.from(`sealgate/answer/v1\0${answer}`);
}

function framed(...parts) {
  return Buffer.concat(
    parts.flatMap((part) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(part.length);
      return [length, part];
    }),
  );
}

function opens(salt, commitment, text) {
  if (salt.length !== 32 || commitment.length !== 32) return false;
  return timingSafeEqual(createHmac("sha256", salt).update(text).digest(), commitment);
}

function signed(key, signature, message) {
  // Node takes keys in DER only: the 12 bytes before a raw one are RFC 8410's header for Ed25519.
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key]);
  try {
    return verify(null, message, createPublicKey({ key: der, format: "der", type: "spki" }), signature);
  } catch {
    return false; // no point of the curve
  }
}

function must(step, holds, why) {
  if (!holds) throw new ReceiptInvalid(step, why);
}
