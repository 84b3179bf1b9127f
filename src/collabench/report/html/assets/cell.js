// Where does a number come from? The panel of one cell, over the leaderboard.

function cellPanel(profile, condition, method) {
  const row = condition.rows.get(method),
    base = condition.rows.get(condition.baseline);
  const runs = profile.runs[row.configuration_id],
    behind = profile.cells && profile.cells[row.configuration_id];
  const price = priceOf(profile, condition, method),
    origin = profile.origin;
  const difference = row.difference;
  const words = [
    condition.tables.get(method),
    ...["dataset", "noise", "model", "recipe"].map((part) => condition.names[part]),
    method,
  ].join(" ");
  const groups = [[method, bySeed(runs, "error_last")]];
  if (base && base !== row)
    groups.unshift([condition.baseline, bySeed(profile.runs[base.configuration_id], "error_last")]);
  const dots = groups.filter(([, values]) => values.size);
  return [
    el(
      "button",
      {
        type: "button",
        class: "close",
        onclick: () => (history.length > 1 ? history.back() : closePanel(profile, condition)),
      },
      "Close",
    ),
    el("h2", { id: "panel-title", tabindex: -1 }, method),
    el("p", { class: "muted" }, condition.title),
    facts([
      [
        "Test error",
        row.error
          ? `${number(row.error.mean)} %${row.error.sd === undefined ? "" : ` ± ${number(row.error.sd)}`} ${interval(row.error.low, row.error.high)}, n ${row.error.n}`
          : "no run",
      ],
      [
        "Difference",
        difference
          ? `${number(difference.difference, 2, true)} points ${interval(difference.low, difference.high, 2, true)} to ${condition.baseline}, ${count(difference.n, "pair")}`
          : method === condition.baseline
            ? "this is the baseline"
            : NOTHING,
      ],
      [
        "p",
        difference
          ? `${pValue(difference.p)}; Holm ${pValue(row.holm_p)} in the family “${condition.family}” of ${condition.family_size}`
          : "",
      ],
      ["Missing runs", row.missing ? String(row.missing) : ""],
      [
        "Best epoch",
        row.best
          ? `${number(row.best.error.mean)} % (optimistic: chosen on test data), epoch ${number(row.best.epoch, 1)}`
          : "",
      ],
      [
        "Chosen on validation",
        row.selected ? `${number(row.selected.error.mean)} %, epoch ${number(row.selected.epoch, 1)}` : "",
      ],
      [
        "Over test images too",
        row.across_images ? `${interval(row.across_images.error_low, row.across_images.error_high)} %` : "",
      ],
      [
        "Likelihood, calibration",
        row.negative_log_likelihood
          ? `${number(row.negative_log_likelihood.mean, 3)} nats, ${number(row.calibration_error && row.calibration_error.mean)} %`
          : "",
      ],
      [
        "Parameters",
        row.parameters
          ? `${row.parameters.toLocaleString("en")} deployed, ${(row.training_parameters || row.parameters).toLocaleString("en")} in training`
          : "",
      ],
      [
        "Published",
        (row.published || [])
          .map((one) => `${one.value === undefined ? "not in our sources" : number(one.value)} (${one.source})`)
          .join("; "),
      ],
    ]),
    dots.length
      ? [
          el("h3", {}, "Seeds"),
          dotsPlot(
            dots,
            "test error, %",
            `Test error of each seed: ${dots
              .map(
                ([name, values]) =>
                  `${name}: ${[...values].map(([seed, value]) => `seed ${seed} ${number(value)}`).join(", ")}`,
              )
              .join("; ")}`,
          ),
        ]
      : null,
    el("h3", {}, "Curves of all seeds"),
    curvesOf(behind, method),
    headsOf(row, runs),
    el("h3", {}, "Configuration"),
    el("p", { class: "small" }, el("code", {}, row.configuration_id)),
    behind
      ? [
          el(
            "details",
            {},
            el("summary", {}, "Everything that its id is made of"),
            el("pre", {}, JSON.stringify(behind.settings, null, 1)),
          ),
          behind.needs.length ? el("p", { class: "small" }, `Needs first: ${behind.needs.join("; ")}.`) : null,
          behind.dataset_digest ? el("p", { class: "digest muted" }, `Data set: ${behind.dataset_digest}`) : null,
        ]
      : null,
    el("h3", {}, "Where it ran"),
    facts([
      ["Device", price && price.devices ? price.devices : "not measured here"],
      [
        "Training time",
        price && price.train_seconds !== null
          ? `${number(price.train_seconds, 1)} s, ${number(price.train_seconds_relative)} × the baseline's`
          : "",
      ],
      ["Peak memory", price && price.peak_memory_bytes ? `${number(price.peak_memory_bytes / 1e6, 0)} MB` : ""],
      ["Versions", origin ? origin.versions.join(", ") : "not recorded with this report"],
      ["Commits", origin ? origin.commits.join(", ") : "not recorded with this report"],
    ]),
    el("h3", {}, "Run it yourself"),
    command(`collabench explain -p ${profile.profile} ${words}`),
    command(`collabench run -p ${profile.profile} --configuration ${row.configuration_id}`),
  ];
}

