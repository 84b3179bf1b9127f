// Plots as SVG. Each has a text beside it or a label that says what it shows; colour is never the only sign.

/** A linear or logarithmic scale from values to pixels. */
function scale(values, from, to, logarithmic = false) {
  const map = logarithmic ? Math.log : (value) => value;
  const known = values.filter((value) => value !== null && value !== undefined && Number.isFinite(map(value)));
  let low = Math.min(...known.map(map)),
    high = Math.max(...known.map(map));
  if (!(high > low)) {
    low -= 0.5;
    high += 0.5;
  }
  const at = (value) => from + ((map(value) - low) / (high - low)) * (to - from);
  at.ticks = (wanted) => ticks(low, high, wanted, logarithmic);
  return at;
}

/** Round numbers between the ends. low, high: of a logarithmic scale the logarithms. */
function ticks(low, high, wanted, logarithmic) {
  const found = [];
  if (logarithmic) {
    for (let power = Math.floor(low / Math.LN10) - 1; power <= Math.ceil(high / Math.LN10); power += 1) {
      for (const digit of [1, 1.5, 2, 3, 5, 7]) {
        const value = digit * 10 ** power;
        if (Math.log(value) >= low - 1e-9 && Math.log(value) <= high + 1e-9) found.push(value);
      }
    }
    const every = Math.ceil(found.length / wanted);
    return found.filter((_, index) => index % every === 0);
  }
  const rough = (high - low) / wanted,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  }
  return found;
}

function short(value) {
  return number(Number(value.toPrecision(6)), 10).replace(/\.?0+$/, "");
}

// ------------------------------------------------------------------------------------------------------- forest

/** The values that a forest plot of these parts has to show. */
function reach(parts, claim) {
  const neutral = claim.unit === "ratio" ? 1 : 0;
  return [
    neutral,
    claim.bound,
    ...parts.flatMap((part) => [part.estimate, part.low, part.high, part.adjusted_low, part.adjusted_high]),
  ];
}

/**
 * One line per part: the thick bar is the plain 95 % interval, the thin one the interval that decides, the dot the
 * estimate; the tinted side is the claimed one. at: the scale, shared by all plots of a claim. axis: with numbers.
 */
function forest(parts, claim, at, { width, height = 14, axis = false }) {
  const top = 3,
    bottom = top + parts.length * height;
  const edge = at(claim.bound ?? 0);
  const tint = claim.side === "above" ? [edge, width] : [0, edge];
  const lines = parts.map((part, index) => {
    if (part.estimate === undefined || part.estimate === null) return null;
    const y = top + (index + 0.5) * height,
      kind = cssName(part.standing);
    const bar = (low, high, name) =>
      low === undefined || low === null
        ? null
        : svg("line", { x1: at(low), x2: at(high), y1: y, y2: y, class: name });
    return svg(
      "g",
      { class: `mark ${kind}` },
      bar(part.adjusted_low, part.adjusted_high, "thin"),
      bar(part.low, part.high, "thick"),
      svg("circle", { cx: at(part.estimate), cy: y, r: 3.4 }),
    );
  });
  const numbers = axis
    ? at.ticks(4).map((value) =>
        svg(
          "g",
          {},
          svg("line", { x1: at(value), x2: at(value), y1: bottom, y2: bottom + 4, class: "axis" }),
          svg(
            "text",
            {
              x: at(value),
              y: bottom + 15,
              "text-anchor": at(value) > width - 14 ? "end" : at(value) < 14 ? "start" : "middle",
            },
            short(value),
          ),
        ),
      )
    : null;
  const full = bottom + (axis ? 19 : 3);
  return svg(
    "svg",
    { class: "forest", viewBox: `0 0 ${width} ${full}`, width, height: full, "aria-hidden": "true" },
    svg("rect", { x: Math.min(...tint), width: Math.abs(tint[1] - tint[0]), y: 0, height: bottom, class: "side" }),
    axis ? svg("line", { x1: 0, x2: width, y1: bottom, y2: bottom, class: "axis" }) : null,
    svg("line", { x1: edge, x2: edge, y1: 0, y2: bottom, class: "zero" }),
    lines,
    numbers,
  );
}

// --------------------------------------------------------------------------------------------------------- axes

