// What stands above the table: the filter, repeats together or apart, the columns, copies.

const PROMPT_ROWS = 1000;

function toolbar() {
  // The whole page follows the filter, which takes seconds with ten thousand rows: once for a word, not for each letter.
  let waiting = null;
  const apply = () => choose({filter: filter.value});
  const typed = () => {
    clearTimeout(waiting);
    if (report.rows.length <= PROMPT_ROWS) apply();
    else waiting = setTimeout(apply, 300);
  };
  const filter = el('input', {type: 'search', id: 'filter', placeholder: filterExample(), 'aria-label': 'filter experiments',
    autocomplete: 'off', spellcheck: 'false', value: chosen.filter, input: typed});
  const hasRepeats = report.rows.some((row) => row.members.length > 1);
  const apartBox = el('input', {type: 'checkbox', change: () => choose({merged: !apartBox.checked})});
  const copies = [['copy as CSV', csvText], ['copy as Markdown', markdownText]].map(([label, text]) => el('button',
    {type: 'button', click: (event) => copyText(text(sortedRows()), event.currentTarget)}, label));
  return el('div', {class: 'toolbar'}, filter, hasRepeats ? el('label', {class: 'pick'}, apartBox, el('span', null, 'each repeat')) : null,
    columnChooser(), copies);
}

// An example of the filter that fits these experiments.
function filterExample() {
  const setting = varyingSettings()[0];
  const row = setting && report.rows.find((each) => !cellOf(each, setting.key).missing);
  const state = report.experiments.map((experiment) => experiment.state).find((each) => each !== 'completed') || 'completed';
  return `filter: ${row ? `${setting.key}=${cellOf(row, setting.key).text} ` : ''}${state}`;
}

function columnChooser() {
  const boxes = new Map();
  const box = (column) => {
    const input = el('input', {type: 'checkbox', checked: chosen.shown.has(column.key), change: () => {
      const shown = new Set(chosen.shown);
      if (input.checked) shown.add(column.key);
      else shown.delete(column.key);
      choose({shown}, 'columns');
    }});
    boxes.set(column.key, input);
    return el('label', null, input, ` ${column.label}`);
  };
  const set = (shown) => {
    for (const [key, input] of boxes) input.checked = shown.has(key);
    choose({shown}, 'columns');
  };
  const groups = Object.entries(GROUPS).map(([group, title]) => {
    const own = report.columns.filter((column) => column.group === group);
    return own.length ? el('fieldset', null, el('legend', null, title), own.map(box)) : null;
  });
  const all = el('button', {type: 'button', click: () => set(new Set(report.columns.map((column) => column.key)))}, 'all');
  const reset = el('button', {type: 'button', click: () => set(firstColumns())}, 'as at first');
  const chooser = el('details', {class: 'chooser', keydown: (event) => {
    if (event.key === 'Escape') { chooser.open = false; chooser.firstChild.focus(); }
  }}, el('summary', null, 'columns'), el('div', {class: 'popup'}, el('p', null, all, ' ', reset), groups));
  document.addEventListener('click', (event) => { if (!chooser.contains(event.target)) chooser.open = false; });
  return chooser;
}

// A head and all visible rows, as raw values: errors of scores and spreads over repeats have columns to themselves.
function csvText(rows) {
  const columns = shownColumns();
  const withError = new Set(columns.filter((column) => column.group !== 'fixed' && rows.some((row) => cellOf(row, column.key).error)));
  const head = ['experiment', ...columns.flatMap((column) => withError.has(column) ? [column.label, `${column.label} ±`] : [column.label])];
  const lines = rows.map((row) => [row.name, ...columns.flatMap((column) => {
    if (column.group === 'fixed') return [column.key === '(suite)' ? row.suite : stateSummary(row)];
    const cell = cellOf(row, column.key);
    const value = cell.missing ? (cell.text === '-' ? '' : cell.text) : cell.value === null ? cell.text : cell.value;
    return withError.has(column) ? [value, cell.error || ''] : [value];
  })]);
  return [head, ...lines].map((line) => line.map(csvField).join(',')).join('\n') + '\n';
}

function csvField(value) {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function markdownText(rows) {
  const columns = shownColumns();
  const head = ['experiment', ...columns.map((column) => column.label)];
  const rule = ['---', ...columns.map((column) => column.kind === 'figure' ? '---:' : '---')];
  const lines = rows.map((row) => [row.name, ...columns.map((column) => {
    if (column.group === 'fixed') return column.key === '(suite)' ? row.suite : stateSummary(row);
    const cell = cellOf(row, column.key);
    const text = cell.error ? `${cell.text} ± ${cell.error}` : cell.text;
    return row.best.has(column.key) ? `**${text}**` : text;
  })].map(markdownField));
  return [head.map(markdownField), rule, ...lines].map((line) => `| ${line.join(' | ')} |`).join('\n') + '\n';
}

function markdownField(text) {
  return String(text).replaceAll('\\', '&#92;').replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('`', '\\`');
}
