// Puts the parts of each data set together.

const COLOURS = 8;

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, title]) => html("option", { value, selected: value === chosen }, title)));
  select.hidden = entries.length < 2 && select.closest("figure").dataset.plot !== "gates";
}

function setUp(section, data) {
  data.rows.forEach((row, index) => { row.index = index; });
  const table = section.querySelector(".results");
  const plot = (name) => section.querySelector(`[data-plot=${name}]`);
  const drawing = (name) => plot(name).querySelector(".drawing");
  const selects = (name) => [...plot(name).querySelectorAll("select")];
  const open = (index) => openRow(data.rows[index], data);
  let visible = data.rows;

  const titles = data.metrics.map((metric) => [metric.key, `${metric.of} ${metric.title}`]);
  const first = (data.metrics.find((metric) => metric.more) || data.metrics[0] || {}).key;
  const metricOf = (key) => data.metrics.find((metric) => metric.key === key);
  const [dotMetric] = selects("dots"), [pointMetric, pointCost] = selects("scatter"), [curveKey] = selects("curves"), [gateRow] = selects("gates");
  options(dotMetric, titles, first);
  options(pointMetric, titles, first);
  options(pointCost, data.costs.map((cost) => [cost.key, cost.title]), (data.costs.find((cost) => cost.key === "parameters_total") || data.costs[0] || {}).key);

  // Curves: rows chosen by chips, each with a colour of its own for as long as it is chosen.
  const curves = new Set(data.rows.flatMap((row) => row.runs.flatMap((run) => Object.keys(run.curves))));
  const validMetric = data.rows.map((row) => row.valid_metric).find(Boolean);
  const curveTitles = [["selected", `validation ${validMetric || "metric"}`], ["loss", "training loss"], ...data.metrics.map((metric) => [metric.key, `validation ${metric.of} ${metric.title}`])];
  options(curveKey, curveTitles.filter(([key]) => curves.has(key)), "selected");
  const withCurves = data.rows.filter((row) => row.runs.some((run) => Object.keys(run.curves).length));
  const chosen = new Map();
  const choose = (row) => {
    if (chosen.size === COLOURS) chosen.delete(chosen.keys().next().value);
    const used = new Set(chosen.values());
    chosen.set(row.index, [...Array(COLOURS).keys()].find((colour) => !used.has(colour)));
  };
  byValue(withCurves, metricOf(first) || { key: "" }).slice(0, 3).forEach(choose);
  const drawChips = () => plot("curves").querySelector(".chips").replaceChildren(...withCurves.filter((row) => visible.includes(row) || chosen.has(row.index)).map((row) => {
    const colour = chosen.get(row.index);
    const sample = defined(colour) ? svg("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" }, svg("line", { class: `curve c${colour}`, x1: 0, x2: 20, y1: 4, y2: 4, "stroke-width": 4 })) : null;
    const toggle = () => {
      if (!chosen.delete(row.index)) choose(row);
      drawChips();
      drawTheCurves();
    };
    return html("button", { type: "button", "aria-pressed": String(defined(colour)), click: toggle }, sample, row.label);
  }));
  const drawTheCurves = () => drawCurves(drawing("curves"), [...chosen].map(([index, colour]) => ({ row: data.rows[index], colour })), curveKey.value);

  const gated = data.rows.filter((row) => Object.keys(row.gates).length);
  options(gateRow, gated.map((row) => [String(row.index), row.label]), String((gated.find((row) => row.model === "DTN") || gated[0] || {}).index));
  const drawGates = () => drawing("gates").replaceChildren(gateTable(data.rows[Number(gateRow.value)].gates, data.tasks));

  const drawTheDots = () => drawDots(drawing("dots"), visible, metricOf(dotMetric.value), open);
  const drawTheScatter = () => drawScatter(drawing("scatter"), visible, metricOf(pointMetric.value), data.costs.find((cost) => cost.key === pointCost.value), open);
  const drawings = [];
  plot("dots").hidden = !data.metrics.length;
  plot("scatter").hidden = !data.metrics.length || !data.costs.length;
  plot("curves").hidden = !withCurves.length;
  plot("gates").hidden = !gated.length;
  if (data.metrics.length) drawings.push(drawTheDots);
  if (data.metrics.length && data.costs.length) drawings.push(drawTheScatter);
  if (withCurves.length) drawings.push(drawChips, drawTheCurves);
  if (gated.length) drawGates();
  dotMetric.addEventListener("change", drawTheDots);
  pointMetric.addEventListener("change", drawTheScatter);
  pointCost.addEventListener("change", drawTheScatter);
  curveKey.addEventListener("change", drawTheCurves);
  gateRow.addEventListener("change", drawGates);
  section.querySelector(".plots").hidden = false;

  const filter = section.querySelector("input[type=search]"), told = section.querySelector(".count");
  const apply = () => {
    visible = data.rows.filter((row) => matches(row, filter.value));
    for (const line of table.tBodies[0].rows) line.hidden = !visible.includes(data.rows[Number(line.dataset.row)]);
    told.textContent = visible.length === data.rows.length ? "" : `${visible.length} of ${data.rows.length} rows`;
    drawings.forEach((draw) => draw());
  };
  filter.addEventListener("input", apply);
  for (const box of section.querySelectorAll(".columns input")) {
    const show = () => showColumns(table, box.value, box.checked);
    box.addEventListener("change", show);
    show();
  }
  section.querySelectorAll("table.sortable").forEach(sortable);
  table.tBodies[0].addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (line && !String(document.getSelection())) open(Number(line.dataset.row));
  });
  apply();
  let width = section.clientWidth;
  window.addEventListener("resize", () => {
    if (section.clientWidth === width) return;
    width = section.clientWidth;
    drawings.forEach((draw) => draw());
  });
}

const boards = JSON.parse(document.getElementById("board-data").textContent);
document.querySelectorAll("section.board").forEach((section) => setUp(section, boards[Number(section.dataset.board)]));
const dialog = document.querySelector("dialog");
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
