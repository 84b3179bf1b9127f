// Does another machine, commit or profile agree? Two reports, the changed verdicts first.

const FILES = {}; // side → {name, report} of a file that was chosen

/** The text of a chosen file as a report; throws what is wrong in words. */
function reportIn(name, content) {
  let report = null;
  try {
    report = JSON.parse(content);
  } catch {
    throw new Error(`${name}: is no JSON; choose a report.json`);
  }
  if (!report || report.schema_version !== 1 || !Array.isArray(report.tables))
    throw new Error(`${name}: is no report.json of schema version 1`);
  return { name: `${report.profile} (${name})`, report };
}

const verdictsOf = ({ report }) => new Map((report.verdicts || []).map((one) =>
  [[one.claim, one.compared, one.scope].filter(Boolean).join(" · "), one]));

/** ``table · condition · method`` → row, of the rows that have runs. */
const rowsOf = ({ report }) => new Map(report.tables.flatMap((one) => one.conditions.flatMap((condition) =>
  condition.rows.filter((row) => row.error).map((row) => [[one.name, conditionKey(condition), row.method].join(" · "),
    { error: row.error.mean, marked: survives(row.holm_p, report) }]))));

function comparison(sides) {
  const without = sides.filter(({ report }) => !report.verdicts).map((side) => side.name);
  const [before, after] = sides.map(verdictsOf), [old, now] = sides.map(rowsOf);
  const both = (first, second) => [...first.keys()].filter((key) => second.has(key));
  const common = both(before, after), cells = both(old, now);
  const changed = common.filter((key) => before.get(key).verdict !== after.get(key).verdict);
  const marks = cells.filter((key) => old.get(key).marked !== now.get(key).marked);
  const moved = cells.map((key) => [key, now.get(key).error - old.get(key).error])
    .filter(([, change]) => change !== 0).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const alone = [old.size - cells.length, now.size - cells.length];
  return [
    el("h2", "Verdicts on claims"),
    without.length > 0 && el("p.notice", `${without.join(" and ")}: made before report.json kept the verdicts, so ` +
      "that only tables and errors are compared. collabench report with the present version writes them."),
    common.length > 0 ? el("p", el("strong", `${changed.length} of ${common.length} verdicts changed.`))
      : !without.length && el("p", "The two have no test in common."),
    list("ul", changed, (key) => [`${before.get(key).statement} `, el("span.muted", `(${key}) `),
      chip(before.get(key).verdict), " → ", chip(after.get(key).verdict)]),
    el("h2", "Comparisons in tables"),
    el("p", cells.length ? el("strong",
      `${marks.length} of ${count(cells.length, "common cell")} changed whether they survive Holm's correction.`)
      : "No cell is in both.",
    alone.some(Boolean) && ` ${alone[0]} are in the first only, ${alone[1]} in the second only.`),
    list("ul", marks, (key) =>
      `${key}: ${old.get(key).marked ? "survived" : "did not"} → ${now.get(key).marked ? "survives" : "does not"}`),
    el("h2", "Mean test errors"),
    el("p", cells.length ? `${cells.length - moved.length} of ${cells.length} are equal to the last digit kept.`
      : "None to compare."),
    moved.length > 0 && table("Changed errors", [
      ["Cell", ([key]) => key],
      ["First", ([key]) => number(old.get(key).error)],
      ["Second", ([key]) => number(now.get(key).error)],
      ["Change", ([, change]) => number(change, 2, true)],
    ], moved.slice(0, 40)),
    moved.length > 40 && el("p.small.muted", `The 40 largest of ${moved.length}.`),
  ];
}

VIEWS.compare = {
  title: "Compare",
  draw(wanted) {
    const chooser = (side, title) => {
      const said = el("p.small", { role: "alert" });
      const choose = async ({ target }) => {
        delete FILES[side];
        try {
          for (const file of target.files) FILES[side] = reportIn(file.name, await file.text());
          draw();
        } catch (error) {
          said.textContent = error.message;
        }
      };
      return el("fieldset.card.pad.side", el("legend", title), el("div.controls",
        select("On this page", [["", "none"], ...PROFILES.keys()], FILES[side] ? "" : wanted[side], (value) => {
          delete FILES[side];
          stay("compare", { ...wanted, [side]: value });
        }),
        labelled("Or a file report.json",
          el("input", { type: "file", accept: ".json,application/json", onchange: choose }))),
      FILES[side] && el("p.small", `From a file: ${FILES[side].name}`), said);
    };
    const sides = ["first", "second"].map((side) => FILES[side] || PROFILES.get(wanted[side]));
    return [
      el("h1", "Do two reports agree?"),
      el("p", "Another machine, another commit or another profile: choose two reports. Files stay in this browser."),
      el("div.sides", chooser("first", "First"), chooser("second", "Second")),
      sides.every(Boolean) ? comparison(sides) : el("p.muted", "Nothing to compare yet: choose both."),
    ];
  },
};
