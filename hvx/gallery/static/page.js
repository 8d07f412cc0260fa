// The page: its state lives in the address after #, so that every view and every explanation has a link.
"use strict";

const FIELDS = ["q", "question_type", "answer_type", "only", "min", "max", "sort", "per"];
const at = (id) => document.getElementById(id);
const dialog = at("item");
let state = {};
let found = [];
let shown = "";

const readState = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""]));
  return { ...read, page: Math.max(1, parseInt(given.get("page"), 10) || 1), item: given.get("item") ?? "" };
};

const address = (changes) => {
  const next = { ...state, ...changes };
  const kept = new URLSearchParams();
  for (const name of FIELDS) if (next[name]) kept.set(name, next[name]);
  if (next.page > 1) kept.set("page", next.page);
  if (next.item) kept.set("item", next.item);
  return `#${kept}`;
};

// Steps within a view leave no trace in the browser's history; those to another page or item do.
const go = (changes, remember = false) => {
  const to = address(changes);
  state = { ...state, ...changes }; // at once: the next change may come before the browser tells of this one
  if (remember) location.hash = to;
  else location.replace(to);
};

const perPage = () => parseInt(state.per, 10) || 24;
const pageCount = () => Math.max(1, Math.ceil(found.length / perPage()));

const describeFound = (first, last) => {
  const total = hvx.index.id.length;
  if (!found.length) return "No explanation fits.";
  const judged = found.filter((number) => hvx.index.right[number] !== null);
  const right = judged.filter((number) => hvx.index.right[number]).length;
  const share = judged.length ? `, ${((100 * right) / judged.length).toFixed(1)} % right` : "";
  const of = found.length === total ? "" : ` (of ${total.toLocaleString("en")} in all)`;
  return `${first.toLocaleString("en")}–${last.toLocaleString("en")} of ${found.length.toLocaleString("en")} explanations${of}${share}`;
};

const showCards = async () => {
  const view = address({ item: "" });
  if (view === shown) return;
  shown = view;
  found = hvx.select(state);
  const page = Math.min(state.page, pageCount());
  const start = (page - 1) * perPage();
  const numbers = found.slice(start, start + perPage());
  const details = await Promise.all(numbers.map(hvx.detail));
  if (shown !== view) return; // another view was asked for meanwhile
  at("cards").replaceChildren(...numbers.map((number, place) => card(
    number, details[place], address({ item: hvx.index.id[number] }),
  )));
  at("status").textContent = describeFound(start + 1, start + numbers.length);
  at("page").textContent = `page ${page} of ${pageCount()}`;
  at("first").disabled = at("previous").disabled = page <= 1;
  at("last").disabled = at("next").disabled = page >= pageCount();
};

const showItem = async () => {
  const number = hvx.numberOf.get(state.item);
  if (number === undefined) {
    if (dialog.open) dialog.close();
    return;
  }
  const detail = await hvx.detail(number);
  if (hvx.index.id[number] !== state.item) return;
  fillItem(number, detail);
  const place = found.indexOf(number);
  at("item-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${found.length.toLocaleString("en")}`;
  at("item-previous").disabled = place <= 0;
  at("item-next").disabled = place < 0 || place >= found.length - 1;
  at("item-link").href = `#item=${encodeURIComponent(state.item)}`;
  if (!dialog.open) dialog.showModal();
  at("item-question").focus();
};

const show = async () => {
  state = readState();
  for (const name of FIELDS) if (at(name) !== document.activeElement) at(name).value = state[name];
  await showCards();
  await showItem();
};

const step = (by) => {
  const place = found.indexOf(hvx.numberOf.get(state.item)) + by;
  if (state.item && place >= 0 && place < found.length) go({ item: hvx.index.id[found[place]] });
};

const turn = (to) => {
  const page = Math.max(1, Math.min(pageCount(), to));
  if (page === state.page) return;
  go({ page, item: "" }, true);
  scrollTo(0, 0);
};

const links = () => [...document.querySelectorAll(".card .open")];

const moveCard = (by) => {
  const all = links();
  const place = all.indexOf(document.activeElement);
  all[Math.max(0, Math.min(all.length - 1, place < 0 ? 0 : place + by))]?.focus();
};

const cardsInRow = () => {
  const tops = links().map((link) => link.closest(".card").offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
};

const toggle = (button, attribute, on, off) => {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  document.body.setAttribute(attribute, pressed ? on : off);
};

const THEMES = ["system", "light", "dark"];

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("hvx-theme", theme);
  } catch { /* a browser may keep nothing for pages from files */ }
};

