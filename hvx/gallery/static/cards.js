// Builds cards and the open explanation. All text from data goes in as text, never as HTML.
"use strict";

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const percent = (share) => (share === null ? "n/a" : `${(100 * share).toFixed(1)} %`);

// z as the figures print it: at most four decimals.
// Nothing of a run without z-scores.
const valueText = (z) => (z === undefined ? "" : z === null ? "n/a" : String(Number(z.toFixed(4))).replace("-", "−"));

// From blue below 0 through light gray to red above, as chip_color in hvx/view/tokens.py.
const tokenColors = (z) => {
  const [low, neutral, high] = hvx.about.zColors;
  const position = Math.max(-1, Math.min(1, (z ?? 0) / hvx.about.zLimit));
  const end = position > 0 ? high : low;
  const fill = neutral.map((from, channel) => Math.round(from + (end[channel] - from) * Math.abs(position)));
  const light = fill.map((level) => level / 255)
    .map((level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  return [`rgb(${fill.join(" ")})`, luminance > 0.179 ? "#000" : "#fff"];
};

const UNKNOWN = "unknown to the model";

// Token `index` of an item, on its color; dots stand around one that the model does not know.
const tokenSpan = (detail, index) => {
  const z = detail.z[index];
  const unknown = detail.unknown.has(index);
  const title = [...(z === undefined ? [] : [`z ${valueText(z)}`]), ...(unknown ? [UNKNOWN] : [])].join("; ");
  const span = element("span", { class: unknown ? "token unknown" : "token", dir: "auto", title }, detail.tokens[index]);
  [span.style.backgroundColor, span.style.color] = tokenColors(z);
  hvx.tieWord(span, detail, index);
  return span;
};

// Why a photograph is not shown, by the kinds in hvx/gallery/chunks.py.
const MISSING = {
  unreadable: "The photograph could not be read",
  replaced: "The photograph was replaced after the run: this is not the one that was explained",
};
const ZERO_IMAGE = "zero gradient: no heat map";
const NO_PRODUCT = "none, and no z-scores: the network has no Hadamard product";
const ALONE = "no other question on the image";
const ZERO_WORDS = "zero gradient of the words: no z-scores";

// Frames the square that the network saw on a picture of a whole photograph.
const frame = (box, image) => {
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width === height) return;
  const square = element("div", { class: "square", "aria-hidden": "true" });
  square.style.width = `${(100 * Math.min(width, height)) / Math.max(width, height)}%`;
  box.append(square);
};

// A white line within a black one, as in figures.
const outlined = (path) => {
  const drawn = document.getElementById("outline").cloneNode(true);
  drawn.removeAttribute("id");
  for (const line of drawn.children) line.setAttribute("d", path);
  return drawn;
};

// Why a run's heat map, or its question-specific map, says nothing.
const noteOn = (number, column, detail) => {
  const index = hvx.about.runs.findIndex((run) => column && (run.heatmap === column || run.specific === column));
  if (index < 0) return "";
  if (hvx.zeroImage(number, index)) return ZERO_IMAGE;
  const run = index ? detail?.others[index - 1] : detail;
  return run?.alone && hvx.about.runs[index].specific === column ? ALONE : "";
};

// The square that the network saw, under the map in a column of the figure; column 0 is the whole photograph.
const picture = (number, column, detail) => {
  const photo = hvx.index.photo[number];
  const names = hvx.about.columns;
  const name = column ? `${names[column]}: where it lies on the photograph` : "The photograph; framed: what the model saw";
  const box = element("div", { class: column ? "picture mapped" : "picture whole" });
  if (hvx.missingPhotos.has(photo)) {
    box.append(element("p", { class: "lost" }, MISSING[hvx.missingPhotos.get(photo)]));
    return box; // a map says nothing without its photograph
  }
  // Width and height, so that nothing moves as it loads; CSS says how large it is shown.
  const size = { width: 320, height: 320, decoding: "async" };
  const image = element("img", { src: hvx.picturePath("photos", photo), alt: name, ...size });
  if (!column) image.addEventListener("load", () => frame(box, image));
  box.append(image);
  if (column && detail) {
    const map = element("div", { class: "map", "aria-hidden": "true" });
    const maps = names.length - 1;
    map.style.backgroundImage = `url("${hvx.picturePath("maps", number)}")`;
    map.style.backgroundSize = `${100 * maps}% 200%`; // above for the color style, below for the paper's
    map.style.backgroundPositionX = maps > 1 ? `${(100 * (column - 1)) / (maps - 1)}%` : "0";
    box.append(map);
  }
  const run = hvx.about.runs.findIndex((run) => column && run.heatmap === column);
  if (run >= 0) box.dataset.heatmapOf = run;
  if (run >= 0 && detail) box.append(outlined((run ? detail.others[run - 1] : detail).outline));
  const note = noteOn(number, column, detail);
  if (note) box.append(element("p", { class: "note" }, note));
  return box;
};

// The columns of the index that belong to a run, the first being run 0.
const ofIndex = (name, run) => hvx.index[run ? `${name}${run + 1}` : name];

const verdict = (number, run = 0) => {
  const { truth } = hvx.index;
  const [answer, right, probability] = ["answer", "right", "probability"].map((name) => ofIndex(name, run));
  const label = hvx.about.runs[run].label;
  const kind = { true: "right", false: "wrong" }[right[number]] ?? "unknown";
  const line = element("p", { class: `verdict ${kind}` });
  if (label) line.append(element("b", {}, label), " ");
  if (kind !== "unknown") {
    line.append(
      element("span", { class: "mark", "aria-hidden": "true" }, kind === "right" ? "✓ " : "✗ "),
      element("span", { class: "hidden" }, `${kind}: `),
    );
  }
  line.append(element("bdi", { class: "said" }, answer[number]), " ");
  if (truth[number]) line.append("(", element("bdi", {}, truth[number]), ") ");
  if (probability[number] !== null) line.append(element("span", { class: "share" }, percent(probability[number])));
  return line;
};

// A run's tokens on their colors, with spaces between them.
const tokenSpans = (detail) => detail.tokens.flatMap((_, index) => [tokenSpan(detail, index), " "]);

// The pictures of a card; several have their names under them.
const cardPictures = (number, detail, columns) => {
  if (columns.length === 1) return picture(number, columns[0], detail);
  return element("div", { class: "several" }, ...columns.map((column) => element(
    "figure", {}, picture(number, column, detail), element("figcaption", {}, hvx.about.columns[column]),
  )));
};

const pick = (number) => {
  const box = element("input", { type: "checkbox", "aria-label": `Select question ${hvx.index.id[number]}` });
  box.checked = hvx.selected.has(number);
  return element("label", { class: "pick" }, box);
};

const card = (number, detail, href, columns = [hvx.about.runs[0].shown]) => {
  const link = element("a", { class: "open", href, dir: "auto" });
  if (detail) link.append(...tokenSpans(detail));
  if (!link.textContent.trim()) link.append(hvx.index.question[number] || `question ${hvx.index.id[number]}`);
  const words = element("div", { class: "words" }, element("h2", {}, link));
  hvx.about.runs.forEach((_, run) => {
    const other = run && detail?.others[run - 1];
    if (other) words.append(element("p", { class: "tokens", dir: "auto" }, ...tokenSpans(other)));
    words.append(verdict(number, run));
    if (hvx.zeroWords(number, run)) words.append(element("p", { class: "note" }, ZERO_WORDS));
  });
  const alike = hvx.index.alike?.[number] ?? null;
  if (alike !== null) words.append(element("p", { class: "note" }, `heat maps of A and B: ${alike.toFixed(2)}`));
  return element(
    "li",
    { class: "card", "data-id": hvx.index.id[number] },
    ...(columns.length ? [cardPictures(number, detail, columns)] : []),
    words,
    pick(number),
  );
};

// The questions on one image: the photograph once, a card for each under it.
const groupOfCards = (numbers, cards) => element(
  "li", { class: "group" },
  picture(numbers[0], 0, null),
  element("ul", { class: "members", "aria-label": `${numbers.length} on one image` }, ...cards),
);

const scored = (detail) => detail.tokens.map((_, index) => element(
  "li", {}, hvx.focusable(tokenSpan(detail, index)), element("span", { class: "value" }, valueText(detail.z[index])),
));

const likeliest = (detail) => detail.top.map(([answer, share]) => {
  const filled = element("span");
  filled.style.width = `${100 * (share ?? 0)}%`;
  return element(
    "li", {}, element("bdi", {}, answer), element("span", {}, percent(share)),
    element("div", { class: "trough", "aria-hidden": "true" }, filled),
  );
});

// What further runs say of an item: their tokens and their likeliest answers.
const otherRuns = (detail) => (detail?.others ?? []).flatMap((other, index) => {
  const { label } = hvx.about.runs[index + 1];
  return [
    element("h3", {}, `${label}: tokens`),
    element("ol", { class: "scored", "aria-label": `${label}: tokens with their z-scores` }, ...scored(other)),
    element("h3", {}, `${label}: likeliest answers`),
    element("ol", { class: "answers", "aria-label": `${label}: likeliest answers` }, ...likeliest(other)),
  ];
});

// A term and its value for each run, the run's label before the term.
const ofEach = (name, value) => hvx.about.runs.map(({ label }, run) => [label ? `${name}, ${label}` : name, value(run)]);

const fillItem = (number, detail) => {
  const at = (id) => document.getElementById(id);
  const { index } = hvx;
  at("item-question").replaceChildren(index.question[number]);
  at("item-pictures").replaceChildren(...hvx.about.columns.map((name, column) => element(
    "figure", {}, element("figcaption", {}, name), picture(number, column, detail),
  )));
  at("item-tokens").replaceChildren(...(detail ? scored(detail) : []));
  at("item-answers").replaceChildren(...(detail ? likeliest(detail) : []));
  at("item-others").replaceChildren(...otherRuns(detail));
  const kind = (name) => hvx.kinds[name][index[name][number]];
  const about = [
    ...ofEach("Answer", (run) => verdict(number, run)),
    ["Question id", index.id[number]],
    ["Image id", detail?.imageId],
    ["Photograph", detail?.path],
    ["Question type", kind("question_type")],
    ["Answer type", kind("answer_type")],
    ...ofEach("Heat map", (run) => {
      if (!hvx.about.runs[run].heatmap) return NO_PRODUCT;
      return hvx.zeroImage(number, run) ? ZERO_IMAGE : undefined;
    }),
    ...ofEach("Dotted", (run) => ((run ? detail?.others[run - 1] : detail)?.unknown.size ? UNKNOWN : undefined)),
    ...ofEach("Tokens", (run) => (hvx.zeroWords(number, run) ? ZERO_WORDS : undefined)),
    ...ofEach("Agreement of heat map and attention", (run) => ofIndex("agreement", run)[number]?.toFixed(3)),
    ...ofEach("… and attention of another question on the image", (run) => ofIndex("control", run)[number]?.toFixed(3)),
    ["Agreement of the heat maps of A and B", index.alike?.[number]?.toFixed(3)],
  ];
  at("item-about").replaceChildren(...about.filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value instanceof Node ? value : String(value))]));
};
