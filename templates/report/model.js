// What the page knows and what is chosen: experiments, rows (repeats together), columns, filter, sort order.
// Other files read `report` and `chosen`, change `chosen` through `choose`, and listen with `on`.

const report = {data: null, suites: [], columns: [], column: new Map(), experiments: [], byId: new Map(), rows: []};
const chosen = {suite: '', states: new Set(), filter: '', sort: null, shown: new Set(), merged: true};
const listeners = {rows: [], order: [], columns: [], open: []};
const views = [];

// Listens to 'rows' (other rows are visible), 'order' (the same rows, sorted otherwise), 'columns' (other columns are), 'open' (an experiment is asked for).
function on(event, listener) { listeners[event].push(listener); }
function emit(event, value) { for (const listener of listeners[event]) listener(value); }
function choose(changes, event = 'rows') { Object.assign(chosen, changes); emit(event); }

// Returns a part of the payload that grows with the number of experiments.
async function unpackPart(text) {
  return text ? JSON.parse(await unpack(text)) : null;
}

async function load(data) {
  report.data = data;
  report.suites = data.suites;
  report.columns = await unpackPart(data.columns);
  for (const column of report.columns) report.column.set(column.key, column);
  report.experiments = await unpackPart(data.experiments);
  const rows = new Map();
  report.experiments.forEach((experiment, number) => {
    for (const part of ['values', 'texts', 'errors', 'set']) experiment[part] = experiment[part] || {};
    report.byId.set(experiment.id, experiment);
    const name = experiment.base || experiment.name;
    const key = `${experiment.suite}/${name}`;
    if (!rows.has(key)) rows.set(key, {key, name, suite: experiment.suite, number, members: [], best: new Set(), near: new Set()});
    rows.get(key).members.push(experiment);
  });
  report.rows = [...rows.values()];
  for (const row of report.rows) finishRow(row);
  for (const suite of report.suites) markBest(suite, rows);
  chosen.shown = firstColumns();
  const best = report.suites.map((suite) => columnNamed(suite.report.best)).find(Boolean);
  if (best) chosen.sort = {key: best.key, down: best.better !== 'lower'};
}

// The column of this key or label, or the first whose key or label begins so.
function columnNamed(name) {
  if (!name) return undefined;
  const wanted = name.toLowerCase();
  const names = (column) => [column.key.toLowerCase(), column.label.toLowerCase()];
  return report.columns.find((column) => names(column).includes(wanted))
    || report.columns.find((column) => names(column).some((own) => own.startsWith(wanted)));
}

function finishRow(row) {
  row.id = row.members[0].id;
  row.complete = row.members.every((member) => member.complete);
  row.states = new Set(row.members.map((member) => member.state));
  row.cells = new Map();
}

function markBest(suite, rows) {
  for (const [key, groups] of Object.entries(suite.best)) {
    for (const group of groups) {
      for (const name of group.rows) rows.get(`${suite.name}/${name}`).best.add(key);
      for (const name of group.near) rows.get(`${suite.name}/${name}`).near.add(key);
    }
  }
}

// Columns that are shown at first: what the suite's `report: columns` names, in its order, else results and what varies.
function firstColumns() {
  const named = report.suites.flatMap((suite) => suite.report.columns || []).map(columnNamed).filter(Boolean);
  if (named.length) return new Set(named.map((column) => column.key));
  return new Set(report.columns.filter((column) => column.group !== 'more').map((column) => column.key));
}

// One cell: {text, value, error, count, missing}; `value` is what sorting compares, in printed units.
function cellOf(row, key) {
  let cell = row.cells.get(key);
  if (!cell) row.cells.set(key, cell = makeCell(row, report.column.get(key)));
  return cell;
}

function makeCell(row, column) {
  const {key, scale, decimals, kind} = column;
  const values = row.members.map((member) => member.values[key]).filter((value) => value !== undefined && value !== null);
  const texts = [...new Set(row.members.map((member) => member.texts[key]).filter((text) => text !== undefined))];
  if (!values.length) return {text: texts.length === 1 ? texts[0] : '-', value: null, missing: true};
  if (typeof values[0] !== 'number' || kind !== 'figure') {
    const distinct = [...new Set(values)];
    const shown = texts.length === 1 && distinct.length === 1 ? texts[0] : distinct.length === 1 ? settingText(distinct[0]) : 'varies';
    return {text: shown, value: distinct.length === 1 ? distinct[0] : null};
  }
  const printed = values.map((value) => value * scale);
  const value = mean(printed);
  if (row.members.length > 1) {
    const spread = deviation(printed);
    return {text: numberText(value, decimals), value, count: printed.length, error: spread === null ? null : numberText(spread, decimals)};
  }
  const error = row.members[0].errors[key];
  const text = texts.length ? texts[0] : numberText(value, decimals);
  return {text, value, error: error === undefined ? null : numberText(error * scale, decimals)};
}

// Rows of the chosen suite, each repeat for itself where repeats are shown apart.
function allRows() {
  const rows = report.rows.filter((row) => !chosen.suite || row.suite === chosen.suite);
  return chosen.merged ? rows : rows.flatMap(apart);
}

function apart(row) {
  if (row.members.length < 2) return [row];
  row.apart = row.apart || row.members.map((member, at) => {
    const one = {key: member.id, name: member.name, suite: row.suite, number: row.number + at / 1e4, members: [member], best: new Set(), near: new Set()};
    finishRow(one);
    return one;
  });
  return row.apart;
}

// Rows that the chips and the filter leave, in file order.
function visibleRows() {
  const {tests} = parseFilter(chosen.filter);
  return allRows().filter((row) => (!chosen.states.size || [...row.states].some((state) => chosen.states.has(state)))
    && tests.every((test) => test(row)));
}

// Arguments that differ between rows.
function varyingSettings() {
  return report.columns.filter((column) => column.group === 'varies' && column.kind === 'setting');
}

function figures() {
  return report.columns.filter((column) => column.kind === 'figure' && column.group === 'result');
}

// The figure that stands for a result where one has to be picked.
function mainFigure() {
  return report.suites.map((suite) => columnNamed(suite.report.best)).find(Boolean) || figures().find((column) => column.better) || figures()[0];
}
