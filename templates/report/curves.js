// Loss curves of the best ranked rows that are shown: lines for training, dashes and dots for the validation split.

const COLORS = 8;
const NUMBERS_OF_CURVES = [5, 10, 20, 50];

views.push({id: 'curves', title: 'Curves', async render(section) {
  const curves = await loadCurves();
  section.hidden = !curves || !Object.keys(curves.series).length;
  if (section.hidden) return;
  const wanted = {most: 10, series: 'both', weight: 0, log: false};
  const plot = el('div', {class: 'plot curves'});
  const readout = el('p', {class: 'readout small', 'aria-live': 'off'});
  const legend = el('ul', {class: 'curve-legend'});
  const note = el('p', {class: 'soft small'});
  let chart = null;
  const draw = () => {
    if (chart) chart.destroy();
    const shown = rankedRows(curves).map((row) => ({row, curves: rowCurves(curves, row, wanted.weight)})).filter((each) => each.curves);
    const drawn = shown.slice(0, wanted.most);
    chart = drawn.length ? lossChart(plot, drawn, {...wanted, readout}) : null;
    if (!chart) plot.replaceChildren(el('p', {class: 'soft empty'}, 'No row that is shown has a curve.'));
    legend.replaceChildren(...drawn.map((each, place) => legendEntry(each.row, place, chart)));
    note.textContent = curveNotes(curves, shown, drawn);
  };
  section.append(el('figure', {class: 'panel'}, curveControls(wanted, draw), plot, readout, legend, note));
  on('rows', draw);
  onWidth(plot, draw);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}});

function curveControls(wanted, draw) {
  const change = (name, read) => (value) => { wanted[name] = read(value); draw(); };
  const slider = el('input', {type: 'range', min: 0, max: 0.95, step: 0.05, value: wanted.weight, input: () => {
    wanted.weight = Number(slider.value);
    draw();
  }});
  return el('div', {class: 'picks'},
    select('show the best', NUMBERS_OF_CURVES.map((number) => [String(number), String(number)]), String(wanted.most), change('most', Number)),
    select('loss', [['both', 'training and validation'], ['loss', 'training'], ['eval_loss', 'validation']], wanted.series, change('series', String)),
    el('label', {class: 'pick'}, el('span', null, 'smoothing'), slider),
    toggle('log scale', wanted.log, change('log', Boolean)));
}

// Visible rows, the best ranked first: the order in which the payload has its curves, rows without one last.
function rankedRows(curves) {
  const place = new Map(Object.keys(curves.series).map((id, number) => [id, number]));
  const rank = (row) => Math.min(...row.members.map((member) => (place.has(member.id) ? place.get(member.id) : Infinity)));
  return visibleRows().map((row) => [rank(row), row]).filter(([found]) => found < Infinity)
    .sort((a, b) => a[0] - b[0]).map(([, row]) => row);
}

function curveNotes(curves, shown, drawn) {
  const parts = [];
  const ranks = curves.ranks.filter((rank) => !chosen.suite || rank.suite === chosen.suite);
  const names = [...new Set(ranks.map((rank) => rank.by).filter(Boolean))].map((key) => (report.column.get(key) || {label: key}).label);
  if (drawn.length < shown.length) parts.push(`The best ${drawn.length} of ${shown.length} rows with curves${names.length ? `, by ${names.join(', ')}` : ''}; the filter of the table chooses others.`);
  const neighbors = Math.max(1, ...drawn.map((each) => (each.curves.loss ? each.curves.loss.neighbors : 1)));
  if (neighbors > 1) parts.push(`Each point of a line is the mean of up to ${neighbors} steps.`);
  if (drawn.some((each) => each.row.members.length > 1)) parts.push('Repeats are their mean, with a band of one standard deviation.');
  for (const rank of ranks) {
    if (rank.with_curves < rank.trained) parts.push(`${rank.suite}: ${rank.with_curves} of ${rank.trained} trainings have curves on this page.`);
  }
  if (drawn.length) parts.push('Drag to zoom, double-click to see all.');
  return parts.join(' ');
}

