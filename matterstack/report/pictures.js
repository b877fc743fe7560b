// Pictures on canvases: the tasks as a graph, attempts as lines in time, counts over time.

// ---- the graph: tasks in columns by how long a chain they end, packed into a grid where there are many ----

const GAP = 1.2; // columns of room between two layers
const MANY = 150; // above this, tasks are squares without names

function layersOf(tasks) {
  const depth = new Array(tasks.length).fill(0), open = tasks.map((task) => task.needs.length);
  const after = tasks.map(() => []);
  tasks.forEach((task, i) => task.needs.forEach((need) => after[need].push(i)));
  const ready = open.flatMap((n, i) => (n === 0 ? [i] : []));
  for (let at = 0; at < ready.length; at++) {
    for (const next of after[ready[at]]) {
      depth[next] = Math.max(depth[next], depth[ready[at]] + 1);
      if (--open[next] === 0) ready.push(next);
    }
  }
  const layers = [];
  depth.forEach((d, i) => (layers[d] ??= []).push(i));
  return { layers: Array.from(layers, (layer) => layer ?? []), after };
}

function columnsWith(layers, rows) {
  return layers.reduce((sum, layer) => sum + Math.ceil(layer.length / rows), 0) + GAP * (layers.length - 1);
}

// As many rows as give the largest cells in a picture of this shape.
function bestRows(layers, shape) {
  const most = Math.max(1, ...layers.map((layer) => layer.length));
  let best = most, size = 0;
  for (let rows = 1; rows <= most; rows = Math.max(rows + 1, Math.floor(rows * 1.1))) {
    const cell = Math.min(shape / columnsWith(layers, rows), 1 / rows);
    if (cell > size) { size = cell; best = rows; }
  }
  return best;
}

