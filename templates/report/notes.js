// Notes on what the figures mean, and where and with what the jobs ran.

views.push({id: 'notes', title: 'Notes and environment', render(section) {
  const named = report.suites.length > 1;
  for (const suite of report.suites) {
    if (named) section.append(el('h3', null, suite.name));
    section.append(
      el('ul', {class: 'notes'}, suite.notes.map((note) => el('li', null, note.map(([text, isCode]) => isCode ? el('code', null, text) : text)))),
      el('details', null, el('summary', null, 'Environment'),
        el('dl', null, suite.environment.flatMap(([label, value]) => [el('dt', null, label), el('dd', null, value)]))));
  }
}});