function curvesOf(behind, method) {
  if (!behind)
    return el(
      "p",
      { class: "small muted" },
      "This report was made before reports kept curves. Build it again to see them.",
    );
  const plot = Object.keys(behind.curves).length
    ? curvesPlot(
        behind.curves,
        `Test error of ${method} over the epochs, one thin line for each of ${Object.keys(behind.curves).length} seeds, the thick one their mean`,
      )
    : null;
  return plot || el("p", { class: "small muted" }, "It has no training of its own, or no epoch was evaluated.");
}

function headsOf(row, runs) {
  if (!row.heads || !runs || !runs.heads) return null;
  const groups = Array.from({ length: row.heads.count }, (_, head) => [
    head ? `${head + 1}` : "1 (deployed)",
    new Map(
      runs.seeds
        .map((seed, index) => [seed, runs.heads[index][head]])
        .filter(([, value]) => value !== undefined && value !== null),
    ),
  ]);
  const { mean: over, averaged, gain } = row.heads;
  const bounds = gain.low === undefined ? "" : ` ${interval(gain.low, gain.high, 2, true)}`;
  return [
    el("h3", {}, "Heads"),
    el(
      "p",
      { class: "small" },
      `Mean over heads ${number(over.mean)} %, averaged heads ${number(averaged.mean)} % `,
      `(${number(gain.difference, 2, true)} points to the deployed head${bounds}).`,
    ),
    row.heads.count <= 8
      ? dotsPlot(groups, "test error, %", `Test error of each of ${row.heads.count} heads in every seed`)
      : null,
  ];
}

function closePanel(profile, condition) {
  location.hash = link("leaderboard", {
    profile: profile.name,
    table: condition.tables.size ? [...condition.tables.values()][0] : "",
  });
}

VIEWS.cell = {
  title: "Cell",
  under: "leaderboard",
  draw(_, [name, key, method]) {
    const profile = PROFILES.get(name);
    const condition = profile && conditionsOf(profile, null).find((one) => one.key === key);
    if (!condition || !condition.rows.has(method)) {
      return [
        el("h1", {}, "Where does a number come from?"),
        el(
          "p",
          {},
          name ? "This page has no such cell. " : "",
          el("a", { href: link("leaderboard") }, "Choose one on the leaderboard."),
        ),
      ];
    }
    const panel = document.getElementById("panel");
    panel.replaceChildren();
    fill(panel, [cellPanel(profile, condition, method)]);
    if (!panel.open) panel.showModal();
    document.getElementById("panel-title").focus();
    panel.scrollTop = 0;
    return VIEWS.leaderboard.draw({ profile: name, table: condition.tables.get(method) });
  },
};

document.getElementById("panel").addEventListener("cancel", (event) => {
  event.preventDefault();
  document.querySelector("#panel .close").click();
});
