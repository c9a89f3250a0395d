// A client of spikeloop in one file. Needs Node 18 and `npm install zeromq`.
//
//   const client = new SpikeloopClient("tcp://127.0.0.1:5570", { safe: { velocity: [0, 0] } });
//   for await (const answer of client) move(answer.value.velocity);
//
// `answer.value` holds the decode only where that may be acted on; else it holds `safe`. A program
// with frames of its own asks `client.now()` in each. The rules are in ../README.md.

import * as zmq from "zeromq";

const VALIDITIES = ["ok", "warmup", "stale", "paused", "fault"];
const REASONS = [
  "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue", "paused",
  "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump", "clock_uncertain",
  "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged",
];
const TOPICS = ["decode", "heartbeat", "event"];
const HEAD_BYTES = 120;
const WATCH_MS = 10;
// Else a mended link brings old decodes. The daemon goes by the time to live: it asks nobody.
const LINK = {
  heartbeatInterval: 500, heartbeatTimeout: 2000, heartbeatTimeToLive: 2000, reconnectInterval: 20,
};

/** Seconds on this machine's monotonic clock: on Linux the one that the daemon's times are of. */
export const monotonic = () => Number(process.hrtime.bigint()) * 1e-9;

const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);
const isNumbers = (v) => Array.isArray(v) && v.every((x) => Number.isFinite(x));

/** The fields of a decode, JSON or packed. Throws where it is neither, or of another version. */
export function readDecode(message) {
  if (message.subarray(0, 4).toString("latin1") === "SLPK") return unpack(message);
  const fields = JSON.parse(message.toString("utf8"));
  if (!isObject(fields) || fields.schema !== 1) throw new Error("no message of schema 1");
  return fields;
}

function unpack(message) {
  if (message.length < HEAD_BYTES) throw new Error("a packed decode that is cut off in its head");
  const [version, validity, reason, flags] = message.subarray(4, 8);
  const nHead = message.readUInt16LE(8);
  const n = message.readUInt16LE(10);
  const nText = message.readUInt32LE(12);
  const isWhole = nHead >= HEAD_BYTES && message.length === nHead + 16 * n + nText;
  if (version !== 1 || !isWhole || validity >= VALIDITIES.length) {
    throw new Error(`a packed decode of version ${version} that cannot be read here`);
  }
  const fields = JSON.parse(message.subarray(message.length - nText).toString("utf8"));
  const counts = Object.values(fields.outputs);
  const total = counts.reduce((a, b) => a + b, 0);
  if (total !== n || !counts.every((k) => Number.isInteger(k) && k >= 0)) {
    throw new Error("a packed decode whose text does not fit its numbers");
  }
  const whole = (at) => Number(message.readBigInt64LE(at));
  const seconds = (at) => {
    const v = message.readDoubleLE(at);
    return Number.isNaN(v) ? null : v;
  };
  Object.assign(fields, {
    validity: VALIDITIES[validity],
    reason: reason < REASONS.length ? REASONS[reason] : `code ${reason}`,
    late: (flags & 1) === 1,
    seq: whole(16), beat: whole(24),
    t_window: seconds(32), t_newest_spike: seconds(40), t_cut: seconds(48),
    t_done: seconds(56), t_sent: seconds(64), lead_s: seconds(72),
    spikes_in: whole(80), spikes_late: whole(88), spikes_dropped: whole(96),
    beats_skipped: whole(104), tokens: message.readUInt32LE(112),
    token_cap: message.readInt32LE(116) < 0 ? null : message.readInt32LE(116),
  });
  let at = nHead;
  for (const field of ["value", "value_raw"]) {
    fields[field] = {};
    for (const [name, k] of Object.entries(fields.outputs)) {
      const told = Array.from({ length: k }, (_, i) => seconds(at + 8 * i));
      fields[field][name] = told.every((v) => v === null) ? null : told;
      at += 8 * k;
    }
  }
  return fields;
}

/** The rules, without sockets: hand it what is heard and ask it what may be acted on. */
export class Follower {
  /**
   * @param safe per output, what stands for a value that may not be used; null for the others.
   * @param staleS no decode older than this is used, seconds.
   * @param goneS after so long without any message the daemon is `gone`; it speaks every second.
   * @param offsetS the daemon's clock less this machine's; see `daemonClock`.
   */
  constructor({ safe = {}, staleS = 0.1, goneS = 3, offsetS = 0 } = {}) {
    Object.assign(this, { safe, staleS, goneS, offsetS });
    this.decode = null;
    this.heardS = null;
    this.lost = this.skipped = this.restarts = this.refused = 0;
  }

