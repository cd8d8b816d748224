"use strict";
const page = JSON.parse(document.getElementById("outcomes").textContent);
const form = document.querySelector("form.filters");
const dialog = document.querySelector("dialog");
const number = (x) => (typeof x === "number" ? x.toExponential(2) : x);
const SHOWN = [
  ["difference", number], ["tolerance", number], ["worst", String], ["witness", String],
  ["seconds", (x) => (x * 1000).toPrecision(3) + " ms"], ["message", String], ["found", String],
  ["reason", String], ["link", String], ["source", String], ["tags", String],
];
const NAMES = {worst: "worst leaf", seconds: "time", found: "without the gap"};

// An outcome as in report.json; here each string stands once in a list.
function outcome(i) {
  const found = {};
  for (const [key, value] of Object.entries(page.outcomes[i])) {
    found[key] = typeof value === "object" ? page.strings[value[0]] : value;
  }
  return found;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function value(key, text) {
  const dd = element("dd", key === "link" ? "" : text);
  if (key === "link") {
    const a = element("a", text);
    if (/^https?:/.test(text)) a.href = text;
    dd.append(a);
  }
  return dd;
}

function numbers(o) {
  const title = element("h3", [o.mode, o.dtype, o.device].filter(Boolean).join(", ") + " ");
  title.append(element("i", o.cell, page.words[o.cell]));
  const list = document.createElement("dl");
  for (const [key, shown] of SHOWN) {
    if (o[key] !== undefined) list.append(element("dt", NAMES[key] || key), value(key, shown(o[key])));
  }
  return [title, list];
}

function open(button) {
  const found = button.dataset.o.split(" ").map(outcome);
  const [o] = found;
  dialog.querySelector("h2").textContent = [o.group, o.case, o.mode, o.backend].filter(Boolean).join(" \u203a ");
  dialog.querySelector(".numbers").replaceChildren(...found.flatMap(numbers));
  dialog.showModal();
  dialog.scrollTop = 0;
}

// One cell of each table is in the order of Tab; arrow keys move from there.
const STEPS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

function moved(button, [down, right]) {
  const cell = button.closest("td");
  let row = cell.parentElement;
  let column = cell.cellIndex;
  for (;;) {
    column += right;
    if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    if (!row || !row.cells[column]) return null;
    const next = !row.hidden && !row.cells[column].hidden && row.cells[column].querySelector("button");
    if (next) return next;
  }
}

function reachable(table) {
  const buttons = [...table.querySelectorAll("tbody tr:not([hidden]) button")];
  for (const button of table.querySelectorAll("button[tabindex='0']")) button.tabIndex = -1;
  const first = buttons.find((button) => !button.parentElement.hidden);
  if (first) first.tabIndex = 0;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("td button");
  if (button) open(button);
  else if (event.target === dialog) dialog.close();
});

document.addEventListener("keydown", (event) => {
  const button = event.target.closest("td button");
  const next = button && STEPS[event.key] && moved(button, STEPS[event.key]);
  if (!next) return;
  event.preventDefault();
  button.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

// Filters hide rows, columns of other backends, and what is empty then.
function filter() {
  const {group, backend, kind, case: part} = Object.fromEntries(new FormData(form));
  const wanted = part.trim().toLowerCase();
  const good = (words) => !kind || words.split(" ").some((word) => page.kinds[kind].includes(word));
  let rows = 0;
  for (const section of document.querySelectorAll("section.group")) {
    let inside = 0;
    for (const table of section.querySelectorAll("table")) {
      const place = backend ? [...table.querySelectorAll("thead th")].findIndex((th) => th.dataset.backend === backend) : -1;
      const other = Boolean(backend && table.dataset.backend && table.dataset.backend !== backend);
      let left = 0;
      for (const row of table.tBodies[0].rows) {
        const cells = place > 0 ? [row.cells[place]] : [...row.cells].slice(1);
        const named = row.cells[0].textContent.toLowerCase().includes(wanted);
        row.hidden = other || (group && group !== section.dataset.group) || !named ||
          !(place > 0 ? cells.some((cell) => cell.dataset.k && good(cell.dataset.k)) : good(row.dataset.k));
        left += row.hidden ? 0 : 1;
      }
      if (!table.dataset.backend) {
        for (const row of table.rows) {
          for (let i = 1; i < row.cells.length; i++) row.cells[i].hidden = Boolean(backend) && i !== place;
        }
      }
      table.closest(".scroll").hidden = !left;
      if (left) reachable(table);
      inside += left;
    }
    section.hidden = !inside;
    rows += inside;
  }
  form.querySelector("output").textContent = rows + (rows === 1 ? " row" : " rows");
}

form.hidden = document.querySelector(".hint").hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
const height = () => document.documentElement.style.setProperty("--filters", form.offsetHeight + "px");
addEventListener("resize", height);
height();
filter();
