// What a row opens: its numbers, settings, runs, curves and gates.

// texts: columns aligned to the left. folded: whether their long cells fold.
function plainTable(heads, lines, texts = [0], folded = false) {
  const kind = (place) => (texts.includes(place) ? `text${folded ? " folded" : ""}` : null);
  return html("div", { class: "scroll" }, html(
    "table", {},
    html("thead", {}, html("tr", {}, heads.map((head, place) => html("th", { scope: "col", class: kind(place) }, head)))),
    html("tbody", {}, lines.map((line) => html("tr", {}, line.map((cell, place) => html("td", { class: kind(place) }, cell))))),
  ));
}

function settingsTable(settings) {
  const differs = settings.some((setting) => setting[2] !== null);
  return plainTable(
    ["setting", "value", ...(differs ? ["default"] : [])],
    settings.map(([key, value, usual]) => [html("code", {}, key), html("code", {}, value), ...(differs ? [html("code", {}, usual ?? value)] : [])]),
    [0, 1, 2],
    true,
  );
}

function rowContent(row, data) {
  const parts = [
    html("h2", { id: "opened" }, row.label),
    html("p", {}, `${row.model}, settings `, html("code", {}, row.digest), `, ${row.runs.length} ${row.runs.length === 1 ? "run" : "runs"}`),
  ];
  const own = row.settings.filter((setting) => setting[2] !== null);
  const ofAll = data.common.filter((setting) => setting[2] !== null);
  const rest = [...row.settings, ...data.common].filter((setting) => setting[2] === null).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  parts.push(html("h3", {}, "Settings that differ from the defaults"));
  parts.push(own.length ? settingsTable(own) : html("p", {}, "None, apart from those of all rows."));
  const more = (title, settings) => (settings.length ? html("details", {}, html("summary", {}, `${title} (${settings.length})`), settingsTable(settings)) : null);
  parts.push(more("Those of all rows that differ from the defaults", ofAll), more("Settings at their defaults", rest));

  parts.push(html("h3", {}, "Test metrics"), plainTable(
    ["task", "metric", "mean", "sd", "95 % interval", "± test sample", "n"],
    data.metrics.filter((metric) => row.metrics[metric.key]).map((metric) => {
      const found = row.metrics[metric.key];
      const interval = defined(found.low) ? `${decimal(found.low)} to ${decimal(found.high)}` : NONE;
      return [metric.of, metric.title, decimal(found.mean), decimal(found.sd), interval, decimal(defined(found.sample) ? found.sample / NORMAL : null), String(found.n)];
    }),
    [0, 1],
  ));
  parts.push(html("h3", {}, "Runs"), runsTable(row, data));
  const curve = html("div", { class: "drawing" });
  if (row.runs.some((run) => run.curves.selected)) {
    parts.push(html("h3", {}, `${row.valid_metric || "validation"} by epoch`), curve);
  }
  if (Object.keys(row.gates).length) parts.push(html("h3", {}, "Mean gate weights"), gateTable(row.gates, data.tasks));
  if (row.warnings.length) parts.push(html("h3", {}, "Warnings"), html("ul", {}, row.warnings.map((text) => html("li", {}, text))));
  return [parts, curve];
}

function runsTable(row, data) {
  const shown = data.metrics.filter((metric) => metric.shown);
  return plainTable(
    [data.unit === "split" ? "split" : "seed", ...shown.map((metric) => `${metric.of} ${metric.title}`), row.valid_metric || "validation", "epoch", "seconds", "samples/s", "memory", "run"],
    row.runs.map((run) => [
      run.title,
      ...shown.map((metric) => decimal(run.values[metric.key])),
      decimal(run.valid),
      defined(run.best_epoch) ? `${run.best_epoch} of ${run.epochs}` : String(run.epochs),
      decimal(run.seconds, 1),
      grouped(run.rate),
      `${grouped(run.memory / 2 ** 20)} MiB`,
      html("code", {}, run.id),
    ]),
  );
}

function openRow(row, data) {
  const dialog = document.querySelector("dialog");
  const [parts, curve] = rowContent(row, data);
  dialog.querySelector(".content").replaceChildren(...parts.filter(defined));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (curve.isConnected) drawCurves(curve, [{ row, colour: 0 }], "selected");
}
