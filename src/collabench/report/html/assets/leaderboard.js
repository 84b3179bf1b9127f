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

const PARTS = ["dataset", "noise", "model", "recipe"];
const conditionKey = (condition) => PARTS.map((part) => condition.names[part]).join("-");

/** The conditions of a table, or of all tables of a profile with the rows of equal conditions joined. */
function conditionsOf(profile, wanted) {
  const joined = new Map();
  for (const { name, conditions } of profile.report.tables.filter((one) => !wanted || one.name === wanted))
    for (const condition of conditions) {
      const key = conditionKey(condition);
      if (!joined.has(key)) joined.set(key, { ...condition, key, rows: new Map(), tables: new Map() });
      const { rows, tables } = joined.get(key);
      for (const row of condition.rows)
        if (!rows.has(row.method)) {
          rows.set(row.method, row);
          tables.set(row.method, name);
        }
    }
  return [...joined.values()];
}

/** What a table's conditions share, the recipe that more than half of them have, and what tells each apart. */
function headings(conditions) {
  const scopes = conditions.map((condition) => condition.scope), recipes = scopes.map((scope) => scope[3]);
  const varies = [0, 1, 2, 3].map((part) => new Set(scopes.map((scope) => scope[part])).size > 1);
  const usual = recipes.find((recipe) => recipes.filter((one) => one === recipe).length > recipes.length / 2);
  const words = scopes.map((scope) =>
    scope.filter((part, index) => varies[index] && (index < 3 || part !== usual)).join(", "));
  const told = unique(words).length === words.length;
  const shared = scopes.length ? scopes[0].filter((_, part) => !varies[part]).join(", ") : "";
  return {
    titles: conditions.map((condition, index) => (told && words[index]) || condition.title),
    shared: (shared && `${shared}. `) + (varies[3] && usual ? `${usual}, unless a heading says otherwise. ` : ""),
  };
}

/** Seed → value of one column of a configuration's runs. */
function bySeed(runs, column) {
  if (!runs || !runs[column]) return new Map();
  return new Map(runs.seeds.map((seed, index) => [seed, runs[column][index]]).filter(([, value]) => value !== null));
}

/**
 * What a cell of the heat map shows. The declared comparison is the report's own; another baseline or metric is
 * computed from the seeds that both have, without a test.
 */
function cellOf(profile, condition, method, baseline, metric) {
  const row = condition.rows.get(method), base = condition.rows.get(baseline || condition.baseline);
  if (!row || !row.error) return null;
  const values = bySeed(profile.runs[row.configuration_id], metric);
  const own = metric === "error_last" ? row.error : summarise([...values.values()]);
  if (!own) return null;
  const found = { value: own.mean, isBaseline: base === row };
  if (!base || base === row) return found;
  if (metric === "error_last" && base.method === condition.baseline && row.difference)
    return { ...found, difference: row.difference.difference, holm: row.holm_p };
  const others = bySeed(profile.runs[base.configuration_id], metric);
  const pairs = [...values].filter(([seed]) => others.has(seed)).map(([seed, value]) => value - others.get(seed));
  return { ...found, difference: pairs.length ? mean(pairs) : null };
}

const survives = (holm, report) => holm != null && holm < Number((1 - report.level).toFixed(12));

function priceOf(profile, condition, method) {
  return profile.prices[`${condition.tables.get(method)}/${condition.key}/${method}`] || null;
}

function heatCell(profile, condition, method, cell, metric, largest) {
  if (!cell) return el("td", el("span.hidden", "not run"));
  const [, , decimals] = METRICS[metric], marked = survives(cell.holm, profile.report);
  const value = number(cell.value, decimals), differs = cell.difference != null;
  const difference = number(cell.difference, decimals, true);
  const share = differs && largest ? Math.round(38 * Math.min(1, Math.abs(cell.difference) / largest)) : 0;
  const said = [`${method}, ${condition.title}: ${value}`, differs && `${difference} to the baseline`,
    cell.isBaseline && "the baseline", cell.holm != null && `Holm p ${pValue(cell.holm)}`,
    marked && "survives Holm's correction"].filter(Boolean).join(", ");
  return el("td", el(marked ? "button.holm" : "button", {
    type: "button",
    style: `background:color-mix(in srgb, var(--${cell.difference < 0 ? "low" : "high"}) ${share}%, transparent)`,
    "aria-label": `${said}. Open the cell`,
    onclick: () => (location.hash = link("cell", {}, [profile.name, condition.key, method])),
  }, differs ? `${difference}${marked ? " ✱" : ""}` : value,
  el("span.sub", differs ? value : cell.isBaseline ? "baseline" : "")));
}

