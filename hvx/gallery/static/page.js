// The page: its state lives in the address after #, so that every view and every explanation has a link.
"use strict";

const at = (id) => document.getElementById(id);
const dialog = at("item");
let state = {};
let units = [];
let matches = [];
let shown = "";
let opened = null; // the item that is open
let entered = false; // whether opening it left a step in the browser's history, which closing goes back over
let leaving = null; // while the browser goes back: what was chosen in the item and since, which the older address lacks

const address = (changes) => hvx.address({ ...state, ...changes });

// Looks and steps within an open item leave no trace in the browser's history; filters, pages and opening do.
const go = (changes, remember = false) => {
  const to = address(changes);
  state = { ...state, ...changes }; // at once: the next change may come before the browser tells of this one
  if (leaving) {
    leaving = { ...leaving, changes: { ...leaving.changes, ...changes }, remember: leaving.remember || remember };
  } else if (remember) location.hash = to;
  else location.replace(to);
};

const pageCount = () => hvx.pageCount(units, state);

const showLooks = () => {
  const pressed = (id, on) => at(id).setAttribute("aria-pressed", String(on));
  const { body } = document;
  body.dataset.maps = state.maps === "hover" ? "hover" : "always";
  body.dataset.style = hvx.style(state);
  body.style.setProperty("--row", /^[1-9]$/.test(state.row) ? state.row : 0);
  body.toggleAttribute("data-row", /^[1-9]$/.test(state.row));
  pressed("maps", body.dataset.maps === "always");
  pressed("style", body.dataset.style === "color");
  pressed("group", state.group === "image");
  const columns = hvx.shownColumns(state);
  for (const box of at("show").querySelectorAll("input")) box.checked = columns.includes(Number(box.value));
};

const cardsOf = async (numbers) => {
  const details = await Promise.all(numbers.map(hvx.detail));
  const columns = hvx.shownColumns(state).filter((column) => column || state.group !== "image");
  return numbers.map((number, index) => card(number, details[index], "#", columns));
};

const showCards = async () => {
  const view = address({ item: "", maps: "", style: "", row: "" });
  if (view === shown) return;
  shown = view;
  units = hvx.units(hvx.select(state), state);
  matches = units.flat();
  const { page, start, numbers } = hvx.pageOf(units, state);
  const grouped = state.group === "image";
  const made = grouped
    ? await Promise.all(numbers.map(async (group) => groupOfCards(group, await cardsOf(group))))
    : await cardsOf(numbers);
  if (shown !== view) return; // another view was asked for meanwhile
  // Cards come a moment after they are asked for; who has gone to one meanwhile stays on it, or on the first.
  const focused = document.activeElement.closest(".card")?.dataset.id;
  at("cards").replaceChildren(...made);
  at("cards").className = grouped ? "groups" : "cards";
  if (focused !== undefined) (linkTo(focused) ?? links()[0])?.focus({ preventScroll: true });
  const before = units.slice(0, start).flat().length;
  at("status").textContent = hvx.foundText(matches, before + 1, before + numbers.flat().length);
  at("page").textContent = `page ${page} of ${pageCount()}`;
  at("first").disabled = at("previous").disabled = page <= 1;
  at("last").disabled = at("next").disabled = page >= pageCount();
};

const linkTo = (id) => links().find((link) => link.closest(".card").dataset.id === id);

// After an item was closed, its card has the focus, on whatever page it is.
const returnTo = async (number) => {
  const page = hvx.pageWith(units, state, number);
  if (page !== hvx.pageOf(units, state).page) {
    go({ page });
    await showCards();
  }
  const link = linkTo(hvx.index.id[number]);
  link?.closest(".card").scrollIntoView({ block: "nearest" });
  link?.focus({ preventScroll: true });
};

const closeItem = () => {
  if (!state.item) return;
  state = { ...state, item: "" };
  if (entered) {
    const changes = Object.fromEntries(hvx.LOOKS.map((name) => [name, state[name]]));
    leaving = { changes, remember: false, from: location.hash };
    history.back();
  } else location.replace(address({}));
};

