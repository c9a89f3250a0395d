// Print this client's answers, one JSON line each. Usage: node conformance.js ENDPOINT STALE_S

import { SpikeloopClient } from "./spikeloop.js";

const [endpoint, staleS] = process.argv.slice(2);
const client = new SpikeloopClient(endpoint, { safe: { velocity: [0, 0] }, staleS: Number(staleS) });
for await (const answer of client) process.stdout.write(JSON.stringify(answer) + "\n");
