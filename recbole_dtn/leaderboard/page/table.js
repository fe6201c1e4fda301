// Tables: sorting by a column, filtering by words, showing and hiding columns.

// Numbers before texts; what is undefined is last in both directions.
function compared(a, b, down) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  return down ? -order : order;
}

function sortBy(table, column, down) {
  const body = table.tBodies[0];
  const value = (line) => line.cells[column].dataset.value ?? line.cells[column].textContent;
  const lines = [...body.rows].sort((a, b) => compared(value(a), value(b), down));
  body.append(...lines);
  const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
  [...heads].forEach((head, place) => {
    if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function sortable(table) {
  const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
  [...heads].forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sortBy(table, column, now ? now === "ascending" : button.dataset.first === "down");
    });
  });
}

// Every word must be somewhere in the row's name, model or settings.
function matches(row, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const known = [row.label, row.model, ...row.settings.filter((setting) => setting[2] !== null).map(([key, value]) => `${key}=${value}`)];
  const whole = known.join("\n").toLowerCase();
  // -word leaves rows with it out.
  return words.every((word) => (word.length > 1 && word.startsWith("-") ? !whole.includes(word.slice(1)) : whole.includes(word)));
}

function showColumns(table, metric, shown) {
  for (const cell of table.querySelectorAll("[data-metric]")) if (cell.dataset.metric === metric) cell.hidden = !shown;
  for (const group of table.querySelectorAll("[data-task]")) {
    const heads = [...table.querySelectorAll("th[data-of]")].filter((head) => head.dataset.of === group.dataset.task && !head.hidden);
    group.hidden = heads.length === 0;
    group.colSpan = Math.max(heads.length, 1);
  }
}
