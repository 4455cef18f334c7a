// One model over time: canary against stable with its band, evidence against threshold, shares.
// Drawn by uPlot (vendor/, MIT). Like everywhere here, text from outside goes in by textContent.
"use strict";

const HOURS = [1 / 12, 1, 6, 24, 24 * 7];
const WORD_OF_HOURS = ["5 min", "1 h", "6 h", "1 day", "1 week"];
let shownModel = null;
let shownHours = HOURS[0];
let drawnAt = 0;
let charts = [];

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seconds = (times) => times.map((at) => at / 1000);
const known = (column) => column.some((value) => value !== null);
const asPercent = (value) => (value === null || value === undefined ? "–" : percent(value));

function shownAs(signal) {
  if (signal === "latency_ms") return (value) => (value === null ? "–" : `${short(value)} ms`);
  const share = /rate$|^accuracy$|^error$|precision|recall|share|coverage|fp_per/.test(signal);
  return share ? asPercent : (value) => short(value);
}

// Marks of incidents, drawn over every chart as thin lines with their word.
function marker(marks) {
  return { hooks: { draw: [(plot) => {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = ink("--soft");
    ctx.fillStyle = ink("--soft");
    ctx.setLineDash([3, 4]);
    ctx.font = `${11 * devicePixelRatio}px system-ui`;
    marks.forEach((mark, at) => {
      const x = plot.valToPos(mark.at / 1000, "x", true);
      if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) return;
      ctx.beginPath();
      ctx.moveTo(x, plot.bbox.top);
      ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      ctx.stroke();
      const late = x > plot.bbox.left + plot.bbox.width / 2;
      ctx.textAlign = late ? "right" : "left";
      ctx.fillText(WORD_OF_ENTRY[mark.kind] || mark.kind, x + (late ? -4 : 4),
        plot.bbox.top + (12 + 13 * (at % 4)) * devicePixelRatio);
    });
    ctx.restore();
  }] } };
}

function chart(holder, words, data, series, bands, marks, format) {
  const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false } };
  const box = el("div", { className: "chart" }, el("h3", { textContent: words }));
  holder.append(box);
  charts.push(new uPlot({
    width: Math.max(280, holder.clientWidth), height: 190, bands, plugins: [marker(marks)],
    cursor: { drag: { x: true, y: false } }, legend: { live: true },
    scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
    axes: [axis, { ...axis, size: 64, values: (_, values) => values.map(format) }],
    series: [{ value: (_, at) => (at === null ? "–" : new Date(at * 1000).toLocaleTimeString()) },
      ...series.map((one) => ({ width: 2, points: { show: data[0].length < 3 }, spanGaps: true,
        value: (_, value) => format(value), ...one }))],
  }, data, box));
}

function guardCharts(holder, one, stable, guard, marks) {
  const format = shownAs(guard.signal);
  const times = seconds(one.at);
  if (known(guard.estimate)) {
    const against = known(guard.stable_estimate) ? guard.stable_estimate : guard.limit;
    const name = known(guard.stable_estimate) ? stable || "stable" : "limit";
    const faint = { stroke: "transparent", width: 0 };
    chart(holder, `${guard.name} of ${one.version}`,
      [times, guard.estimate, guard.upper, guard.lower, against],
      [{ label: one.version, stroke: ink("--canary") }, { label: "upper", ...faint },
        { label: "lower", ...faint },
        { label: name, stroke: ink("--stable"), dash: known(guard.stable_estimate) ? [] : [6, 4] }],
      [{ series: [2, 3], fill: ink("--band") }], marks, format);
  }
  if (known(guard.evidence)) {
    chart(holder, `Evidence of ${guard.name} (nats; the alarm is at the dashed line)`,
      [times, guard.evidence, guard.threshold],
      [{ label: "evidence", stroke: ink("--canary") },
        { label: "threshold", stroke: ink("--soft"), dash: [6, 4] }], [], marks, short);
  }
}

// What is nearest to its alarm stands first.
function nearness(guard) {
  const at = guard.evidence.length - 1;
  const [proof, needed] = [guard.evidence[at], guard.threshold[at]];
  return proof === null || !needed ? -Infinity : proof / needed;
}

// Versions have times of their own: put them on one axis.
function together(versions, column) {
  return uPlot.join(versions.map((one) => [seconds(one.at), one[column]]));
}

function shareChart(holder, versions, column, words, marks) {
  const told = versions.filter((one) => known(one[column]));
  if (!told.length) return;
  chart(holder, words, together(told, column), told.map((one) => ({ label: one.version,
    stroke: ink(one.role === "canary" ? "--canary" : one.role === "stable" ? "--stable" : "--soft") })),
    [], marks, asPercent);
}

function renderModel(history) {
  const holder = byId("model-charts");
  for (const drawn of charts) drawn.destroy();
  charts = [];
  holder.replaceChildren();
  const versions = history.versions;
  byId("model-empty").hidden = versions.length > 0;
  if (!versions.length) return;
  const canary = versions.filter((one) => one.role === "canary").pop();
  const stable = versions.filter((one) => one.role === "stable").pop();
  const told = canary || stable || versions[0];
  shareChart(holder, versions, "share", "Share of traffic", history.marks);
  for (const guard of [...told.guards].sort((a, b) => nearness(b) - nearness(a))) guardCharts(holder, told, stable && stable.version, guard, history.marks);
  shareChart(holder, versions, "coverage", "Share of predictions with a label", history.marks);
}

async function drawModel() {
  if (!shownModel) return;
  drawnAt = Date.now();
  const wanted = shownModel;
  try {
    const history = await get(`/v1/history/${encodeURIComponent(wanted)}?hours=${shownHours}`);
    if (wanted === shownModel) renderModel(history);
    byId("model-fault").textContent = "";
  } catch (fault) {
    byId("model-fault").textContent = fault.message;
  }
}

function showModel() {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("model");
  const dialog = byId("model");
  if (wanted === shownModel && dialog.open) return;
  shownModel = wanted;
  if (!wanted) {
    if (dialog.open) dialog.close();
    return;
  }
  byId("model-title").textContent = wanted;
  byId("model-spans").replaceChildren(...HOURS.map((hours, at) => {
    const button = el("button", { type: "button", textContent: WORD_OF_HOURS[at] });
    button.setAttribute("aria-pressed", String(hours === shownHours));
    button.addEventListener("click", () => {
      shownHours = hours;
      for (const other of byId("model-spans").children) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      drawModel();
    });
    return button;
  }));
  if (!dialog.open) dialog.showModal();
  drawModel();
}

// Live while it is open, at most every two seconds.
function modelMoved(name) {
  if (name === shownModel && Date.now() - drawnAt > 2000) drawModel();
}

byId("model").addEventListener("close", () => {
  if (location.hash) history.replaceState(null, "", location.pathname);
  shownModel = null;
});
byId("model").addEventListener("click", (event) => {
  if (event.target === byId("model")) byId("model").close();
});
addEventListener("hashchange", showModel);
addEventListener("resize", () => { if (shownModel && Date.now() - drawnAt > 300) drawModel(); });
showModel();
