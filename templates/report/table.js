// The table of all experiments: filter, sort, choice of columns, copies as CSV and Markdown.

const PAGE_OF_ROWS = 200;
const MOST_ON_ONE_LINE = 26;
const MOST_ROWS_WITHOUT_FRAME = 30;
const collator = new Intl.Collator('en', {numeric: true, sensitivity: 'base'});
const GROUPS = {result: 'Results', varies: 'What varies', more: 'Everything else'};

views.push({id: 'table', title: 'Experiments', render(section) {
  if (!report.experiments.length) {
    section.append(el('p', {class: 'soft'}, 'No experiments found.'));
    return;
  }
  let limit = PAGE_OF_ROWS;
  const frame = el('div', {class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'table of experiments'});
  const table = el('table', {class: 'experiments'});
  frame.append(table);
  const count = el('p', {class: 'soft small', id: 'shown', role: 'status'});
  const more = el('p', {class: 'more'});
  const shared = el('div', {class: 'soft small'});
  section.append(shared, toolbar(), count, frame, more, legend());
  const draw = () => {
    const rows = sortedRows();
    const columns = shownColumns();
    table.replaceChildren(tableHead(rows, columns), el('tbody', null, rows.slice(0, limit).map((row) => tableRow(row, columns))));
    frame.classList.toggle('tall', Math.min(rows.length, limit) > MOST_ROWS_WITHOUT_FRAME);
    fitErrors(table);
    count.textContent = shownText(rows);
    shared.replaceChildren(...sharedSettings());
    more.replaceChildren(...moreButtons(rows.length - limit, (number) => { limit += number; draw(); }));
  };
  const restart = () => { limit = firstLimit(); draw(); };
  on('rows', restart);
  on('order', restart);
  on('columns', draw);
  restart();
}});

function firstLimit() {
  const tops = report.suites.map((suite) => suite.report.top).filter(Boolean);
  return chosen.sort && tops.length ? Math.max(...tops) : PAGE_OF_ROWS;
}

// Columns of the table: suite and state where they tell something, then the chosen ones.
function shownColumns() {
  const rows = allRows();
  const fixed = [];
  if (report.suites.length > 1 && !chosen.suite) fixed.push({key: '(suite)', label: 'suite', group: 'fixed', kind: 'text'});
  if (rows.some((row) => !row.complete)) fixed.push({key: '(state)', label: 'state', group: 'fixed', kind: 'text'});
  const order = [...firstColumns(), ...report.columns.map((column) => column.key)];
  const filled = [...new Set(order)].map((key) => report.column.get(key)).filter((column) => chosen.shown.has(column.key)
    && rows.some((row) => !cellOf(row, column.key).missing || cellOf(row, column.key).text !== '-'));
  return [...fixed, ...filled];
}

function sortValue(row, key) {
  if (key === '(name)') return row.name;
  if (key === '(suite)') return row.suite;
  if (key === '(state)') return stateSummary(row);
  const cell = cellOf(row, key);
  return cell.missing ? null : cell.value === null ? cell.text : cell.value;
}

// Rows in the chosen order; those without a value come last whichever way.
function sortedRows() {
  const rows = visibleRows();
  if (!chosen.sort) return rows;
  const {key, down} = chosen.sort;
  const keyed = rows.map((row) => [sortValue(row, key), row]);
  const known = keyed.filter(([value]) => value !== null && !Number.isNaN(value));
  const missing = keyed.filter(([value]) => value === null || Number.isNaN(value));
  known.sort(([a], [b]) => (down ? -1 : 1) * compare(a, b));
  return [...known, ...missing].map(([, row]) => row);
}

function compare(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a === 'number') return -1;
  if (typeof b === 'number') return 1;
  return collator.compare(a, b);
}

function sortBy(column) {
  const best = column.better === 'higher';
  const now = chosen.sort && chosen.sort.key === column.key ? chosen.sort : null;
  const sort = !now ? {key: column.key, down: best} : now.down === best ? {key: column.key, down: !best} : null;
  choose({sort}, 'order');
}

function tableHead(rows, columns) {
  const name = {key: '(name)', label: rows.some((row) => row.members.length > 1) ? 'experiment (repeats together)' : 'experiment'};
  return el('thead', null, el('tr', null, [name, ...columns].map(headCell)));
}

function headCell(column) {
  const sorted = chosen.sort && chosen.sort.key === column.key ? (chosen.sort.down ? 'descending' : 'ascending') : 'none';
  const arrow = {none: '', ascending: '▲', descending: '▼'}[sorted];
  const better = column.better ? ` (${column.better} is better)` : '';
  return el('th', {scope: 'col', 'aria-sort': sorted, class: column.kind === 'figure' ? 'number' : null},
    el('button', {type: 'button', 'data-key': column.key, title: column.note || `${column.label}${better}`, click: () => {
      sortBy(column);
      const again = document.querySelector(`#table thead [data-key="${CSS.escape(column.key)}"]`);
      if (again) again.focus();
    }}, column.label, el('span', {class: 'arrow', 'aria-hidden': 'true'}, arrow)));
}

