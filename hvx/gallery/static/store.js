// The gallery's data: loaded as scripts, since a page opened from a file may load nothing else; searched,
// filtered and sorted here. Nothing in this file touches the page.
"use strict";

const hvx = {
  about: null, kinds: null, index: null, details: new Map(), selected: new Set(),
  _pieces: [], _texts: null, _loads: new Map(),
};

hvx.describe = (about) => { hvx.about = about; };
hvx.setKinds = (kinds, pieces) => { hvx.kinds = kinds; hvx._pieces.length = pieces; };
hvx.addIndex = (chunk, columns) => { hvx._pieces[chunk] = columns; };
hvx.addItems = (chunk, entries) => { hvx.details.set(chunk, entries); };

hvx.load = (source) => {
  if (!hvx._loads.has(source)) {
    hvx._loads.set(source, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${source} is missing from the gallery's folder`));
      document.head.append(script);
    }));
  }
  return hvx._loads.get(source);
};

// Bits of index.zero: Eq. 2 (image), Eq. 3 (words) is zero everywhere; as ZERO_IMAGE and ZERO_WORDS in hvx/view.
// Of the first run, or of a further one.
const zeroOf = (number, run) => hvx.index[run ? `zero${run + 1}` : "zero"][number];
hvx.zeroImage = (number, run = 0) => (zeroOf(number, run) & 1) !== 0;
hvx.zeroWords = (number, run = 0) => (zeroOf(number, run) & 2) !== 0;

const padded = (number, digits) => String(number).padStart(digits, "0");

// As picture_path in hvx/gallery/pictures.py.
hvx.picturePath = (kind, number) => `${kind}/${padded(Math.floor(number / 1000), 4)}/${padded(number, 7)}.jpg`;

hvx.open = async () => {
  await Promise.all([hvx.load("hvx-gallery.js"), hvx.load("data/kinds.js")]);
  const pieces = Array.from(hvx._pieces, (_, chunk) => hvx.load(`data/index-${padded(chunk, 4)}.js`));
  await Promise.all(pieces);
  hvx.index = {};
  for (const name of Object.keys(hvx._pieces[0])) {
    hvx.index[name] = [].concat(...hvx._pieces.map((piece) => piece[name]));
  }
  hvx._pieces = [];
  hvx.numberOf = new Map(hvx.index.id.map((id, number) => [id, number]));
};

// What a card shows beyond the index; null where its script is missing.
hvx.detail = async (number) => {
  const chunk = Math.floor(number / hvx.about.chunk);
  try {
    await hvx.load(`data/items-${padded(chunk, 6)}.js`);
  } catch {
    return null;
  }
  const [tokens, z, top, imageId, path, unknown, outline, alone, others] = hvx.details.get(chunk)[number % hvx.about.chunk];
  const detail = ofRun([tokens, z, top, unknown, outline, alone]);
  const further = (others ?? []).map(ofRun);
  hvx.placeWords(number, [detail, ...further]);
  return { ...detail, imageId, path, others: further };
};

// What a run says of an item's question.
const ofRun = ([tokens, z, top, unknown, outline, alone]) => ({
  tokens, z, top, unknown: new Set(unknown), outline, alone: alone === 1,
});

const plain = (text) => text.normalize("NFKC").toLowerCase();

const searched = () => {
  if (!hvx._texts) {
    const { question, answer, truth, answer2 } = hvx.index;
    const texts = [question, answer, truth, answer2].filter(Boolean);
    hvx._texts = question.map((_, number) => plain(texts.map((column) => column[number]).join("\n")));
  }
  return hvx._texts;
};

const NUMBERS = new Set(["probability", "agreement", "probability2", "agreement2", "alike"]);

// Whether two answers are the same, as is_same in hvx/compare/answers.py.
const same = (answer, other) => answer.trim().toLowerCase() === other.trim().toLowerCase();

// What the answers of two runs are to each other.
const VERSUS = {
  "only-a": ({ right, right2 }, number) => right[number] === true && right2[number] === false,
  "only-b": ({ right, right2 }, number) => right[number] === false && right2[number] === true,
  differ: ({ answer, answer2 }, number) => !same(answer[number], answer2[number]),
  same: ({ answer, answer2 }, number) => same(answer[number], answer2[number]),
};

// The numbers of the items that fit, in order. Every word of q has to occur.
hvx.select = (state) => {
  const { index, kinds } = hvx;
  const tests = [];
  const words = plain(state.q).split(/\s+/).filter(Boolean);
  if (words.length) {
    const texts = searched();
    tests.push((number) => words.every((word) => texts[number].includes(word)));
  }
  for (const name of ["question_type", "answer_type"]) {
    const kind = kinds[name].indexOf(state[name]);
    if (state[name]) tests.push((number) => index[name][number] === kind);
  }
  const right = new Map([["right", true], ["wrong", false], ["unknown", null]]).get(state.only);
  if (right !== undefined) tests.push((number) => index.right[number] === right);
  if (index.answer2 && Object.hasOwn(VERSUS, state.versus)) {
    tests.push((number) => VERSUS[state.versus](index, number));
  }
  const zero = new Map([["zero", true], ["nonzero", false]]).get(state.gradient);
  const runs = hvx.about.runs.map((_, run) => run);
  if (zero !== undefined) tests.push((number) => runs.some((run) => zeroOf(number, run) !== 0) === zero);
  for (const [bound, sign] of [["min", 1], ["max", -1]]) {
    const limit = parseFloat(state[bound]) / 100;
    if (!Number.isNaN(limit)) tests.push((number) => sign * (index.probability[number] - limit) >= 0);
  }
  const matches = [];
  for (let number = 0; number < index.id.length; number += 1) {
    if (tests.every((test) => test(number))) matches.push(number);
  }
  return sorted(matches, state.sort);
};

const sorted = (numbers, sort) => {
  const name = sort.replace("-", "");
  if (!Object.hasOwn(hvx.index, name)) return numbers;
  const column = hvx.index[name];
  if (NUMBERS.has(name)) {
    const sign = sort.startsWith("-") ? -1 : 1;
    // What has no number stands last either way.
    const key = (number) => (column[number] === null ? Infinity : sign * column[number]);
    return numbers.sort((a, b) => (key(a) === key(b) ? a - b : key(a) - key(b)));
  }
  const order = new Intl.Collator(undefined, { numeric: true }).compare;
  return numbers.sort((a, b) => order(column[a], column[b]) || a - b);
};
