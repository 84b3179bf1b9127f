"use strict";
// Data, elements, words, numbers, addresses. Text from the data is only ever set as text, never as markup.

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);
const PAPERS = new Map(DATA.papers.map((paper) => [paper.name, paper]));
const PROFILES = new Map(DATA.profiles.map((profile) => [profile.name, profile]));
const SYMBOLS = new Map(DATA.standings);
const NOTHING = "–";
// In the order of the tabs: name → {title, draw(parameters, rest) → content}; each view's file sets its own.
const VIEWS = { claims: null, leaderboard: null, cell: null, cost: null, papers: null, compare: null, reproduce: null };

// ------------------------------------------------------------------------------------------------------ elements

/** Add content to a node: nodes, texts, nested lists of them, and attributes as plain objects. */
function fill(node, ...content) {
  for (const one of content.flat(Infinity)) {
    if (one == null || one === false) continue;
    if (one instanceof Node || typeof one !== "object") node.append(one);
    else for (const [name, value] of Object.entries(one)) {
      if (value == null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
  }
  return node;
}

function named(space, tag, content) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElementNS(space, name), { class: classes.join(" ") || null }, content);
}

/** el("p.small.muted", {title: "…"}, "text", nodes) */
const el = (tag, ...content) => named("http://www.w3.org/1999/xhtml", tag, content);
const svg = (tag, ...content) => named("http://www.w3.org/2000/svg", tag, content);

/** What the template of the page with this id holds. */
const stored = (id) => byId(id).content.cloneNode(true);

/** A table inside a region that scrolls and that the keyboard reaches. */
function scrolling(label, table) {
  return el("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, table);
}

/** columns: [title, row → content]; the first is the row's heading. */
function table(label, columns, rows) {
  const cell = (row) => ([, content], index) =>
    index ? el("td", content(row)) : el("th.left", { scope: "row" }, content(row));
  return scrolling(label, el("table.card",
    el("thead", el("tr", columns.map(([title]) => el("th", { scope: "col" }, title)))),
    el("tbody", rows.map((row) => el("tr", columns.map(cell(row)))))));
}

const list = (tag, rows, line) => el(tag, rows.map((row) => el("li", line(row))));

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value || value === 0);
  return el("dl.facts", shown.map(([name, value]) => [el("dt", name), el("dd", value)]));
}

let controls = 0;

/** A control below its label. Drawing a view begins to count anew, so that a control keeps its id. */
function labelled(label, control, kind = "control") {
  control.id = `control-${(controls += 1)}`;
  return el(`div.${kind}`, el("label", { for: control.id }, label), control);
}

/** options: [value, text], or texts that are their own values. */
function select(label, options, chosen, change) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  return labelled(label, el("select", { onchange: (event) => change(event.target.value) },
    pairs.map(([value, text]) => el("option", { value, selected: value === (chosen || "") }, text))));
}

function command(text) {
  return el("div.command", el("pre", text), el("button.small.noprint.copy", { type: "button" }, "Copy"),
    el("span.hidden", { role: "status" }));
}

addEventListener("click", async ({ target: button }) => {
  if (!button.matches(".copy")) return;
  const [text, , said] = button.parentNode.children;
  let done = true;
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    getSelection().selectAllChildren(text); // a page from a file may not use the clipboard without asking
    done = document.execCommand("copy");
  }
  button.textContent = said.textContent = done ? "Copied" : "Select and copy it by hand";
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

// ----------------------------------------------------------------------------------------------- numbers and words

function number(value, decimals = 2, signed = false) {
  if (value == null || Number.isNaN(value)) return NOTHING;
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : signed && value > 0 ? `+${text}` : text).replace("-", "−");
}

function interval({ low, high }, decimals = 2, signed = false) {
  return low == null ? NOTHING : `[${number(low, decimals, signed)}, ${number(high, decimals, signed)}]`;
}

const short = (value) => number(Number(value.toPrecision(6)), 10).replace(/\.?0+$/, "");
const pValue = (p) => (p == null ? NOTHING : p < 0.001 ? "< 0.001" : p.toFixed(3));
const count = (value, noun) => `${value} ${noun}${value === 1 ? "" : "s"}`;
const unique = (values) => [...new Set(values)];
const cite = (paper) => (PAPERS.has(paper) ? PAPERS.get(paper).cite : paper);
const cssName = (standing) => (standing === "inconclusive" ? "open" : standing.replace(" ", "-"));

function chip(standing, text = standing) {
  const symbol = SYMBOLS.get(standing) || SYMBOLS.get(cssName(standing)) || "≠";
  return el(`span.chip.${cssName(standing)}`, el("span", { "aria-hidden": "true" }, `${symbol} `), text);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Mean with its unadjusted 95 % t interval. */
function summarise(values) {
  const n = values.length, middle = mean(values);
  if (n < 2) return n ? { mean: middle, n } : null;
  const sd = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (n - 1));
  const half = (DATA.quantiles[n] * sd) / Math.sqrt(n);
  return { mean: middle, n, sd, low: middle - half, high: middle + half };
}

// ------------------------------------------------------------------------------------------------- where we are

/** ``#view/rest?name=value`` → {view, rest, wanted}. */
function place() {
  const [path, query] = location.hash.slice(1).split("?");
  try {
    const [view, ...rest] = path.split("/").map(decodeURIComponent);
    if (Object.hasOwn(VIEWS, view)) return { view, rest, wanted: Object.fromEntries(new URLSearchParams(query)) };
  } catch {
    // a mistyped address: the first view
  }
  return { view: "claims", rest: [], wanted: {} };
}

function link(view, parameters = {}, rest = []) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return `#${[view, ...rest.map(encodeURIComponent)].join("/")}${query && `?${query}`}`;
}

/** Change the permalink without a new entry in the history, and draw again. */
function stay(view, parameters, rest = []) {
  history.replaceState(null, "", link(view, parameters, rest));
  draw();
}

/** For each of [name, label, options, chosen] a list that changes the parameter of that name; the names after it are
 * forgotten with it. */
function choosers(view, wanted, all) {
  return all.filter(Boolean).map(([name, label, options, chosen = wanted[name], ...forgotten]) =>
    select(label, options, chosen, (value) =>
      stay(view, { ...wanted, ...Object.fromEntries(forgotten.map((other) => [other, ""])), [name]: value })));
}
