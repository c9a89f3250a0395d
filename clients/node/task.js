// A task program: move a cursor with spikeloop's decodes, and stop whenever they cannot be trusted.
//
// Needs Node 18, `npm install zeromq`, and spikeloop.js beside it; the file's name ends in .js in a
// folder whose package.json says "type": "module". Usage: node task.js [ENDPOINT]; on the daemon's
// own machine, because a decode's age is taken on the clock that both share.

import { SpikeloopClient } from "./spikeloop.js";

const FRAME_S = 1 / 60;
const client = new SpikeloopClient(process.argv[2], { safe: { velocity: [0, 0] }, staleS: 0.1 });
const position = [0, 0];
let said = "";
let lost = 0;

function say(line) {
  if (line !== said) console.log(`${line}; cursor at ${position.map((x) => x.toFixed(2))}`);
  said = line;
}

const frames = setInterval(() => {
  const answer = client.now(); // its value is the safe one unless it may be used
  if (answer.why === "gone") {
    clearInterval(frames);
    client.close();
    console.error("nothing heard for 3 s: the daemon or the way to it is gone; stopped");
    process.exitCode = 1;
    return;
  }
  if (answer.lost > lost) say(`${answer.lost - lost} decodes lost on the way`);
  lost = answer.lost;
  const reason = ["", answer.why].includes(answer.reason) ? "" : ` (${answer.reason})`;
  say(answer.usable ? "moving" : `stopped: ${answer.why}${reason}`);
  answer.value.velocity?.forEach((speed, i) => (position[i] += speed * FRAME_S));
}, FRAME_S * 1000);
