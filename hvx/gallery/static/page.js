// The page: its state lives in the address after #, so that every view and every explanation has a link.
"use strict";

const at = (id) => document.getElementById(id);
const dialog = at("item");
let state = {};
let found = [];
let shown = "";

const address = (changes) => hvx.address({ ...state, ...changes });

// Steps within a view leave no trace in the browser's history; those to another page or item do.
const go = (changes, remember = false) => {
  const to = address(changes);
  state = { ...state, ...changes }; // at once: the next change may come before the browser tells of this one
  if (remember) location.hash = to;
  else location.replace(to);
};

const pageCount = () => hvx.pageCount(found, state);

const showCards = async () => {
  const view = address({ item: "" });
  if (view === shown) return;
  shown = view;
  found = hvx.select(state);
  const { page, start, numbers } = hvx.pageOf(found, state);
  const details = await Promise.all(numbers.map(hvx.detail));
  if (shown !== view) return; // another view was asked for meanwhile
  at("cards").replaceChildren(...numbers.map((number, place) => card(
    number, details[place], address({ item: hvx.index.id[number] }),
  )));
  at("status").textContent = hvx.foundText(found, start + 1, start + numbers.length);
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
  at("item-place").textContent = hvx.positionText(found, number);
  at("item-previous").disabled = hvx.neighbor(found, number, -1) === undefined;
  at("item-next").disabled = hvx.neighbor(found, number, 1) === undefined;
  at("item-link").href = `#item=${encodeURIComponent(state.item)}`;
  if (!dialog.open) dialog.showModal();
  at("item-question").focus();
};

const show = async () => {
  state = hvx.readState(location.hash);
  for (const name of hvx.FIELDS) if (at(name) !== document.activeElement) at(name).value = state[name];
  await showCards();
  await showItem();
};

const step = (by) => {
  const number = hvx.neighbor(found, hvx.numberOf.get(state.item), by);
  if (number !== undefined) go({ item: hvx.index.id[number] });
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
  for (const name of hvx.FIELDS) {
    at(name).addEventListener("input", () => go({ [name]: at(name).value, page: 1, item: "" }));
  }
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("q").addEventListener("keydown", (event) => {
    if (event.key === "Enter") links()[0]?.focus();
  });
  at("clear").addEventListener("click", () => {
    go({ ...Object.fromEntries(hvx.FIELDS.map((name) => [name, ""])), page: 1, item: "" });
  });
  at("first").addEventListener("click", () => turn(1));
  at("previous").addEventListener("click", () => turn(state.page - 1));
  at("next").addEventListener("click", () => turn(state.page + 1));
  at("last").addEventListener("click", () => turn(pageCount()));
  at("maps").addEventListener("click", () => toggle(at("maps"), "data-maps", "always", "hover"));
  at("style").addEventListener("click", () => toggle(at("style"), "data-style", "colour", "paper"));
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
  hvx.missingPhotos = new Map(about.missingPhotos);
  at("gradient").closest("label").hidden = hvx.index.zero.every((bits) => bits === 0);
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