function legendEntry(row, place, chart) {
  const mark = svg('svg', {width: 22, height: 8, 'aria-hidden': 'true'},
    svg('line', {x1: 1, x2: 21, y1: 4, y2: 4, class: `c${place % COLORS}`, 'stroke-dasharray': place < COLORS ? null : '3 2'}));
  const entry = el('li', null, mark, openLink(row), row.members.length > 1 ? el('span', {class: 'soft'}, ` (n=${row.members.length})`) : null);
  const focus = (on_) => () => chart.hold(on_ ? place : null);
  entry.addEventListener('mouseenter', focus(true));
  entry.addEventListener('mouseleave', focus(false));
  return entry;
}

// Draws rows with uPlot; returns {destroy, hold}: `hold` brings one row to the front, null none.
function lossChart(plot, drawn, {series, log, readout, height}) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const tables = [];
  const lines = [{}];
  const bands = [];
  drawn.forEach(({row, curves}, place) => {
    const stroke = color(`--c${place % COLORS}`);
    for (const [name, kind] of [['loss', {}], ['eval_loss', {dash: [6, 4], points: {show: true, size: 5, fill: stroke}}]]) {
      const curve = curves[name];
      if (!curve || (series !== 'both' && series !== name)) continue;
      const line = {label: row.name, place, name, stroke, width: 1.6, spanGaps: true, dash: place < COLORS ? undefined : [3, 2], points: {show: false}, ...kind};
      const positive = (values) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
      lines.push(line);
      const isBand = curve.count > 1;
      if (isBand) {
        const at = lines.length;
        lines.push(...['low', 'high'].map(() => ({label: '', place, band: true, width: 0, spanGaps: true, points: {show: false}, stroke})));
        bands.push({series: [at + 1, at], fill: `${stroke}26`});
      }
      tables.push([curve.steps, positive(curve.mean), ...(isBand ? [positive(curve.low), positive(curve.high)] : [])]);
    }
  });
  plot.replaceChildren();
  const axis = {stroke: color('--soft'), grid: {stroke: color('--line'), width: 1}, ticks: {stroke: color('--line'), width: 1}, font: '11.5px system-ui, sans-serif'};
  const chart = new uPlot({
    width: Math.max(plot.clientWidth, 240), height: height || Math.min(Math.max(plot.clientWidth * 0.4, 260), 420),
    legend: {show: false}, series: lines, bands,
    scales: {x: {time: false}, y: {distr: log ? 3 : 1}},
    axes: [{...axis, space: 64, label: 'optimizer step', labelSize: 20, labelFont: axis.font}, {...axis, size: 52, values: log ? (_, ticks) => ticks.map((tick) => (tick === null ? '' : tickText(tick))) : undefined}],
    cursor: {focus: {prox: 24}, drag: {x: true, y: true, uni: 24}, points: {show: false}},
    focus: {alpha: 0.25},
    hooks: {setCursor: [(self) => { readout.textContent = cursorText(self, lines); }]},
  }, uPlot.join(tables), plot);
  chart.root.querySelector('canvas').setAttribute('role', 'img');
  chart.root.querySelector('canvas').setAttribute('aria-label', `loss over optimizer steps of ${drawn.map(({row}) => row.name).join(', ')}`);
  return {
    destroy: () => chart.destroy(),
    hold: (place) => lines.forEach((line, number) => {
      if (number) chart.series[number].alpha = place === null || line.place === place ? 1 : 0.15;
    }) || chart.redraw(),
  };
}

// What is under the pointer: the step and the nearest line's value there.
function cursorText(chart, lines) {
  const {idx, left, top} = chart.cursor;
  if (idx === null || idx === undefined || left < 0) return '';
  let nearest = null;
  lines.forEach((line, number) => {
    if (!number || line.band) return;
    const value = valueNear(chart.data[0], chart.data[number], idx);
    if (value === null) return;
    const distance = Math.abs(chart.valToPos(value, 'y') - top);
    if (!nearest || distance < nearest.distance) nearest = {distance, line, value};
  });
  if (!nearest) return '';
  const kind = nearest.line.name === 'eval_loss' ? 'validation' : 'training';
  return `step ${chart.data[0][idx].toLocaleString('en')}: ${nearest.line.label}, ${kind} loss ${nearest.value.toPrecision(4)}`;
}

function valueNear(steps, values, index) {
  for (let reach = 0; reach < 40; reach += 1) {
    for (const at of [index - reach, index + reach]) {
      if (values[at] !== null && values[at] !== undefined) return values[at];
    }
  }
  return null;
}
