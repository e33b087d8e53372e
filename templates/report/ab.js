// Two rows beside each other: what was set differently, every figure with its difference, and both curves.

const MOST_OPTIONS = 300;

views.push({id: 'ab', title: 'A against B', async render(section) {
  const curves = await loadCurves();
  section.hidden = report.rows.length < 2;
  if (section.hidden) return;
  const pair = firstPair(curves);
  const picks = el('div', {class: 'picks'});
  const body = el('div', {class: 'ab'});
  section.append(el('figure', {class: 'panel'}, picks, body));
  const choosePair = (changes) => { Object.assign(pair, changes); draw(); };
  const draw = () => {
    replaceControls(picks, rowPick('A', pair.a, (row) => choosePair({a: row})), rowPick('B', pair.b, (row) => choosePair({b: row})),
      el('button', {type: 'button', click: () => choosePair({a: pair.b, b: pair.a})}, 'swap'));
    drawPair(body, pair, curves);
  };
  const fromAddress = () => {
    const found = /^#ab=([^,]*),(.*)$/.exec(location.hash);
    if (!found) return;
    const [a, b] = found.slice(1).map(rowByAddress);
    if (a && b) choosePair({a, b});
    section.scrollIntoView();
  };
  addEventListener('hashchange', fromAddress);
  onWidth(body, draw);
  fromAddress();
}});

function rowByAddress(text) {
  let id = text;
  try { id = decodeURIComponent(text); } catch { /* an address that somebody typed */ }
  return report.rows.find((row) => row.members.some((member) => member.id === id));
}

// The best row, and what it is measured by: an untrained baseline, else the next best.
function firstPair(curves) {
  const best = (curves && rankedRows(curves)[0]) || report.rows[0];
  return {a: otherRow(best), b: best};
}

function otherRow(row) {
  const others = report.rows.filter((one) => one !== row && one.suite === row.suite);
  return others.find((one) => one.members[0].cmd === 'eval') || others.find((one) => one.complete) || others[0] || report.rows.find((one) => one !== row) || row;
}

function rowPick(label, row, change) {
  const nameOf = (one) => (report.suites.length > 1 ? `${one.suite}/${one.name}` : one.name);
  if (report.rows.length <= MOST_OPTIONS) {
    return select(label, report.rows.map((one) => [one.key, nameOf(one)]), row.key, (key) => change(report.rows.find((one) => one.key === key)));
  }
  const input = el('input', {list: `names-${label}`, value: nameOf(row), change: () => {
    const found = report.rows.find((one) => nameOf(one) === input.value);
    if (found) change(found); else input.value = nameOf(row);
  }});
  const list = el('datalist', {id: `names-${label}`});
  input.addEventListener('input', () => {
    const found = report.rows.filter((one) => nameOf(one).includes(input.value)).slice(0, 50);
    list.replaceChildren(...found.map((one) => el('option', {value: nameOf(one)})));
  });
  return el('label', {class: 'pick'}, el('span', null, label), input, list);
}

function drawPair(body, {a, b}, curves) {
  const plot = el('div', {class: 'plot curves'});
  const readout = el('p', {class: 'readout small'});
  body.replaceChildren(...part('Set differently', argumentsTable(a, b) || el('p', {class: 'soft'}, 'The same arguments.')),
    ...part('Figures', figuresTable(a, b)), el('p', {class: 'soft small'}, abNote(a, b)), plot, readout);
  const drawn = [a, b].map((row) => ({row, curves: curves && rowCurves(curves, row, 0)})).filter((each) => each.curves);
  if (drawn.length) lossChart(plot, drawn, {series: 'both', log: false, readout, height: 240});
}

function abNote(a, b) {
  const repeated = [a, b].some((row) => row.members.length > 1);
  const errors = repeated ? 'the standard error of the mean over repeats, where there are any, else the score’s own' : 'the score’s own standard error';
  return `~: the difference is less than twice its error (${errors}; runs are not compared in pairs here). Green: better by more than that, or without a known error.`;
}

function argumentsTable(a, b) {
  const settings = report.columns.filter((column) => column.kind === 'setting' || (column.kind === 'text' && column.group === 'varies'));
  const labels = new Map(settings.map((column) => [column.key, column.label]));
  const names = [...new Set([...labels.keys(), ...[a, b].flatMap((row) => Object.keys(row.members[0].set))])];
  const text = (row, name) => {
    const set = row.members[0].set[name];
    if (labels.has(name)) return cellOf(row, name).text;
    return set === undefined ? '-' : typeof set[0] === 'string' ? set[0] : JSON.stringify(set[0]);
  };
  const differing = names.filter((name) => text(a, name) !== text(b, name));
  // A baseline has the suite's arguments, too, and trains with none of them.
  const commands = [a, b].map((row) => row.members[0].cmd);
  const rows = [...(commands[0] === commands[1] ? [] : [['cmd', ...commands]]),
    ...differing.map((name) => [labels.get(name) || name, text(a, name), text(b, name)])];
  return rows.length ? pairTable(['argument', 'A', 'B'], rows) : null;
}

function figuresTable(a, b) {
  // Results, and of the rest what differs.
  const both = report.columns.filter((column) => {
    const values = [a, b].map((row) => cellOf(row, column.key).value);
    return column.kind === 'figure' && values.some((value) => typeof value === 'number')
      && (column.group === 'result' || values[0] !== values[1]);
  });
  return pairTable(['figure', 'A', 'B', 'B − A', 'B / A'], both.map((column) => {
    const cells = [a, b].map((row) => cellOf(row, column.key));
    const texts = [a, b].map((row) => cellText(row, column.key));
    const values = cells.map((cell) => cell.value);
    if (values.some((value) => typeof value !== 'number')) return [axisText(column), ...texts, '-', '-'];
    const difference = values[1] - values[0];
    const error = Math.hypot(...[a, b].map((row) => standardError(row, column)));
    const unclear = error > 0 && Math.abs(difference) < 2 * error;
    const isBetter = column.better && difference && !unclear && (difference > 0) === (column.better === 'higher');
    const sign = difference > 0 ? '+' : difference < 0 ? '−' : '';
    return [axisText(column), ...texts, {text: `${unclear ? '~ ' : ''}${sign}${numberText(Math.abs(difference), column.decimals)}`, good: isBetter},
      values[0] ? `${+(values[1] / values[0]).toPrecision(3)}×` : '-'];
  }));
}

function standardError(row, column) {
  const cell = cellOf(row, column.key);
  const spread = parseFloat(cell.error) || 0;
  return row.members.length > 1 && cell.count ? spread / Math.sqrt(cell.count) : spread;
}

function pairTable(names, rows) {
  return el('div', {class: 'wide'}, el('table', null,
    el('thead', null, el('tr', null, names.map((name, place) => el('th', {scope: 'col', class: place ? 'number' : null}, name)))),
    el('tbody', null, rows.map(([name, ...cells]) => el('tr', null, el('th', {scope: 'row'}, name),
      cells.map((cell) => el('td', {class: `number long${cell.good ? ' best' : ''}`}, cell.text === undefined ? cell : cell.text)))))));
}
