// BokehJS figures: embedded once, then only their data change; what moves at every picture lies in layers upon them.

import { Layer } from "/static/layer.js";
import { N_COLUMNS } from "/static/raster.js";
import { Strip } from "/static/strip.js";

const VALIDITY = ["ok", "warmup", "stale", "paused", "fault", "silent"];
const TRACE_S = 5, TRAIL = 60;
const AUTO_SHRINK = 0.98;
const LAYERED = { raster: Layer, plane: Layer, trace: Strip };
// The uppermost first: colour, width, dashes.
const LINES = { decoded: ["accent", 1.8, []], shadow: ["third", 1.5, [4, 3]], actual: ["muted", 2, []] };
// Pixels that axes take from a figure's width and height.
const FRAMES = { plane: [48, 36], polar: [10, 10], array: [10, 10] };

export class Plots {
  constructor() {
    this.models = {};
    this.views = {};
    this.layers = {};
    this.found = {};
    this.sizes = {};
    this.colours = {};
    // Sizes are noted when they change: asking for them would lay the page out at every picture.
    this.observer = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) this.sizes[target.id] = contentRect;
      this.onresize?.();
    });
    this.items = {};
    this.traces = { decoded: [], actual: [], shadow: [] };
    this.trail = [];
    this.reach = [];
    this.plane = 10;
  }

  async load(theme) {
    const styles = getComputedStyle(document.documentElement);
    for (const name of [...VALIDITY, "accent", "second", "third", "muted"]) this.colours[name] = styles.getPropertyValue(`--${name}`).trim();
    this.items = await (await fetch(`/figures/${theme}`)).json();
    const wanted = Object.keys(this.models).length
      ? Object.keys(this.models)
      : Object.keys(this.items).filter((name) => !name.startsWith("trace"));
    for (const name of wanted) await this.embed(name);
  }

  async embed(name) {
    const place = document.getElementById(name);
    this.views[name]?.clear();
    const at = Bokeh.documents.indexOf(this.models[name]);
    if (at >= 0) Bokeh.documents.splice(at, 1);
    place.replaceChildren();
    this.views[name] = await Bokeh.embed.embed_item(this.items[name], name);
    this.models[name] = Bokeh.documents.at(-1);
    this.found[name] = {};
    this.observer.observe(place);
    const [view] = this.views[name].roots;
    view.canvas_view.overlays.el.style.display = "none";  // Empty; browsers carry it from picture to picture all the same.
    const Layered = LAYERED[name.replace(/\d+$/, "")];
    if (Layered) this.layers[name] = new Layered(place, view);
  }

  get isMoved() {
    return Object.values(this.layers).some((layer) => layer.isMoved);
  }

  forget() {
    for (const rows of Object.values(this.traces)) rows.length = 0;
    this.trail.length = 0;
    for (const layer of Object.values(this.layers)) layer.forget?.();
  }

  find(figure, name) {
    return (this.found[figure][name] ??= this.models[figure].get_model_by_name(name));
  }

  set(figure, name, data) {
    const source = this.find(figure, name);
    const [column] = Object.keys(data);
    // What was empty and stays so need not be drawn again.
    if (data[column].length || source.data[column].length) source.data = data;
  }

  range(figure, axis, start, end) {
    const range = this.plot(figure)[`${axis}_range`];
    if (range.start !== start || range.end !== end) range.setv({ start, end });
  }

  square(figure, reach, centre = [0, 0]) {
    // Both axes get the same scale, however wide and high the figure is.
    const size = this.sizes[figure], [across, along] = FRAMES[figure];
    if (!size) return;
    const width = Math.max(20, size.width - across), height = Math.max(20, size.height - along);
    const of = reach / Math.min(width, height);
    this.range(figure, "x", centre[0] - of * width, centre[0] + of * width);
    this.range(figure, "y", centre[1] - of * height, centre[1] + of * height);
  }

  plot(figure) {
    return this.find(figure, `${figure}_plot`);
  }

  drawRaster(raster) {
    if (!raster.nRows) return;
    this.layers.raster.image(raster.paint(), N_COLUMNS, raster.nRows);
    this.range("raster", "y", 0, raster.nRows);
  }

  drawRows(labels, marks) {
    const words = ["", "(silent)", "(changed)", "(not known to the decoder)"];
    this.set("raster", "rows", {
      y: labels.map((_, i) => i + 0.5), key: labels, mark: marks.map((mark) => words[mark]),
    });
  }

  async setOutputs(outputs) {
    const names = outputs.flatMap(([name, n, unit]) =>
      Array.from({ length: n }, (_, i) => `${name}${n > 1 ? " " + ("xyz"[i] || i) : ""} ${unit}`)).slice(0, 4);
    const told = names.join("|");
    if (told === this.outputs) return;
    this.outputs = told;
    const place = document.getElementById("traces");
    place.replaceChildren();
    for (const [i, text] of names.entries()) {
      const row = document.createElement("div"), name = document.createElement("div"), plot = document.createElement("div");
      row.className = "trace"; name.className = "name"; plot.className = "figure";
      name.textContent = text;
      plot.id = `trace${i}`;
      row.append(name, plot);
      place.append(row);
      await this.embed(`trace${i}`);
    }
    this.nTraces = names.length;
    this.reach = names.map(() => 1);
  }

  takeTraces(fast, now) {
    for (const [name, kept] of Object.entries(this.traces)) {
      for (const row of fast[name]) kept.push([row[0] + now, ...row.slice(1)]);
      const from = kept.findIndex((row) => row[0] > now - TRACE_S);
      kept.splice(0, from < 0 ? kept.length : from);
    }
    if (fast.cursor) this.trail.push(fast.cursor);
    else this.trail.length = 0;  // It led to where the cursor is no more.
    if (this.trail.length > TRAIL) this.trail.shift();
  }

  drawTraces(now) {
    for (let i = 0; i < (this.nTraces || 0); i++) {
      let most = 0;
      for (const rows of Object.values(this.traces)) {
        for (const row of rows) if (Math.abs(row[i + 1]) > most) most = Math.abs(row[i + 1]);
      }
      // Safe values of zero tell nothing of the range.
      if (most) this.reach[i] = Math.max(most * 1.1, this.reach[i] * AUTO_SHRINK, 1e-3);
      const nice = niceReach(this.reach[i]);
      this.range(`trace${i}`, "y", -nice, nice);
      this.layers[`trace${i}`].draw(this.plot(`trace${i}`), now, Object.entries(LINES).map(
        ([name, [colour, width, dash]]) => ({ rows: this.traces[name], at: i + 1, colour: this.colours[colour], width, dash })));
    }
  }

  drawPlane({ cursor, target }) {
    const far = Math.max(0, ...[cursor, target, ...this.trail].flat().filter((v) => v != null).map(Math.abs));
    const reach = niceReach(Math.max(far * 1.15, this.plane));
    this.plane = Math.max(this.plane, reach);
    this.square("plane", this.plane);
    const layer = this.layers.plane, place = layer.begin(this.plot("plane")), { accent, second } = this.colours;
    if (target) layer.circle(place(target), 17, second, 3);
    layer.pen.globalAlpha = 0.4;
    layer.line(this.trail.map(place), accent, 3);
    layer.pen.globalAlpha = 1;
    if (cursor) layer.circle(place(cursor), 7, accent);
  }

  drawLatency({ band, hop_ms }) {
    this.set("latency", "band", { x: band.map((b) => b[0]), p50: band.map((b) => b[1]), p99: band.map((b) => b[2]) });
    this.range("latency", "y", 0, niceReach(Math.max(hop_ms * 1.2, ...band.map((b) => b[2]))));
    this.drawHop("latency", hop_ms);
  }

  drawStages({ stages, hop_ms }) {
    this.set("stages", "stages", {
      y: stages.map((_, i) => stages.length - 1 - i), p50: stages.map((s) => s[1]), p99: stages.map((s) => s[2]),
    });
    this.range("stages", "x", 0, niceReach(Math.max(0.5, ...stages.map((s) => s[2])) * 1.05));
    this.drawHop("stages", hop_ms);
  }

  drawHop(figure, hop_ms) {
    if (this.find(figure, "hop").data.at[0] !== hop_ms) this.set(figure, "hop", { at: [hop_ms] });
  }

  drawRate(rate) {
    this.set("rate", "rate_data", { x: rate.map((r) => r[0]), y: rate.map((r) => r[1]) });
    this.range("rate", "y", 0, niceReach(Math.max(10, ...rate.map((r) => r[1])) * 1.05));
  }

  drawTimeline({ stretches, events }) {
    this.set("timeline", "stretches", {
      left: stretches.map((s) => s[0]), right: stretches.map((s) => s[1]), color: stretches.map((s) => this.colours[s[2]]),
    });
    const recent = events.filter((e) => e.t > -300);
    this.set("timeline", "events", {
      x: recent.map((e) => e.t), event: recent.map((e) => e.event), told: recent.map((e) => e.told),
      color: recent.map((e) => this.colours[e.level === "warning" ? "stale" : "accent"]),
    });
  }

  drawPolar(polar) {
    this.square("polar", 1.02);
    const most = Math.max(1e-3, ...polar.map((p) => p[1]));
    this.set("polar", "polar_data", {
      x: polar.map(([angle, depth]) => (depth / most) * 0.95 * Math.cos(angle)),
      y: polar.map(([angle, depth]) => (depth / most) * 0.95 * Math.sin(angle)),
      key: polar.map((p) => p[2]), size: polar.map(() => 7),
    });
  }

  drawArray({ labels, values, output }) {
    const side = Math.ceil(Math.sqrt(labels.length || 1));
    const most = Math.max(1e-9, ...values);
    this.set("array", "array_data", {
      x: labels.map((_, i) => i % side), y: labels.map((_, i) => -Math.floor(i / side)), key: labels,
      alpha: values.map((v) => 0.04 + 0.96 * Math.max(0, v / most)),
      told: values.map((v) => (output ? `${(100 * v).toFixed(1)} % of what moves ${output}` : `${v.toFixed(1)} Hz`)),
    });
    this.square("array", side / 2, [(side - 1) / 2, -(side - 1) / 2]);
  }
}

function niceReach(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 1.5, 2, 3, 4, 5, 7, 10].find((step) => step * power >= value) * power;
}
