// The sweep: a figure over two settings, as a table with heat colours and as one curve per row of it.

const MOST_VALUES = 30;
const MOST_CURVES = 8;

views.push({id: 'sweep', title: 'Sweep', render(section) {
  const settings = pivotSettings();
  if (!settings.length || !figures().length) {
    section.hidden = true;
    return;
  }
  const asked = firstPivot(settings);
  const controls = el('div', {class: 'toolbar'});
  const grid = el('div', {class: 'two'});
  section.append(controls, grid);
  const draw = () => {
    const pivot = makePivot(asked);
    const curves = sweepCurves(pivot);
    grid.classList.toggle('alone', !curves);
    grid.replaceChildren(...[el('div', {class: 'wide'}, pivotTable(pivot)), curves].filter(Boolean));
  };
  const names = settings.map((column) => [column.key, column.label]);
  const pick = (part) => (value) => { asked[part] = value; draw(); };
  controls.append(select('rows', [['', '(none)'], ...names], asked.rows, pick('rows')),
    select('columns', [['', '(none)'], ...names], asked.columns, pick('columns')),
    select('value', figures().map((column) => [column.key, column.label]), asked.value, pick('value')));
  on('rows', draw);
  draw();
}});

// Settings by which experiments can be grouped: they vary, and not each experiment has its own.
function pivotSettings() {
  return report.columns.filter((column) => {
    if (column.group !== 'varies' || column.kind === 'figure') return false;
    const values = new Set(report.experiments.map((experiment) => experiment.values[column.key]));
    return values.size > 1 && (values.size <= 12 || values.size < report.rows.length / 2);
  });
}

// What is shown first: what the suite asks for, else the two settings with the most values, numbers along the columns.
function firstPivot(settings) {
  const asked = report.suites.map((suite) => suite.report.by || []).find((by) => by.length) || [];
  const known = asked.map(columnNamed).filter((column) => settings.includes(column)).map((column) => column.key);
  const value = report.suites.flatMap((suite) => suite.report.value || []).map(columnNamed).find((column) => figures().includes(column));
  const weight = (column) => {
    const values = new Set(report.experiments.map((experiment) => experiment.values[column.key]).filter((each) => each !== undefined));
    const having = report.experiments.filter((experiment) => experiment.values[column.key] !== undefined).length;
    return (([...values].every((each) => typeof each === 'number') ? 100 : 0) + values.size) * having;
  };
  const [first, second] = [...settings].sort((a, b) => weight(b) - weight(a)).map((column) => column.key);
  const columns = known.length ? known[known.length - 1] : first;
  const rows = known.length ? known.slice(0, -1)[0] || '' : second || '';
  return {rows, columns, value: (value || mainFigure()).key};
}

function makePivot({rows, columns, value}) {
  const column = report.column.get(value);
  const cells = new Map();
  const rowValues = new Set();
  const columnValues = new Set();
  for (const experiment of visibleRows().flatMap((row) => row.members)) {
    const at = rows ? experiment.values[rows] ?? null : '';
    const over = columns ? experiment.values[columns] ?? null : '';
    rowValues.add(at);
    columnValues.add(over);
    const key = JSON.stringify([at, over]);
    if (!cells.has(key)) cells.set(key, {values: [], states: new Set(), asked: 0});
    const cell = cells.get(key);
    cell.asked += 1;
    const found = experiment.values[value];
    if (typeof found === 'number') cell.values.push(found * column.scale);
    else cell.states.add(experiment.state);
  }
  const means = [];
  for (const cell of cells.values()) {
    if (!cell.values.length) continue;
    cell.mean = mean(cell.values);
    cell.spread = deviation(cell.values);
    means.push(cell.mean);
  }
  // A mean of which some are still missing is never the best.
  const whole = [...cells.values()].filter((cell) => cell.values.length === cell.asked).map((cell) => cell.mean);
  const top = column.better === 'lower' ? Math.min(...whole) : Math.max(...whole);
  // A setting that an experiment does not have, such as the rank of a full fine-tuning, comes last.
  const order = (values) => [...values].sort((a, b) => (a === null) - (b === null) || compare(a, b));
  return {rows, columns, column, top, rowValues: order(rowValues), columnValues: order(columnValues),
    low: Math.min(...means), high: Math.max(...means), at: (row, over) => cells.get(JSON.stringify([row, over]))};
}

