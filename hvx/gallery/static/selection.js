// What is exported of the selected items. Nothing in this file touches the page.
"use strict";

// A text as one word of a POSIX shell.
hvx.quoted = (text) => (/^[\w./:@%+,=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// The selected items in the order of the run.
hvx.selection = () => [...hvx.selected].sort((a, b) => a - b);

hvx.rowsOf = (numbers, run) => {
  const rows = hvx.index[run ? `row${run + 1}` : "row"];
  return numbers.map((number) => (rows ? rows[number] : number)).sort((a, b) => a - b);
};

const h5 = (run) => `${run.path}/explanations.h5`;

// A file's name for a run; runs are distinguished by their labels.
const named = (name, run) => (run.label ? `${name}-${run.label.toLowerCase()}` : name);

hvx.EXPORTS = {
  ids: (numbers) => numbers.map((number) => `${hvx.index.id[number]}\n`).join(""),
  // Rows ascend, as h5py wants them.
  rows: (numbers) => {
    const runs = hvx.about.runs.map((run, index) => ({ file: h5(run), rows: hvx.rowsOf(numbers, index) }));
    return `${JSON.stringify(runs.length > 1 ? runs : runs[0])}\n`;
  },
  figure: (numbers) => hvx.about.runs.map((run) => {
    const ids = numbers.map((number) => `--id ${hvx.quoted(hvx.index.id[number])}`);
    return `hvx figure ${hvx.quoted(run.path)} -o ${named("figure", run)}.png ${ids.join(" ")}\n`;
  }).join(""),
};

hvx.FILES = { ids: "question_ids.txt", rows: "rows.json", figure: "figure.sh" };

// Two lines of Python that read the heat maps of the exported rows, or the attention of a run without.
hvx.snippet = () => {
  const two = hvx.about.runs.length > 1;
  const scale = hvx.about.runs[0].scaled ? `.astype("f4") ** 2 * file["heatmap_scale"][chosen["rows"]][:, None, None]` : "";
  return `import h5py, json; chosen = json.load(open("rows.json"))${two ? "[0]" : ""}; file = h5py.File(chosen["file"])\n`
    + `maps = file["${hvx.about.runs[0].heatmap ? "heatmap" : "attention"}"][chosen["rows"]]${scale}`;
};