function placed(tasks, shape) {
  const { layers, after } = layersOf(tasks);
  const wide = tasks.length <= MANY ? 5 : 1; // a cell's width by its height
  const rows = bestRows(layers, shape / wide);
  const places = new Array(tasks.length), among = new Float64Array(tasks.length);
  let column = 0;
  for (const layer of layers) {
    // Next to what they wait for: by the middle of the places of that.
    const middle = (i) => tasks[i].needs.length ? tasks[i].needs.reduce((sum, need) => sum + among[need], 0) / tasks[i].needs.length : 0;
    const order = layer.map((i) => [middle(i), i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const high = Math.min(rows, layer.length), columns = Math.ceil(layer.length / rows);
    order.forEach(([, i], at) => {
      among[i] = layer.length > 1 ? at / (layer.length - 1) : 0.5;
      // Filled line by line, so that neighbours in order are neighbours in height.
      places[i] = { x: (column + (at % columns)) * wide, y: (rows - high) / 2 + Math.floor(at / columns) };
    });
    column += columns + GAP;
  }
  return { places, after, wide, width: Math.max(1, column - GAP) * wide, height: rows };
}

function graph(canvas, open) {
  let model, drawing, shape = 0, hover = null, view = null;
  const draw = drawnOnce(() => {
    if (!model) return;
    const { on, width, height } = brush(canvas);
    if (!width) return;
    if (!drawing || Math.abs(Math.log(width / height / shape)) > 0.3) {
      shape = width / height;
      drawing = placed(model.tasks, shape);
      view = null;
    }
    view ??= fitted(width, height);
    const { places, wide } = drawing, s = view.scale, inset = Math.max(0.5, s * 0.08);
    const w = s * wide - 2 * inset - (wide > 1 ? s * 0.6 : 0), h = s - 2 * inset;
    const x = (i) => places[i].x * s + view.x + inset, y = (i) => places[i].y * s + view.y + inset;
    const edge = (from, to) => {
      const x1 = x(from) + w, y1 = y(from) + h / 2, x2 = x(to), y2 = y(to) + h / 2, bend = Math.max(6, (x2 - x1) / 2);
      on.moveTo(x1, y1);
      on.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
    };
    on.strokeStyle = colour("edge");
    on.globalAlpha = Math.min(0.8, Math.max(0.06, 120 / (drawing.edges ??= model.edges.reduce((sum, needs) => sum + needs.length, 0))));
    on.beginPath();
    model.tasks.forEach((task) => task.needs.forEach((need) => edge(need, task.i)));
    on.stroke();
    const named = s >= 13 && w >= 40;
    for (const task of model.tasks) {
      const left = x(task.i), top = y(task.i);
      if (left + w < 0 || top + h < 0 || left > width || top > height) continue;
      on.globalAlpha = task.on ? 1 : 0.15;
      on.fillStyle = colour(task.state);
      on.fillRect(left, top, w, h);
      if (task.state === "FAILED" && h >= 6 && !named) { // told apart without colours, too
        on.strokeStyle = colour("on-state");
        on.beginPath();
        on.moveTo(left + w * 0.25, top + h * 0.25); on.lineTo(left + w * 0.75, top + h * 0.75);
        on.moveTo(left + w * 0.75, top + h * 0.25); on.lineTo(left + w * 0.25, top + h * 0.75);
        on.stroke();
      }
      if (named) name(on, (task.state === "FAILED" ? "✕ " : "") + task.name, left, top, w, h);
    }
    on.globalAlpha = 1;
    for (const i of new Set([chosen.task, hover])) if (i !== null && places[i]) ring(on, i, edge, x(i), y(i), w, h);
  });
  function fitted(width, height) {
    const scale = Math.min((width - 16) / drawing.width, (height - 16) / drawing.height, 34);
    return { scale, x: (width - drawing.width * scale) / 2, y: (height - drawing.height * scale) / 2 };
  }
  function name(on, text, left, top, w, h) {
    on.save();
    on.beginPath(); on.rect(left + 3, top, w - 6, h); on.clip();
    on.fillStyle = colour("on-state");
    on.textBaseline = "middle";
    on.fillText(text, left + 5, top + h / 2);
    on.restore();
  }
  function ring(on, i, edge, left, top, w, h) {
    on.strokeStyle = colour("mark");
    on.lineWidth = 2;
    on.strokeRect(left - 1, top - 1, w + 2, h + 2);
    on.lineWidth = 1.2;
    on.beginPath();
    model.tasks[i].needs.forEach((need) => edge(need, i));
    drawing.after[i].forEach((next) => edge(i, next));
    on.stroke();
    on.lineWidth = 1;
  }
  function under(event) {
    if (!view) return null;
    const box = canvas.getBoundingClientRect(), s = view.scale;
    const x = (event.clientX - box.left - view.x) / s, y = (event.clientY - box.top - view.y) / s;
    const found = drawing.places.findIndex((p) => x >= p.x && x < p.x + drawing.wide && y >= p.y && y < p.y + 1);
    return found < 0 ? null : found;
  }
  function zoom(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    if (!view) return;
    const scale = Math.min(60, Math.max(0.2, view.scale * by));
    view = { scale, x: x - (x - view.x) * (scale / view.scale), y: y - (y - view.y) * (scale / view.scale) };
    draw();
  }
  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => { dragged = { x: event.clientX, y: event.clientY, far: false }; });
  addEventListener("pointerup", () => { if (dragged && !dragged.far) dragged = null; setTimeout(() => { dragged = null; }); });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged && view && event.buttons) {
      const dx = event.clientX - dragged.x, dy = event.clientY - dragged.y;
      if (!dragged.far && Math.hypot(dx, dy) < 4) return;
      view.x += dx; view.y += dy;
      dragged = { x: event.clientX, y: event.clientY, far: true };
      draw();
      return;
    }
    const now = under(event);
    if (now !== hover) { hover = now; draw(); }
    const task = now === null ? null : model.tasks[now];
    tell(event, task && `${task.name}\n${stateOf(task)}${why(task) ? `\n${why(task)}` : ""}`);
  });
  canvas.addEventListener("pointerleave", (event) => { hover = null; tell(event, ""); draw(); });
  canvas.addEventListener("click", (event) => {
    if (dragged?.far) return;
    const task = under(event);
    if (task !== null) open(task);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  byId("dag-in").onclick = () => zoom(1.4);
  byId("dag-out").onclick = () => zoom(1 / 1.4);
  byId("dag-all").onclick = () => { view = null; draw(); };
  return {
    draw,
    load(next) {
      const same = model && model.tasks.length === next.tasks.length && next.tasks.every((task, i) => task.name === model.tasks[i].name);
      model = next;
      hover = null;
      if (!same) drawing = null;
      const hidden = next.edges_total - next.edges.reduce((sum, needs) => sum + needs.length, 0);
      byId("dag-note").textContent = `${number(next.edges_total)} dependencies` + (hidden ? `, ${number(hidden)} of them not drawn` : "") + "; drag to move, Ctrl and the wheel for size";
      canvas.setAttribute("aria-label", `Graph of ${number(next.tasks.length)} tasks; the table of all tasks has the same`);
      draw();
    },
  };
}

// ---- attempts in time ----

const LINE = 16, AXIS = 22;

function ticks(from, to, width) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 2592000].map((s) => s * 1000);
  const wanted = Math.max(1, (to - from) / Math.max(1, width / 110));
  const step = steps.find((s) => s >= wanted) ?? wanted;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}

