"use strict";
// Data, elements, words and numbers. Text from the data is only ever set as text, never as markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const NOTHING = "–";
const VIEWS = {}; // name → {title, draw(parameters) → elements}; each view's file adds its own

// ------------------------------------------------------------------------------------------------------ elements

function fill(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function assign(node, attributes) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

function el(tag, attributes, ...children) {
  return fill(assign(document.createElement(tag), attributes), children);
}

function svg(tag, attributes, ...children) {
  return fill(assign(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes), children);
}

/** A table inside a region that scrolls and that the keyboard reaches. */
function scrolling(label, table) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "facts" },
    shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

function select(label, options, chosen, change) {
  const list = el(
    "select",
    { onchange: (event) => change(event.target.value) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  return labelled(label, list);
}

let controls = 0;

/** A control below its label. Drawing a view begins to count anew, so that a control keeps its id. */
function labelled(label, control, kind = "") {
  control.id = `control-${(controls += 1)}`;
  return el("div", { class: `control ${kind}` }, el("label", { for: control.id }, label), control);
}

function copyButton(text, label) {
  const button = el("button", { type: "button", class: "small noprint" }, label || "Copy");
  const said = el("span", { class: "hidden", role: "status" });
  const usual = button.textContent;
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // a page from a file may not use the clipboard without asking
      const area = el("textarea", { "aria-hidden": "true" }, text);
      (button.closest("dialog") || document.body).append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Select and copy it by hand";
    said.textContent = button.textContent;
    setTimeout(() => {
      button.textContent = usual;
    }, 2000);
  });
  return [button, said];
}

function command(text) {
  return el("div", { class: "command" }, el("pre", {}, text), copyButton(text));
}

// ------------------------------------------------------------------------------------------------------- numbers

function number(value, decimals = 2, signed = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  let text = value.toFixed(decimals);
  if (Number(text) === 0) text = text.replace("-", "");
  else if (signed && value > 0) text = `+${text}`;
  return text.replace("-", "−");
}

function interval(low, high, decimals = 2, signed = false) {
  if (low === null || low === undefined) return NOTHING;
  return `[${number(low, decimals, signed)}, ${number(high, decimals, signed)}]`;
}

function pValue(p) {
  if (p === null || p === undefined) return NOTHING;
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

function count(value, noun) {
  return `${value} ${noun}${value === 1 ? "" : "s"}`;
}

function unique(values) {
  return [...new Set(values)];
}

// -------------------------------------------------------------------------------------------------------- words

const PAPERS = new Map(DATA.papers.map((paper) => [paper.name, paper]));
const PROFILES = new Map(DATA.profiles.map((profile) => [profile.name, profile]));
const SYMBOLS = {
  supported: "✓",
  "leans for": "↗",
  open: "○",
  "leans against": "↘",
  refuted: "✗",
  stopped: "■",
  "not run": "·",
  inconclusive: "○",
};

function cite(paper) {
  return PAPERS.has(paper) ? PAPERS.get(paper).cite : paper;
}

function cssName(standing) {
  return standing === "inconclusive" ? "open" : standing.replace(" ", "-");
}

function chip(standing, text) {
  return el(
    "span",
    { class: `chip ${cssName(standing)}` },
    el("span", { "aria-hidden": "true" }, `${SYMBOLS[standing] || "≠"} `),
    text || standing,
  );
}

// ------------------------------------------------------------------------------------------------- where we are

/** ``#view/rest?name=value`` → {view, rest, parameters}. */
function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const parameters = Object.fromEntries(new URLSearchParams(query || ""));
  try {
    const [view, ...rest] = path.split("/").map(decodeURIComponent);
    if (Object.hasOwn(VIEWS, view)) return { view, rest, parameters };
  } catch {
    // a mistyped address: the first view
  }
  return { view: "claims", rest: [], parameters: {} };
}

function link(view, parameters = {}, rest = []) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return `#${[view, ...rest.map(encodeURIComponent)].join("/")}${query ? `?${query}` : ""}`;
}

/** Change the permalink without a new entry in the history, and draw again. */
function stay(view, parameters, rest = []) {
  history.replaceState(null, "", link(view, parameters, rest));
  draw();
}
