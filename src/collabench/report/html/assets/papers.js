// The papers' tables in their own layout: what was published beside what was measured.

function publishedCell(cell) {
  const text = `${cell.value === null ? "not in our sources" : number(cell.value)}${cell.sd ? ` ± ${number(cell.sd)}` : ""}`;
  return el(
    "td",
    {},
    cell.value === null ? el("span", { class: "small muted" }, text) : text,
    cell.misprint ? el("abbr", { title: "looks like a misprint" }, " †") : null,
    Object.entries(cell.runs || {}).map(([profile, run]) =>
      el(
        "span",
        { class: "measured" },
        `${profile}: ${run.last_epoch ? "last epoch " : ""}${number(run.mean)}${run.sd === null ? "" : ` ± ${number(run.sd)}`}, n ${run.n}`,
        run.verdict ? `; ${number(run.difference, 2, true)}, ${run.verdict}` : "",
      ),
    ),
  );
}

function publishedTable(table) {
  const several = new Set(table.rows.map((row) => row.metric)).size > 1;
  const notes = [
    table.about,
    table.reported_by ? `Reported by ${table.reported_by}.` : "",
    table.axes ? `${table.axes}.` : "",
    table.note || "",
    table.chosen_here ? `Not stated by the sources, chosen here: ${table.chosen_here}.` : "",
    ...table.not_run.map(
      (one) => `No run${one.cells === one.of ? "" : ` of ${one.cells} of ${one.of} cells`}: ${one.reason}.`,
    ),
    `Source: ${table.source}.`,
  ];
  return el(
    "section",
    {},
    el("h3", {}, table.title),
    scrolling(
      table.title,
      el(
        "table",
        { class: "card published" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            [...table.row_titles, ...table.columns].map((title, index) =>
              el("th", { scope: "col", class: index < table.row_titles.length ? "left" : null }, title),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          table.rows.map((row) =>
            el(
              "tr",
              {},
              row.labels.map((label, index) =>
                el(
                  "th",
                  { scope: "row", class: "left" },
                  label,
                  several && row.metric && index === row.labels.length - 1 ? ` (${row.metric})` : "",
                ),
              ),
              row.cells.map(publishedCell),
            ),
          ),
        ),
      ),
    ),
    el("p", { class: "small muted" }, notes.filter(Boolean).join(" ")),
  );
}

function sameCells(cells) {
  return cells.map((cell) => `${number(cell.value)} (${cell.table}, ${cell.row}, ${cell.column})`).join(", ");
}

function arithmetic(paper) {
  const known = paper.quotes.filter((quote) => quote.agrees !== null),
    wrong = known.filter((quote) => !quote.agrees);
  if (!paper.quotes.length && !paper.misprints.length && !paper.repeated.count) return null;
  return el(
    "section",
    {},
    el("h2", {}, "The paper's own arithmetic"),
    paper.quotes.length
      ? [
          el(
            "p",
            {},
            `${known.length - wrong.length} of ${paper.quotes.length} quoted numbers agree with the tables, ` +
              `${wrong.length} do not, ${paper.quotes.length - known.length} cannot be checked. The data stay as printed.`,
          ),
          scrolling(
            "Quoted numbers",
            el(
              "table",
              { class: "card" },
              el(
                "thead",
                {},
                el(
                  "tr",
                  {},
                  ["Quoted", "Number", "By the tables", "Arithmetic", "Agrees"].map((title) =>
                    el("th", { scope: "col" }, title),
                  ),
                ),
              ),
              el(
                "tbody",
                {},
                paper.quotes.map((quote) =>
                  el(
                    "tr",
                    {},
                    el("th", { scope: "row", class: "left" }, quote.what),
                    el("td", {}, number(quote.quoted, quote.decimals)),
                    el("td", {}, number(quote.computed, quote.decimals)),
                    el("td", { class: "left" }, quote.how),
                    el(
                      "td",
                      {},
                      quote.agrees === null ? "cannot be checked" : quote.agrees ? "yes" : el("strong", {}, "no"),
                    ),
                  ),
                ),
              ),
            ),
          ),
        ]
      : null,
    paper.misprints.map((one) =>
      el(
        "p",
        {},
        `† Looks like a misprint: ${number(one.value)} in ${one.table}, ${one.row}, ${one.column}. It is ` +
          `${number(one.change, 2, true)} points from its row's baseline (${number(one.baseline)}), ` +
          `while in each of the other ${one.rows} rows this column goes the other way, by at most ${number(one.largest)} points.`,
      ),
    ),
    paper.repeated.count
      ? el(
          "p",
          {},
          `${count(paper.repeated.count, "configuration")} printed in more than one table, `,
          paper.repeated.unequal.length
            ? `not always with the same value: ${paper.repeated.unequal.map(sameCells).join("; ")}.`
            : "with the same value each time.",
        )
      : null,
  );
}

VIEWS.papers = {
  title: "Papers",
  draw(_, [name]) {
    const paper = PAPERS.get(name) || DATA.papers[0];
    if (!paper)
      return [el("h1", {}, "Published beside measured"), el("p", {}, "This project has no folder of papers.")];
    const known = paper.tables.filter((table) =>
      table.rows.some((row) => row.cells.some((cell) => cell.value !== null)),
    );
    const rest = paper.tables.filter((table) => !known.includes(table));
    const runs = paper.tables.some((table) => table.rows.some((row) => row.cells.some((cell) => cell.runs)));
    return [
      el("h1", {}, "Published beside measured"),
      el(
        "div",
        { class: "controls" },
        select(
          "Paper",
          DATA.papers.map((one) => [one.name, `${one.cite}: ${one.title}`]),
          paper.name,
          (value) => stay("papers", {}, [value]),
        ),
      ),
      el(
        "p",
        {},
        el("strong", {}, paper.title),
        el("br"),
        el("span", { class: "muted" }, `${paper.authors}, ${paper.published}`),
      ),
      paper.not_run ? el("p", { class: "notice" }, paper.not_run) : null,
      paper.note ? el("p", {}, paper.note) : null,
      paper.reading ? el("p", {}, `Its method is run as ${paper.reading}.`) : null,
      runs
        ? el(
            "p",
            { class: "muted" },
            "Below a published value stands the measured one, under the rule that the paper reports: " +
              "mean ± standard deviation, number of runs, difference, and whether the published value lies where one more run would.",
          )
        : el(
            "p",
            {},
            "No published value of this paper has a comparable run here: data set, noise, backbone, recipe and method " +
              "must all be the same. The paper's claims are tested under other conditions: ",
            el("a", { href: link("claims", { paper: paper.name }) }, "its claims"),
            ".",
          ),
      known.length ? el("h2", {}, "Tables and figures") : null,
      known.map(publishedTable),
      rest.length
        ? [
            el("h2", {}, "Described, with values that are not in our sources"),
            rest.map((table) =>
              el("details", { class: "card pad" }, el("summary", {}, table.title), publishedTable(table)),
            ),
          ]
        : null,
      arithmetic(paper),
      el("p", { class: "small muted" }, `Sources: ${paper.sources.join("; ")}.`),
    ];
  },
};
