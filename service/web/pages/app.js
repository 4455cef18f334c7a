// The page: fleet, incidents, holds. It only shows; orders are typed (`rollbackd hold`, `approve`).
// Every text from outside goes in by textContent; nothing here makes markup from data.
"use strict";

const models = new Map();
const incidents = new Map();
let holds = [];
let token = sessionStorage.getItem("token");
let skewMs = 0; // server minus browser: relative times must not show this machine's clock error
let shownIncident = null;

const byId = (id) => document.getElementById(id);

function el(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("data-") || name === "colspan" || name === "rowspan" || name === "scope") {
      made.setAttribute(name, value);
    } else {
      made[name] = value;
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---- words and numbers

const TONE_OF_VERDICT = { pass: "pass", breach: "breach", inconclusive: "wait", unknown: "unknown" };
const TONE_OF_STATE = {
  open: "breach", failed: "breach", unverified: "breach",
  proposed: "wait", commanded: "wait", applied: "wait",
  verified: "pass", resolved: "pass", withheld: "unknown",
};
const TONE_OF_ENTRY = {
  opened: "breach", evidence: "breach", unverified: "breach", escalated: "breach", paged: "breach",
  proposed: "wait", command: "wait", verified: "pass", resolved: "pass",
};
const WORD_OF_STATE = {
  open: "open", withheld: "not acted on", proposed: "waits for approval", commanded: "commanded",
  applied: "applied", verified: "rolled back", unverified: "not confirmed", failed: "failed",
  resolved: "resolved",
};
const WORD_OF_ENTRY = {
  opened: "Breach", evidence: "More evidence", proposed: "Rollback proposed",
  withheld: "Nothing was done", approved: "Approved", rejected: "Rejected",
  command: "Command sent", receipt: "The platform answered", verified: "Confirmed by traffic",
  unverified: "Not seen in traffic", escalated: "Escalated", paged: "A person was called",
  acknowledged: "Acknowledged", note: "Note", resolved: "Resolved",
};

const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return (value !== 0 && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)) + "%";
}

function short(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en", { maximumSignificantDigits: 4 });
}

function duration(seconds) {
  if (seconds < 1) return "< 1 s";
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 129600) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}

function ago(atMs) {
  const seconds = (Date.now() + skewMs - atMs) / 1000;
  return seconds < 1 ? "just now" : duration(seconds) + " ago";
}

function moment(atMs, before) {
  const at = new Date(atMs);
  const made = el("time", { dateTime: at.toISOString(), title: at.toLocaleString() });
  made.dataset.at = atMs;
  made.dataset.before = before || "";
  made.textContent = made.dataset.before + ago(atMs);
  return made;
}

const chip = (word, tone) => el("span", { className: "chip", "data-tone": tone, textContent: word });

// ---- the fleet

function liveVersions(model) {
  const rank = { canary: 0, stable: 1 };
  return (model.versions || [])
    .filter((one) => one.role in rank || one.share > 0)
    .sort((a, b) => (rank[a.role] ?? 2) - (rank[b.role] ?? 2) || a.version.localeCompare(b.version));
}

function reasonOf(model, one) {
  const verdict = (model.verdicts || {})[one.version];
  return (verdict && verdict.text) || one.text || "";
}

function wantedShare(model, one) {
  if (model.weight === null || model.weight === undefined) return null;
  if (one.version === model.canary) return model.weight;
  return one.version === model.stable ? 1 - model.weight : null;
}

function trafficCell(model, one) {
  const wanted = wantedShare(model, one);
  const bar = el("i");
  bar.style.width = Math.min(100, (one.share || 0) * 100) + "%";
  const title = wanted === null ? "share of traffic as seen"
    : `${percent(one.share)} of traffic as seen, ${percent(wanted)} by plan`;
  const soft = wanted === null ? null
    : el("span", { className: "soft", textContent: `plan ${percent(wanted)}` });
  return el("td", { className: "number", title, "data-label": "Traffic" },
    el("span", { className: "share" }, bar),
    el("span", { className: "seen", textContent: percent(one.share) }), soft);
}

function modelCell(model, rows) {
  const held = holds.find((hold) => hold.model === model.model);
  const roles = model.roles === "inferred" ? "roles inferred from traffic" : null;
  const open = el("button", { type: "button", title: "over time", textContent: model.model });
  open.addEventListener("click", () => { location.hash = "model=" + encodeURIComponent(model.model); });
  return el("th", { className: "model", scope: "rowgroup", rowspan: rows },
    open,
    model.watermark ? el("small", {}, moment(model.watermark, "last event ")) : null,
    roles ? el("small", { textContent: roles }) : null,
    held ? chip("held", "wait") : null);
}

