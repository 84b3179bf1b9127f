// Plots as SVG. Each has a text beside it or a label that says what it shows; colour is never the only sign.

/** A linear or logarithmic scale from values to pixels. */
function scale(values, from, to, logarithmic = false) {
  const map = logarithmic ? Math.log : Number;
  const known = values.filter((value) => value != null).map(map).filter(Number.isFinite);
  let low = Math.min(...known), high = Math.max(...known);
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const at = (value) => from + ((map(value) - low) / (high - low)) * (to - from);
  return Object.assign(at, { ticks: (wanted) => (logarithmic ? powers : steps)(low, high, wanted) });
}

/** About as many round numbers as wanted between the ends. */
function steps(low, high, wanted) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, index) => (first + index) * step);
}

/** The same between the ends' logarithms. */
function powers(low, high, wanted) {
  const decades = Array.from({ length: 40 }, (_, index) => 10 ** (index - 20));
  const found = decades.flatMap((power) => [1, 1.5, 2, 3, 5, 7].map((digit) => digit * power))
    .filter((value) => Math.log(value) >= low - 1e-9 && Math.log(value) <= high + 1e-9);
  return found.filter((_, index) => index % Math.ceil(found.length / wanted) === 0);
}

const line = (x1, y1, x2, y2, kind) => svg(`line.${kind}`, { x1, y1, x2, y2 });
const text = (x, y, anchor, words, kind = "tick") => svg(`text.${kind}`, { x, y, "text-anchor": anchor }, words);

/** Comparisons that have an estimate. */
const known = (test) => test.parts.filter((part) => part.estimate != null);

/** The scale of all forest plots of a claim; null if there is nothing to draw. */
function forestScale(claim, width) {
  const parts = claim.tests.flatMap(known);
  const values = parts.flatMap((part) => [part.estimate, part.low, part.high, part.adjusted_low, part.adjusted_high]);
  const isRatio = claim.unit === "ratio";
  return parts.length ? scale([...values, claim.bound, Number(isRatio)], 8, width - 8, isRatio) : null;
}

/**
 * One line per part: the thick bar is the plain 95 % interval, the thin one the interval that decides, the dot the
 * estimate; the tinted side is the claimed one. axis: with numbers.
 */
function forest(parts, claim, at, { width, height, axis }) {
  const bottom = 3 + parts.length * height, full = bottom + (axis ? 19 : 3), edge = at(claim.bound ?? 0);
  const above = claim.side === "above";
  const ends = (x) => (x > width - 14 ? "end" : x < 14 ? "start" : "middle");
  return svg("svg.forest", { viewBox: `0 0 ${width} ${full}`, width, height: full, "aria-hidden": "true" },
    svg("rect.side", { x: above ? edge : 0, width: Math.max(0, above ? width - edge : edge), y: 0, height: bottom }),
    line(edge, 0, edge, bottom, "zero"),
    parts.map((part, index) => {
      const y = 3 + (index + 0.5) * height;
      const bar = (low, high, kind) => low != null && line(at(low), y, at(high), y, kind);
      return svg(`g.mark.${cssName(part.standing)}`,
        bar(part.adjusted_low, part.adjusted_high, "thin"), bar(part.low, part.high, "thick"),
        svg("circle", { cx: at(part.estimate), cy: y, r: 3.4 }));
    }),
    axis && [line(0, bottom, width, bottom, "axis"), at.ticks(4).map((value) => [
      line(at(value), bottom, at(value), bottom + 4, "axis"),
      text(at(value), bottom + 15, ends(at(value)), short(value))])]);
}

/** So wide that text keeps its size on a narrow screen. */
function plotWidth(most) {
  return Math.max(260, Math.min(most, document.documentElement.clientWidth - 64));
}

/** A frame with both axes, named, and what is drawn inside. */
function axes({ width, height, x, y, xTitle, yTitle, label }, ...content) {
  const left = 46, right = width - 6, bottom = height - 38;
  return svg("svg.plot", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    y.ticks(5).map((value) => [
      line(left, y(value), right, y(value), "grid"), text(left - 6, y(value) + 4, "end", short(value))]),
    x.ticks && x.ticks(width < 400 ? 4 : 6).map((value) => [
      line(x(value), bottom, x(value), bottom + 4, "axis"), text(x(value), bottom + 17, "middle", short(value))]),
    line(left, bottom, right, bottom, "axis"),
    text((left + width) / 2, height - 4, "middle", xTitle, "title"),
    text(4, 12, "start", yTitle, "title"),
    content);
}

/** Curves of all seeds, their mean emphasised. curves: seed → error per epoch, null where it was not evaluated. */
function curvesPlot(curves, label) {
  const all = Object.values(curves), epochs = Math.max(...all.map((curve) => curve.length));
  const values = all.flat().filter((value) => value !== null);
  if (!values.length) return null;
  const width = plotWidth(560), height = 250;
  const x = scale([1, Math.max(epochs, 2)], 52, width - 12), y = scale([...values, 0], height - 38, 22);
  const path = (curve) => curve.map((value, index) => value != null && [x(index + 1), y(value)]).filter(Boolean)
    .map((point, index) => (index ? "L" : "M") + point.map((one) => one.toFixed(1)).join(" ")).join("");
  const middle = Array.from({ length: epochs }, (_, index) => {
    const here = all.map((curve) => curve[index]);
    return here.some((value) => value == null) ? null : mean(here);
  });
  return axes({ width, height, x, y, xTitle: "epoch", yTitle: "test error, %", label },
    all.map((curve) => svg("path.curve", { d: path(curve) })), svg("path.curve.middle", { d: path(middle) }));
}

/** Dots of all seeds for a few groups, one column each; a line joins a seed's values in two groups. groups: [name, Map
 * of seed → test error]. */
function dotsPlot(groups, label) {
  const width = plotWidth(560), height = 230;
  const y = scale(groups.flatMap(([, values]) => [...values.values()]), height - 44, 26);
  const x = (index) => 60 + ((index + 0.5) / groups.length) * (width - 76);
  const [first, second] = groups.map(([, values]) => values);
  return axes({ width, height, x, y, xTitle: "", yTitle: "test error, %", label },
    groups.length === 2 && [...first].filter(([seed]) => second.has(seed)).map(([seed, value]) =>
      line(x(0), y(value), x(1), y(second.get(seed)), "join")),
    groups.map(([name, values], index) => {
      const middle = y(mean([...values.values()]));
      return [
        [...values].map(([seed, value]) => svg("circle.dot", { cx: x(index), cy: y(value), r: 4 },
          svg("title", `${name}, seed ${seed}: ${number(value)}`))),
        line(x(index) - 16, middle, x(index) + 16, middle, "middle"),
        text(x(index), height - 22, "middle", name)];
    }));
}