function axis(on, from, to, left, width, bottom) {
  on.fillStyle = colour("faint");
  on.strokeStyle = colour("line");
  on.textBaseline = "alphabetic";
  on.beginPath();
  for (const at of ticks(from, to, width)) {
    const x = left + ((at - from) / (to - from)) * width;
    on.moveTo(x, AXIS); on.lineTo(x, bottom);
    on.fillText(at === 0 ? "0" : duration(at), Math.min(x + 2, left + width - 40), 14);
  }
  on.stroke();
}

function spanOf(model) {
  let last = 1000;
  for (const one of model.attempts) last = Math.max(last, one.ended ?? one.recorded ?? (one.begin === null ? 0 : model.now));
  if (model.over_time.length) last = Math.max(last, model.over_time.at(-1)[0]);
  return last;
}

function gantt(canvas, open) {
  const host = byId("gantt-host"), room = byId("gantt-room"), each = byId("gantt-rows");
  let model, rows = [], from = 0, to = 1, whole = 1, hover = null, drag = null;
  const lineHeight = () => each.checked ? LINE : Math.min(LINE, (canvas.clientHeight - AXIS) / Math.max(1, rows.length));
  const draw = drawnOnce(() => {
    if (!model) return;
    const { on, width, height } = brush(canvas), line = lineHeight();
    room.style.height = `${each.checked ? Math.max(height, rows.length * line + AXIS) : height}px`;
    const left = each.checked && width > 500 ? 170 : 0, wide = width - left;
    const x = (ms) => left + ((Math.min(to, Math.max(from, ms)) - from) / (to - from)) * wide;
    axis(on, from, to, left, wide, height);
    const first = each.checked ? Math.floor(host.scrollTop / line) : 0, offset = each.checked ? host.scrollTop : 0;
    on.save();
    on.beginPath(); on.rect(0, AXIS, width, height - AXIS); on.clip();
    for (let at = first; at < rows.length; at++) {
      const one = rows[at], top = AXIS + at * line - offset;
      if (top > height) break;
      const started = one.begin + one.waited, thick = Math.max(0.7, line - (line > 4 ? 2 : 0));
      on.fillStyle = colour("wait");
      on.fillRect(x(one.begin), top, Math.max(0, x(started) - x(one.begin)), thick);
      on.fillStyle = colour(one.state);
      if (started <= to && started + (one.ran ?? 0) >= from) on.fillRect(x(started), top, Math.max(1, x(started + (one.ran ?? 0)) - x(started)), thick);
      if (left) {
        on.fillStyle = colour(at === hover ? "mark" : "ink");
        on.textBaseline = "top";
        on.save(); on.beginPath(); on.rect(0, top - 1, left - 6, line); on.clip();
        on.fillText(one.attempt > 1 ? `${one.name} (${one.attempt})` : one.name, 2, top);
        on.restore();
      }
    }
    on.restore();
  });
  function under(event) {
    const y = event.clientY - canvas.getBoundingClientRect().top - AXIS + (each.checked ? host.scrollTop : 0);
    const at = Math.floor(y / lineHeight());
    return y >= 0 && at < rows.length ? at : null;
  }
  function zoom(by) {
    const middle = (from + to) / 2, half = Math.min(whole, Math.max(1000, (to - from) / by)) / 2;
    slide(middle - half, 2 * half);
  }
  function slide(start, length) {
    from = Math.max(0, Math.min(start, whole - length));
    to = from + length;
    draw();
  }
  function sift() {
    rows = model.attempts.filter((one) => one.on && one.begin !== null).sort((a, b) => a.begin - b.begin || a.i - b.i);
    byId("gantt-note").textContent = `${number(rows.length)} attempts, time since the run was made` + (model.attempts_total > model.attempts.length ? `; only the newest ${number(model.attempts.length)} of ${number(model.attempts_total)} are here` : "");
    canvas.setAttribute("aria-label", `${number(rows.length)} attempts with queue wait and run time; the table of all attempts has the same`);
    draw();
  }
  host.addEventListener("scroll", draw);
  each.onchange = () => { host.scrollTop = 0; draw(); };
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, far: false }; });
  addEventListener("pointerup", () => setTimeout(() => { drag = null; }));
  canvas.addEventListener("pointermove", (event) => {
    if (drag && event.buttons) {
      if (!drag.far && Math.abs(event.clientX - drag.x) < 4) return;
      slide(from - ((event.clientX - drag.x) / canvas.clientWidth) * (to - from), to - from);
      drag = { x: event.clientX, far: true };
      return;
    }
    const at = under(event);
    if (at !== hover) { hover = at; draw(); }
    const one = at === null ? null : rows[at];
    tell(event, one && `${one.name}, attempt ${one.attempt}\n${one.state}${one.reason ? `: ${why(one)}` : ""}\nwaited ${duration(one.waited)}${one.ran === null ? "" : `, ran ${duration(one.ran)}`}${one.node ? `\non ${one.node}` : ""}`);
  });
  canvas.addEventListener("pointerleave", (event) => { hover = null; tell(event, ""); draw(); });
  canvas.addEventListener("click", (event) => {
    const at = drag?.far ? null : under(event);
    if (at !== null) open(rows[at].task);
  });
  byId("gantt-in").onclick = () => zoom(1.6);
  byId("gantt-out").onclick = () => zoom(1 / 1.6);
  byId("gantt-all").onclick = () => slide(0, whole);
  return {
    draw,
    sift,
    load(next) {
      const all = !model || (from === 0 && to === whole), few = !model && next.attempts.length <= 40;
      model = next;
      whole = spanOf(next);
      if (few) each.checked = true;
      if (all) { from = 0; to = whole; }
    },
  };
}

