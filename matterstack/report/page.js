// The page itself: puts the parts together, filters, shows one task, and asks for news where there is a server.

const MORE = 20; // failures shown at a time
let model = null, failuresShown = MORE;

const pictures = { graph: graph(byId("dag"), openTask), gantt: gantt(byId("gantt"), openTask), counts: countsOverTime(byId("counts")) };
const tables = {
  tasks: table(byId("tasks"), TASK_COLUMNS, { open: (row) => openTask(row.i) }),
  attempts: table(byId("attempts"), ATTEMPT_COLUMNS, { open: (row) => openTask(row.task) }),
  usage: table(byId("usage"), USAGE_COLUMNS),
};

function load(data) {
  const open = chosen.task === null ? null : model.tasks[chosen.task].name;
  model = modelOf(data);
  const again = open === null ? -1 : model.tasks.findIndex((task) => task.name === open);
  chosen.task = again < 0 ? null : again;
  showFacts();
  options(byId("reason"), "all reasons", model.tasks.concat(model.attempts).map((row) => row.reason), chosen.reason);
  options(byId("profile"), "all profiles", model.attempts.map((row) => row.profile || "-"), chosen.profile);
  pictures.graph.load(model);
  pictures.gantt.load(model);
  pictures.counts.load(model);
  tables.usage.show(usageOf(model));
  show();
}

function showFacts() {
  byId("title").textContent = model.name && model.name !== model.run ? `${model.run} (${model.name})` : model.run;
  const left = model.counts[0] + model.counts[1];
  const now = model.stopped !== null ? (left ? model.why : "finished") : "not over when this was made";
  const length = duration((model.stopped ?? model.now) - (model.started ?? 0));
  byId("facts").textContent = [`begun ${moment(model, 0)}`, model.host && `driven from ${model.host}`, now, model.started === null ? "" : `last driven for ${length}`].filter(Boolean).join(" · ");
  const total = model.counts.reduce((a, b) => a + b, 0);
  byId("tiles").replaceChildren(...STATES.map((state, i) => make("div", `tile ${state}`, null, make("b", "", number(model.counts[i])), make("small", "", state))));
  byId("progress").replaceChildren(...["COMPLETED", "FAILED", "RUNNING"].map((state) => {
    const part = make("i", state);
    part.style.width = `${(100 * model.counts[STATES.indexOf(state)]) / Math.max(1, total)}%`;
    return part;
  }));
  byId("progress").setAttribute("aria-label", `${model.counts[2]} of ${total} tasks COMPLETED, ${model.counts[3]} FAILED`);
  byId("made").textContent = `Made by MatterStack ${model.version} at ${model.made.replace("T", " ").replace("+00:00", "Z")}.`;
}

function options(select, all, values, kept) {
  const found = [...new Set(values)].filter(Boolean).sort(inOrder);
  select.replaceChildren(new Option(all, ""), ...found.map((value) => new Option(value, value)));
  select.value = found.includes(kept) ? kept : "";
  select.hidden = found.length < 2 && !kept;
}

// What is filtered, everywhere.
function show() {
  sift(model);
  const tasks = model.tasks.filter((row) => row.on), attempts = model.attempts.filter((row) => row.on);
  tables.tasks.show(tasks);
  tables.attempts.show(attempts);
  pictures.graph.draw();
  pictures.gantt.sift();
  const of = (found, all) => (found.length === all.length ? number(all.length) : `${number(found.length)} of ${number(all.length)}`);
  byId("tasks-count").textContent = of(tasks, model.tasks);
  byId("attempts-count").textContent = of(attempts, model.attempts);
  byId("found").textContent = `${of(tasks, model.tasks)} tasks`;
  for (const button of byId("states").children) button.setAttribute("aria-pressed", chosen.states.has(button.dataset.state));
  showFailures();
  showTask();
}

function showFailures() {
  const all = model.attempts.filter((one) => one.state === "FAILED" && one.on), by = new Map();
  for (const one of all) by.set(one.reason, (by.get(one.reason) ?? 0) + 1);
  byId("failures-count").textContent = number(all.length);
  byId("reasons").replaceChildren(...[...by].sort((a, b) => b[1] - a[1]).map(([reason, count]) => {
    const button = make("button", "", `${reason} ${number(count)}`);
    button.type = "button";
    button.onclick = () => { byId("reason").value = chosen.reason = reason; byId("reason").hidden = false; show(); };
    return button;
  }));
  const logged = model.failures.filter((one) => model.attempts[one.attempt].on);
  const opened = new Set([...byId("failures").querySelectorAll("details[open]")].map((one) => one.dataset.key));
  byId("failures").replaceChildren(...logged.slice(0, failuresShown).map((one) => failure(one, opened)));
  if (!logged.length) byId("failures").textContent = all.length ? "Their logs are not here." : "None.";
  byId("failures-more").hidden = logged.length <= failuresShown;
}