const KEYS = {
  "/": () => at("q").focus(),
  j: () => moveCard(1),
  k: () => moveCard(-1),
  n: () => turn(state.page + 1),
  p: () => turn(state.page - 1),
  h: () => at("maps").click(),
  c: () => at("style").click(),
  t: () => at("theme").click(),
  "?": () => { at("keys").open = true; at("keys").scrollIntoView(); },
};

const ARROWS = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: cardsInRow, ArrowUp: () => -cardsInRow() };

const onKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key, target } = event;
  if (dialog.open) {
    if (key === "ArrowLeft") step(-1);
    if (key === "ArrowRight") step(1);
  }
  if (target.matches("input:not([type=checkbox]), select")) return;
  if (!dialog.open && ARROWS[key] && target.matches(".card .open")) {
    event.preventDefault();
    moveCard(ARROWS[key]());
  }
  const looks = "hct".includes(key);
  if (KEYS[key] && at("shortcuts").checked && (looks || !dialog.open)) {
    event.preventDefault();
    KEYS[key]();
  }
};

const listen = () => {
  for (const name of FIELDS) {
    at(name).addEventListener("input", () => go({ [name]: at(name).value, page: 1, item: "" }));
  }
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("q").addEventListener("keydown", (event) => {
    if (event.key === "Enter") links()[0]?.focus();
  });
  at("clear").addEventListener("click", () => {
    go({ ...Object.fromEntries(FIELDS.map((name) => [name, ""])), page: 1, item: "" });
  });
  at("first").addEventListener("click", () => turn(1));
  at("previous").addEventListener("click", () => turn(state.page - 1));
  at("next").addEventListener("click", () => turn(state.page + 1));
  at("last").addEventListener("click", () => turn(pageCount()));
  at("maps").addEventListener("click", () => toggle(at("maps"), "data-maps", "always", "hover"));
  at("style").addEventListener("click", () => toggle(at("style"), "data-style", "colour", "brightness"));
  at("theme").addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
  });
  at("skip").addEventListener("click", (event) => {
    event.preventDefault();
    links()[0]?.focus();
  });
  at("item-previous").addEventListener("click", () => step(-1));
  at("item-next").addEventListener("click", () => step(1));
  at("item-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (state.item) go({ item: "" }, true);
  });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", show);
};

const furnish = () => {
  const { about, kinds } = hvx;
  hvx.missingPhotos = new Set(about.missingPhotos);
  document.title = `${about.run}: explanations`;
  at("title").textContent = `Explanations of ${about.run}`;
  const parts = [`${about.items.toLocaleString("en")} explanations`];
  if (about.split) parts.push(`split ${about.split}`);
  at("subtitle").textContent = parts.join(", ");
  at("made").textContent = `Made by hvx ${about.version}. Agreement is the rank correlation of heat map and attention.`;
  for (const name of ["question_type", "answer_type"]) {
    const known = kinds[name].filter(Boolean);
    at(name).append(...known.map((kind) => element("option", { value: kind }, kind)));
    at(name).closest("label").hidden = !known.length;
  }
  ["feFuncR", "feFuncG", "feFuncB"].forEach((name, channel) => {
    const values = about.scale.map((colour) => colour[channel]).join(" ");
    document.querySelector(name).setAttribute("tableValues", values);
  });
  // From a grey to how much of the colour covers the photograph, as tint in hvx/view/heat.py.
  const nothing = "0 0 0 0 0 ".repeat(3);
  at("opacity").setAttribute("values", `${nothing}${about.tint - about.floorTint} 0 0 0 ${about.floorTint}`);
  document.body.style.setProperty("--dim", 1 - about.floor);
  const colours = element("span", { class: "colours", "aria-hidden": "true" });
  const stops = about.zColours.map((colour) => `rgb(${colour.join(" ")})`).join(", ");
  colours.style.background = `linear-gradient(to right, ${stops})`;
  at("scale").append(`Tokens: z from −${about.zLimit}`, colours, `to ${about.zLimit}`);
  let theme = "system";
  try {
    theme = localStorage.getItem("hvx-theme") ?? theme;
  } catch { /* as in setTheme */ }
  setTheme(THEMES.includes(theme) ? theme : "system");
};

const start = async () => {
  try {
    await hvx.open();
  } catch (error) {
    at("status").textContent = `This gallery is not whole: ${error.message}. Build it again with hvx gallery.`;
    return;
  }
  furnish();
  listen();
  await show();
  document.body.dataset.ready = "true";
};

start();
