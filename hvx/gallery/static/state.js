// The page's state, kept in the address after #, and what follows from it. Nothing in this file touches the page.
"use strict";

hvx.FIELDS = ["q", "question_type", "answer_type", "only", "gradient", "min", "max", "sort", "per"];

// From the part of an address that begins with #.
hvx.readState = (hash) => {
  const given = new URLSearchParams(hash.slice(1));
  const read = Object.fromEntries(hvx.FIELDS.map((name) => [name, given.get(name) ?? ""]));
  return { ...read, page: Math.max(1, parseInt(given.get("page"), 10) || 1), item: given.get("item") ?? "" };
};

// The address of a state; readState reads it back.
hvx.address = (state) => {
  const written = new URLSearchParams();
  for (const name of hvx.FIELDS) if (state[name]) written.set(name, state[name]);
  if (state.page > 1) written.set("page", state.page);
  if (state.item) written.set("item", state.item);
  return `#${written}`;
};

hvx.perPage = (state) => parseInt(state.per, 10) || 24;

hvx.pageCount = (found, state) => Math.max(1, Math.ceil(found.length / hvx.perPage(state)));

// The page that a state shows of the items found: its number from 1, and the position of its first item from 0.
hvx.pageOf = (found, state) => {
  const page = Math.min(state.page, hvx.pageCount(found, state));
  const start = (page - 1) * hvx.perPage(state);
  return { page, start, numbers: found.slice(start, start + hvx.perPage(state)) };
};

// The item that is `by` further among those found; undefined beyond their ends, or from an item not among them.
hvx.neighbor = (found, number, by) => {
  const position = found.indexOf(number);
  return position < 0 ? undefined : found[position + by];
};

const grouped = (count) => count.toLocaleString("en");

// "2 of 17": where an item stands among those found; "" for one that is not among them.
hvx.positionText = (found, number) => {
  const position = found.indexOf(number);
  return position < 0 ? "" : `${grouped(position + 1)} of ${grouped(found.length)}`;
};

// The line above the cards; first and last count from 1.
hvx.foundText = (found, first, last) => {
  const { id, right } = hvx.index;
  if (!found.length) return "No explanation fits.";
  const judged = found.filter((number) => right[number] !== null);
  const correct = judged.filter((number) => right[number]).length;
  const share = judged.length ? `, ${((100 * correct) / judged.length).toFixed(1)} % right` : "";
  const of = found.length === id.length ? "" : ` (of ${grouped(id.length)} in all)`;
  return `${grouped(first)}–${grouped(last)} of ${grouped(found.length)} explanations${of}${share}`;
};
