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
    askForPicture();
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

// What a slow message changes, one thing at a picture: all at once would take the time of several.
const OFTEN = [words.showNotes, (slow) => { control.show(slow); showTime(slow.recorded); }];
const SELDOM = [
  words.showFacts, words.showSpikes, words.showUnits, words.showEvents,
  (slow) => plots.drawLatency(slow.latency), (slow) => plots.drawStages(slow.latency),
  (slow) => { if (slow.spikes.rate) plots.drawRate(slow.spikes.rate); },
  (slow) => plots.drawTimeline(slow.events), (slow) => plots.drawPolar(slow.units.polar), (slow) => plots.drawArray(slow.map),
];
const drawn = { fast: null, slow: null, tables: 0 };
let todo = [], isAsked = false;

function askForPicture() {
  // Only where there is something to show: the browser has work with pictures of which nothing comes, too.
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(draw);
}

async function draw() {
  isAsked = false;
  if (!isReady || isSwitching || document.hidden) return;
  if (state.rows) {
    raster.setRows(state.rows.labels, state.rows.marks);
    plots.drawRows(state.rows.labels, state.rows.marks);
    state.rows = null;
  }
  if (state.slow !== drawn.slow) await takeSlow((drawn.slow = state.slow));
  todo.shift()?.(drawn.slow);
  if (todo.length) askForPicture();
  const { fast } = state, isNew = fast !== drawn.fast;
  if (!fast || (!isNew && !plots.isMoved)) return;
  drawn.fast = fast;
  words.showValidity(fast);
  if (raster.isChanged || plots.isMoved) plots.drawRaster(raster);
  plots.drawTraces(state.now);
  plots.drawPlane(fast);
  state.frames += isNew;
}

async function takeSlow(slow) {
  isSwitching = true;
  await plots.setOutputs(slow.decoded.outputs);
  isSwitching = false;
  if (todo.length) return;  // What is still to be done is done with what is new.
  todo = [...OFTEN];
  if (performance.now() < drawn.tables + TABLES_MS) return;
  drawn.tables = performance.now();
  todo.push(...SELDOM);
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
plots.onresize = askForPicture;
connect();
setInterval(() => {
  if (state.heard && performance.now() - state.heard > SILENT_MS)
    words.showValidity({ validity: "silent", words: "the page's program does not answer", remedy: "is `spikeloop page` still running?" });
}, SILENT_MS / 5);
