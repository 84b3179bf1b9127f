// Which method helps under which condition? Methods × conditions, as paired differences from a baseline.

const METRICS = {
  error_last: ["Test error, last epoch", "points", 2],
  error_best_epoch: ["Test error, best epoch (optimistic)", "points", 2],
  error_validation_selected: ["Test error, epoch chosen on validation", "points", 2],
  error_averaged_heads: ["Test error, averaged heads", "points", 2],
  top5_error: ["Top-5 error", "points", 2],
  negative_log_likelihood: ["Negative log-likelihood", "nats", 3],
  calibration_error: ["Calibration error", "points", 2],
};

function conditionKey(condition) {
  return ["dataset", "noise", "model", "recipe"].map((part) => condition.names[part]).join("-");
}

/** The conditions of a table, or of all tables of a profile with the rows of equal conditions joined. */
function conditionsOf(profile, table) {
  const joined = new Map();
  for (const one of profile.report.tables) {
    if (table && one.name !== table) continue;
    for (const condition of one.conditions) {
      const key = conditionKey(condition);
      const known = joined.get(key) || { ...condition, key, rows: new Map(), tables: new Map() };
      for (const row of condition.rows) {
        if (!known.rows.has(row.method)) {
          known.rows.set(row.method, row);
          known.tables.set(row.method, one.name);
        }
      }
      joined.set(key, known);
    }
  }
  return [...joined.values()];
}

/** Condition key → the parts of its scope that differ from those of the other conditions. */
function shortTitles(conditions) {
  const varies = [0, 1, 2, 3].map((part) => new Set(conditions.map((condition) => condition.scope[part])).size > 1);
  const usual = usualRecipe(conditions);
  const words = conditions.map((condition) =>
    condition.scope.filter((text, part) => varies[part] && !(part === 3 && text === usual)).join(", "),
  );
  return new Map(
    conditions.map((condition, index) => [
      condition.key,
      words[index] && new Set(words).size === words.length ? words[index] : condition.title,
    ]),
  );
}

/** The recipe that more than half of several conditions share, which their headings leave out. */
function usualRecipe(conditions) {
  return (
    unique(conditions.map((condition) => condition.scope[3])).find(
      (recipe) => conditions.filter((condition) => condition.scope[3] === recipe).length > conditions.length / 2,
    ) || null
  );
}

function unlessSaid(conditions) {
  const usual = usualRecipe(conditions);
  return usual && conditions.some((condition) => condition.scope[3] !== usual)
    ? `${usual}, unless a heading says otherwise. `
    : "";
}

function sharedScope(conditions) {
  return [0, 1, 2, 3]
    .filter((part) => new Set(conditions.map((condition) => condition.scope[part])).size === 1)
    .map((part) => conditions[0].scope[part])
    .join(", ");
}

/**
 * What a cell of the heat map shows: {value, low, high, difference, holm, n}. The declared comparison is the report's
 * own; another baseline or metric is computed from the seeds, without a test.
 */
function cellOf(profile, condition, method, baseline, metric) {
  const row = condition.rows.get(method);
  if (!row || !row.error) return null;
  const base = condition.rows.get(baseline || condition.baseline);
  const runs = profile.runs[row.configuration_id];
  const own = metric === "error_last" ? row.error : summarise([...bySeed(runs, metric).values()]);
  if (!own) return null;
  const found = {
    row,
    value: own.mean,
    sd: own.sd,
    n: own.n,
    low: own.low,
    high: own.high,
    difference: null,
    holm: null,
  };
  if (!base || base === row) return { ...found, isBaseline: base === row };
  if (metric === "error_last" && base.method === condition.baseline && row.difference) {
    return { ...found, difference: { ...row.difference, mean: row.difference.difference }, holm: row.holm_p ?? null };
  }
  return { ...found, difference: pairedDifference(runs, profile.runs[base.configuration_id], metric) };
}

function survives(cell, level) {
  return cell.holm !== null && cell.holm < Number((1 - level).toFixed(12));
}

function priceOf(profile, condition, method) {
  return profile.prices[`${condition.tables.get(method)}/${condition.key}/${method}`] || null;
}

function wording(cell, metric) {
  const decimals = METRICS[metric][2];
  return `${number(cell.value, decimals)}${
    cell.difference
      ? `, ${number(cell.difference.mean, decimals, true)} to the baseline`
      : cell.isBaseline
        ? ", the baseline"
        : ""
  }${cell.holm === null ? "" : `, Holm p ${pValue(cell.holm)}`}`;
}

function heatCell(profile, condition, method, cell, metric, largest, level) {
  if (!cell) return el("td", {}, el("span", { class: "hidden" }, "not run"));
  const decimals = METRICS[metric][2],
    marked = survives(cell, level);
  const share = cell.difference && largest ? Math.min(1, Math.abs(cell.difference.mean) / largest) : 0;
  const colour = cell.difference && cell.difference.mean < 0 ? "var(--low)" : "var(--high)";
  const text = cell.difference
    ? `${number(cell.difference.mean, decimals, true)}${marked ? " ✱" : ""}`
    : number(cell.value, decimals);
  return el(
    "td",
    {},
    el(
      "button",
      {
        type: "button",
        class: marked ? "holm" : null,
        style: `background:color-mix(in srgb, ${colour} ${Math.round(38 * share)}%, transparent)`,
        "aria-label": `${method}, ${condition.title}: ${wording(cell, metric)}${marked ? ", survives Holm's correction" : ""}. Open the cell`,
        onclick: () => {
          location.hash = link("cell", {}, [profile.name, condition.key, method]);
        },
      },
      text,
      cell.difference
        ? el("span", { class: "sub" }, number(cell.value, decimals))
        : el("span", { class: "sub" }, cell.isBaseline ? "baseline" : ""),
    ),
  );
}

