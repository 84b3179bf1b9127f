// The frame: tabs, theme, the views without choices of their own, and the view that the address names.

VIEWS.papers = {
  title: "Papers",
  draw(_, [name]) {
    const paper = PAPERS.get(name) || DATA.papers[0];
    return [
      el("h1", "Published beside measured"),
      paper ? el("div.controls", select("Paper", DATA.papers.map((one) => [one.name, `${one.cite}: ${one.title}`]),
        paper.name, (value) => stay("papers", {}, [value]))) : el("p", "This project has no folder of papers."),
      paper && stored(`paper-${paper.name}`),
    ];
  },
};
VIEWS.reproduce = { title: "Reproduce", draw: () => stored("reproduce") };

/** Draw the view that the address names; the element that had the focus gets it again. */
function draw() {
  const { view, wanted, rest } = place(), node = byId("view"), focused = document.activeElement;
  const { id, selectionStart } = node.contains(focused) ? focused : {};
  const current = VIEWS[view].under || view;
  byId("tabs").replaceChildren(...Object.entries(VIEWS).filter(([, one]) => !one.under).map(([name, one]) =>
    el("li", el("a", { href: link(name), "aria-current": name === current && "page" }, one.title))));
  document.title = `${VIEWS[view].title} · CollaBench`;
  controls = 0;
  node.replaceChildren();
  fill(node, VIEWS[view].draw(wanted, rest));
  const again = id && byId(id);
  if (again) {
    again.focus();
    if (again.type === "search") again.setSelectionRange(selectionStart, selectionStart);
  }
}

function setTheme(theme) {
  const other = theme === "dark" ? "light" : "dark", button = byId("theme");
  document.documentElement.dataset.theme = theme;
  button.textContent = other === "dark" ? "Dark" : "Light";
  button.setAttribute("aria-label", `Change to ${other} colours`);
  button.onclick = () => {
    setTheme(other);
    kept((store) => store.setItem("collabench-theme", other));
  };
}

/** Use what the browser keeps; null where it keeps nothing for files. */
function kept(use) {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
}

const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
setTheme(kept((store) => store.getItem("collabench-theme")) || system);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
let shown = place().view;
addEventListener("hashchange", () => {
  byId("panel").close();
  draw();
  if (place().view !== shown) scrollTo(0, 0);
  shown = place().view;
});
draw();
