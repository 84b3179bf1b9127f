// Does another machine, commit or profile agree? Two reports, the changed verdicts first.

const OTHERS = { first: null, second: null }; // side → what was read from files: {name, report, claims}

/** The text of a chosen file as a report or as verdicts, added to the side; throws what is wrong in words. */
function take(side, name, text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error(`${name}: is no JSON; choose a report.json or claims.json`);
  }
  const good = found !== null && typeof found === "object" && found.schema_version === 1;
  const other =
    OTHERS[side] && OTHERS[side].fromFiles ? OTHERS[side] : { name: "", report: null, claims: [], fromFiles: true };
  if (good && Array.isArray(found.tables))
    OTHERS[side] = { ...other, name: `${found.profile} (${name})`, report: found };
  else if (good && Array.isArray(found.claims))
    OTHERS[side] = {
      ...other,
      name: other.name || `${found.profile} (${name})`,
      claims: [...other.claims, ...found.claims],
    };
  else throw new Error(`${name}: is neither a report.json nor a claims.json of schema version 1`);
}

function sideOf(side, wanted) {
  if (OTHERS[side]) return OTHERS[side];
  const profile = PROFILES.get(wanted[side]);
  if (!profile) return null;
  const claims = DATA.claims.map((claim) => ({
    ...claim,
    scopes: claim.tests.filter((test) => test.profile === profile.name),
  }));
  return { name: profile.name, report: profile.report, claims: claims.filter((claim) => claim.scopes.length) };
}

function verdictsOf(side) {
  return new Map(
    (side.claims || []).flatMap((claim) =>
      claim.scopes.map((scope) => [
        [claim.id, scope.compared, scope.scope].filter(Boolean).join(" · "),
        { claim, scope },
      ]),
    ),
  );
}

function rowsOf(side) {
  const found = new Map();
  if (side.report)
    for (const table of side.report.tables)
      for (const condition of table.conditions)
        for (const row of condition.rows) {
          found.set([table.name, conditionKey(condition), row.method].join(" · "), {
            row,
            told:
              row.holm_p !== undefined &&
              row.holm_p !== null &&
              row.holm_p < Number((1 - side.report.level).toFixed(12)),
          });
        }
  return found;
}

function comparison(first, second) {
  const [before, after] = [verdictsOf(first), verdictsOf(second)];
  const common = [...before.keys()].filter((key) => after.has(key));
  const changed = common.filter((key) => before.get(key).scope.verdict !== after.get(key).scope.verdict);
  const [old, now] = [rowsOf(first), rowsOf(second)];
  const cells = [...old.keys()].filter((key) => now.has(key) && old.get(key).row.error && now.get(key).row.error);
  const marks = cells.filter((key) => old.get(key).told !== now.get(key).told);
  const moved = cells
    .map((key) => [key, now.get(key).row.error.mean - old.get(key).row.error.mean])
    .filter(([, change]) => change !== 0)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const gone = [...old.keys()].filter((key) => !now.has(key)).length,
    come = [...now.keys()].filter((key) => !old.has(key)).length;
  return [
    el("h2", {}, "Verdicts on claims"),
    common.length
      ? el("p", {}, el("strong", {}, `${changed.length} of ${common.length} verdicts changed.`))
      : el("p", {}, "The two have no verdict in common. A file report.json has none: add its claims.json."),
    changed.length
      ? el(
          "ul",
          {},
          changed.map((key) =>
            el(
              "li",
              {},
              `${before.get(key).claim.statement} `,
              el("span", { class: "muted" }, `(${key}) `),
              chip(before.get(key).scope.verdict),
              " → ",
              chip(after.get(key).scope.verdict),
            ),
          ),
        )
      : null,
    el("h2", {}, "Comparisons in tables"),
    el(
      "p",
      {},
      cells.length
        ? el(
            "strong",
            {},
            `${marks.length} of ${count(cells.length, "common cell")} changed whether they survive Holm's correction.`,
          )
        : "No cell is in both.",
      gone || come ? ` ${gone} are in the first only, ${come} in the second only.` : "",
    ),
    marks.length
      ? el(
          "ul",
          {},
          marks.map((key) =>
            el(
              "li",
              {},
              `${key}: ${old.get(key).told ? "survived" : "did not"} → ${now.get(key).told ? "survives" : "does not"}`,
            ),
          ),
        )
      : null,
    el("h2", {}, "Mean test errors"),
    el(
      "p",
      {},
      cells.length
        ? `${cells.length - moved.length} of ${cells.length} are equal to the last digit kept.`
        : "None to compare.",
    ),
    moved.length
      ? scrolling(
          "Changed errors",
          el(
            "table",
            { class: "card" },
            el(
              "thead",
              {},
              el(
                "tr",
                {},
                ["Cell", "First", "Second", "Change"].map((title) => el("th", { scope: "col" }, title)),
              ),
            ),
            el(
              "tbody",
              {},
              moved
                .slice(0, 40)
                .map(([key, change]) =>
                  el(
                    "tr",
                    {},
                    el("th", { scope: "row", class: "left" }, key),
                    el("td", {}, number(old.get(key).row.error.mean)),
                    el("td", {}, number(now.get(key).row.error.mean)),
                    el("td", {}, number(change, 2, true)),
                  ),
                ),
            ),
          ),
        )
      : null,
    moved.length > 40 ? el("p", { class: "small muted" }, `The 40 largest of ${moved.length}.`) : null,
  ];
}

VIEWS.compare = {
  title: "Compare",
  draw(wanted) {
    const chooser = (side, title) => {
      const said = el("p", { class: "small", role: "alert" });
      const input = el("input", {
        type: "file",
        accept: ".json,application/json",
        multiple: true,
        onchange: async (event) => {
          OTHERS[side] = null;
          try {
            for (const file of event.target.files) take(side, file.name, await file.text());
          } catch (error) {
            said.textContent = error.message;
            return;
          }
          draw();
        },
      });
      return el(
        "fieldset",
        { class: "card pad side" },
        el("legend", {}, title),
        el(
          "div",
          { class: "controls" },
          select(
            "On this page",
            [["", "none"], ...DATA.profiles.map((one) => [one.name, one.name])],
            OTHERS[side] ? "" : wanted[side] || "",
            (value) => {
              OTHERS[side] = null;
              stay("compare", { ...wanted, [side]: value });
            },
          ),
          labelled("Or report.json and claims.json", input),
        ),
        OTHERS[side] ? el("p", { class: "small" }, `From files: ${OTHERS[side].name}`) : null,
        said,
      );
    };
    const first = sideOf("first", wanted),
      second = sideOf("second", wanted);
    return [
      el("h1", {}, "Do two reports agree?"),
      el(
        "p",
        {},
        "Another machine, another commit or another profile: choose two reports. Files stay in this browser.",
      ),
      el("div", { class: "sides" }, chooser("first", "First"), chooser("second", "Second")),
      first && second
        ? comparison(first, second)
        : el("p", { class: "muted" }, "Nothing to compare yet: choose both."),
    ];
  },
};