  /** Take in a message that came at `t`, seconds on this clock; true if it is a new decode. */
  hear(frames, t) {
    const topic = frames.length === 2 ? frames[0].toString("latin1") : "";
    if (!TOPICS.includes(topic)) return false; // `decode` also subscribes to longer topics
    this.heardS = t;
    if (topic !== "decode") return false;
    let fields;
    try {
      fields = readDecode(frames[1]);
      if (
        typeof fields.run_id !== "string" || !Number.isInteger(fields.seq) ||
        !Number.isFinite(fields.t_window) || typeof fields.validity !== "string" ||
        !isObject(fields.value)
      ) {
        throw new Error("a decode whose fields are of other types");
      }
    } catch {
      this.refused += 1;
      return false;
    }
    return this.#follow(fields);
  }

  #follow(fields) {
    const before = this.decode;
    if (before && before.run_id === fields.run_id) {
      const ahead = fields.seq - before.seq;
      if (ahead <= 0) {
        this.refused += 1;
        return false;
      }
      this.lost += ahead - 1;
      this.skipped += Math.max(0, (fields.beat ?? 0) - (before.beat ?? 0) - ahead);
    } else if (before) {
      this.restarts += 1;
      this.lost = this.skipped = 0;
    }
    this.decode = fields;
    return true;
  }

  /** What may be acted on at `t`, seconds on this clock. */
  now(t) {
    const decode = this.decode;
    this.heardS ??= t;
    const ageS = decode ? t + this.offsetS - decode.t_window : Infinity;
    let why = "";
    if (t - this.heardS >= this.goneS) why = "gone";
    else if (!decode) why = "none";
    else if (ageS > this.staleS) why = "old";
    else if (decode.validity !== "ok") why = decode.validity;
    else if (ageS < -this.staleS) why = "future"; // its clock is not ours
    return {
      value: this.#value(decode?.value ?? {}, why === ""),
      usable: why === "",
      why,
      seq: decode?.seq ?? 0,
      run_id: decode?.run_id ?? "",
      t_window: decode?.t_window ?? null,
      validity: decode?.validity ?? "",
      reason: decode?.reason ?? "",
      late: decode?.late === true,
      age_s: ageS,
      lost: this.lost,
      skipped: this.skipped,
      restarts: this.restarts,
      refused: this.refused,
    };
  }

  #value(told, usable) {
    const value = {};
    for (const name of Object.keys({ ...this.safe, ...told })) {
      value[name] = usable && isNumbers(told[name]) ? told[name] : this.safe[name] ?? null;
    }
    return value;
  }
}

/** Follows a daemon's decodes. Options are those of `Follower`, and `keys`: see `setKeys`. */
export class SpikeloopClient {
  constructor(endpoint = "tcp://127.0.0.1:5570", options = {}) {
    this.follower = new Follower(options);
    this.socket = new zmq.Subscriber(LINK);
    setKeys(this.socket, options.keys);
    this.socket.connect(endpoint);
    this.socket.subscribe(...TOPICS);
    this.waiting = [];
    this.told = null;
    this.wake = () => {};
    this.isClosed = false;
    this.timer = setInterval(() => this.#tell(false), WATCH_MS);
    this.#listen();
  }

  /** What may be acted on now. */
  now() {
    return this.follower.now(monotonic());
  }

  /** An answer for each decode, and whenever `why` changes without one. */
  async *[Symbol.asyncIterator]() {
    while (!this.isClosed) {
      while (this.waiting.length) yield this.waiting.shift();
      if (!this.isClosed) await new Promise((wake) => (this.wake = wake));
    }
  }

  close() {
    this.isClosed = true;
    clearInterval(this.timer);
    this.socket.close();
    this.wake();
  }

  async #listen() {
    try {
      for await (const frames of this.socket) this.#tell(this.follower.hear(frames, monotonic()));
    } catch (error) {
      if (!this.isClosed) throw error;
    }
  }

  #tell(isDecode) {
    const answer = this.now();
    if (!isDecode && answer.why === this.told) return;
    this.told = answer.why;
    this.waiting.push(answer);
    if (this.waiting.length > 1000) this.waiting.shift(); // nobody asks: keep the newest
    this.wake();
  }
}

/** The daemon's clock less this machine's, and by how far that may be off: [seconds, seconds]. */
export async function daemonClock(control, { keys, tries = 5 } = {}) {
  const socket = new zmq.Request({ receiveTimeout: 2000 });
  setKeys(socket, keys);
  socket.connect(control);
  let best = [0, Infinity];
  try {
    for (let i = 0; i < tries; i++) {
      const asked = monotonic();
      await socket.send(JSON.stringify({ schema: 1, command: "status", arguments: {} }));
      const reply = JSON.parse((await socket.receive())[0].toString());
      const answered = monotonic();
      const withinS = (answered - asked) / 2;
      if (reply.ok && withinS < best[1]) best = [reply.result.t_sent - asked - withinS, withinS];
    }
  } finally {
    socket.close();
  }
  return best;
}

/** Show the keys that `client.json` of `spikeloop keys` holds. */
function setKeys(socket, keys) {
  if (!keys) return;
  socket.curveServerKey = keys.other;
  socket.curvePublicKey = keys.public;
  socket.curveSecretKey = keys.secret;
}
