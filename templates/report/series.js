// Curves as numbers: unpacked from differences, smoothed, and averaged over repeats.

let curvesLoading = null;

// Curves of the page: {ranks, series: {id: {loss, eval_loss}}}, unpacked once.
function loadCurves() {
  curvesLoading = curvesLoading || unpackPart(report.data.curves);
  return curvesLoading;
}

// {steps, values, neighbours} of a series that was written as differences.
function readSeries({s, v, q, n}) {
  const sum = (differences) => { let total = 0; return differences.map((difference) => (total += difference)); };
  return {steps: sum(s), values: sum(v).map((value) => value * q), neighbors: n};
}

// Exponential moving average that starts without a bias towards 0; weight 0 changes nothing.
function smoothed(values, weight) {
  if (!weight) return values;
  let [last, norm] = [0, 0];
  return values.map((value) => {
    last = last * weight + value * (1 - weight);
    norm = norm * weight + (1 - weight);
    return last / norm;
  });
}

// Mean and spread of the curves of repeats at the steps of the longest one: {steps, mean, low, high, count}.
function averageCurves(curves) {
  const longest = curves.reduce((best, curve) => (curve.steps.length > best.steps.length ? curve : best));
  const [mean_, low, high] = [[], [], []];
  for (const step of longest.steps) {
    const values = curves.map((curve) => valueAt(curve, step)).filter((value) => value !== null);
    const middle = mean(values);
    const spread = deviation(values) || 0;
    mean_.push(middle);
    low.push(middle - spread);
    high.push(middle + spread);
  }
  return {steps: longest.steps, mean: mean_, low, high, count: curves.length};
}

// The value of a curve at a step, between its points in a straight line; null outside.
function valueAt({steps, values}, step) {
  if (step < steps[0] || step > steps[steps.length - 1]) return null;
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle; else high = middle;
  }
  if (steps[high] === step) return values[high];
  const part = steps[high] === steps[low] ? 0 : (step - steps[low]) / (steps[high] - steps[low]);
  return values[low] + part * (values[high] - values[low]);
}

// The curves of a row: {loss, eval_loss}, each averaged over its repeats; null where it has none.
function rowCurves(curves, row, weight) {
  const found = {};
  for (const name of ['loss', 'eval_loss']) {
    const known = row.members.map((member) => curves.series[member.id]).filter((series) => series && series[name]).map((series) => readSeries(series[name]));
    if (!known.length) continue;
    const curve = averageCurves(name === 'loss' ? known.map((one) => ({...one, values: smoothed(one.values, weight)})) : known);
    found[name] = {...curve, neighbors: Math.max(...known.map((one) => one.neighbors))};
  }
  return found.loss || found.eval_loss ? found : null;
}