function versionRow(model, one, first, rows) {
  const row = el("tr");
  if (first) row.append(modelCell(model, rows));
  row.append(
    el("td", { className: "version", title: one.version }, one.version,
      el("span", { className: "role", textContent: one.role })),
    el("td", { className: "verdict" },
      one.verdict ? chip(one.verdict, TONE_OF_VERDICT[one.verdict]) : chip("none yet", "unknown"),
      el("span", { className: "soft", textContent: reasonOf(model, one) })),
    trafficCell(model, one),
    el("td", { className: "number", "data-label": "Predictions", textContent: count(one.predictions) }),
    el("td", { className: "number", "data-label": "Labels seen", textContent: percent(one.coverage) }));
  if (first) {
    row.append(el("td", {
      className: "number" + (model.lag_s >= 10 ? " late" : ""), rowspan: rows, "data-label": "Behind",
      title: "how far rollbackd is behind the events", textContent: duration(model.lag_s || 0),
    }));
  }
  return row;
}

// What needs a look stands first.
function urgency(model) {
  const verdicts = liveVersions(model).map((one) => one.verdict);
  return verdicts.includes("breach") ? 0 : verdicts.includes("unknown") ? 1 : 2;
}

function renderFleet() {
  const table = byId("fleet");
  const bodies = new Map([...table.tBodies].map((body) => [body.dataset.model, body]));
  const names = [...models.keys()].sort((a, b) =>
    urgency(models.get(a)) - urgency(models.get(b)) || a.localeCompare(b));
  for (const name of names) {
    const model = models.get(name);
    // Only what changed is made anew: text under selection and the reader's place stay.
    const { updated_at: _, age_s: __, ...shown } = model;
    const mark = JSON.stringify([shown, holds.map((hold) => hold.model)]);
    let body = bodies.get(name);
    if (!body) body = el("tbody", { "data-model": name });
    bodies.delete(name);
    table.append(body);
    if (body.mark === mark) continue;
    body.mark = mark;
    const versions = liveVersions(model);
    body.replaceChildren(...versions.map((one, at) => versionRow(model, one, at === 0, versions.length)));
  }
  for (const gone of bodies.values()) gone.remove();
  table.hidden = names.length === 0;
  byId("no-models").hidden = names.length > 0;
}

// ---- incidents and holds

function title(incident) {
  const to = incident.rolled_back_to ? ` → ${incident.rolled_back_to}` : "";
  return `${incident.model} · ${incident.version}${to}`;
}

function incidentRow(incident) {
  const open = el("button", { type: "button" },
    el("span", {}, chip(WORD_OF_STATE[incident.state] || incident.state, TONE_OF_STATE[incident.state])),
    el("strong", { textContent: title(incident) }),
    moment(incident.opened_at),
    el("span", { className: "text", textContent: incident.text }));
  open.addEventListener("click", () => { location.hash = "incident=" + incident.incident_id; });
  return el("li", { "data-id": incident.incident_id }, open);
}

function renderIncidents() {
  const list = byId("incidents");
  const newest = [...incidents.values()].sort((a, b) => b.opened_at - a.opened_at).slice(0, 100);
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  newest.forEach((incident, at) => {
    const mark = JSON.stringify(incident);
    let row = rows.get(incident.incident_id);
    if (!row || row.mark !== mark) {
      const made = incidentRow(incident);
      made.mark = mark;
      if (row) row.replaceWith(made);
      row = made;
    }
    rows.delete(incident.incident_id);
    if (list.children[at] !== row) list.insertBefore(row, list.children[at] || null);
  });
  for (const gone of rows.values()) gone.remove();
  byId("no-incidents").hidden = newest.length > 0;
}

function renderHolds() {
  const all = holds.find((hold) => hold.model === "*");
  byId("switch").hidden = !all;
  if (all) byId("switch-why").textContent = `${all.actor}: ${all.reason}`;
  byId("holds").replaceChildren(...holds.map((hold) => el("li", {},
    el("strong", { textContent: hold.model === "*" ? "All models" : hold.model }),
    el("span", { textContent: hold.reason }),
    el("span", { className: "role" }, `${hold.actor}, `, moment(hold.at),
      hold.until ? ", until " + new Date(hold.until).toLocaleString() : ""))));
  byId("no-holds").hidden = holds.length > 0;
}

