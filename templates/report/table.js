// The table of all experiments.

const PAGE_OF_ROWS = 200;

views.push({id: 'table', title: 'Experiments', render(section) {
  const frame = el('div', {class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'experiments'});
  section.append(frame);
  const draw = () => frame.replaceChildren(el('table', null,
    el('thead', null, el('tr', null, el('th', null, 'experiment'), shownColumns().map((column) => el('th', null, column.label)))),
    el('tbody', null, visibleRows().slice(0, PAGE_OF_ROWS).map((row) => el('tr', null, el('th', {scope: 'row'}, openLink(row)),
      shownColumns().map((column) => el('td', null, cellOf(row, column.key).text)))))));
  on('rows', draw);
  on('columns', draw);
  draw();
}});

function shownColumns() {
  return report.columns.filter((column) => chosen.shown.has(column.key));
}
