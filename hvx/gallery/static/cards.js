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
const valueText = (z) => (z === null ? "n/a" : String(Number(z.toFixed(4))).replace("-", "−"));

// From blue below 0 through light grey to red above, as chip_colour in hvx/view/tokens.py.
const tokenColours = (z) => {
  const [low, neutral, high] = hvx.about.zColours;
  const place = Math.max(-1, Math.min(1, (z ?? 0) / hvx.about.zLimit));
  const end = place > 0 ? high : low;
  const fill = neutral.map((from, channel) => Math.round(from + (end[channel] - from) * Math.abs(place)));
  const light = fill.map((level) => level / 255)
    .map((level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  return [`rgb(${fill.join(" ")})`, luminance > 0.179 ? "#000" : "#fff"];
};

const UNKNOWN = "unknown to the model";

// Token `place` of an item, on its colour; dots stand around one that the model does not know.
const tokenSpan = (detail, place) => {
  const z = detail.z[place];
  const unknown = detail.unknown.has(place);
  const title = `z ${valueText(z)}${unknown ? `; ${UNKNOWN}` : ""}`;
  const span = element("span", { class: unknown ? "token unknown" : "token", dir: "auto", title }, detail.tokens[place]);
  [span.style.backgroundColor, span.style.color] = tokenColours(z);
  return span;
};

// Why a photograph is not shown, by the kinds in hvx/gallery/chunks.py.
const MISSING = {
  unreadable: "The photograph could not be read",
  replaced: "The photograph was replaced after the run: this is not the one that was explained",
};
const ZERO_IMAGE = "zero gradient: no heat map";
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
  const image = element("img", { src: hvx.picturePath("photos", photo), alt: name, decoding: "async" });
  if (!column) image.addEventListener("load", () => frame(box, image));
  box.append(image);
  if (column && detail) {
    const map = element("div", { class: "map", "aria-hidden": "true" });
    const maps = names.length - 1;
    map.style.backgroundImage = `url("${hvx.picturePath("maps", number)}")`;
    map.style.backgroundSize = `${100 * maps}% 200%`; // above for the color style, below for the paper's
    map.style.backgroundPositionX = maps > 1 ? `${(100 * (column - 1)) / (maps - 1)}%` : "0";
    box.append(map);
    if (column === maps) box.append(outlined(detail.outline));
  }
  if (column === names.length - 1 && hvx.zeroImage(number)) box.append(element("p", { class: "note" }, ZERO_IMAGE));
  return box;
};

const verdict = (number) => {
  const { answer, truth, right, probability } = hvx.index;
  const kind = { true: "right", false: "wrong" }[right[number]] ?? "unknown";
  const line = element("p", { class: `verdict ${kind}` });
  if (kind !== "unknown") {
    line.append(
      element("span", { class: "mark", "aria-hidden": "true" }, kind === "right" ? "✓ " : "✗ "),
      element("span", { class: "hidden" }, `${kind}: `),
    );
  }
  line.append(element("bdi", { class: "said" }, answer[number]), " ");
  if (truth[number]) line.append("(", element("bdi", {}, truth[number]), ") ");
  line.append(element("span", { class: "share" }, percent(probability[number])));
  return line;
};

const card = (number, detail, href) => {
  const link = element("a", { class: "open", href, dir: "auto" });
  if (detail) {
    detail.tokens.forEach((token, place) => link.append(tokenSpan(detail, place), " "));
  }
  if (!link.textContent.trim()) link.append(hvx.index.question[number] || `question ${hvx.index.id[number]}`);
  const words = element("div", { class: "words" }, element("h2", {}, link), verdict(number));
  if (hvx.zeroWords(number)) words.append(element("p", { class: "note" }, ZERO_WORDS));
  return element(
    "li",
    { class: "card", "data-id": hvx.index.id[number] },
    picture(number, hvx.about.columns.length - 1, detail),
    words,
  );
};

const fillItem = (number, detail) => {
  const at = (id) => document.getElementById(id);
  const { index } = hvx;
  at("item-question").replaceChildren(index.question[number]);
  at("item-pictures").replaceChildren(...hvx.about.columns.map((name, column) => element(
    "figure", {}, element("figcaption", {}, name), picture(number, column, detail),
  )));
  at("item-tokens").replaceChildren(...(detail?.tokens ?? []).map((token, place) => element(
    "li", {}, tokenSpan(detail, place), element("span", { class: "value" }, valueText(detail.z[place])),
  )));
  at("item-answers").replaceChildren(...(detail?.top ?? []).map(([answer, share]) => {
    const filled = element("span");
    filled.style.width = `${100 * (share ?? 0)}%`;
    return element(
      "li", {}, element("bdi", {}, answer), element("span", {}, percent(share)),
      element("div", { class: "trough", "aria-hidden": "true" }, filled),
    );
  }));
  const kind = (name) => hvx.kinds[name][index[name][number]];
  const about = [
    ["Answer", verdict(number)],
    ["Question id", index.id[number]],
    ["Image id", detail?.imageId],
    ["Photograph", detail?.path],
    ["Question type", kind("question_type")],
    ["Answer type", kind("answer_type")],
    ["Heat map", hvx.zeroImage(number) ? ZERO_IMAGE : undefined],
    ["Dotted", detail?.unknown.size ? UNKNOWN : undefined],
    ["Tokens", hvx.zeroWords(number) ? ZERO_WORDS : undefined],
    ["Agreement of heat map and attention", index.agreement[number]?.toFixed(3)],
  ];
  at("item-about").replaceChildren(...about.filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value instanceof Node ? value : String(value))]));
};