function tableRow(row, columns) {
  const isShort = row.name.length <= MOST_ON_ONE_LINE;
  return el('tr', {'data-row': row.key}, el('th', {scope: 'row', class: isShort ? 'short' : null}, openLink(row)), columns.map((column) => tableCell(row, column)));
}

function tableCell(row, column) {
  if (column.key === '(suite)') return el('td', null, row.suite);
  if (column.key === '(state)') return stateCell(row);
  const cell = cellOf(row, column.key);
  const isBest = row.best.has(column.key);
  const mark = isBest ? 'best' : row.near.has(column.key) ? 'near' : null;
  const partial = cell.count !== undefined && cell.count < row.members.length;
  const told = [mark === 'near' ? 'within the error of the best' : mark, partial ? `${cell.count} of ${row.members.length} repeats` : null];
  const classes = [column.kind === 'figure' ? 'number' : 'setting', mark, cell.missing ? 'missing' : partial ? 'partial' : null].filter(Boolean).join(' ');
  return el('td', {class: classes, title: told.filter(Boolean).join(', ') || null},
    cell.text,
    cell.error ? el('span', {class: 'error'}, `± ${cell.error}`) : null,
    mark ? el('span', {class: 'off'}, mark === 'best' ? ' best' : ' within the error of the best') : null);
}

// Errors of one column get one width, so that the figures before them stand in one line.
function fitErrors(table) {
  const widths = [];
  const errors = [...table.querySelectorAll('td .error')];
  for (const error of errors) {
    const at = error.parentElement.cellIndex;
    widths[at] = Math.max(widths[at] || 0, error.textContent.length);
  }
  for (const row of table.tBodies[0].rows) {
    for (const [at, width] of widths.entries()) {
      if (!width) continue;
      const cell = row.cells[at];
      let error = cell.querySelector('.error');
      if (!error && cell.classList.contains('number') && !cell.classList.contains('missing')) {
        error = el('span', {class: 'error'});
        cell.append(error);
      }
      if (error) error.style.minWidth = `${width * 0.86}ch`;
    }
  }
}

function stateSummary(row) {
  if (row.members.length === 1) return row.members[0].state;
  const counts = {};
  for (const member of row.members) counts[member.state] = (counts[member.state] || 0) + 1;
  const states = Object.keys(counts);
  return states.length === 1 ? states[0] : states.map((state) => `${counts[state]} ${state}`).join(', ');
}

function stateCell(row) {
  const summary = stateSummary(row).replaceAll('_', ' ');
  const told = row.members.length === 1 ? row.members[0].state_text : null;
  const worst = row.members.find((member) => !member.complete) || row.members[0];
  return el('td', {class: `state ${stateClass(worst.state)}`, title: told || null}, el('span', {class: 'dot', 'aria-hidden': 'true'}), el('span', {class: 'told'}, told || summary));
}

// What no column says because all experiments of a suite have it.
function sharedSettings() {
  const suites = report.suites.filter((suite) => suite.shared && (!chosen.suite || suite.name === chosen.suite));
  return suites.map((suite) => el('p', null, suites.length > 1 ? `${suite.name}, all: ` : 'All: ', suite.shared));
}

function shownText(rows) {
  const all = allRows().length;
  const {problems} = parseFilter(chosen.filter);
  const what = rows.length === all ? `${all.toLocaleString('en')} rows` : `${rows.length.toLocaleString('en')} of ${all.toLocaleString('en')} rows`;
  const unknown = problems.length ? `; no column is called ${problems.join(' or ')}` : '';
  const hidden = report.columns.length - shownColumns().filter((column) => column.group !== 'fixed').length;
  return `${what}${unknown}${hidden ? `; ${hidden} columns not shown` : ''}`;
}

function moreButtons(left, grow) {
  if (left <= 0) return [];
  const next = Math.min(left, PAGE_OF_ROWS);
  const buttons = [el('button', {type: 'button', click: () => grow(next)}, `show ${next.toLocaleString('en')} more`)];
  if (left > next) buttons.push(el('button', {type: 'button', click: () => grow(left)}, `show all ${left.toLocaleString('en')}`));
  return [el('span', {class: 'soft small'}, `${left.toLocaleString('en')} rows not shown `), ...buttons];
}

function legend() {
  return el('p', {class: 'soft small marks'}, el('span', {class: 'sample best'}), 'best of comparable rows that are complete ',
    el('span', {class: 'sample near'}), 'within the error of the best',
    report.rows.some((row) => row.members.length > 1 && !row.complete) ? [' ', el('i', null, 'italic'), ': not all repeats are complete'] : null);
}
