// Where does a number come from? The panel of one cell, over the leaderboard.

function cellFacts(row, condition) {
  const { error, difference, best, selected, across_images: images, negative_log_likelihood: likelihood } = row;
  const whole = (value) => value.toLocaleString("en");
  return facts([
    ["Test error", error
      ? `${number(error.mean)} %${error.sd == null ? "" : ` ± ${number(error.sd)}`} ${interval(error)}, n ${error.n}`
      : "no run"],
    ["Difference", difference
      ? `${number(difference.difference, 2, true)} points ${interval(difference, 2, true)} to ${condition.baseline}, ${
        count(difference.n, "pair")}`
      : row.method === condition.baseline ? "this is the baseline" : NOTHING],
    ["p", difference && `${pValue(difference.p)}; Holm ${pValue(row.holm_p)} in the family “${condition.family}” of ${
      condition.family_size}`],
    ["Missing runs", row.missing || null],
    ["Best epoch", best &&
      `${number(best.error.mean)} % (optimistic: chosen on test data), epoch ${number(best.epoch, 1)}`],
    ["Chosen on validation", selected && `${number(selected.error.mean)} %, epoch ${number(selected.epoch, 1)}`],
    ["Over test images too", images && `${interval({ low: images.error_low, high: images.error_high })} %`],
    ["Likelihood, calibration", likelihood &&
      `${number(likelihood.mean, 3)} nats, ${number(row.calibration_error && row.calibration_error.mean)} %`],
    ["Parameters", row.parameters &&
      `${whole(row.parameters)} deployed, ${whole(row.training_parameters || row.parameters)} in training`],
    ["Published", (row.published || []).map((one) =>
      `${one.value == null ? "not in our sources" : number(one.value)} (${one.source})`).join("; ")],
  ]);
}

function seedsOf(profile, condition, row, base) {
  const groups = unique([base || row, row]).map((one) =>
    [one.method, bySeed(profile.runs[one.configuration_id], "error_last")]).filter(([, values]) => values.size);
  const told = groups.map(([name, values]) =>
    `${name}: ${[...values].map(([seed, value]) => `seed ${seed} ${number(value)}`).join(", ")}`).join("; ");
  return groups.length > 0 && [el("h3", "Seeds"), dotsPlot(groups, `Test error of each seed: ${told}`)];
}

function curvesOf(cell, method) {
  if (!cell) return el("p.small.muted", "This report was made before reports kept curves. Build it again to see them.");
  const seeds = Object.keys(cell.curves).length;
  return seeds && curvesPlot(cell.curves, `Test error of ${method} over the epochs, one thin line for each of ${
    seeds} seeds, the thick one their mean`)
    || el("p.small.muted", "It has no training of its own, or no epoch was evaluated.");
}

function headsOf({ heads }, runs) {
  if (!heads || !runs || !runs.heads) return null;
  const groups = Array.from({ length: heads.count }, (_, head) => [head ? `${head + 1}` : "1 (deployed)",
    new Map(runs.seeds.map((seed, index) => [seed, runs.heads[index][head]]).filter(([, value]) => value != null))]);
  const { mean: over, averaged, gain } = heads;
  return [
    el("h3", "Heads"),
    el("p.small", `Mean over heads ${number(over.mean)} %, averaged heads ${number(averaged.mean)} % (${
      number(gain.difference, 2, true)} points to the deployed head${
      gain.low == null ? "" : ` ${interval(gain, 2, true)}`}).`),
    heads.count <= 8 && dotsPlot(groups, `Test error of each of ${heads.count} heads in every seed`),
  ];
}

function cellPanel(profile, condition, method) {
  const row = condition.rows.get(method), { origin } = profile, price = priceOf(profile, condition, method) || {};
  const cell = profile.cells && profile.cells[row.configuration_id];
  const words = [condition.tables.get(method), ...PARTS.map((part) => condition.names[part]), method].join(" ");
  return [
    el("button.close", { type: "button", onclick: () => (history.length > 1 ? history.back()
      : (location.hash = link("leaderboard", { profile: profile.name, table: condition.tables.get(method) }))) },
    "Close"),
    el("h2", { id: "panel-title", tabindex: -1 }, method),
    el("p.muted", condition.title),
    cellFacts(row, condition),
    seedsOf(profile, condition, row, condition.rows.get(condition.baseline)),
    el("h3", "Curves of all seeds"),
    curvesOf(cell, method),
    headsOf(row, profile.runs[row.configuration_id]),
    el("h3", "Configuration"),
    el("p.small", el("code", row.configuration_id)),
    cell && [
      el("details", el("summary", "Everything that its id is made of"),
        el("pre", JSON.stringify(cell.settings, null, 1))),
      cell.needs.length > 0 && el("p.small", `Needs first: ${cell.needs.join("; ")}.`),
      cell.dataset_digest && el("p.digest.muted", `Data set: ${cell.dataset_digest}`),
    ],
    el("h3", "Where it ran"),
    facts([
      ["Device", price.devices || "not measured here"],
      ["Training time", price.train_seconds != null &&
        `${number(price.train_seconds, 1)} s, ${number(price.train_seconds_relative)} × the baseline's`],
      ["Peak memory", price.peak_memory_bytes && `${number(price.peak_memory_bytes / 1e6, 0)} MB`],
      ["Versions", origin ? origin.versions.join(", ") : "not recorded with this report"],
      ["Commits", origin ? origin.commits.join(", ") : "not recorded with this report"],
    ]),
    el("h3", "Run it yourself"),
    command(`collabench explain -p ${profile.profile} ${words}`),
    command(`collabench run -p ${profile.profile} --configuration ${row.configuration_id}`),
  ];
}

VIEWS.cell = {
  title: "Cell",
  under: "leaderboard",
  draw(_, [name, key, method]) {
    const profile = PROFILES.get(name);
    const condition = profile && conditionsOf(profile).find((one) => one.key === key);
    if (!condition || !condition.rows.has(method))
      return [el("h1", "Where does a number come from?"), el("p", name && "This page has no such cell. ",
        el("a", { href: link("leaderboard") }, "Choose one on the leaderboard."))];
    const panel = byId("panel");
    panel.replaceChildren();
    fill(panel, cellPanel(profile, condition, method));
    if (!panel.open) panel.showModal();
    byId("panel-title").focus();
    panel.scrollTop = 0;
    return VIEWS.leaderboard.draw({ profile: name, table: condition.tables.get(method) });
  },
};

byId("panel").addEventListener("cancel", (event) => {
  event.preventDefault();
  document.querySelector("#panel .close").click();
});
