"use strict";
// What all parts use: the data as rows, what is filtered, how things are written. Text only ever becomes textContent.

const STATES = ["PENDING", "RUNNING", "COMPLETED", "FAILED"];
const byId = (id) => document.getElementById(id);
const inOrder = new Intl.Collator("en", { numeric: true }).compare;

function make(tag, kind, text, ...inside) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...inside);
  return made;
}

// The columns of the data as a list of objects.
function rowsOf(columns, words, worded) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, i) => {
    const row = { i };
    for (const name of names) row[name] = worded.has(name) ? words[columns[name][i]] : columns[name][i];
    return row;
  });
}

const TASK_WORDS = new Set(["state", "stage", "reason", "detail"]);
const ATTEMPT_WORDS = new Set(["state", "reason", "detail", "profile", "node"]);

// The run as the rest of the page wants it. Times are milliseconds after `zero`.
function modelOf(data) {
  const model = { ...data, now: Date.parse(data.made) - data.zero };
  model.tasks = rowsOf(data.tasks, data.words, TASK_WORDS);
  model.attempts = rowsOf(data.attempts, data.words, ATTEMPT_WORDS);
  for (const one of model.attempts) {
    const task = model.tasks[one.task];
    one.name = task.name;
    if (one.job === "=") one.job = `${data.run}/${one.name}/${one.attempt}`;
    one.begin = one.requested ?? one.submitted ?? one.started;
    const end = one.ended ?? one.recorded ?? model.now;
    one.waited = one.begin === null ? null : Math.max(0, (one.started ?? end) - one.begin);
    one.ran = one.started === null ? null : Math.max(0, end - one.started);
    one.words = `${one.name} ${one.node} ${one.job} ${one.reason} ${one.detail} ${one.profile}`.toLowerCase();
    (task.attempts ??= []).push(one);
  }
  model.tasks.forEach((task, i) => {
    const last = task.last < 0 ? null : model.attempts[task.last];
    task.needs = data.edges[i];
    task.node = last?.node ?? "";
    task.job = last?.job ?? "";
    task.profile = last?.profile ?? "";
    task.exit = last?.exit ?? null;
    task.waited = last?.waited ?? null;
    task.ran = last?.ran ?? null;
    task.words = `${task.name} ${task.node} ${task.job} ${task.reason} ${task.detail} ${task.profile}`.toLowerCase();
  });
  return model;
}

const chosen = { text: "", states: new Set(STATES), reason: "", profile: "", task: null };

// Marks the rows that fit what is chosen.
function sift(model) {
  const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) =>
    chosen.states.has(row.state) &&
    (!chosen.reason || row.reason === chosen.reason) &&
    (!chosen.profile || (row.profile || "-") === chosen.profile) &&
    words.every((word) => row.words.includes(word));
  for (const row of model.tasks) row.on = fits(row);
  for (const row of model.attempts) row.on = fits(row);
}

function duration(ms) {
  if (ms === null || ms === undefined) return "";
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
  if (s < 86400) return `${Math.floor(s / 3600)}:${two((s / 60) % 60)}:${two(s % 60)}`;
  return `${Math.floor(s / 86400)} d ${two((s / 3600) % 24)}:${two((s / 60) % 60)}`;
}

function moment(model, ms) {
  if (ms === null || ms === undefined) return "";
  return new Date(model.zero + ms).toISOString().slice(0, 19).replace("T", " ") + "Z";
}

const number = (n) => n.toLocaleString("en");
const stateOf = (row) => row.state + (row.stage ? ` (${row.stage})` : "");

function why(row) {
  const code = row.exit === null || row.exit === 0 ? "" : typeof row.exit === "number" ? `exit code ${row.exit}` : row.exit;
  return [row.reason, code, row.detail].filter(Boolean).join(", ");
}

// Colours of the style sheet, looked up again when light and dark change.
const colours = new Map();
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

function tell(event, text) {
  const tip = byId("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY + 16 + height > innerHeight ? event.clientY - height - 8 : event.clientY + 16)}px`;
}

// Give a canvas the pixels of the screen, cleared, with coordinates in CSS pixels.
function brush(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, dense = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  const on = canvas.getContext("2d");
  on.setTransform(dense, 0, 0, dense, 0, 0);
  on.clearRect(0, 0, width, height);
  on.font = "12px system-ui, sans-serif";
  return { on, width, height };
}

// Several changes before the next frame are drawn once.
function drawnOnce(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}
