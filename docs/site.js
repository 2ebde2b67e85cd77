"use strict";
const root = document.documentElement, by = id => document.getElementById(id);

by("scheme").onclick = () => {
  root.dataset.scheme = root.dataset.scheme === "dark" ? "light" : "dark";
  localStorage.setItem("scheme", root.dataset.scheme);
};

by("menu").onclick = () => by("menu").setAttribute("aria-expanded", by("contents").classList.toggle("open"));
document.querySelector("#contents .here")?.scrollIntoView({block: "center"});
scrollTo(0, location.hash ? scrollY : 0);

// every table may be wider than a phone
for (const table of document.querySelectorAll("main table")) {
  if (table.closest(".wide, .rich")) continue;
  const box = document.createElement("div");
  box.className = "wide";
  table.replaceWith(box);
  box.append(table);
}

// one sound at a time
document.addEventListener("play", event => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);

// search: sections that hold all words, those with a word in the heading or title first
const box = by("search"), found = by("found");
const escaped = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
function load() {
  if (window.searchIndex || load.started) return;
  load.started = true;
  const script = document.createElement("script");
  script.src = "search_index.js";
  script.onload = show;
  document.head.append(script);
}
function show() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  found.hidden = !words.length || !window.searchIndex;
  if (found.hidden) return;
  const hits = [];
  for (const {u, t, h, x} of window.searchIndex) {
    const text = x.toLowerCase(), head = `${t} ${h}`.toLowerCase();
    if (!words.every(w => text.includes(w) || head.includes(w))) continue;
    const at = Math.max(0, text.indexOf(words[0]) - 60);
    hits.push({u, t, h, score: words.reduce((s, w) => s + 10 * head.includes(w) + Math.min(5, text.split(w).length - 1), 0), piece: x.slice(at, at + 180)});
  }
  hits.sort((a, b) => b.score - a.score);
  found.innerHTML = hits.slice(0, 20).map(({u, t, h, piece}) =>
    `<a href="${escaped(u)}"><b>${escaped(t)}</b>${h && h !== t ? " · " + escaped(h) : ""}<small>…${escaped(piece)}…</small></a>`).join("") || "<p>Nothing found.</p>";
}
box.onfocus = load;
box.oninput = () => { load(); show(); };
box.onkeydown = event => {
  if (event.key === "Escape") { box.value = ""; show(); }
  if (event.key === "Enter") found.querySelector("a")?.click();
};
document.addEventListener("keydown", event => {
  if (event.key === "/" && !/input|textarea/i.test(document.activeElement.tagName)) { event.preventDefault(); box.focus(); }
});
document.addEventListener("click", event => { if (!event.target.closest(".search")) found.hidden = true; });
const asked = new URLSearchParams(location.search).get("q");
if (asked) { box.value = asked; load(); }