function chosenProfile(wanted, profiles) {
  const chosen = profiles.find((one) => one.name === wanted);
  return chosen || profiles.find((one) => one.profile === "default") || profiles[0];
}

VIEWS.leaderboard = {
  title: "Leaderboard",
  draw(wanted) {
    const title = el("h1", "Which method helps under which condition?");
    if (!DATA.profiles.length) return [title, nothingYet()];
    const profile = chosenProfile(wanted.profile, DATA.profiles), { tables } = profile.report;
    const one = wanted.table === "*" ? null : (tables.find((each) => each.name === wanted.table) || tables[0]).name;
    const conditions = conditionsOf(profile, one), { titles, shared } = headings(conditions);
    const metric = METRICS[wanted.metric] ? wanted.metric : "error_last", [about, unit] = METRICS[metric];
    const methods = unique(conditions.flatMap((condition) => [...condition.rows.keys()]));
    const baseline = methods.includes(wanted.baseline) ? wanted.baseline : null;
    const cells = new Map(methods.map((method) => [method, new Map(conditions.map((condition) =>
      [condition.key, cellOf(profile, condition, method, baseline, metric)]))]));
    const costs = new Map(methods.map((method) => {
      const found = conditions.map((condition) => condition.rows.has(method) && priceOf(profile, condition, method))
        .map((price) => price && price.train_seconds_relative).filter(Boolean);
      return [method, found.length ? mean(found) : null];
    }));
    const sizes = [...cells.values()].flatMap((row) => [...row.values()])
      .filter((cell) => cell && cell.difference != null).map((cell) => Math.abs(cell.difference)).sort((a, b) => a - b);
    const largest = sizes[Math.floor(sizes.length * 0.9)] || 0;
    const measured = Object.keys(METRICS).filter((name) =>
      name === "error_last" || Object.values(profile.runs).some((runs) => runs[name]));
    const { sort } = wanted;
    const rank = (method) => {
      if (sort === "cost") return costs.get(method) ?? Infinity;
      const cell = cells.get(method).get(sort);
      return cell ? (cell.difference ?? (cell.isBaseline ? 0 : Infinity)) : Infinity;
    };
    const order = !sort ? methods
      : sort === "method" ? [...methods].sort() : [...methods].sort((a, b) => rank(a) - rank(b));
    const head = (key, words) => el("th", { scope: "col", "aria-sort": sort === key ? "ascending" : "none" },
      el("button", { type: "button", onclick: () => stay("leaderboard", { ...wanted, sort: sort === key ? "" : key }) },
        words, sort === key && " ▲"));
    const declared = unique(conditions.map((condition) => condition.baseline)).join(", ");
    return [
      title,
      el("div.controls", choosers("leaderboard", wanted, [
        ["profile", "Profile", DATA.profiles.map((each) => each.name), profile.name, "table", "baseline"],
        ["table", "Table", [...tables.map((each) => [each.name, each.title]),
          ...(tables.length > 1 ? [["*", "all tables"]] : [])], one || "*"],
        ["baseline", "Baseline", [["", `as declared (${declared})`], ...methods], baseline],
        ["metric", "Metric", measured.map((name) => [name, METRICS[name][0]]), metric],
      ])),
      el("p", shared, profile.report.partial && el("strong", "Partial: runs are missing. "), el("span.muted",
        `${about}: difference to the baseline in ${unit}, below it the value. Green is lower. ${
          metric === "error_last" && !baseline ? "✱ survives Holm's correction over its declared family at 5 %."
            : "Computed here from the seeds: only the declared comparison of test errors has tests, so that no mark " +
              "is shown."}`)),
      scrolling("Methods and conditions", el("table.heat.card",
        el("thead", el("tr", head("method", "Method"),
          conditions.map((condition, index) => head(condition.key, titles[index])),
          head("cost", "Training time ×"))),
        el("tbody", order.map((method) => el("tr", el("th", { scope: "row" }, method),
          conditions.map((condition) =>
            heatCell(profile, condition, method, cells.get(method).get(condition.key), metric, largest)),
          el("td.price.small", number(costs.get(method)))))))),
      el("p.small.muted", "A heading sorts. A cell opens what is behind it: seeds, curves, heads, settings, " +
        "commands. Training time: multiple of the declared baseline's, mean over the conditions shown; with the runs " +
        "that a method needs first."),
    ];
  },
};

const nothingYet = () => el("p", "No profile has a report yet. ", el("code", "make reproduce"), " makes one.");
