// Plots: each draws into a holder, as wide as that is, and calls `open` with a row's index when its mark is clicked.

function figure(holder, width, height, label, ...children) {
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
  holder.replaceChildren(drawing);
  return drawing;
}

function nothing(holder, text) {
  holder.replaceChildren(html("p", {}, text));
}

function wide(holder) {
  return Math.max(holder.clientWidth || 600, 260);
}

// Numbers and lines below a plot.
function bottomAxis(x, values, top, bottom, written) {
  return values.flatMap((value) => [
    svg("line", { class: "axis", x1: x(value), x2: x(value), y1: top, y2: bottom }),
    svg("text", { class: "soft", x: x(value), y: bottom + 16, "text-anchor": "middle" }, written(value)),
  ]);
}

function leftAxis(y, values, left, right, written) {
  return values.flatMap((value) => [
    svg("line", { class: "axis", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { class: "soft", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, written(value)),
  ]);
}

function linear(low, high, wanted) {
  const values = ticks(low, high, wanted);
  const digits = values.length > 1 ? places(values[1] - values[0]) : 4;
  return [values, (value) => value.toFixed(digits)];
}

// ---- dots -----------------------------------------------------------------------------------------------------------

function byValue(rows, metric) {
  const sign = metric.more === false ? 1 : -1;
  const mean = (row) => row.metrics[metric.key]?.mean;
  return rows.filter((row) => defined(mean(row))).sort((a, b) => sign * (mean(a) - mean(b)) || a.index - b.index);
}

function drawDots(holder, rows, metric, open) {
  const shown = byValue(rows, metric);
  if (!shown.length) return nothing(holder, "No row has this metric.");
  const width = wide(holder);
  const left = Math.min(260, width * 0.38), right = width - 58, step = 22, bottom = 8 + step * shown.length;
  const reach = shown.flatMap((row) => {
    const found = row.metrics[metric.key];
    const sample = defined(found.sample) ? [found.mean - found.sample, found.mean + found.sample] : [];
    return [...row.runs.map((run) => run.values[metric.key]), found.low, found.high, found.mean, ...sample];
  });
  const [low, high] = extent(reach, 0.03);
  const x = scale(low, high, left, right);
  const [values, written] = linear(low, high, Math.max((right - left) / 90, 2.5));
  const lines = shown.map((row, place) => dotLine(row, metric, x, 8 + step * (place + 0.5), left, right, open));
  const best = shown.find((row) => row.best);
  const mark = best ? [svg("line", { class: "best", x1: x(best.metrics[metric.key].mean), x2: x(best.metrics[metric.key].mean), y1: 8, y2: bottom })] : [];
  const label = `${metric.of} ${metric.title} of ${shown.length} rows, best first: ${shown.map((row) => `${row.label} ${decimal(row.metrics[metric.key].mean)}`).join(", ")}`;
  figure(holder, width, bottom + 22, label, bottomAxis(x, values, 8, bottom, written), mark, lines);
}

function dotLine(row, metric, x, y, left, right, open) {
  const found = row.metrics[metric.key];
  const parts = [];
  if (defined(found.sample)) {
    parts.push(svg("line", { class: "sample", x1: x(found.mean - found.sample), x2: x(found.mean + found.sample), y1: y, y2: y }));
  }
  if (defined(found.low)) {
    const [from, to] = [x(found.low), x(found.high)];
    parts.push(svg("path", { class: "interval", d: `M${from},${y - 4}V${y + 4}M${from},${y}H${to}M${to},${y - 4}V${y + 4}` }));
  }
  for (const run of row.runs) {
    const value = run.values[metric.key];
    if (!defined(value)) continue;
    parts.push(svg("circle", { class: row.runs.length > 1 ? "run mark" : "mean mark", cx: x(value), cy: y, r: 3.5 }, svg("title", {}, `${row.label}, ${run.title}: ${decimal(value, 5)}`)));
  }
  if (row.runs.length > 1) parts.push(svg("path", { class: "mean", d: `M${x(found.mean)},${y - 6}l4,6l-4,6l-4,-6z` }));
  const name = svg("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, clipped(row.label, Math.floor((left - 14) / 6.4)), svg("title", {}, row.label));
  const mean = svg("text", { class: "soft", x: right + 10, y: y + 4 }, decimal(found.mean));
  return svg("g", { class: "mark", "data-row": row.index, click: () => open(row.index) }, name, parts, mean);
}

// ---- quality against cost -------------------------------------------------------------------------------------------

// The rows that no other row beats: better than every row of the same or less cost.
function paretoFront(points, moreIsBetter, costMoreIsBetter) {
  const quality = (point) => (moreIsBetter ? point.y : -point.y);
  const cost = (point) => (costMoreIsBetter ? -point.x : point.x);
  const ordered = [...points].sort((a, b) => cost(a) - cost(b) || quality(b) - quality(a));
  const front = [];
  for (const point of ordered) if (!front.length || quality(point) > quality(front[front.length - 1])) front.push(point);
  return front;
}

function drawScatter(holder, rows, metric, cost, open) {
  const points = rows
    .map((row) => ({ row, x: row.cost[cost.key], y: row.metrics[metric.key]?.mean }))
    .filter((point) => defined(point.y) && point.x > 0);
  if (!points.length) return nothing(holder, "No row has both numbers.");
  const width = wide(holder), height = Math.min(400, Math.max(260, width * 0.6));
  const left = 58, right = width - 12, top = 10, bottom = height - 40;
  const costs = points.map((point) => point.x);
  const room = (Math.max(...costs) / Math.min(...costs)) ** 0.06 || 1.1;
  const [from, to] = [Math.min(...costs) / Math.max(room, 1.05), Math.max(...costs) * Math.max(room, 1.05)];
  const [low, high] = extent(points.map((point) => point.y), 0.08);
  const x = scale(from, to, left, right, true), y = scale(low, high, bottom, top);
  const front = metric.more === null ? [] : paretoFront(points, metric.more !== false, cost.more);
  const [values, written] = linear(low, high, height / 70);
  const steps = front.map((point, place) => `${place ? `H${x(point.x)}V` : `M${x(point.x)},`}${y(point.y)}`).join("");
  const marks = points.map((point) => svg(
    "circle",
    { class: `mark ${front.includes(point) ? "mean" : "other"}`, cx: x(point.x), cy: y(point.y), r: 5, "data-row": point.row.index, click: () => open(point.row.index) },
    svg("title", {}, `${point.row.label}: ${metric.of} ${metric.title} ${decimal(point.y)}, ${cost.title} ${grouped(point.x)}`),
  ));
  const label = `${metric.of} ${metric.title} against ${cost.title}; on the Pareto front: ${front.map((point) => point.row.label).join(", ")}`;
  figure(
    holder, width, height, label,
    leftAxis(y, values, left, right, written),
    bottomAxis(x, logTicks(from, to), top, bottom, brief),
    svg("text", { class: "soft", x: right, y: height - 4, "text-anchor": "end" }, `${cost.title} (logarithmic)`),
    steps ? svg("path", { class: "front", d: steps }) : null,
    marks,
    pointNames([...front, ...points.filter((point) => !front.includes(point))], x, y, left, right),
  );
}

// A name beside each mark where there is room for it; those that come first have it before the others.
function pointNames(points, x, y, left, right) {
  const taken = points.map((point) => [x(point.x) - 5, y(point.y) - 5, x(point.x) + 5, y(point.y) + 5]);
  const free = (box) => box[0] >= left && box[2] <= right && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
  return points.map((point) => {
    const text = clipped(point.row.label, 24), long = text.length * 6.6;
    for (const [anchor, dx, dy] of [["start", 8, 4], ["end", -8, 4], ["start", 4, -9], ["end", -4, 17], ["start", 4, 17], ["end", -4, -9]]) {
      const at = [x(point.x) + dx, y(point.y) + dy];
      const from = anchor === "start" ? at[0] : at[0] - long;
      const box = [from, at[1] - 10, from + long, at[1] + 2];
      if (!free(box)) continue;
      taken.push(box);
      return svg("text", { class: "name", x: at[0], y: at[1], "text-anchor": anchor }, text);
    }
    return null;
  });
}

// ---- learning curves ------------------------------------------------------------------------------------------------

// chosen: [{row, colour}]. key: "loss", "selected" or a metric's.
function drawCurves(holder, chosen, key) {
  const runs = chosen.flatMap(({ row }) => row.runs.filter((run) => run.curves[key]));
  if (!runs.length) return nothing(holder, chosen.length ? "The records have no such curve." : "Choose rows below.");
  const width = wide(holder), height = Math.min(360, Math.max(240, width * 0.55));
  const left = 58, right = width - 12, top = 10, bottom = height - 36;
  const last = Math.max(...runs.flatMap((run) => run.at)), first = Math.min(...runs.flatMap((run) => run.at));
  const [low, high] = extent(runs.flatMap((run) => run.curves[key]), 0.06);
  const x = scale(first, last, left + 8, right - 8), y = scale(low, high, bottom, top);
  const [values, written] = linear(low, high, height / 60);
  const epochs = ticks(first, last, Math.min(last - first, width / 60)).filter(Number.isInteger);
  const line = (at, found) => at.map((epoch, place) => [epoch, found[place]]).filter(([, value]) => defined(value)).map(([epoch, value], place) => `${place ? "L" : "M"}${x(epoch)},${y(value)}`).join("");
  const drawn = chosen.flatMap(({ row, colour }) => {
    const found = row.runs.filter((run) => run.curves[key]);
    const each = found.map((run) => svg("path", { class: `curve c${colour}${found.length > 1 ? " thin" : ""}`, d: line(run.at, run.curves[key]) }, svg("title", {}, `${row.label}, ${run.title}`)));
    const rings = found.flatMap((run) => {
      const value = run.curves[key][run.at.indexOf(run.best_epoch)];
      return defined(value) ? [svg("circle", { class: `ring c${colour}`, cx: x(run.best_epoch), cy: y(value), r: found.length > 3 ? 2.2 : 3.5 }, svg("title", {}, `${row.label}, ${run.title}: epoch ${run.best_epoch}, ${decimal(value)}`))] : [];
    });
    return [...each, ...(found.length > 1 ? [svg("path", { class: `curve c${colour}`, d: line(...meanCurve(found, key)) })] : []), ...rings];
  });
  figure(
    holder, width, height, `${key} by epoch of ${chosen.map(({ row }) => row.label).join(", ")}`,
    leftAxis(y, values, left, right, written), bottomAxis(x, epochs, top, bottom, String),
    svg("text", { class: "soft", x: right, y: height - 4, "text-anchor": "end" }, "epoch"), drawn,
  );
}

// Over the runs that all have the epoch: a mean over fewer would jump where one ends.
function meanCurve(runs, key) {
  const shared = runs[0].at.filter((epoch) => runs.every((run) => defined(run.curves[key][run.at.indexOf(epoch)])));
  const mean = (epoch) => runs.reduce((sum, run) => sum + run.curves[key][run.at.indexOf(epoch)], 0) / runs.length;
  return [shared, shared.map(mean)];
}

// ---- gates ----------------------------------------------------------------------------------------------------------

// A line per task and owner of modules, a column per module. A task's own modules come first, so that tasks compare.
function gateTable(gates, tasks) {
  const named = tasks.filter((task) => gates[task]);
  const also = Object.keys(gates).filter((task) => !named.includes(task));
  const rows = [...named, ...also].flatMap((task) => Object.entries(gateOwners(gates[task], task)).map(([owner, weights], place) => [place ? "" : task, owner, weights]));
  const columns = [...new Set(rows.flatMap(([, , weights]) => Object.keys(weights)))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const most = Math.max(...rows.flatMap(([, , weights]) => Object.values(weights)), 1e-9);
  const cell = (weight) => html("td", { style: defined(weight) ? `background: color-mix(in srgb, var(--accent) ${Math.round((55 * Math.max(weight, 0)) / most)}%, var(--page))` : null }, decimal(weight, 3));
  return html("div", { class: "scroll" }, html(
    "table", { class: "gates" },
    html("thead", {}, html("tr", {}, ["task", "owner", ...columns].map((head) => html("th", { scope: "col" }, head)))),
    html("tbody", {}, rows.map(([task, owner, weights]) => html("tr", {}, html("th", { scope: "row" }, task), html("th", { class: "owner" }, owner), columns.map((column) => cell(weights[column]))))),
  ));
}

// {"like/gdcn": 1, "shared/gdcn": 2} of task like: {own: {gdcn: 1}, shared: {gdcn: 2}}.
function gateOwners(weights, task) {
  const found = { own: {} };
  for (const [key, weight] of Object.entries(weights)) {
    const inside = key.startsWith(`${task}/`);
    const cut = inside ? task.length : key.indexOf("/");
    const owner = inside ? "own" : key.slice(0, Math.max(cut, 0));
    (found[owner] ||= {})[key.slice(cut + 1)] = weight;
  }
  if (!Object.keys(found.own).length) delete found.own;
  return found;
}