function renderSummary() {
  const verdicts = [...models.values()].flatMap((model) =>
    liveVersions(model).map((one) => one.verdict).filter(Boolean));
  const breaches = verdicts.filter((verdict) => verdict === "breach").length;
  const blind = verdicts.filter((verdict) => verdict === "unknown").length;
  const parts = [`${models.size} ${models.size === 1 ? "model" : "models"}`];
  parts.push(breaches ? `${breaches} in breach` : "no breach");
  if (blind) parts.push(`${blind} unknown`);
  byId("summary").textContent = parts.join(", ");
  document.title = (breaches ? `(${breaches}) ` : "") + "rollbackd";
}

let waiting = false;
function render() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    renderFleet();
    renderIncidents();
    renderHolds();
    renderSummary();
  }, 50);
}

setInterval(() => {
  for (const made of document.querySelectorAll("time[data-at]")) {
    made.textContent = made.dataset.before + ago(Number(made.dataset.at));
  }
}, 1000);

// ---- one incident

function guardsOf(incident) {
  const found = new Map();
  for (const entry of incident.entries) {
    if (entry.kind !== "opened" && entry.kind !== "evidence") continue;
    for (const guard of entry.data.guards || []) if (!found.has(guard.name)) found.set(guard.name, guard);
    // The deciding guard as it was when it decided.
    if (entry.data.evidence) found.set(entry.data.evidence.name, entry.data.evidence);
  }
  return [...found.values()];
}

function guardRow(guard) {
  const interval = guard.lower === null && guard.upper === null ? "–"
    : `${short(guard.lower)} to ${short(guard.upper)}`;
  const proof = guard.evidence === null || guard.evidence === undefined ? "–"
    : `${short(guard.evidence)} of ${short(guard.threshold)}`;
  return el("tr", {},
    el("td", { textContent: guard.name }),
    el("td", {}, chip(guard.verdict, TONE_OF_VERDICT[guard.verdict])),
    el("td", { className: "number", textContent: short(guard.estimate) }),
    el("td", { className: "number", textContent: interval }),
    el("td", { className: "number", textContent: short(guard.limit) }),
    el("td", { className: "number", textContent: short(guard.stable_estimate) }),
    el("td", { className: "number", textContent: proof }),
    el("td", { className: "number", textContent: count(guard.n) }));
}

function guardTable(guards) {
  const heads = ["Guard", "Verdict", "Estimate", "Interval", "Limit", "Stable", "Evidence", "Events"];
  const head = el("tr", {}, ...heads.map((text, at) =>
    el("th", { scope: "col", className: at > 1 ? "number" : "", textContent: text })));
  return el("div", { className: "scroll" },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...guards.map(guardRow))));
}

function timelineRow(entry) {
  const at = new Date(entry.at);
  const clock = el("time", { dateTime: at.toISOString(), title: at.toLocaleString(),
    textContent: at.toLocaleTimeString([], { hour12: false }) });
  const word = WORD_OF_ENTRY[entry.kind] || entry.kind;
  const tone = entry.kind === "receipt"
    ? (["applied", "already_there"].includes(entry.reason) ? "pass" : "breach") : TONE_OF_ENTRY[entry.kind];
  return el("li", { "data-tone": tone }, clock,
    el("div", {}, el("b", { textContent: word }), el("p", { textContent: entry.text })));
}

function pendingCommand(incident) {
  if (incident.state !== "proposed") return null;
  const proposed = incident.entries.filter((entry) => entry.kind === "proposed").pop();
  return proposed ? proposed.data.command_id : null;
}