/** So wide that text keeps its size on a narrow screen. */
function plotWidth(most) {
  return Math.max(260, Math.min(most, document.documentElement.clientWidth - 64));
}

/** A frame with both axes, named. Returns {node, x, y, plot}: append to plot. */
function axes({ width, height, x, y, xTitle, yTitle, label }) {
  const plot = svg("g", {});
  const left = 46,
    bottom = height - 38;
  const grid = [
    ...y
      .ticks(5)
      .map((value) =>
        svg(
          "g",
          {},
          svg("line", { x1: left, x2: width - 6, y1: y(value), y2: y(value), class: "grid" }),
          svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
        ),
      ),
    ...x
      .ticks(width < 400 ? 4 : 6)
      .map((value) =>
        svg(
          "g",
          {},
          svg("line", { x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4, class: "axis" }),
          svg("text", { x: x(value), y: bottom + 17, "text-anchor": "middle" }, short(value)),
        ),
      ),
    svg("line", { x1: left, x2: width - 6, y1: bottom, y2: bottom, class: "axis" }),
    svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle", class: "title" }, xTitle),
    svg("text", { x: 4, y: 12, class: "title" }, yTitle),
  ];
  return {
    node: svg(
      "svg",
      { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      grid,
      plot,
    ),
    plot,
  };
}

/** Curves of all seeds, their mean emphasised. curves: seed → error per epoch, null where it was not evaluated. */
function curvesPlot(curves, label) {
  const all = Object.values(curves),
    epochs = Math.max(...all.map((curve) => curve.length));
  const known = all.flat().filter((value) => value !== null);
  if (!known.length) return null;
  const width = plotWidth(560),
    height = 250;
  const x = scale([1, Math.max(epochs, 2)], 52, width - 12),
    y = scale([...known, 0], height - 38, 22);
  const path = (curve) =>
    curve
      .map((value, index) => [index + 1, value])
      .filter(([, value]) => value !== null)
      .map(([epoch, value], index) => `${index ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`)
      .join("");
  const middle = Array.from({ length: epochs }, (_, index) => {
    const values = all.map((curve) => curve[index]).filter((value) => value !== null && value !== undefined);
    return values.length === all.length ? mean(values) : null;
  });
  const { node, plot } = axes({ width, height, x, y, xTitle: "epoch", yTitle: "test error, %", label });
  fill(plot, [
    all.map((curve) => svg("path", { d: path(curve), class: "curve" })),
    svg("path", { d: path(middle), class: "curve middle" }),
  ]);
  return node;
}

/** Dots of all seeds for a few groups, one column each; a line joins the values of a seed. groups: [name, Map]. */
function dotsPlot(groups, yTitle, label) {
  const width = plotWidth(560),
    height = 230;
  const known = groups.flatMap(([, values]) => [...values.values()]);
  const y = scale(known, height - 44, 26);
  const x = (index) => 60 + ((index + 0.5) / groups.length) * (width - 76);
  const { node, plot } = axes({
    width,
    height,
    x: Object.assign(x, { ticks: () => [] }),
    y,
    xTitle: "",
    yTitle,
    label,
  });
  const seeds = unique(groups.flatMap(([, values]) => [...values.keys()]));
  fill(plot, [
    groups.length === 2
      ? seeds
          .filter((seed) => groups.every(([, values]) => values.has(seed)))
          .map((seed) =>
            svg("line", {
              x1: x(0),
              x2: x(1),
              y1: y(groups[0][1].get(seed)),
              y2: y(groups[1][1].get(seed)),
              class: "join",
            }),
          )
      : null,
    groups.map(([name, values], index) => [
      [...values].map(([seed, value]) =>
        svg(
          "circle",
          { cx: x(index), cy: y(value), r: 4, class: "dot" },
          svg("title", {}, `${name}, seed ${seed}: ${number(value)}`),
        ),
      ),
      svg("line", {
        x1: x(index) - 16,
        x2: x(index) + 16,
        y1: y(mean([...values.values()])),
        y2: y(mean([...values.values()])),
        class: "middle",
      }),
      svg("text", { x: x(index), y: height - 22, "text-anchor": "middle" }, name),
    ]),
  ]);
  return node;
}