function pivotTable(pivot) {
  const {rows, columns, column} = pivot;
  const rowLabel = rows ? report.column.get(rows).label : '';
  const columnLabel = columns ? report.column.get(columns).label : '';
  const over = pivot.columnValues.slice(0, MOST_VALUES);
  const leftOut = Math.max(0, pivot.columnValues.length - MOST_VALUES) + Math.max(0, pivot.rowValues.length - MOST_VALUES);
  const caption = `${column.label}: mean ± standard deviation (n)${leftOut ? `; ${leftOut} values not shown` : ''}`;
  return el('table', {class: 'pivot'}, el('caption', null, caption), el('thead', null,
    columnLabel ? el('tr', null, el('td'), el('th', {colspan: over.length, scope: 'colgroup'}, columnLabel)) : null,
    el('tr', null, el('th', {scope: 'col'}, rowLabel), over.map((value) => el('th', {scope: 'col', class: 'number'}, value === '' ? column.label : valueName(value))))),
  el('tbody', null, pivot.rowValues.slice(0, MOST_VALUES).map((row) => el('tr', null,
    el('th', {scope: 'row'}, valueName(row)), over.map((value) => pivotCell(pivot, pivot.at(row, value)))))));
}

function valueName(value) {
  return value === '' ? 'all' : value === null ? '-' : settingText(value);
}

function pivotCell(pivot, cell) {
  if (!cell) return el('td', {class: 'number missing'}, '-');
  if (!cell.values.length) {
    const state = cell.states.size === 1 ? [...cell.states][0] : 'completed';
    const text = state === 'completed' ? '-' : state === 'out_of_memory' ? 'OOM' : state.replaceAll('_', ' ');
    return el('td', {class: 'number missing'}, text);
  }
  const {column, low, high} = pivot;
  const share = high > low ? (cell.mean - low) / (high - low) : 0.5;
  const strength = column.better === 'lower' ? 1 - share : share;
  const isWhole = cell.values.length === cell.asked;
  const count = isWhole ? `(${cell.asked})` : `(${cell.values.length} of ${cell.asked})`;
  const spread = cell.spread === null ? '' : `± ${numberText(cell.spread, column.decimals)} `;
  const found = el('td', {class: isWhole && cell.mean === pivot.top && high > low && column.better ? 'number top' : 'number'}, numberText(cell.mean, column.decimals),
    el('span', {class: 'error'}, `${spread}${count}`));
  found.style.background = `rgba(var(--heat), ${(0.03 + 0.42 * strength).toFixed(3)})`;
  return found;
}

// One curve per row of the pivot over its columns; with more rows than colours the best ones.
function sweepCurves(pivot) {
  const over = pivot.columnValues.filter((value) => value !== null && pivot.rowValues.some((row) => (pivot.at(row, value) || {}).mean !== undefined));
  const curves = pivot.rowValues.map((row) => ({row, points: over.map((value) => [value, pivot.at(row, value)]).filter(([, cell]) => cell && cell.mean !== undefined)}))
    .filter((curve) => curve.points.length);
  if (over.length < 2 || !curves.length) return null;
  const sign = pivot.column.better === 'lower' ? 1 : -1;
  const goal = (curve) => Math.min(...curve.points.map(([, cell]) => sign * cell.mean));
  const drawn = new Set([...curves].sort((a, b) => goal(a) - goal(b)).slice(0, MOST_CURVES));
  const kept = curves.filter((curve) => drawn.has(curve));
  const names = kept.map((curve, number) => el('li', null, el('span', {class: `line c${number}`, 'aria-hidden': 'true'}), valueName(curve.row)));
  const title = pivot.rows ? report.column.get(pivot.rows).label : '';
  const left = curves.length - kept.length;
  return el('figure', {class: 'chart'}, el('figcaption', null, `${pivot.column.label} over ${report.column.get(pivot.columns)?.label || ''}`),
    curveDrawing(pivot, over, kept),
    pivot.rows ? el('ul', {class: 'keys'}, el('li', {class: 'soft'}, title), names) : null,
    left ? el('p', {class: 'soft small'}, `the ${MOST_CURVES} best of ${curves.length} rows`) : null);
}

