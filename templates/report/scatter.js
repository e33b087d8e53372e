// A scatter of rows over two figures, as SVG: points, their errors, a Pareto front, and names that never overlap.
// `hpcbench/report/label_places.py` and `pareto.py` do the same for pictures in files.

const POINT_RADIUS = 5;
const LABEL_GAPS = [2, 8];
const LABEL_HEIGHT = 14;
const MARGIN = {left: 52, right: 12, top: 10, bottom: 40};

const measure = (() => {
  const context = document.createElement('canvas').getContext('2d');
  return (text) => { context.font = '11.5px system-ui, sans-serif'; return context.measureText(text).width + 2; };
})();

// Indices of the points that no other equals or beats in both figures, from left to right.
function paretoFront(points, across, up) {
  if (!across || !up) return [];
  const xSign = across === 'lower' ? 1 : -1;
  const ySign = up === 'lower' ? 1 : -1;
  const order = points.map((_, number) => number)
    .sort((a, b) => xSign * (points[a].x - points[b].x) || ySign * (points[a].y - points[b].y));
  const front = [];
  for (const number of order) {
    const last = points[front[front.length - 1]];
    const {x, y} = points[number];
    if (!last || ySign * y < ySign * last.y || (x === last.x && y === last.y)) front.push(number);
  }
  return front.sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

// Places for labels, first come first served: beside its point, free of all points and labels; null where there is none.
function placeLabels(points, widths, area) {
  const taken = points.map(({px, py}) => ({
    left: px - POINT_RADIUS, right: px + POINT_RADIUS, top: py - POINT_RADIUS, bottom: py + POINT_RADIUS,
  }));
  return widths.map((width, number) => {
    const {px, py} = points[number];
    for (const box of labelPlaces(px, py, width)) {
      const inside = box.left >= area.left && box.right <= area.right && box.top >= area.top && box.bottom <= area.bottom;
      if (inside && !taken.some((other) => overlap(box, other))) {
        taken.push(box);
        return box;
      }
    }
    return null;
  });
}

function* labelPlaces(px, py, width) {
  const at = (left, top) => ({left, right: left + width, top, bottom: top + LABEL_HEIGHT});
  for (const gap of LABEL_GAPS) {
    const reach = POINT_RADIUS + gap;
    yield at(px + reach, py - LABEL_HEIGHT / 2);
    yield at(px - reach - width, py - LABEL_HEIGHT / 2);
    for (const top of [py - reach - LABEL_HEIGHT, py + reach]) {
      for (const left of [px - width / 2, px, px - width]) yield at(left, top);
    }
  }
}

// Draws points {x, y, xError, yError, row}; returns {element, front, named}.
function scatter(points, {across, up, width, height, logX, most}) {
  const x = axisScale(points.map((point) => point.x), MARGIN.left, width - MARGIN.right, logX);
  const y = axisScale(points.flatMap((point) => [point.y - point.yError, point.y + point.yError]), height - MARGIN.bottom, MARGIN.top, false);
  for (const point of points) Object.assign(point, {px: x.place(point.x), py: y.place(point.y)});
  const complete = points.filter((point) => point.row.complete);
  const front = paretoFront(complete, across.better, up.better).map((number) => complete[number]);
  const isFront = new Set(front);
  // Names go to the front, then to the best in the upward figure.
  const sign = up.better === 'lower' ? 1 : -1;
  const order = [...front, ...points.filter((point) => !isFront.has(point)).sort((a, b) => sign * (a.y - b.y))];
  const names = order.slice(0, most).map((point) => shortName(point.row.name));
  const area = {left: MARGIN.left + 2, right: width - 2, top: 2, bottom: height - MARGIN.bottom - 2};
  const places = placeLabels(order, names.map(measure), area);
  const label = `${axisText(up)} against ${axisText(across)}, ${points.length} rows`;
  const element = svg('svg', {viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': label, class: 'scatter'},
    axisLines(x, y, width, height),
    svg('text', {x: (MARGIN.left + width) / 2, y: height - 5, class: 'axis-name'}, axisText(across)),
    front.length > 1 ? svg('polyline', {class: 'front', points: front.map(({px, py}) => `${px.toFixed(1)},${py.toFixed(1)}`).join(' ')}) : null,
    [...order].reverse().map((point) => dot(point, isFront.has(point), {x, y, across, up})),
    places.map((place, number) => place && svg('text', {x: (place.left + 1).toFixed(1), y: (place.bottom - 3).toFixed(1), class: 'name'}, names[number])));
  return {element, front, named: places.filter(Boolean).length};
}

function dot(point, isFront, {x, y, across, up}) {
  const {row, px, py} = point;
  const kind = isFront ? 'point best' : row.complete ? 'point' : 'point incomplete';
  const told = `${row.name}: ${axisText(up, true)} ${cellText(row, up.key)}, ${axisText(across, true)} ${cellText(row, across.key)}`
    + (row.complete ? '' : ' (incomplete)');
  const error = point.yError ? svg('line', {class: 'spread', x1: px, x2: px, y1: y.place(point.y - point.yError), y2: y.place(point.y + point.yError)}) : null;
  return svg('a', {href: `#exp=${encodeURIComponent(row.id)}`, 'aria-label': told}, svg('title', null, told), error,
    svg('circle', {class: 'target', cx: px.toFixed(1), cy: py.toFixed(1), r: 11}),
    svg('circle', {class: kind, cx: px.toFixed(1), cy: py.toFixed(1), r: POINT_RADIUS}));
}

function cellText(row, key) {
  const cell = cellOf(row, key);
  return cell.error ? `${cell.text} ± ${cell.error}` : cell.text;
}

function axisText(column, bare) {
  const arrow = {higher: ' ↑', lower: ' ↓'}[column.better];
  return column.label + (arrow && !bare ? arrow : '');
}

function shortName(name) {
  return name.length > 32 ? `${name.slice(0, 31)}…` : name;
}

// A scale from values to pixels, with round ticks and some room at both ends.
function axisScale(values, from, to, isLog) {
  const change = isLog ? Math.log10 : (value) => value;
  let [low, high] = [Math.min(...values), Math.max(...values)].map(change);
  const room = (high - low || Math.abs(high) || 1) * 0.07;
  // Figures that are never negative do not get an axis that is.
  const below = !isLog && low >= 0 ? Math.max(low - room, 0) : low - room;
  [low, high] = [below, high + room];
  const place = (value) => from + (change(value) - low) / (high - low) * (to - from);
  const ticks = isLog ? logTicks(10 ** low, 10 ** high) : niceTicks(low, high, 5).filter((tick) => tick >= low && tick <= high);
  return {place, ticks};
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) ticks.push(+(factor * 10 ** power).toPrecision(3));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

function axisLines(x, y, width, height) {
  const bottom = height - MARGIN.bottom;
  return svg('g', {class: 'axes', 'aria-hidden': 'true'},
    y.ticks.map((tick) => [
      svg('line', {x1: MARGIN.left, x2: width - MARGIN.right, y1: y.place(tick), y2: y.place(tick)}),
      svg('text', {x: MARGIN.left - 6, y: y.place(tick) + 4, 'text-anchor': 'end'}, tickText(tick)),
    ]).flat(),
    x.ticks.map((tick) => [
      svg('line', {x1: x.place(tick), x2: x.place(tick), y1: MARGIN.top, y2: bottom}),
      svg('text', {x: x.place(tick), y: bottom + 15, 'text-anchor': 'middle'}, tickText(tick)),
    ]).flat());
}

function tickText(value) {
  return Math.abs(value) >= 1e5 ? tidyExponent(value.toExponential(1)) : String(+value.toPrecision(4));
}
