// The little arithmetic of the page: paired differences against a baseline or a quantity that the tables do not show.

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

/** Logarithm of the gamma function for x > 0 (Stirling's series after a shift). */
function logGamma(x) {
  let shift = 0;
  while (x < 10) {
    shift -= Math.log(x);
    x += 1;
  }
  const inverse = 1 / (x * x);
  const series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / x;
  return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
}

/** P(T ≤ t) of Student's t for t ≥ 0, by Simpson's rule over the density. */
function studentBelow(t, freedom) {
  const scale = Math.exp(logGamma((freedom + 1) / 2) - logGamma(freedom / 2)) / Math.sqrt(freedom * Math.PI);
  const density = (x) => scale * (1 + (x * x) / freedom) ** (-(freedom + 1) / 2);
  const steps = 2000,
    width = t / steps;
  let sum = density(0) + density(t);
  for (let step = 1; step < steps; step += 1) sum += density(step * width) * (step % 2 ? 4 : 2);
  return 0.5 + (sum * width) / 3;
}

/** The value that Student's t stays below with the given probability (above one half), by bisection. */
function studentQuantile(probability, freedom) {
  let low = 0,
    high = 2;
  while (studentBelow(high, freedom) < probability) high *= 2;
  for (let step = 0; step < 60; step += 1) {
    const middle = (low + high) / 2;
    if (studentBelow(middle, freedom) < probability) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

const QUANTILES = new Map();

/** Mean with its unadjusted 95 % t interval. */
function summarise(values) {
  const n = values.length;
  if (!n) return null;
  const middle = mean(values),
    sd = deviation(values);
  if (sd === null) return { mean: middle, n, sd: null, low: null, high: null };
  if (!QUANTILES.has(n)) QUANTILES.set(n, studentQuantile(0.975, n - 1));
  const half = (QUANTILES.get(n) * sd) / Math.sqrt(n);
  return { mean: middle, n, sd, low: middle - half, high: middle + half };
}

/** Seed → value of one column of a configuration's runs. */
function bySeed(runs, column) {
  if (!runs || !runs[column]) return new Map();
  return new Map(runs.seeds.map((seed, index) => [seed, runs[column][index]]).filter(([, value]) => value !== null));
}

/** Method minus baseline over the seeds that both have. */
function pairedDifference(runs, baseline, column) {
  const first = bySeed(runs, column),
    second = bySeed(baseline, column);
  return summarise([...first].filter(([seed]) => second.has(seed)).map(([seed, value]) => value - second.get(seed)));
}
