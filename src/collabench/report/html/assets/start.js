// The frame: tabs, theme, and the view that the address names.

function tabs(current) {
  const list = document.getElementById("tabs");
  list.replaceChildren(
    ...Object.entries(VIEWS)
      .filter(([, view]) => !view.under)
      .map(([name, view]) =>
        el(
          "li",
          {},
          el(
            "a",
            { href: link(name), "aria-current": name === (VIEWS[current].under || current) ? "page" : null },
            view.title,
          ),
        ),
      ),
  );
}

/** Draw the view that the address names; the element that had the focus gets it again. */
function draw() {
  const here = place();
  const view = document.getElementById("view");
  const focused = document.activeElement && view.contains(document.activeElement) ? document.activeElement : null;
  const focusedId = focused && focused.id;
  const selection = focused && focused.type === "search" ? focused.selectionStart : null;
  tabs(here.view);
  document.title = `${VIEWS[here.view].title} · CollaBench`;
  view.replaceChildren();
  controls = 0;
  fill(view, [VIEWS[here.view].draw(here.parameters, here.rest)]);
  const again = focusedId && document.getElementById(focusedId);
  if (again) {
    again.focus();
    if (selection !== null) again.setSelectionRange(selection, selection);
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  document
    .getElementById("theme")
    .setAttribute("aria-label", `Change to ${theme === "dark" ? "light" : "dark"} colours`);
}

function start() {
  let kept = null;
  try {
    kept = localStorage.getItem("collabench-theme");
  } catch {
    /* the browser keeps nothing for files */
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(kept || (dark.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(theme);
    try {
      localStorage.setItem("collabench-theme", theme);
    } catch {
      /* as above */
    }
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  fill(
    document.getElementById("problems"),
    DATA.problems.map((line) => el("p", { class: "notice" }, `A report cannot be read and is left out: ${line}`)),
  );
  let view = place().view;
  addEventListener("hashchange", () => {
    document.getElementById("panel").close();
    draw();
    if (place().view !== view) {
      view = place().view;
      scrollTo(0, 0);
    }
  });
  draw();
}

start();
