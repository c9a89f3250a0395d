// The time bar of a recorded run.

const byId = (id) => document.getElementById(id);

function clockText(seconds) {
  const s = Math.max(0, Math.floor(seconds)), m = Math.floor(s / 60), h = Math.floor(m / 60);
  return `${h ? `${h}:` : ""}${String(m % 60).padStart(h ? 2 : 1, "0")}:${String(s % 60).padStart(2, "0")}`;
}

function paint(stretches) {
  byId("stretches").replaceChildren(...stretches.map(([validity, n]) => {
    const piece = document.createElement("span");
    piece.dataset.validity = validity || "silent";
    piece.title = piece.dataset.validity;
    piece.style.flexGrow = n;
    return piece;
  }));
}

export function startTimeBar(say) {
  let isHeld = false, isPlaying = true, painted = "";
  byId("at").onpointerdown = () => { isHeld = true; };
  byId("at").onchange = () => {
    isHeld = false;
    say({ wind_to_s: Number(byId("at").value) });
  };
  byId("play").onclick = () => say({ is_playing: !isPlaying });
  byId("speed").onchange = () => say({ speed: Number(byId("speed").value) });
  return function show(recorded) {
    byId("time").hidden = !recorded;
    if (!recorded) return;
    isPlaying = recorded.is_playing;
    byId("play").textContent = isPlaying ? "Stop" : "Play";
    byId("at").max = recorded.length_s;
    if (!isHeld) byId("at").value = recorded.at_s;
    const at = new Date(1000 * (recorded.utc_of_begin + recorded.at_s));
    byId("at-text").textContent =
      `${clockText(recorded.at_s)} of ${clockText(recorded.length_s)}, ${at.toLocaleString()}`;
    byId("speed").value = recorded.speed;
    byId("damage").textContent = recorded.remarks.join("; ");
    const told = JSON.stringify(recorded.stretches);
    if (told !== painted) paint(recorded.stretches);
    painted = told;
  };
}