// ---- how many tasks were in each state ----

function countsOverTime(canvas) {
  const STACKED = ["COMPLETED", "FAILED", "RUNNING", "PENDING"]; // from below
  let model;
  const LEFT = 46;
  const draw = drawnOnce(() => {
    if (!model) return;
    const { on, width, height } = brush(canvas), points = model.over_time;
    if (!points.length) return;
    const from = Math.min(0, points[0][0]), to = Math.max(spanOf(model), from + 1000), bottom = height - 4;
    const most = Math.max(1, ...points.map((p) => p[1] + p[2] + p[3] + p[4]));
    const x = (ms) => LEFT + ((ms - from) / (to - from)) * (width - LEFT), y = (n) => bottom - (n / most) * (bottom - AXIS);
    const below = new Array(points.length).fill(0);
    for (const state of STACKED) {
      const column = STATES.indexOf(state) + 1;
      on.fillStyle = colour(state);
      on.beginPath();
      on.moveTo(x(points[0][0]), y(below[0]));
      points.forEach((p, i) => { on.lineTo(x(p[0]), y(below[i] + p[column])); });
      on.lineTo(width, y(below.at(-1) + points.at(-1)[column]));
      on.lineTo(width, y(below.at(-1)));
      for (let i = points.length - 1; i >= 0; i--) { on.lineTo(x(points[i][0]), y(below[i])); }
      on.fill();
      points.forEach((p, i) => { below[i] += p[column]; });
    }
    axis(on, from, to, LEFT, width - LEFT, AXIS + 4);
    on.fillText(number(most), 2, AXIS + 10);
    on.fillText("0", 2, bottom);
  });
  canvas.addEventListener("pointermove", (event) => {
    const points = model.over_time;
    if (!points.length) return;
    const box = canvas.getBoundingClientRect(), from = Math.min(0, points[0][0]), to = Math.max(spanOf(model), from + 1000);
    const ms = from + ((event.clientX - box.left - LEFT) / (box.width - LEFT)) * (to - from);
    const p = points.findLast((point) => point[0] <= ms) ?? points[0];
    tell(event, `${moment(model, p[0])}\n${STATES.map((state, i) => `${number(p[i + 1])} ${state}`).join("\n")}`);
  });
  canvas.addEventListener("pointerleave", (event) => tell(event, ""));
  return {
    draw,
    load(next) {
      model = next;
      canvas.setAttribute("aria-label", `Tasks by state over time: now ${STATES.map((state, i) => `${next.counts[i]} ${state}`).join(", ")}`);
      draw();
    },
  };
}