// By fetch, since a link cannot send a token.
function reportButton(incident) {
  const button = el("button", { type: "button", className: "quiet", textContent: "Save the post-mortem" });
  button.addEventListener("click", async () => {
    const headers = token ? { Authorization: "Bearer " + token } : {};
    const reply = await fetch(`/v1/incidents/${incident.incident_id}/report`, { headers });
    if (!reply.ok) return;
    const address = URL.createObjectURL(await reply.blob());
    el("a", { href: address, download: `incident-${incident.incident_id.slice(0, 12)}.html` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  return button;
}

function renderDetail(incident) {
  const guards = guardsOf(incident);
  const pending = pendingCommand(incident);
  byId("detail-body").replaceChildren(...[
    el("h2", { id: "detail-title", textContent: title(incident) }),
    el("p", {}, chip(WORD_OF_STATE[incident.state] || incident.state, TONE_OF_STATE[incident.state])),
    el("p", { textContent: incident.text }),
    pending ? el("p", {}, "To answer, type ", el("code", { textContent: `rollbackd approve ${pending}` }),
      " or ", el("code", { textContent: `rollbackd reject ${pending}` })) : null,
    guards.length ? el("h3", { textContent: "What the guards saw" }) : null,
    guards.length ? guardTable(guards) : null,
    el("h3", { textContent: "What happened" }),
    el("ol", { className: "timeline" }, ...incident.entries.map(timelineRow)),
    el("p", { className: "soft" }, "Incident ", el("code", { textContent: incident.incident_id }), " ",
      reportButton(incident)),
  ].filter(Boolean));
}

async function showIncident() {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("incident");
  const dialog = byId("detail");
  shownIncident = wanted;
  if (!wanted) {
    if (dialog.open) dialog.close();
    return;
  }
  try {
    renderDetail(await get("/v1/incidents/" + encodeURIComponent(wanted)));
  } catch (fault) {
    byId("detail-body").replaceChildren(el("p", { textContent: fault.message }));
  }
  if (!dialog.open) dialog.showModal();
}

// ---- news from the server

async function get(path) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const reply = await fetch(path, { headers });
  const body = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(body.error || "status " + reply.status), { status: reply.status });
  return body;
}

function setLive(state, text) {
  byId("live").dataset.state = state;
  byId("live").firstElementChild.textContent = text;
}

function take(kind, value) {
  if (kind === "model") {
    models.set(value.model, value);
    modelMoved(value.model);
  } else if (kind === "incident") {
    incidents.set(value.incident_id, value);
    if (shownIncident && value.incident_id.startsWith(shownIncident)) showIncident();
  } else if (kind === "holds") {
    holds = value;
  }
  render();
}

async function poll() {
  try {
    const [fleet, log, held] = await Promise.all(
      [get("/v1/models"), get("/v1/incidents"), get("/v1/holds")]);
    models.clear();
    for (const model of fleet.models) {
      models.set(model.model, model);
      modelMoved(model.model);
    }
    for (const incident of log.incidents) {
      const known = incidents.get(incident.incident_id);
      if (!known || known.updated_at !== incident.updated_at) take("incident", incident);
    }
    take("holds", held.holds);
    setLive("live", "Live");
    byId("sign-in").hidden = true;
    return true;
  } catch (fault) {
    if (fault.status === 401 || fault.status === 403) {
      sessionStorage.removeItem("token");
      byId("sign-in-fault").textContent = token ? fault.message : "";
      byId("sign-in").hidden = false;
      byId("summary").textContent = "";
      setLive("waiting", "Not signed in");
      return false;
    }
    setLive("lost", "No connection");
    return true;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function pollForEver() {
  while (await poll()) await pause(2000);
}

function listen() {
  const stream = new EventSource("/v1/stream");
  let ready = false;
  for (const kind of ["model", "incident", "holds"]) {
    stream.addEventListener(kind, (event) => take(kind, JSON.parse(event.data)));
  }
  stream.addEventListener("ready", (event) => {
    ready = true;
    skewMs = JSON.parse(event.data).now - Date.now();
    setLive("live", "Live");
    render();
  });
  stream.addEventListener("error", () => {
    setLive("lost", "No connection");
    // A proxy that does not let streams through, or a server that takes no more: ask instead.
    if (!ready || stream.readyState === EventSource.CLOSED) {
      stream.close();
      pollForEver();
    }
  });
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  sessionStorage.setItem("token", token);
  pollForEver();
});
byId("detail").addEventListener("close", () => {
  if (location.hash) history.replaceState(null, "", location.pathname);
  shownIncident = null;
});
byId("detail").addEventListener("click", (event) => {
  if (event.target === byId("detail")) byId("detail").close();
});
addEventListener("hashchange", showIncident);

async function begin() {
  // A visit of seconds (a check, a picture) is asked for and holds no stream open.
  for (let asked = 0; asked < 15; asked += 1) {
    // Without a token, or with a wrong one: signing in goes on from there.
    if (!(await poll())) return;
    await pause(1000);
  }
  // An EventSource cannot send a token, so with one the page goes on asking.
  if (token) pollForEver();
  else listen();
}

// After model.js, which this calls.
addEventListener("DOMContentLoaded", () => {
  begin();
  showIncident();
});