const CURVE = {width: 560, height: 300, left: 56, right: 14, top: 10, bottom: 44};


function curveDrawing(pivot, over, curves) {
  const {height, left, right, top, bottom} = CURVE;
  const width = Math.min(CURVE.width, Math.max(300, document.getElementById('page').clientWidth - 30));
  const cells = curves.flatMap((curve) => curve.points.map(([, cell]) => cell));
  const low = Math.min(...cells.map((cell) => cell.mean - (cell.spread || 0)));
  const high = Math.max(...cells.map((cell) => cell.mean + (cell.spread || 0)));
  const ticks = niceTicks(low, high, 5);
  const from = Math.min(low, ticks[0] ?? low);
  const to = Math.max(high, ticks[ticks.length - 1] ?? high) === from ? from + 1 : Math.max(high, ticks[ticks.length - 1] ?? high);
  const y = (value) => top + (height - top - bottom) * (1 - (value - from) / (to - from));
  const place = placesOf(over);
  const x = (value) => left + 16 + (width - left - right - 32) * place(value);
  const digits = Math.max(0, ...ticks.map((tick) => (String(tick).split('.')[1] || '').length));
  const grid = ticks.map((tick) => [svg('line', {class: 'rule', x1: left, x2: width - right, y1: y(tick), y2: y(tick)}),
    svg('text', {x: left - 8, y: y(tick) + 4, 'text-anchor': 'end'}, Math.abs(tick) < 1e6 ? tick.toFixed(Math.min(digits, 6)) : tick.toPrecision(3))]);
  let last = -Infinity;
  const labels = over.map((value) => {
    const text = settingText(value);
    const half = text.length * 3.4;
    if (x(value) - half < last + 6) return null;
    last = x(value) + half;
    return svg('text', {x: x(value), y: height - bottom + 18, 'text-anchor': 'middle'}, text.length > 18 ? `${text.slice(0, 17)}…` : text);
  });
  const name = svg('text', {class: 'name', x: left + (width - left - right) / 2, y: height - 6, 'text-anchor': 'middle'}, report.column.get(pivot.columns).label);
  const lines = curves.map((curve, number) => curveLine(pivot, curve, `c${number}`, x, y));
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${pivot.column.label} over ${report.column.get(pivot.columns).label}`}, grid, labels, name, lines);
}

function curveLine(pivot, curve, colour, x, y) {
  const path = curve.points.map(([value, cell], number) => `${number ? 'L' : 'M'}${x(value).toFixed(1)} ${y(cell.mean).toFixed(1)}`).join('');
  const marks = curve.points.flatMap(([value, cell]) => {
    const text = `${curve.row === '' ? '' : `${report.column.get(pivot.rows).label} ${valueName(curve.row)}, `}${report.column.get(pivot.columns).label} ${settingText(value)}: `
      + `${numberText(cell.mean, pivot.column.decimals)}${cell.spread === null ? '' : ` ± ${numberText(cell.spread, pivot.column.decimals)}`} (n=${cell.values.length})`;
    const error = cell.spread ? svg('line', {x1: x(value), x2: x(value), y1: y(cell.mean - cell.spread), y2: y(cell.mean + cell.spread)}) : null;
    return [error, svg('circle', {cx: x(value), cy: y(cell.mean), r: 3.5}, svg('title', null, text))];
  });
  return svg('g', {class: `curve ${colour}`}, svg('path', {d: path}), marks);
}

// Places of values between 0 and 1: by logarithm where they span more than a factor of twenty, evenly where they are text.
function placesOf(values) {
  const numeric = values.every((value) => typeof value === 'number');
  const isLog = numeric && values[0] > 0 && values[values.length - 1] / values[0] > 20;
  if (!numeric) return (value) => values.indexOf(value) / (values.length - 1);
  const number = (value) => isLog ? Math.log(value) : value;
  const [low, high] = [number(values[0]), number(values[values.length - 1])];
  return (value) => (number(value) - low) / (high - low);
}