function sorted(methods, key, cells, costs) {
  if (!key) return methods;
  const value = (method) =>
    key === "cost"
      ? (costs.get(method) ?? Infinity)
      : (([cell]) => (cell ? (cell.difference ? cell.difference.mean : cell.isBaseline ? 0 : Infinity) : Infinity))([
          cells.get(method).get(key),
        ]);
  return key === "method" ? [...methods].sort() : [...methods].sort((a, b) => value(a) - value(b));
}

VIEWS.leaderboard = {
  title: "Leaderboard",
  draw(wanted) {
    if (!DATA.profiles.length) return nothingYet("Which method helps under which condition?");
    const profile =
      PROFILES.get(wanted.profile) || DATA.profiles.find((one) => one.profile === "default") || DATA.profiles[0];
    const tables = profile.report.tables,
      several = tables.length > 1;
    const table = wanted.table === "*" ? null : (tables.find((one) => one.name === wanted.table) || tables[0]).name;
    const conditions = conditionsOf(profile, table),
      titles = shortTitles(conditions);
    const metric = METRICS[wanted.metric] ? wanted.metric : "error_last";
    const methods = unique(conditions.flatMap((condition) => [...condition.rows.keys()]));
    const baseline = methods.includes(wanted.baseline) ? wanted.baseline : null;
    const cells = new Map(
      methods.map((method) => [
        method,
        new Map(conditions.map((condition) => [condition.key, cellOf(profile, condition, method, baseline, metric)])),
      ]),
    );
    const costs = new Map(
      methods.map((method) => {
        const found = conditions
          .map((condition) => condition.rows.has(method) && priceOf(profile, condition, method))
          .map((price) => price && price.train_seconds_relative)
          .filter(Boolean);
        return [method, found.length ? mean(found) : null];
      }),
    );
    const sizes = [...cells.values()]
      .flatMap((row) => [...row.values()])
      .filter((cell) => cell && cell.difference)
      .map((cell) => Math.abs(cell.difference.mean))
      .sort((a, b) => a - b);
    const largest = sizes[Math.floor(sizes.length * 0.9)] || 0;
    const declared = unique(conditions.map((condition) => condition.baseline));
    const change = (name) => (value) =>
      stay("leaderboard", { ...wanted, [name]: value, ...(name === "profile" ? { table: "", baseline: "" } : {}) });
    const measured = Object.keys(METRICS).filter(
      (name) => name === "error_last" || Object.values(profile.runs).some((runs) => runs[name]),
    );
    const sort = wanted.sort || "";
    const head = (key, text) =>
      el(
        "th",
        { scope: "col", "aria-sort": sort === key ? "ascending" : "none" },
        el(
          "button",
          { type: "button", onclick: () => change("sort")(sort === key ? "" : key) },
          text,
          sort === key ? " ▲" : "",
        ),
      );
    const usual = metric === "error_last" && !baseline;
    return [
      el("h1", {}, "Which method helps under which condition?"),
      el(
        "div",
        { class: "controls" },
        select(
          "Profile",
          DATA.profiles.map((one) => [one.name, one.name]),
          profile.name,
          change("profile"),
        ),
        select(
          "Table",
          [...tables.map((one) => [one.name, one.title]), ...(several ? [["*", "all tables"]] : [])],
          table || "*",
          change("table"),
        ),
        select(
          "Baseline",
          [["", `as declared (${declared.join(", ")})`], ...methods.map((method) => [method, method])],
          baseline || "",
          change("baseline"),
        ),
        select(
          "Metric",
          measured.map((name) => [name, METRICS[name][0]]),
          metric,
          change("metric"),
        ),
      ),
      el(
        "p",
        {},
        sharedScope(conditions),
        sharedScope(conditions) ? ". " : "",
        unlessSaid(conditions),
        profile.report.partial ? el("strong", {}, "Partial: runs are missing. ") : null,
        el(
          "span",
          { class: "muted" },
          `${METRICS[metric][0]}: difference to the baseline in ${METRICS[metric][1]}, below it the value. Green is lower. ` +
            (usual
              ? "✱ survives Holm's correction over its declared family at 5 %."
              : "Computed here from the seeds: only the declared comparison of test errors has tests, so that no mark is shown."),
        ),
      ),
      scrolling(
        "Methods and conditions",
        el(
          "table",
          { class: "heat card" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              head("method", "Method"),
              conditions.map((condition) => head(condition.key, titles.get(condition.key) || "difference")),
              head("cost", "Training time ×"),
            ),
          ),
          el(
            "tbody",
            {},
            sorted(methods, sort, cells, costs).map((method) =>
              el(
                "tr",
                {},
                el("th", { scope: "row" }, method),
                conditions.map((condition) =>
                  heatCell(
                    profile,
                    condition,
                    method,
                    cells.get(method).get(condition.key),
                    metric,
                    largest,
                    profile.report.level,
                  ),
                ),
                el("td", { class: "price small" }, number(costs.get(method))),
              ),
            ),
          ),
        ),
      ),
      el(
        "p",
        { class: "small muted" },
        "A heading sorts. A cell opens what is behind it: seeds, curves, heads, settings, commands. " +
          "Training time: multiple of the declared baseline's, mean over the conditions shown; with the runs that a method needs first.",
      ),
    ];
  },
};

function nothingYet(title) {
  return [
    el("h1", {}, title),
    el("p", {}, "No profile has a report yet. ", el("code", {}, "make reproduce"), " makes one."),
  ];
}
