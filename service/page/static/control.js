// Commands to the daemon: each confirmed, sent with the token, answered in words.

const TOKEN = "spikeloop-token";
const byId = (id) => document.getElementById(id);
const SLIDERS = [
  ["gain", "Gain", 0, 3, 0.05], ["smoothing", "Smoothing", 0, 0.98, 0.01],
  ["max_speed", "Fastest speed (0: none)", 0, 100, 1], ["lead_s", "Lead, s", 0, 0.2, 0.01],
];

export function startControl(socket) {
  if (location.hash.startsWith("#token=")) {
    sessionStorage.setItem(TOKEN, decodeURIComponent(location.hash.slice(7)));
    history.replaceState(null, "", location.pathname);
  }
  const token = () => sessionStorage.getItem(TOKEN) || "";
  const sliders = {};
  let settle = () => {};  // the question that is open

  async function command(name, args, question) {
    if (!(await confirmed(question))) return;
    const answer = byId("answer");
    answer.textContent = `${name} ...`;
    try {
      const response = await fetch("/command", {
        method: "POST", headers: { Authorization: `Bearer ${token()}`, "Content-Type": "application/json" },
        body: JSON.stringify({ command: name, arguments: args }),
      });
      const reply = await response.json();
      answer.textContent = reply.ok ? `${name}: done` : `${name}: ${reply.error}`;
    } catch (error) {
      answer.textContent = `${name}: the page's program does not answer`;
    }
  }

  function button(text, run, className) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (className) made.className = className;
    made.onclick = run;
    return made;
  }

  function row(...children) {
    const made = document.createElement("div");
    made.className = "row";
    made.append(...children);
    byId("controls").append(made);
  }

  function build() {
    row(button("Pause", () => command("pause", {}, "Pause? Decodes carry the safe value until resumed.")),
      button("Resume", () => command("resume", {}, "Resume? Decodes act again.")));
    for (const [name, text, low, high, step] of SLIDERS) {
      const label = document.createElement("label"), input = document.createElement("input"), shown = document.createElement("output");
      label.textContent = text;
      Object.assign(input, { type: "range", min: low, max: high, step });
      input.ariaLabel = text;
      input.oninput = () => { shown.textContent = input.value; input.dataset.touched = "1"; };
      sliders[name] = { input, shown };
      row(label, input, shown, button("Set", async () => {
        const value = Number(input.value);
        await command("shape", { [name]: value }, `Set ${text.toLowerCase()} to ${value}?`);
        delete input.dataset.touched;
      }));
    }
    const path = document.createElement("input");
    path.placeholder = "Folder of a bundle on the daemon's machine";
    path.style.flex = "1";
    row(path, button("Swap", () => command("swap", { bundle: path.value }, `Put ${path.value} into service?`)),
      button("Try in shadow", () => command("swap", { bundle: path.value, hold: true }, `Run ${path.value} in shadow?`)));
    row(button("Promote the shadow", () => command("promote", {}, "Put the decoder in shadow into service?")),
      button("Dismiss the shadow", () => command("dismiss", {}, "Take the decoder in shadow out?")),
      button("Roll back", () => command("rollback", {}, "Put the decoder before back into service?")));
  }

  function confirmed(question) {
    // The dialog's "close" comes later than its answer: the next question's would be taken for this one's.
    settle(false);
    byId("confirm-text").textContent = question;
    byId("confirm").showModal();
    return new Promise((done) => { settle = done; });
  }

  byId("confirm").oncancel = () => settle(false);
  byId("confirm").querySelector("form").onsubmit = (event) => settle(event.submitter.value === "yes");

  byId("open-control").onclick = () => byId("control").showModal();
  byId("token-form").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, byId("token").value);
    location.reload();
  };
  byId("mark").onsubmit = async (event) => {
    event.preventDefault();
    const text = byId("mark-text").value.trim();
    if (!text) return;
    await command("mark", { text }, `Note "${text}" in the record?`);
    byId("mark-text").value = "";
  };
  build();

  return {
    token,
    hello({ control, may_command }) {
      byId("open-control").hidden = !control;
      byId("token-form").hidden = may_command;
      byId("controls").hidden = !may_command;
      byId("mark").hidden = !may_command;
    },
    askForToken() {
      byId("open-control").hidden = false;
      byId("token-form").hidden = false;
      byId("controls").hidden = true;
      byId("answer").textContent = "This page is shown to those who have its token.";
      byId("control").showModal();
    },
    show({ shaping, lead_s }) {
      for (const [name, { input, shown }] of Object.entries(sliders)) {
        const value = name === "lead_s" ? lead_s : shaping[name];
        if (value == null || input.dataset.touched) continue;
        if (value > Number(input.max)) input.max = value;
        input.value = value;
        shown.textContent = value;
      }
    },
  };
}
