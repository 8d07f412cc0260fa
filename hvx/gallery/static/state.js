// The page's state, kept in the address after #, and what follows from it. Nothing in this file touches the page.
"use strict";

hvx.FIELDS = ["q", "question_type", "answer_type", "only", "versus", "gradient", "min", "max", "sort", "per"];

// How what is found is shown. maps: "" always, "hover" on the card that is pointed at; style: "" the first of
// hvx.STYLES; show: columns of the figure on each card, "0.3"; row: cards in a row; group: "image" or "".
hvx.LOOKS = ["maps", "style", "show", "row", "group"];
hvx.STYLES = ["color", "paper"];

hvx.style = (state) => (hvx.STYLES.includes(state.style) ? state.style : hvx.STYLES[0]);

// The columns on a card: those asked for, or each run's heat map, or of a run without its last attention.
hvx.shownColumns = (state) => {
  const asked = new Set(state.show.split(".").filter(Boolean).map(Number));
  const known = hvx.about.columns.map((_, column) => column).filter((column) => asked.has(column));
  return known.length ? known : hvx.about.runs.map((run) => run.shown);
};

// From the part of an address that begins with #.
hvx.readState = (hash) => {
  const params = new URLSearchParams(hash.slice(1));
  const read = Object.fromEntries([...hvx.FIELDS, ...hvx.LOOKS].map((name) => [name, params.get(name) ?? ""]));
  return { ...read, page: Math.max(1, parseInt(params.get("page"), 10) || 1), item: params.get("item") ?? "" };
};

// The address of a state; readState reads it back.
hvx.address = (state) => {
  const written = new URLSearchParams();
  for (const name of [...hvx.FIELDS, ...hvx.LOOKS]) if (state[name]) written.set(name, state[name]);
  if (state.page > 1) written.set("page", state.page);
  if (state.item) written.set("item", state.item);
  return `#${written}`;
};

hvx.perPage = (state) => parseInt(state.per, 10) || 24;

// What pages are made of: items, or lists of the items on one image in the place of the first of them.
hvx.units = (matches, state) => {
  if (state.group !== "image") return matches;
  const groups = new Map();
  for (const number of matches) {
    const photo = hvx.index.photo[number];
    if (!groups.has(photo)) groups.set(photo, []);
    groups.get(photo).push(number);
  }
  return [...groups.values()];
};

hvx.pageCount = (units, state) => Math.max(1, Math.ceil(units.length / hvx.perPage(state)));

// The page that a state shows: its number from 1, and the position of its first unit from 0.
hvx.pageOf = (units, state) => {
  const page = Math.min(state.page, hvx.pageCount(units, state));
  const start = (page - 1) * hvx.perPage(state);
  return { page, start, numbers: units.slice(start, start + hvx.perPage(state)) };
};

// The page on which an item stands; 1 for one that is not among them.
hvx.pageWith = (units, state, number) => {
  const position = units.findIndex((unit) => unit === number || (Array.isArray(unit) && unit.includes(number)));
  return Math.floor(Math.max(0, position) / hvx.perPage(state)) + 1;
};

// The item that is `by` further among those found; undefined beyond their ends, or from an item not among them.
hvx.neighbor = (matches, number, by) => {
  const position = matches.indexOf(number);
  return position < 0 ? undefined : matches[position + by];
};

const grouped = (count) => count.toLocaleString("en");

// "2 of 17": where an item stands among those found; "" for one that is not among them.
hvx.positionText = (matches, number) => {
  const position = matches.indexOf(number);
  return position < 0 ? "" : `${grouped(position + 1)} of ${grouped(matches.length)}`;
};

// The line above the cards; first and last count from 1.
hvx.foundText = (matches, first, last) => {
  const { id, right, right2 } = hvx.index;
  if (!matches.length) return "No explanation fits.";
  const judged = matches.filter((number) => right[number] !== null);
  const shares = [right, right2].filter(Boolean).map((correct) => judged.filter((number) => correct[number]).length)
    .map((count) => ((100 * count) / judged.length).toFixed(1));
  const accuracy = shares.length > 1 ? `A ${shares[0]} % right, B ${shares[1]} % right` : `${shares[0]} % right`;
  const share = judged.length ? `, ${accuracy}` : "";
  const of = matches.length === id.length ? "" : ` (of ${grouped(id.length)} in all)`;
  return `${grouped(first)}–${grouped(last)} of ${grouped(matches.length)} explanations${of}${share}`;
};