const showItem = async () => {
  const number = hvx.numberOf.get(state.item);
  if (number === undefined) {
    if (dialog.open) dialog.close();
    const last = opened;
    opened = null;
    entered = false;
    if (last !== null) await returnTo(last);
    return;
  }
  opened = number;
  const detail = await hvx.detail(number);
  if (hvx.index.id[number] !== state.item) return;
  fillItem(number, detail);
  at("item-place").textContent = hvx.positionText(matches, number);
  at("item-previous").disabled = hvx.neighbor(matches, number, -1) === undefined;
  at("item-next").disabled = hvx.neighbor(matches, number, 1) === undefined;
  at("item-link").href = `#item=${encodeURIComponent(state.item)}`;
  at("item-pick").checked = hvx.selected.has(number);
  if (!dialog.open) dialog.showModal();
  at("item-question").focus();
};

const show = async () => {
  if (leaving?.from === location.hash) return; // told of a change from before the item was closed
  state = hvx.readState(location.hash);
  if (leaving) {
    const { changes, remember } = leaving;
    leaving = null;
    if (address(changes) !== address({})) go(changes, remember);
  }
  for (const name of [...hvx.FIELDS, "row"]) if (at(name) !== document.activeElement) at(name).value = state[name];
  showLooks();
  await showCards();
  for (const link of links()) link.href = address({ item: link.closest(".card").dataset.id });
  await showItem();
};

const showSelection = () => {
  const numbers = hvx.selection();
  const kind = at("selection-kind").value;
  at("selection").hidden = !numbers.length;
  at("selection-count").textContent = `${numbers.length.toLocaleString("en")} selected`;
  at("selection-text").value = hvx.EXPORTS[kind](numbers);
  at("selection-snippet").hidden = kind !== "rows";
  at("selection-snippet").textContent = hvx.snippet();
  for (const box of document.querySelectorAll(".pick input")) {
    box.checked = hvx.selected.has(hvx.numberOf.get(box.closest(".card").dataset.id));
  }
  if (opened !== null) at("item-pick").checked = hvx.selected.has(opened);
};

const select = (number, on = !hvx.selected.has(number)) => {
  if (number === undefined || number === null) return;
  if (on) hvx.selected.add(number);
  else hvx.selected.delete(number);
  showSelection();
};

const copySelection = async () => {
  const text = at("selection-text");
  try {
    await navigator.clipboard.writeText(text.value);
  } catch {
    at("selection-shown").open = true;
    text.select();
    document.execCommand("copy"); // where a page from a file has no clipboard of its own
  }
  at("selection-copy").textContent = "Copied";
  setTimeout(() => { at("selection-copy").textContent = "Copy"; }, 1500);
};

const saveSelection = () => {
  const blob = new Blob([at("selection-text").value], { type: "text/plain" });
  const link = element("a", { href: URL.createObjectURL(blob), download: hvx.FILES[at("selection-kind").value] });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const step = (by) => {
  const number = hvx.neighbor(matches, hvx.numberOf.get(state.item), by);
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
  const index = all.indexOf(document.activeElement);
  all[Math.max(0, Math.min(all.length - 1, index < 0 ? 0 : index + by))]?.focus();
};

const cardsInRow = () => {
  const tops = links().map((link) => link.closest(".card").offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
};

const LOOKS = {
  maps: () => ({ maps: state.maps === "hover" ? "" : "hover" }),
  style: () => ({ style: hvx.style(state) === hvx.STYLES[0] ? hvx.STYLES[1] : "" }),
  group: () => ({ group: state.group === "image" ? "" : "image", page: 1 }),
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
  g: () => at("group").click(),
  x: () => select(opened ?? numberOn(document.activeElement)),
  t: () => at("theme").click(),
  "?": () => { at("keys").open = true; at("keys").scrollIntoView(); },
};

// The item on whose card an element is.
const numberOn = (node) => hvx.numberOf.get(node.closest(".card")?.dataset.id);

const ARROWS = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: cardsInRow, ArrowUp: () => -cardsInRow() };

const onKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key, target } = event;
  if (dialog.open) {
    if (key === "ArrowLeft") step(-1);
    if (key === "ArrowRight") step(1);
  }
  if (target.matches("input:not([type=checkbox]), select, textarea")) return;
  if (!dialog.open && ARROWS[key] && target.matches(".card .open")) {
    event.preventDefault();
    moveCard(ARROWS[key]());
  }
  const looks = "hctx".includes(key);
  if (KEYS[key] && at("shortcuts").checked && (looks || !dialog.open)) {
    event.preventDefault();
    KEYS[key]();
  }
};

