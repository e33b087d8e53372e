// A card for each figure that has a better end: the best row, its settings, and what is within its error.

const MOST_NAMED = 3;

views.push({id: 'best', title: 'Best', render(section) {
  const grid = el('div', {class: 'cards'});
  section.append(grid);
  const draw = () => {
    const cards = report.suites.filter((suite) => !chosen.suite || suite.name === chosen.suite).flatMap(suiteCards);
    grid.replaceChildren(...cards);
    section.hidden = !cards.length;
  };
  on('rows', draw);
  draw();
}});

function suiteCards(suite) {
  const several = report.suites.length > 1 && !chosen.suite;
  return figures().filter((column) => suite.best[column.key]).map((column) => {
    const groups = suite.best[column.key];
    return el('article', {class: 'card'},
      el('h3', null, column.label, el('span', {class: 'soft'}, column.better === 'higher' ? '\u00a0↑' : '\u00a0↓')),
      several ? el('p', {class: 'soft small'}, suite.name) : null,
      groups.slice(0, MOST_NAMED).map((group) => winner(suite, column, group, groups.length > 1)),
      groups.length > MOST_NAMED ? el('p', {class: 'soft small'}, `and in ${groups.length - MOST_NAMED} more groups of comparable rows`) : null);
  });
}

function rowOf(suite, name) {
  return report.rows.find((row) => row.suite === suite.name && row.name === name);
}

function winner(suite, column, group, isOneOfSeveral) {
  const row = rowOf(suite, group.rows[0]);
  const cell = cellOf(row, column.key);
  const ties = group.rows.slice(1);
  return el('div', {class: isOneOfSeveral ? 'winner small' : 'winner'},
    el('p', {class: 'value'}, cell.text, cell.error ? el('span', {class: 'error'}, `± ${cell.error}`) : null),
    el('p', {class: 'who'}, openLink(row)),
    settingsLine(row),
    ties.length ? el('p', {class: 'soft small'}, `the same: ${someNames(ties)}`) : null,
    group.near.length ? el('p', {class: 'soft small'}, `within the error: ${someNames(group.near)}`) : null);
}

function someNames(names) {
  const more = names.length - MOST_NAMED;
  return names.slice(0, MOST_NAMED).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

function openLink(row) {
  return el('a', {href: `#exp=${encodeURIComponent(row.id)}`}, row.name);
}

function settingsLine(row) {
  const parts = varyingSettings().filter((column) => !cellOf(row, column.key).missing)
    .slice(0, 6).map((column) => el('span', null, `${column.label} `, el('b', null, cellOf(row, column.key).text)));
  return parts.length ? el('p', {class: 'settings'}, parts) : null;
}
