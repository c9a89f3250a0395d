// The page: one socket in, figures and words out.

import { startControl } from "/static/control.js";
import { Plots } from "/static/plots.js";
import { Raster } from "/static/raster.js";
import { startTimeBar } from "/static/time.js";
import * as words from "/static/words.js";

const RECONNECT_MS = 500, SILENT_MS = 1500, TABLES_MS = 950, THEME = "spikeloop-theme", ORDER = "spikeloop-order";
const plots = new Plots(), raster = new Raster();
const state = { plots, raster, fast: null, slow: null, rows: null, now: 0, heard: 0, frames: 0, messages: 0 };
window.spikeloop = state;  // for tests and measurements
const control = startControl(() => socket);
const showTime = startTimeBar((message) => socket.send(JSON.stringify(message)));
let socket = null, isReady = false, isSwitching = false;

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify({ token: control.token(), order: order.value }));
  socket.onmessage = ({ data }) => {
    state.heard = performance.now();
    state.messages++;
    if (data instanceof ArrayBuffer) return raster.take(data);
    const message = JSON.parse(data);
    if (message.kind === "fast") {
      state.fast = message;
      state.now = message.now;
      plots.takeTraces(message, message.now);
    } else if (message.kind === "slow") state.slow = message;
    else if (message.kind === "rows") state.rows = message;
    else if (message.kind === "hello") control.hello(message);
    else if (message.kind === "anew") {
      plots.forget();
      raster.forget();
    }
  };
  socket.onclose = ({ code }) => {
    if (code === 4401) control.askForToken();
    else setTimeout(connect, RECONNECT_MS);
  };
}

const drawn = { fast: null, slow: null, tables: 0 };
async function draw() {
  requestAnimationFrame(draw);
  if (state.heard && performance.now() - state.heard > SILENT_MS)
    words.showValidity({ validity: "silent", words: "the page's program does not answer", remedy: "is `spikeloop page` still running?" });
  if (!isReady || isSwitching || document.hidden) return;
  if (state.rows) {
    raster.setRows(state.rows.labels, state.rows.marks);
    plots.drawRows(state.rows.labels, state.rows.marks);
    state.rows = null;
  }
  if (state.slow !== drawn.slow) await drawSlow((drawn.slow = state.slow));
  if (state.fast === drawn.fast) return;
  const fast = (drawn.fast = state.fast);
  words.showValidity(fast);
  if (raster.isChanged) plots.drawRaster(raster);
  plots.drawTraces(state.now);
  plots.drawPlane(fast);
  state.frames++;
}

async function drawSlow(slow) {
  isSwitching = true;
  await plots.setOutputs(slow.decoded.outputs);
  isSwitching = false;
  words.showNotes(slow);
  plots.drawLatency(slow.latency);
  control.show(slow);
  showTime(slow.recorded);
  if (performance.now() < drawn.tables + TABLES_MS) return;
  drawn.tables = performance.now();
  words.showFacts(slow);
  words.showSpikes(slow);
  words.showUnits(slow);
  words.showEvents(slow);
  if (slow.spikes.rate) plots.drawRate(slow.spikes.rate);
  plots.drawTimeline(slow.events);
  plots.drawPolar(slow.units.polar);
  plots.drawArray(slow.map);
}

async function setTheme(theme) {
  isSwitching = true;
  document.documentElement.dataset.theme = theme;
  raster.setTheme(theme);
  await plots.load(theme);
  if (raster.labels) plots.drawRows(raster.labels, raster.marks);
  isSwitching = false;
}

const order = document.getElementById("order");
order.value = localStorage.getItem(ORDER) || "channel";
order.onchange = () => {
  localStorage.setItem(ORDER, order.value);
  socket.send(JSON.stringify({ order: order.value }));
};
document.getElementById("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, theme);
  setTheme(theme);
};

const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
await setTheme(localStorage.getItem(THEME) || (isDark ? "dark" : "light"));
isReady = true;
connect();
draw();
