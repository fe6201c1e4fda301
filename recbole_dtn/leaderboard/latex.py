"""A leaderboard as LaTeX tables of the package ``booktabs``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recbole_dtn.leaderboard.across import Across, across, across_table
from recbole_dtn.leaderboard.compare import SIGNIFICANT, Compared, Comparison, compare
from recbole_dtn.leaderboard.costs import Cost, cost_cells, costs_in
from recbole_dtn.leaderboard.details import Table, detail_tables
from recbole_dtn.leaderboard.differences import (
    ALL_TASKS,
    all_tasks_table,
    best_name,
    contrast_name,
    contrasts_title,
    interval,
    signed,
    tables_of,
)
from recbole_dtn.leaderboard.labels import MARK, SHOWN, WORSE, metric_title, row_labels, sampled
from recbole_dtn.leaderboard.planned import Planned, PlannedValue, planned_across, planned_table
from recbole_dtn.leaderboard.render import shown_error, shown_tasks, spread
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, unit_of
from recbole_dtn.report.text import NONE, count, p_value, shown

__all__ = ["latex", "tex"]

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "±": r"$\pm$", "²": r"\textsuperscript{2}",
    MARK: r"\dag{}", WORSE: r"\ddag{}",
    "…": r"\dots{}", "−": "$-$",
}  # fmt: skip


def tex(text: str) -> str:
    r"""Text in which no character has a meaning for LaTeX; line breaks become spaces.

    >>> tex("a_b & 50 % of ${x}")
    'a\\_b \\& 50 \\% of \\$\\{x\\}'
    """
    return "".join(SPECIAL.get(character, character) for character in shown(" ".join(text.split())))


def latex(groups: Sequence[Sequence[BoardRow]]) -> str:
    """Per data set the results, details such as GAUC and calibration, paired differences and costs, if there are any.

    A mean is bold where its paired difference to the row that is best on validation is significant and an improvement;
    that row's own where all others are significantly worse. Nothing is bold below
    :data:`~recbole_dtn.leaderboard.compare.CLAIMS_NEED` seeds or splits.
    """
    blocks = ["% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."]
    for rows in groups:
        found = compare(rows)
        blocks.append(_results(rows, found))
        blocks += [_details(rows, table) for table in detail_tables(rows, row_labels(rows))]
        blocks += [_differences(rows, each) for _, each in tables_of(rows)]
        if found is not None and found.all_tasks:
            blocks.append(_all_tasks(rows, found))
        if costs := costs_in(rows):
            blocks.append(_costs(rows, costs))
    together = across([row for rows in groups for row in rows])
    if together is not None:
        blocks.append(_across(together))
    found_planned = planned_across([row for rows in groups for row in rows])
    if found_planned is not None:
        blocks.append(_planned(found_planned))
    return "\n\n".join(blocks) + "\n"


def _results(rows: Sequence[BoardRow], found: Comparison | None) -> str:
    tasks = [
        (task, [name for name in SHOWN if any(Metric("test", task, name) in row.metrics for row in rows)])
        for task in shown_tasks(rows)
    ]
    tasks = [(task, names) for task, names in tasks if names]
    over, under, column = [""], [], 2
    for task, names in tasks:
        over.append(rf"\multicolumn{{{len(names)}}}{{c}}{{{tex(shown_tasks(rows)[task])}}}")
        under.append(rf"\cmidrule(lr){{{column}-{column + len(names) - 1}}}")
        column += len(names)
    heads = ["Model", *(tex(SHOWN[name]) for _, names in tasks for name in names), "Dense", "Parameters"]
    lines = []
    for label, row in zip(row_labels(rows), rows, strict=True):
        cells = [tex(label)]
        for task, names in tasks:
            for name in names:
                metric = Metric("test", task, name)
                cells.append(_mean(row, metric, bold=_is_bold(row, metric, found)))
        lines.append([*cells, *(tex(count(row.parameters.get(part))) for part in ("dense", "total"))])
    body = [_line([*over, "", ""]), "".join(under), _line(heads), r"\midrule", *map(_line, lines)]
    units = unit_of(rows)
    sample = any(shown_error(row, metric) is not None for row in rows for metric in row.errors)
    numbers = dict.fromkeys(row.units for row in rows)
    caption = (
        f"{tex(rows[0].dataset)}: test metrics, mean $\\pm$ standard deviation over "
        f"{tex(' or '.join(map(str, sorted(numbers))))} {units}"
        f"{f', in brackets the standard error over the test {sampled(rows[0])}' if sample else ''}. "
        f"{_what_is_bold(rows, found)}"
        + (
            rf" {tex(WORSE)}: with runs whose log loss is above that of predicting the share of positives."
            if any(row.worse for row in rows)
            else ""
        )
    )
    return _table(caption, f"results-{rows[0].dataset}", "l" + "r" * (len(heads) - 1), body)


def _what_is_bold(rows: Sequence[BoardRow], found: Comparison | None) -> str:
    if found is None:
        return "No differences are claimed."
    best = tex(best_name(found, rows))
    if found.descriptive:
        return f"Best on validation: {best}. Too few {found.over} for a claim: nothing is bold."
    return (
        f"Best on validation: {best}. Bold: significantly better than it (paired, $p < {SIGNIFICANT}$ after Holm's "
        "correction), and its own means where all others are significantly worse."
    )


def _mean(row: BoardRow, metric: Metric, *, bold: bool) -> str:
    text = spread(row.metrics.get(metric), row.units, shown_error(row, metric))
    mean, _, rest = text.partition(" ")
    shown = rf"\textbf{{{tex(mean)}}}" if bold else tex(mean)
    return f"{shown} {tex(rest)}" if rest else shown


def _is_bold(row: BoardRow, metric: Metric, found: Comparison | None) -> bool:
    if found is None or found.descriptive:
        return False
    of_metric = [difference for difference in found.differences if difference.metric == metric]
    if row is found.best:
        others = {id(difference.row) for difference in of_metric}
        of_metric = [difference for difference in of_metric if not difference.one_run]
        everyone = {id(difference.row) for difference in found.differences if not difference.one_run}
        return bool(of_metric) and others == everyone and all(found.better(each) is False for each in of_metric)
    return any(difference.row is row and found.better(difference) is True for difference in of_metric)


def _details(rows: Sequence[BoardRow], table: Table) -> str:
    body = [_line(map(tex, table.columns)), r"\midrule", *(_line(map(tex, cells)) for cells in table.cells)]
    caption = f"{tex(rows[0].dataset)}: {tex(table.title)}."
    texts = sum(column in ("model", "task") for column in table.columns)
    return _table(caption, f"{table.short}-{rows[0].dataset}", "l" * texts + "r" * (len(table.columns) - texts), body)


def _differences(rows: Sequence[BoardRow], found: Compared) -> str:
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    planned = not isinstance(found, Comparison)
    heads = ["Comparison" if planned else "Model", "Metric", "Difference", r"95\,\% interval", "$p$", "$n$"]
    lines = []
    for each in found.differences:
        paired = each.paired
        told = found.significant(each)
        shown = _numbers(signed(paired.mean))
        # Over seeds the interval is that of seeds and test sample at once, where it is known.
        of = each.whole(found.over)
        ends = NONE if of is None else interval(of.low, of.high)
        lines.append(
            [
                tex(contrast_name(each, names)),
                tex(metric_title(each.row, each.metric)),
                rf"\textbf{{{shown}}}" if told else shown,
                _numbers(ends),
                tex(p_value(each.adjusted)),
                str(paired.n),
            ]
        )
    claims = f"Bold: $p < {SIGNIFICANT}$." if not found.descriptive else f"Too few {found.over} for a claim."
    how = " (corrected resampled $t$-test)" if found.corrected else ""
    if any(each.tested is not None for each in found.differences):
        how = " (bootstrap over seeds and test sample)"
    what = contrasts_title(found.exploratory).lower()
    if isinstance(found, Comparison):
        what = f"differences to {tex(names[id(found.best)])}, the best on validation"
    caption = f"{tex(rows[0].dataset)}: {what}, paired over {found.over}{how}; $p$ after Holm's correction. {claims}"
    label = f"{'planned' if planned else 'differences'}-{rows[0].dataset}"
    return _table(caption, label, "llrrrr", [_line(heads), r"\midrule", *map(_line, lines)])


def _all_tasks(rows: Sequence[BoardRow], found: Comparison) -> str:
    lines = [[tex(name), *map(_numbers, cells)] for name, *cells in all_tasks_table(found, rows)]
    caption = (
        f"{tex(rows[0].dataset)}: delta-m, the mean over the tasks of the relative change to "
        f"{tex(best_name(found, rows))}, over {found.over} alone; not corrected, and not used for significance."
    )
    heads = ["Model", *map(tex, ALL_TASKS[1:])]
    body = [_line(heads), r"\midrule", *map(_line, lines)]
    return _table(caption, f"all-tasks-{rows[0].dataset}", "lrrrrr", body)


def _across(found: Across) -> str:
    table, notes = across_table(found)
    body = [_line(map(tex, table.columns)), r"\midrule", *(_line(map(tex, cells)) for cells in table.cells)]
    return _table(tex(" ".join(notes)), "all-data-sets", "l" + "r" * (len(table.columns) - 1), body)


def _planned(found: Planned) -> str:
    table = planned_table(found, _in_bold)
    heads = ["Comparison", "Metric", *(tex(name) for name in found.datasets)]
    lines = [[tex(name), tex(metric), *cells] for name, metric, *cells in table.cells]
    body = [_line(heads), r"\midrule", *map(_line, lines)]
    caption = f"{tex(table.title)}. {tex(found.note)}"
    return _table(caption, "planned-all-data-sets", "ll" + "r" * len(found.datasets), body)


def _in_bold(value: PlannedValue) -> str:
    text = _numbers(str(value))
    return rf"\textbf{{{text}}}" if value.significant else text


def _costs(rows: Sequence[BoardRow], costs: Sequence[Cost]) -> str:
    heads = ["Model", *(tex(cost.title) for cost in costs)]
    lines = [map(tex, [label, *cost_cells(row, costs)]) for label, row in zip(row_labels(rows), rows, strict=True)]
    body = [_line(heads), r"\midrule", *map(_line, lines)]
    serial = " Speed, latency and memory are those of a serial pass." if any(row.speed for row in rows) else ""
    caption = f"{tex(rows[0].dataset)}: costs.{serial}"
    return _table(caption, f"costs-{rows[0].dataset}", "l" + "r" * len(costs), body)


def _numbers(text: str) -> str:
    """Text whose hyphens are signs of numbers: a hyphen is no minus."""
    return tex(text.replace("-", "−"))


def _line(cells: Iterable[str]) -> str:
    # Behind `\\` of the row before, or \midrule, a bracket or an asterisk would be their option.
    return re.sub(r"^[\[*]", r"{\g<0>}", " & ".join(cells)) + r" \\"


def _table(caption: str, label: str, columns: str, body: Sequence[str]) -> str:
    safe = re.sub(r"[^A-Za-z0-9:.-]+", "-", label)
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{safe}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ]
    )  # fmt: skip
