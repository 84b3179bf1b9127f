// What does it cost? Error against training time or memory, with the Pareto line.

const COSTS = {
  train_seconds: ["training time, s", "Training time", 1],
  peak_memory_bytes: ["peak memory, MB", "Peak memory", 1e6],
};

/** The points that no other point beats in both error and cost, by cost. */
function pareto(points) {
  const best = [];
  for (const point of [...points].sort((a, b) => a.cost - b.cost || a.error - b.error))
    if (!best.length || point.error < best.at(-1).error) best.push(point);
  return best;
}

function costPlot(points, best, baseline, axisTitle) {
  const width = plotWidth(640), height = 360;
  const x = scale(points.map((point) => point.cost), 66, width - (width < 400 ? 90 : 130), true);
  const y = scale(points.map((point) => point.error), height - 52, 30);
  const path = best.map(({ cost, error }, index) => (index ? `H${x(cost)}V${y(error)}` : `M${x(cost)} ${y(error)}`));
  const taken = [];
  return axes({ width, height, x, y, xTitle: `${axisTitle} (logarithmic)`, yTitle: "test error, %",
    label: `Test error against ${axisTitle} of ${points.length} methods. On the Pareto line: ${
      best.map((point) => point.method).join(", ")}` },
  svg("path.pareto", { d: path.join("") }),
  points.map((point) => {
    const kind = point.method === baseline ? ".baseline" : best.includes(point) ? ".best" : "";
    return svg(`circle.point${kind}`, { cx: x(point.cost), cy: y(point.error), r: kind ? 6 : 4.5 },
      svg("title", `${point.method}: ${number(point.error)} %, ${short(Number(point.cost.toPrecision(3)))}`));
  }),
  points.filter((point) => points.length <= 8 || best.includes(point) || point.method === baseline).map((point) => {
    const left = x(point.cost);
    let top = y(point.error) - 7;
    while (taken.some(([x0, y0]) => Math.abs(x0 - left) < 110 && Math.abs(y0 - top) < 13)) top -= 13;
    taken.push([left, top]);
    return text(left + 6, top, "start", point.method, "name");
  }));
}

VIEWS.cost = {
  title: "Cost",
  draw(wanted) {
    const title = el("h1", "What does it cost?");
    const usable = DATA.profiles.filter((one) => Object.keys(one.prices).length);
    if (!usable.length) return [title, nothingYet()];
    const profile = chosenProfile(wanted.profile, usable);
    const conditions = conditionsOf(profile).filter((one) => one.rows.size > 1);
    const condition = conditions.find((one) => one.key === wanted.condition) || conditions[0];
    const what = COSTS[wanted.cost] ? wanted.cost : "train_seconds", [axisTitle, , unit] = COSTS[what];
    const points = (condition ? [...condition.rows.values()] : [])
      .map((row) => ({ row, method: row.method, price: priceOf(profile, condition, row.method) }))
      .filter(({ row, price }) => row.error && price && price[what])
      .map((one) => ({ ...one, error: one.row.error.mean, cost: one.price[what] / unit }));
    const best = pareto(points);
    const devices = unique(points.map((point) => point.price.devices).filter(Boolean));
    const bytes = (value) => number(value == null ? null : value / 1e6, 0);
    return [
      title,
      el("div.controls", choosers("cost", wanted, [
        ["profile", "Profile", usable.map((one) => one.name), profile.name, "condition"],
        condition && ["condition", "Condition", conditions.map((one) => [one.key, one.scope.slice(0, 3).join(", ")]),
          condition.key],
        ["cost", "Cost", Object.entries(COSTS).map(([name, [, words]]) => [name, words]), what],
      ])),
      points.length < 2 ? el("p", "Fewer than two methods of this condition were measured.") : [
        el("p", condition.title, "."),
        el("div.card.pad.chart", costPlot(points, best, condition.baseline, axisTitle)),
        el("p.small.muted", "The line joins the methods that no other one beats in both error and cost. As measured " +
          "where the runs were made; training time includes the runs that a method needs first. Times compare only " +
          "where the device below is one."),
        table("Costs", [
          ["Method", (point) => point.method],
          ["Test error %", (point) => number(point.error)],
          ["Time, s", ({ price }) => number(price.train_seconds, 1)],
          ["Time ×", ({ price }) => number(price.train_seconds_relative)],
          ["Images/s", ({ price }) => number(price.images_per_second, 0)],
          ["Memory, MB", ({ price }) => bytes(price.peak_memory_bytes)],
          ["On the line", (point) => best.includes(point) && "yes"],
        ], [...points].sort((a, b) => a.cost - b.cost)),
        el("p.small.muted", `Device: ${devices.join("; ") || "not recorded"}.`),
      ],
    ];
  },
};
