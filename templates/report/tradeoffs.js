// Trade-offs: two scatters over figures that the reader chooses, with the rows that no other beats in both.

const COSTS = ['gpu_hours', 'train_gpu_hours', 'wall_time_s', 'train_time_s'];

views.push({id: 'tradeoffs', title: 'Trade-offs', async render(section) {
  const panels = firstPairs(await rankFigure()).map((pair) => tradeoffPanel(pair));
  section.append(el('div', {class: 'panels'}, panels.map((panel) => panel.element)));
  const draw = () => {
    section.hidden = !plotFigures().length;
    for (const panel of panels) panel.draw();
  };
  on('rows', draw);
  onWidth(section, draw);
}});

// Figures that differ among the rows; one that is the same everywhere, as GPU hours without GPUs, is nothing to trade.
function plotFigures() {
  const valuesOf = (column) => allRows().map((row) => cellOf(row, column.key).value).filter((value) => typeof value === 'number');
  return report.columns.filter((column) => column.kind === 'figure' && new Set(valuesOf(column)).size > 1);
}

// The figure that rows are ranked by: what the suite names, else a score, else a loss.
async function rankFigure() {
  const curves = await loadCurves();
  const ranked = curves && curves.ranks.map((rank) => rank.by).find((key) => key && report.column.has(key));
  return ranked ? report.column.get(ranked) : mainFigure();
}

function firstPairs(main) {
  const known = new Map(plotFigures().map((column) => [column.key, column]));
  const cost = COSTS.find((key) => known.has(key));
  const pairs = [[cost, main && main.key], ['memory_peak_gib', 'train_samples_per_second']]
    .filter(([x, y]) => known.has(x) && known.has(y) && x !== y);
  if (pairs.length) return pairs;
  const keys = [...known.keys()];
  return keys.length > 1 ? [keys.slice(0, 2)] : [];
}

function tradeoffPanel([firstX, firstY]) {
  const wanted = {x: firstX, y: firstY, logX: false};
  const plot = el('div', {class: 'plot'});
  const note = el('p', {class: 'soft small'});
  const picks = el('div', {class: 'picks'});
  const choices = () => plotFigures().map((column) => [column.key, column.label]);
  const draw = () => {
    replaceControls(picks,
      select('y', choices(), wanted.y, (key) => { wanted.y = key; draw(); }),
      select('x', choices(), wanted.x, (key) => { wanted.x = key; draw(); }),
      toggle('log x', wanted.logX, (value) => { wanted.logX = value; draw(); }));
    drawTradeoff(wanted, plot, note);
  };
  return {element: el('figure', {class: 'panel'}, picks, plot, note), draw};
}

function drawTradeoff(wanted, plot, note) {
  const [across, up] = [wanted.x, wanted.y].map(withDirection);
  const rows = visibleRows();
  const points = rows.map((row) => ({
    row, x: cellOf(row, across.key).value, y: cellOf(row, up.key).value, yError: parseFloat(cellOf(row, up.key).error) || 0,
  })).filter((point) => typeof point.x === 'number' && typeof point.y === 'number' && (!wanted.logX || point.x > 0));
  if (!points.length) {
    plot.replaceChildren(el('p', {class: 'soft empty'}, 'No row that is shown has both figures.'));
    note.textContent = '';
    return;
  }
  const width = Math.max(plot.clientWidth, 240);
  const drawn = scatter(points, {across, up, width, height: Math.min(Math.max(width * 0.6, 260), 420), logX: wanted.logX, most: width < 480 ? 8 : 24});
  plot.replaceChildren(drawn.element);
  const parts = [];
  if (drawn.front.length) parts.push('Green: no complete row is better in both.');
  if (points.length < rows.length) parts.push(`${points.length} of ${rows.length} rows have both figures.`);
  if (drawn.named < points.length) parts.push(`${points.length - drawn.named} points have no room for their name: point at or tap them.`);
  note.textContent = parts.join(' ');
}

// A column with its better end; costs are better low, although tables have nothing to mark there.
function withDirection(key) {
  const column = report.column.get(key);
  return COSTS.includes(key) ? {...column, better: 'lower'} : column;
}

function toggle(label, value, change) {
  const box = el('input', {type: 'checkbox', change: () => change(box.checked)});
  box.checked = value;
  return el('label', {class: 'pick'}, box, el('span', null, label));
}

// Calls `draw` whenever an element has another width, the first time it has one included.
function onWidth(element, draw) {
  let width = -1;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) {
      width = element.clientWidth;
      draw();
    }
  }).observe(element);
}
