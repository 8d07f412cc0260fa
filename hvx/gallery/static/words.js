// Heat maps of words: while the pointer or the keyboard's focus is on a word, its map stands in the place of the heat map.
"use strict";

// Says of each run's details where its words' maps lie in the item's picture of them, as save_words in hvx/gallery/pictures.py.
hvx.placeWords = (number, details) => {
  const counts = details.map(({ tokens }, run) => Math.min(tokens.length, hvx.about.runs[run].words ?? 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  details.forEach((detail, run) => {
    const first = counts.slice(0, run).reduce((sum, count) => sum + count, 0);
    if (counts[run]) detail.words = { number, run, first, count: counts[run], total };
  });
};

// Ties a token to its map, if it has one.
hvx.tieWord = (span, detail, index) => {
  const { words } = detail;
  if (!words || index >= words.count) return;
  span.word = { ...words, column: words.first + index };
  span.dataset.word = "";
};

// Lets the keyboard reach a token that has a map; on cards, where tokens are a link's text, only the pointer does.
hvx.focusable = (span) => {
  if (span.word) span.tabIndex = 0;
  return span;
};

const mapOf = (span) => span.closest(".card, dialog")?.querySelector(`[data-heatmap-of="${span.word.run}"] .map`);

const showWord = (span) => {
  const map = mapOf(span);
  if (!map) return;
  hideWord(span);
  const { number, column, total } = span.word;
  const box = map.parentElement;
  const shown = map.cloneNode();
  shown.classList.add("word");
  shown.style.backgroundImage = `url("${hvx.picturePath("words", number)}")`;
  shown.style.backgroundSize = `${100 * total}% 200%`;
  shown.style.backgroundPositionX = total > 1 ? `${(100 * column) / (total - 1)}%` : "0";
  box.classList.add("of-word");
  box.append(shown, element("p", { class: "note word", dir: "auto" }, span.textContent));
};

const hideWord = (span) => {
  const box = mapOf(span)?.parentElement;
  box?.classList.remove("of-word");
  box?.querySelectorAll(".word").forEach((node) => node.remove());
};

for (const [kinds, act] of [[["mouseover", "focusin"], showWord], [["mouseout", "focusout"], hideWord]]) {
  for (const kind of kinds) {
    document.addEventListener(kind, ({ target }) => {
      const span = target.closest?.("[data-word]");
      if (span?.word) act(span);
    });
  }
}
