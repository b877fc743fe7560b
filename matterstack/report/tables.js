// Tables that sort; of the rows, only those in sight are in the document.

const ROW = 28; // pixels, as the style sheet has it
const HIGH = 480; // and the most that is in sight of a table, which has no height before it has rows
const AROUND = 12; // rows kept above and below those in sight

function table(host, columns, { open = null, sorted = null } = {}) {
  let rows = [], order = sorted, shown = [-1, -1];
  const head = make("tr"), body = make("tbody"), above = spacer(), under = spacer();
  const whole = make("table", "", null, make("thead", "", null, head), body);
  const heads = columns.map((column, i) => {
    const button = make("button", "", column.title);
    button.type = "button";
    button.onclick = () => { order = order?.[0] === i ? [i, -order[1]] : [i, column.number ? -1 : 1]; sort(); };
    const cell = make("th", column.number ? "number" : "", null, button);
    if (column.width) cell.style.width = `${column.width}px`;
    cell.scope = "col";
    head.append(cell);
    return cell;
  });
  host.replaceChildren(whole);

  function spacer() {
    const row = make("tr", "space", null, make("td"));
    row.firstChild.colSpan = columns.length;
    row.setAttribute("aria-hidden", "true");
    return row;
  }
  function sort() {
    heads.forEach((cell, i) => cell.setAttribute("aria-sort", order?.[0] !== i ? "none" : order[1] > 0 ? "ascending" : "descending"));
    heads.forEach((cell, i) => { cell.firstChild.textContent = columns[i].title + (order?.[0] !== i ? "" : order[1] > 0 ? " ▲" : " ▼"); });
    if (order) {
      const [i, way] = order, value = columns[i].by ?? columns[i].text;
      const empty = (v) => v === null || v === undefined || v === "";
      rows = rows.map((row) => [value(row), row]).sort(([a, x], [b, y]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b) || x.i - y.i; // what is not there comes last, either way
        const by = typeof a === "number" && typeof b === "number" ? a - b : inOrder(String(a), String(b));
        return way * by || x.i - y.i;
      }).map(([, row]) => row);
    }
    fill(true);
  }
  function fill(anew) {
    const top = Math.min(host.scrollTop, rows.length * ROW); // fewer rows than before may end above it
    const first = Math.max(0, Math.floor((top - HIGH) / ROW) - AROUND);
    const last = Math.min(rows.length, Math.ceil((top + Math.max(host.clientHeight, HIGH)) / ROW) + AROUND);
    if (!anew && first === shown[0] && last === shown[1]) return;
    shown = [first, last];
    above.firstChild.style.height = `${first * ROW}px`;
    under.firstChild.style.height = `${(rows.length - last) * ROW}px`;
    body.replaceChildren(above, ...rows.slice(first, last).map((row, at) => line(row, first + at)), under);
    whole.setAttribute("aria-rowcount", rows.length + 1);
  }
  function line(row, at) {
    const made = make("tr");
    made.setAttribute("aria-rowindex", at + 2);
    for (const column of columns) {
      const text = column.text(row) ?? "";
      const cell = make("td", column.number ? "number" : "");
      if (column.opens && open) {
        const button = make("button", "", text);
        button.type = "button";
        button.onclick = () => open(row);
        cell.append(button);
      } else if (column.dot) {
        cell.append(make("span", `dot ${column.dot(row)}`), text);
      } else cell.textContent = text;
      if (String(text).length > 12) cell.title = text;
      made.append(cell);
    }
    return made;
  }
  host.addEventListener("scroll", drawnOnce(() => fill(false)));
  return { show(next) { rows = next.slice(); sort(); } };
}

const state = { title: "State", width: 150, text: stateOf, dot: (row) => row.state };
const TASK_COLUMNS = [
  { title: "Task", text: (row) => row.name, opens: true },
  state,
  { title: "Attempt", width: 90, text: (row) => row.attempt, number: true },
  { title: "Waited", width: 90, text: (row) => duration(row.waited), by: (row) => row.waited, number: true },
  { title: "Ran", width: 90, text: (row) => duration(row.ran), by: (row) => row.ran, number: true },
  { title: "Node", width: 100, text: (row) => row.node },
  { title: "Job", text: (row) => row.job },
  { title: "Why", text: why },
];
const ATTEMPT_COLUMNS = [
  { title: "Task", text: (row) => row.name, opens: true },
  { title: "Attempt", width: 90, text: (row) => row.attempt, number: true },
  state,
  { title: "Submitted", width: 180, text: (row) => moment(model, row.submitted), by: (row) => row.submitted },
  { title: "Waited", width: 90, text: (row) => duration(row.waited), by: (row) => row.waited, number: true },
  { title: "Ran", width: 90, text: (row) => duration(row.ran), by: (row) => row.ran, number: true },
  { title: "Profile", width: 90, text: (row) => row.profile || "-" },
  { title: "Node", width: 100, text: (row) => row.node },
  { title: "Job", text: (row) => row.job },
  { title: "Why", text: why },
];
const USAGE_COLUMNS = [
  { title: "Profile", text: (row) => row.profile || "-" },
  { title: "State", width: 150, text: (row) => row.state, dot: (row) => row.state },
  { title: "Attempts", text: (row) => number(row.attempts), by: (row) => row.attempts, number: true },
  { title: "Ran together", text: (row) => duration(row.together), by: (row) => row.together, number: true },
  { title: "Median run", text: (row) => duration(row.ran), by: (row) => row.ran, number: true },
  { title: "Median wait", text: (row) => duration(row.waited), by: (row) => row.waited, number: true },
  { title: "Longest wait", text: (row) => duration(row.longest), by: (row) => row.longest, number: true },
];

function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : null;
}

function usageOf(model) {
  const groups = new Map();
  for (const one of model.attempts) {
    const key = `${one.profile}\n${one.state}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(one);
  }
  return model.usage.map(([profile, state, attempts, together], i) => {
    const of = groups.get(`${profile}\n${state}`) ?? [], waits = of.map((one) => one.waited);
    return { i, profile, state, attempts, together: together * 1000, ran: median(of.map((one) => one.ran)), waited: median(waits), longest: waits.reduce((a, b) => Math.max(a ?? 0, b ?? 0), null) };
  });
}
