// What does it cost? Error against training time or memory, with the Pareto line.

const COSTS = {
  train_seconds: ["training time, s", "Training time", 1],
  peak_memory_bytes: ["peak memory, MB", "Peak memory", 1e6],
};

/** The points that no other point beats in both error and cost, by cost. */
function pareto(points) {
  const best = [];
  for (const point of [...points].sort((a, b) => a.cost - b.cost || a.error - b.error)) {
    if (!best.length || point.error < best[best.length - 1].error) best.push(point);
  }
  return best;
}

function costPlot(points, best, baseline, axisTitle) {
  const width = plotWidth(640),
    height = 360;
  const x = scale(
      points.map((point) => point.cost),
      66,
      width - (width < 400 ? 90 : 130),
      true,
    ),
    y = scale(
      points.map((point) => point.error),
      height - 52,
      30,
    );
  const { node, plot } = axes({
    width,
    height,
    x,
    y,
    xTitle: `${axisTitle} (logarithmic)`,
    yTitle: "test error, %",
    label: `Test error against ${axisTitle} of ${points.length} methods. On the Pareto line: ${best.map((point) => point.method).join(", ")}`,
  });
  const line = best
    .map((point, index) => `${index ? "H" : "M"}${x(point.cost)}${index ? "V" : " "}${y(point.error)}`)
    .join("");
  const named = new Set(
    points.length <= 8 ? points.map((point) => point.method) : [...best.map((point) => point.method), baseline],
  );
  const labels = [];
  fill(plot, [
    svg("path", { d: line, class: "pareto" }),
    points.map((point) => {
      const kind = point.method === baseline ? " baseline" : best.includes(point) ? " best" : "";
      return svg(
        "circle",
        { cx: x(point.cost), cy: y(point.error), r: kind ? 6 : 4.5, class: `point${kind}` },
        svg("title", {}, `${point.method}: ${number(point.error)} %, ${short(Number(point.cost.toPrecision(3)))}`),
      );
    }),
    points
      .filter((point) => named.has(point.method))
      .map((point) => {
        let at = y(point.error) - 7;
        while (labels.some(([left, top]) => Math.abs(left - x(point.cost)) < 110 && Math.abs(top - at) < 13))
          at -= 13;
        labels.push([x(point.cost), at]);
        return svg("text", { x: x(point.cost) + 6, y: at, class: "name" }, point.method);
      }),
  ]);
  return node;
}

VIEWS.cost = {
  title: "Cost",
  draw(wanted) {
    const usable = DATA.profiles.filter((one) => Object.keys(one.prices).length);
    if (!usable.length) return nothingYet("What does it cost?");
    const profile =
      usable.find((one) => one.name === wanted.profile) ||
      usable.find((one) => one.profile === "default") ||
      usable[0];
    const conditions = conditionsOf(profile, null).filter((condition) => condition.rows.size > 1);
    const condition = conditions.find((one) => one.key === wanted.condition) || conditions[0];
    const what = COSTS[wanted.cost] ? wanted.cost : "train_seconds";
    const change = (name) => (value) =>
      stay("cost", { ...wanted, [name]: value, ...(name === "profile" ? { condition: "" } : {}) });
    const controls = el(
      "div",
      { class: "controls" },
      select(
        "Profile",
        usable.map((one) => [one.name, one.name]),
        profile.name,
        change("profile"),
      ),
      condition
        ? select(
            "Condition",
            conditions.map((one) => [one.key, one.scope.slice(0, 3).join(", ")]),
            condition.key,
            change("condition"),
          )
        : null,
      select(
        "Cost",
        Object.entries(COSTS).map(([name, [, title]]) => [name, title]),
        what,
        change("cost"),
      ),
    );
    const [axisTitle, , unit] = COSTS[what];
    const points = condition
      ? [...condition.rows.values()]
          .map((row) => ({ row, method: row.method, price: priceOf(profile, condition, row.method) }))
          .filter((one) => one.row.error && one.price && one.price[what])
          .map((one) => ({ ...one, error: one.row.error.mean, cost: one.price[what] / unit }))
      : [];
    const best = pareto(points);
    return [
      el("h1", {}, "What does it cost?"),
      controls,
      points.length < 2
        ? el("p", {}, "Fewer than two methods of this condition were measured.")
        : [
            el("p", {}, condition.title, "."),
            el("div", { class: "card pad chart" }, costPlot(points, best, condition.baseline, axisTitle)),
            el(
              "p",
              { class: "small muted" },
              "The line joins the methods that no other one beats in both error and cost. As measured where the runs were made; " +
                "training time includes the runs that a method needs first. " +
                "Times compare only where the device below is one.",
            ),
            scrolling(
              "Costs",
              el(
                "table",
                { class: "card" },
                el(
                  "thead",
                  {},
                  el(
                    "tr",
                    {},
                    ["Method", "Test error %", "Time, s", "Time ×", "Images/s", "Memory, MB", "On the line"].map(
                      (title) => el("th", { scope: "col" }, title),
                    ),
                  ),
                ),
                el(
                  "tbody",
                  {},
                  [...points]
                    .sort((a, b) => a.cost - b.cost)
                    .map((point) =>
                      el(
                        "tr",
                        {},
                        el("th", { scope: "row", class: "left" }, point.method),
                        el("td", {}, number(point.error)),
                        el("td", {}, number(point.price.train_seconds, 1)),
                        el("td", {}, number(point.price.train_seconds_relative)),
                        el("td", {}, number(point.price.images_per_second, 0)),
                        el(
                          "td",
                          {},
                          number(
                            point.price.peak_memory_bytes === null ? null : point.price.peak_memory_bytes / 1e6,
                            0,
                          ),
                        ),
                        el("td", {}, best.includes(point) ? "yes" : ""),
                      ),
                    ),
                ),
              ),
            ),
            el(
              "p",
              { class: "small muted" },
              `Device: ${unique(points.map((point) => point.price.devices).filter(Boolean)).join("; ") || "not recorded"}.`,
            ),
          ],
    ];
  },
};
