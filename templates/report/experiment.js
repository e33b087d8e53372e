// One experiment in full, opened by `#exp=suite/name`: figures, arguments, attempts, environment, log, answers.

let detailsLoading = null;

// Details by experiment, unpacked when the first one is opened.
function loadDetails() {
  detailsLoading = detailsLoading || unpackPart(report.data.details);
  return detailsLoading;
}

views.push({id: 'experiment', render(section) {
  const body = el('div', {class: 'sheet-body'});
  const title = el('h2', {id: 'experiment-name'});
  const close = el('button', {type: 'button', 'aria-label': 'close', click: () => dialog.close()}, '×');
  const dialog = el('dialog', {class: 'sheet', 'aria-labelledby': 'experiment-name'}, el('header', null, title, close), body);
  section.append(dialog);
  // A click beside the sheet closes it; the address must not open it again.
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('close', () => { if (location.hash.startsWith('#exp=')) history.replaceState(null, '', location.pathname + location.search); });
  addEventListener('hashchange', () => { if (dialog.open && !location.hash.startsWith('#exp=')) dialog.close(); });
  on('open', async (experiment) => {
    const details = (await loadDetails() || {})[experiment.id] || {jobs: []};
    title.replaceChildren(experiment.name);
    if (!dialog.open) dialog.showModal();
    body.replaceChildren(...experimentParts(experiment, details, body.clientWidth - 2));
    body.scrollTop = 0;
  });
}});

function experimentParts(experiment, details, width) {
  const row = report.rows.find((one) => one.members.includes(experiment));
  return [
    el('p', null, stateBadge(experiment.state), ` ${(experiment.state_text || '').replace(`${experiment.state}: `, '')} `, el('span', {class: 'soft'}, `${experiment.suite} · ${experiment.cmd}`)),
    siblings(row, experiment),
    el('p', {class: 'small'}, el('a', {href: `#ab=${[otherRow(row), row].map((one) => encodeURIComponent(one.id)).join(',')}`}, 'compare with another')),
    ...part('Figures', el('div', {class: 'told'}, figureList(experiment))),
    ...part('Arguments that were set', argumentTable(experiment.set)),
    ...part('Resources', pairs(details.resources || [])),
    ...part('Attempts', timeline(details.jobs, width), attemptList(details.jobs)),
    ...details.jobs.flatMap(jobParts),
    ...answerParts(details.answers || {}),
  ].filter(Boolean);
}

function part(title, ...content) {
  const found = content.filter(Boolean);
  return found.length ? [el('h3', null, title), ...found] : [];
}

function siblings(row, experiment) {
  if (row.members.length < 2) return null;
  const link = (member) => (member === experiment ? el('b', null, member.name) : el('a', {href: `#exp=${encodeURIComponent(member.id)}`}, member.name));
  return el('p', {class: 'small'}, el('span', {class: 'soft'}, 'repeats: '), row.members.flatMap((member) => [link(member), ' ']));
}

function pairs(entries) {
  return entries.length ? el('dl', null, entries.flatMap(([name, value]) => [el('dt', null, name), el('dd', null, String(value))])) : null;
}

function figureList(experiment) {
  const one = {members: [experiment], cells: new Map()};
  const known = report.columns.filter((column) => column.kind === 'figure' && experiment.values[column.key] !== undefined);
  return pairs(known.map((column) => [column.label, cellText(one, column.key)]));
}

function argumentTable(set) {
  const entries = Object.entries(set);
  if (!entries.length) return null;
  const source = {suite: 'suite', experiment: 'experiment', matrix: 'matrix'};
  return el('div', {class: 'wide'}, el('table', null,
    el('thead', null, el('tr', null, ['argument', 'value', 'set in'].map((name) => el('th', {scope: 'col'}, name)))),
    el('tbody', null, entries.map(([name, [value, where]]) => el('tr', null, el('th', {scope: 'row'}, name),
      el('td', {class: 'long'}, typeof value === 'string' ? value : JSON.stringify(value)), el('td', {class: 'soft'}, source[where] || where))))));
}

function attemptList(jobs) {
  const lines = jobs.flatMap((job) => [queueLine(job), ...(job.attempts || []).map(([number, state, start, end, host, cause]) => el('li', null,
    `${job.job}, attempt ${number}: `, stateBadge(state), start !== null && end !== null ? ` after ${durationText(end - start)}` : '',
    el('span', {class: 'soft'}, ` on ${host}${start !== null ? `, from ${momentText(start)}` : ''}`), cause ? `: ${cause}` : ''))]).filter(Boolean);
  return lines.length ? el('ul', {class: 'small'}, lines) : null;
}

function queueLine(job) {
  if (!job.submitted) return null;
  const from = job.attempts && queuedFrom(job);
  return el('li', null, `${job.job}, submitted ${momentText(job.submitted)}`, from ? el('span', {class: 'soft'}, `, started after ${durationText(job.attempts[0][2] - from)}`) : '');
}

function jobParts(job) {
  const told = job.text ? `: ${job.text}` : '';
  const place = job.link ? el('a', {href: job.link}, job.folder) : el('code', null, job.folder);
  return [
    el('h3', null, job.job, ' ', stateBadge(job.state)),
    told || job.scheduler_id ? el('p', {class: 'small'}, job.scheduler_id ? `job ${job.scheduler_id} ` : '', told.slice(2)) : null,
    el('p', {class: 'small'}, el('span', {class: 'soft'}, 'files: '), place),
    job.checkpoint ? checkpointLine(job.checkpoint) : null,
    job.hint ? el('p', {class: 'small'}, el('span', {class: 'soft'}, 'hint: '), job.hint) : null,
    ...(job.steps || []).map(commandBlock),
    job.environment ? unusualEnvironment(job.environment) : null,
    job.log ? el('details', {open: job.state !== 'completed'}, el('summary', null, 'end of the log'), el('pre', {tabindex: '0'}, job.log.join('\n'))) : null,
  ].filter(Boolean);
}

function checkpointLine(path) {
  const button = el('button', {type: 'button', class: 'copy', click: () => copyText(path, button)}, 'copy');
  return el('p', {class: 'small'}, el('span', {class: 'soft'}, 'model: '), el('code', null, path), ' ', button);
}

function unusualEnvironment(entries) {
  return el('div', {class: 'small'}, el('span', {class: 'soft'}, 'ran with, unlike most jobs of the suite:'),
    el('ul', null, entries.map(([key, value, usual]) => el('li', null, `${key}: ${value} `, el('span', {class: 'soft'}, usual ? `(most: ${usual})` : '')))));
}

function answerParts(answers) {
  return Object.entries(answers).flatMap(([dataset, examples]) => part(`Answers in ${dataset}`,
    el('div', {class: 'answers'}, examples.map((example) => el('details', {class: example.good ? 'answer good' : 'answer'},
      el('summary', null, el('span', {class: example.good ? 'mark good' : 'mark bad'}, answerMark(example)), ` ${example.task} ${example.doc}: `, el('span', {class: 'soft'}, example.answer.slice(0, 60))),
      el('p', {class: 'soft small'}, 'prompt'), el('pre', null, example.prompt),
      el('p', {class: 'soft small'}, 'answer'), el('pre', null, example.answer),
      el('p', {class: 'soft small'}, 'expected'), el('pre', null, example.target))))));
}

function answerMark({good, score}) {
  if (score === 1 || score === 0) return good ? '✔ right' : '✘ wrong';
  return `${good ? 'best' : 'worst'}: ${+score.toPrecision(3)}`;
}
