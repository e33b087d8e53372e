// The head of the page: what was collected, chips of states that filter, a choice of suites, warnings.

views.push({id: 'head', render(section) {
  const suites = report.suites;
  document.getElementById('title').textContent = suites.length === 1 ? suites[0].name : 'hpcbench report';
  const chips = el('div', {class: 'chips', role: 'group', 'aria-label': 'filter by state'});
  const costs = el('div', {class: 'soft small'});
  section.append(...suiteTabs(), el('p', {class: 'soft', id: 'counts'}), costs, chips, ...warningList());
  const draw = () => {
    document.getElementById('counts').textContent = `${countText()} · collected ${report.data.collected_at}`;
    costs.replaceChildren(...costLines());
    chips.replaceChildren(...stateChips());
  };
  on('rows', draw);
  draw();
}});

function inSuite() {
  return report.experiments.filter((experiment) => !chosen.suite || experiment.suite === chosen.suite);
}

function countText() {
  const number = inSuite().length;
  return `${number.toLocaleString('en')} experiment${number === 1 ? '' : 's'}`;
}

// What the experiments of each chosen suite took.
function costLines() {
  const suites = report.suites.filter((suite) => suite.cost && (!chosen.suite || suite.name === chosen.suite));
  return suites.map((suite) => el('p', null, suites.length > 1 ? `${suite.name}: ` : '', suite.cost));
}

function suiteTabs() {
  if (report.suites.length < 2) return [];
  const names = ['', ...report.suites.map((suite) => suite.name)];
  const group = el('div', {class: 'tabs', role: 'group', 'aria-label': 'suite'}, names.map((name) => el('button',
    {type: 'button', 'aria-pressed': String(chosen.suite === name), click: (event) => {
      for (const other of group.children) other.setAttribute('aria-pressed', String(other === event.currentTarget));
      choose({suite: name, states: new Set()});
    }}, name || 'all suites')));
  return [group];
}

function stateChips() {
  const counts = new Map();
  for (const experiment of inSuite()) counts.set(experiment.state, (counts.get(experiment.state) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([state, count]) => el('button', {
    type: 'button', class: `chip ${stateClass(state)}`, 'data-state': state, 'aria-pressed': String(chosen.states.has(state)),
    click: () => {
      const states = new Set(chosen.states);
      if (!states.delete(state)) states.add(state);
      choose({states});
      document.querySelector(`#head [data-state="${state}"]`).focus();
    },
  }, el('span', {class: 'dot', 'aria-hidden': 'true'}), el('b', null, count.toLocaleString('en')), ` ${state.replaceAll('_', ' ')}`));
}

// The colour of a state: done, moving, waiting, out of memory, failed.
function stateClass(state) {
  const kinds = {completed: 'done', running: 'moving', pending: 'waiting', planned: 'waiting', unknown: 'waiting', blocked: 'waiting', out_of_memory: 'oom'};
  return kinds[state] || 'bad';
}

function warningList() {
  const all = [...report.data.warnings, ...report.suites.flatMap((suite) => suite.warnings)];
  if (!all.length) return [];
  const items = el('ul', {class: 'warnings'}, all.map((warning) => el('li', null, warning)));
  const title = `${all.length} warning${all.length === 1 ? '' : 's'}`;
  return [el('details', {open: all.length <= 2, class: 'warned'}, el('summary', null, title), items)];
}
