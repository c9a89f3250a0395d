// What stands as text: the facts, tables and notes.

const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(id, text) {
  // What is written anew has to be laid out anew.
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

function number(value, digits = 2) {
  return value == null ? "–" : Number(value).toFixed(digits);
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds)), h = Math.floor(s / 3600), m = Math.floor((s % 3600) / 60);
  return h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
}

function pairs(place, list) {
  byId(place).replaceChildren(...list.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

const sayWithCode = (id, text) => {
  // What stands between backticks is to be typed.
  const place = byId(id);
  if (place.dataset.told === text) return;
  place.dataset.told = text;
  place.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? element("code", part) : part)));
};

export function showValidity({ validity, words, remedy }) {
  if (document.body.dataset.validity !== validity) {
    document.body.dataset.validity = validity;
    say("word", validity);
    document.title = `${validity} · spikeloop`;
  }
  sayWithCode("words", words);
  sayWithCode("remedy", remedy);
}

export function showFacts({ validity: v, units }) {
  if (!v.decoder) return;
  const recording = v.record_failed ? "failed" : v.recording == null ? "not told" : v.recording ? "on" : "off";
  const facts = [["decoder", `${v.decoder} (${v.checksum})`], ["on", v.backend], ["hop", `${v.hop_ms} ms`],
    ["in service", duration(v.in_service_s)], ["recording", recording, v.record_failed],
    ["stream", v.source || "–"], ["run", v.run]];
  if (v.flags) facts.push(["beware", v.flags, true]);
  if (units.advised) facts.push(["beware", "calibrate again: many units are not as they were", true]);
  byId("facts").replaceChildren(...facts.map(([name, value, isGrave]) => {
    const pair = element("div", undefined, isGrave ? "grave" : "");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}

const CUT_BY = { watermark: "once all their spikes are known to be there", arrived: "once a later spike has come",
  settled: "after the settle time" };

export function showNotes(slow) {
  const { latency, spikes, decoded, trials, units } = slow;
  const r2 = Object.entries(decoded.r2).filter(([, values]) => values.length)
    .map(([name, values]) => `${name} ${values.map((v) => number(v)).join(" / ")}`);
  say("r2-note", r2.length ? `R² over 30 s: ${r2.join("; ")}` : "");
  byId("plane-empty").hidden = decoded.has_cursor;
  say("plane-empty", slow.recorded ? "The record of a run holds no positions."
    : decoded.has_plane ? "No positions come now." : "No LSL stream of type Position was found.");
  const bits = [["Fitts", trials.fitts_bits_per_s], ["grid", trials.grid_bits_per_s]]
    .filter(([, value]) => value != null).map(([name, value]) => `${name} ${number(value)}`);
  say("trials-note", trials.n
    ? `${trials.n_success} of ${trials.n} trials${bits.length ? `, ${bits.join(", ")} bits/s` : ""}` : "");
  byId("legend-actual").hidden = !decoded.has_plane;
  byId("legend-shadow").hidden = !decoded.has_shadow;
  const rules = Object.entries(latency.cut_by)
    .map(([rule, share]) => `${share === 1 ? "all" : share < 0.01 ? "under 1 %" : `${Math.min(99, 100 * share).toFixed(0)} %`} ${CUT_BY[rule] || rule}`);
  const last = latency.band.at(-1);
  say("latency-note", last
    ? `end to end ${number(last[1], 1)} ms, 99 of 100 within ${number(last[2], 1)} ms; dashed: a hop, ${latency.hop_ms} ms` : "");
  say("miss-note", [
    latency.waiting_share == null ? "" : `${(100 * latency.waiting_share).toFixed(0)} % of the time is waiting for spikes`,
    rules.length ? `bins are cut: ${rules.join(", ")}` : "",
    `${latency.missed || "no"} beat${latency.missed === 1 ? "" : "s"} missed${latency.last_miss ? `, the last ${duration(latency.last_miss.ago_s)} ago: ${latency.last_miss.told}` : ""}`,
  ].filter(Boolean).join(" · "));
  say("spikes-note", spikes.rate?.length ? `${number(spikes.rate.at(-1)[1], 0)} spikes/s` : "");
  const bad = Object.entries(units.n_marked).filter(([, n]) => n).map(([word, n]) => `${n} ${word}`);
  say("units-note", [
    `${units.n_seen} seen${units.n_known == null ? "" : `, ${units.n_known} known`}`, ...bad,
    units.advised ? "calibrate again: too many have changed" : "",
  ].filter(Boolean).join(", "));
}

const FATES = { duplicate: "twice", unknown_unit: "unknown", overflow: "dropped" };

export function showSpikes({ spikes }) {
  if (!spikes.fates) return;
  const head = element("tr");
  const names = Object.keys(spikes.fates);
  head.append(element("th", "fate"), ...names.map((name) => element("th", FATES[name] || name, "n")));
  const rows = [["a second", spikes.fates_per_s, 0], ["so far", spikes.fates, 0]].map(([title, of, digits]) => {
    const row = element("tr");
    row.append(element("td", title), ...names.map((name) => element("td", number(of[name], digits), "n")));
    return row;
  });
  byId("fates").replaceChildren(head, ...rows);
  pairs("clock", [
    ["clock offset", `${number(spikes.offset_ms, 3)} ± ${number(spikes.uncertainty_ms, 3)} ms`],
    ["disorder", `${number(spikes.disorder_ms)} ms`],
    ["settle time", `${number(spikes.settle_ms)} ms${spikes.settling ? ", being measured" : ""}`],
    ["delay", spikes.delay_ms == null ? "being measured" : `${number(spikes.delay_ms)} ms`],
    ["spikes waiting", spikes.pending], ["samples lost", spikes.lost],
  ]);
}

export function showUnits({ units, map }) {
  say("array-note", map.output ? map.note : `rates by channel; ${map.note}`);
  const head = element("tr");
  head.append(element("th", "unit"), element("th", "Hz now", "n"), element("th", "Hz then", "n"),
    element("th", "direction", "n"), element("th", "influence", "n"), element("th", ""));
  const rows = units.listed.map((unit) => {
    const row = element("tr", undefined, unit.mark ? "bad" : "");
    row.append(element("td", unit.key), element("td", number(unit.hz, 1), "n"), element("td", number(unit.before_hz, 1), "n"),
      element("td", unit.angle == null ? "–" : `${unit.angle}°`, "n"),
      element("td", unit.share == null || unit.mark === "unknown" ? "–" : `${(100 * unit.share).toFixed(1)} %`, "n"), element("td", unit.mark));
    return row;
  });
  byId("units").replaceChildren(head, ...rows);
}

let shownEvents = "";
export function showEvents({ events: { events } }) {
  const told = `${events.length ? events.at(-1).n : 0}`;
  if (told !== shownEvents) {
    shownEvents = told;
    byId("events").replaceChildren(...[...events].reverse().map((event) => {
      const line = element("li", undefined, event.level === "warning" ? "warning" : "");
      line.append(element("time"), element("span", event.event), element("span", event.told));
      line.title = event.told;
      return line;
    }));
  }
  const times = byId("events").querySelectorAll("time");
  [...events].reverse().forEach((event, i) => { times[i].textContent = `${duration(-event.t)} ago`; });
}