function failure(one, opened) {
  const attempt = model.attempts[one.attempt], key = `${attempt.name}/${attempt.attempt}`;
  const made = make("details", "", null, make("summary", "", null, make("span", "dot FAILED"), `${attempt.name} `, make("small", "", `attempt ${attempt.attempt}: ${why(attempt)}`)));
  made.dataset.key = key;
  made.open = opened.has(key);
  made.append(...logOf(one));
  return made;
}

function logOf(one) {
  const parts = Object.entries(one.logs).flatMap(([stream, lines]) => [make("small", "", `last lines of ${stream}`), make("pre", "", lines.join("\n"))]);
  if (!parts.length) parts.push(make("p", "", one.where ? "It wrote nothing." : "What it wrote is not on this machine; `matterstack logs` may fetch it."));
  if (one.where) parts.push(make("small", "", `in ${one.where}`));
  return parts;
}

function openTask(i) {
  chosen.task = i;
  showTask();
  pictures.graph.draw();
  byId("task").scrollIntoView({ block: "nearest" });
}

function showTask() {
  const panel = byId("task"), task = chosen.task === null ? null : model.tasks[chosen.task];
  panel.hidden = !task;
  if (!task) return;
  const close = make("button", "", "Close");
  close.type = "button";
  close.onclick = () => { chosen.task = null; panel.hidden = true; pictures.graph.draw(); };
  const list = make("dl"), row = (name, ...inside) => list.append(make("dt", "", name), make("dd", "", null, ...inside));
  row("state", stateOf(task));
  if (why(task)) row("why", why(task));
  if (task.needs.length) row("waits for", ...links(task.needs));
  const after = model.tasks.filter((other) => other.needs.includes(task.i)).map((other) => other.i);
  if (after.length) row("before", ...links(after));
  for (const one of task.attempts ?? []) {
    row(`attempt ${one.attempt}`, [one.state, why(one), one.job && `job ${one.job}`, one.node && `on ${one.node}`, one.submitted !== null && `submitted ${moment(model, one.submitted)}`, one.waited !== null && `waited ${duration(one.waited)}`, one.ran !== null && `ran ${duration(one.ran)}`].filter(Boolean).join(", "));
  }
  panel.replaceChildren(make("h2", "", task.name), list);
  for (const one of model.failures) if (model.attempts[one.attempt].task === task.i) panel.append(...logOf(one));
  panel.append(make("div", "tools", null, close));
}

function links(places) {
  const made = places.slice(0, 30).flatMap((place) => {
    const button = make("button", "", model.tasks[place].name);
    button.type = "button";
    button.onclick = () => openTask(place);
    return [button, " "];
  });
  if (places.length > 30) made.push(`and ${number(places.length - 30)} more`);
  return made;
}

// ---- what the reader chooses ----

let typed = 0;
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("text").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(() => { chosen.text = byId("text").value; show(); }, model.tasks.length > 2000 ? 120 : 0);
});
for (const name of ["reason", "profile"]) byId(name).addEventListener("change", () => { chosen[name] = byId(name).value; show(); });
byId("states").append(...STATES.map((state) => {
  const button = make("button", "", null, make("span", `dot ${state}`), state);
  button.type = "button";
  button.dataset.state = state;
  button.onclick = () => {
    if (!chosen.states.delete(state)) chosen.states.add(state);
    show();
  };
  return button;
}));
byId("filters").addEventListener("reset", () => {
  clearTimeout(typed);
  Object.assign(chosen, { text: "", states: new Set(STATES), reason: "", profile: "" });
  setTimeout(show); // after the fields are empty
});
byId("failures-more").onclick = () => { failuresShown += MORE; showFailures(); };
const redraw = () => { colours.clear(); Object.values(pictures).forEach((picture) => picture.draw()); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);

load(JSON.parse(byId("data").textContent));

// ---- news ----

async function follow() {
  let position = model.position, trouble = 0;
  for (;;) {
    try {
      const answer = await fetch(`data.json?after=${position}`, { cache: "no-store" });
      if (!answer.ok && answer.status !== 204) throw new Error(`the server answered ${answer.status}`);
      if (answer.status === 200) {
        const data = await answer.json();
        position = data.position;
        load(data);
      }
      trouble = 0;
      byId("trouble").hidden = true;
    } catch (error) {
      trouble = Math.min(trouble + 1, 6);
      byId("trouble").hidden = false;
      byId("trouble").textContent = `No news: ${error.message}. What is shown may be old; it is tried again by itself.`;
    }
    await new Promise((go) => setTimeout(go, 500 * 2 ** trouble));
  }
}
if (document.documentElement.dataset.live) follow();
