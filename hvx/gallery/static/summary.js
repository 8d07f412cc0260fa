// The numbers on the whole run; of two runs, a column for each.
"use strict";

const share = ([, count, right]) => (count ? `${((100 * right) / count).toFixed(1)} %` : "n/a");

const table = (caption, header, rows) => element(
  "table", {},
  element("caption", {}, caption),
  element("thead", {}, element("tr", {}, ...header.map((name) => element("th", { scope: "col" }, name)))),
  element("tbody", {}, ...rows.map(([name, ...cells]) => element(
    "tr", {}, element("th", { scope: "row", dir: "auto" }, name), ...cells.map((cell) => element("td", {}, cell)),
  ))),
);

const labeled = (run, name) => (run.label ? `${name}, ${run.label}` : name);

const MOST_TYPES = 15;

// The commonest types, [type, items, right ones], and all others in one line.
const commonest = (types) => {
  if (types.length <= MOST_TYPES + 1) return types;
  const rest = types.slice(MOST_TYPES);
  const sum = (column) => rest.reduce((total, row) => total + row[column], 0);
  return [...types.slice(0, MOST_TYPES), [`${rest.length} other types`, sum(1), sum(2)]];
};

// Accuracy by a kind of type. Two runs have the same questions, and so the same types in the same order.
const accuracyTable = (runs, kind, caption) => {
  const columns = runs.map(({ summary }) => commonest(summary[kind]));
  const rows = columns[0].map(([type, count], index) => [
    type || "(no type)", String(count), ...columns.map((types) => share(types[index] ?? [type, 0, 0])),
  ]);
  return table(caption, ["", "n", ...runs.map((run) => labeled(run, "right"))], rows);
};

const fixed = (value, digits = 3) => (value === null ? "n/a" : value.toFixed(digits).replace("-", "−"));

// What a run's maps say together, and how often they say nothing.
const agreementRows = ({ summary, items, heatmap }) => {
  const { agreement, control, zero } = summary;
  const rows = [];
  if (agreement[1]) rows.push(["heat map and attention, mean rank correlation", fixed(agreement[0]), String(agreement[1])]);
  if (control[2]) {
    rows.push(
      ["of these, with another question on the image", fixed(control[0]), String(control[2])],
      ["the same heat maps and the other question's attention", fixed(control[1]), String(control[2])],
    );
  }
  if (!heatmap) rows.push(["heat maps and z-scores: none; the network has no Hadamard product", "", "0"]);
  else rows.push(
    ["no gradient of the image (Eq. 2 is zero)", "", String(zero[0])],
    ["no gradient of the words (Eq. 3 is zero)", "", String(zero[1])],
  );
  if (summary.unknown !== undefined) rows.push(["tokens unknown to the model", "", String(summary.unknown)]);
  return rows;
};

const wordTable = (run) => table(
  labeled(run, `Mean z by word, highest and lowest (n ≥ ${run.summary.least})`), ["word", "mean z", "n"],
  run.summary.words.map(([word, count, mean]) => {
    const [fill, ink] = tokenColors(mean);
    const shown = element("span", { class: "token", dir: "auto" }, word);
    [shown.style.backgroundColor, shown.style.color] = [fill, ink];
    return [shown, fixed(mean, 2), String(count)];
  }),
);

const fillSummary = () => {
  const { runs, notes } = hvx.about;
  const runList = runs.filter(({ label }) => label)
    .map(({ label, name, items }) => element("li", {}, element("b", {}, label), " ", element("bdi", {}, name), ` (${items.toLocaleString("en")} explanations)`));
  const typed = (kind) => runs.some(({ summary }) => summary[kind].some(([type]) => type));
  const tables = [
    accuracyTable(runs, "all", "Accuracy (exact match)"),
    ...(typed("answer_type") ? [accuracyTable(runs, "answer_type", "Accuracy by answer type")] : []),
    ...(typed("question_type") ? [accuracyTable(runs, "question_type", "Accuracy by question type")] : []),
    ...runs.map((run) => table(labeled(run, "Maps"), ["", "mean", "n"], agreementRows(run))),
    ...runs.filter((run) => run.summary.words.length).map(wordTable),
  ];
  document.getElementById("summary-content").replaceChildren(
    element("ul", {}, ...runList, ...notes.map((note) => element("li", {}, note))),
    element("div", { class: "tables" }, ...tables),
  );
};