const listen = () => {
  for (const name of hvx.FIELDS) {
    // Typing is one step of the browser's history, from the first letter until the field is left.
    let typing = false;
    at(name).addEventListener("input", () => {
      go({ [name]: at(name).value, page: 1, item: "" }, !typing);
      typing = at(name).matches("input");
    });
    at(name).addEventListener("blur", () => { typing = false; });
  }
  at("row").addEventListener("input", () => go({ row: at("row").value }));
  at("show").addEventListener("input", () => {
    const show = [...at("show").querySelectorAll("input:checked")].map((box) => box.value).join(".");
    go({ show });
  });
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("q").addEventListener("keydown", (event) => {
    if (event.key === "Enter") links()[0]?.focus();
  });
  at("clear").addEventListener("click", () => {
    go({ ...Object.fromEntries(hvx.FIELDS.map((name) => [name, ""])), page: 1, item: "" }, true);
  });
  at("first").addEventListener("click", () => turn(1));
  at("previous").addEventListener("click", () => turn(state.page - 1));
  at("next").addEventListener("click", () => turn(state.page + 1));
  at("last").addEventListener("click", () => turn(pageCount()));
  for (const [name, changes] of Object.entries(LOOKS)) at(name).addEventListener("click", () => go(changes()));
  at("cards").addEventListener("click", (event) => {
    if (event.target.closest(".open")) entered = !(event.ctrlKey || event.metaKey || event.shiftKey);
  });
  at("cards").addEventListener("change", (event) => select(numberOn(event.target), event.target.checked));
  at("item-pick").addEventListener("change", () => select(opened, at("item-pick").checked));
  at("selection-kind").addEventListener("change", showSelection);
  at("selection-copy").addEventListener("click", copySelection);
  at("selection-save").addEventListener("click", saveSelection);
  at("selection-all").addEventListener("click", () => {
    matches.forEach((number) => hvx.selected.add(number));
    showSelection();
  });
  at("selection-clear").addEventListener("click", () => {
    hvx.selected.clear();
    showSelection();
    links()[0]?.focus();
  });
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
  dialog.addEventListener("close", closeItem);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", show);
};

const furnish = () => {
  const { about, kinds } = hvx;
  hvx.missingPhotos = new Map(about.missingPhotos);
  at("gradient").closest("label").hidden = hvx.index.zero.every((bits) => bits === 0);
  document.title = `${about.run}: explanations`;
  const two = about.runs.length > 1;
  const title = about.runs.map(({ label, name }) => [element("span", {}, label), label && " ", element("bdi", {}, name)]);
  at("title").replaceChildren("Explanations of ", ...(two ? title.flatMap((parts, run) => (run ? [", ", ...parts] : parts)) : [about.run]));
  at("versus").closest("label").hidden = !two;
  for (const option of document.querySelectorAll("[data-two]")) if (!two) option.remove();
  at("show").append(...about.columns.map((name, column) => {
    const box = element("input", { type: "checkbox", value: column });
    return element("label", {}, box, name);
  }));
  fillSummary();
  at("filters").open = at("selection-shown").open = !matchMedia("(max-width: 40rem)").matches;
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
    const values = about.scale.map((color) => color[channel]).join(" ");
    document.querySelector(name).setAttribute("tableValues", values);
  });
  // From a gray to how much of the color covers the photograph, as tint in hvx/view/heat.py.
  const nothing = "0 0 0 0 0 ".repeat(3);
  at("opacity").setAttribute("values", `${nothing}${about.tint - about.floorTint} 0 0 0 ${about.floorTint}`);
  document.body.style.setProperty("--dim", 1 - about.floor);
  const colors = element("span", { class: "colors", "aria-hidden": "true" });
  const stops = about.zColors.map((color) => `rgb(${color.join(" ")})`).join(", ");
  colors.style.background = `linear-gradient(to right, ${stops})`;
  at("scale").append(`Tokens: z from −${about.zLimit}`, colors, `to ${about.zLimit}`);
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
    delete document.body.dataset.loading;
    at("status").textContent = `This gallery is not whole: ${error.message}. Build it again with hvx gallery.`;
    return;
  }
  furnish();
  listen();
  await show();
  delete document.body.dataset.loading;
  document.body.dataset.ready = "true";
};

start();
