// Starts the page: unpacks the data, makes a section for each view, says what is wrong where a browser cannot.

async function start() {
  await load(JSON.parse(document.getElementById('data').textContent));
  const main = document.getElementById('page');
  const links = [];
  for (const view of views) {
    const section = el('section', {id: view.id});
    if (view.title) {
      section.append(el('h2', null, view.title));
      links.push([section, el('a', {href: `#${view.id}`}, view.title)]);
    }
    main.append(section);
    await view.render(section);
  }
  document.getElementById('contents').append(...links.filter(([section]) => !section.hidden).map(([, link]) => link));
  addEventListener('hashchange', openFromAddress);
  openFromAddress();
}

// `#exp=suite/name` opens an experiment.
function openFromAddress() {
  const found = /^#exp=(.*)$/.exec(location.hash);
  if (!found) return;
  let id = found[1];
  try { id = decodeURIComponent(id); } catch { /* an address that somebody typed */ }
  if (report.byId.has(id)) emit('open', report.byId.get(id));
}

try {
  await start();
} catch (error) {
  document.getElementById('page').append(el('p', {class: 'warnings', role: 'alert'},
    `The report cannot be shown: ${error}. Other formats have the same figures: hpcbench collect --format markdown.`));
}
document.documentElement.dataset.ready = 'yes';
